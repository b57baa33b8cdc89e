# %% [markdown]
# # Pictures of what is known to be strange: injected by us, or by the simulator
#
# How much of it is found, from which strength on, and how much of the list is nothing.

# %%
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from examples.gaia_rvs.drawing import LOOKS, SMALLEST, number_bins, say, shares
from robusta_prob.plots.style import BLACK, BLUE, GREY, PAGE, SMALL, finish
from robusta_prob.scoring.recovered import Proportion
from robusta_prob.scoring.results import FLAG


# %% What was injected, and how much of it is found.
def recovered(table: pd.DataFrame) -> Figure:
    """Share of injected anomalies that is found, against their strength: a panel per kind."""
    kinds = list(dict.fromkeys(table["kind"])) if len(table) else [""]
    columns = min(len(kinds), 3 if len(kinds) <= 9 else 4)
    rows = -(-len(kinds) // columns)
    size = (min(PAGE, 0.5 + 2.3 * columns), 0.8 + 1.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    lines = {"found": "ours", "published": "published score", "named": "ours, and its kind is right"}
    for axes, kind in zip(panels.flat, kinds, strict=False):
        own = table[table["kind"] == kind].sort_values("strength_low")
        low, high = (own[name].to_numpy(float) for name in ("strength_low", "strength_high"))
        high = np.where(np.isfinite(high), high, 2.0 * low)
        middle = np.sqrt(np.where(low > 0, low, 0.25 * high) * high)
        for place, ((column, name), (colour, mark)) in enumerate(zip(lines.items(), LOOKS, strict=False)):
            if column in own:
                share = Proportion.of(own[column], own["number"])
                look = (
                    {"lw": 0.7, "ls": ":", "elinewidth": 0, "ms": 7, "mfc": "none"}
                    if column == "named"
                    else {}
                )
                shares(axes, middle * (0.95, 1.05, 0.95)[place], share, colour, mark, name, **look)
        axes.set_title(f"{kind} ({own['number'].sum():,})" if kind else "", fontsize=SMALL, pad=3)
        axes.axhline(0.5, color=GREY, lw=0.7, ls=":")
    first = panels[0, 0]
    first.set_ylim(-0.04, 1.04)
    if len(table):
        first.set_xscale("log")
        first.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        first.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        first.xaxis.set_minor_locator(NullLocator())
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    else:
        say(first, "nothing injected")
    for axes in panels.flat[len(kinds) :]:
        axes.remove()
    for axes in panels.flat[: len(kinds)][-columns:]:
        axes.tick_params(labelbottom=True)
    figure.supxlabel("S/N of what was injected", fontsize=SMALL)
    figure.supylabel("share found", fontsize=SMALL)
    for axes in figure.axes:
        finish(axes)
    return figure


# %% Where half of them are found.
def completeness(table: pd.DataFrame) -> Figure:
    """S/N of an anomaly at which half of its kind are found, against the bin: lower is better."""
    figure = Figure(figsize=(PAGE * 0.7, 2.8), layout="constrained")
    axes = figure.subplots()
    for (kind, own), (colour, mark) in zip(table.groupby("kind"), LOOKS * 2, strict=False):
        own = own.sort_values("bin")
        name = f"{kind}" if own["half"].notna().any() else f"{kind}: no half"
        axes.plot(own["bin"], own["half"], color=colour, marker=mark, ms=4, lw=1.0, label=name)
    if table["half"].notna().any():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        say(axes, "nothing found")
    number_bins(axes, table["bin"])
    axes.set_ylabel("S/N at which half are found", fontsize=SMALL)
    if len(table):
        figure.legend(loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    finish(axes)
    return figure


# %% How much of the list is nothing.
def false_discoveries(table: pd.DataFrame, least: int, q: float = FLAG) -> Figure:
    """Share of our list in which nothing was injected, per bin; hollow for fewer than `least` spectra."""
    figure = Figure(figsize=(PAGE * 0.7, 2.8), layout="constrained")
    axes = figure.subplots()
    rate = Proportion.of(table["false"], table["flagged"])
    bins, few = table["bin"].to_numpy(float), table["spectra"].to_numpy() < least
    for here, fill, name in ((~few, BLUE, "bins"), (few, "white", f"bins of fewer than {least:,} spectra")):
        part = Proportion(*(values[here] for values in rate))
        if here.any():
            shares(axes, bins[here], part, BLUE, "o", name, mfc=fill, ls="none")
    axes.axhline(q, color=BLACK, lw=0.8, ls="--", label=f"nominal, {q:g}")
    top = max(1.5 * np.nanmax(rate.high, initial=0.0), 3.0 * q)
    for place, wrong, flagged in zip(bins, table["false"], table["flagged"], strict=True):
        axes.text(
            place,
            0.985 * top,
            f"{wrong:,.0f} of {flagged:,.0f}",
            rotation=90,
            ha="center",
            va="top",
            fontsize=SMALLEST,
        )
    axes.set_ylim(0.0, top)
    if not len(table):
        say(axes)
    number_bins(axes, bins)
    axes.set_ylabel("false-discovery rate", fontsize=SMALL)
    figure.legend(loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    finish(axes)
    return figure
