"""Pictures: that they show what they claim, also where data are odd. Looks are for eyes."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import robusta_prob as rp
from robusta_prob import plots
from robusta_prob.inference.results import PopulationLaw
from robusta_prob.plots.style import BLACK, BLUE, VERMILLION
from robusta_prob.selection.held_out import Published
from robusta_prob.selection.results import Candidate
from robusta_prob.selection.segments import Segments

N, M, K = 128, 120, 5  # one block of objects: few shapes, little to compile


@pytest.fixture(scope="module")
def data() -> rp.Dataset:
    """A toy survey in which pixel 7 was never observed."""
    survey = rp.simulate.toy(N, M, seed=1).data
    ivar = np.array(survey.ivar)
    ivar[:, 7] = 0.0
    flux = np.where(ivar > 0, survey.flux, np.nan) * survey.unit
    names = {"grid_name": "wavelength [nm]", "flux_name": "flux [1e-17 erg/s/cm2/$\\AA$]"}
    return rp.dataset(flux, ivar / survey.unit**2, grid=survey.grid, meta=survey.meta, **names)


@pytest.fixture(scope="module")
def fit(data: rp.Dataset) -> rp.Fit:
    return rp.fit(data, K)


@pytest.fixture(scope="module")
def projection(fit: rp.Fit, data: rp.Dataset) -> rp.Projection:
    return rp.project(fit, data)


@pytest.fixture(scope="module")
def scores(fit: rp.Fit, data: rp.Dataset, projection: rp.Projection) -> rp.Surprise:
    return rp.surprise(fit, data, projection, pixel=True)


def drawn(figure: Figure) -> bytes:
    """The figure as PNG; a warning on the way is an error."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    return file.getvalue()


def of_objects(scores: rp.Surprise, rows: np.ndarray) -> rp.Surprise:
    columns = type(scores.object)(*(column[rows] for column in scores.object))
    return dataclasses.replace(scores, object=columns, ids=scores.ids[rows], pixel=None)


def of_rank_one(fit: rp.Fit) -> rp.Fit:
    return dataclasses.replace(
        fit,
        basis=fit.basis[:1],
        coefficients=fit.coefficients[:, :1],
        coefficient_covariance=fit.coefficient_covariance[:, :1, :1],
        basis_covariance=fit.basis_covariance[:, :1, :1],
        population=PopulationLaw(fit.population.mean[:1], fit.population.covariance[:1, :1]),
        moments=fit.moments[:1],
        near_equal=(),
    )


CELLS = 4  # judged of each object
JUDGES = 50


def selection_of(
    below: dict[tuple[int, float | None], float],
    chosen: int,
    *,
    spread: float = 0.0,
    std: tuple[float, ...] = (),
    restless: tuple[int, ...] = (),
) -> rp.Selection:
    """By how far each is below the best [nats per pixel], by `spread` more or less in every other object."""
    either = np.where(np.arange(JUDGES) % 2, -spread, spread)
    ending = rp.Status("converged", ""), rp.Status("out_of_steps", "")
    candidates = tuple(
        Candidate(
            rank,
            scale,
            CELLS * (2.0 - less + (less > 0) * either),
            Published(0.1, std[place] if std else 1.0, 1.0, 1.0, 0.7),
            ending[place in restless],
        )
        for place, ((rank, scale), less) in enumerate(below.items())
    )
    everyone, where = np.arange(JUDGES), Segments(np.zeros((JUDGES, 1), int), 1, 0, M)
    return rp.Selection(candidates, chosen, np.full(JUDGES, CELLS), everyone, everyone, where, {})


def frames(axes: Axes, colour: str) -> list[tuple[int, int]]:
    """Row and column of the cells of a map with a frame of this colour."""
    boxes = [
        box for box in axes.patches if isinstance(box, Rectangle) and to_hex(box.get_edgecolor()) == colour
    ]
    return [(round(y), round(x)) for x, y in (box.get_center() for box in boxes)]


def smallest_text(figure: Figure) -> float:
    """Smallest font size of what is written, in points."""
    figure.draw_without_rendering()
    texts = figure.findobj(lambda artist: hasattr(artist, "get_fontsize") and bool(artist.get_text()))
    return min(text.get_fontsize() for text in texts if text.get_visible())


# The fit --------------------------------------------------------------------------------------------


