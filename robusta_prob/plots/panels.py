"""How one object is drawn: spectrum with model and predictive band, residuals, robust weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from robusta_prob.data import Dataset
from robusta_prob.inference.projection import project, reconstruct
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.plots.style import BLACK, BLUE, GREEN, SMALL, VERMILLION, axis_label, finish, limits
from robusta_prob.scoring.predictive import Judged, cells
from robusta_prob.scoring.results import Surprise

LEVELS = (0.95, 0.68)  # of the predictive bands
SHADES = (0.18, 0.28)  # their opacities, one upon the other
LINEAR, STEEP = 3.0, 15.0  # |z| of pixels: beyond STEEP the axis is logarithmic where |z| > LINEAR


class Stretch(NamedTuple):
    """Where a window of the scores is on the axis."""

    left: float
    right: float
    number: int  # 1 is the strangest of the object


class Drawn(NamedTuple):
    """One object, in the user's units and in the order of the grid; NaN where missing."""

    x: Float[np.ndarray, " pixels"]
    flux: Float[np.ndarray, " pixels"]
    model: Float[np.ndarray, " pixels"]  # also where the flux is missing
    sd: Float[np.ndarray, " pixels"]  # predictive standard deviation, the unit of z
    z: Float[np.ndarray, " pixels"]
    weight: Float[np.ndarray, " pixels"]
    reach: tuple[float, ...]  # |z| within which normal cells are, for each of LEVELS
    windows: list[Stretch]


def drawn(
    fit: Fit,
    data: Dataset,
    scores: Surprise,
    rows: Shaped[np.ndarray, " some"],
    projection: Projection | None,
) -> list[Drawn]:
    """What there is to draw of the objects `rows`."""
    part = data.take(rows)
    own = project(fit, part) if projection is None else projection.take(rows)
    z, weight, sd = (np.full(part.shape, np.nan) for _ in range(3))
    for here, block in cells(fit, Judged(part, own, scores.object.in_training[rows])):
        z[here], weight[here], sd[here] = (
            np.where(block.seen, x, np.nan) for x in (block.z, block.weight, block.sd)
        )
    flux = np.where(part.observed, np.asarray(part.flux, float) * part.unit, np.nan)
    model = reconstruct(fit, own)
    order = np.argsort(data.grid)
    reach = tuple(float(scores.null.core.quantile(0.5 * (1.0 + level))) for level in LEVELS)
    return [
        Drawn(
            x=data.grid[order],
            flux=flux[i][order],
            model=model[i][order],
            sd=sd[i][order] * fit.unit,
            z=z[i][order],
            weight=weight[i][order],
            reach=reach,
            windows=stretches(scores, int(row), data.grid[order], order),
        )
        for i, row in enumerate(rows)
    ]


def windows_of(scores: Surprise, row: int) -> Shaped[np.ndarray, " windows"]:
    """Entries of `scores.windows` that are of this object, the strangest first."""
    own = np.flatnonzero(scores.windows.row == row)
    return own[np.argsort(scores.windows.log_p[own], kind="stable")]


def panels(figure: Figure, rows: int, columns: int) -> np.ndarray:
    """Axes (3 rows, columns): spectrum (large), residual and weight (small) of every object."""
    return figure.subplots(
        3 * rows, columns, sharex=True, squeeze=False, gridspec_kw={"height_ratios": (3.0, 1.2, 0.7) * rows}
    )


