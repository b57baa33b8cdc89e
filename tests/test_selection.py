"""Choosing the rank: paired errors and held-out densities against dense mathematics, recovery, folders."""

import csv
import dataclasses
import math
import threading

import jax
import numpy as np
import pytest
from scipy import special, stats

import robusta_prob as rp
from robusta_prob.data import DataWarning
from robusta_prob.inference import threads
from robusta_prob.inference.iterate import CONVERGED
from robusta_prob.inference.results import PopulationLaw
from robusta_prob.inference.sweep import sweep
from robusta_prob.models.noise import NoiseLaw
from robusta_prob.selection import candidates, grid
from robusta_prob.selection.held_out import Published, judge
from robusta_prob.selection.results import Candidate, choose, paired
from robusta_prob.selection.segments import segments
from robusta_prob.simulate import low_rank, toy

SIZE = (240, 96)  # halves of 120: every fit and projection here has blocks of one shape
RANKS = (2, 3, 4)  # truth 3
ALL = slice(None)


@pytest.fixture(scope="module")
def survey():
    return low_rank(*SIZE, 3, missing=0.1, seed=0)


@pytest.fixture(scope="module")
def chosen(survey):
    return rp.select(survey.data, RANKS)


@pytest.fixture
def fitted_ranks(monkeypatch):
    """The ranks that are fitted, in that order."""
    ranks, fit = [], candidates.fit

    def noted(data, rank, **settings):
        ranks.append(rank)
        return fit(data, rank, **settings)

    monkeypatch.setattr(candidates, "fit", noted)
    return ranks


def same(one, other):
    """To the last digit."""
    pairs = list(zip(one.candidates, other.candidates, strict=True))
    return one.chosen == other.chosen and all(
        a[:2] == b[:2] and (a.density == b.density).all() and a.published == b.published for a, b in pairs
    )


def flux_and_ivar(data):
    return data.flux.astype(float) * data.unit, data.ivar.astype(float) / data.unit**2


# The error of a difference, and the choice -----------------------------------------------------------


def test_of_objects_with_as_many_cells_the_error_is_that_of_a_mean():
    gain = np.random.default_rng(0).normal(0.3, 2.0, 50)
    mean, error = paired(gain, np.full(50, 7), np.arange(50))
    assert mean == pytest.approx(gain.mean() / 7)
    assert error == pytest.approx(gain.std(ddof=1) / math.sqrt(50) / 7)


def test_the_error_is_that_of_a_bootstrap_over_groups():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 150, 400)
    count = rng.integers(0, 30, 400)  # some objects are not judged at all
    gain = count * (0.1 + rng.normal(0, 0.5, 150)[groups] + rng.normal(0, 0.5, 400))
    mean, error = paired(gain, count, groups)
    assert mean == pytest.approx(gain.sum() / count.sum())
    of_group, cells = (np.array([x[groups == g].sum() for g in range(150)]) for x in (gain, count))
    again = rng.integers(0, 150, (4000, 150))
    drawn = of_group[again].sum(1) / cells[again].sum(1)
    # 4000 draws tell a standard deviation to 1.1 %, and the ratio is linearised: 1 / 150 of second order
    assert error == pytest.approx(drawn.std(), rel=0.05)


def test_objects_told_twice_teach_no_more_if_they_are_one_group():
    rng = np.random.default_rng(2)
    gain, count = rng.normal(size=60), rng.integers(1, 20, 60)
    once = paired(gain, count, np.arange(60))
    twice = paired(np.tile(gain, 2), np.tile(count, 2), np.tile(np.arange(60), 2))
    assert twice == pytest.approx(once)
    apart = paired(np.tile(gain, 2), np.tile(count, 2), np.arange(120))
    assert apart.error == pytest.approx(once.error * math.sqrt(59 / 119))


def candidate(rank, density, scale=None):
    return Candidate(rank, scale, np.asarray(density, float), Published(*[0.0] * 5), rp.Status(CONVERGED, ""))


@pytest.mark.parametrize(("objects", "rank"), [(1, 1), (2, 1), (3, 1), (4, 2), (40, 2)])
def test_few_objects_choose_nothing_however_much_they_gain(objects, rank):
    """So many of equal gains are `sqrt(objects)` standard errors, or some more."""
    gains = np.where(np.arange(1000) < objects, 1e3, 0.0)
    two = (candidate(1, np.zeros(1000)), candidate(2, gains))
    assert two[choose(two, np.full(1000, 10), np.arange(1000))].rank == rank


