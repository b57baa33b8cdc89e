# %% [markdown]
# # Pictures of the toy survey
#
# Drawn from what `run` has written, and from the survey itself, which its seed makes again.

# %%
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import robusta_prob as rp
from examples.toy.run import RANK, RANKS, SCALES
from examples.toy.simulate import Halves, halves
from robusta_prob.plots.style import BLACK, BLUE, COLUMN, GREEN, GREY, PAGE, PURPLE
from robusta_prob.plots.style import VERMILLION as ORANGE

SMALL = {"fontsize": 8}
EPOCHS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 23, 30, 40)  # of the picture of annealing


def finish(figure: Figure) -> Figure:
    """Small tick labels everywhere."""
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
    return figure


# %% The grid of the paper: what chooses, and what is found.
def grid(results: dict) -> Figure:
    """Held-out density, the published score, and F1 per pixel and per object, over rank and scale."""
    shape = len(RANKS), len(SCALES)
    below = np.reshape(results["columns"]["below_best"], shape)
    std = np.abs(np.reshape(results["columns"]["std_z"], shape) - 1.0)
    panels = {
        "held-out density below the best\n[nats per pixel]": (
            np.log10(np.maximum(below, 1e-5)),
            below,
            "cividis_r",
        ),
        "published score, |std of weighted z − 1|": (np.log10(std), std, "cividis_r"),
        "F1 per pixel, weight < 0.5": (*[np.array(results["F1 per pixel"])] * 2, "cividis"),
        "F1 per object, median weight < 0.9": (*[np.array(results["F1 per object"])] * 2, "cividis"),
    }
    figure = Figure(figsize=(PAGE, 5.4), layout="constrained")
    for axes, (title, (colour, value, cmap)) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.imshow(colour, origin="lower", cmap=cmap, aspect="auto")
        middle = 0.5 * (colour.min() + colour.max())
        for (i, j), number in np.ndenumerate(value):
            dark = (colour[i, j] < middle) == (cmap == "cividis")
            text = f"{number:.2f}" if number >= 0.095 else f"{number:.1g}" if number > 0 else "best"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
        chosen = list(RANKS).index(results["chosen"]["rank"]), SCALES.index(results["chosen"]["scale"])
        axes.add_patch(Rectangle((chosen[1] - 0.5, chosen[0] - 0.5), 1, 1, fill=False, ec=ORANGE, lw=2))
        axes.set_xticks(range(len(SCALES)), [f"{q:g}" for q in SCALES])
        axes.set_yticks(range(len(RANKS)), list(map(str, RANKS)))
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("robustness scale Q", **SMALL)
        axes.set_ylabel("rank K", **SMALL)
    return finish(figure)


# %% Spectra and their reconstructions.
def reconstructions(half: Halves, fit: rp.Fit) -> Figure:
    """Three normal spectra and three outliers of the test half, with what the model says."""
    test = half.test
    rng = np.random.default_rng(1)
    noise = np.median(np.where(test.observed, 1.0 / np.sqrt(np.maximum(test.ivar, 1e-30)), np.nan), 1)
    clear = np.nan_to_num(noise, nan=np.inf) < 0.05 / test.unit
    figure = Figure(figsize=(COLUMN, 4.2), layout="constrained")
    axes = figure.subplots()
    kinds = {"outlier": ORANGE, "normal": BLUE}
    rows = [
        int(r)
        for kind in kinds
        for r in rng.permutation(np.flatnonzero(clear & (test.meta["kind"] == kind)))[:3]
    ]
    for level, row in enumerate(rows):
        colour = kinds[str(test.meta["kind"][row])]
        flux = np.where(test.observed[row], test.flux[row] * test.unit, np.nan)
        axes.plot(test.grid, flux + level, color=colour, lw=1.0)
        axes.plot(test.grid, rp.reconstruct(fit, test.take([row]))[0] + level, color=BLACK, lw=0.7)
    for label, colour in (("normal spectra", BLUE), ("outlier spectra", ORANGE), ("fit", BLACK)):
        axes.plot([], [], color=colour, label=label)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    axes.set_xlabel("wavelength [nm]", **SMALL)
    axes.set_ylabel("flux, shifted", **SMALL)
    return finish(figure)


