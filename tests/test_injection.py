"""Injection and recovery: what is reported is what was added, and the scores find it when it is large."""

import dataclasses
import io
import re

import numpy as np
import pytest
from scipy import stats

import robusta_prob as rp
from robusta_prob import plots
from robusta_prob.scoring import trials
from robusta_prob.scoring.anomalies import KINDS
from robusta_prob.scoring.recovered import LISTS, Proportion

N, M = 256, 120
AMPLITUDE = {
    "emission line": 0.4,
    "absorption line": 0.4,
    "line set": -0.4,
    "second spectrum": 0.3,
    "shifted segment": 3.0,
    "scaled noise": 2.0,
    "foreign spectrum": 0.5,
}
ROWS = [3, 200, 17, 90]


@pytest.fixture(scope="module")
def survey():
    """Flux of 1e-17 in the user's unit, holes, a grid that falls, ids that are names."""
    drawn = rp.simulate.low_rank(N, M, 3, sigma=0.05, spread=0.2, missing=0.1, seed=1)
    flux = np.where(drawn.data.observed, drawn.data.flux * drawn.data.unit, np.nan) * 1e-17
    ivar = drawn.data.ivar.astype(float) / drawn.data.unit**2 * 1e34
    names = np.array([f"star {i}" for i in range(N)])
    data = rp.dataset(flux, ivar, grid=np.linspace(700.0, 400.0, M), ids=names, meta={"mag": np.arange(N)})
    return data, drawn.truth.clean * 1e-17


def added(done: rp.Injected, data: rp.Dataset) -> np.ndarray:
    """What was added to the objects `rows`, in the user's unit."""
    return ((done.data.flux.astype(float) - data.flux) * data.unit)[done.rows]


def errors(data: rp.Dataset, rows: np.ndarray) -> np.ndarray:
    """Standard deviations in the user's unit, infinite where missing."""
    with np.errstate(divide="ignore"):
        return data.unit / np.sqrt(data.ivar[rows].astype(float))


def levels(clean: np.ndarray, data: rp.Dataset, rows: np.ndarray) -> np.ndarray:
    return np.array([np.median(np.abs(clean[row][data.observed[row]])) for row in rows])


def test_every_kind_has_an_amplitude_here():
    assert set(AMPLITUDE) == set(KINDS)


@pytest.mark.parametrize("with_clean", [False, True])
@pytest.mark.parametrize("kind", AMPLITUDE)
def test_only_the_flux_of_the_rows_changes_and_strength_is_its_signal_to_noise(survey, kind, with_clean):
    data, clean = survey
    before = data.flux.copy()
    done = rp.inject(data, kind, AMPLITUDE[kind], key=5, rows=ROWS, clean=clean if with_clean else None)
    others = np.setdiff1d(np.arange(N), ROWS)
    assert done.rows.tolist() == ROWS
    assert np.array_equal(done.data.flux[others], data.flux[others])
    assert np.array_equal(done.data.ivar, data.ivar)
    assert (done.data.flux[~data.observed] == 0).all()
    assert np.array_equal(data.flux, before)
    assert not done.data.flux.flags.writeable
    assert done.data.dtype == data.dtype
    for name in ("ids", "grid", "unit", "census"):
        assert np.array_equal(getattr(done.data, name), getattr(data, name))
    assert np.array_equal(done.data.meta["mag"], data.meta["mag"])
    d = added(done, data)
    assert (np.abs(d).max(1) > 0).all()
    ivar = data.ivar[ROWS].astype(float) / data.unit**2
    # float32 holds flux / sigma of 20 to 2e-6
    assert done.strength == pytest.approx(np.sqrt((ivar * d**2).sum(1)), rel=1e-4)
    assert np.array_equal(done.amplitude, np.full(4, AMPLITUDE[kind]))
    labels = done.labels
    assert (labels[ROWS] == kind).all()
    assert (labels[others] == "").all()


