"""What kind of surprise: runs, lines, errors and foreign spectra, each where it was put."""

import numpy as np
import pytest
from scipy import ndimage, special, stats

import robusta_prob as rp
from robusta_prob.scoring.calibration import Null
from robusta_prob.scoring.companions import ALIKE, CHANCE, _compared
from robusta_prob.scoring.correlation import clumping, with_correlation
from robusta_prob.scoring.lines import SIGMAS, matched, templates
from robusta_prob.scoring.predictive import Cells
from robusta_prob.scoring.runs import best_windows, bounded, log_p_of_windows
from robusta_prob.scoring.search import log_p_of_best, null_scores, search_law
from robusta_prob.simulate import low_rank

N, M, RANK = 600, 300, 3
ODD = {"errors": slice(0, 15), "foreign": slice(15, 30), "lines": slice(30, 45)}
CENTRE, DEPTH, SIGMA = 120.0, -0.5, 2.5


@pytest.fixture(scope="module")
def scored():
    """Normal objects with holes, and fifteen of each kind that is named."""
    survey = low_rank(N, M, RANK, sigma=0.05, spread=0.2, missing=0.03, seed=1)
    rng = np.random.default_rng(0)
    flux = np.array(survey.data.flux * survey.data.unit)
    pixel = np.arange(M)
    rows = ODD["errors"]
    flux[rows] += (flux[rows] - survey.truth.clean[rows]) * 1.0  # noise doubled, errors as they were
    phase = rng.uniform(0, 2 * np.pi, (15, 1))
    flux[ODD["foreign"]] += 0.15 * np.sin(2 * np.pi * pixel / rng.uniform(12, 25, (15, 1)) + phase)
    flux[ODD["lines"]] += DEPTH * np.exp(-0.5 * ((pixel - CENTRE) / SIGMA) ** 2)
    data = rp.dataset(flux, survey.data.ivar / survey.data.unit**2)
    fit = rp.fit(data, RANK, starts=1)
    return fit, data, rp.surprise(fit, data, lines={"there": [CENTRE], "elsewhere": [40.0, 220.0]})


@pytest.mark.parametrize("kind", ODD)
def test_kinds_are_named(scored, kind):
    _, _, scores = scored
    rows = ODD[kind]
    flagged = scores.flagged[rows]
    assert flagged.sum() >= 14
    assert (scores.object.kind[rows][flagged] == kind).mean() >= 0.9


def test_normal_objects_have_no_kind(scored):
    _, _, scores = scored
    assert scores.flagged[45:].mean() < 0.01
    o = scores.object
    named = (o.q_value < 0.05) | (o.q_run < 0.05) | scores.flagged
    assert (o.kind[named] != "").all()
    assert set(np.unique(o.kind[~named])) <= {"", "isolated pixels"}
    assert stats.kstest(scores.object.p_run[45:], "uniform").pvalue > 1e-3


def test_windows_say_where_how_wide_and_how_deep(scored):
    _, _, scores = scored
    found = scores.windows
    here = (found.row >= 30) & (found.row < 45) & (np.abs(found.centre - CENTRE) < 3)
    assert set(found.row[here]) == set(range(30, 45))
    assert np.isfinite(found.depth[here]).all()
    assert np.median(found.depth[here]) == pytest.approx(DEPTH, rel=0.15)
    assert np.median(found.width[here]) == pytest.approx(2.355 * SIGMA, rel=0.3)
    pull = (found.depth[here] - DEPTH) / found.depth_sd[here]
    # 15 or so of them, whose place and width were looked for: between 0.5 and 1.7 in 99.8 %
    assert 0.5 < np.sqrt((pull**2).mean()) < 1.7


def test_matched_filters_find_lines_at_given_positions_alone(scored):
    _, _, scores = scored
    there, elsewhere = scores.lines["there"], scores.lines["elsewhere"]
    assert (np.sign(elsewhere.z) == np.sign(elsewhere.amplitude)).all()
    assert stats.kstest(elsewhere.z[45:], "norm").pvalue > 1e-3
    assert (there.q_value[30:45] < 1e-6).all() and (there.z[30:45] < 0).all()
    pull = (there.amplitude[30:45] - DEPTH) / there.amplitude_sd[30:45]
    assert np.median(there.amplitude[30:45]) == pytest.approx(DEPTH, rel=0.1)
    assert np.abs(pull).max() < 6
    assert stats.kstest(elsewhere.p_value[45:], "uniform").pvalue > 1e-3
    with pytest.raises(ValueError, match="lies outside the grid"):
        rp.surprise(*scored[:2], lines=[8542.0])
    with pytest.warns(rp.DataWarning, match="400 outside the grid"):
        rp.surprise(*scored[:2], lines=[40.0, 400.0])