def test_basis_has_a_panel_per_component_with_bands_and_gaps(fit: rp.Fit) -> None:
    figure = plots.basis(fit)
    assert len(figure.axes) == K
    for k, axes in enumerate(figure.axes):
        curve = axes.get_lines()[-1]
        values = np.asarray(curve.get_ydata())
        np.testing.assert_array_equal(np.isnan(values), ~fit.trained)
        np.testing.assert_allclose(values[fit.trained], fit.basis[k][fit.trained])
        band = axes.collections[0].get_datalim(axes.transData)
        sd = np.sqrt(fit.basis_covariance[:, k, k])
        assert band.y1 == pytest.approx(np.max((fit.basis[k] + sd)[fit.trained]), rel=1e-4)
        share = 100 * fit.moments[k] / fit.moments.sum()
        assert axes.get_title(loc="left") == f"{k + 1}: {share:.3g} %"
    assert figure.axes[-1].get_xlabel() == "wavelength [nm]"
    assert drawn(figure)


def test_basis_flags_components_that_cannot_be_told_apart(fit: rp.Fit) -> None:
    figure = plots.basis(dataclasses.replace(fit, near_equal=(1, 2)))
    titles = [axes.get_title(loc="left").partition(", ")[2] for axes in figure.axes]
    apart = "not told apart from"
    assert titles == ["", f"{apart} 3", f"{apart} 2 and 4", f"{apart} 3", ""]


def test_basis_does_not_mind_the_order_of_the_grid(fit: rp.Fit) -> None:
    backwards = dataclasses.replace(fit, grid=fit.grid[::-1])
    x, y = plots.basis(backwards).axes[0].get_lines()[-1].get_data()
    assert (np.diff(x) > 0).all()
    np.testing.assert_array_equal(y, np.where(fit.trained, fit.basis[0], np.nan)[::-1])


def test_rank_one(fit: rp.Fit, data: rp.Dataset, projection: rp.Projection, scores: rp.Surprise) -> None:
    one = of_rank_one(fit)
    part = projection._replace(
        coefficients=projection.coefficients[:, :1], covariance=projection.covariance[:, :1, :1]
    )
    assert len(plots.basis(one).axes) == 1
    assert drawn(plots.basis(one))
    assert drawn(plots.history(one))
    assert drawn(plots.outliers(one, data, scores, 1, part))


def test_history_tells_starts_from_the_fit(fit: rp.Fit) -> None:
    figure = plots.history(fit)
    robustness, bound, move, law, floor = figure.axes
    lines = robustness.get_lines()
    np.testing.assert_allclose(lines[0].get_ydata(), [line.object_scale for line in fit.history])
    np.testing.assert_allclose(lines[1].get_ydata(), [line.tail for line in fit.history])
    starting = np.array([line.stage.startswith("start") for line in fit.history])
    assert starting.any()
    gap = np.asarray(bound.get_lines()[0].get_ydata())
    assert np.isnan(gap[starting]).all()
    assert (gap[np.isfinite(gap)] > 0).all()
    np.testing.assert_allclose(move.get_lines()[0].get_ydata(), [line.move for line in fit.history])
    np.testing.assert_allclose(law.get_lines()[1].get_ydata(), [line.scale for line in fit.history])
    assert "[nats]" in bound.get_ylabel()
    assert "1e-17 erg/s/cm2" in floor.get_ylabel()
    assert move.get_yscale() == "log"
    assert "converged" in figure.get_suptitle()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "start, on a subsample" in labels
    assert drawn(figure)


def test_history_of_a_gaussian_fit_without_a_floor(fit: rp.Fit) -> None:
    lines = tuple(
        line._replace(nu=np.inf, floor=0.0, stage="fit", object_scale=0.0, tail=0.0)
        for line in fit.history[-3:]
    )
    figure = plots.history(dataclasses.replace(fit, history=lines))
    assert figure.axes[4].texts[0].get_text() == "0 throughout"
    assert not figure.legends
    assert drawn(figure)
    assert drawn(plots.history(dataclasses.replace(fit, history=lines[:1])))


# All objects ----------------------------------------------------------------------------------------


def test_histogram_counts_every_object_with_a_score(scores: rp.Surprise) -> None:
    figure = plots.surprise_histogram(scores)
    (axes,) = figure.axes
    heights = {}
    for bars, name in zip(axes.containers, ("not", "flagged"), strict=True):
        heights[name] = sum(patch.get_height() for patch in bars)
    flagged = int((scores.object.q_value < 0.05).sum())
    assert heights == {"not": N - flagged, "flagged": flagged}
    assert flagged
    assert any(text.get_text().startswith("flagged") for text in axes.get_legend().get_texts())
    assert axes.get_title() == f"{flagged} of {N} objects flagged (q_value < 0.05)"
    assert drawn(figure)