@pytest.mark.parametrize("kind", AMPLITUDE)
def test_a_key_decides_and_the_amplitude_leaves_the_places(survey, kind):
    data, clean = survey
    one, two, other = (
        rp.inject(data, kind, AMPLITUDE[kind], key=key, rows=ROWS, clean=clean) for key in (1, 1, 2)
    )
    assert np.array_equal(one.data.flux, two.data.flux)
    assert not np.array_equal(one.data.flux, other.data.flux)
    smaller = rp.inject(data, kind, 0.5 + 0.5 * AMPLITUDE[kind], key=1, rows=ROWS, clean=clean)
    assert np.array_equal(smaller.position, one.position)
    assert np.array_equal(smaller.donor, one.donor)


def test_the_least_amplitude_changes_nothing(survey):
    data, clean = survey
    for kind in AMPLITUDE:
        done = rp.inject(data, kind, 1.0 if kind == "scaled noise" else 0.0, key=0, clean=clean)
        assert np.array_equal(done.data.flux, data.flux), kind
        assert (done.strength == 0).all()


def test_lines_are_gaussians_of_the_stated_height_width_and_place(survey):
    data, clean = survey
    rows = np.arange(40)
    depth = np.linspace(0.1, 0.8, 40)
    pixel = np.arange(M)
    done = rp.inject(data, "absorption line", depth, key=3, rows=rows, clean=clean, width=3.0)
    centre = (700.0 - done.position) / 300.0 * (M - 1)
    wanted = -(depth * levels(clean, data, rows))[:, None] * np.exp(-0.5 * ((pixel - centre) / 3.0) ** 2)
    assert added(done, data) == pytest.approx(np.where(data.observed[rows], wanted, 0.0), abs=1e-23)
    near = np.rint(centre[:, 0]).astype(int)
    assert data.observed[rows, near].all()
    assert stats.kstest(centre[:, 0] / (M - 1), "uniform").pvalue > 1e-3

    given = rp.inject(data, "line set", 0.3, key=3, rows=rows, clean=clean, positions=[600.0, 500.0])
    assert given.position == pytest.approx(np.tile([600.0, 500.0], (40, 1)))
    at = [(700.0 - x) / 300.0 * (M - 1) for x in (600.0, 500.0)]
    profile = sum(np.exp(-0.5 * ((pixel - x) / 2.0) ** 2) for x in at)
    wanted = 0.3 * levels(clean, data, rows)[:, None] * profile * data.observed[rows]
    assert added(given, data) == pytest.approx(wanted, abs=1e-23)


def test_a_second_spectrum_is_anothers_at_the_level_of_the_object(survey):
    data, clean = survey
    done = rp.inject(data, "second spectrum", 0.25, key=3, clean=clean, shift=4.0)
    assert (done.donor != done.rows).all()
    assert len(np.unique(done.donor)) > N / 2
    scale = 0.25 * levels(clean, data, done.rows) / levels(clean, data, done.donor)
    wanted = scale[:, None] * clean[done.donor][:, np.maximum(np.arange(M) - 4, 0)]
    assert added(done, data) == pytest.approx(wanted * data.observed, abs=1e-23)


def test_a_segment_moves_by_whole_pixels_exactly(survey):
    data, clean = survey
    done = rp.inject(data, "shifted segment", -3.0, key=3, rows=ROWS, clean=clean, width=20, positions=550.0)
    middle = round((700.0 - done.position[0, 0]) / 300.0 * (M - 1) - 9.5)
    inside = np.arange(middle, middle + 20)
    wanted = np.zeros((4, M))
    wanted[:, inside] = clean[ROWS][:, inside + 3] - clean[ROWS][:, inside]
    assert added(done, data) == pytest.approx(wanted * data.observed[ROWS], abs=1e-23)
    assert abs(done.position[0, 0] - 550.0) < 300.0 / (M - 1)


def test_scaled_noise_has_the_stated_variance_and_the_sum_has_the_factor(survey):
    data, clean = survey
    done = rp.inject(data, "scaled noise", 1.5, key=3, clean=clean)
    seen = data.observed
    z = (added(done, data) / errors(data, done.rows))[seen]
    assert stats.kstest(z / np.sqrt(1.5**2 - 1.0), "norm").pvalue > 1e-3
    total = ((done.data.flux * data.unit - clean) / errors(data, done.rows))[seen]
    # a standard deviation of n normal numbers has a relative error of 1 / sqrt(2 n)
    assert total.std() == pytest.approx(1.5, rel=4.0 / np.sqrt(2.0 * seen.sum()))


