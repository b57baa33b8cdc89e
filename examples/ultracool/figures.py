"""The pictures of the page, from what the other steps have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import robusta_prob as rp
from examples.ultracool import judge, strangers, survey, tables
from examples.ultracool.config import (
    CLIPPED,
    HMF,
    INJECTED,
    NATURAL,
    OURS,
    OURS_FLOOR,
    PACKAGE,
    PCA,
    Config,
)
from examples.ultracool.splits import Half
from examples.ultracool.store import basis_path, load, scores_path
from robusta_prob.plots.style import BLACK, BLUE, GREEN, GREY, PAGE, PURPLE, SMALL, VERMILLION, finish

SKY = "#56B4E9"
LOOKS = {
    PCA: (GREY, "v", ":"),
    HMF: (VERMILLION, "s", "--"),
    CLIPPED: (PURPLE, "D", "-."),
    PACKAGE: (GREEN, "^", "--"),
    OURS_FLOOR: (SKY, "P", "-"),
    OURS: (BLUE, "o", "-"),
}
WAVELENGTH = "wavelength [µm]"
DPI = 160


def by_rank(found: dict[str, Any], method: str, size: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks, means and standard errors of a size."""
    ranks = np.array(sorted(map(int, found.get(method, {}))))
    pairs = [tables.mean_and_error(np.array(found[method][str(k)].get(size, []))) for k in ranks]
    mean, error = np.array(pairs).reshape(-1, 2).T
    return ranks, mean, np.nan_to_num(error)


def curves(axes: Axes, found: dict[str, Any], size: str, config: Config) -> None:
    """A line per method, with standard errors over the splits."""
    for place, method in enumerate(config.fits.methods):
        ranks, mean, error = by_rank(found, method, size)
        colour, mark, line = LOOKS[method]
        shift = 1.0 + 0.012 * (place - 2.5)
        look = {"color": colour, "marker": mark, "ls": line, "ms": 4, "lw": 1.1, "elinewidth": 0.9}
        axes.errorbar(ranks * shift, mean, error, label=method, **look)
    axes.set_xscale("log")
    axes.set_xticks(config.fits.ranks, list(map(str, config.fits.ranks)))
    axes.minorticks_off()
    axes.set_xlabel("components K", fontsize=SMALL)
    finish(axes)


def accuracy(results: dict[str, Any], config: Config) -> Figure:
    """How well hidden segments are predicted, against the number of components."""
    figure = Figure(figsize=(PAGE, 6.4), layout="constrained")
    panels = figure.subplots(3, 2, sharex=True, sharey="row")
    sizes = {
        "mean density, Student's t\n[nats per pixel]": f"density, {tables.COMMON}",
        "T dwarfs alone\n[nats per pixel]": f"T dwarfs, {tables.COMMON}",
        "rms z of the median dwarf": f"rms_z, {tables.GAUSSIAN}",
    }
    for column, contamination in enumerate((NATURAL, INJECTED)):
        panels[0, column].set_title(f"{contamination} contamination", fontsize=9)
        for row, (label, size) in enumerate(sizes.items()):
            axes = panels[row, column]
            curves(axes, results["splits"].get(contamination, {}), size, config)
            axes.set_ylabel(label if column == 0 else "", fontsize=SMALL)
            axes.set_xlabel("components K" if row == 2 else "", fontsize=SMALL)
            if row < 2:
                axes.set_yscale("function", functions=(_near_top, _from_top))
                axes.set_yticks([-20, -5, -1, 0, 1, 2, 2.5])
                axes.set_ylim(*_range(results, size, config))
            else:
                axes.set_yscale("log")
                axes.set_yticks([1, 1.5, 2, 3, 4], ["1", "1.5", "2", "3", "4"])
                axes.axhline(1.0, color=GREY, lw=0.7)
            axes.minorticks_off()
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def _near_top(value: np.ndarray) -> np.ndarray:
    """Densities near the best are what matters; far below it the scale is logarithmic."""
    return -np.arcsinh(3.5 - np.asarray(value, float))


def _from_top(value: np.ndarray) -> np.ndarray:
    return 3.5 - np.sinh(-np.asarray(value, float))


def _range(results: dict[str, Any], size: str, config: Config) -> tuple[float, float]:
    """From the worst to the best of both kinds of contamination, with room."""
    values = [
        by_rank(found, method, size)[1]
        for found in results["splits"].values()
        for method in config.fits.methods
    ]
    all_ = np.concatenate(values)
    all_ = all_[np.isfinite(all_)]
    if not len(all_):
        return -1.0, 3.0
    low, high = _near_top(all_.min()), _near_top(all_.max())
    room = 0.06 * (high - low) + 0.02
    return float(_from_top(low - room)), float(min(_from_top(high + room), 3.4))


