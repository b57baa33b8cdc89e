# %% [markdown]
# # Pictures across the bins
#
# Each is a pure function of a table, and gives a new figure. A table without rows is a picture that says so.

# %%
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from examples.gaia_rvs.bin_figures import (
    residual_summary,
    side_by_side,
    spectra,
    weights_histogram,
    weights_map,
)
from examples.gaia_rvs.drawing import (
    CEILING,
    LINEAR,
    LOOKS,
    SMALLEST,
    coloured,
    edge_of,
    number_bins,
    say,
    scale_surprise,
    shares,
    surprise_of,
)
from examples.gaia_rvs.truth_figures import completeness, false_discoveries, recovered
from robusta_prob.plots.style import BLACK, BLUE, COLUMN, PAGE, SMALL, VERMILLION, finish
from robusta_prob.scoring.recovered import Proportion

__all__ = [
    "agreement",
    "completeness",
    "embedding",
    "false_discoveries",
    "hr_diagram",
    "outlier_fraction",
    "pairs",
    "recovered",
    "residual_summary",
    "side_by_side",
    "spectra",
    "stacked_histograms",
    "weights_histogram",
    "weights_map",
]
PLACE, WIDTH = ["bp_rp", "abs_mag"], ["width_bp_rp", "width_abs_mag"]
METRICS = {
    "density": "held-out density",
    "kl": "KL of z",
    "std_z": "std of z",
    "chi2": "reduced χ²",
    "rmse": "rmse",
    "median_z": "median |z|",
}


# %% Where the outliers are in the Hertzsprung-Russell diagram.
def hr_diagram(
    stars: pd.DataFrame, ellipses: pd.DataFrame, outliers: pd.DataFrame, colour: str, label: str
) -> Figure:
    """All stars in grey, the bins with their numbers, and outliers by a column: `label` says which."""
    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    axes = figure.subplots()
    where = stars[PLACE].to_numpy(float)
    where = where[np.isfinite(where).all(1)]
    centre, half = ellipses[PLACE].to_numpy(float), 0.5 * ellipses[WIDTH].to_numpy(float)
    corners = np.concatenate([centre - half, centre + half, outliers[PLACE].to_numpy(float)])
    if len(where):  # a few stars far away would squeeze all others
        corners = np.concatenate([corners, np.quantile(where, (0.001, 0.999), axis=0)])
    corners = corners[np.isfinite(corners).all(1)]
    low, high = (corners.min(0), corners.max(0)) if len(corners) else (np.zeros(2), np.ones(2))
    room = 0.05 * (high - low) + 0.01
    (left, top), (right, bottom) = (low - room).tolist(), (high + room).tolist()
    if len(where):
        size = int(np.clip(0.6 * np.sqrt(len(where)), 10, 90))
        area = (left, right, top, bottom)
        axes.hexbin(*where.T, gridsize=size, extent=area, bins="log", cmap="Greys", mincnt=1, linewidths=0.1)
    for one in ellipses.itertuples():
        width, height = one.width_bp_rp, one.width_abs_mag
        axes.add_patch(
            Ellipse((one.bp_rp, one.abs_mag), width, height, fill=False, ec=VERMILLION, lw=0.8, zorder=2)
        )
        below = (one.bp_rp - 0.45 * width, one.abs_mag + 0.36 * height)  # the main sequence
        axes.text(
            *below, f"{one.bin}", ha="right", va="top", zorder=4,
            fontsize=SMALL, color=VERMILLION, path_effects=[withStroke(linewidth=2, foreground="w")],
        )  # fmt: skip
    if len(outliers):
        coloured(figure, axes, outliers, "bp_rp", "abs_mag", colour, label)
    else:
        say(axes)
    axes.set_title(f"{len(outliers):,} outliers among {len(stars):,} stars (grey)", fontsize=SMALL)
    axes.set_xlabel(r"$G_\mathrm{BP} - G_\mathrm{RP}$ [mag]", fontsize=SMALL)
    axes.set_ylabel("$M_G$ [mag]", fontsize=SMALL)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    finish(axes)
    return figure