def test_a_foreign_spectrum_keeps_level_and_noise_and_nothing_else(survey):
    data, clean = survey
    for given in (clean, None):
        done = rp.inject(data, "foreign spectrum", 1.0, key=3, clean=given, width=6.0)
        flux = np.where(data.observed, done.data.flux.astype(float) * data.unit, np.nan)
        level = levels(np.asarray(data.flux * data.unit) if given is None else clean, data, done.rows)
        shape = flux / level[:, None] - 1.0
        noise = np.nanmean((errors(data, done.rows) / level[:, None])[data.observed] ** 2)
        assert np.nanmean(shape**2) == pytest.approx(0.3**2 + noise, rel=0.05)
        # white noise smoothed by a Gaussian of 6 pixels: exp(-1 / (4 6^2)) from one pixel to the next
        assert np.nanmean(shape[:, 1:] * shape[:, :-1]) == pytest.approx(
            0.3**2 * np.exp(-1.0 / 144.0), rel=0.05
        )
        step = np.nanmean(np.diff(shape, axis=1) ** 2)
        assert step == pytest.approx(2.0 * noise + 2.0 * 0.3**2 * (1.0 - np.exp(-1.0 / 144.0)), rel=0.1)


def test_a_range_is_drawn_log_uniformly(survey):
    data, clean = survey
    a = rp.inject(data, "line set", (-0.01, -1.0), key=3, clean=clean).amplitude
    assert stats.kstest(np.log10(-a), "uniform", (-2.0, 2.0)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kind": "line"}, "kind must be one of 'emission line'"),
        ({"amplitude": -0.1}, "must lie between 0 and inf"),
        ({"kind": "scaled noise", "amplitude": 0.5}, "must lie between 1 and inf"),
        ({"kind": "foreign spectrum", "amplitude": 1.5}, "must lie between 0 and 1"),
        ({"amplitude": (0.0, 1.0)}, "of one sign and not 0"),
        ({"amplitude": (1.0, 0.1)}, r"must be \(low, high\)"),
        ({"amplitude": [0.1, 0.2, 0.3]}, "one per object"),
        ({"amplitude": np.nan}, "must be finite"),
        ({"rows": [1, 1]}, "twice"),
        ({"rows": []}, "selects none"),
        ({"clean": np.ones((2, 2))}, "clean must have the shape of data"),
        ({"width": 0.0}, "in pixels, above 0"),
        ({"kind": "shifted segment", "width": 3.5}, "a whole number of pixels"),
        ({"kind": "scaled noise", "amplitude": 2.0, "width": 3.0}, "has no width"),
        ({"kind": "second spectrum", "positions": 500.0}, "has no positions"),
        ({"positions": 8000.0}, "from 400 to 700"),
        ({"positions": [500.0, 600.0, 550.0]}, "a number, or one per object"),
        ({"shift": 2.0}, "belongs to the kind 'second spectrum'"),
        ({"key": 0.5}, "key must be a JAX key"),
    ],
)
def test_bad_input_is_refused_with_advice(survey, change, match):
    arguments = {"kind": "emission line", "amplitude": 0.1, "key": 0, "rows": ROWS, **change}
    with pytest.raises(ValueError, match=match):
        rp.inject(survey[0], **arguments)


def test_objects_without_data_and_wrong_types_are_refused(survey):
    data, clean = survey
    ivar = np.array(data.ivar)
    ivar[7] = 0.0
    holed = rp.dataset(np.where(ivar > 0, data.flux, np.nan), ivar)
    assert 7 not in rp.inject(holed, "scaled noise", 2.0, key=0).rows
    with pytest.raises(ValueError, match="1 of the rows have no observed pixel"):
        rp.inject(holed, "scaled noise", 2.0, key=0, rows=[6, 7])
    with pytest.raises(ValueError, match="needs another object"):
        rp.inject(holed.take([6, 7]), "second spectrum", 0.1, key=0)
    with pytest.raises(ValueError, match="overflows float32"):
        rp.inject(data, "emission line", 1e39, key=0)
    with pytest.raises(TypeError, match="must be a Dataset"):
        rp.inject(clean, "scaled noise", 2.0, key=0)
    with pytest.raises(TypeError, match="must be a number"):
        rp.inject(data, "scaled noise", "large", key=0)