def test_the_smallest_rank_within_two_standard_errors_at_its_best_scale():
    spread, other = np.random.default_rng(3).normal(0.0, 0.5, size=(2, 200))
    spread = (spread - spread.mean()) / spread.std(ddof=1) / 2.0  # a mean gain of `x` is 2 x sqrt(200) errors
    ranks = {}
    for errors in (1.9, 2.1):
        gain = spread + errors / 2.0 / math.sqrt(200)
        grid = (
            candidate(1, -gain - 0.3, 1.0),
            candidate(1, -gain, 5.0),
            candidate(2, other - other.mean() - 0.01, 1.0),  # which is a third of an error
            candidate(2, np.zeros(200), 5.0),
            candidate(3, np.full(200, -1e-3), 1.0),
            candidate(3, np.full(200, -2e-3), 5.0),
        )
        ranks[errors] = grid[choose(grid, np.ones(200, int), np.arange(200))][:2]
    assert ranks == {1.9: (1, 5.0), 2.1: (2, 5.0)}


def test_a_rank_is_not_chosen_beside_which_any_is_clearly_preferred():
    """The best of all is uncertain, one beside it is not."""
    noise = np.random.default_rng(0).normal(size=200)
    three = (
        candidate(1, np.zeros(200)),
        candidate(2, np.full(200, 0.05)),
        candidate(3, 0.06 + noise - noise.mean()),
    )
    assert three[choose(three, np.ones(200, int), np.arange(200))].rank == 2


def test_a_single_group_tells_no_error():
    assert paired(np.ones(5), np.ones(5, int), np.zeros(5, int)) == (1.0, math.inf)


# Segments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.2, 0.5])
@pytest.mark.parametrize("pixels", [3, 5, 8, 20, 96, 97])
def test_segments_lie_apart_within_exact_margins_and_everywhere_as_often(pixels, share):
    n = 3000
    hidden = segments(n, pixels, share, 3, 0)
    (judged, unseen), (number, width) = hidden.cells(ALL), (hidden.starts.shape[1], hidden.width)
    assert (judged.sum(1) == number * width).all()  # or they would overlap
    assert abs(number * width - share * pixels) <= max(0.5 * number, 1)  # whole pixels, and one at least
    apart = (np.roll(hidden.starts, -1, axis=1) - hidden.starts) % pixels
    assert number == 1 or (apart.min() >= width and apart.max() <= 2 * math.ceil(pixels / number) - width)
    first = judged & ~np.roll(judged, 1, axis=1)  # the end goes on at the beginning; some touch each other
    assert (first.sum(1) <= number).all() and (first.sum(1) == number).mean() > 0.5
    mean = number * width / pixels
    np.testing.assert_allclose(judged.mean(0), mean, atol=5 * math.sqrt(mean / n))  # five standard errors
    around = judged.copy()
    for shift in range(1, hidden.guard + 1):
        around |= np.roll(judged, shift, axis=1) | np.roll(judged, -shift, axis=1)
    np.testing.assert_array_equal(unseen, around)
    assert 1 <= hidden.guard <= width
    np.testing.assert_array_equal(hidden.cells(slice(100, 130)), (judged[100:130], unseen[100:130]))


def test_a_wide_guard_gets_fewer_and_longer_segments():
    few, many = (segments(10, 96, 0.2, guard, 0) for guard in (8, 1))
    assert few.guard == 8 and few.starts.shape[1] == 1 and many.starts.shape[1] == 4
    assert abs(few.width - 4 * many.width) <= 2  # whole pixels


def test_a_seed_decides_where_segments_are():
    one, same_seed, other = (segments(50, 40, 0.2, 0, seed).starts for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same_seed)
    assert (one != other).any()
    judged, unseen = segments(50, 40, 0.2, 0, 1).cells(ALL)
    np.testing.assert_array_equal(judged, unseen)


# Held-out density and published scores ---------------------------------------------------------------


@pytest.fixture(scope="module")
def known(chosen):
    """Gaussian noise about a basis and a population that are known, in float64; some cells are missing."""
    rng = np.random.default_rng(4)
    m, rank = SIZE[1], 2
    basis = np.linalg.qr(rng.normal(size=(m, rank)))[0].T
    root = np.array([[3.0, 0.0], [1.0, 0.5]])
    law = PopulationLaw(np.array([8.0, 1.0]), root @ root.T)
    sigma = 0.2 * np.exp(0.5 * rng.normal(size=(100, m)))
    flux = (law.mean + rng.normal(size=(100, rank)) @ root.T) @ basis + sigma * rng.normal(size=(100, m))
    ivar = np.where(rng.random((100, m)) < 0.2, 0.0, sigma**-2.0)
    fit = dataclasses.replace(
        chosen.fit(2),
        basis=basis,
        basis_covariance=np.zeros((m, rank, rank)),  # as if from objects without number
        loss=NoiseLaw(0.0, 1.0, 0.0),
        noise=NoiseLaw(0.0, 1.0, 0.0),
        information=1.0,
        population=law,
        trained=np.ones(m, bool),
        unit=1.0,
    )
    return fit, rp.dataset(flux, ivar, dtype="float64")


