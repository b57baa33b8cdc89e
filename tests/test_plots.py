"""Pictures: that they show what they claim, also where data are odd. Looks are for eyes."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import robusta_prob as rp
from robusta_prob import plots
from robusta_prob.inference.results import PopulationLaw

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
    assert axes.get_title() == f"{flagged} of {N} objects flagged (q < 0.05)"
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
    assert f"id {data.ids[row]}: p = " in top.get_title()
    assert drawn(figure)


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
    assert figure.axes[0].get_title() == "id x\\$y\\$z: no observed pixel"
    assert drawn(figure)


def test_wrong_input(fit: rp.Fit, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection) -> None:
    with pytest.raises(ValueError, match="scores are of other objects"):
        plots.outliers(fit, data.take(slice(5)), scores)
    with pytest.raises(ValueError, match="projection is of other objects"):
        plots.outliers(fit, data, scores, 3, projection._replace(ids=projection.ids[::-1]))
    with pytest.raises(IndexError, match=f"between 0 and {N - 1}"):
        plots.object_panels(fit, data, scores, N, projection)


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
        plots.outliers(fit, data, scores, 2, projection),
    ):
        assert smallest_text(figure) >= 8.0


def test_importing_the_library_imports_no_plots() -> None:
    code = "import sys, robusta_prob; sys.exit('robusta_prob.plots' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[1])