def test_histogram_survives_every_kind_of_score(scores: rp.Surprise) -> None:
    o = scores.object
    z = o.z.copy()
    z[:4] = np.nan, np.inf, -np.inf, 1e6  # no score; p = 0; p = 1; p underflows
    q = o.q_value.copy()
    q[:4] = np.nan, 0.0, 1.0, 0.0
    odd = dataclasses.replace(scores, object=o._replace(z=z, q_value=q))
    figure = plots.surprise_histogram(odd)
    assert sum(patch.get_height() for bars in figure.axes[0].containers for patch in bars) == N - 1
    assert "1 without a score" in figure.axes[0].get_title()
    assert drawn(figure)


@pytest.mark.parametrize("rows", [[0], [0, 1]], ids=["one", "two"])
def test_histogram_of_few_objects(scores: rp.Surprise, rows: list[int]) -> None:
    assert drawn(plots.surprise_histogram(of_objects(scores, np.array(rows))))


def test_histogram_without_any_score(scores: rp.Surprise) -> None:
    o = scores.object
    nothing = np.full(N, np.nan)
    figure = plots.surprise_histogram(
        dataclasses.replace(scores, object=o._replace(z=nothing, q_value=nothing))
    )
    assert f"0 of {N} objects flagged" in figure.axes[0].get_title()
    assert drawn(figure)


def test_calibration_shows_every_p_value_and_the_band_of_uniform_ones(scores: rp.Surprise) -> None:
    rng = np.random.default_rng(0)
    n = 400
    p = rng.uniform(size=n)
    p[:3] = 1e-5, 1e-30, np.nan
    q = np.where(p < 1e-4, 0.001, 0.9)
    o = scores.object._replace(p_run=p, q_run=q)
    figure = plots.calibration(dataclasses.replace(scores, object=o), of="p_run")
    bars, tail = figure.axes
    known = p[~np.isnan(p)]
    heights = sum(np.array([patch.get_height() for patch in patches]) for patches in bars.containers)
    np.testing.assert_array_equal(heights, np.histogram(known, np.linspace(0.0, 1.0, 21))[0])
    # the band: from 399 uniform numbers drawn many times over
    drawn_counts = rng.binomial(n - 1, 0.05, 100_000)
    band = bars.collections[0].get_datalim(bars.transData)
    np.testing.assert_allclose([band.y0, band.y1], np.quantile(drawn_counts, (0.025, 0.975)), atol=1.0)

    points = [line for line in tail.get_lines() if line.get_marker() == "."]
    y = np.concatenate([np.asarray(line.get_ydata()) for line in points])
    np.testing.assert_allclose(np.sort(y), np.sort(-np.log10(known[known > 1e-20])))
    (beyond,) = (line for line in tail.get_lines() if line.get_marker() == "^" and len(line.get_xdata()))
    assert np.asarray(beyond.get_xdata())[0] == pytest.approx(np.log10(n))
    assert tail.get_title() == f"1 beyond {3 * np.log10(n):.3g}, drawn at the edge"
    # the band of the smallest of 399: also from draws
    smallest = -np.log10(rng.uniform(size=(20_000, n - 1)).min(1))
    area = tail.collections[0].get_paths()[0].vertices
    last = area[np.isclose(area[:, 0], np.log10(n))][:, 1]
    np.testing.assert_allclose(
        [last.min(), last.max()], np.quantile(smallest, (0.025, 0.975)), atol=0.05
    )  # 20,000 draws: the upper quantile scatters by 0.01-0.02
    title = figure.get_suptitle()
    assert title.endswith(f"2 of {n} objects flagged (q_run < 0.05); 1 without a p-value")
    assert drawn(figure)


def test_calibration_knows_p_values_that_underflow(scores: rp.Surprise) -> None:
    o = scores.object
    p, log_p, q = o.p_value.copy(), o.log_p.copy(), o.q_value.copy()
    p[0], log_p[0], q[0] = 0.0, -1e5, 0.0
    figure = plots.calibration(
        dataclasses.replace(scores, object=o._replace(p_value=p, log_p=log_p, q_value=q))
    )
    assert "drawn at the edge" in figure.axes[1].get_title()
    assert drawn(figure)
    with pytest.raises(ValueError, match="of must be one of p_value, p_run, p_pixel, p_mahalanobis; got 'q'"):
        plots.calibration(scores, of="q")


@pytest.mark.parametrize("of", ["p_value", "p_run", "p_pixel", "p_mahalanobis"])
@pytest.mark.parametrize("n", [1, N])
def test_calibration_of_each_test(scores: rp.Surprise, of: str, n: int) -> None:
    assert drawn(plots.calibration(of_objects(scores, np.arange(n)), of))


def test_calibration_without_any_p_value(scores: rp.Surprise) -> None:
    nothing = np.full(N, np.nan)
    none = dataclasses.replace(scores, object=scores.object._replace(p_value=nothing, q_value=nothing))
    figure = plots.calibration(none)
    assert figure.axes[1].texts[0].get_text() == "no p-value"
    assert f"0 of {N} objects flagged" in figure.get_suptitle()
    assert drawn(figure)