# Recovery -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(survey):
    data, _ = survey
    fit = rp.fit(data, 3, starts=1)
    return fit, data, rp.surprise(fit, data)


@pytest.fixture(scope="module")
def found(scored):
    fit, data, scores = scored
    amplitudes = {
        "absorption line": [0.003, 0.3, 3.0],
        "scaled noise": [1.001, 1.3, 3.0],
        "second spectrum": [0.001, 0.1, 0.5],
    }
    seen = []
    out = rp.recovery(fit, data, amplitudes, key=4, per_amplitude=80, scores=scores, callback=seen.append)
    assert [trials.kind[0] for trials in seen] == list(amplitudes)
    return out


def test_completeness_rises_from_nothing_to_all(found):
    groups = found.by_amplitude
    share = groups.found.share.reshape(3, 3, len(LISTS))
    assert (groups.found.number == 80).all()
    # at 1e-3 each, three p-values of 80 normal objects: 0.24 expected, 4 or more in 1e-4 of the cases
    assert (groups.found.found.reshape(3, 3, len(LISTS))[:, 0, -1] < 4).all()
    assert (np.diff(share[:2, :, -1], axis=1) > 0).all()
    assert (share[:2, 2, -1] >= 0.98).all()
    assert (share[:, :, -1] >= share[:, :, :3].max(2)).all()
    named = groups.named.share.reshape(3, 3)
    assert (named[:2, 2] > 0.9).all()


def test_a_second_spectrum_at_the_same_velocity_is_in_the_span(found):
    kind = found.trials.kind == "second spectrum"
    strong = kind & (found.trials.amplitude == 0.5)
    assert np.median(found.trials.strength[strong]) > 50
    # what is left is the error of the basis and of the reconstruction
    assert np.median(found.trials.beyond[strong]) < 0.05 * np.median(found.trials.strength[strong])
    others = found.trials.beyond[~kind] / found.trials.strength[~kind]
    assert (others <= 1 + 1e-6).all()
    assert np.median(others) > 0.9


def test_groups_by_strength_are_the_same_trials_in_order(found):
    groups, trials = found.by_strength, found.trials
    for kind in ("absorption line", "scaled noise"):
        here = groups.kind == kind
        assert (np.diff(groups.strength[here]) > 0).all()
        assert groups.found.number[here, 0].sum() == (trials.kind == kind).sum()
        of_kind = found.by_amplitude.kind == kind
        assert np.array_equal(groups.found.found[here].sum(0), found.by_amplitude.found.found[of_kind].sum(0))


def test_objects_are_normal_and_not_used_twice_where_there_are_enough(found, scored):
    scores = scored[2]
    for kind in np.unique(found.trials.kind):
        rows = found.trials.row[found.trials.kind == kind]
        assert len(np.unique(rows)) == 240
        assert not scores.flagged[rows].any()


def test_false_positives_are_nominal(found, scored):
    curve, scores = found.false_positives, scored[2]
    assert (curve.all.number == N).all()
    for place, name in enumerate(LISTS[:3]):
        p = getattr(scores.object, name)
        assert curve.all.found[:, place].tolist() == [(p < level).sum() for level in curve.level]
        beyond = [
            stats.binomtest(int(k), N, level).pvalue
            for k, level in zip(curve.all.found[:, place], curve.level, strict=True)
        ]
        assert min(beyond) > 1e-4, name
    assert (curve.normal.found <= curve.all.found).all()


def test_the_same_key_recovers_the_same(scored, found):
    fit, data, scores = scored
    amplitudes = {"absorption line": [0.003, 0.3, 3.0]}
    again = rp.recovery(fit, data, amplitudes, key=4, per_amplitude=80, scores=scores)
    assert np.array_equal(again.trials.row, found.trials.row[:240])
    assert np.array_equal(again.trials.p, found.trials.p[:240])


