"""Surprise: the null's tails against exact laws and simulation, calibration, and what is found."""

import math

import h5py
import numpy as np
import pytest
from scipy import special, stats

import robusta_prob as rp
from robusta_prob.scoring.calibration import Null, learn_null, learn_shares, log_tail, q_values
from robusta_prob.scoring.core import REACH, Wide
from robusta_prob.simulate import low_rank, toy

SOME = np.arange(60) % 2 == 0  # training objects of which a part is hidden: others teach those pixels


@pytest.mark.parametrize("null", [Null(0.0, 1.0, 1e-4), Null(0.25, 0.9, 5e-3), Null(0.0, 1.2, 0.05)])
@pytest.mark.parametrize("count", [20, 200])
def test_tail_probabilities_match_simulation(null, count):
    rng = np.random.default_rng(0)
    shape = (200_000, count) if count == 20 else (40_000, count)
    core = rng.standard_normal(shape) if null.inverse_df == 0 else rng.standard_t(1 / null.inverse_df, shape)
    wide = rng.random(shape) < null.contamination
    surprise = null.surprise(np.where(wide, rng.uniform(-REACH, REACH, shape), null.scale * core))
    p = np.exp(log_tail(null, surprise.mean(1), np.full(shape[0], float(count))))
    for level in (0.5, 0.1, 0.01, 0.001):
        share, error = (p < level).mean(), math.sqrt(level / shape[0])
        assert share == pytest.approx(level, abs=4 * error + 0.05 * level)


@pytest.mark.parametrize("eps", [5e-3, 0.02])
def test_z_is_standard_normal_where_the_law_holds_as_it_is_written(eps):
    """1200 pixels, of which some are drawn from all of the wide part: at its end alone z would be -0.1."""
    rng, null, shape = np.random.default_rng(0), Null(0.0, 1.0, eps), (3000, 1200)
    z = np.where(rng.random(shape) < eps, rng.uniform(-REACH, REACH, shape), rng.standard_normal(shape))
    deviate = -special.ndtri_exp(log_tail(null, null.surprise(z).mean(1), np.full(3000, 1200.0)))
    assert stats.kstest(deviate, "norm").pvalue > 1e-3
    assert deviate.mean() == pytest.approx(0.0, abs=0.05)  # the standard error is 0.018


@pytest.mark.parametrize("null", [Null(0.0, 1.0, 1e-7), Null(0.0, 1.0, 5e-3), Null(0.25, 0.9, 5e-3)])
def test_tails_are_those_of_the_law_convolved(null):
    """One pixel's law on a lattice of surprise, 40 times with itself, down to 1e-12."""
    count, step = 40, 0.01
    edges = np.append(np.linspace(0.0, REACH, 50_001), math.inf)
    eta, scale, eps = null[:3]
    core = stats.norm(0.0, scale) if eta == 0 else stats.t(1 / eta, 0.0, scale)
    mass = 2.0 * (1.0 - eps) * -np.diff(core.sf(edges))
    mass[:-1] += eps / 50_000
    bound = max(eps, 1e-4)
    z = np.append(0.5 * (edges[1:-1] + edges[:-2]), REACH)
    value = -np.log((1.0 - bound) * core.pdf(z) + bound / (2.0 * REACH))
    place = (value - value.min()) / step
    low, part = place.astype(int), place % 1.0
    law = np.bincount(low, mass * (1.0 - part), low.max() + 2)
    law += np.bincount(low + 1, mass * part, low.max() + 2)
    five = np.convolve(np.convolve(np.convolve(law, law), np.convolve(law, law)), law)
    ten = np.convolve(five, five)
    twenty = np.convolve(ten, ten)
    total = np.convolve(twenty, twenty)
    tail = np.cumsum(total[::-1])[::-1] - 0.5 * total
    at = np.searchsorted(-tail, -np.array([0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12]))
    found = np.exp(log_tail(null, value.min() + step * at / count, np.full(len(at), float(count))))
    np.testing.assert_allclose(found, tail[at], rtol=0.03)


