"""A picture of what the choice of a rank, perhaps of a scale, rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from robusta_prob.plots.style import (
    BLACK,
    BLUE,
    COLUMN,
    GREY,
    NORMAL,
    PAGE,
    SMALL,
    VERMILLION,
    finish,
)
from robusta_prob.selection.results import ENOUGH, Selection

UNIT = "[nats per pixel]"
DIGITS = 30  # of the names of ranks, that a column is wide enough for
FIT_IN = {COLUMN: 5, PAGE: 13}  # columns with numbers in a map of this width
MOST_SCALES = 17  # that have room for their names
COLOURS, DARK = "viridis_r", 0.56  # where white is read as well as black


class _Told(NamedTuple):
    """Of every candidate, as a table of ranks and scales."""

    below: Float[np.ndarray, "ranks scales"]  # the best score
    error: Float[np.ndarray, "ranks scales"]
    clear: Bool[np.ndarray, "ranks scales"]  # worse by more than can be chance
    rested: Bool[np.ndarray, "ranks scales"]
    place: tuple[int, int]  # of the choice


FEW_TICKS = 4  # with fewer, threes are labelled as well


def selection(selection: Selection) -> Figure:
    """How far every candidate's score is below the best one, and which is chosen.

    Over ranks alone: how much each lacks, the best at the top, with 1 (thick) and 2 (thin) standard errors of
    the paired difference; where the thin bar does not reach the line of the best, the candidate is clearly
    worse. The axis is logarithmic but near 0. Over ranks and scales: the same numbers in a map, with dotted
    frames around those that are not clearly worse, and below it a map of the standard deviation of z,
    coloured by its distance from 1, which is the published criterion. Fits that did not come to rest have an
    open marker, or a star.

    Parameters
    ----------
    selection : Selection
        Of `rp.select` or `rp.relevance`.

    Returns
    -------
    matplotlib.figure.Figure
        One panel; with several scales two maps, and keys of colours where numbers have no room.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> data = rp.simulate.low_rank(300, 60, 2, seed=1).data
    >>> len(plots.selection(rp.select(data, range(1, 4))).axes)
    1
    """
    columns = selection.columns()
    below, error = (selection.table(columns[name]) for name in ("below_best", "error"))
    told = _Told(
        below,
        error,
        ~(below <= ENOUGH * error),  # without a score it is clear, too
        np.reshape([one.status.ok for one in selection.candidates], below.shape),
        divmod(selection.chosen, below.shape[1]),
    )
    return _over_ranks(selection, told) if below.shape[1] == 1 else _maps(selection, told)


# Ranks alone ----------------------------------------------------------------------------------------


def _over_ranks(selection: Selection, told: _Told) -> Figure:
    below, error, clear, rested = (table[:, 0] for table in told[:4])
    x, row = np.arange(len(below)), told.place[0]
    figure = Figure(figsize=(COLUMN, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.0, color=BLACK, lw=0.8, ls="--")
    axes.plot(x, below, color=GREY, lw=0.8, zorder=1)
    for i in x:
        colour = VERMILLION if clear[i] else BLUE
        axes.errorbar(x[i], below[i], ENOUGH * error[i], color=colour, elinewidth=0.8, capsize=2)
        axes.errorbar(x[i], below[i], error[i], color=colour, elinewidth=2.4)
        face = colour if rested[i] else "white"
        axes.plot(x[i], below[i], "o", color=colour, mfc=face, ms=5, zorder=3)
    axes.plot(x[row], below[row], "o", color=BLACK, mfc="none", ms=11, mew=1.2, zorder=4)
    _scale(axes, below, ENOUGH * error)
    _name(axes.xaxis, selection.ranks, DIGITS // len(str(selection.ranks[-1])))
    axes.set_xlim(-0.5, len(x) - 0.5)
    axes.set_xlabel("rank", fontsize=SMALL)
    axes.set_ylabel(f"score below the best {UNIT}", fontsize=SMALL)
    axes.set_title(_title(selection), fontsize=NORMAL)
    finish(axes)
    marks = [Line2D([], [], color=BLACK, marker="o", mfc="none", ms=9, ls="", label="chosen")]
    for here, colour, label in (
        (~clear, BLUE, "best, or not clearly worse"),
        (clear, VERMILLION, "clearly worse"),
    ):
        if here.any():
            marks.append(Line2D([], [], color=colour, marker="o", ms=5, ls="", label=label))
    if not rested.all():
        marks.append(
            Line2D([], [], color=BLACK, marker="o", mfc="white", ms=5, ls="", label="did not come to rest")
        )
    marks.append(Line2D([], [], color=BLACK, lw=0.8, label="±1σ thick, ±2σ thin"))
    figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    return figure


def _scale(axes: Axes, below: Float[np.ndarray, " ranks"], bar: Float[np.ndarray, " ranks"]) -> None:
    """The best at the top; logarithmic where values are of several orders of magnitude."""
    some = np.isfinite(below) & np.isfinite(bar)
    size = np.maximum(below, bar)[some]
    least, most = size[size > 0].min(initial=np.inf), (below + bar)[some].max(initial=0.0)
    if not most > 0:  # one candidate, or all equal
        axes.set_ylim(1.0, -1.0)
        axes.yaxis.set_major_locator(FixedLocator([0.0]))
        return
    low = (below - bar)[some].min(initial=0.0)
    if most > 10.0 * least:
        axes.set_yscale("symlog", linthresh=least, linscale=1.0)
        first, ticks = 10.0 ** math.ceil(math.log10(least)), [0.0]
        while ticks[-1] < most:
            ticks.append(max(first, 10.0 * ticks[-1]))
        if len(ticks) <= FEW_TICKS:
            ticks += [3.0 * tick for tick in ticks[1:-1]]
        axes.yaxis.set_major_locator(FixedLocator([-first, *ticks]))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}".replace("-", "−")))
    drawn = axes.yaxis.get_transform()
    ends = drawn.transform([low, most])
    room = 0.08 * (ends[1] - ends[0])
    axes.set_ylim(*drawn.inverted().transform([ends[1] + room, ends[0] - room]))


# Ranks and scales -----------------------------------------------------------------------------------


def _maps(selection: Selection, told: _Told) -> Figure:
    rows, columns = told.below.shape
    width = COLUMN if columns <= FIT_IN[COLUMN] else PAGE
    numbers = columns <= FIT_IN[width]
    figure = Figure(figsize=(width, 2.0 + 2 * 0.24 * rows), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    std, stars = selection.published("std_z"), np.where(told.rested, "", "*").tolist()
    for axes, colour, shown, digits in (
        (top, told.below, told.below, 2),
        (bottom, np.abs(std - 1.0), std, 3),
    ):
        least, most = _ends(colour)
        norm, known = LogNorm(least, most), np.ma.masked_invalid(np.clip(colour, least, most))
        image = axes.imshow(known, norm=norm, cmap=COLOURS, aspect="auto")
        if numbers:
            _write(axes, shown, stars, digits, np.ma.filled(norm(known), 0.0) > DARK)
        else:
            _key(figure.colorbar(image, ax=axes, pad=0.02, aspect=12), most / least)
        _name(axes.yaxis, selection.ranks, rows)
        axes.set_ylabel("rank", fontsize=SMALL)
        finish(axes)
    for i, j in np.argwhere(~told.clear):
        _frame(top, i, j, 0.05, color=BLACK, lw=1.0, ls=":")
    for axes in (top, bottom):
        _frame(axes, *told.place, 0.0, color=VERMILLION, lw=2.0, zorder=3)
    top.tick_params(bottom=False)
    _name(bottom.xaxis, [f"{scale:g}" for scale in selection.scales], MOST_SCALES)
    bottom.set_xlabel("robustness scale [no unit]", fontsize=SMALL)
    top.set_title(f"score below the best {UNIT}", fontsize=SMALL)
    bottom.set_title(f"{'standard deviation of z; ' if numbers else ''}colour: |std z − 1|", fontsize=SMALL)
    figure.suptitle(_title(selection), fontsize=NORMAL)
    marks: list[Artist] = [
        Patch(fc="none", ec=VERMILLION, lw=2.0, label="chosen"),
        Patch(fc="none", ec=BLACK, lw=1.0, ls=":", label="not clearly worse (2σ)"),
    ]
    if numbers and not told.rested.all():
        marks.append(Line2D([], [], color=BLACK, marker="$*$", ls="", label="did not come to rest"))
    figure.legend(handles=marks, loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    return figure


def _ends(colour: Float[np.ndarray, "ranks scales"]) -> tuple[float, float]:
    """Of the scale of colours: all that is above 0, and a decade at least."""
    positive = colour[np.isfinite(colour) & (colour > 0)]
    most = float(positive.max(initial=0.0)) or 1.0
    return min(float(positive.min(initial=np.inf)), 0.1 * most), most


def _write(
    axes: Axes,
    shown: Float[np.ndarray, "ranks scales"],
    stars: list[list[str]],
    digits: int,
    dark: Bool[np.ndarray, "ranks scales"],
) -> None:
    """Numbers, in a colour that can be read."""
    for (i, j), value in np.ndenumerate(shown):
        text = f"{value:#.{digits}g}".rstrip(".") if 0 < abs(value) < 10.0**digits else f"{value:.0f}"
        colour = "white" if dark[i, j] else BLACK
        axes.text(j, i, text + stars[i][j], fontsize=SMALL, ha="center", va="center", color=colour)


def _key(bar: Colorbar, span: float) -> None:
    bar.locator = LogLocator(subs=(1.0, 3.0) if span < 100.0 else (1.0,))
    bar.formatter = FuncFormatter(lambda value, _: f"{value:g}")
    bar.minorlocator = NullLocator()
    bar.ax.tick_params(labelsize=SMALL)


def _frame(axes: Axes, row: int, column: int, within: float, **look: Any) -> None:
    corner, side = (column - 0.5 + within, row - 0.5 + within), 1.0 - 2.0 * within
    axes.add_patch(Rectangle(corner, side, side, fill=False, clip_on=False, **look))


# Both -----------------------------------------------------------------------------------------------


def _name(axis: Axis, names: Sequence[object], most: int) -> None:
    """Equal steps, whatever the ranks; of very many some are named."""
    step = math.ceil(len(names) / most)
    axis.set_ticks(range(0, len(names), step), [str(name) for name in names[::step]])


def _title(selection: Selection) -> str:
    scale = "" if selection.scale is None else f", scale {selection.scale:g}"
    number = len(selection.candidates)
    return f"Chosen: rank {selection.rank}{scale}" + (f", of {number} candidates" if number > 1 else "")
