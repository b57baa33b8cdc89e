# %% [markdown]
# # The published experiment, and what else can be said
#
# 1. The grid of the paper, K = 3..7 and Q = 0.5..10, judged by held-out density; and the paper's own scores:
#    the deviation of weighted z from 1, F1 per pixel (robust weight < 0.5) and per object (median < 0.9).
# 2. The same question without a grid over Q: the noise law is learned.
# 3. Everybody's reconstruction of the clean test spectra, which nobody was shown.
#
# `python -m examples.toy OUTPUT` does everything; this file writes `results.json` and the fits.

# %%
from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import robusta_prob as rp
from examples.toy import rivals
from examples.toy.simulate import Halves, halves
from robusta_prob import report

RANKS, SCALES = range(3, 8), (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0)
GENEROUS = 9  # components of the one fit that tells how many are supported
RANK, SCALE = 5, 5.0  # of the survey, and the choice of the paper
OF_PACKAGE = ((3, 0.5), (4, 10.0), (5, 2.0), (5, 5.0), (7, 3.0))  # two of one rank: they share no program
PIXEL, OBJECT = 0.5, 0.9  # robust weights below which the paper calls a pixel, or a spectrum, an outlier


# %% The paper's measure of success: F1 of outlying pixels and spectra, from robust weights.
def f1(found: np.ndarray, true: np.ndarray) -> float:
    """Harmonic mean of purity and completeness."""
    return float(2 * (found & true).sum() / max(found.sum() + true.sum(), 1))


def f1_scores(weight: np.ndarray, half: Halves) -> tuple[float, float]:
    """Per pixel and per object of the test half. As published, a missing pixel has weight 1."""
    masks, weight = half.survey.truth.masks, np.nan_to_num(weight, nan=1.0)
    objects = masks.outlier_spectra[~half.first]
    return f1(weight < PIXEL, masks.corrupted[~half.first]), f1(np.median(weight, 1) < OBJECT, objects)


def weights_of(model: np.ndarray, data: rp.Dataset, scale: float) -> np.ndarray:
    """Robust weights Q^2 / (Q^2 + z^2) of anybody's model."""
    z2 = data.ivar / data.unit**2 * (data.flux * data.unit - model) ** 2
    return np.where(data.observed, scale**2 / (scale**2 + z2), np.nan)


# %% Errors of a reconstruction, where the truth is known: in spectra that were not replaced.
def errors(model: np.ndarray, half: Halves) -> dict[str, float]:
    """Mean squared error over all cells, over those that were missing; and that of the median spectrum."""
    truth = half.survey.truth
    normal = ~truth.masks.outlier_spectra[~half.first]
    square = (model - truth.clean[~half.first])[normal] ** 2
    missing = truth.masks.missing[~half.first][normal]
    return {
        "mean": float(square.mean()),
        "missing": float(square[missing].mean()),
        "median": float(np.median(square.mean(1))),
    }


def best(square: np.ndarray, place: tuple[int, ...]) -> dict[str, Any]:
    """A value of the grid and where it is."""
    return {"value": float(square[place]), "rank": list(RANKS)[place[0]], "scale": SCALES[place[1]]}


