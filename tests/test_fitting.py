"""`fit` as a user meets it: recovery of truth, honest status, and clear words on bad input."""

import math
import time

import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import progress
from robusta_prob.inference.progress import epochs_left
from robusta_prob.simulate import largest_angle, low_rank, toy


@pytest.fixture(scope="module")
def survey():
    return toy(600, 150, seed=2)


@pytest.fixture(scope="module")
def fitted(survey):
    return rp.fit(survey.data, 5)


def _masked_bound(survey, rank):
    """The attainable angle: bad cells masked, started at the truth, Gaussian with the true errors."""
    data, masks = survey.data, survey.truth.masks
    ivar = np.where(masks.corrupted, 0, data.ivar) / data.unit**2
    clean = rp.dataset(data.flux * data.unit, ivar, grid=data.grid)
    noise = rp.Noise(math.inf, 1.0, 0.0)
    fit = rp.fit(clean, rank, noise=noise, prior=rp.Prior.flat(), init=survey.truth.basis)
    return largest_angle(fit.basis, survey.truth.basis)


def test_recovers_the_true_basis_as_well_as_with_the_bad_cells_masked(survey, fitted):
    angle, bound = largest_angle(fitted.basis, survey.truth.basis), _masked_bound(survey, 5)
    assert fitted.status.ok
    assert angle < 1.15 * bound  # 600 objects: the scatter of one draw about the bound


def test_learns_the_noise_law_that_the_data_were_drawn_from():
    data = low_rank(1000, 150, 3, nu=4.0, scale=1.3, floor=0.02, sigma=0.03, spread=0.7, seed=0).data
    noise = rp.fit(data, 3).noise
    assert noise.nu == pytest.approx(4.0, rel=0.1)
    assert noise.scale == pytest.approx(1.3, rel=0.05)
    assert noise.floor == pytest.approx(0.02, rel=0.1)


def test_scale_is_not_biased_by_fitted_coefficients():
    """K = 10 of M = 50: without marginalised coefficients the scale comes out 10 % low."""
    data = low_rank(2000, 50, 10, seed=1).data
    assert rp.fit(data, 10, starts=1).noise.scale == pytest.approx(1.0, abs=0.02)


def test_constant_errors_cannot_tell_a_floor_from_a_scale_and_the_status_says_so():
    rng = np.random.default_rng(0)
    flux = 1 + rng.normal(size=(300, 1)) * np.sin(np.arange(60) / 5) + 0.2 * rng.normal(size=(300, 60))
    fit = rp.fit(rp.dataset(flux, np.full(flux.shape, 100.0)), 2)
    assert "too little to tell a floor from a scale" in fit.status.message
    assert fit.noise.floor == 0
    assert fit.noise.scale == pytest.approx(2.0, rel=0.05)  # the errors were given half as large as they are


def test_the_published_loss_keeps_loss_and_noise_apart(survey):
    fit = rp.fit(survey.data, 5, noise=rp.Noise(1.0, 5.0, 0.0), prior=rp.Prior.flat())
    assert (fit.loss.nu, fit.loss.scale, fit.loss.floor) == (1.0, 5.0, 0.0)
    assert 0.5 < fit.noise.scale < 1.1 and fit.noise.nu > 1.5


def test_covariances_of_a_wrong_loss_are_those_of_the_right_one():
    """nu = 1, s = 5 on Gaussian noise, where the naive formula claims 25 times the variance."""
    survey = low_rank(300, 80, 2, seed=3)
    truth = survey.truth.coefficients @ survey.truth.basis
    for noise in (rp.Noise(math.inf, 1.0, 0.0), rp.Noise(1.0, 5.0, 0.0)):
        fit = rp.fit(survey.data, 2, noise=noise)
        error = rp.reconstruct(fit) - truth
        spread = np.einsum("kj,ikl,lj->ij", fit.basis, fit.coefficient_covariance, fit.basis)
        spread += np.einsum("ik,jkl,il->ij", fit.coefficients, fit.basis_covariance, fit.coefficients)
        assert np.mean(error**2 / spread) == pytest.approx(1.0, abs=0.15)  # 756 parameters: 5 %


def test_gauge_of_a_fit(fitted):
    np.testing.assert_allclose(fitted.basis @ fitted.basis.T, np.eye(5), atol=1e-5)
    assert (np.diff(fitted.moments) <= 0).all()


def test_a_warm_start_is_at_rest_at_once_and_a_basis_can_start_too(survey, fitted):
    again = rp.fit(survey.data, 5, init=fitted)
    assert again.status.ok
    assert len(again.history) < 0.5 * len(
        [line for line in fitted.history if not line.stage.startswith("start")]
    )
    assert largest_angle(again.basis, fitted.basis) < 1e-3
    from_truth = rp.fit(survey.data, 5, init=survey.truth.basis)
    assert largest_angle(from_truth.basis, fitted.basis) < 2e-3


