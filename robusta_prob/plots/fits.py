"""Pictures of a fit: its basis, and how it got there."""

from __future__ import annotations

import textwrap
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from robusta_prob.inference.results import Fit
from robusta_prob.plots.style import (
    BLACK,
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    NORMAL,
    SMALL,
    VERMILLION,
    axis_label,
    finish,
    limits,
)

START, ANNEALED = "start, on a subsample", "annealing"


def basis(fit: Fit) -> Figure:
    """Each basis vector with its 1-sigma band, in a panel of its own.

    A panel names the share of the objects' total second moment that its component carries, and says
    where a component cannot be told apart from another (only their span is determined then). Pixels
    that were never observed in training are gaps.

    Parameters
    ----------
    fit : Fit
        Of K components and M pixels.

    Returns
    -------
    matplotlib.figure.Figure
        K panels above each other, sharing the pixel axis.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> len(plots.basis(rp.fit(survey.data, rank=5)).axes)
    5
    """
    order = np.argsort(fit.grid)
    x = fit.grid[order]
    variance = np.diagonal(fit.basis_covariance, axis1=1, axis2=2).T
    vectors, sds = (
        np.where(fit.trained, values, np.nan)[:, order]
        for values in (fit.basis, np.sqrt(np.maximum(variance, 0.0)))
    )
    shares = fit.moments / max(float(fit.moments.sum()), np.finfo(float).tiny)

    figure = Figure(figsize=(COLUMN, 0.9 + 0.8 * fit.rank), layout="constrained")
    panels = figure.subplots(fit.rank, 1, sharex=True, squeeze=False)[:, 0]
    for k, (axes, vector, sd) in enumerate(zip(panels, vectors, sds, strict=True)):
        axes.axhline(0.0, color=GREY, lw=0.5)
        axes.fill_between(x, vector - sd, vector + sd, color=BLUE, alpha=0.3, lw=0)
        axes.plot(x, vector, color=BLUE, lw=0.9)
        axes.set_ylim(
            *limits(vector, cut_spikes=False)
        )  # of the vector alone: a pixel that is hardly known has a huge band
        twins = [j + 1 for j in (k - 1, k + 1) if min(j, k) in fit.near_equal]
        label = f"{k + 1}: {100 * shares[k]:.3g} %"
        if twins:
            label += f", not told apart from {' and '.join(map(str, twins))}"
        axes.set_title(label, fontsize=SMALL, loc="left", pad=2, color=VERMILLION if twins else BLACK)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        finish(axes, x)
    panels[-1].set_xlabel(axis_label(fit.grid_name), fontsize=SMALL)
    figure.supylabel("basis vector of unit length, ±1σ", fontsize=SMALL)
    figure.suptitle("Basis, and shares of the second moment", fontsize=NORMAL)
    return figure