def test_gaussian_tails_without_contamination_are_those_of_chi_squared():
    """With a negligible wide part the surprise is z^2/2 up to a constant, far into the tail."""
    null, count = Null(0.0, 1.0, 1e-12), 100.0
    chi2 = np.array([60.0, 100.0, 150.0, 220.0, 300.0])
    mean = 0.5 * chi2 / count + 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(
        log_tail(null, mean, np.full(5, count)), stats.chi2.logsf(chi2, count), rtol=0.02, atol=0.01
    )


@pytest.mark.parametrize(
    ("eps", "count", "least"), [(5e-3, 401, 0.01), (5e-3, 20, 0.01), (1e-7, 100, 0.01), (1e-7, 20, 1e-3)]
)
def test_one_pixel_is_bounded(eps, count, least):
    """Of an average object; where none is wide, one of 20 pixels counts for more."""
    null = Null(0.0, 1.0, eps)
    z = special.ndtri((np.arange(count - 1) + 0.5) / (count - 1))
    usual, hit = (null.surprise(np.append(z, last)).mean() for last in (0.5, 1e9))
    assert hit - usual < null.cap / (count - 1)
    p = np.exp(log_tail(null, np.array([usual, hit]), np.full(2, float(count))))
    assert (p > least).all()


@pytest.mark.parametrize("hit", [1, 3, 10])
def test_one_bad_pixel_makes_no_discovery(hit):
    """1000 objects of 20 pixels: the share that is learned expects as many such objects as there are."""
    z = np.random.default_rng(0).standard_normal((1000, 20))
    z[:hit, 0] = 1e3
    null = learn_null(z.ravel())
    q = q_values(np.exp(log_tail(null, null.surprise(z).mean(1), np.full(1000, 20.0))))
    assert (q > 0.05).all()


def test_the_null_law_is_recovered():
    rng = np.random.default_rng(2)
    z = 1.1 * rng.standard_t(6, 400_000)
    z[:2000] = rng.uniform(-REACH, REACH, 2000)
    null = learn_null(z)
    assert 1 / null.inverse_df == pytest.approx(6.0, rel=0.1)
    assert null.scale == pytest.approx(1.1, rel=0.02)
    assert null.contamination == pytest.approx(0.005, rel=0.2)


def test_a_wide_part_is_the_same_in_draws_bins_and_quantiles():
    wide = Wide((0.3, 0.0, 0.2, 0.1, 0.4))
    z = wide.draw(np.random.default_rng(0), 200_000)
    edges = np.array([-np.inf, -30.0, -6.0, 0.0, 10.0, 40.0, np.inf])
    mass = wide.between(edges)
    np.testing.assert_allclose(np.histogram(z, edges)[0] / len(z), mass, atol=0.005)
    size, of_size = wide.quantiles(1000)
    of_bins = np.histogram(size, [0.0, 10.0, 40.0, np.inf], weights=of_size)[0]
    np.testing.assert_allclose(
        of_bins, 2.0 * np.histogram(z, [0.0, 10.0, 40.0, np.inf])[0] / len(z), atol=0.01
    )
    np.testing.assert_allclose([mass.sum(), of_size.sum()], 1.0)


def test_groups_teach_one_core_and_wide_parts_of_their_own():
    """Bad pixels half drowned in one group, far out in the other: neither are flat over the whole range."""
    rng = np.random.default_rng(0)
    groups = [1.1 * rng.standard_t(8, 300_000) for _ in range(2)]
    groups[0][:6000] += rng.choice([-1.0, 1.0], 6000) * rng.uniform(2.5, 7.5, 6000)
    groups[1][:3000] += rng.choice([-1.0, 1.0], 3000) * rng.uniform(60.0, 90.0, 3000)
    null = learn_shares(learn_null(np.concatenate(groups)), groups)
    assert 1 / null.inverse_df == pytest.approx(8.0, rel=0.15)
    assert null.scale == pytest.approx(1.1, rel=0.02)
    assert null.shares == pytest.approx((0.02, 0.01), rel=0.3)  # flat laws reach under the core as well
    near, far = null.falloffs
    assert sum(near[:2]) > 0.9 and far[-1] > 0.95
    for knot, z in zip(null.knots, groups, strict=True):  # the mean surprise is that of the group
        expected = knot._replace(contamination=null.contamination).expected_surprise(np.zeros(1))
        assert null.surprise(z).mean() == pytest.approx(expected[0], abs=0.01)


