"""Pictures of objects: how surprising they all are, and what is odd about the most surprising ones."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from robusta_prob.data import Dataset
from robusta_prob.inference.projection import check_same_pixels, project, reconstruct
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.plots.style import (
    BLACK,
    BLUE,
    COLUMN,
    GREY,
    NORMAL,
    PAGE,
    SMALL,
    VERMILLION,
    axis_label,
    finish,
    limits,
    plain,
)
from robusta_prob.scoring.outliers import Surprise
from robusta_prob.scoring.predictive import cells

FLAG = 0.05  # q-value below which an object is flagged
BIN = 0.25  # of the histogram, in z
LOWEST, HIGHEST = -8.0, 12.0  # objects beyond share the first and the last bar
USUAL, STEEP = 3.0, 15.0  # |z| of pixels: grey band; beyond STEEP the axis is logarithmic outside the band


def surprise_histogram(scores: Surprise) -> Figure:
    """How surprising the objects are, against what normal objects would show.

    The deviate z of an object is the standard normal one with the same p-value. The curve is the null:
    what as many normal objects would show. Objects beyond z = 12 share the last bar.

    Parameters
    ----------
    scores : Surprise
        Objects without a score (p-value NaN) are counted in the title, and left out.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> fit = rp.fit(survey.data, rank=5)
    >>> figure = plots.surprise_histogram(rp.surprise(fit, survey.data))
    """
    scored = ~np.isnan(scores.object.z)
    z = np.clip(scores.object.z[scored], LOWEST, HIGHEST - BIN / 2)
    flagged = scores.object.q_value[scored] < FLAG
    beyond = int((scores.object.z > HIGHEST).sum())
    low = min(math.floor(z.min(initial=-4.0)), -4)
    high = HIGHEST if beyond else max(math.ceil(z.max(initial=5.0)), 5)
    edges = np.arange(low, high + BIN / 2, BIN)
    counts = np.histogram(z, edges)[0]
    curve = np.linspace(low, high, 500)
    null = len(z) * BIN * np.exp(-0.5 * curve**2) / math.sqrt(2.0 * math.pi)

    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    axes = figure.subplots()
    named = ["not flagged", f"flagged ({beyond:,} at z > {HIGHEST:g})" if beyond else "flagged"]
    axes.hist(
        [z[~flagged], z[flagged]], bins=edges.tolist(), stacked=True, color=[BLUE, VERMILLION], label=named
    )
    axes.plot(curve, null, color=BLACK, lw=1.2, label="normal objects")
    if flagged.any():
        axes.axvline(z[flagged].min(), ymax=0.7, color=BLACK, lw=0.8, ls="--")
    axes.set_ylim(0.5, 30.0 * max(counts.max(initial=1), null.max()))  # room for the legend
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    title = f"{int(flagged.sum()):,} of {len(scored):,} objects flagged (q < {FLAG})"
    if not scored.all():
        title += f"; {int((~scored).sum()):,} without a score"
    axes.set_title(title, fontsize=NORMAL if scored.all() else SMALL)
    axes.set_xlabel("surprise of the object, z [standard deviations]", fontsize=SMALL)
    axes.set_ylabel(f"objects per {BIN} in z", fontsize=SMALL)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper right", handlelength=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    finish(axes)
    return figure


def outliers(
    fit: Fit, data: Dataset, scores: Surprise, top: int = 6, projection: Projection | None = None
) -> Figure:
    """The most surprising objects: spectrum with model, residuals and robust weights, as in `object_panels`.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    scores : Surprise
        Of these data.
    top : int
        How many objects, at least 1; fewer where fewer have a score.
    projection : Projection, optional
        Of these data, if there is one already; else the objects shown are projected.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels per object, two objects in a row, the most surprising first.

    Raises
    ------
    ValueError
        If the scores are of other data, the pixels not those of the fit, or there is no object to show.
    """
    _check(fit, data, scores, projection)
    ranked = scores.ranking[~np.isnan(scores.object.p_value[scores.ranking])][: max(top, 0)]
    if not len(ranked):
        raise ValueError(
            f"no object to show: top={top}, and {(~np.isnan(scores.object.p_value)).sum()} have a score"
        )
    columns = min(len(ranked), 2)
    rows = -(-len(ranked) // columns)
    figure = Figure(figsize=(PAGE, 0.6 + (2.7 if columns == 2 else 3.4) * rows), layout="constrained")
    panels = _panels(figure, rows, columns)
    for place, shown in enumerate(_shown(fit, data, scores, ranked, projection)):
        row, column = divmod(place, columns)
        _draw(panels[3 * row : 3 * row + 3, column], shown, fit, f"{place + 1}. {shown.title}", column == 0)
    for axes in panels[3 * rows - 3 :, len(ranked) - (rows - 1) * columns :].flat:
        axes.remove()
    figure.align_ylabels()
    _explain(figure)
    return figure


def object_panels(
    fit: Fit, data: Dataset, scores: Surprise, row: int, projection: Projection | None = None
) -> Figure:
    """One object: its spectrum with the model, residuals in predictive standard deviations, robust weights.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    scores : Surprise
        Of these data.
    row : int
        Which of the N objects; `np.flatnonzero(data.ids == name)[0]` where its id is known.
    projection : Projection, optional
        Of these data, if there is one already; else the object is projected.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels sharing the pixel axis. Missing cells are gaps; the model is drawn across them.

    Raises
    ------
    ValueError
        If the scores are of other data, or the pixels not those of the fit.
    IndexError
        If there is no such row.
    """
    _check(fit, data, scores, projection)
    if not 0 <= row < data.shape[0]:
        raise IndexError(f"row must be between 0 and {data.shape[0] - 1}, one of the objects; got {row}")
    figure = Figure(figsize=(PAGE, 4.0), layout="constrained")
    (shown,) = _shown(fit, data, scores, np.array([row]), projection)
    _draw(_panels(figure, 1, 1)[:, 0], shown, fit, shown.title, True)
    figure.align_ylabels()
    _explain(figure)
    return figure


class _Shown(NamedTuple):
    """One object, in the user's units and in the order of the grid; NaN where missing."""

    title: str
    x: Float[np.ndarray, " pixels"]
    flux: Float[np.ndarray, " pixels"]
    sigma: Float[np.ndarray, " pixels"]
    model: Float[np.ndarray, " pixels"]  # also where the flux is missing
    z: Float[np.ndarray, " pixels"]
    weight: Float[np.ndarray, " pixels"]