# %% The score of all stars, bin by bin.
def stacked_histograms(
    tables: Sequence[pd.DataFrame], column: str, threshold: float | None, label: str
) -> Figure:
    """Histograms of a score where low is strange: a row per bin, with how many are below the threshold.

    With no threshold, those are meant that a column `flagged` marks. An empty table has its place in the list
    for a number.
    """
    rows = max(len(tables), 1)
    figure = Figure(figsize=(COLUMN + 1.0, max(0.6 + 0.45 * rows, 1.8)), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    logarithmic = column == "least_p"
    known = [table[table[column].notna()] for table in tables]
    values = [table[column].to_numpy(float) for table in known]
    low = [
        x < threshold if threshold is not None else table["flagged"].to_numpy(bool)
        for x, table in zip(values, known, strict=True)
    ]
    cuts = [edge_of(x, here) if threshold is None else threshold for x, here in zip(values, low, strict=True)]
    everything = np.concatenate([*values, [0.0, 1.0]])
    panels[0].set_xlim(everything.min(), everything.max())
    if logarithmic:
        scale_surprise(panels[0], "x")
    drawn = panels[0].xaxis.get_transform()
    edges = drawn.inverted().transform(np.linspace(*drawn.transform(panels[0].get_xlim()), 81))
    end, side = (1.0, "right") if logarithmic else (0.0, "left")  # where few stars are
    most = 1
    for place, (axes, value, cut) in enumerate(zip(panels, values, cuts, strict=False)):
        x = surprise_of(value) if logarithmic else value
        counts = np.histogram(x, edges)[0]
        most = max(most, counts.max())
        axes.stairs(counts, edges, fill=True, color=BLUE)
        axes.stairs(np.histogram(x[low[place]], edges)[0], edges, fill=True, color=VERMILLION)
        axes.axvline(surprise_of(cut) if logarithmic else cut, color=BLACK, lw=0.8, ls="--")
        number = tables[place]["bin"].iloc[0] if len(tables[place]) else place
        axes.set_ylabel(f"{number}", fontsize=SMALL, rotation=0, ha="right", va="center")
        axes.annotate(
            f"{low[place].sum():,} of {len(value):,}", (end, 1.0), (3 - 6 * end, -3), ha=side, va="top",
            xycoords="axes fraction", textcoords="offset points", fontsize=SMALLEST,
        )  # fmt: skip
    panels[0].set_ylim(0.5, 6.0 * most)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(FixedLocator([10.0**k for k in range(0, 7, 2)]))
    panels[0].yaxis.set_minor_locator(NullLocator())
    panels[-1].set_xlabel(label, fontsize=SMALL)
    figure.supylabel("bin; stars per bar", fontsize=SMALL)
    for axes in panels:
        finish(axes)
    if not tables:
        say(panels[0], "no bins")
    return figure


# %% How many are found in every bin.
def outlier_fraction(summary: pd.DataFrame) -> Figure:
    """Share of outliers against the bin, of our list and of the published one; arrows are upper limits."""
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.set_yscale("log")
    bins = summary["bin"].to_numpy(float)
    for shift, column, name, (colour, mark) in zip(
        (-0.12, 0.12), ("flagged", "published"), ("ours", "published score"), LOOKS[:2], strict=True
    ):
        found = Proportion.of(summary[column], summary["spectra"])
        shares(axes, bins + shift, found, colour, mark, f"{name}, {summary[column].sum():,}")
    if len(summary):
        figure.legend(loc="outside upper center", ncols=2, fontsize=SMALL, frameon=False)
    else:
        say(axes)
    number_bins(axes, bins)
    axes.set_ylabel("share of outliers", fontsize=SMALL)
    finish(axes)
    return figure


# %% Stars that are in two bins.
def pairs(table: pd.DataFrame) -> Figure:
    """-log10 p of stars under the models of two bins, against each other, and how much they differ."""
    figure = Figure(figsize=(PAGE, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    both = table[["score_first", "score_second"]].clip(0.0, CEILING).to_numpy(float)
    known = np.isfinite(both).all(1)
    everywhere = table["in_all"].to_numpy(bool)
    difference = np.abs(np.diff(both, axis=1)[:, 0])
    largest = float(difference[known].max(initial=LINEAR))
    scale_surprise(left, "x", "y")
    scale_surprise(right, "x")
    edges = np.concatenate([np.linspace(0, LINEAR, 21), np.geomspace(LINEAR, 1.1 * CEILING, 22)[1:]])
    groups = []
    for name, here, colour, mark in (
        ("outlier in both bins", everywhere, BLUE, "o"),
        ("in one alone", ~everywhere, VERMILLION, "^"),
    ):
        here = here & known
        groups.append(difference[here])
        left.plot(
            *both[here].T, mark, color=colour, ms=4, mfc="none", mew=0.8, label=f"{name}, {here.sum():,}"
        )
    left.plot([0, 1.1 * CEILING], [0, 1.1 * CEILING], color=BLACK, lw=0.8, ls="--")
    right.hist(groups, edges.tolist(), stacked=True, color=[BLUE, VERMILLION])
    right.set_xlim(0.0, 1.2 * largest)
    right.set_ylim(bottom=0.0)
    right.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if known.any():
        left.legend(fontsize=SMALL, frameon=False, loc="upper left")
        right.set_title(f"median |difference| {np.median(difference[known]):.2g}", fontsize=SMALL)
    else:
        say(left)
        say(right)
    left.set_xlabel("−log₁₀ p in the first bin", fontsize=SMALL)
    left.set_ylabel("−log₁₀ p in the second bin", fontsize=SMALL)
    right.set_xlabel("|difference of −log₁₀ p|", fontsize=SMALL)
    right.set_ylabel("stars", fontsize=SMALL)
    finish(left)
    finish(right)
    return figure


# %% What other metrics would have chosen.
def agreement(matrix: pd.DataFrame, metrics: pd.DataFrame) -> Figure:
    """How alike the lists are under the models that the metrics choose; how long, and which models."""
    figure = Figure(figsize=(PAGE, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.0, 1.1))
    axes = left.subplots()
    values = matrix.to_numpy(float)
    if values.size:
        axes.imshow(values, cmap="cividis", vmin=0.0, vmax=1.0)
        axes.set_facecolor("0.9")  # of NaN
        names = [METRICS.get(name, name) for name in matrix.index]
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        for (row, column), value in np.ndenumerate(values):
            text, colour = ("–", BLACK) if math.isnan(value) else (f"{value:.2f}", "white")
            colour = BLACK if value > 0.55 else colour
            axes.text(column, row, text, ha="center", va="center", fontsize=SMALLEST, color=colour)
    else:
        say(axes)
    axes.set_title("shared by two lists, of all in either (Jaccard)", fontsize=SMALL)
    finish(axes)

    above, below = right.subplots(2, 1, sharex=True)
    for place, (metric, own) in enumerate(metrics.groupby("metric", sort=False)):
        (colour, mark), own = LOOKS[place % len(LOOKS)], own.sort_values("bin")
        x = own["bin"] + 0.1 * (place - 2.5)  # metrics often agree
        look = {"color": colour, "marker": mark, "ms": 3.5, "lw": 0.7, "mfc": "none", "mew": 0.9}
        above.plot(x, own["outliers"], label=METRICS.get(metric, metric), **look)
        below.plot(x, own["K"], **look)
    if len(metrics):
        right.legend(loc="outside upper center", ncols=3, fontsize=SMALLEST, frameon=False, columnspacing=1.0)
    else:
        say(above)
    above.set_yscale("symlog", linthresh=10, linscale=0.7)
    above.set_ylim(0.0, 2.0 * max(metrics["outliers"].max() if len(metrics) else 0, 10))
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    above.set_ylabel("outliers", fontsize=SMALL)
    below.set_ylabel("rank K", fontsize=SMALL)
    number_bins(below, metrics["bin"])
    finish(above)
    finish(below)
    return figure


# %% Which outliers are alike.
def embedding(points: pd.DataFrame, colour: str, label: str) -> Figure:
    """Outliers, near each other where their residuals are alike; directions and sizes mean nothing."""
    figure = Figure(figsize=(4.8, 4.0), layout="constrained")
    axes = figure.subplots()
    if len(points):
        coloured(figure, axes, points, "x", "y", colour, label)
    else:
        say(axes)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("first coordinate of the embedding", fontsize=SMALL)
    axes.set_ylabel("second coordinate", fontsize=SMALL)
    axes.set_title(f"{len(points):,} outliers", fontsize=SMALL)
    return figure