def test_where_no_pixel_is_wide_none_is_expected():
    """1200 pixels of pure noise: an expected share of 1e-4 would put every object at z = -0.06."""
    z = np.random.default_rng(3).standard_normal((3000, 1200))
    null = learn_null(z.ravel())
    deviate = -special.ndtri_exp(log_tail(null, null.surprise(z).mean(1), np.full(3000, 1200.0)))
    assert deviate.mean() == pytest.approx(0.0, abs=0.05)  # the standard error is 0.018
    assert deviate.std() == pytest.approx(1.0, abs=0.04)
    assert null.cap < 14.0  # and still one bad pixel says no more than that


def test_q_values_are_benjamini_and_hochbergs():
    p = np.array([0.01, np.nan, 0.5, 0.02, 0.9])
    np.testing.assert_allclose(q_values(p), [0.04, np.nan, 2 / 3, 0.04, 0.9])
    np.testing.assert_allclose(q_values(p)[[0, 2, 3, 4]], stats.false_discovery_control(p[[0, 2, 3, 4]]))


def test_double_precision_is_kept_in_scores():
    """Errors of 1e-9: in float32 the residuals would be rounding noise."""
    survey = low_rank(200, 40, 2, sigma=1e-9, seed=0, dtype="float64")
    fit = rp.fit(survey.data, 2)
    scores = rp.surprise(fit, survey.data, pixel=True)
    assert np.nanstd(scores.pixel.z) == pytest.approx(1.0, abs=0.03)
    assert scores.pixel.z.dtype == np.float64


def test_a_given_null_makes_scores_independent_of_their_neighbours():
    survey = low_rank(300, 60, 3, seed=0)
    fit = rp.fit(survey.data, 3)
    null = rp.surprise(fit, survey.data).null
    part = rp.surprise(fit, survey.data.take(slice(10, 20)), null=null).object.p_value
    whole = rp.surprise(fit, survey.data, null=null).object.p_value[10:20]
    np.testing.assert_allclose(part, whole, rtol=0.1)


def test_a_null_law_goes_from_fit_to_fit_whatever_their_units():
    """Shares of wide pixels go with the errors of the object in flux, not in a fit's power of two."""
    sigma = np.geomspace(0.03, 0.3, 300)[:, None]
    flux = low_rank(300, 60, 3, seed=0).truth.clean
    flux = flux + sigma * np.random.default_rng(0).standard_normal(flux.shape)
    null = rp.Null(0.0, 1.0, 0.05, levels=(math.log(0.03), math.log(0.3)), shares=(1e-4, 0.1))
    one, other = (rp.dataset(flux, sigma**-2.0 + 0.0 * flux, unit=unit) for unit in (1.0, 64.0))
    z = [rp.surprise(rp.fit(x, 3, starts=1), x, null=null).object.z for x in (one, other)]
    assert np.abs(z[0] - z[1]).max() < 0.1  # two fits of the same spectra; in units of the fit: 3.6


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"correlation": (0.1, 2.0)}, "correlation must be between -1 and 1"),
        ({"correlation": (math.nan,)}, "correlation must be"),
        ({"inflation": 0.0}, "inflation must be 0 < inflation < inf"),
        ({"clumping": 1.0}, "clumping must be 0 <= clumping < 1"),
        ({"levels": (0.0, 0.0), "shares": (0.1, 0.1)}, "levels must be finite and rising"),
        ({"levels": (math.inf,), "shares": (0.1,)}, "levels must be finite and rising"),
        ({"levels": (0.0,)}, "shares must be as many as levels"),
        ({"levels": (0.0,), "shares": (0.0,)}, "shares must be between 0 and 1"),
        ({"falloffs": ((1.0, 0.0, 0.0, 0.0, 0.0),)}, "falloffs must be empty, or for each level 5 weights"),
        ({"levels": (0.0,), "shares": (0.1,), "falloffs": ((0.5, 0.5),)}, "falloffs must be"),
        ({"levels": (0.0,), "shares": (0.1,), "falloffs": ((0.5, 0, 0, 0, 0),)}, "falloffs must be"),
        ({"replicated": (-1.0, 1.0)}, "replicated must be None, or"),
        ({"replicated": (0.1, math.nan)}, "replicated must be None, or"),
    ],
)
def test_an_impossible_null_law_is_refused(change, match):
    with pytest.raises(ValueError, match=match):
        Null(0.0, 1.0, 0.01, **change).validated()