# %% Foreign absorption lines in a normal spectrum.
def lines(half: Halves, fit: rp.Fit, folder: Path) -> Figure:
    """Data and models, residual, weights, for a test spectrum with three foreign lines."""
    test = half.test
    with np.load(folder / "models.npz") as models:
        row = int(models["row"])
        shown = {
            "PCA": (models["PCA"], ORANGE),
            "robust PCA": (models["principal component pursuit"], GREEN),
            "ours": (models["ours"], BLUE),
        }
    one = test.take([row])
    there = half.survey.truth.masks.foreign_lines[~half.first][row]
    flux = np.where(one.observed[0], one.flux[0] * one.unit, np.nan)
    figure = Figure(figsize=(COLUMN, 4.6), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(2.4, 1, 1))
    top.plot(test.grid, flux, color=GREY, lw=1.6, label="data")
    for name, (model, colour) in shown.items():
        top.plot(test.grid, model, color=colour, lw=0.9, label=name)
        middle.plot(test.grid, flux - model, color=colour, lw=0.9)
    bottom.plot(test.grid, rp.robust_weights(fit, one)[0], color=BLUE, lw=0.9)
    for axes in (top, middle, bottom):
        axes.fill_between(
            test.grid, 0, 1, where=there, transform=axes.get_xaxis_transform(), color=PURPLE, alpha=0.3, lw=0
        )
    figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    for axes, label in zip((top, middle, bottom), ("flux", "residual", "weight"), strict=True):
        axes.set_ylabel(label, **SMALL)
    bottom.set_xlabel("wavelength [nm]; foreign lines are shaded", **SMALL)
    return finish(figure)


# %% The basis against the truth.
def basis(half: Halves, fit: rp.Fit) -> Figure:
    """Each basis vector, and how far it is from the true subspace beside its uncertainty."""
    truth = half.survey.truth.basis
    nearest = (fit.basis @ truth.T) @ truth  # the vectors of the true subspace that are nearest to ours
    sd = np.sqrt(np.diagonal(fit.basis_covariance, axis1=1, axis2=2)).T
    figure = Figure(figsize=(PAGE, 5.2), layout="constrained")
    panels = figure.subplots(fit.rank, 2, sharex=True, width_ratios=(1.6, 1))
    for k, (left, right) in enumerate(panels):
        left.plot(fit.grid, nearest[k], color=ORANGE, lw=1.8, label="truth" if k == 0 else None)
        left.plot(fit.grid, fit.basis[k], color=BLUE, lw=0.8, label="ours" if k == 0 else None)
        left.set_ylabel(f"{k + 1}", rotation=0, **SMALL)
        right.fill_between(fit.grid, -2e3 * sd[k], 2e3 * sd[k], color=BLUE, alpha=0.25, lw=0)
        right.plot(fit.grid, 1e3 * (fit.basis[k] - nearest[k]), color=BLACK, lw=0.5)
    panels[0, 0].set_title("basis vectors", fontsize=9)
    panels[0, 1].set_title("ours − truth, and ±2σ [10⁻³]", fontsize=9)
    panels[0, 0].legend(fontsize=8, frameon=False, ncols=2, loc="lower right")
    for axes in panels[-1]:
        axes.set_xlabel("wavelength [nm]", **SMALL)
    return finish(figure)


# %% What the weights know of the kinds of corruption.
def weights(half: Halves, published: rp.Fit) -> Figure:
    """Distribution of the published robust weight per kind of cell, of the test half."""
    masks, test = half.survey.truth.masks, half.test
    weight = rp.robust_weights(published, test)
    seen = test.observed
    kinds = {
        "clean": (~masks.corrupted[~half.first], BLACK, "-"),
        "outlier spectra": (
            np.broadcast_to(masks.outlier_spectra[~half.first][:, None], seen.shape),
            ORANGE,
            "-",
        ),
        "bad pixels": (masks.outlier_pixels[~half.first], BLUE, "--"),
        "bad columns": (masks.outlier_columns[~half.first], GREEN, "-."),
        "foreign lines": (masks.foreign_lines[~half.first], PURPLE, ":"),
    }
    figure = Figure(figsize=(COLUMN, 3.0), layout="constrained")
    axes = figure.subplots()
    for name, (mask, colour, style) in kinds.items():
        values = np.sort(weight[mask & seen])
        axes.plot(
            values, np.arange(1, len(values) + 1) / len(values), color=colour, ls=style, lw=1.2, label=name
        )
    axes.axvline(0.5, color=GREY, lw=0.8)
    axes.set_xlabel("robust weight Q²/(Q² + z²), K = 5, Q = 5", **SMALL)
    axes.set_ylabel("share of cells below", **SMALL)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return finish(figure)