def test_the_density_is_that_of_each_hidden_cell_given_all_that_are_shown(known):
    fit, data = known
    hidden = segments(100, SIZE[1], 0.2, 2, 0)
    told, (judged, unseen) = judge(fit, data, hidden), hidden.cells(ALL)
    (flux, ivar), (mean, covariance) = flux_and_ivar(data), fit.population
    expected = np.zeros(100)
    for i in range(100):
        shown, asked = (ivar[i] > 0) & ~unseen[i], np.flatnonzero((ivar[i] > 0) & judged[i])
        joint = fit.basis.T @ covariance @ fit.basis + np.diag(1.0 / np.where(ivar[i] > 0, ivar[i], 1.0))
        gain = np.linalg.solve(joint[np.ix_(shown, shown)], joint[np.ix_(shown, asked)])
        middle = mean @ fit.basis[:, asked] + (flux[i, shown] - mean @ fit.basis[:, shown]) @ gain
        variance = np.diag(joint)[asked] - np.einsum("sa,sa->a", joint[np.ix_(shown, asked)], gain)
        expected[i] = stats.norm.logpdf(flux[i, asked], middle, np.sqrt(variance)).sum()
        assert told.n_judged[i] == len(asked) and told.n_shown[i] == shown.sum()
    # at rest a pass moves coefficients by less than 1 % of their errors; for Gaussian noise it is exact but
    # for what the scale of an object was off before, and 1e-6 remains
    np.testing.assert_allclose(told.density, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 0.03])  # without one the mean of z is 0
def test_published_scores_are_those_of_weighted_residuals_of_observed_cells(survey, chosen, offset):
    fit, (flux, ivar) = chosen.fit(3), flux_and_ivar(survey.data)
    data = rp.dataset(flux + offset, ivar).take(chosen.ids)
    told = judge(fit, data, chosen.hidden).published
    assert (told == chosen.candidates[1].published) is (offset == 0)
    shown = data.hide(chosen.hidden.cells(ALL)[1])
    projection = rp.project(fit, shown)
    weight = rp.robust_weights(fit, shown, projection) * flux_and_ivar(shown)[1]
    residual = rp.residuals(fit, shown, projection)
    z = (residual * np.sqrt(weight))[shown.observed].astype(float)
    assert len(z) == shown.census.observed < 0.8 * data.flux.size
    edges = np.linspace(-10.0, 10.0, 201)
    share = np.histogram(np.clip(z, -9.999, 9.999), edges)[0] / len(z)
    some = share > 0
    expected = Published(
        kl=(share[some] * np.log(share[some] / np.diff(special.ndtr(edges))[some])).sum(),
        std_z=z.std(),
        chi2=(z**2).sum() / (len(z) - 3 * 120),
        rmse=math.sqrt(np.nansum(weight * residual**2) / np.nansum(weight)),
        median_z=np.median(np.abs(z)),
    )
    # in float32, where a z may fall into the next bin of 0.1; bins are of 0.01 for the median
    for name in Published._fields:
        tolerance = {"abs": 0.01} if name == "median_z" else {"rel": 1e-3}
        assert getattr(told, name) == pytest.approx(getattr(expected, name), **tolerance)


def test_published_scores_of_a_standard_normal(known):
    fit, data = known
    told = judge(fit, data, segments(100, SIZE[1], 0.2, 2, 0)).published
    # 5,000 cells in 60 bins are 60 / 10,000 nats off by chance; two coefficients take 4 % of the variance
    assert 0 < told.kl < 0.015
    assert told.chi2 == pytest.approx(1.0, abs=4 * math.sqrt(2 / 5000))
    assert told.median_z == pytest.approx(0.674 * math.sqrt(0.96), abs=0.04)  # four standard errors