@pytest.mark.parametrize("nu", [math.inf, 4.0])
@pytest.mark.parametrize(("pixels", "rank"), [(60, 3), (150, 5)])
def test_p_values_of_normal_objects_are_uniform_fitted_or_held_out(nu, pixels, rank):
    survey = low_rank(3000, pixels, rank, nu=nu, missing=0.2, seed=3)
    train, _ = rp.split(survey.data, 0.5, seed=0)
    fit = rp.fit(train, rank, noise=rp.Noise(nu, 1.0, 0.0))
    found = rp.surprise(fit, survey.data).object
    assert found.in_training.sum() == 1500
    for group in (found.in_training, ~found.in_training):
        p = found.p_value[group]
        assert stats.kstest(p, "uniform").pvalue > 1e-3
        assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.009)  # 3.5 binomial standard deviations
        assert found.structure[group].mean() == pytest.approx(0.0, abs=0.1)  # the standard error is 0.026
        assert found.structure[group].std() == pytest.approx(1.0, abs=0.07)


def test_p_values_are_uniform_where_three_pixels_are_left_per_coefficient():
    """Without replicates too few are strange: below 1e-2 0.0015 of the fitted, 0.0035 of the others."""
    survey = low_rank(4000, 50, 10, nu=4.0, missing=0.3, seed=0)
    train, _ = rp.split(survey.data, 0.5, seed=0)
    found = rp.surprise(rp.fit(train, 10, noise=rp.Noise(4.0, 1.0, 0.0)), survey.data).object
    for group in (found.in_training, ~found.in_training):
        p = found.p_value[group]
        assert stats.kstest(p, "uniform").pvalue > 1e-3
        assert (p < 0.01).mean() == pytest.approx(0.01, abs=0.006)  # 2.7 binomial standard deviations


def test_the_toy_surveys_strangers_are_found_and_normal_spectra_are_not():
    survey = toy(1500, 400, seed=1, n_outliers=30, n_lines=10)
    fit = rp.fit(survey.data, 5)
    scores = rp.surprise(fit, survey.data)
    kind = survey.data.meta["kind"]
    flagged = scores.object.q_value < 0.05
    assert (flagged & (kind == "outlier")).sum() >= 22  # some drown in noise: see the ceiling in the design
    assert (flagged & (kind == "normal")).sum() <= 6
    assert (kind[scores.ranking[:20]] != "normal").all()


def test_objects_that_cannot_be_scored_say_why():
    survey = low_rank(300, 60, 3, seed=0)
    fit = rp.fit(survey.data, 3)
    ivar = survey.data.ivar / survey.data.unit**2
    ivar[0], ivar[1, 3:] = 0, 0
    data = rp.dataset(survey.data.flux * survey.data.unit, ivar)
    scores = rp.surprise(fit, data, pixel=True)
    assert list(scores.object.reason[:3]) == ["no observed pixel", "not more than 3 observed pixels", ""]
    assert np.isnan(scores.object.p_value[:2]).all() and np.isfinite(scores.object.p_value[2:]).all()
    assert set(scores.ranking[-2:]) == {0, 1}
    assert (np.isnan(scores.pixel.z) == ~data.observed).all()
    with pytest.raises(ValueError, match="nothing can be scored"):
        rp.surprise(fit, data.take(slice(0, 2)))