def test_calibration_draws_a_part_of_very_many(scores: rp.Surprise) -> None:
    n = 50_000
    p = np.random.default_rng(1).uniform(size=n)
    o = scores.object._replace(p_run=p, q_run=np.ones(n))
    tail = plots.calibration(dataclasses.replace(scores, object=o), "p_run").axes[1]
    y = np.concatenate(
        [np.asarray(line.get_ydata()) for line in tail.get_lines() if line.get_marker() == "."]
    )
    assert len(y) < 10_000
    np.testing.assert_allclose(np.sort(y)[-200:], np.sort(-np.log10(p))[-200:])


def test_surprise_against_sn_has_each_object_in_the_place_of_its_sn(
    scores: rp.Surprise, data: rp.Dataset
) -> None:
    kinds = np.array(["lines", "foreign", "errors", "isolated pixels", "of another sort"])
    q, kind, z = scores.object.q_value.copy(), scores.object.kind.copy(), scores.object.z.copy()
    z[:7] = 8.0, 9.0, 10.0, 11.0, np.inf, -np.inf, np.nan
    q[:7] = 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, np.nan
    kind = kind.astype("<U20")
    kind[:5] = kinds
    odd = dataclasses.replace(scores, object=scores.object._replace(q_value=q, q_any=q, kind=kind, z=z))
    figure = plots.surprise_against_sn(odd, data)
    (axes,) = figure.axes
    shown = {str(line.get_label()).partition(",")[0]: line for line in axes.get_lines()}
    assert {"not flagged", *kinds} <= set(shown)
    marks = {str(shown[kind].get_marker()) for kind in kinds}
    colours = {str(shown[kind].get_color()) for kind in kinds}
    assert len(marks) == len(colours) == len(kinds)
    sn = [
        np.median((flux * np.sqrt(ivar))[ivar > 0]) for flux, ivar in zip(data.flux, data.ivar, strict=True)
    ]
    np.testing.assert_allclose(
        shown["errors"].get_xdata()[np.argwhere(shown["errors"].get_ydata() == 10.0)[0]], sn[2:3]
    )
    points = [*kinds, "not flagged"]
    unscored = int(np.isnan(z).sum())
    assert sum(len(shown[name].get_xdata()) for name in points) == N - unscored
    # the median of what is not flagged: here of all of it in few bins, so near the median of all
    rest = np.asarray(shown["not flagged"].get_ydata())
    middle = np.asarray(shown["median"].get_ydata())
    assert abs(np.mean(middle) - np.median(rest)) < 0.5
    assert axes.get_xscale() == "log"
    assert f"{unscored} without a score" in axes.get_title()
    assert drawn(figure)


def test_surprise_against_sn_of_spectra_whose_mean_was_subtracted(
    scores: rp.Surprise, data: rp.Dataset
) -> None:
    flux = np.where(data.observed, data.flux, np.nan)
    some = flux * np.where(np.arange(N) < 5, -1.0, 1.0)[:, None]
    (axes,) = plots.surprise_against_sn(scores, rp.dataset(some, data.ivar)).axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "median S/N per pixel; 5 of S/N ≤ 0 at the left edge"
    figure = plots.surprise_against_sn(scores, rp.dataset(-flux, data.ivar))
    assert figure.axes[0].get_xscale() == "linear"
    assert drawn(figure)


def test_overview_is_the_histogram_the_sn_and_the_calibration(scores: rp.Surprise, data: rp.Dataset) -> None:
    figure = plots.overview(scores, data)
    parts = (
        *plots.surprise_histogram(scores).axes,
        *plots.surprise_against_sn(scores, data).axes,
        *plots.calibration(scores).axes,
    )
    assert [axes.get_xlabel() for axes in figure.axes] == [axes.get_xlabel() for axes in parts]
    assert drawn(figure)


@pytest.mark.parametrize("rows", [[0], [0, 1]], ids=["one", "two"])
def test_overview_of_few_objects(scores: rp.Surprise, data: rp.Dataset, rows: list[int]) -> None:
    assert drawn(plots.overview(of_objects(scores, np.array(rows)), data.take(rows)))


# The choice of a rank -------------------------------------------------------------------------------