def main(
    output: Path, objects: int = 8000, pixels: int = 1200, seed: int = 0, *, package: bool | None = None
) -> dict[str, Any]:
    """Everything that the pictures show; `package`: also robusta-hmf (default: where it is installed)."""
    rivals.check()
    output.mkdir(parents=True, exist_ok=True)
    half = halves(objects, pixels, seed)
    data, train, test = half.survey.data, half.train, half.test
    package = rivals.PACKAGE.exists() if package is None else package

    # %% The grid of the paper.
    start = time.perf_counter()
    with rp.Progress("select") as bar:
        grid = rp.select(data, RANKS, SCALES, key=seed, callback=bar)
    seconds = time.perf_counter() - start
    print(f"{grid}\nheld-out density chooses K = {grid.rank}, Q = {grid.scale} ({seconds:.0f} s for all)")

    pairs = []
    for one in grid.candidates:
        fit = grid.fit(one.rank, one.scale)
        pairs.append(f1_scores(rp.robust_weights(fit, test), half))
    per_pixel, per_object = (grid.table(values) for values in zip(*pairs, strict=True))

    # %% Only K: the noise law is learned. And from one generous fit.
    learned = rp.select(data, RANKS, key=seed)
    print(f"{learned}\nwith the noise learned: K = {learned.rank}")
    relevant = rp.relevance(data, GENEROUS, key=seed)
    print(f"of {GENEROUS} components of one fit {relevant.rank} are supported")

    # %% The fit that is kept: of the training half, with everything learned.
    fit = rp.fit(train, learned.rank, init=learned.fit())
    rp.save(fit, output / "fit.h5")
    rp.save(grid.fit(RANK, SCALE), output / "published.h5")
    scores = rp.surprise(fit, data)
    outlier = data.meta["kind"] == "outlier"
    normal, lined = data.meta["kind"] == "normal", data.meta["kind"] == "lines"
    surprise = {
        "F1 of outlier spectra, q < 0.05": f1(
            scores.object.q_value[outlier | normal] < 0.05, outlier[outlier | normal]
        ),
        "outlier spectra flagged": [int(scores.flagged[outlier].sum()), int(outlier.sum())],
        "spectra with foreign lines flagged": [int(scores.flagged[lined].sum()), int(lined.sum())],
        "normal spectra flagged": [int(scores.flagged[normal].sum()), int(normal.sum())],
    }

    report.write_report(fit, data, scores, output / "report.html", title="The toy survey")

    # %% Everybody's error on the clean test spectra.
    models = {
        "PCA": rivals.pca(train, test, RANK),
        "principal component pursuit": rivals.pursuit(train, test, RANK),
        "HMF": rivals.hmf(train, test, RANK),
        "HMF, sigma clipping": rivals.clipping(train, test, RANK),
        "ours, published loss": rp.reconstruct(grid.fit(RANK, SCALE), test),
        "ours": rp.reconstruct(fit, test),
    }
    timing: dict[str, Any] = {"grid": seconds}
    of_package: list[dict[str, Any]] = []
    if package:
        points = rivals.package(train, test, OF_PACKAGE)
        for point in points:
            pixel, spectrum = f1_scores(weights_of(point.model, test, point.scale), half)
            place = list(RANKS).index(point.rank), SCALES.index(point.scale)
            of_package.append(
                {
                    "rank": point.rank,
                    "scale": point.scale,
                    "seconds": point.seconds,
                    "finite": point.finite,
                    "F1 per pixel": pixel,
                    "F1 per object": spectrum,
                    "ours per pixel": float(per_pixel[place]),
                    "ours per object": float(per_object[place]),
                }
            )
            if (point.rank, point.scale) == (RANK, SCALE):
                models["robusta-hmf 0.0.2"] = point.model
        each = [point.seconds for point in points]
        timing |= {
            "package, five points": sum(each),
            "ratio": sum(each) * len(grid.candidates) / len(each) / seconds,
        }
    table = {name: errors(model, half) for name, model in models.items()}
    for name, row in sorted(table.items(), key=lambda item: item[1]["mean"]):
        print(f"{name:28} " + "  ".join(f"{key} {value:.3g}" for key, value in row.items()))

    # %% What one looks at: the spectrum with foreign lines of the best signal-to-noise.
    wanted = test.meta["kind"] == "lines"
    wanted = (
        wanted if wanted.any() else np.ones_like(wanted)
    )  # a tiny survey may have all of them in one half
    row = int(np.argmax(np.where(wanted, test.ivar.sum(1), 0.0)))
    np.savez(output / "models.npz", row=row, **{name: model[row] for name, model in models.items()})

    results = {
        "objects": objects,
        "pixels": pixels,
        "seed": seed,
        "chosen": {
            "rank": grid.rank,
            "scale": grid.scale,
            "learned": learned.rank,
            "supported": relevant.rank,
        },
        "columns": grid.columns(),
        "learned": learned.columns(),
        "F1 per pixel": per_pixel.tolist(),
        "F1 per object": per_object.tolist(),
        "best": {
            "F1 per pixel": best(per_pixel, np.unravel_index(per_pixel.argmax(), per_pixel.shape)),
            "F1 per object": best(per_object, np.unravel_index(per_object.argmax(), per_object.shape)),
        },
        "package": of_package,
        "timing": timing,
        "errors": table,
        "surprise": surprise,
        "angle": rp.simulate.largest_angle(fit.basis, half.survey.truth.basis),
    }
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({k: results[k] for k in ("chosen", "best", "package", "timing", "surprise")}, indent=1))
    return results


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "toy_run"))