# %% The surprise of spectra.
def surprise(half: Halves, fit: rp.Fit) -> Figure:
    """p-values of normal spectra are uniform, those of outliers are not."""
    data = half.survey.data
    scores = rp.surprise(fit, data)
    kind = data.meta["kind"]
    size = np.clip(-scores.object.log_p / np.log(10), 0, 1e4)
    figure = Figure(figsize=(COLUMN, 3.0), layout="constrained")
    axes = figure.subplots()
    edges = np.concatenate([np.linspace(0, 4, 17), np.geomspace(5, 1e4, 14)])
    for name, colour, hatch in (("normal", BLUE, None), ("outlier", ORANGE, None), ("lines", PURPLE, "//")):
        axes.hist(size[kind == name], edges, color=colour, alpha=0.6, label=name, hatch=hatch)
    middle = 0.5 * (edges[1:] + edges[:-1])
    expected = (kind == "normal").sum() * -np.diff(10.0**-edges)
    axes.plot(middle[expected > 0.1], expected[expected > 0.1], color=BLACK, lw=1.0, label="normal, expected")
    axes.set_xscale("symlog", linthresh=4)
    axes.set_yscale("log")
    axes.set_ylim(0.7)
    axes.set_xlabel("surprise −log₁₀ p of a spectrum", **SMALL)
    axes.set_ylabel("spectra", **SMALL)
    axes.legend(fontsize=8, frameon=False)
    return finish(figure)


# %% What annealing does.
def annealing(half: Halves, objects: int = 1000) -> Figure:
    """Angle to the truth, epoch by epoch, from the published start with and without annealed robustness."""
    train = half.train.take(slice(objects))
    flux = np.asarray(train.flux, float)
    start = np.linalg.svd(flux, full_matrices=False)[2][:RANK]
    truth = half.survey.truth.basis
    loss = {"noise": rp.Noise(1.0, 5.0, 0.0), "prior": rp.Prior.flat(), "init": start}
    schedules = {
        "annealed": (rp.anneal.tightening(), BLUE, "o"),
        "as given from the start": (rp.anneal.constant(), ORANGE, "s"),
    }
    figure = Figure(figsize=(COLUMN, 2.6), layout="constrained")
    axes = figure.subplots()
    for name, (schedule, colour, marker) in schedules.items():
        angles = [
            rp.simulate.largest_angle(
                rp.fit(train, RANK, schedule=schedule, max_epochs=int(n), **loss).basis, truth
            )
            for n in EPOCHS
        ]
        axes.plot(EPOCHS, angles, color=colour, marker=marker, ms=3, lw=1.2, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("epochs", **SMALL)
    axes.set_ylabel("sine of the largest\nangle to the truth", **SMALL)
    axes.legend(fontsize=8, frameon=False)
    return finish(figure)


def main(output: Path) -> None:
    """All pictures into the folder that `run` has filled."""
    results = json.loads((output / "results.json").read_text())
    half = halves(results["objects"], results["pixels"], results["seed"])
    fit, published = rp.load(output / "fit.h5"), rp.load(output / "published.h5")
    pictures = {
        "grid": grid(results),
        "reconstructions": reconstructions(half, fit),
        "lines": lines(half, fit, output),
        "basis": basis(half, fit),
        "weights": weights(half, published),
        "surprise": surprise(half, fit),
        "annealing": annealing(half),
    }
    for name, figure in pictures.items():
        figure.savefig(output / f"{name}.png", dpi=200)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "toy_run"))