def test_training_membership_is_by_id_and_flux_never_by_position():
    survey = low_rank(300, 60, 3, seed=0)
    other = low_rank(300, 60, 3, seed=1)  # the same default ids, other objects
    fit = rp.fit(survey.data.take(slice(0, 260)), 3)
    assert rp.surprise(fit, survey.data).object.in_training.tolist() == [True] * 260 + [False] * 40
    assert not rp.surprise(fit, other.data).object.in_training.any()
    assert rp.surprise(fit, other.data, in_training=True).object.in_training.all()
    with pytest.raises(TypeError, match="in_training must be boolean"):
        rp.surprise(fit, other.data, in_training=np.arange(300))


def test_mahalanobis_names_objects_that_are_odd_but_on_the_manifold():
    for sigma in (3.0, 0.03):  # where posterior means have shrunk to a quarter of the variance, and where not
        survey = low_rank(300, 60, 3, sigma=sigma, seed=4)
        fit = rp.fit(survey.data, 3)
        distance = rp.surprise(fit, survey.data).object.mahalanobis
        assert stats.kstest(distance, stats.chi2(3).cdf).pvalue > 1e-3
    flux = survey.data.flux * survey.data.unit
    far = 12 * np.sqrt(fit.population.covariance[1, 1])
    flux[0] = (fit.population.mean + np.array([0, far, 0])) @ fit.basis
    odd = rp.surprise(fit, rp.dataset(flux, survey.data.ivar / survey.data.unit**2)).object
    assert odd.mahalanobis.argmax() == 0 and odd.mahalanobis[0] > 100
    assert odd.p_value[0] > 0.01