def test_the_flux_unit_shifts_the_scores_and_leaves_the_choice(survey, chosen):
    flux, ivar = flux_and_ivar(survey.data)
    for unit, atol in (
        (2.0**-20, 1e-12),  # all that is computed is the same
        (2.0**-56, 1e-5),  # but that coefficients so small are not rounded to float32
    ):
        scaled = rp.select(rp.dataset(flux * unit, ivar / unit**2), RANKS)
        np.testing.assert_allclose(scaled.scores, chosen.scores - math.log(unit), rtol=0, atol=atol)
        assert scaled.rank == chosen.rank
        for name, of_unit in (("kl", 1.0), ("chi2", 1.0), ("median_z", 1.0), ("rmse", unit)):
            np.testing.assert_allclose(scaled.published(name), of_unit * chosen.published(name), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("kl", [0.3, 0.1, 0.2], 2),
        ("rmse", [3.0, 2.0, 1.0], 3),
        ("std_z", [0.9, 1.2, 0.5], 1),  # nearest to 1, from either side
        ("chi2", [1.5, 0.2, 0.99], 3),
        ("median_z", [0.1, 0.7, 1.0], 2),  # 0.6745 for a standard normal z
        ("kl", [np.nan, 0.2, 0.3], 2),
    ],
)
def test_what_a_published_score_would_choose(chosen, name, values, expected):
    candidates = tuple(
        one._replace(rank=rank, published=one.published._replace(**{name: value}))
        for rank, (one, value) in enumerate(zip(chosen.candidates, values, strict=False), 1)
    )
    told = dataclasses.replace(chosen, candidates=candidates)
    assert told.by_published(name) is candidates[expected - 1]
    with pytest.raises(ValueError, match="the published scores are kl, std_z"):
        told.by_published("score")


def test_what_a_published_score_would_choose_of_ranks_and_scales(chosen):
    names = [(rank, scale) for rank in (2, 4) for scale in (0.5, 1.0, 2.0)]
    candidates = tuple(
        chosen.candidates[0]._replace(
            rank=rank, scale=scale, published=chosen.candidates[0].published._replace(kl=abs(place - 4.0))
        )
        for place, (rank, scale) in enumerate(names)
    )
    assert dataclasses.replace(chosen, candidates=candidates).by_published("kl")[:2] == (4, 1.0)


# What is chosen --------------------------------------------------------------------------------------


def test_the_true_rank_is_chosen(chosen):
    assert chosen.rank == 3 and chosen.scale is None
    # what all others lack is clear: of a component that is lost much, of one too many its noise
    assert chosen.difference(3, 2).is_clear
    assert 0 < chosen.difference(3, 4).mean < 0.02
    assert chosen.fit().rank == 3 and chosen.fit(2).rank == 2
    assert not set(chosen.ids) & set(chosen.fit().ids)
    assert len(chosen.ids) + len(chosen.fit().ids) == SIZE[0]


def test_the_rank_of_the_toy_survey_is_found():
    assert rp.select(toy(*SIZE, seed=0).data, (4, 5, 6)).rank == 5


def test_correlated_noise_is_measured_and_not_taken_for_components(survey):
    """Neighbours of a hidden pixel would tell its noise to whoever has components to spare for it."""
    noise = np.random.default_rng(0).standard_normal(SIZE)
    for pixel in range(1, SIZE[1]):
        noise[:, pixel] = 0.8 * noise[:, pixel - 1] + 0.6 * noise[:, pixel]
    data = rp.dataset(survey.truth.clean + survey.truth.sigma * noise, survey.truth.sigma**-2.0)
    guarded = rp.select(data, (3, 4))
    assert guarded.hidden.guard > 1
    assert guarded.rank == 3 and guarded.difference(3, 4).mean > 0
    careless = rp.select(data, (3, 4), guard=0)
    assert careless.hidden.guard == 0 and careless.difference(3, 4).mean < 0


def test_independent_noise_needs_the_least_guard(chosen):
    assert chosen.hidden.guard == 1


def test_a_guard_for_which_there_is_no_room_is_told(survey):
    with pytest.warns(DataWarning, match="a guard of 60 pixels has no room beside hidden segments of"):
        rp.select(survey.data, (3,), guard=60)


def test_a_pixel_that_some_ranks_leave_out_judges_none(survey):
    """It would cost those that keep it 0.1 nats a cell, and those that leave it out nothing."""
    flux, ivar = flux_and_ivar(survey.data)
    flux[:, 17] = 3.0 * np.random.default_rng(0).standard_normal(SIZE[0])
    selection = rp.select(rp.dataset(flux, ivar), (3, 4))
    assert [selection.fit(rank).config["isolated"] for rank in (3, 4)] == [(), (17,)]
    assert selection.rank == 3
    judged = selection.hidden.cells(ALL)[0] & (ivar[selection.ids] > 0)
    np.testing.assert_array_equal(selection.count, judged.sum(1) - judged[:, 17])


# Scales ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scaled_and_programs(survey):
    before = sweep._cache_size()
    return rp.select(survey.data, (2, 3), scales=(10.0, 2.0, 4.0)), sweep._cache_size() - before


@pytest.fixture(scope="module")
def scaled(scaled_and_programs):
    return scaled_and_programs[0]