def draw(axes: np.ndarray, shown: Drawn, fit: Fit, *, names: bool = True, numbers: bool = True) -> None:
    """One object in its three panels: with names of the axes, and with the numbers of its windows."""
    top, middle, bottom = axes
    _spectrum(top, shown)
    for reach, shade in zip(shown.reach, SHADES, strict=True):
        middle.axhspan(-reach, reach, color=VERMILLION, alpha=shade, lw=0)
    middle.plot(shown.x, shown.z, color=BLUE, lw=0.7, drawstyle="steps-mid")
    _scale_z(middle, np.nanmax(np.abs(shown.z), initial=0.0))

    bottom.fill_between(shown.x, 0.0, shown.weight, color=BLUE, alpha=0.35, lw=0, step="mid")
    bottom.plot(shown.x, shown.weight, color=BLUE, lw=0.6, drawstyle="steps-mid")
    bottom.set_ylim(0.0, 1.35)
    bottom.yaxis.set_major_locator(FixedLocator([0.0, 1.0]))
    bottom.set_xlabel(axis_label(fit.grid_name), fontsize=SMALL)
    for one in (top, middle, bottom):
        for stretch in shown.windows:
            one.axvspan(stretch.left, stretch.right, color=GREEN, alpha=0.3, lw=0.6, zorder=0)
        finish(one, shown.x)
        one.tick_params(labelbottom=one is bottom)
    if numbers:
        for stretch in shown.windows:
            place = (0.5 * (stretch.left + stretch.right), 1.01)
            top.annotate(
                str(stretch.number), place, xycoords=("data", "axes fraction"), ha="center", va="bottom",
                fontsize=SMALL, color=GREEN, weight="bold",
            )  # fmt: skip
    if names:
        for one, label in ((top, axis_label(fit.flux_name, 30)), (middle, "z"), (bottom, "w")):
            one.set_ylabel(label, fontsize=SMALL)


def explain(figure: Figure, shown: list[Drawn]) -> None:
    """One legend for all objects."""
    outer, inner = (1.0 - (1.0 - SHADES[0]) * (1.0 - SHADES[1]), SHADES[0])
    handles: list[Any] = [
        Line2D([], [], color=BLACK, lw=0.9),
        Line2D([], [], color=VERMILLION, lw=1.2),
        (Patch(color=VERMILLION, alpha=outer, lw=0), Patch(color=VERMILLION, alpha=inner, lw=0)),
        Line2D([], [], color=BLUE, lw=0.9),
    ]
    labels = [
        "data",
        "model",
        "68, 95 % of normal cells",
        f"z = residual / predictive σ, log beyond {LINEAR:g}",
    ]
    if any(one.windows for one in shown):
        handles.append(Patch(color=GREEN, alpha=0.3, lw=0))
        labels.append("windows")
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=SMALL, frameon=False,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)}, columnspacing=1.2,
    )  # fmt: skip


def _spectrum(axes: Axes, shown: Drawn) -> None:
    for reach, shade in zip(shown.reach, SHADES, strict=True):
        half = reach * shown.sd
        axes.fill_between(
            shown.x, shown.model - half, shown.model + half, color=VERMILLION, alpha=shade, lw=0, step="mid"
        )
    axes.plot(shown.x, shown.flux, color=BLACK, lw=0.7, drawstyle="steps-mid")
    axes.plot(shown.x, shown.model, color=VERMILLION, lw=1.0)
    low, high = limits(shown.flux, shown.model)
    for beyond, edge, mark in ((shown.flux > high, high, "^"), (shown.flux < low, low, "v")):
        if beyond.any():
            axes.plot(shown.x[beyond], np.full(beyond.sum(), edge), mark, color=BLACK, ms=4)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(4, prune="lower"))


def _scale_z(axes: Axes, largest: float) -> None:
    """Symmetric about 0; steep where residuals are huge, so that the band stays visible."""
    top = max(1.1 * largest, 5.0)
    axes.set_ylim(-top, top)
    if top <= STEEP:
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        return
    axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.7)
    axes.set_ylim(-2.0 * top, 2.0 * top)
    decade = 10.0 ** math.floor(math.log10(top))
    axes.yaxis.set_major_locator(FixedLocator([-decade, 0.0, decade]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda z, _: (f"{z:g}" if abs(z) < 1e4 else f"{z:.0e}").replace("-", "−"))
    )


def stretches(
    scores: Surprise, row: int, x: Float[np.ndarray, " pixels"], order: Shaped[np.ndarray, " pixels"]
) -> list[Stretch]:
    """Windows of an object on the axis: a run of pixels is one stretch where the grid rises or falls."""
    borders = np.concatenate([x[:1], 0.5 * (x[1:] + x[:-1]), x[-1:]])
    found = []
    for number, entry in enumerate(windows_of(scores, row), 1):
        inside = (order >= scores.windows.start[entry]) & (order < scores.windows.stop[entry])
        ends = np.flatnonzero(np.diff(inside, prepend=False, append=False))
        found += [
            Stretch(float(borders[a]), float(borders[b]), number)
            for a, b in zip(ends[::2], ends[1::2], strict=True)
        ]
    return found
