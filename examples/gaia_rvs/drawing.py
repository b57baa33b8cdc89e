# %% [markdown]
# # Pieces of pictures
#
# Axes of p-values and of bins, shares with their errors, points with a colour bar.

# %%
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from robusta_prob.plots.style import BLACK, BLUE, GREEN, GREY, PURPLE, SMALL, VERMILLION
from robusta_prob.scoring.recovered import Proportion

CEILING = 300.0  # of -log10 p: a smaller probability is at the edge
LINEAR = 5.0  # -log10 p beyond which its axis is logarithmic
LOOKS = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (BLACK, "x"), (GREY, "v"))
SMALLEST = 7.0  # [pt], of numbers within a picture


# %%
def surprise_of(p: Any) -> np.ndarray:
    """-log10 p, at most `CEILING`."""
    with np.errstate(divide="ignore"):
        return np.clip(-np.log10(np.asarray(p, float)), 0.0, CEILING)


def edge_of(p: Any, listed: Any) -> float:
    """Where the list ends: midway, in log p, of the last within and the first without; NaN for no list."""
    p, listed = np.asarray(p, float), np.asarray(listed, bool)
    if not (listed & (p > 0)).any():
        return float("nan")
    last = p[listed].max()
    others = p[~listed & (p > last)]
    return float(np.sqrt(last * others.min())) if len(others) else float(last)


def scale_surprise(axes: Axes, *names: str) -> None:
    """Axes "x" or "y" of -log10 p from 0 to the ceiling: linear where most stars are, logarithmic beyond."""
    for name in names:
        axes.set(**{f"{name}lim": (0.0, 1.1 * CEILING)})
        getattr(axes, f"set_{name}scale")("symlog", linthresh=LINEAR, linscale=1.5)
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(FixedLocator([0, 1, 2, 3, 4, 5, 10, 30, 100, 300]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def say(axes: Axes, words: str = "no outliers") -> None:
    """Words where there is nothing to draw."""
    look = {"ha": "center", "va": "center", "fontsize": SMALL, "color": BLACK, "zorder": 5}
    box = {"facecolor": "white", "edgecolor": GREY, "linewidth": 0.6}
    axes.text(0.5, 0.5, words, transform=axes.transAxes, bbox=box, **look)


def shares(
    axes: Axes, x: np.ndarray, share: Proportion, colour: str, mark: str, label: str, **look: Any
) -> None:
    """Shares with their errors; on a logarithmic axis an arrow from the upper limit where none is found."""
    limit = (share.found == 0) & (share.number > 0) & (axes.get_yscale() == "log")
    seen = (share.number > 0) & ~limit
    errors = np.array([share.share - share.low, share.high - share.share])
    common = {"color": colour, "ms": 4, "lw": 1.0, "elinewidth": 0.9, "capsize": 0, **look}
    axes.errorbar(x[seen], share.share[seen], errors[:, seen], marker=mark, label=label, **common)
    if limit.any():
        common |= {"ls": "none", "ms": 0}
        axes.errorbar(x[limit], share.high[limit], 0.45 * share.high[limit], uplims=True, **common)


def number_bins(axes: Axes, bins: Any) -> None:
    """The horizontal axis is the number of the bin."""
    bins = np.asarray(bins, float)
    low, high = (bins.min(), bins.max()) if len(bins) else (0, 13)
    axes.set_xlim(low - 0.6, high + 0.6)
    axes.xaxis.set_major_locator(FixedLocator(np.arange(low, high + 1).tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.set_xlabel("bin, from hot to cool", fontsize=SMALL)


def coloured(
    figure: Figure, axes: Axes, table: pd.DataFrame, x: str, y: str, colour: str, label: str
) -> None:
    """Points with a colour bar; a column of positive values over decades is on a logarithmic scale."""
    values = table[colour].to_numpy(float)
    values = surprise_of(values) if colour == "least_p" else values
    known = np.isfinite(values)
    places, seen = table[[x, y]].to_numpy(float), values[known]
    axes.scatter(*places[~known].T, s=14, facecolors="none", edgecolors=BLACK, linewidths=0.6)
    if not len(seen):
        return
    low, high = seen.min(), seen.max()
    norm: Normalize = Normalize(low, high)
    if colour == "bin":
        norm = BoundaryNorm(np.arange(low - 0.5, high + 1.0), 256)
    elif low > 0 and high > 30.0 * low:
        norm = LogNorm(low, high)
    look = {"cmap": "viridis", "norm": norm, "s": 14, "edgecolors": BLACK, "linewidths": 0.3}
    points = axes.scatter(*places[known].T, c=seen, zorder=3, **look)
    bar = figure.colorbar(points, ax=axes, aspect=40, pad=0.02)
    bar.set_label(label, fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    if colour == "bin":
        bar.set_ticks(np.arange(low, high + 1.0).tolist())
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        bar.ax.yaxis.set_minor_locator(NullLocator())
    elif isinstance(norm, LogNorm):
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        bar.ax.yaxis.set_minor_locator(NullLocator())