def test_a_rank_is_compiled_once_for_each_form_of_the_law_whatever_the_scales(scaled_and_programs):
    """That of the loss, and that of the noise law of what it leaves, which may be there already."""
    _, programs = scaled_and_programs
    assert 1 * 2 <= programs <= 2 * 2


def test_scales_are_a_grid_and_outliers_decide_among_them(survey, scaled):
    assert scaled.ranks == (2, 3) and scaled.scales == (2.0, 4.0, 10.0)
    assert scaled.scores.shape == scaled.published("chi2").shape == (2, 3)
    # every cell counts, as there are no outliers: the wider the loss, the better it is for Gaussian noise
    assert (scaled.rank, scaled.scale) == (3, 10.0)
    fit = scaled.fit()
    assert fit.config["noise"] == rp.Noise(1.0, 10.0, 0.0) and fit.flat_prior
    assert scaled.difference((3, 10.0), (2, 4.0)).is_clear
    with pytest.raises(KeyError, match=r"no candidate \(rank, scale\) = \(3, None\)"):
        scaled.fit(3)
    flux, ivar = flux_and_ivar(survey.data)
    hit = np.random.default_rng(0).random(SIZE) < 0.1
    sign = np.random.default_rng(1).choice([-1.0, 1.0], SIZE)
    bad = rp.dataset(flux + np.where(hit, sign, 0.0), ivar)
    assert rp.select(bad, (3,), scales=(2.0, 10.0)).scale == 2.0


def test_who_shows_fewer_cells_than_coefficients_does_not_judge(survey, scaled):
    """Without a prior these are undetermined, but would count as known."""
    flux, ivar = flux_and_ivar(survey.data)
    judged, unseen = scaled.hidden.cells(ALL)
    for row, name in enumerate(scaled.ids[:40]):
        shown = np.flatnonzero((ivar[name] > 0) & ~unseen[row])[: row % 4]  # none to three
        kept = judged[row] | np.isin(np.arange(SIZE[1]), shown)
        ivar[name] = np.where(kept, ivar[name], 0.0)
    part = rp.select(rp.dataset(flux, ivar), (2, 3), scales=(10.0, 2.0, 4.0))
    assert part.rank == 3
    assert (part.count[:40] == 0).all() and (part.count[40:] == scaled.count[40:]).all()


def test_other_scales_compile_nothing(survey, scaled):
    programs, compiled = sweep._cache_size(), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    try:
        rp.select(survey.data, (2, 3), scales=(3.0, 7.0))
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled and sweep._cache_size() == programs


# Folders ---------------------------------------------------------------------------------------------


def test_what_is_in_the_folder_is_not_fitted_again(survey, chosen, tmp_path, fitted_ranks):
    first = rp.select(survey.data, RANKS, folder=tmp_path)
    assert same(first, chosen)  # which was kept in memory
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"rank-00{rank}.h5" for rank in RANKS]
    fitted_ranks.clear()
    again = rp.select(survey.data, RANKS, folder=tmp_path)
    assert not fitted_ranks and same(again, chosen)
    np.testing.assert_array_equal(again.fit().basis, chosen.fit().basis)
    rp.select(survey.data, (*RANKS, 5), folder=tmp_path)
    assert fitted_ranks == [5]