def test_what_is_observed_of_a_line_does_not_depend_on_how_precise_it_is_elsewhere():
    """Errors that rise along the spectrum, 0.4 to 1.6 of the median; a line at either end, seen or masked."""
    grid = np.arange(100.0)
    error = np.linspace(0.4, 1.6, 100)
    for centre in (15.0, 85.0):
        T, _ = templates(np.array([centre]), grid)
        core = np.abs(grid - centre) <= 2
        seen = np.stack([np.ones(100, bool), ~core])
        z, sd = np.zeros((2, 100)), np.tile(error, (2, 1))
        cell = Cells(z, sd, np.where(seen, sd, np.inf), seen, ~seen, np.ones((2, 100)), np.zeros(2))
        sums = matched(T, cell, np.zeros((1, 100)), np.zeros((2, 1, 1)), Null(0.0, 1.0, 1e-4))
        known = np.isfinite(sums.z)
        assert known[0].all()
        # of the squared profile, a Gaussian of 1/sqrt(2) of the width, the masked pixels have
        share = np.array([2 * stats.norm.cdf(2.5 * np.sqrt(2) / width) - 1 for width in SIGMAS])
        np.testing.assert_array_equal(known[1], share < 0.5)


@pytest.mark.parametrize("width", [2.0, 2.5])
def test_amplitudes_are_off_by_their_standard_deviations(width):
    """A line of about ten deviations in every object; 2.5 pixels lie between two widths that are tried."""
    survey = low_rank(300, 60, 3, sigma=0.05, spread=0.2, missing=0.03, seed=1)
    fit = rp.fit(survey.data, 3, starts=1)
    profile = -0.3 * np.exp(-0.5 * ((np.arange(60) - 30.0) / width) ** 2)
    data = rp.dataset(survey.data.flux * survey.data.unit + profile, survey.data.ivar / survey.data.unit**2)
    null = rp.surprise(fit, survey.data).null
    line = rp.surprise(fit, data, lines=[30.0], null=null).lines["lines"]
    pull = (line.amplitude + 0.3) / line.amplitude_sd
    assert (line.amplitude_sd > 0.3 / 20).all()
    # a standard deviation of 300 has a relative error of 0.04; a few widths end far off
    assert pull.std() == pytest.approx(1.0, abs=0.17)
    assert pull.mean() == pytest.approx(0.0, abs=0.25)
    assert np.median(line.width) == pytest.approx(width, rel=0.04)


def test_every_column_says_what_it_is_said_to(scored):
    fit, data, scores = scored
    o, normal = scores.object, np.arange(N) >= 45
    count = normal.sum()
    # surprise is z^2 / 2 and a constant: half of chi squared, with three degrees of freedom taken
    score = (o.score / np.sqrt((o.n_observed - RANK) / 2))[normal]
    assert score.mean() == pytest.approx(0.0, abs=4 / np.sqrt(count))
    assert score.std() == pytest.approx(1.0, abs=0.12)
    assert (o.score[ODD["errors"]] > 0.9 * o.n_observed[ODD["errors"]]).all()  # 3/2 per pixel, bounded
    # the median of |z| has a standard deviation of 1.17 / sqrt(n) for normal z
    assert np.median(o.scale[normal]) == pytest.approx(1.0, abs=0.02)
    assert o.scale[normal].std() == pytest.approx(1.17 / np.sqrt(M), rel=0.15)
    assert np.median(o.scale[ODD["errors"]]) == pytest.approx(2.0, rel=0.06)
    assert o.structure[normal].mean() == pytest.approx(0.0, abs=4 / np.sqrt(count))
    assert o.structure[normal].std() == pytest.approx(1.0, abs=0.12)
    assert (o.structure[ODD["foreign"]] > 5).all()
    assert stats.kstest(o.p_mahalanobis[normal], "uniform").pvalue > 1e-3
    weight = rp.robust_weights(fit, data)
    np.testing.assert_allclose(o.median_weight, np.nanmedian(weight, axis=1), rtol=1e-5)
    np.testing.assert_allclose(o.low_weight, np.nanquantile(weight, 0.01, axis=1), rtol=1e-4)