def test_running_out_of_steps_is_said_with_advice(survey):
    fit = rp.fit(survey.data, 5, max_epochs=2)
    assert fit.status.code == "out_of_steps"
    assert "The schedule has not ended: raise `max_epochs`" in fit.status.message
    longer = rp.fit(survey.data, 5, max_epochs=9, tol=1e-6)
    assert "would still go" in longer.status.message and "Raise `max_epochs`" in longer.status.message
    assert np.isfinite(fit.basis).all()


def test_history_and_callback_tell_the_same_story(survey):
    lines = []
    fit = rp.fit(survey.data, 5, callback=lines.append)
    assert tuple(lines) == tuple(line for line in fit.history if not line.stage.startswith("start"))
    planned = [rp.anneal.tightening()(epoch) for epoch in range(6)]
    assert [(line.object_scale, line.tail) for line in lines[:6]] == planned


def test_an_empty_object_and_an_empty_pixel_are_kept_and_do_no_harm(survey, fitted):
    data = survey.data
    ivar = data.ivar.copy() / data.unit**2
    ivar[7] = 0
    ivar[:, 11] = 0
    holed = rp.dataset(data.flux * data.unit, ivar, grid=data.grid)
    fit = rp.fit(holed, 5)
    assert holed.census.empty_objects >= 1 and holed.census.empty_pixels == 1
    np.testing.assert_allclose(
        fit.coefficients[7], fit.population.mean, rtol=1e-4, atol=1e-4 * fit.population.mean[0]
    )
    assert not fit.trained[11] and (fit.basis[:, 11] == 0).all()
    assert np.isnan(rp.reconstruct(fit)[:, 11]).all()
    others = np.delete(np.arange(150), 11)
    assert np.isfinite(rp.reconstruct(fit)[:, others]).all()
    angle = largest_angle(fit.basis[:, others], survey.truth.basis[:, others])
    assert angle < 1.3 * largest_angle(fitted.basis, survey.truth.basis)


def test_fluxes_of_1e_minus_17_give_the_same_fit_in_their_own_units(survey, fitted):
    data, tiny = survey.data, 2.0**-57
    small = rp.dataset(data.flux.astype(float) * tiny, data.ivar.astype(float) / tiny**2, grid=data.grid)
    fit = rp.fit(small, 5)
    np.testing.assert_array_equal(fit.basis, fitted.basis)
    np.testing.assert_allclose(fit.coefficients, fitted.coefficients * tiny, rtol=1e-6)
    np.testing.assert_allclose(fit.coefficient_covariance / tiny**2, fitted.coefficient_covariance, rtol=1e-5)
    assert (fit.coefficient_covariance > 0).any()


def test_one_gross_object_and_one_gross_pixel_change_nothing(survey, fitted):
    data = survey.data
    flux, ivar = data.flux * data.unit, data.ivar / data.unit**2
    flux[3], ivar[3] = 1e6, 1e8
    flux[10, 20] = -1e9
    fit = rp.fit(rp.dataset(flux, ivar, grid=data.grid), 5)
    truth = survey.truth.basis
    assert largest_angle(fit.basis, truth) < 1.2 * largest_angle(fitted.basis, truth)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rank": 0}, ValueError, "rank must be between 1 and 150"),
        ({"rank": 151}, ValueError, "rank must be between 1 and 150"),
        ({"rank": 2.0}, TypeError, "rank must be an integer"),
        ({"noise": rp.Noise(scale=0.0)}, ValueError, "noise.scale must be a number with 0 < scale"),
        ({"starts": 7}, ValueError, "starts must be between 1 and 4"),
        ({"tol": 0.0}, ValueError, "tol positive"),
        ({"schedule": lambda epoch: 1.0}, ValueError, "must map an epoch to rp.anneal.Robustness"),
        (
            {"schedule": rp.anneal.constant(rp.anneal.Robustness(2.0))},
            ValueError,
            r"object_scale in \[0, 1\]",
        ),
        ({"max_epochs": 0}, ValueError, "max_epochs must be at least 1"),
        ({"batch_rows": 100}, ValueError, "multiple of 128"),
        ({"init": np.ones((2, 3))}, ValueError, "init must be a Fit or a finite basis"),
        ({"init": np.ones((5, 150))}, ValueError, "must be linearly independent"),
        ({"prior": rp.Prior(np.zeros(5), np.eye(5))}, ValueError, "fit learns the population"),
    ],
)
def test_impossible_settings_are_refused_with_advice(survey, options, error, message):
    with pytest.raises(error, match=message):
        rp.fit(survey.data, **{"rank": 5, **options})