def test_files_of_other_data_or_settings_are_refused_by_name(survey, tmp_path):
    rp.select(survey.data, (3,), folder=tmp_path)
    flux, ivar = flux_and_ivar(survey.data)
    gaussian, name = rp.Noise(math.inf, 1.0, 0.0), r"rank-003\.h5 is of "
    for data, settings, match in (
        (rp.dataset(flux + 1e-3, ivar), {}, name + "other data: cells;"),
        (rp.dataset(flux, 4.0 * ivar), {}, "data: cells; choose another folder, or remove the file"),
        (rp.dataset(flux, ivar, grid=2.0 * np.arange(SIZE[1])), {}, "data: grid;"),
        (rp.dataset(flux, ivar, dtype="float64"), {}, "data: dtype"),
        (survey.data.take(slice(0, 200)), {}, "data: objects"),
        (survey.data, {"train": 0.4}, "data: objects"),
        (survey.data, {"key": 1}, r"seed 0 \(now 1\)"),
        (survey.data, {"tol": 0.2}, r"tol 0\.1 \(now 0\.2\); choose another folder"),
        (survey.data, {"prior": rp.Prior.flat()}, r"prior 'population' \(now 'flat'\)"),
        (survey.data, {"noise": gaussian}, r"noise Noise\(nu=None.*\(now Noise\(nu=inf"),
    ):
        with pytest.raises(ValueError, match=match):
            rp.select(data, (3,), folder=tmp_path, **settings)
    (tmp_path / "rank-003.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"rank-003\.h5 is empty"):
        rp.select(survey.data, (3,), folder=tmp_path)
    with pytest.raises(OSError, match="File exists"):
        rp.select(survey.data, (3,), folder=tmp_path / "rank-003.h5")


def test_too_few_epochs_are_made_up_for(survey, tmp_path, fitted_ranks):
    few = rp.select(survey.data, (3,), folder=tmp_path, max_epochs=3)
    assert few.candidates[0].status.code == "out_of_steps"
    rp.select(survey.data, (3,), folder=tmp_path, max_epochs=2)
    assert fitted_ranks == [3]
    assert rp.select(survey.data, (3,), folder=tmp_path).candidates[0].status.ok
    assert fitted_ranks == [3, 3]


def test_a_grid_that_was_killed_goes_on_where_it_was(survey, chosen, tmp_path, monkeypatch, fitted_ranks):
    noted = candidates.fit

    def killed(data, rank, *, callback, checkpoint, **settings):
        passes = []

        def look(line):
            passes.append(line)
            if rank == 3 and len(passes) == 3:
                raise KeyboardInterrupt
            callback(line)

        checkpoint = rp.Checkpoint(checkpoint, 0.0)  # of fits so short nothing would be saved
        return noted(data, rank, callback=look, checkpoint=checkpoint, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            rp.select(survey.data, RANKS, folder=tmp_path)
    assert list(tmp_path.glob("rank-003*.checkpoint")) and not (tmp_path / "rank-003.h5").exists()
    assert rp.load(tmp_path / "rank-004.h5").rank == 4
    fitted_ranks.clear()
    assert same(rp.select(survey.data, RANKS, folder=tmp_path), chosen)
    assert 3 in fitted_ranks and 4 not in fitted_ranks
    assert not list(tmp_path.glob("*.checkpoint"))


# The same result -------------------------------------------------------------------------------------


def test_a_key_decides_the_split_and_the_segments(survey):
    one, same_key, other = (rp.select(survey.data, (3,), key=jax.random.key(seed)) for seed in (1, 1, 2))
    assert same(one, same_key)
    assert set(one.ids) != set(other.ids)
    assert (one.hidden.starts != other.hidden.starts).any()


def test_the_number_of_threads_is_irrelevant(survey, chosen, monkeypatch):
    monkeypatch.setattr(threads, "MOST", 1)
    assert same(rp.select(survey.data, RANKS), chosen)


def test_data_on_disk_give_the_same(survey, chosen, tmp_path):
    rp.write(survey.data, tmp_path / "survey.h5")
    assert same(rp.select(rp.read(tmp_path / "survey.h5", in_memory=False), RANKS), chosen)


def test_groups_stay_together_and_count_as_one(survey):
    source = np.random.default_rng(0).permutation(np.arange(SIZE[0]) // 3)
    data = rp.dataset(*flux_and_ivar(survey.data), meta={"source": source})
    selection = rp.select(data, (2, 3), group="source")
    learned, judging = source[selection.fit().ids], source[selection.ids]
    assert not set(learned) & set(judging)
    assert len(judging) == len(learned) == SIZE[0] // 2
    np.testing.assert_array_equal(selection.groups[:, None] == selection.groups, judging[:, None] == judging)
    gain = selection.candidates[1].density - selection.candidates[0].density
    assert selection.difference(3, 2) == paired(gain, selection.count, judging)
    assert selection.difference(3, 2) != paired(gain, selection.count, np.arange(len(gain)))


# What is told ----------------------------------------------------------------------------------------


def test_the_table_is_printed_and_written(chosen, scaled, tmp_path):
    table = chosen.columns()
    assert table["rank"] == [2, 3, 4] and table["chosen"] == [0.0, 1.0, 0.0]
    assert table["below_best"][1] == table["error"][1] == 0.0
    assert table["below_best"][0] == pytest.approx(table["score"][1] - table["score"][0])
    lines = str(chosen).splitlines()
    assert len(lines) == 4 and lines[2].endswith("<- chosen")
    assert repr(scaled) == "Selection(6 candidates, 120 objects judge: rank 3, scale 10)"
    rp.write_selection(scaled, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["rank"]), float(row["scale"])) for row in rows] == [one[:2] for one in scaled.candidates]
    np.testing.assert_array_equal([float(row["score"]) for row in rows], scaled.scores.ravel())
    with pytest.raises(ValueError, match="published scores are kl, std_z, chi2, rmse, median_z; got 'z'"):
        chosen.published("z")
    with pytest.raises(KeyError, match=r"no candidate \(rank, scale\) = \(7, None\)"):
        chosen.difference(7, 3)


def test_a_callback_is_told_of_every_candidate(survey):
    rows = []
    rp.select(survey.data, (2, 3), scales=(2.0, 4.0), callback=rows.append)
    assert [row[:2] for row in rows] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {row.what for row in rows} == {"select"}


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("done", [1, 4])
def test_what_a_callback_raises_comes_through_and_nobody_waits_for_ever(survey, kind, done):
    before, raised = set(threading.enumerate()), []

    def interrupting(row):
        if row.done == done:
            raise kind("mine")

    def work():
        try:
            rp.select(survey.data, (2, 3), scales=(2.0, 4.0), callback=interrupting)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(120.0)  # seconds; it takes one
    assert not thread.is_alive()
    assert [type(error) for error in raised] == [kind] and str(raised[0]) == "mine"
    left = [one.name for one in set(threading.enumerate()) - before]
    assert not [name for name in left if name.startswith("ThreadPoolExecutor")]


def test_the_first_error_is_the_one_that_is_raised(survey, monkeypatch):
    """A rank is fitted while the judgement of another fails."""
    judge_, fitted_, busy, broke = grid.judge, grid.fitted, threading.Event(), threading.Event()

    def slow(train, rank, scale, *rest):
        if (rank, scale) == (3, 10.0):
            busy.set()
            broke.wait(60.0)
        return fitted_(train, rank, scale, *rest)

    def broken(fit, *rest):
        if fit.rank == 2:
            busy.wait(60.0)
            threading.Timer(0.2, broke.set).start()  # when this thread has ended
            raise ZeroDivisionError("the reason")
        return judge_(fit, *rest)

    monkeypatch.setattr(grid, "judge", broken)
    monkeypatch.setattr(grid, "fitted", slow)
    with pytest.raises(ZeroDivisionError, match="the reason"):
        rp.select(survey.data, (2, 3), scales=(2.0, 4.0, 10.0))
    assert busy.is_set() and broke.is_set()


# What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "settings", "error", "match"),
    [
        ([], {}, ValueError, r"at least one positive integer, got \[\]"),
        ([0, 1], {}, ValueError, r"positive integer, got \[0, 1\]"),
        ([2, True], {}, TypeError, "ranks must be integers, got True"),
        ([2.0], {}, TypeError, r"ranks must be integers, got 2\.0"),
        (2.5, {}, TypeError, r"ranks must be integers, such as range\(1, 9\), got 2\.5"),
        ("23", {}, TypeError, "ranks must be integers, got '2'"),
        ([2, 97], {}, ValueError, "rank must be between 1 and 96 for 120 objects and 96 pixels"),
        ([2], {"scales": [2.0], "noise": rp.Noise()}, ValueError, r"scales= fits .*: leave out noise="),
        ([2], {"scales": []}, ValueError, "scales is empty: leave it out"),
        ([2], {"scales": [2.0, -1.0]}, ValueError, r"scales must be positive numbers, got -1\.0"),
        ([2], {"scales": [math.nan]}, ValueError, "scales must be positive numbers, got nan"),
        ([2], {"scales": [math.inf]}, ValueError, "scales must be positive numbers, got inf"),
        ([2], {"scales": [True]}, ValueError, "scales must be positive numbers, got True"),
        ([2], {"train": 0.0}, ValueError, r"train must be a share above 0 .*, got 0\.0"),
        ([2], {"train": 1.0}, ValueError, "train must be a share"),
        ([2], {"train": math.nan}, ValueError, "train must be a share .* got nan"),
        ([2], {"train": 0.001}, ValueError, "leaves one side empty"),
        ([2], {"hidden": 0.0}, ValueError, "hidden must be a share"),
        ([2], {"hidden": 0.51}, ValueError, r"hidden must be a share above 0 and up to 0\.5, got 0\.51"),
        ([2], {"guard": -1}, ValueError, "guard must be a number of pixels, 0 or more, got -1"),
        ([2], {"guard": 1.5}, ValueError, r"guard must be a number of pixels, 0 or more, got 1\.5"),
        ([2], {"guard": True}, ValueError, "guard must be a number of pixels"),
        ([2], {"group": "source"}, KeyError, r"group='source' is no column .* there are \['kind'\]"),
        ([2], {"group": [1, 2, 3]}, ValueError, r"one label per object \(240\), got shape \(3,\)"),
        ([2], {"group": "kind"}, ValueError, "of 1 groups leaves one side empty"),
        ([2], {"prior": "flat"}, TypeError, "prior must be"),
        ([2], {"noise": "x"}, TypeError, "noise must be"),
        ([2], {"noise": rp.Noise(-1.0)}, ValueError, r"noise\.nu must be a number with 0 < nu"),
        ([2], {"key": -1}, ValueError, "key must be a JAX key or an integer of at least 0, got -1"),
        ([2], {"key": True}, ValueError, "key must be"),
        ([2], {"max_epochs": 0}, ValueError, "max_epochs must be at least 1"),
        ([2], {"tol": -1.0}, ValueError, "tol positive"),
    ],
)
def test_bad_arguments_are_refused(survey, ranks, settings, error, match):
    with pytest.raises(error, match=match):
        rp.select(survey.data, ranks, **settings)