def test_an_object_without_data_is_not_its_own_neighbour(scored):
    fit, data, _ = scored
    ivar = np.array(data.ivar[:60] / data.unit**2)
    ivar[3] = 0.0
    some = rp.dataset(data.flux[:60] * data.unit, ivar)
    found = rp.families(fit, some, rp.surprise(fit, some), rows=[3, 5, 4], neighbours=2)
    assert (found.neighbours != found.rows[:, None]).all() and (found.similarity[0] == 0).all()


def test_objects_with_the_same_line_are_a_family(scored):
    fit, data, scores = scored
    found = rp.families(fit, data, scores)
    profile = np.exp(-0.5 * ((np.arange(M) - CENTRE) / SIGMA) ** 2)
    size = np.linalg.norm(found.direction, axis=1)
    assert size == pytest.approx(1.0) and (found.direction @ profile / np.linalg.norm(profile) < -0.85).all()
    # of a line of ten deviations, bounded at four, over 300 pixels of noise
    assert found.share == pytest.approx(found.similarity[found.rows == 30].mean(), abs=0.1)
    z = rp.surprise(fit, data, null=scores.null, pixel=True).pixel.z / scores.null.scale
    x = np.nan_to_num(bounded(z / np.maximum(scores.object.scale, 1.0)[:, None]))
    both = np.isfinite(z[30]) & np.isfinite(z[nearest := found.neighbours[found.rows == 30][0, 0]])
    cosine = x[30, both] @ x[nearest, both]
    cosine /= np.linalg.norm(x[30, both]) * np.linalg.norm(x[nearest, both])
    assert found.similarity[found.rows == 30][0, 0] == pytest.approx(cosine, abs=1e-4)
    members = found.rows[found.family == found.family[found.rows == 30][0]]
    assert found.family[found.rows == 30][0] >= 0
    assert len(set(members) & set(range(30, 45))) >= 13
    assert not set(members) & set(range(15))  # doubled noise is shared with no other
    assert set(found.neighbours[found.rows == 30][0]) <= set(range(30, 45))
    masked = rp.families(fit, data, scores, rows=np.arange(N) < 45)
    assert set(masked.rows) == set(range(45))
    with pytest.raises(ValueError, match="rows must be indices from 0 to 599"):
        rp.families(fit, data, scores, rows=[N])
    with pytest.raises(ValueError, match="an object twice"):
        rp.families(fit, data, scores, rows=[3, 3])


@pytest.mark.parametrize("smoothed", [0.0, 1.5])
@pytest.mark.parametrize("holes", ["none", "in common", "almost apart", "at random"])
def test_unrelated_objects_are_not_alike_wherever_they_have_holes(smoothed, holes):
    """300 of them: 0.01 pairs are promised. By the spectra alone, 71 were alike whose holes coincide."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 300))
    x = ndimage.gaussian_filter1d(x, smoothed, axis=1) if smoothed else x
    pixel, half = np.arange(300), (np.arange(300) < 150)[:, None]
    seen = {
        "none": np.ones_like(x, bool),
        "in common": np.broadcast_to(pixel < 100, x.shape),
        "almost apart": np.where(half, pixel < 100, pixel >= 90),
        "at random": rng.random(x.shape) < 1 / 3,
    }[holes]
    _, deviate = _compared(np.where(seen, x, 0.0))
    pairs = deviate[np.triu_indices(300, 1)]
    assert np.sqrt((pairs**2).mean()) == pytest.approx(1.0, abs=0.08)
    assert pairs.max() < -special.ndtri(0.5 * CHANCE / len(pairs))


def test_objects_alike_behind_the_same_hole_are_found():
    """Two with one pattern in 100 common pixels, and a third of which one pixel is all that they share."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 300)) * (np.arange(300) < 100)
    x[:2, :100] += 1.5 * rng.standard_normal(100)
    x[2] = rng.standard_normal(300) * (np.arange(300) >= 99)
    cosine, deviate = _compared(x)
    assert abs(cosine[0, 2]) == pytest.approx(1.0)
    assert deviate[0].argmax() == 1 and cosine[0, 1] > ALIKE and deviate[0, 1] > 4.5
    assert deviate[0, 2] <= 1.0 + 1e-9