def test_data_that_cannot_teach_a_basis_are_refused(survey):
    missing = rp.dataset(np.ones((4, 5)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="no cell of the data is observed"):
        rp.fit(missing, 1)
    with pytest.raises(ValueError, match="cannot be learned from 1 object"):
        rp.fit(survey.data.take(slice(0, 1)), 1)
    with pytest.raises(TypeError, match=r"make one with rp\.dataset"):
        rp.fit(np.ones((4, 5)), 1)
    with pytest.raises(ValueError, match="every observed flux is zero"):
        rp.fit(rp.dataset(np.zeros((4, 5)), np.ones((4, 5))), 1)
    square = np.random.default_rng(0).normal(size=(6, 5))
    with pytest.raises(ValueError, match="leaves 0 degrees of freedom"):
        rp.fit(rp.dataset(square, np.ones((6, 5))), 5)


def test_data_without_noise_end_with_a_word_and_not_in_a_crash():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 80))
    for flux in (exact, np.full((300, 80), 3.0)):
        fit = rp.fit(rp.dataset(flux, np.full(flux.shape, 100.0)), 3)
        assert "is there any noise" in fit.status.message
        assert np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize("prior", [rp.Prior(), rp.Prior.flat()])
@pytest.mark.parametrize("noise", [rp.Noise(), rp.Noise(1.0, 5.0, 0.0), rp.Noise(math.inf, 1.0, 0.0)])
def test_objects_and_pixels_with_hardly_any_data_never_poison_the_rest(prior, noise):
    survey = low_rank(300, 80, 3, seed=1)
    ivar = survey.data.ivar / survey.data.unit**2
    ivar[0, 1:] = ivar[1, 2:] = ivar[2] = ivar[3:, 7] = ivar[:, 9] = 0  # 1, 2 and 0 cells; 1 and 0 objects
    fit = rp.fit(rp.dataset(survey.data.flux * survey.data.unit, ivar), 3, noise=noise, prior=prior)
    assert fit.status.ok
    good = np.delete(np.arange(80), [7, 9])
    assert largest_angle(fit.basis[:, good], survey.truth.basis[:, good]) < 0.02
    if prior.is_flat:
        assert np.isnan(fit.coefficient_covariance[:3]).all()
        assert np.isfinite(fit.coefficient_covariance[3:]).all()
    else:  # the population is estimated once more after the last step: 1e-3 on variances of 5 to 23
        np.testing.assert_allclose(
            fit.coefficient_covariance[2], fit.population.covariance, rtol=1e-2, atol=1e-3
        )


def test_gross_objects_do_not_blow_up_the_gaussian_model():
    survey = low_rank(300, 60, 3, seed=0)
    ivar = survey.data.ivar / survey.data.unit**2
    ivar[4] *= 1e-30  # an object that knows nothing
    flux = (survey.data.flux * survey.data.unit).copy()
    flux[5] *= 1e3
    fit = rp.fit(rp.dataset(flux, ivar), 3, noise=rp.Noise(math.inf, 1.0, None))
    assert np.isfinite(fit.coefficients).all() and fit.status.code != "non_finite"


def test_a_schedule_that_has_not_ended_is_never_called_converged(survey):
    fit = rp.fit(survey.data, 5, schedule=rp.anneal.tightening(hold=600), max_epochs=30)
    assert fit.status.code == "out_of_steps"


def test_fits_are_immutable(fitted):
    with pytest.raises(ValueError, match="read-only"):
        fitted.basis[0, 0] = 1
    with pytest.raises(TypeError):
        fitted.config["rank"] = 7


def test_scale_is_not_biased_by_the_fitted_basis():
    """K = 8 of N = 60: without the basis' own uncertainty the scale comes out 8 % low."""
    data = low_rank(60, 400, 8, seed=1).data
    assert rp.fit(data, 8, starts=1).noise.scale == pytest.approx(1.0, abs=0.03)


def test_the_end_of_a_fit_is_foreseen_where_moves_shrink():
    assert epochs_left([1.0, 0.1, 0.01], 0.0001) == pytest.approx(2.0)
    assert epochs_left([1.0, 0.1, 0.01], 0.1) == 0.0
    assert math.isinf(epochs_left([0.1, 0.2, 0.3], 0.01)) and math.isinf(epochs_left([0.5, 0.4], 0.01))
    with rp.Progress(tol=1e-4) as bar:
        rp.fit(low_rank(200, 40, 2, seed=0).data, 3, tol=1e-4, callback=bar)
    assert " s left, basis moves" in str(bar._bar)


def test_a_log_is_told_seldom(monkeypatch, capsys):
    for pause, told in ((30.0, False), (0.01, True)):
        monkeypatch.setattr(progress, "PAUSE", pause)
        with rp.Progress("fit") as bar:
            for done in range(1, 6):
                time.sleep(0.02)
                bar(progress.Rows(done, 10, "score"))
        assert ("score:" in capsys.readouterr().err) == told