def test_with_a_flat_prior_coefficients_that_nothing_determines_are_far_from_nothing():
    """Maximum-likelihood estimates scatter by C + V; fewer pixels than coefficients have no estimate."""
    survey = low_rank(300, 60, 3, sigma=1.0, seed=4)
    fit = rp.fit(survey.data, 3, prior=rp.Prior.flat())
    ivar = survey.data.ivar / survey.data.unit**2
    ivar[:60, 1:], ivar[60:70, 2:], ivar[70:80, 3:] = 0, 0, 0
    found = rp.surprise(fit, rp.dataset(survey.data.flux * survey.data.unit, ivar)).object
    for column in (found.mahalanobis, found.p_mahalanobis, found.q_mahalanobis):
        np.testing.assert_array_equal(np.isnan(column), np.arange(300) < 70)
    assert stats.kstest(found.p_mahalanobis[80:], "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(found.q_mahalanobis, q_values(found.p_mahalanobis))


def test_probabilities_of_pixels_are_uniform():
    survey = low_rank(300, 60, 3, nu=5, seed=5)
    p = rp.surprise(rp.fit(survey.data, 3), survey.data, pixel=True).pixel.p
    assert stats.kstest(p[::7].ravel()[:3000], "uniform").pvalue > 1e-3


def test_a_single_object_is_judged_by_the_noise_law_of_the_fit():
    survey = low_rank(300, 60, 3, seed=0)
    fit = rp.fit(survey.data, 3)
    flux = (survey.data.flux * survey.data.unit).copy()
    flux[6] += 0.3 * np.sin(np.arange(60))  # ten times the noise
    data = rp.dataset(flux, survey.data.ivar / survey.data.unit**2)
    usual, foreign = (rp.surprise(fit, data.take([i])).object.p_value[0] for i in (5, 6))
    assert usual > 1e-3 and foreign < 1e-9


def test_an_object_that_the_fit_refused_has_the_largest_score():
    """At full weight the leverages of a precise outlier are beyond 1: nothing would be left to judge."""
    survey = toy(300, 120, seed=1)
    scores = rp.surprise(rp.fit(survey.data, 5), survey.data)
    assert not np.isnan(scores.object.p_value).any()
    assert survey.data.meta["kind"][scores.ranking[0]] == "outlier"


def test_bad_pixels_of_fixed_flux_leave_p_values_alike_in_bright_and_faint_objects():
    rng = np.random.default_rng(0)
    clean = low_rank(2000, 200, 3, seed=0).truth.clean
    sigma = 10.0 ** rng.uniform(-2.5, -0.5, (2000, 1)) * np.ones(200)
    flux = clean + sigma * rng.standard_normal(clean.shape)
    bad = rng.random(flux.shape) < 0.01
    flux[bad] += rng.choice([-0.5, 0.5], int(bad.sum()))
    data = rp.dataset(flux, sigma**-2.0)
    z = rp.surprise(rp.fit(data, 3, starts=1), data).object.z
    thirds = np.array_split(np.argsort(sigma[:, 0]), 3)
    medians = [np.median(z[rows]) for rows in thirds]
    # 0.7 apart with one share of bad pixels for all; 0.27 in the faint where all of them are equally wide
    assert medians == pytest.approx([0.0, 0.0, 0.0], abs=0.15)


def test_bad_pixels_of_fixed_flux_leave_runs_alike_in_bright_and_faint_objects():
    """Errors over two decades, most of them large: of the bright, 4 % are odd by the mean share of all."""
    rng = np.random.default_rng(0)
    clean = low_rank(2000, 200, 3, seed=0).truth.clean
    sigma = 10.0 ** (2.0 * rng.random((2000, 1)) ** 0.25 - 2.5) * np.ones(200)
    flux = clean + sigma * rng.standard_normal(clean.shape)
    bad = rng.random(flux.shape) < 0.02
    flux[bad] += rng.choice([-0.5, 0.5], int(bad.sum()))
    data = rp.dataset(flux, sigma**-2.0)
    p = rp.surprise(rp.fit(data, 3, starts=1), data).object.p_run
    for rows in np.array_split(np.argsort(sigma[:, 0]), 3):  # with one share: medians of 0.36, 0.59 and 0.76
        assert np.median(p[rows]) == pytest.approx(0.5, abs=0.15)
        assert (p[rows] < 0.01).mean() < 0.03  # 0.042 of the brightest with one share


def test_cells_are_written_where_they_are_wanted(tmp_path):
    survey = low_rank(300, 60, 3, missing=0.1, seed=0)
    fit = rp.fit(survey.data, 3)
    whole = rp.surprise(fit, survey.data, pixel=True)
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        for name in ("z", "weight"):
            file.create_dataset(name, survey.data.shape, np.float32)
        scores = rp.surprise(fit, survey.data, out=file)
        np.testing.assert_array_equal(file["z"][:], whole.pixel.z)
        np.testing.assert_array_equal(file["weight"][:], whole.pixel.weight)
        assert scores.pixel.p is None
        file.create_dataset("other", (2,), np.float32)
        with pytest.raises(ValueError, match="out must have some of 'z', 'p' and 'weight'"):
            rp.surprise(fit, survey.data, out=file)
    with pytest.raises(ValueError, match=r"out\['z'\] must hold floats in shape"):
        rp.surprise(fit, survey.data, out={"z": np.empty((3, 3))})


def test_what_surprise_refuses():
    survey = low_rank(80, 40, 2, missing=0.1, seed=0)
    fit, data = rp.fit(survey.data, 2), survey.data
    with pytest.raises(ValueError, match="projection and data must be of the same objects"):
        rp.surprise(fit, data, rp.project(fit, data.take(slice(None, None, -1))))
    with pytest.raises(ValueError, match="of a fit of rank 3, not 2"):
        rp.surprise(fit, data, rp.Projection(np.zeros((80, 3)), np.zeros((80, 3, 3)), data.ids))
    with pytest.raises(TypeError, match="projection is a str"):
        rp.surprise(fit, data, "projection.h5")
    with pytest.raises(TypeError, match=r"fit must be what rp\.fit returns, got Dataset"):
        rp.surprise(data, data)
    with pytest.raises(ValueError, match=r"null\.scale must be 0 < scale < inf; got nan"):
        rp.surprise(fit, data, null=Null(0.0, math.nan, 0.01))
    hidden = np.zeros((80, 40), bool)
    hidden[3, 5] = True
    for held_out, error, match in (
        (hidden[0], ValueError, r"held_out must have the shape of the data \(80, 40\), got \(40,\)"),
        (hidden.astype(int), TypeError, "held_out must be boolean"),
        (hidden, ValueError, "trained on cells that are said to be held out"),
        (~np.zeros_like(hidden), ValueError, "no object has more than rank = 2 fitted pixels"),
    ):
        with pytest.raises(error, match=match):
            rp.surprise(
                fit, data, held_out=held_out, pixel=True, in_training=True if held_out.all() else None
            )
    with pytest.raises(ValueError, match="ask for them"):
        rp.surprise(fit, data, held_out=hidden)
    with pytest.raises(ValueError, match="give one of them"):
        rp.surprise(fit, data, pixel=True, out={"z": np.empty((80, 40))})
    with pytest.raises(TypeError, match="out must map"):
        rp.surprise(fit, data, out=np.empty((80, 40)))
    with pytest.warns(rp.DataWarning, match="is it in the unit of the fit"):
        rp.project(fit, rp.dataset(data.flux * 1e3, data.ivar / 1e6))
    with pytest.raises(ValueError, match="replicates must be 0, or at least 50"):
        rp.surprise(fit, data, replicates=1)
    with pytest.raises(TypeError, match="null must be the"):
        rp.surprise(fit, data, null=0.5)
    with pytest.raises(ValueError, match="windows must be widths between 2 and 20"):
        rp.surprise(fit, data, windows=[40])


@pytest.mark.parametrize("trained", [True, False])
def test_cells_that_were_held_out_are_judged_as_predictions(trained):
    """The last third of every spectrum; few training objects, so that the basis is uncertain too."""
    data = low_rank(3060, 60, 3, sigma=0.5, seed=3).data
    training, others = data.take(slice(0, 60)), data.take(slice(60, None))
    judged = training if trained else others
    hidden = np.broadcast_to(np.arange(60) >= 40, judged.shape)
    fit = rp.fit(training.hide(np.broadcast_to(np.arange(60) >= 40, training.shape) & (SOME[:, None])), 3)
    hidden = hidden & SOME[:, None] if trained else hidden
    scores = rp.surprise(fit, judged, held_out=hidden, pixel=True)
    assert scores.object.in_training.all() == trained
    z = scores.pixel.z[hidden]
    assert z.std() == pytest.approx(1.0, abs=0.1 if trained else 0.05)
    projection = rp.project(fit, judged.hide(hidden))
    residual = rp.residuals(fit, judged, projection)[hidden] / (0.5 * fit.noise.scale)
    assert residual.std() > 1.05 * z.std()  # as if coefficients and basis were known
    with pytest.raises(ValueError, match="with other cells hidden"):
        rp.surprise(fit, judged, projection, pixel=True)
    hidden_away = rp.surprise(fit, judged.hide(hidden))
    np.testing.assert_array_equal(scores.object.p_value, hidden_away.object.p_value)
    np.testing.assert_array_equal(scores.object.p_run, hidden_away.object.p_run)
    garbage = rp.dataset(np.where(hidden, 1e3, judged.flux * judged.unit), judged.ivar / judged.unit**2)
    other = rp.surprise(fit, garbage, held_out=hidden, pixel=True, in_training=trained)
    np.testing.assert_array_equal(other.object.p_value, scores.object.p_value)
    assert np.nanmin(other.pixel.z[hidden]) > 100.0


def test_the_variance_of_a_held_out_cell_is_that_of_a_prediction():
    """Densely: v + g Cov(a) g + a Cov(g) a."""
    data = low_rank(120, 60, 3, sigma=0.5, seed=1).data
    fit = rp.fit(data.take(slice(0, 40)), 3, noise=rp.Noise(math.inf, 1.0, 0.0))
    new, hidden = data.take(slice(40, None)), np.zeros((80, 60), bool)
    hidden[:, 5:25] = True
    own = rp.project(fit, new.hide(hidden))
    z = rp.surprise(fit, new, own, held_out=hidden, pixel=True).pixel.z
    A, V, G = own.coefficients, own.covariance, fit.basis
    of_basis = np.einsum("nk,mkl,nl->nm", A / fit.unit, fit.basis_covariance, A / fit.unit) * fit.unit**2
    noise = fit.noise.scale**2 * (new.unit**2 / new.ivar + fit.noise.floor**2)  # learned, here as well
    variance = noise + np.einsum("km,nkl,lm->nm", G, V, G) + of_basis
    expected = (new.flux * new.unit - A @ G) / np.sqrt(variance)
    np.testing.assert_allclose(z[hidden], expected[hidden], rtol=2e-3, atol=1e-3)


def test_progress_is_told_block_by_block(monkeypatch):
    monkeypatch.setattr("robusta_prob.inference.blocks.BATCH_ROWS", 128)
    data = low_rank(300, 60, 3, seed=0).data
    told = []
    rp.surprise(rp.fit(data.take(slice(0, 128)), 3), data, callback=told.append)
    assert list(dict.fromkeys(line.what for line in told)) == ["project", "score"]
    for what in ("project", "score"):
        assert [line.done for line in told if line.what == what] == [128, 256, 300]
    assert {line.total for line in told} == {300}


def test_windows_that_are_nowhere_observed_have_no_probability():
    survey = low_rank(80, 60, 3, seed=0)
    ivar = np.where(np.arange(60) % 3, 0.0, survey.data.ivar / survey.data.unit**2)
    data = rp.dataset(survey.data.flux * survey.data.unit, ivar)
    o = rp.surprise(rp.fit(data, 3), data, windows=[8]).object
    assert np.isnan(o.p_run).all() and not np.isnan(o.p_value).any()
    np.testing.assert_array_equal(o.q_any, o.q_value)  # of one test alone


def test_spectra_too_short_for_runs_have_none():
    survey = low_rank(100, 6, 1, seed=0)
    scores = rp.surprise(rp.fit(survey.data, 1), survey.data)
    assert np.isnan(scores.object.p_run).all()
    assert not np.isnan(scores.object.p_value).any()


def test_a_cell_beyond_float32_spoils_no_score():
    survey = low_rank(80, 40, 2, seed=0, dtype="float64")
    flux = np.array(survey.data.flux * survey.data.unit)
    flux[3, 5] = 1e60
    data = rp.dataset(flux, survey.data.ivar / survey.data.unit**2, dtype="float64")
    o = rp.surprise(rp.fit(data, 2), data).object
    assert np.isfinite([o.score, o.z, o.p_run, o.structure, o.scale]).all()


def test_the_empirical_null_puts_the_bulk_where_it_belongs_and_says_so():
    """Errors that are a fifth too small in every other object."""
    survey = low_rank(400, 100, 2, seed=0)
    data, unit = survey.data, survey.data.unit
    ivar = data.ivar / unit**2 * np.where(np.arange(400) % 2, 1.0, 1.2**2)[:, None]
    wrong = rp.dataset(data.flux * unit, ivar)
    fit = rp.fit(wrong, 2)
    plain, empirical = rp.surprise(fit, wrong), rp.surprise(fit, wrong, empirical_null=True)
    assert plain.empirical.width > 1.3 and not plain.empirical.applied
    assert empirical.empirical.applied
    assert np.quantile(empirical.object.z, (0.25, 0.75)) == pytest.approx([-0.674, 0.674], abs=0.1)
    np.testing.assert_array_equal(*(np.argsort(scores.object.log_p) for scores in (plain, empirical)))
    run, bulk = (-special.ndtri(scores.object.p_run) for scores in (plain, empirical)), empirical.empirical
    before, after = run
    np.testing.assert_allclose(after, (before - bulk.run_centre) / bulk.run_width, rtol=1e-6, atol=1e-6)
    assert bulk == plain.empirical._replace(applied=True) and bulk.run_width > 1.0