@pytest.mark.parametrize(
    "null", [Null(0.0, 1.0, 1e-4), Null(0.25, 0.9, 5e-3), Null(0.0, 1.0, 1e-4, (0.4, 0.1))]
)
def test_the_best_window_of_a_null_object_is_uniform(null):
    widths = (2, 4, 8, 16)
    search = search_law(null, widths, np.ones((1, 400), bool))
    ((_, rows),) = null_scores(null, 3000, 400, seed=7)
    best = np.asarray(best_windows(rows.astype(np.float32), np.ones(rows.shape, bool), widths))
    p = np.exp(log_p_of_best(search, log_p_of_windows(null, best, widths).min(0), np.full(3000, 400.0)))
    for level in (0.3, 0.1, 0.01):
        assert (p < level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 3000) + 0.15 * level)


def test_runs_are_judged_by_the_share_of_wide_pixels_of_objects_with_such_errors():
    """By the mean share, 33 % of those with 4 % of them would be below 1e-2, and 0.2 % of the clean ones."""
    null, widths = Null(0.0, 1.0, 4e-3, levels=(0.0, 1.0), shares=(1e-4, 0.04)), (2, 4, 8, 16)
    search = search_law(null, widths, np.ones((1, 400), bool))
    for knot, (_, rows) in enumerate(null_scores(null, 3000, 400, seed=7)):
        best = np.asarray(best_windows(rows, np.ones(rows.shape, bool), widths))
        level = np.full(3000, float(knot))
        log_p = log_p_of_windows(null, best, widths, level).min(0)
        p = np.exp(log_p_of_best(search, log_p, np.full(3000, 400.0), level))
        for share in (0.3, 0.1, 0.01):
            assert (p < share).mean() == pytest.approx(share, abs=4 * np.sqrt(share / 3000) + 0.15 * share)


def test_a_windows_tail_is_exact():
    """Two bounded normals against many draws, and 64 at six deviations against the normal law."""
    null = Null(0.0, 1.0, 1e-12)
    x = np.asarray(bounded(np.random.default_rng(0).standard_normal((10**6, 2))))
    for size in (1.0, 2.0, 3.0):
        share = (np.abs(x.sum(1)) / np.sqrt(2) >= size).mean()
        log_p = log_p_of_windows(null, np.array([[size]]), (2,))[0, 0]
        assert np.exp(log_p) == pytest.approx(share, rel=0.03 + 4 / np.sqrt(share * 10**6))
    far = log_p_of_windows(null, np.array([[6.0]]), (64,))[0, 0]
    assert far == pytest.approx(np.log(2) + stats.norm.logsf(6.0), abs=0.2)


def test_what_few_objects_show_is_not_taken_for_normal():
    """Lines in one object in twenty: their pixels are neither clumps of bad ones nor correlated noise."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((400, 300))
    odd = z.copy()
    odd[:20, 100:110] += 9.0
    seen, none = np.ones(z.shape, bool), np.zeros((1, 300))
    null = Null(0.0, 1.0, 1e-3)
    assert clumping(null, odd, seen) == 0.0
    assert with_correlation(null, odd, seen, none).correlation == ()
    odd[:, 200:202] += np.where(rng.random((400, 1)) < 0.5, 12.0, 0.0)  # two bad neighbours, in every other
    assert clumping(null, odd, seen) == pytest.approx(0.5, abs=0.1)


def test_correlation_that_is_weak_but_reaches_far_is_seen():
    rng = np.random.default_rng(1)
    seen = np.ones((2000, 400), bool)
    smooth = np.convolve(rng.standard_normal(2000 * 400), np.ones(20) / np.sqrt(20), "same").reshape(
        2000, 400
    )
    z = np.sqrt(0.98) * rng.standard_normal(smooth.shape) + np.sqrt(0.02) * smooth
    null = with_correlation(Null(0.0, 1.0, 1e-4), z, seen, np.zeros((1, 400)))
    assert 12 <= len(null.correlation) <= 24
    # sum over lags of 0.02 (1 - lag / 20), for a window of 16 pixels
    exact = 1 + 2 * sum((1 - lag / 16) * 0.02 * (1 - lag / 20) for lag in range(1, 16))
    assert null.inflation_of_sum(16) == pytest.approx(exact, abs=0.05)


def test_heights_of_windows_have_the_sign_of_what_is_seen(scored):
    """Coefficients that a foreign spectrum has pulled along say nothing of a line in it."""
    fit, data, scores = scored
    found = scores.windows
    known = np.isfinite(found.depth)
    residual = np.where(data.observed, data.flux * data.unit - rp.reconstruct(fit), np.nan)
    mean = [
        np.nanmean(residual[row, a:b]) for row, a, b in zip(found.row, found.start, found.stop, strict=True)
    ]
    assert known.mean() > 0.8
    assert (np.sign(mean) == np.sign(found.depth))[known].mean() > 0.95
