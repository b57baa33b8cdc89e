"""The toy survey has the published facts, plain draws obey the model, and the ruler for bases is right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import interpolate, linalg, stats

from robusta_prob.simulate import Survey, largest_angle, low_rank, toy
from robusta_prob.simulate.toy_survey import clean_spectra

ALARM = 1e-3  # a p-value that one of the dozen fixed seeds here reaches by chance once in a hundred files


@pytest.fixture(scope="module")
def survey() -> Survey:
    """The published survey with fewer spectra, and anomalies in a large part of them."""
    return toy(1600, 1200, seed=3, n_outliers=200, n_lines=200)


def observed_flux(survey: Survey) -> np.ndarray:
    flux = np.asarray(survey.data.flux, float) * survey.data.unit
    return np.where(survey.data.observed, flux, np.nan)


def published_templates(wavelength: np.ndarray) -> np.ndarray:
    """The templates of toy.md, the smoothing done by brute force on a fine grid."""
    z = 2 * (np.log(wavelength) - np.log(400)) / np.log(600 / 400) - 1
    fine = np.arange(398, 602, 0.01)
    kernel = np.exp(-0.5 * (np.arange(-100, 101) * 0.01 / (wavelength.mean() / 5000)) ** 2)
    centres = np.c_[410.17, 434.05, 486.13, 516.73, 517.27, 518.36, 589.00, 589.60]
    sharp = np.exp(-0.5 * ((fine - centres.T) / 0.14) ** 2).sum(axis=0)
    lines = interpolate.CubicSpline(fine, np.convolve(sharp, kernel / kernel.sum(), mode="same"))(wavelength)
    return np.stack([z**0, z, 1.5 * z**2 - 0.5, -0.45 * lines, np.sin(2 * np.pi * (z + 1))])


def runs(mask: np.ndarray) -> list[slice]:
    """Contiguous stretches of one row."""
    step = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [slice(start, stop) for start, stop in step.reshape(-1, 2)]


# The clean spectra ----------------------------------------------------------------------------------


def test_the_data_are_labelled(survey):
    data, masks = survey.data, survey.truth.masks
    np.testing.assert_allclose(data.grid[[0, -1]], [400, 600])
    np.testing.assert_allclose(data.grid[1:] / data.grid[:-1], 1.5 ** (1 / 1199))
    assert data.labels.grid_name == "wavelength [nm]"
    assert data.labels.flux_name == "normalised flux"
    np.testing.assert_array_equal(data.meta["kind"] == "outlier", masks.outlier_spectra)
    np.testing.assert_array_equal(data.meta["kind"] == "lines", masks.foreign_spectra)
    assert (data.meta["kind"] == "normal").sum() == 1200
    assert data.dtype == survey.truth.sigma.dtype == np.float32


@pytest.mark.parametrize(
    "make", [toy, lambda n, m: low_rank(n, m, 5), lambda n, m: low_rank(n, m, 5, smooth=False)]
)
def test_clean_spectra_have_rank_five_in_the_true_basis(make):
    truth = make(300, 240).truth
    np.testing.assert_allclose(truth.basis @ truth.basis.T, np.eye(5), atol=1e-14)
    size = np.linalg.svd(truth.clean, compute_uv=False)
    assert size[5] < 1e-10 < 1e-3 < size[4]
    outside = truth.clean - truth.clean @ np.linalg.pinv(truth.basis) @ truth.basis
    assert np.abs(outside).max() < 1e-10


@pytest.mark.parametrize("many", [False, True])  # so many that 3 % in the width of a law would be seen
def test_the_clean_spectra_are_the_published_templates_with_the_published_coefficients(survey, many):
    templates, (basis, coefficients) = published_templates(survey.data.grid), survey.truth[:2]
    if many:
        basis, coefficients = clean_spectra(np.random.default_rng(0), survey.data.grid, 100_000)
    assert largest_angle(basis, templates) < 1e-6
    a, b, c, g, s = (coefficients @ (basis @ np.linalg.pinv(templates))).T
    for values, law in (
        (a, stats.norm(1, 0.1)),
        (b, stats.expon(0, 0.2)),
        (c, stats.norm(0, 0.1)),
        (np.log(g), stats.norm(0, 0.1)),
        (s, stats.norm(0.1, 0.1)),
    ):
        assert stats.kstest(values, law.cdf).pvalue > ALARM


def test_lines_survive_coarse_pixels():
    data, truth = toy(300, 60)
    flux = truth.clean.mean(axis=0)
    for line in (434.05, 486.13):
        at = np.abs(data.grid - line).argmin()
        assert flux[at - 4 : at + 5].argmin() == 4
        assert flux[at] < min(flux[at - 4], flux[at + 4]) - 0.25


# The noise ------------------------------------------------------------------------------------------


def test_the_known_noise_has_the_published_profile(survey):
    sigma, grid = survey.truth.sigma.astype(float), survey.data.grid
    beta = np.exp(-((grid - grid.mean()) ** 2) / (2 * 100**2))
    alpha_gamma = sigma / beta
    alpha = alpha_gamma.mean(axis=1)
    assert alpha.mean() == pytest.approx(0.2, rel=1e-3)  # 0.2 x mean alpha (1) x mean gamma (1)
    assert stats.kstest(stats.zscore(np.log(alpha)), "norm").pvalue > ALARM
    assert np.log(alpha).std() == pytest.approx(2, abs=4 * 2 / np.sqrt(2 * 1600))
    gamma = np.log(alpha_gamma / alpha[:, None])
    assert gamma.std() == pytest.approx(0.06, rel=0.01)
    assert np.abs(gamma.mean(axis=0)).max() < 6 * 0.06 / np.sqrt(1600)  # no profile is left
    assert sigma.min() < 1e-4
    assert sigma.max() > 1


def test_the_noise_is_standard_normal_where_nothing_was_done(survey):
    z = (observed_flux(survey) - survey.truth.clean) / survey.truth.sigma
    z = z[survey.data.observed & ~survey.truth.masks.corrupted]
    assert len(z) > 1e6
    assert stats.kstest(z[::7], "norm").pvalue > ALARM
    np.testing.assert_allclose([z.mean(), z.var()], [0, 1], atol=5e-3)


def test_inverse_variances_are_of_the_known_noise(survey):
    seen = survey.data.observed
    sigma = survey.data.unit * survey.data.ivar[seen].astype(float) ** -0.5
    np.testing.assert_allclose(sigma, survey.truth.sigma[seen], rtol=1e-6)


# The corruptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "outliers", "lines"), [(2, 1, 1), (800, 4, 1), (1600, 8, 2)])
def test_counts_scale_with_the_size(size, outliers, lines):
    masks = toy(size, 60).truth.masks
    assert masks.outlier_spectra.sum() == outliers
    assert masks.foreign_spectra.sum() == lines
    assert not (masks.foreign_spectra & masks.outlier_spectra).any()
    assert masks.outlier_columns.any(axis=0).sum() == 3
    assert masks.outlier_pixels.sum() == max(1, round(0.004 * size * 60))
    assert masks.missing.any(axis=1).sum() == size // 2


def test_all_counts_can_be_zero():
    survey = toy(60, 60, n_outliers=0, n_lines=0, n_columns=0, n_outlier_pixels=0, n_holes=0)
    assert not survey.truth.masks.corrupted.any()
    assert survey.data.census.missing == 0
    assert set(survey.data.meta["kind"]) == {"normal"}


def test_outlier_spectra_are_sines(survey):
    masks, truth = survey.truth.masks, survey.truth
    precise = masks.outlier_spectra & ~masks.missing.any(axis=1) & (np.median(truth.sigma, axis=1) < 4e-3)
    assert precise.sum() > 5
    frequency = np.arange(5, 40, 0.1)
    waves = np.exp(2j * np.pi * frequency[:, None] * np.arange(1200) / 1199)
    for row in np.flatnonzero(precise):
        good = ~masks.outlier_pixels[row] & ~masks.outlier_columns[row]
        amplitude = 2 / good.sum() * (waves[:, good] @ (observed_flux(survey)[row, good] - 1))
        best = np.abs(amplitude).argmax()
        assert 10 - 0.1 < frequency[best] < 30 + 0.1
        assert 0.1 * 0.97 < np.abs(amplitude[best]) < 0.3 * 1.03
        assert np.angle(amplitude[best]) == pytest.approx(np.pi / 2, abs=0.25)  # starts at zero, upwards


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("outlier_pixels", 0.25, 0.75), ("outlier_columns", 0.25, 0.45)]
)
def test_bad_pixels_and_columns_have_the_published_amplitudes(survey, kind, low, high):
    masks = survey.truth.masks
    hits = masks.outlier_pixels.astype(int) + masks.outlier_columns + masks.foreign_lines
    alone = getattr(masks, kind) & (hits == 1) & ~masks.outlier_spectra[:, None] & survey.data.observed
    precise = alone & (survey.truth.sigma < 3e-3)
    shift = (observed_flux(survey) - survey.truth.clean)[precise]
    assert len(shift) > 50
    assert stats.kstest(np.abs(shift), stats.uniform(low, high - low).cdf).pvalue > ALARM
    assert stats.binomtest(int((shift > 0).sum()), len(shift)).pvalue > ALARM


def test_bad_pixels_and_columns_hit_their_shares(survey):
    masks = survey.truth.masks
    assert masks.outlier_pixels.sum() == 7680  # 0.4 % of 1600 x 1200, as 38,400 of 8000 x 1200
    np.testing.assert_array_equal(np.unique(masks.outlier_columns.sum(axis=0)), [0, 480])
    assert masks.outlier_pixels.any(axis=0).mean() > 0.99  # anywhere, and not in some columns
    assert not np.array_equal(*masks.outlier_columns.T[masks.outlier_columns.any(axis=0)][:2])


def test_foreign_lines_have_the_published_shape(survey):
    masks, truth = survey.truth.masks, survey.truth
    change = truth.clean - observed_flux(survey)
    depths, widths = [], []
    for row in np.flatnonzero(masks.foreign_spectra):
        lines = runs(masks.foreign_lines[row])
        apart = len(lines) == 3 and masks.foreign_lines[row].sum() == 48
        assert apart or masks.foreign_lines[row].sum() <= 51
        for here in lines if apart else []:
            alone = not (masks.outlier_pixels | masks.outlier_columns)[row, here].any()
            if alone and truth.sigma[row, here].max() < 2e-3:
                area, pixel = change[row, here].sum(), np.arange(16)
                depths.append(area / (2 * np.sqrt(2 * np.pi)))
                centre = (change[row, here] @ pixel) / area
                widths.append(np.sqrt(change[row, here] @ (pixel - centre) ** 2 / area))
    assert len(depths) > 20
    assert np.median(widths) == pytest.approx(2, rel=0.01)  # the cut at 4 sigma takes 0.2 %
    assert 0.29 < min(depths) < max(depths) < 0.61
    assert stats.kstest(depths, stats.uniform(0.3, 0.3).cdf).pvalue > ALARM


@pytest.mark.parametrize(("pixels", "shortest", "longest"), [(1200, 50, 200), (240, 10, 40)])
def test_half_of_the_spectra_have_one_hole_away_from_pixels_and_lines(pixels, shortest, longest):
    survey = toy(600, pixels, n_lines=200)
    masks = survey.truth.masks
    holes = [runs(row) for row in masks.missing if row.any()]
    assert len(holes) == 300
    assert {len(hole) for hole in holes} == {1}
    lengths = [hole[0].stop - hole[0].start for hole in holes]
    assert shortest <= min(lengths) < 1.2 * shortest
    assert longest >= max(lengths) > 0.9 * longest
    assert not (masks.missing & (masks.outlier_pixels | masks.foreign_lines)).any()
    np.testing.assert_array_equal(survey.data.observed, ~masks.missing)
    assert masks.missing.any(axis=0).mean() > 0.98  # they reach both ends of the spectrum


def test_holes_shrink_to_fit_between_many_bad_pixels():
    masks = toy(100, 240, n_outlier_pixels=100 * 240 // 5).truth.masks
    assert masks.missing.any(axis=1).sum() == 50
    assert not (masks.missing & masks.outlier_pixels).any()
    for missing, bad in zip(masks.missing, masks.outlier_pixels, strict=True):
        stretches = [clean.stop - clean.start for clean in runs(~bad)]
        assert missing.sum() in (0, max(stretches)) or missing.sum() >= 10


# Seeds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda seed: toy(30, 80, seed=seed), lambda seed: low_rank(30, 80, 2, seed=seed)]
)
def test_a_seed_gives_the_same_survey_and_another_seed_another(make):
    one, again, other = make(5), make(5), make(6)
    np.testing.assert_array_equal(one.data.flux, again.data.flux)
    np.testing.assert_array_equal(one.data.ivar, again.data.ivar)
    assert not np.isclose(one.truth.coefficients, other.truth.coefficients).any()
    assert np.isclose(one.truth.sigma, other.truth.sigma).mean() < 0.01


@pytest.mark.parametrize(
    ("count", "its_mask"),
    [
        ("n_outliers", "outlier_spectra"),
        ("n_lines", "foreign_lines"),
        ("n_columns", "outlier_columns"),
        ("n_outlier_pixels", "outlier_pixels"),
        ("n_holes", "missing"),
    ],
)
def test_the_streams_of_the_ingredients_are_independent(count, its_mask):
    usual, changed = toy(60, 100), toy(60, 100, **{count: 7})
    np.testing.assert_array_equal(usual.truth.coefficients, changed.truth.coefficients)
    np.testing.assert_array_equal(usual.truth.sigma, changed.truth.sigma)
    alike = usual.data.observed & changed.data.observed
    alike &= ~usual.truth.masks.corrupted & ~changed.truth.masks.corrupted
    assert alike.mean() > 0.3
    np.testing.assert_array_equal(usual.data.flux[alike], changed.data.flux[alike])
    for name in ("outlier_spectra", "outlier_columns", "outlier_pixels"):
        same = np.array_equal(getattr(usual.truth.masks, name), getattr(changed.truth.masks, name))
        assert same == (name != its_mask)


# Plain draws from the model -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nu", "scale", "floor", "dtype"),
    [
        (np.inf, 1.0, 0.0, "float32"),
        (np.inf, 1.7, 0.05, "float64"),
        (3.0, 1.0, 0.0, "float64"),
        (3.0, 1.7, 0.05, "float32"),
    ],
)
def test_low_rank_noise_obeys_its_law(nu, scale, floor, dtype):
    survey = low_rank(1000, 200, 4, nu=nu, scale=scale, floor=floor, dtype=dtype, missing=0.1)
    assert survey.data.dtype == survey.truth.sigma.dtype == dtype
    total = scale * np.sqrt(survey.truth.sigma.astype(float) ** 2 + floor**2)
    t = ((observed_flux(survey) - survey.truth.clean) / total)[survey.data.observed]
    law = stats.t(nu) if np.isfinite(nu) else stats.norm()
    assert stats.kstest(t[::4], law.cdf).pvalue > ALARM
    for share in (
        0.5,
        1e-3,
    ):  # beyond the quartiles, where the width matters, and in the tails, where nu does
        beyond = int((np.abs(t) > law.isf(share / 2)).sum())
        assert stats.binomtest(beyond, len(t), share).pvalue > ALARM


def test_low_rank_draws_coefficients_sigma_and_holes_from_their_laws():
    data, truth = low_rank(4000, 60, 3, sigma=0.2, spread=0.7, missing=0.25)
    assert stats.kstest(np.log(truth.sigma[:, ::20]).ravel(), stats.norm(np.log(0.2), 0.7).cdf).pvalue > ALARM
    assert 1 - data.observed.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / data.flux.size))
    np.testing.assert_array_equal(data.observed, ~truth.masks.missing)
    assert not truth.masks.corrupted.any()
    variance = truth.coefficients.var(axis=0)
    np.testing.assert_allclose(variance[1:] / variance[:-1], 0.5, rtol=0.2)
    mean = truth.coefficients.mean(axis=0) / np.sqrt(variance / 4000)
    assert mean[0] > 50 > 4 > np.abs(mean[1:]).max()
    assert np.sqrt((truth.clean**2).mean()) == pytest.approx(1, rel=0.03)


def test_low_rank_basis_is_smooth_or_rough():
    high_pass = [
        np.fft.rfft(low_rank(5, 400, 3, smooth=smooth).truth.basis)[:, 50:] for smooth in (True, False)
    ]
    smooth, rough = ((np.abs(x) ** 2).sum() for x in high_pass)
    assert smooth < 0.02 * rough


# The ruler ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (3, 3), (2, 5), (5, 2)])
def test_largest_angle_agrees_with_dense_singular_values(k1, k2):
    rng = np.random.default_rng([k1, k2])
    one, two = rng.standard_normal((k1, 9)), rng.standard_normal((k2, 9))
    cosines = np.linalg.svd(linalg.orth(one.T).T @ linalg.orth(two.T), compute_uv=False)
    assert largest_angle(one, two) == pytest.approx(np.sqrt(1 - cosines.min() ** 2), abs=1e-12)
    mixed = rng.standard_normal((k1, k1)) @ one
    assert largest_angle(mixed, 1e-20 * two) == pytest.approx(largest_angle(two, one), abs=1e-12)


@pytest.mark.parametrize("angle", [1e-13, 1e-9, 1e-4, 0.5, np.pi / 2])
def test_largest_angle_is_right_for_small_angles(angle):
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((50, 5)))[0].T
    tilted = np.stack([q[0], np.cos(angle) * q[1] + np.sin(angle) * q[3], q[2]])
    assert largest_angle(tilted, q[:3]) == pytest.approx(np.sin(angle), abs=3e-15)
    assert largest_angle(tilted[:2], q[[0, 1, 3]]) < 3e-15  # contained


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones(4), "finite matrix"),
        (np.full((1, 4), np.nan), "finite matrix"),
        (np.ones((5, 4)), "finite matrix"),
        (np.ones((2, 4)), "linearly dependent"),
        (np.zeros((1, 4)), "linearly dependent"),
        (np.ones((1, 3)), "same pixels"),
    ],
)
def test_largest_angle_refuses_what_is_no_basis(bad, message):
    with pytest.raises(ValueError, match=message):
        largest_angle(bad, np.eye(2, 4))


# Bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_objects": 0}, "n_objects must lie between 1 and"),
        ({"n_pixels": 59}, "n_pixels must lie between 60 and"),
        ({"n_outliers": 11}, "n_outliers must lie between 0 and 10"),
        ({"n_outliers": 8, "n_lines": 3}, "n_lines must lie between 0 and 2"),
        ({"n_columns": -1}, "n_columns"),
        ({"n_outlier_pixels": 1001}, "n_outlier_pixels"),
        ({"n_holes": 11}, "n_holes"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_toy_refuses_impossible_surveys(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy(**{"n_objects": 10, "n_pixels": 100, **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"rank": 0},
        {"rank": 21},
        {"sigma": 0.0},
        {"spread": -1.0},
        {"nu": 0.0},
        {"nu": np.nan},
        {"scale": np.inf},
        {"floor": -0.1},
        {"missing": 1.0},
        {"dtype": "int32"},
    ],
)
def test_low_rank_refuses_impossible_laws(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        low_rank(**{"n_objects": 10, "n_pixels": 20, "rank": 2, **arguments})