def test_selection_shows_what_each_rank_lacks_and_how_sure_that_is() -> None:
    below = {3: 1.5, 4: 0.25, 5: 1e-3, 6: 0.0, 7: 4e-3}
    chosen = selection_of({(k, None): x for k, x in below.items()}, 2, spread=0.005, restless=(0, 1))
    figure = plots.selection(chosen)
    (axes,) = figure.axes
    # the paired differences scatter by +-0.005, as often up as down: the standard error of their mean
    error = 0.005 * np.sqrt(1 / (JUDGES - 1))
    points = [line for line in axes.get_lines() if line.get_marker() == "o" and line.get_markersize() < 9]
    for line, (rank, lacks) in zip(points, below.items(), strict=True):
        clear = lacks > 2 * error
        assert axes.get_xticklabels()[int(line.get_xdata()[0])].get_text() == str(rank)
        assert line.get_ydata()[0] == pytest.approx(lacks, abs=1e-12)
        assert line.get_color() == (VERMILLION if clear else BLUE)
        assert line.get_markerfacecolor() == ("white" if rank < 5 else line.get_color())
    (ring,) = (line for line in axes.get_lines() if line.get_markersize() > 9)
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2, pytest.approx(1e-3))
    bars = [np.ptp(bar.get_segments()[0][:, 1]) for bar in axes.collections]
    expected = [2 * n * error * (lacks > 0) for lacks in below.values() for n in (2, 1)]
    np.testing.assert_allclose(bars, expected, atol=1e-12)
    assert axes.get_yscale() == "symlog"
    worst, top = axes.get_ylim()
    assert worst > 1.5  # the best is above the others
    assert top < -2 * (error - 1e-3 / 2)
    assert "[nats per pixel]" in axes.get_ylabel()
    assert "did not come to rest" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert drawn(figure)


def test_selection_of_similar_ranks_has_a_linear_axis() -> None:
    figure = plots.selection(selection_of({(2, None): 0.0, (4, None): 0.01, (8, None): 0.02}, 0, spread=0.01))
    (axes,) = figure.axes
    assert axes.get_yscale() == "linear"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "4", "8"]
    assert "did not come to rest" not in [text.get_text() for text in figure.legends[0].get_texts()]
    assert drawn(figure)


@pytest.mark.parametrize("ranks", [[5], [1, 2, 3], range(1, 141)], ids=["one", "three", "very many"])
@pytest.mark.parametrize("scale", [None, 5.0])
def test_selection_of_ranks_that_are_all_equal(ranks: list[int], scale: float | None) -> None:
    figure = plots.selection(selection_of({(rank, scale): 0.0 for rank in ranks}, 0))
    (axes,) = figure.axes
    assert axes.get_title().startswith(f"Chosen: rank {ranks[0]}")
    assert ("scale 5" in axes.get_title()) == (scale is not None)
    assert len(axes.get_xticks()) <= 15
    assert drawn(figure)


def test_selection_maps_ranks_and_scales() -> None:
    below = np.array([[0.3, 0.2], [0.004, 0.0], [0.0002, 0.03]])
    std = np.array([[0.6, 1.7], [0.9, 1.25], [1.0, 100.0]])
    names = [(rank, scale) for rank in (4, 5, 6) for scale in (1.0, 2.5)]
    chosen = selection_of(
        dict(zip(names, below.ravel().tolist(), strict=True)),
        3,
        spread=0.001,
        std=tuple(std.ravel().tolist()),
        restless=(0,),
    )
    figure = plots.selection(chosen)
    top, bottom = figure.axes
    least = 2e-4  # 0 has no logarithm
    np.testing.assert_allclose(top.images[0].get_array(), np.maximum(below, least), rtol=1e-9)
    assert [text.get_text() for text in top.texts] == ["0.30*", "0.20", "0.0040", "0", "0.00020", "0.030"]
    assert [text.get_text() for text in bottom.texts] == ["0.600*", "1.70", "0.900", "1.25", "1.00", "100"]
    np.testing.assert_allclose(bottom.images[0].get_array(), np.maximum(np.abs(std - 1.0), 0.1), rtol=1e-9)
    assert frames(top, VERMILLION.lower()) == frames(bottom, VERMILLION.lower()) == [(1, 1)]
    assert frames(top, "#000000") == [(1, 1), (2, 0)]  # two standard errors are 0.00029
    assert [text.get_text() for text in bottom.get_xticklabels()] == ["1", "2.5"]
    assert [text.get_text() for text in top.get_yticklabels()] == ["4", "5", "6"]
    assert "did not come to rest" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert drawn(figure)