def test_objects_with_few_pixels_are_scored_among_untouched_ones(scored, monkeypatch):
    """Their p-values depend on what the others of a call show: these must not be injected ones, too."""
    fit, data, scores = scored
    sparse_rows = np.arange(100, N)
    ivar = np.array(data.ivar, float) / data.unit**2
    ivar[sparse_rows] *= np.arange(M) % 5 == 0
    mixed = rp.dataset(data.flux.astype(float) * data.unit, ivar, grid=data.grid)
    rows = np.concatenate([np.arange(20), np.arange(150, 180)])
    done = rp.inject(mixed.take(rows), "scaled noise", 3.0, key=0)
    calls = []

    def fake(fit, part, *, in_training, **_):
        """p tells which object it was."""
        calls.append(part)
        p = np.abs(part.flux.astype(float)).sum(1)
        columns = {"p_value": p, "p_run": p + 1.0, "p_pixel": p + 2.0, "kind": in_training.astype(str)}
        each = dict.fromkeys(scores.object._fields, p) | columns
        return dataclasses.replace(scores, object=type(scores.object)(**each), ids=part.ids)

    monkeypatch.setattr(trials, "surprise", fake)
    as_mixed = dataclasses.replace(scores, object=scores.object._replace(n_observed=mixed.n_observed))
    p, named = trials.scored(fit, done.data, as_mixed, rows, mixed, 0)
    assert p[:, 0] == pytest.approx(np.abs(done.data.flux.astype(float)).sum(1), rel=1e-6)
    assert (named == scores.object.in_training[rows].astype(str)).all()
    assert calls[0].shape[0] == 20
    untouched = {x.tobytes() for x in mixed.flux}
    for part in calls[1:]:
        assert part.shape == (156, M)
        assert np.mean([x.tobytes() not in untouched for x in part.flux]) <= 0.05


@pytest.mark.parametrize("settings", [{"windows": [8]}, {"replicates": 50}, {"replicates": 0}])
def test_trials_are_scored_as_the_data_were(scored, settings):
    """An anomaly of no size leaves an object its p-values."""
    fit, data, _ = scored
    scores = rp.surprise(fit, data, **settings)
    nothing = rp.recovery(fit, data, {"line set": [0.0]}, key=1, per_amplitude=12, scores=scores).trials
    for place, name in enumerate(LISTS[:2]):
        own = getattr(scores.object, name)[nothing.row]
        # replicates are drawn anew: their regression moves by a tenth of a deviation at most
        assert stats.norm.ppf(nothing.p[:, place]) == pytest.approx(stats.norm.ppf(own), abs=0.15), name


def test_trials_are_judged_by_the_empirical_null_that_was_applied(scored):
    """All errors a fifth too small, and a null that does not know: without it every object would be found."""
    fit, data, scores = scored
    wrong = rp.dataset(data.flux * data.unit, data.ivar * 1.44 / data.unit**2, grid=data.grid, ids=data.ids)
    plain, own = (rp.surprise(fit, wrong, null=scores.null, empirical_null=x) for x in (False, True))
    assert not plain.empirical.applied and plain.empirical.run_width == own.empirical.run_width
    again = rp.surprise(fit, wrong.take(slice(0, 20)), null=scores.null, empirical_null=own.empirical)
    assert again.object.p_value == pytest.approx(own.object.p_value[:20], rel=1e-3)
    assert again.empirical == own.empirical
    found = rp.recovery(fit, wrong, {"line set": [0.0]}, key=1, per_amplitude=100, scores=own)
    assert found.trials.p[:, 0] == pytest.approx(own.object.p_value[found.trials.row], rel=1e-3)
    assert (plain.object.p_value[found.trials.row] < 0.05).mean() > 0.3
    with pytest.raises(ValueError, match="must have a centre and a width"):
        rp.surprise(fit, wrong, empirical_null=own.empirical._replace(width=np.nan))
    with pytest.raises(TypeError, match="empirical_null must be True, False, 'by error' or"):
        rp.surprise(fit, wrong, empirical_null="yes")


