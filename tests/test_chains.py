"""NUTS on the same model, told in the gauge of a fit."""

import math

import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.simulate import low_rank

NOISE = rp.Noise(math.inf, 1.0, 0.0)


@pytest.fixture(scope="module")
def survey():
    return low_rank(40, 25, 1, sigma=0.1, missing=0.1, seed=0)


@pytest.fixture(scope="module")
def fit(survey):
    return rp.fit(survey.data, 1, noise=NOISE)


@pytest.fixture(scope="module")
def chains(survey, fit):
    return rp.nuts(fit, survey.data, noise=NOISE, warmup=200, samples=300, chains=2)


def test_the_closed_form_has_the_means_and_deviations_of_the_full_posterior(survey, fit, chains):
    assert chains.r_hat < 1.05 and chains.divergences == 0  # 600 draws; the example runs to 1.01
    flux = np.einsum("csnk,cskm->csnm", chains.coefficients, chains.basis)
    sd = flux.std((0, 1))
    offset = (rp.reconstruct(fit) - flux.mean((0, 1))) / sd
    assert np.sqrt(np.mean(offset**2)) < 0.15  # of which the chains' own error is 0.05
    assert np.median(rp.reconstruct_sd(fit) / sd) == pytest.approx(1.0, abs=0.1)


def test_draws_in_the_gauge_of_a_fit_are_the_same_model(fit, chains, survey):
    raw = chains.mcmc.get_samples(group_by_chain=True)
    np.testing.assert_allclose(
        chains.coefficients @ chains.basis,
        np.asarray(raw["coefficients"] @ raw["basis"]) * survey.data.unit,
        atol=1e-4,
    )
    across = chains.basis @ fit.basis.T
    np.testing.assert_allclose(across, np.broadcast_to(np.eye(1), across.shape), atol=1e-5)
    assert chains.noise == {}  # all of it was given


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 10**8}, "GiB: NUTS is a reference for small problems"), ({"chains": 0}, "at least 1")],
)
def test_what_cannot_be_sampled_is_refused(survey, fit, options, message):
    with pytest.raises(ValueError, match=message):
        rp.nuts(fit, survey.data, **options)


def test_floors_and_widths_come_in_the_users_unit():
    survey = low_rank(20, 15, 1, sigma=0.1, seed=0)
    big = rp.dataset(500.0 * survey.data.flux, survey.data.ivar / 500.0**2)
    fit = rp.fit(big, 1, noise=NOISE)
    learned = rp.nuts(fit, big, noise=rp.Noise(), warmup=5, samples=4, chains=1)
    assert set(learned.noise) == {"nu", "scale", "floor", "contamination", "width"}
    for name in ("floor", "width"):
        np.testing.assert_allclose(
            learned.noise[name][0], learned.mcmc.get_samples()[name] * big.unit, rtol=1e-5
        )


def test_the_gauge_of_a_fit_undoes_any_change_of_basis():
    survey = low_rank(300, 60, 3, seed=1)
    fit = rp.fit(survey.data, 3)
    R = np.random.default_rng(0).normal(size=(3, 3))
    A, G = rp.in_gauge_of(fit, fit.coefficients @ np.linalg.inv(R), R @ fit.basis)
    np.testing.assert_allclose(G, fit.basis, atol=1e-5)
    np.testing.assert_allclose(A, fit.coefficients, atol=1e-4)
    with pytest.raises(ValueError, match="must end in axes"):
        rp.in_gauge_of(fit, fit.coefficients[:, :2], fit.basis)
    with pytest.raises(ValueError, match="not finite or has no part"):
        rp.in_gauge_of(fit, fit.coefficients, 0.0 * fit.basis)


def test_a_flat_prior_has_no_population_to_sample_with(survey):
    flat = rp.fit(survey.data, 1, noise=NOISE, prior=rp.Prior.flat())
    with pytest.raises(ValueError, match="no population to sample with"):
        rp.nuts(flat, survey.data)


def test_other_pixels_are_refused(survey, fit):
    with pytest.raises(ValueError, match="pixels"):
        rp.nuts(fit, low_rank(10, 12, 1).data)


def test_what_the_program_fixes_counts_as_given():
    survey = low_rank(20, 15, 1, sigma=0.1, seed=0)
    big = rp.dataset(500.0 * survey.data.flux, survey.data.ivar / 500.0**2)
    fit = rp.fit(big, 1, noise=NOISE)
    chains = rp.nuts(fit, big, noise=rp.Noise(floor=50.0), model=rp.models.hmf, warmup=5, samples=4, chains=1)
    assert set(chains.noise) == {"scale"} and math.isfinite(chains.r_hat)  # nu is infinite, no cell is bad
    assert float(chains.mcmc.get_samples()["floor"][0]) == pytest.approx(50.0 / big.unit)