def history(fit: Fit) -> Figure:
    """The story of a fit, epoch by epoch: the bound, how far the basis moves, the noise law.

    Grey epochs are those of the winning start, on a subsample; in green ones the schedule still keeps
    foreign objects from locking in. Their bounds are of something else, and not shown. The bound is shown
    by how far it is below its best, on a logarithmic axis: the best epoch itself is a gap. A dotted line is
    where objects in a wrong solution were begun again. The title says which start won, and by how much.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    matplotlib.figure.Figure
        Five panels sharing the epoch: robustness, bound, move, noise law without unit, floor.
    """
    lines = fit.history
    epoch = np.arange(1, len(lines) + 1)
    starting = np.array([line.stage.startswith("start") for line in lines], bool)
    annealed = np.array([line.object_scale + line.tail > 0 for line in lines], bool) & ~starting
    again = np.flatnonzero(
        [line.stage != "restarted" and after.stage == "restarted" for line, after in pairwise(lines)]
    )
    bound, move, nu, scale, floor, bad, object_scale, tail = (
        np.array([getattr(line, name) for line in lines], float)
        for name in ("bound", "move", "nu", "scale", "floor", "contamination", "object_scale", "tail")
    )
    final = ~starting & ~annealed
    below = np.where(final, bound[final].max(initial=-np.inf) - bound, np.nan)
    flux_unit = fit.flux_name.partition("[")[2].rstrip("] ") or "unit of the flux"

    figure = Figure(figsize=(COLUMN, 7.0), layout="constrained")
    top, *panels = figure.subplots(5, 1, sharex=True, height_ratios=(0.6, 1, 1, 1, 1))
    top.plot(epoch, object_scale, color=BLUE, lw=0.9, drawstyle="steps-mid")
    top.plot(epoch, tail, color=VERMILLION, lw=0.9, ls="--", drawstyle="steps-mid")
    top.set_ylabel("extra\nrobustness", fontsize=SMALL)
    key = "— object scale\n– – least 1/ν"
    top.text(0.985, 0.9, key, transform=top.transAxes, ha="right", va="top", fontsize=SMALL)
    _shade(top, starting, GREY, START)
    _shade(top, annealed, GREEN, ANNEALED)
    finish(top)
    for axes, label, curves in (
        (panels[0], "bound below its\nbest [nats]", [(below, BLUE, "")]),
        (panels[1], "basis moves by\n[posterior σ]", [(move, BLUE, "")]),
        (panels[2], "noise law\n[no unit]", [(nu, BLUE, "ν"), (scale, VERMILLION, "s"), (bad, GREEN, "ε")]),
        (panels[3], f"floor f\n[{axis_label(flux_unit, 24)}]", [(floor, BLUE, "")]),
    ):
        for values, colour, name in curves:
            _curve(axes, epoch, values, colour, name)
        if axes is panels[1]:
            _mark(axes, float(fit.config["tol"]))
        _log_axis(axes)
        _shade(axes, starting, GREY, START)
        _shade(axes, annealed, GREEN, ANNEALED)
        axes.set_ylabel(label, fontsize=SMALL)
        for place in again:
            axes.axvline(place + 1.5, color=BLACK, lw=0.8, ls=":")
        finish(axes)
    panels[-1].set_xlabel("epoch", fontsize=SMALL)
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.align_ylabels()
    ending = fit.status.code.replace("_", " ")
    title = f"{ending}, {int((~starting).sum())} epochs after the start"
    if restarted := fit.config.get("restarted"):
        title += f"; {restarted} objects begun again"
    scores = fit.config.get("start_scores") or {}
    ranking = sorted(scores.items(), key=lambda item: -item[1])
    contest = textwrap.fill(
        " > ".join(f"{name.replace('_', ' ')} {score:.3f}" for name, score in ranking), 50
    )
    figure.suptitle(
        title + (f"\nstarts, by nats per held-out cell:\n{contest}" if contest else ""), fontsize=SMALL
    )
    shades = panels[0].get_legend_handles_labels()
    if shades[0]:
        figure.legend(*shades, loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
    return figure


def _curve(
    axes: Axes,
    epoch: Shaped[np.ndarray, " epochs"],
    values: Float[np.ndarray, " epochs"],
    colour: str,
    name: str,
) -> None:
    """The positive, finite part of a curve, and its name at its end."""
    positive = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    axes.plot(epoch, positive, color=colour, lw=0.9, marker="o", ms=2.0 if len(epoch) < 60 else 1.0)
    if name and np.isfinite(positive[-1]):
        axes.annotate(
            name,
            (epoch[-1], positive[-1]),
            (0, 3),
            textcoords="offset points",
            color=colour,
            fontsize=SMALL,
            ha="right",
        )


def _mark(axes: Axes, tol: float) -> None:
    axes.axhline(tol, color=BLACK, lw=0.8, ls="--")
    place = ("axes fraction", "data")
    axes.annotate(f"tol {tol:g}", (0.01, tol), (0, 2), place, "offset points", fontsize=SMALL)


def _log_axis(axes: Axes) -> None:
    """A logarithmic axis that has at least two labels, or a word where there is nothing to show."""
    shown = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()])
    shown = shown[np.isfinite(shown)]
    if not len(shown):
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "0 throughout", transform=axes.transAxes, ha="center", va="center", fontsize=SMALL
        )
        return
    axes.set_yscale("log")
    axes.set_ylim(shown.min() / 1.5, shown.max() * 1.5)
    axes.yaxis.set_minor_formatter(NullFormatter())
    if shown.max() < 30.0 * shown.min():
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))


def _shade(axes: Axes, epochs: Bool[np.ndarray, " epochs"], colour: str, label: str) -> None:
    places = np.flatnonzero(epochs)
    if len(places):
        axes.axvspan(places[0] + 0.5, places[-1] + 1.5, color=colour, alpha=0.18, lw=0, label=label)