def test_only_data_sets_are_taken_and_such_as_can_judge(survey, chosen):
    flux, ivar = flux_and_ivar(survey.data)
    with pytest.raises(TypeError, match=r"data must be a Dataset, got ndarray; make one with rp\.dataset"):
        rp.select(flux, RANKS)
    judges = np.isin(survey.data.ids, chosen.ids)[:, None]
    with pytest.raises(ValueError, match="fewer than two groups of objects with data are left to judge"):
        rp.select(rp.dataset(flux, np.where(judges, 0.0, ivar)), (3,))
    with pytest.raises(ValueError, match="no cell of the data is observed"):
        rp.select(rp.dataset(flux, np.where(judges, ivar, 0.0)), (2,))


def test_objects_without_data_and_pixels_that_nobody_observed_do_no_harm(survey):
    flux, ivar = flux_and_ivar(survey.data)
    ivar[::10] = ivar[:, 30:40] = 0.0
    selection = rp.select(rp.dataset(flux, ivar), (2, 3))
    assert selection.rank == 3
    assert (selection.count == 0).sum() == (selection.ids % 10 == 0).sum()


@pytest.mark.parametrize("unit", [1e-17, 1e-25, 1e20])
def test_any_flux_unit_shifts_the_scores_by_its_logarithm(survey, unit):
    flux, ivar = flux_and_ivar(survey.data)
    one, other = (rp.select(rp.dataset(flux * x, ivar / x**2), (3,)) for x in (1.0, unit))
    # no power of two: numbers are rounded otherwise, and fits end within 0.1 of their errors of each other
    assert other.scores.item() == pytest.approx(one.scores.item() - math.log(unit), abs=1e-4)
    for name, of_unit in (("kl", 1.0), ("std_z", 1.0), ("chi2", 1.0), ("median_z", 1.0), ("rmse", unit)):
        assert other.published(name).item() == pytest.approx(of_unit * one.published(name).item(), rel=0.02)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("guard", [1, 5, 12, 24, 90])
