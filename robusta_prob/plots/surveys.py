"""Pictures of all objects at once: how surprising they are, and whether that depends on their S/N."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_objects
from robusta_prob.plots.p_values import draw_calibration
from robusta_prob.plots.style import (
    BLACK,
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    NORMAL,
    PAGE,
    PURPLE,
    SMALL,
    VERMILLION,
    finish,
)
from robusta_prob.scoring.kinds import ERRORS, FOREIGN, LINES, PIXELS
from robusta_prob.scoring.predictive import quantiles
from robusta_prob.scoring.results import FLAG, Surprise

BIN = 0.25  # of the histogram, in z
LOWEST, HIGHEST = -8.0, 12.0  # objects beyond share the first and the last bar
FARTHEST = 1e4  # below the median S/N: beyond, objects are counted at the edge
LINEAR = 5.0  # |z| beyond which the axis is logarithmic
MARKS = {LINES: (BLUE, "o"), FOREIGN: (VERMILLION, "^"), ERRORS: (GREEN, "s"), PIXELS: (PURPLE, "D")}
FEWEST, MOST_BINS = 25, 20  # objects of which quartiles are taken; and how many times along S/N
QUARTILE = 0.67449  # of a standard normal z


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
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    _histogram(figure.subplots(), scores)
    return figure


def surprise_against_sn(scores: Surprise, data: Dataset) -> Figure:
    """The surprise of every object against its S/N: are the p-values calibrated for faint and bright alike?

    The S/N of an object is the median of flux * sqrt(ivar) over its observed pixels. Objects that are
    flagged, as a whole or by a run of pixels, have the colour and the mark of their kind. Of all others
    the median and the quartiles along S/N are drawn; those of normal objects are at z = 0 and +-0.67
    (dotted), whatever their S/N. |z| above 5 is on a logarithmic scale. The S/N is, too, unless half of
    the objects have none that is positive.

    Parameters
    ----------
    scores : Surprise
        Objects without a score are counted in the title, and left out.
    data : Dataset
        The N objects that were scored.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the scores are of other objects.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> scores = rp.surprise(rp.fit(survey.data, rank=5), survey.data)
    >>> plots.surprise_against_sn(scores, survey.data).axes[0].get_xscale()
    'log'
    """
    check_same_objects(scores, data, "scores", "surprise", hidden=True)
    figure = Figure(figsize=(PAGE, 3.4), layout="constrained")
    _against_sn(figure.subplots(), scores, data)
    return figure


def overview(scores: Surprise, data: Dataset) -> Figure:
    """All that is to be seen of the scores at once: the histogram, the S/N and the calibration.

    `surprise_histogram` and `surprise_against_sn` above, `calibration` of the p-values of the objects below.

    Parameters
    ----------
    scores : Surprise
    data : Dataset
        The N objects that were scored.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels.

    Raises
    ------
    ValueError
        If the scores are of other objects.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> scores = rp.surprise(rp.fit(survey.data, rank=5), survey.data)
    >>> len(plots.overview(scores, survey.data).axes)
    4
    """
    check_same_objects(scores, data, "scores", "surprise", hidden=True)
    figure = Figure(figsize=(PAGE, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    left, right = above.subplots(1, 2)
    _histogram(left, scores)
    _against_sn(right, scores, data)
    draw_calibration(below, scores, "p_value")
    return figure


def _histogram(axes: Axes, scores: Surprise) -> None:
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
    title = f"{int(flagged.sum()):,} of {len(scored):,} objects flagged (q_value < {FLAG})"
    if not scored.all():
        title += f"; {int((~scored).sum()):,} without a score"
    axes.set_title(title, fontsize=NORMAL if scored.all() else SMALL)
    axes.set_xlabel("surprise of the object, z [standard deviations]", fontsize=SMALL)
    axes.set_ylabel(f"objects per {BIN} in z", fontsize=SMALL)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper right", handlelength=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    finish(axes)


def _against_sn(axes: Axes, scores: Surprise, data: Dataset) -> None:
    sn, scored = median_sn(data), ~np.isnan(scores.object.z)
    flagged = scores.flagged & scored
    rest = scored & ~flagged
    logarithmic = 2 * int((sn[scored] > 0).sum()) > int(scored.sum())
    shown = sn[scored & (sn > 0)] if logarithmic else sn[scored]
    left = float(shown.min(initial=np.inf))
    if logarithmic:
        left = max(left, float(np.median(shown)) / FARTHEST)  # errors of 1e30 would squeeze all others
    lost = int((sn[scored] < left).sum())  # beyond the logarithmic axis
    x = np.maximum(sn, left)
    z = np.clip(scores.object.z, -1e6, 1e6)  # p = 0 is at the edge

    axes.plot(x[rest], z[rest], ".", color=GREY, ms=2.5, label=f"not flagged, {int(rest.sum()):,}")
    _quartiles(axes, x[rest], z[rest])
    for kind in np.unique(scores.object.kind[flagged]).tolist():
        here = flagged & (scores.object.kind == kind)
        colour, mark = MARKS.get(kind, (BLACK, "x"))
        label = f"{kind or 'flagged'}, {int(here.sum()):,}"
        axes.plot(x[here], z[here], mark, color=colour, ms=4, mew=0.5, mfc="none", label=label)
    for level in (-QUARTILE, 0.0, QUARTILE):
        axes.axhline(level, color=BLACK, lw=0.8, ls=":")

    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if shown.max() < 30.0 * shown.min():
            axes.xaxis.set_minor_formatter(FuncFormatter(_few_digits))
            axes.tick_params(which="minor", labelsize=SMALL)
    _scale_deviate(axes, z[scored])
    title = f"{int(flagged.sum()):,} flagged (q_any < {FLAG})"
    if not scored.all():
        title += f"; {int((~scored).sum()):,} without a score"
    axes.set_title(title, fontsize=SMALL)
    edge = f"; {lost:,} of S/N ≤ 0 at the left edge" if lost else ""
    axes.set_xlabel(f"median S/N per pixel{edge}", fontsize=SMALL)
    axes.set_ylabel(f"surprise z, log beyond {LINEAR:g}", fontsize=SMALL)
    axes.legend(fontsize=SMALL, frameon=False, loc="upper left", handlelength=1.2, ncols=2, columnspacing=1.0)
    finish(axes)


def _quartiles(axes: Axes, x: Float[np.ndarray, " rest"], z: Float[np.ndarray, " rest"]) -> None:
    """Median and quartiles of z in bins of equally many objects along x."""
    if len(x) < 2 * FEWEST:
        return
    bins = np.array_split(np.argsort(x), min(len(x) // FEWEST, MOST_BINS))
    middle = [float(np.median(x[here])) for here in bins]
    low, median, high = np.array([np.quantile(z[here], (0.25, 0.5, 0.75)) for here in bins]).T
    axes.fill_between(middle, low, high, color=BLACK, alpha=0.2, lw=0, zorder=3)
    axes.plot(middle, median, color=BLACK, lw=1.4, zorder=4, label="median, quartiles")


def _scale_deviate(axes: Axes, z: Float[np.ndarray, " scored"]) -> None:
    """From the least to the largest z, with room for the legend; logarithmic beyond +-5."""
    axes.set_yscale("symlog", linthresh=LINEAR, linscale=1.5)
    drawn = axes.yaxis.get_transform()
    low, high = drawn.transform([float(z.min(initial=-4.0)), float(z.max(initial=LINEAR))])
    height = high - low
    ends = drawn.inverted().transform([low - 0.05 * height, high + 0.05 * height, high + 0.5 * height])
    axes.set_ylim(ends[0], ends[2])
    steep = [step * 10.0**decade for decade in range(1, 7) for step in ((1, 2, 5) if decade == 1 else (1,))]
    ticks = [-x for x in steep[::-1]] + [-5.0, -2.5, 0.0, 2.5, 5.0] + steep
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if ends[0] <= tick <= ends[1]]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))


def _few_digits(value: float, _: object) -> str:
    """Labels 2 and 5 of every decade."""
    return f"{value:g}" if round(value / 10.0 ** math.floor(math.log10(value) + 1e-9)) in (2, 5) else ""


def median_sn(data: Dataset) -> Float[np.ndarray, " objects"]:
    """Median of flux * sqrt(ivar) over the observed pixels of every object; NaN where there are none."""
    sn = np.empty(data.shape[0])
    for here, flux, ivar in data.blocks(1024):
        rows = slice(0, here.stop - here.start)
        flux, ivar = flux[rows], ivar[rows]
        (sn[here],) = quantiles(flux * np.sqrt(ivar), ivar > 0, (0.5,))
    return sn
