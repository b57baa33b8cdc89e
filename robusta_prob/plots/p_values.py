"""Pictures of p-values: whether they are those of normal objects, in the bulk and in the tail."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from scipy import special

from robusta_prob.plots.style import (
    BLACK,
    BLUE,
    GREY,
    NORMAL,
    PAGE,
    SMALL,
    VERMILLION,
    finish,
)
from robusta_prob.scoring.results import FLAG, Surprise

BAND = 0.95  # share of the bars, and of the order statistics, of normal objects that are within the band
BINS = 20
CROWDED = 3.0  # bars that are this many times as high as all others and the band are cut
REACH = 3.0  # the tail is shown up to this many times the expected -log10 of the smallest p-value
MOST_POINTS = 5000  # of the tail's panel; of more objects a part is drawn, all of the smallest p-values
TESTS = {  # of an object: its q-value, and what it is called
    "p_value": ("q_value", "the whole object"),
    "p_run": ("q_run", "its strangest run of pixels"),
    "p_pixel": ("q_pixel", "its strangest pixel"),
    "p_mahalanobis": ("q_mahalanobis", "its coefficients"),
}


def calibration(scores: Surprise, of: str = "p_value") -> Figure:
    """Whether p-values are calibrated: their histogram, and their quantiles on a logarithmic scale.

    p-values of normal objects are uniform. Left: bars per 0.05, and the band that holds 95 % of the
    bars of as many normal objects (one of the 20 is expected outside). Right: the observed -log10 p
    against that expected of their rank i of n, i / (n + 1), and the band that holds 95 % of each order
    statistic, Beta(i, n + 1 - i). A calibrated bulk stays within both; outliers leave the right one at
    its upper end. What lies beyond an axis is drawn at its edge, and counted there.

    Parameters
    ----------
    scores : Surprise
        Of N objects. Those without a p-value are left out, and counted in the title.
    of : str
        Which p-values: "p_value" (the whole object), "p_run" (its strangest run of pixels), "p_pixel" (its
        strangest pixel: real data have bad ones, and these p-values are often far from uniform) or
        "p_mahalanobis" (its coefficients). Objects are flagged by the q-values of the same test.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels.

    Raises
    ------
    ValueError
        If there are no p-values of that name.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> scores = rp.surprise(rp.fit(survey.data, rank=5), survey.data)
    >>> len(plots.calibration(scores, of="p_run").axes)
    2
    """
    figure = Figure(figsize=(PAGE, 3.0), layout="constrained")
    draw_calibration(figure, scores, of)
    return figure


def draw_calibration(figure: Figure | SubFigure, scores: Surprise, of: str) -> None:
    """The two panels of `calibration`, with their title, in an empty figure or a part of one."""
    if of not in TESTS:
        raise ValueError(f"of must be one of {', '.join(TESTS)}; got {of!r}")
    q_name, meaning = TESTS[of]
    p: Float[np.ndarray, " objects"] = getattr(scores.object, of)
    flagged: Bool[np.ndarray, " objects"] = getattr(scores.object, q_name) < FLAG
    with np.errstate(divide="ignore"):
        tail = -scores.object.log_p / math.log(10.0) if of == "p_value" else -np.log10(p)
    known = ~np.isnan(p)
    left, right = figure.subplots(1, 2)
    _bars(left, p[known], flagged[known])
    _quantiles(right, tail[known], flagged[known])
    for axes in (left, right):
        finish(axes)
    left.set_xlabel("p-value", fontsize=SMALL)
    left.set_ylabel(f"objects per {1 / BINS:g}", fontsize=SMALL)
    right.set_xlabel(r"expected $-\log_{10} p$", fontsize=SMALL)
    right.set_ylabel(r"observed $-\log_{10} p$", fontsize=SMALL)
    title = f"{of}, of {meaning}: {int(flagged.sum()):,} of {len(p):,} objects flagged ({q_name} < {FLAG})"
    if not known.all():
        title += f"; {int((~known).sum()):,} without a p-value"
    figure.suptitle(title, fontsize=NORMAL if known.all() else SMALL)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=SMALL, frameon=False
    )


def _bars(axes: Axes, p: Float[np.ndarray, " known"], flagged: Bool[np.ndarray, " known"]) -> None:
    edges = np.linspace(0.0, 1.0, BINS + 1)
    low, high = _binomial_band(len(p))
    heights = axes.hist(
        [p[~flagged], p[flagged]],
        bins=edges.tolist(),
        stacked=True,
        color=[BLUE, VERMILLION],
        label=["not flagged", "flagged"],
    )[0]
    label = f"{100 * BAND:g} % of bars and of ranks"
    axes.fill_between([0.0, 1.0], low, high, color=GREY, alpha=0.5, lw=0, label=label)
    axes.axhline(len(p) / BINS, color=BLACK, lw=1.0, label="expected of normal objects")
    total = np.asarray(heights)[-1]
    second, highest = np.sort(total)[-2:]
    usual = max(float(second), high, 1.0)
    cut = highest > CROWDED * usual
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.1 * (CROWDED * usual if cut else max(float(highest), usual)))
    if cut:
        axes.set_title(f"one bar, of {int(highest):,} objects, is cut", fontsize=SMALL)


def _quantiles(axes: Axes, tail: Float[np.ndarray, " known"], flagged: Bool[np.ndarray, " known"]) -> None:
    n = len(tail)
    if not n:
        axes.text(0.5, 0.5, "no p-value", transform=axes.transAxes, ha="center", va="center", fontsize=SMALL)
        return
    order = np.argsort(-tail)
    rank = _ranks_shown(n)
    observed, marked = tail[order][rank - 1], flagged[order][rank - 1]
    expected = -np.log10(rank / (n + 1.0))
    outer = 0.5 * (1.0 - BAND)
    highest, lowest = (
        -np.log10(special.betaincinv(rank, n + 1.0 - rank, level)) for level in (outer, 1.0 - outer)
    )
    top = REACH * float(expected[0])
    beyond = observed > top
    axes.fill_between(expected, lowest, highest, color=GREY, alpha=0.5, lw=0)
    axes.plot([0.0, expected[0]], [0.0, expected[0]], color=BLACK, lw=1.0)
    for here, colour in ((~marked, BLUE), (marked, VERMILLION)):
        for part, mark, size in ((here & ~beyond, ".", 3), (here & beyond, "^", 4)):
            y = np.minimum(observed[part], top)
            axes.plot(expected[part], y, mark, color=colour, ms=size)
    if beyond.any():
        axes.set_title(f"{int((tail > top).sum()):,} beyond {top:.3g}, drawn at the edge", fontsize=SMALL)
    axes.set_xlim(0.0, 1.05 * expected[0])
    axes.set_ylim(0.0, 1.03 * top if beyond.any() else 1.1 * max(float(observed.max()), float(highest[0])))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=n > 30))


def _binomial_band(n: int) -> tuple[float, float]:
    """Counts between which 95 % of the bars of n uniform p-values lie: their least and largest."""
    counts = np.arange(n + 1)
    share = special.bdtr(counts, n, 1.0 / BINS)
    outer = 0.5 * (1.0 - BAND)
    return float(counts[share >= outer][0]), float(counts[share >= 1.0 - outer][0])


def _ranks_shown(n: int) -> np.ndarray:
    """Ranks 1..n, or of many objects the first ones and a part of the others."""
    if n <= MOST_POINTS:
        return np.arange(1, n + 1)
    return np.unique(np.round(np.geomspace(1.0, n, 2 * MOST_POINTS)).astype(int))