def test_a_list_counts_the_objects_that_have_its_p_value():
    """Spectra of six pixels have no runs: they are no objects that were looked at and not found."""
    data = rp.simulate.low_rank(256, 6, 1, sigma=0.1, seed=0).data
    fit = rp.fit(data, 1, starts=1)
    found = rp.recovery(fit, data, {"scaled noise": [5.0]}, key=0, per_amplitude=50)
    run, others = LISTS.index("p_run"), [LISTS.index(name) for name in ("p_value", "p_pixel", "any")]
    groups = found.by_amplitude.found
    assert groups.number[0, run] == 0 and np.isnan(groups.share[0, run])
    assert (groups.number[0, others] == 50).all() and (groups.share[0, others] > 0.3).all()
    assert (found.false_positives.all.number[:, run] == 0).all()
    assert (found.false_positives.all.number[:, others] == 256).all()
    for by in ("any", "p_run"):
        plots.recovery_curves(found, by=by)


def test_normal_objects_are_in_no_list(scored):
    fit, data, scores = scored
    flagged = {
        name: scores.object._asdict()[name].copy() for name in ("q_value", "q_run", "q_any", "q_pixel")
    }
    for place, q in enumerate(flagged.values()):
        q[10 * place : 10 * place + 10] = 0.01
    marked = dataclasses.replace(scores, object=scores.object._replace(**flagged))
    few = {"line set": [0.0]}
    rows = rp.recovery(fit, data, few, key=0, per_amplitude=N, scores=marked).trials.row
    assert rows.min() >= 40 and len(rows) > 200


def test_scores_by_other_cells_are_refused(scored):
    fit, data, _ = scored
    hidden = np.zeros(data.shape, bool)
    hidden[5, :10] = True
    others = rp.surprise(fit, data, held_out=hidden, pixel=True, in_training=False)
    with pytest.raises(ValueError, match=r"give data\.hide\(held_out\)"):
        rp.recovery(fit, data, {"line set": [0.0]}, key=0, scores=others)


def test_an_interval_covers_as_often_as_it_says():
    """Brown, Cai & DasGupta (2001): on average over the share, the coverage is nominal."""
    n = 50
    shares = Proportion.of(np.arange(n + 1), n)
    truth = np.linspace(0.02, 0.98, 400)[:, None]
    inside = (shares.low <= truth) & (truth <= shares.high)
    coverage = (stats.binom.pmf(np.arange(n + 1), n, truth) * inside).sum(1)
    assert coverage.mean() == pytest.approx(0.6827, abs=0.01)
    assert (shares.low[0], shares.high[-1]) == (0.0, 1.0)
    assert np.isnan(Proportion.of(0, 0).share)


def test_recovery_refuses_what_it_cannot_use(scored):
    fit, data, scores = scored
    line = {"emission line": [0.1]}
    other_rank = rp.Projection(fit.coefficients[:, :2], fit.coefficient_covariance[:, :2, :2], data.ids)
    for change, error, match in (
        ({"amplitudes": [0.1]}, TypeError, "must map kinds to numbers"),
        ({"amplitudes": {"line": [0.1]}}, ValueError, "kind must be one of"),
        ({"amplitudes": {"emission line": []}}, ValueError, "is empty"),
        ({"amplitudes": {"emission line": ["x"]}}, TypeError, "must be numbers"),
        ({"options": {"line set": {}}}, ValueError, "that amplitudes has not"),
        ({"per_amplitude": 0}, ValueError, "at least 1"),
        ({"level": 0.0}, ValueError, "between 0 and 1"),
        ({"scores": dataclasses.replace(scores, ids=data.ids[::-1])}, ValueError, "same objects in the same"),
        ({"scores": "scores.csv"}, TypeError, "scores is a str"),
        ({"projection": rp.project(fit, data.take(slice(None, None, -1)))}, ValueError, "in the same order"),
        ({"projection": other_rank}, ValueError, "projection is of a fit of rank 2, not 3"),
    ):
        with pytest.raises(error, match=match):
            rp.recovery(fit, data, **{"amplitudes": line, "key": 0, "scores": scores, **change})


