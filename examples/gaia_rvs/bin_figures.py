# %% [markdown]
# # Pictures of the stars of a bin
#
# The two lists of outliers against each other, the robust weights, residuals and spectra.

# %%
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

import robusta_prob as rp
from examples.gaia_rvs.drawing import (
    LINEAR,
    LOOKS,
    SMALLEST,
    edge_of,
    say,
    scale_surprise,
    surprise_of,
)
from robusta_prob.plots.style import (
    BLACK,
    BLUE,
    COLUMN,
    NORMAL,
    PAGE,
    SMALL,
    VERMILLION,
    axis_label,
    finish,
    limits,
)
from robusta_prob.scoring.predictive import quantiles
from robusta_prob.scoring.results import FLAG

WAVELENGTH = "wavelength [nm]"
COLUMNS, NAMED = 1200, 45  # of an image of weights: pixels along x, and rows that have a name each
MARKS = "osD^vP*Xph"
EDGES = 1e-4, 1.0 - 1e-4  # of the published score, which may be 0 or 1
LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


# %% Both scores of all stars, and who is in which list.
def side_by_side(table: pd.DataFrame, threshold: float, q: float = FLAG) -> Figure:
    """The published score against ours: all stars in grey, those in a list as points, by what they are.

    A column `true` tells what was injected, "" for nothing: then what is in no list is drawn as well, small.
    """
    figure = Figure(figsize=(PAGE, 3.9), layout="constrained")
    axes = figure.subplots()
    x, y = surprise_of(table["least_p"]), np.clip(table["low_weight"].to_numpy(float), *EDGES)
    ours, theirs = table["flagged"].to_numpy(bool), table["published"].to_numpy(bool)
    known = np.isfinite(x) & np.isfinite(y)
    scale_surprise(axes, "x")
    axes.set_yscale("logit")  # linear in the logarithm of z / Q
    axes.set_ylim(*EDGES)
    axes.yaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if known.any():
        _mass(axes, x[known], y[known])
    else:
        say(axes, "no stars")
    true = table["true"].fillna("").astype(str).to_numpy() if "true" in table else np.full(len(table), "")
    listed = known & (ours | theirs)
    for place, kind in enumerate(sorted(set(true[listed | (known & (true != ""))]))):
        here = true == kind
        if not kind:
            look, mark, name = {"color": BLACK, "mfc": "none", "mew": 0.7}, "o", "nothing injected"
        else:
            colour, mark = LOOKS[place % 4][0], MARKS[place % len(MARKS)]
            look, name = {"color": colour, "mec": BLACK, "mew": 0.3}, kind
            missed = here & known & ~listed
            axes.plot(x[missed], y[missed], mark, ms=2, alpha=0.7, color=colour, mew=0)
        name = name if "true" in table else "listed"
        axes.plot(x[here & listed], y[here & listed], mark, ms=4.5, label=name, **look)

    edge = edge_of(table["least_p"], ours)
    axes.axvline(surprise_of(edge), color=BLUE, lw=1.0, ls="--")
    axes.axhline(threshold, color=VERMILLION, lw=1.0, ls="--")
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
    right = float(np.nan_to_num(surprise_of(edge), nan=LINEAR))
    for words, here, at, height in (
        ("in no list", ~ours & ~theirs, 0.0, 0.94),
        (f"ours alone (q < {q:g})", ours & ~theirs, right, 0.94),
        ("published alone", ~ours & theirs, 0.0, 0.03),
        ("in both lists", ours & theirs, right, 0.03),
    ):
        axes.annotate(
            f"{words}: {here.sum():,}", (at, height), (4, 0), xycoords=axes.get_xaxis_transform(),
            textcoords="offset points", fontsize=SMALL, bbox=box,
        )  # fmt: skip
    if listed.any() and "true" in table:
        look = {"fontsize": SMALL, "title_fontsize": SMALL, "frameon": False, "handletextpad": 0.2}
        figure.legend(loc="outside right center", title="in a list; small: in none", **look)
    axes.set_xlabel("ours: −log₁₀ of the least p-value", fontsize=SMALL)
    axes.set_ylabel(f"published score (listed below {threshold:g})", fontsize=SMALL)
    finish(axes)
    return figure