def test_whatever_the_guard_a_third_of_the_pixels_is_shown(share, guard):
    assert (~segments(100, 96, share, guard, 0).cells(ALL)[1]).mean(1).min() > 0.33


def test_a_killed_grid_may_go_on_as_another(survey, tmp_path, monkeypatch):
    fit = candidates.fit

    def killed(data, rank, *, callback, checkpoint, **settings):
        passes = []

        def look(line):
            passes.append(line)
            if rank == 2 and len(passes) == 3:
                raise KeyboardInterrupt

        return fit(data, rank, callback=look, checkpoint=rp.Checkpoint(checkpoint, 0.0), **settings)

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            rp.select(survey.data, (2, 3), folder=tmp_path)
    assert list(tmp_path.glob("rank-002*.checkpoint"))
    assert rp.select(survey.data, (2, 3, 4), folder=tmp_path).rank == 3
    assert not list(tmp_path.glob("*.checkpoint"))


def test_objects_without_a_group_are_groups_of_their_own(survey):
    labels = np.repeat(np.arange(60.0), 4)
    labels[::3] = np.nan
    selection = rp.select(survey.data, (3,), group=labels)
    assert np.bincount(selection.groups).max() <= 3
    with pytest.raises(TypeError, match="group must hold labels of one kind"):
        rp.select(survey.data, (3,), group=np.array([None, "a"] * 120, object))


def test_a_single_group_cannot_judge_and_nothing_is_fitted(survey, monkeypatch):
    monkeypatch.setattr(candidates, "fit", None)
    with pytest.raises(ValueError, match="fewer than two groups of objects with data are left to judge"):
        rp.select(survey.data, (3,), group=np.arange(SIZE[0]) % 2)


def test_one_program_whatever_the_sizes():
    data = low_rank(1100, 96, 3, seed=0).data  # halves of 550, of which at most 300 tell the guard
    before = sweep._cache_size()
    rp.select(data, (3,))
    assert sweep._cache_size() == before + 1