def _shown(
    fit: Fit,
    data: Dataset,
    scores: Surprise,
    rows: Shaped[np.ndarray, " some"],
    projection: Projection | None,
) -> list[_Shown]:
    part = data.take(rows)
    if projection is None:
        own = project(fit, part)
    else:
        own = Projection(projection.coefficients[rows], projection.covariance[rows], part.ids)
    z, weight = (np.full(part.shape, np.nan) for _ in range(2))
    for here, block in cells(fit, part, own, scores.object.in_training[rows]):
        seen, *values = (np.asarray(x)[: here.stop - here.start] for x in (block.seen, block.z, block.weight))
        z[here], weight[here] = (np.where(seen, x, np.nan) for x in values)
    seen = part.observed
    flux = np.where(seen, np.asarray(part.flux, float) * part.unit, np.nan)
    sigma = np.where(seen, part.unit / np.sqrt(np.where(seen, np.asarray(part.ivar, float), 1.0)), np.nan)
    model = reconstruct(fit, own)
    order = np.argsort(data.grid)
    return [
        _Shown(_title(scores, row), data.grid[order], *(x[i][order] for x in (flux, sigma, model, z, weight)))
        for i, row in enumerate(rows)
    ]


def _title(scores: Surprise, row: int) -> str:
    log10_p = scores.object.log_p[row] / math.log(10.0)
    if np.isnan(log10_p):
        return f"id {plain(scores.ids[row], 24)}: {scores.object.reason[row]}"
    p = f"{10.0**log10_p:.2g}" if log10_p > -4 else f"$10^{{{log10_p:.0f}}}$"
    return f"id {plain(scores.ids[row], 24)}: p = {p}, score {scores.object.score[row]:,.0f} nats"