def _mass(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Density of all stars on these axes; boxes of equal size on the paper."""
    columns, rows = (
        drawn.inverted().transform(np.linspace(*drawn.transform(ends), boxes))
        for drawn, ends, boxes in (
            (axes.xaxis.get_transform(), axes.get_xlim(), 91),
            (axes.yaxis.get_transform(), axes.get_ylim(), 61),
        )
    )
    counts, _, _ = np.histogram2d(x, y, [columns, rows])
    counts[counts == 0] = np.nan
    axes.pcolormesh(columns, rows, np.log10(1.0 + counts.T), cmap="Greys", vmin=-0.3, zorder=0)


# %% Robust weights.
def weights_histogram(table: pd.DataFrame, threshold: float) -> Figure:
    """The published score of all stars, and how many it lists."""
    figure = Figure(figsize=(COLUMN, 2.5), layout="constrained")
    axes = figure.subplots()
    scores = table["low_weight"].dropna().to_numpy(float)
    few = scores < threshold
    edges = np.linspace(0.0, 1.0, 51)
    axes.hist([scores[~few], scores[few]], edges.tolist(), stacked=True, color=[BLUE, VERMILLION])
    axes.axvline(threshold, color=BLACK, lw=0.8, ls="--")
    axes.set_ylim(0.5, 2.0 * max(np.histogram(scores, edges)[0].max(initial=1), 5))
    axes.set_yscale("log")
    axes.set_xlim(0.0, 1.0)
    if not len(scores):
        say(axes, "no stars")
    axes.set_title(f"{few.sum():,} of {len(scores):,} stars below {threshold:g}", fontsize=NORMAL)
    axes.set_xlabel("1 % quantile of the robust weights of a star", fontsize=SMALL)
    axes.set_ylabel("stars per 0.02", fontsize=SMALL)
    finish(axes)
    return figure


def weights_map(weights: np.ndarray, grid: np.ndarray, names: Sequence[object]) -> Figure:
    """Robust weights (stars, pixels) as an image, the first star on top; missing pixels are light grey.

    Several pixels are drawn as one where there are many: as the least of them.
    """
    weights = np.asarray(weights, float)
    rows = len(weights)
    named = rows <= NAMED
    height = 0.14 * rows if named else min(4.0 + 0.01 * rows, 8.0)
    figure = Figure(figsize=(PAGE, 1.2 + max(height, 0.6)), layout="constrained")
    axes = figure.subplots()
    if not rows:
        say(axes)
        axes.set_yticks([])
    else:
        step = -(-weights.shape[1] // COLUMNS)
        padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % step)), constant_values=np.nan)
        least = np.fmin.reduce(padded.reshape(rows, -1, step), axis=2)
        half = 0.5 * (grid[-1] - grid[0]) / max(len(grid) - 1, 1)
        image = axes.imshow(
            least, aspect="auto", cmap="cividis", vmin=0.0, vmax=1.0, interpolation="nearest",
            extent=(grid[0] - half, grid[0] - half + 2 * half * step * least.shape[1], rows + 0.5, 0.5),
        )  # fmt: skip
        axes.set_facecolor("0.85")  # of NaN
        axes.set_xlim(grid[0] - half, grid[-1] + half)
        bar = figure.colorbar(image, ax=axes, aspect=40, pad=0.01)
        bar.set_label("robust weight", fontsize=SMALL)
        bar.ax.tick_params(labelsize=SMALL)
    finish(axes)
    if named and rows:
        axes.set_yticks(np.arange(1, rows + 1), [str(name) for name in names], fontsize=SMALLEST)
    elif rows:
        axes.set_ylabel("star, the strangest is 1", fontsize=SMALL)
        axes.yaxis.set_major_locator(FixedLocator([1, *range(20, rows + 1, 20 * (1 + rows // 300))]))
    axes.set_xlabel(WAVELENGTH, fontsize=SMALL)
    return figure


# %% Residuals of a random sample.
def residual_summary(z: np.ndarray, weight: np.ndarray, grid: np.ndarray) -> Figure:
    """Quantiles of z (stars, pixels) at every pixel, and beneath how many robust weights are low there."""
    figure = Figure(figsize=(PAGE, 3.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0))
    z, weight = np.asarray(z, float), np.asarray(weight, float)
    above.set_ylim(-2.6, 2.6)
    if len(z):
        outer_low, low, median, high, outer_high = quantiles(z.T, np.isfinite(z.T), LEVELS)
        look = {"color": BLUE, "lw": 0, "step": "mid"}
        above.fill_between(grid, outer_low, outer_high, alpha=0.25, label="2.5–97.5 %", **look)
        above.fill_between(grid, low, high, alpha=0.5, label="16–84 %", **look)
        above.plot(grid, median, color=BLACK, lw=0.7, label="median")
        seen = np.isfinite(weight)
        some = seen.any(0)
        share = np.where(some, (seen & (weight < 0.5)).sum(0) / np.maximum(seen.sum(0), 1), np.nan)
        below.plot(grid, 100.0 * share, color=VERMILLION, lw=0.7, drawstyle="steps-mid")
        below.set_ylim(0.0, 1.1 * max(100.0 * np.nanmax(share, initial=0.0), 1.0))
        spread = limits(outer_low, outer_high)
        above.set_ylim(min(spread[0], -2.6), max(spread[1], 2.6))
        figure.legend(loc="outside upper center", ncols=4, fontsize=SMALL, frameon=False)
    else:
        say(above, "no stars")
    for level in (-1.96, -1.0, 1.0, 1.96):
        above.axhline(level, color=BLACK, lw=0.7, ls=":")
    above.set_ylabel(f"z of {len(z):,} stars", fontsize=SMALL)
    below.set_ylabel("weights\n< 0.5 [%]", fontsize=SMALL)
    below.set_xlabel(WAVELENGTH, fontsize=SMALL)
    for axes in (above, below):
        finish(axes, grid)
    figure.align_ylabels()
    return figure


# %% Some spectra.
def spectra(data: rp.Dataset, model: np.ndarray, z: np.ndarray, shown: int) -> Figure:
    """Random spectra with their reconstructions, each above its z; always the same ones of the same data."""
    chosen = np.sort(np.random.default_rng(0).permutation(data.shape[0])[: max(shown, 0)])
    rows = max(len(chosen), 1)
    figure = Figure(figsize=(PAGE, 0.7 + 1.25 * rows), layout="constrained")
    figure.get_layout_engine().set(hspace=0.0, h_pad=0.01)
    panels = figure.subplots(2 * rows, 1, sharex=True, height_ratios=(2.2, 1.0) * rows)
    part = data.take(chosen) if len(chosen) else None
    for place, row in enumerate(chosen):
        flux = np.where(part.observed[place], np.asarray(part.flux[place], float) * part.unit, np.nan)
        above, below = panels[2 * place], panels[2 * place + 1]
        above.plot(data.grid, flux, color=BLACK, lw=0.6, label="data" if not place else None)
        above.plot(data.grid, model[row], color=VERMILLION, lw=0.9, label="model" if not place else None)
        above.set_ylim(limits(flux, model[row]))
        above.set_ylabel(axis_label(data.labels.flux_name, 20), fontsize=SMALL)
        above.text(
            0.5, 0.05, f"{data.ids[row]}", transform=above.transAxes, fontsize=SMALLEST, ha="center",
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip
        below.plot(data.grid, z[row], color=BLUE, lw=0.5)
        top = max(4.0, 1.1 * np.nanmax(np.abs(z[row]), initial=0.0))
        below.set_ylim(-top, top)
        below.set_ylabel("z", fontsize=SMALL)
        for level in (-1.96, 1.96):
            below.axhline(level, color=BLACK, lw=0.6, ls=":")
        for axes in (above, below):
            axes.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
    if not len(chosen):
        say(panels[0], "no stars")
    else:
        figure.legend(loc="outside upper center", ncols=2, fontsize=SMALL, frameon=False)
    for axes in panels:
        finish(axes, data.grid)
    panels[-1].set_xlabel(WAVELENGTH, fontsize=SMALL)
    figure.align_ylabels()
    return figure