def test_numbers_in_a_map_can_be_read() -> None:
    """White or black, whichever differs more in luminance from the colour of the cell (WCAG 2)."""
    below = {(1 + i // 13, float(i % 13)): float(10.0 ** (-i / 9)) for i in range(38)} | {(3, 12.0): 0.0}
    (axes, _) = plots.selection(selection_of(below, 38)).axes
    image = axes.images[0]
    for text in axes.texts:
        column, row = (round(x) for x in text.get_position())
        share = np.array(image.cmap(image.norm(image.get_array()[row, column]))[:3])
        luminance = np.where(share > 0.03928, ((share + 0.055) / 1.055) ** 2.4, share / 12.92) @ (
            0.2126,
            0.7152,
            0.0722,
        )
        contrast = 1.05 / (luminance + 0.05) if text.get_color() == "white" else (luminance + 0.05) / 0.05
        assert text.get_color() in ("white", BLACK)
        assert contrast > 4.5  # the standard's for small text


@pytest.mark.parametrize("scales", [2, 13, 14, 40])
def test_selection_of_one_rank_and_of_many_scales(scales: int) -> None:
    std = (np.nan, *np.linspace(0.5, 2.0, scales - 1))
    figure = plots.selection(selection_of({(3, float(q)): 0.0 for q in range(1, scales + 1)}, 0, std=std))
    assert len(figure.axes) == (2 if scales <= 13 else 4)  # with numbers, or with keys of the colours
    assert bool(figure.axes[0].texts) == (scales <= 13)
    assert drawn(figure)


# Single objects -------------------------------------------------------------------------------------


def test_object_panels_show_data_model_residual_and_weight(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection
) -> None:
    row = int(np.flatnonzero(~data.observed[:, 8:].all(1))[0])  # one with a hole of its own
    figure = plots.object_panels(fit, data, scores, row, projection)
    top, middle, bottom = figure.axes
    seen = data.observed[row]
    flux, model = (np.asarray(line.get_ydata()) for line in top.get_lines()[:2])
    np.testing.assert_array_equal(np.isnan(flux), ~seen)
    np.testing.assert_allclose(flux[seen], data.flux[row][seen] * data.unit)
    np.testing.assert_allclose(model, rp.reconstruct(fit, projection, rows=[row])[0])
    assert np.isfinite(model[fit.trained]).all()
    # z and weight: those of the pixel scores, from another path through the library
    assert scores.pixel is not None
    np.testing.assert_allclose(middle.get_lines()[0].get_ydata(), scores.pixel.z[row], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        bottom.get_lines()[0].get_ydata(), scores.pixel.weight[row], rtol=1e-4, atol=1e-5
    )
    assert top.get_ylabel() == data.labels.flux_name
    assert bottom.get_xlabel() == "wavelength [nm]"
    assert f"id {data.ids[row]}: least p = " in top.get_title(loc="left")
    assert drawn(figure)


def with_windows(scores: rp.Surprise, row: int, *stretches: tuple[int, int, float]) -> rp.Surprise:
    """The scores with these windows (start, stop, log p) in one object."""
    start, stop, log_p = (np.array(values) for values in zip(*stretches, strict=True))
    n = len(start)
    rows = np.full(n, row)
    depth = np.append(np.nan, np.full(n - 1, -0.5))
    found = type(scores.windows)(
        rows, scores.ids[rows], start, stop, 500.0 + start, 1.0 + 0.0 * start, depth, 0.1 + 0.0 * start, log_p
    )
    return dataclasses.replace(scores, windows=found)


def test_bands_hold_what_they_promise(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection
) -> None:
    """z within a band is flux within a band; and 68 and 95 % of the cells of normal objects are."""
    assert scores.pixel is not None
    row = int(scores.ranking[N // 2])
    top, middle, _ = plots.object_panels(fit, data, scores, row, projection).axes
    reach = [patch.get_y() + patch.get_height() for patch in middle.patches]
    cells = np.abs(scores.pixel.z[~scores.flagged])
    share = [(cells < r).sum() / np.isfinite(cells).sum() for r in reach]
    np.testing.assert_allclose(share, [0.95, 0.68], atol=0.02)  # 1 % of bad pixels, and 15,000 cells
    flux, model = (np.asarray(line.get_ydata()) for line in top.get_lines()[:2])
    for r, band in zip(reach, top.collections, strict=True):
        with np.errstate(invalid="ignore"):  # 0 / 0 where a pixel is hit exactly
            sd = (flux - model) / scores.pixel.z[row]
        limit = band.get_datalim(top.transData)
        seen = data.observed[row] & fit.trained
        assert limit.y1 == pytest.approx(np.nanmax((model + r * sd)[seen]), rel=1e-3)
        assert limit.y0 == pytest.approx(np.nanmin((model - r * sd)[seen]), rel=1e-3)


@pytest.mark.parametrize("falling", [False, True], ids=["rising grid", "falling grid"])
def test_windows_are_shaded_numbered_and_told(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection, falling: bool
) -> None:
    if falling:
        labels = dataclasses.replace(data.labels, grid=data.grid[::-1])
        data = dataclasses.replace(data, labels=labels)
        fit = dataclasses.replace(fit, grid=fit.grid[::-1])
    row = int(scores.ranking[0])
    marked = with_windows(scores, row, (20, 30, -10.0), (60, 61, -40.0))
    figure = plots.object_panels(fit, data, marked, row, projection)
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "windows"
    # from half way to the neighbours before the first pixel to half way to those after the last
    edges = {
        (i, j): sorted((data.grid[i - 1 : i + 1].mean(), data.grid[j - 1 : j + 1].mean()))
        for i, j in ((20, 30), (60, 61))
    }
    for axes in figure.axes:
        shaded = [[patch.get_x(), patch.get_x() + patch.get_width()] for patch in axes.patches]
        for ends in edges.values():
            assert any(np.allclose(ends, one, rtol=1e-6) for one in shaded)
    numbers = {text.get_text(): text.xy[0] for text in figure.axes[0].texts}
    assert numbers["1"] == pytest.approx(np.mean(edges[60, 61]))
    header = figure.axes[0].get_title(loc="left")
    assert "windows: 1 at 560, depth −0.5 ± 0.1; 2 at 520, depth unknown" in header
    other = plots.object_panels(fit, data, marked, int(scores.ranking[1]), projection)
    assert not other.axes[0].texts
    assert drawn(figure)


# Recoveries -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recovered(fit: rp.Fit, data: rp.Dataset) -> rp.Recovery:
    scores = rp.surprise(fit, data, lines={"a set": [float(data.grid[40])]}, flag_lines=True)
    kinds = {"emission line": [0.05, 0.5], "scaled noise": [1.1, 4.0]}
    return rp.recovery(fit, data, kinds, key=0, per_amplitude=20, scores=scores)


@pytest.mark.parametrize("by", ["any", "p_flag", "p_value", "p_run", "p_pixel", "a set"])
def test_recovery_shows_the_list_that_is_asked_for(recovered: rp.Recovery, by: str) -> None:
    column = recovered.lists.index(by)
    left, right = plots.recovery_curves(recovered, by=by).axes
    for place, container in enumerate(left.containers):
        shown = np.sort(container.lines[0].get_ydata())
        np.testing.assert_allclose(shown, np.sort(recovered.by_strength.found.share[2 * place :][:2, column]))
    title = {
        "any": "Found: a set, p_value, p_run or p_pixel < 0.001",
        "p_flag": "Found: a set, p_value or p_run < 0.001",
    }
    assert left.get_title() == title.get(by, f"Found: {by} < 0.001")
    names = [text.get_text() for text in right.get_legend().get_texts()]
    assert {"p_value", "p_run", "p_pixel", "normal ones alone"} <= set(names)


def test_recovery_knows_the_lists_of_its_own(recovered: rp.Recovery) -> None:
    with pytest.raises(
        ValueError, match="by must be one of p_value, p_run, p_pixel, a set, p_flag, any; got"
    ):
        plots.recovery_curves(recovered, by="another set")


def test_header_tells_all_scores_of_the_object(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection
) -> None:
    row = 3
    one = np.arange(N) == row
    o = scores.object
    put = {
        "log_p": -np.log(1e40), "q_any": 0.0, "log_p_run": np.log(0.25), "p_pixel": 1e-6,
        "p_mahalanobis": np.nan, "scale": 1.25, "mahalanobis": 12.0, "score": 1234.0, "kind": "lines",
    }  # fmt: skip
    o = o._replace(**{name: np.where(one, value, getattr(o, name)) for name, value in put.items()})
    many = with_windows(scores, row, *((10 * i, 10 * i + 3, -float(i)) for i in range(1, 11)))
    figure = plots.object_panels(fit, data, dataclasses.replace(many, object=o), row, projection)
    first, second, third, *windows = figure.axes[0].get_title(loc="left").split("\n")
    assert first == f"id {data.ids[row]}: least p = $10^{{-40}}$, lines"
    assert second == (
        "as a whole p = $10^{-40}$, strangest run p = 0.25 (q = $<10^{-300}$), "
        "strangest pixel p = $10^{-6}$, score 1,234 nats"
    )
    assert third.startswith("robust scale of z 1.25, Mahalanobis distance² 12 (p = unknown), ")
    assert third.endswith("in the training set")
    assert " ".join(windows).endswith("and 4 more")
    assert len(windows) > 1
    assert drawn(figure)


def test_pages_are_the_panels_of_each_object(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection
) -> None:
    rows = scores.ranking[:2]
    pages = plots.object_pages(fit, data, scores, rows, projection)
    for row, page in zip(rows, pages, strict=True):
        alone = plots.object_panels(fit, data, scores, row, projection)
        assert page.axes[0].get_title(loc="left") == alone.axes[0].get_title(loc="left")
        for one, other in zip(page.axes, alone.axes, strict=True):
            np.testing.assert_allclose(
                one.get_lines()[0].get_ydata(), other.get_lines()[0].get_ydata(), rtol=1e-5, atol=1e-5
            )


def test_outliers_are_the_most_surprising_first(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection
) -> None:
    figure = plots.outliers(fit, data, scores, 3, projection)
    assert len(figure.axes) == 9
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    expected = [f"{place}. id {data.ids[row]}:" for place, row in enumerate(scores.ranking[:3], 1)]
    assert [title.partition(":")[0] + ":" for title in titles] == expected
    assert "wavelength [nm]" in {axes.get_xlabel() for axes in figure.axes}
    assert drawn(figure)


def test_outliers_leave_out_objects_without_a_score(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection
) -> None:
    o = scores.object
    keep = scores.ranking[:2]
    without = np.setdiff1d(np.arange(N), keep)
    p, log_p = o.p_value.copy(), o.log_p.copy()
    p[without] = log_p[without] = np.nan
    log_p[keep[0]], p[keep[0]] = -1e5, 0.0
    few = dataclasses.replace(scores, object=o._replace(p_value=p, log_p=log_p))
    figure = plots.outliers(fit, data, few, 6, projection)
    assert len(figure.axes) == 6
    assert "10^{-43429}" in figure.axes[0].get_title() + figure.axes[1].get_title()
    assert drawn(figure)
    none = dataclasses.replace(scores, object=o._replace(p_value=np.full(N, np.nan)))
    with pytest.raises(ValueError, match="no object to show"):
        plots.outliers(fit, data, none, 6, projection)


def test_one_object_without_a_projection(fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise) -> None:
    row = scores.ranking[:1]
    figure = plots.outliers(fit, data.take(row), of_objects(scores, row), 6)
    assert len(figure.axes) == 3
    assert drawn(figure)


def test_object_without_a_single_observed_pixel(fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise) -> None:
    m = data.shape[1]
    empty = rp.dataset(np.full((1, m), np.nan), np.zeros((1, m)), grid=data.grid, ids=["x$y$z"])
    o = of_objects(scores, np.array([0])).object
    o = o._replace(log_p=np.array([np.nan]), reason=np.array(["no observed pixel"]))
    figure = plots.object_panels(fit, empty, dataclasses.replace(scores, object=o, ids=empty.ids), 0)
    assert figure.axes[0].get_title(loc="left") == "id x\\$y\\$z: no observed pixel"
    assert drawn(figure)


def test_wrong_input(fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection) -> None:
    with pytest.raises(ValueError, match="scores and data must be of the same objects"):
        plots.outliers(fit, data.take(slice(5)), scores)
    with pytest.raises(ValueError, match="projection and data must be of the same objects"):
        plots.outliers(fit, data, scores, 3, projection._replace(ids=projection.ids[::-1]))
    with pytest.raises(IndexError, match=f"between 0 and {N - 1}"):
        plots.object_panels(fit, data, scores, N, projection)
    with pytest.raises(IndexError, match="got -1"):
        plots.object_pages(fit, data, scores, [0, -1], projection)
    with pytest.raises(ValueError, match="at least one row"):
        plots.object_pages(fit, data, scores, [], projection)
    with pytest.raises(TypeError, match="whole numbers, got dtype bool"):
        plots.object_pages(fit, data, scores, scores.flagged, projection)
    for picture in (plots.surprise_against_sn, plots.overview):
        with pytest.raises(ValueError, match="scores and data must be of the same objects"):
            picture(scores, data.take(slice(5)))


# House rules ----------------------------------------------------------------------------------------


def test_labels_with_broken_mathematics_are_shown_as_they_are(fit: rp.Fit) -> None:
    figure = plots.basis(dataclasses.replace(fit, grid_name="price [$\\oops$]"))
    assert figure.axes[-1].get_xlabel() == "price [\\$\\oops\\$]"
    assert drawn(figure)


def test_text_is_legible(
    fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection
) -> None:
    for figure in (
        plots.basis(fit),
        plots.history(fit),
        plots.surprise_histogram(scores),
        plots.overview(scores, data),
        plots.outliers(fit, data, scores, 2, projection),
        plots.object_panels(fit, data, with_windows(scores, 0, (5, 9, -9.0)), 0, projection),
        plots.selection(selection_of({(1, None): 0.5, (2, None): 0.0}, 1, spread=0.01)),
        plots.selection(selection_of({(1, float(q)): 0.1 * q for q in range(3)}, 0)),
        plots.selection(selection_of({(1, float(q)): 0.1 * q for q in range(20)}, 0)),
    ):
        assert smallest_text(figure) >= 8.0


def test_importing_the_library_imports_no_plots() -> None:
    code = "import sys, robusta_prob; sys.exit('robusta_prob.plots' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[1])