@pytest.mark.parametrize("against", ["strength", "beyond", "amplitude"])
def test_the_picture_shows_the_shares(found, against):
    figure = plots.recovery_curves(found, against, "p_run")
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=60)
    left, right = figure.axes
    groups = found.by_amplitude if against == "amplitude" else found.by_strength
    curve = left.containers[0].lines[0]
    first = groups.kind == "absorption line"
    assert curve.get_xdata() == pytest.approx(getattr(groups, against)[first])
    assert curve.get_ydata() == pytest.approx(groups.found.share[first, 1])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["absorption line", "scaled noise", "second spectrum"]
    assert "nominal" in [text.get_text() for text in right.get_legend().get_texts()]


def test_the_picture_refuses_unknown_words(found):
    with pytest.raises(ValueError, match=re.escape("against must be one of strength")):
        plots.recovery_curves(found, "depth")
    with pytest.raises(ValueError, match="by must be one of p_value"):
        plots.recovery_curves(found, by="p")


def test_the_strength_at_which_half_is_found_divides_the_found_from_the_others(found):
    """On probabilities that are known: a logistic rise about 7 sigma."""
    rng = np.random.default_rng(0)
    strength = rng.uniform(1.0, 20.0, 4000)
    there = rng.random(4000) < 1.0 / (1.0 + np.exp(-(strength - 7.0)))
    p = np.where(there[:, None], 1e-9, 0.5) * np.ones(len(LISTS))
    one = dataclasses.replace(
        found, trials=found.trials._replace(kind=np.full(4000, "line set"), strength=strength, p=p)
    )
    assert one.half("line set") == pytest.approx(7.0, abs=0.4)
    all_found = dataclasses.replace(one, trials=one.trials._replace(p=0.0 * p))
    assert np.isnan(all_found.half("line set"))
    with pytest.raises(ValueError, match="there are the kinds"):
        one.half("emission line")


def test_lines_that_are_asked_for_flag_and_name(survey_with_lines):
    """Three lines of 4 sigma each are 7 together: the list finds them where it is told where to look."""
    fit, data, rows, positions = survey_with_lines
    blind = rp.surprise(fit, data)
    told = rp.surprise(fit, data, lines={"set": positions}, flag_lines=True)
    quiet = rp.surprise(fit, data, lines={"set": positions})
    assert np.array_equal(quiet.object.q_any, blind.object.q_any, equal_nan=True)
    assert told.flagged[rows].mean() > 0.9 > blind.flagged[rows].mean() + 0.2
    assert (told.object.kind[rows][told.flagged[rows]] == "lines").mean() > 0.9
    others = np.setdiff1d(np.arange(data.shape[0]), rows)
    assert told.flagged[others].sum() <= 3
    least = np.fmin(np.fmin(told.object.p_value, told.object.p_run), told.lines["set"].p_value)
    assert np.array_equal(told.least_p, least, equal_nan=True)
    assert (told.flagged == (told.least_p <= told.level)).all()
    here = {"line set": {"positions": positions}}
    found = rp.recovery(fit, data, {"line set": [0.5]}, key=0, per_amplitude=30, scores=told, options=here)
    assert found.lists == ("p_value", "p_run", "p_pixel", "set", "p_flag", "any")
    assert (found.trials.p[:, 4] <= np.nanmin(found.trials.p[:, [0, 1, 3]], axis=1)).all()
    with pytest.raises(TypeError, match="flag_lines must be True or False"):
        rp.surprise(fit, data, flag_lines="yes")


@pytest.fixture(scope="module")
def survey_with_lines():
    """400 spectra of rank 2, in 30 of which three lines of 4 sigma each are injected."""
    clean = rp.simulate.low_rank(400, 300, 2, seed=3)
    rows, positions = np.arange(30), [60.0, 150.0, 230.0]
    sigma = clean.data.unit / np.sqrt(np.median(clean.data.ivar[rows], axis=1))
    level = np.median(np.abs(clean.data.flux[rows]), axis=1) * clean.data.unit
    height = 4.0 * sigma / np.sqrt(2.0 * np.sqrt(np.pi))  # the squares of a line of deviation 2 sum to that
    data = rp.inject(clean.data, "line set", height / level, key=1, rows=rows, positions=positions).data
    return rp.fit(data, 2), data, rows, positions