def _panels(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Axes (3 rows, columns): spectrum (large), residual and weight (small) of every object."""
    return figure.subplots(
        3 * rows, columns, sharex=True, squeeze=False, gridspec_kw={"height_ratios": (3.0, 1.2, 0.7) * rows}
    )


def _draw(panels: np.ndarray, shown: _Shown, fit: Fit, title: str, leftmost: bool) -> None:
    """One object in its three panels."""
    top, middle, bottom = panels
    x, flux, sigma, model, z, weight = shown[1:]

    top.fill_between(x, flux - sigma, flux + sigma, color=GREY, alpha=0.45, lw=0)
    top.plot(x, flux, color=BLACK, lw=0.7)
    top.plot(x, model, color=VERMILLION, lw=1.0)
    low, high = limits(flux, model)
    for beyond, edge, mark in ((flux > high, high, "^"), (flux < low, low, "v")):
        if beyond.any():
            top.plot(x[beyond], np.full(beyond.sum(), edge), mark, color=BLACK, ms=4)
    top.set_ylim(low, high)
    top.set_title(title, fontsize=SMALL, pad=4)
    top.yaxis.set_major_locator(MaxNLocator(4, prune="lower"))

    middle.axhspan(-USUAL, USUAL, color=GREY, alpha=0.25, lw=0)
    middle.plot(x, z, color=BLUE, lw=0.7)
    _scale_z(middle, np.nanmax(np.abs(z), initial=0.0))

    bottom.fill_between(x, 0.0, weight, color=BLUE, alpha=0.35, lw=0)
    bottom.plot(x, weight, color=BLUE, lw=0.6)
    bottom.set_ylim(0.0, 1.35)
    bottom.yaxis.set_major_locator(FixedLocator([0.0, 1.0]))
    bottom.set_xlabel(axis_label(fit.grid_name), fontsize=SMALL)
    for axes in (top, middle, bottom):
        finish(axes, x)
        axes.tick_params(labelbottom=axes is bottom)
    if leftmost:
        for axes, label in ((top, axis_label(fit.flux_name, 30)), (middle, "z"), (bottom, "w")):
            axes.set_ylabel(label, fontsize=SMALL)


def _scale_z(axes: Axes, largest: float) -> None:
    """Symmetric about 0; steep where residuals are huge, so that the band stays visible."""
    top = max(1.1 * largest, 5.0)
    axes.set_ylim(-top, top)
    if top <= STEEP:
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        return
    axes.set_yscale("symlog", linthresh=USUAL, linscale=0.7)
    axes.set_ylim(-2.0 * top, 2.0 * top)
    decade = 10.0 ** math.floor(math.log10(top))
    axes.yaxis.set_major_locator(FixedLocator([-decade, 0.0, decade]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda z, _: (f"{z:g}" if abs(z) < 1e4 else f"{z:.0e}").replace("-", "−"))
    )


def _explain(figure: Figure) -> None:
    """One legend for all objects."""
    handles = [
        Line2D([], [], color=BLACK, lw=0.9),
        Patch(color=GREY, alpha=0.45, lw=0),
        Line2D([], [], color=VERMILLION, lw=1.2),
        Line2D([], [], color=BLUE, lw=0.9),
    ]
    residual = f"z = residual / predictive σ, log beyond {USUAL:g}; weight w"
    labels = ["data", f"±1σ, and |z| < {USUAL:g}", "model", residual]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=SMALL, frameon=False)


def _check(fit: Fit, data: Dataset, scores: Surprise, projection: Projection | None) -> None:
    check_same_pixels(fit, data)
    if not np.array_equal(scores.ids, data.ids):
        raise ValueError("the scores are of other objects than data; pass those of rp.surprise(fit, data)")
    if projection is not None and not np.array_equal(projection.ids, data.ids):
        raise ValueError(
            "the projection is of other objects than data; pass that of rp.project(fit, data), or none"
        )