def needed(results: dict[str, Any], config: Config) -> Figure:
    """Components for a given accuracy, and how much of a basis comes back from other sources."""
    figure = Figure(figsize=(PAGE, 4.8), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row")
    levels = [f"{level:g}" for level in tables.LEVELS]
    for column, contamination in enumerate((NATURAL, INJECTED)):
        top, bottom = panels[:, column]
        table = results["components"].get(contamination, {})
        for place, method in enumerate(config.fits.methods):
            colour, mark, line = LOOKS[method]
            counted = [table.get(method, {}).get(str(v), (np.nan, np.nan)) for v in tables.LEVELS]
            pairs = np.array([(np.nan, np.nan) if isinstance(x, str) else x for x in counted], float)
            x = np.arange(len(levels)) + 0.06 * (place - 2.5)
            look = {"color": colour, "marker": mark, "ls": line, "ms": 4, "lw": 1.1, "elinewidth": 0.9}
            top.errorbar(x, pairs[:, 0], np.nan_to_num(pairs[:, 1]), label=method, **look)
        top.set_xticks(range(len(levels)), levels)
        top.set_xlabel("rms z of hidden segments, median dwarf", fontsize=SMALL)
        top.set_title(f"{contamination} contamination", fontsize=9)
        finish(top)
        curves(bottom, results["splits"].get(contamination, {}), "shared", config)
    panels[0, 0].set_ylabel("components needed", fontsize=SMALL)
    panels[1, 0].set_ylabel("subspace shared by halves\n(mean squared cosine)", fontsize=SMALL)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def turned(basis: np.ndarray, data: rp.Dataset, law: judge.Law, like: np.ndarray | None) -> np.ndarray:
    """The same subspace along the principal axes of what it says of clean dwarfs, signs as in `like`."""
    flux, ivar = np.asarray(data.flux, float) * data.unit, np.asarray(data.ivar, float) / data.unit**2
    A, _ = judge.project(basis, flux, ivar, ivar > 0, law)
    axes = np.linalg.eigh(A.T @ A)[1][:, ::-1].T @ basis
    like = np.abs(axes) if like is None else like
    return axes * np.where((axes * like[: len(axes)]).sum(1) < 0, -1.0, 1.0)[:, None]


def bases(config: Config, contamination: str, rank: int, last: int = 5) -> Figure:
    """The first and the last directions of each method, learned from either half of the first split."""
    data = load(config.files.data)
    some = data.take(survey.clean(data))
    law = judge.laws(config.judging)[1]
    methods = [m for m in (PCA, HMF, PACKAGE, OURS) if m in config.fits.methods]
    paths = {
        m: [basis_path(config, Half(0, half, contamination), m, rank) for half in (0, 1)] for m in methods
    }
    paths = {m: pair for m, pair in paths.items() if all(path.exists() for path in pair)}
    shown = [0, *range(max(rank - last, 1), rank)]
    figure = Figure(figsize=(PAGE, 1.05 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), len(paths), sharex=True, sharey="row", squeeze=False)
    first = None
    for column, (method, pair) in reversed(list(enumerate(paths.items()))):
        one, other = (np.load(path) for path in pair)
        one = turned(one, some, law, first)
        first = one if first is None else first
        other = turned(other, some, law, one)
        for axes, row in zip(panels[:, column], shown, strict=True):
            axes.plot(data.grid, one[row], color=LOOKS[method][0], lw=1.2)
            axes.plot(data.grid, other[row], color=BLACK, lw=0.6, ls="--")
            cosine = float(abs(one[row] @ other[row]))
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
            place = {"transform": axes.transAxes, "ha": "right", "va": "top"}
            axes.text(0.98, 0.96, f"{cosine:.3f}", fontsize=7, bbox=box, **place)
            finish(axes, data.grid)
            axes.set_ylabel(f"{row + 1}" if column == 0 else "", rotation=0, fontsize=SMALL, labelpad=8)
        panels[0, column].set_title(method, fontsize=9)
        panels[-1, column].set_xlabel(WAVELENGTH, fontsize=SMALL)
    return figure


def roc(axes: Axes, score: np.ndarray, strange: np.ndarray, **look: Any) -> None:
    """Share of strangers found against the share of all others that is above them."""
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    found = np.cumsum(strange[order]) / strange.sum()
    others = np.cumsum(~strange[order]) / (~strange).sum()
    axes.step(np.maximum(others, 1e-4), found, where="post", **look)


def best_of_rival(results: dict[str, Any], rank: int, method: str) -> str:
    """The score by which a rival finds most, chosen with the labels in hand."""
    rows = results["search"][str(rank)][method]

    def merit(name: str) -> float:
        return rows[name][strangers.NO_DWARF]["auc"] + rows[name][strangers.NO_DWARF]["precision"]

    return max(rows, key=merit)


def search(results: dict[str, Any], config: Config) -> Figure:
    """ROC curves, and what leads our list."""
    data, rank = load(config.files.data), config.strangers.rank
    rare = survey.rare(data)
    figure = Figure(figsize=(PAGE, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1.0))
    for method in config.fits.methods:
        if method == OURS_FLOOR or method not in results["search"][str(rank)]:
            continue
        name = strangers.OURS_SCORE if method == OURS else best_of_rival(results, rank, method)
        colour, _, line = LOOKS[method]
        area = results["search"][str(rank)][method][name][strangers.NO_DWARF]["auc"]
        label = f"{area:.3f}  {method}"
        score = strangers.all_scores(config, method, rank)[name]
        roc(left, score, rare, color=colour, ls=line, lw=1.3, label=label)
    left.set_xscale("log")
    left.set_xlim(5e-4, 1.0)
    left.set_ylim(0.0, 1.0)
    left.set_xlabel("share of all others above", fontsize=SMALL)
    left.set_ylabel(f"share of the {rare.sum()} found", fontsize=SMALL)
    left.legend(fontsize=7, frameon=False, loc="upper left", title="area under the curve", title_fontsize=7)
    finish(left)
    score = strangers.all_scores(config, OURS, rank)[strangers.OURS_SCORE]
    top = np.argsort(-score, kind="stable")[:25]
    for place, row in enumerate(top):
        colour = VERMILLION if rare[row] else PURPLE if not survey.clean(data)[row] else GREY
        name = str(data.meta["name"][row])[:24]
        words = f"{place + 1:2d}  {name}: {survey.label_of(data, int(row))}"
        right.text(0.0, 1.0 - (place + 0.5) / len(top), words, fontsize=6.5, color=BLACK, va="center")
        right.plot(-0.04, 1.0 - (place + 0.5) / len(top), "s", ms=4, color=colour)
    right.set_xlim(-0.08, 1.0)
    right.set_ylim(0.0, 1.0)
    right.axis("off")
    right.set_title("our list: no dwarf (orange), other label (pink),\nclean dwarf (grey)", fontsize=SMALL)
    return figure


def spectra(config: Config) -> Figure:
    """Strangers of each kind with what our basis makes of them."""
    data, rank = load(config.files.data), config.strangers.rank
    fit = rp.load(scores_path(config, OURS, rank).with_suffix(".h5"))
    score = strangers.all_scores(config, OURS, rank)[strangers.OURS_SCORE]
    place = np.empty(len(score), int)
    place[np.argsort(-score, kind="stable")] = np.arange(1, len(score) + 1)
    rows = []
    for mask in list(survey.kinds(data).values())[1:7]:
        usable = np.flatnonzero(mask & (data.meta["median_snr"] > 20))
        if len(usable):
            rows.append(int(usable[np.argsort(place[usable])[len(usable) // 3]]))
    figure = Figure(figsize=(PAGE, 5.2), layout="constrained")
    panels = figure.subplots(3, 2, sharex=True)
    for axes, row in zip(panels.flat, rows, strict=False):
        one = data.take([row])
        flux = np.where(one.observed[0], one.flux[0] * one.unit, np.nan)
        model = rp.reconstruct(fit, one)[0]
        axes.plot(data.grid, flux, color=BLACK, lw=0.9, label="spectrum")
        axes.plot(data.grid, model, color=BLUE, lw=0.9, ls="--", label="described by ours")
        axes.plot(data.grid, flux - model, color=VERMILLION, lw=0.7, label="residual")
        axes.axhline(0.0, color=GREY, lw=0.5)
        name = f"{str(data.meta['name'][row])[:16]}: {survey.label_of(data, row)}"
        axes.set_title(f"{name}, place {place[row]}", fontsize=SMALL)
        finish(axes, data.grid)
    for axes in panels[-1]:
        axes.set_xlabel(WAVELENGTH, fontsize=SMALL)
    for axes in panels[:, 0]:
        axes.set_ylabel("flux / median", fontsize=SMALL)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """As PNG."""
    figure.savefig(path, dpi=DPI)


def main(config: Config) -> None:
    """All pictures into the output folder."""
    output = config.files.output
    results = json.loads((output / "results.json").read_text())
    rank = config.strangers.rank if config.strangers.rank in config.fits.ranks else max(config.fits.ranks)
    save(accuracy(results, config), output / "accuracy.png")
    save(needed(results, config), output / "needed.png")
    for contamination in (NATURAL, INJECTED):
        save(bases(config, contamination, rank), output / f"basis-{contamination}.png")
    if OURS in config.fits.methods:
        save(search(results, config), output / "strangers.png")
        save(spectra(config), output / "spectra.png")
