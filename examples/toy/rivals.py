"""What else one would try: each learns a basis from the training half, and describes the other spectra.

All get the same data; those that know no errors or holes get zeros in the holes, as in the paper.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import robusta_prob as rp

GAUSSIAN = {"noise": rp.Noise(math.inf, 1.0, 0.0), "prior": rp.Prior.flat()}
PATIENCE = 40  # epochs: a Gaussian model that outliers pull about comes to no rest
CLIP, ROUNDS = 5.0, 5  # sigma; rounds at most
PACKAGE = Path(__file__).parents[2] / ".venv-robusta-hmf" / "bin" / "python"  # of `make toy`


def check() -> None:
    """Raise now what would be raised after minutes.

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn or pyrpca is missing.
    """
    missing = [name for name in ("sklearn", "pyrpca") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{' and '.join(missing)} to compare with: pip install '.[bench]', or make toy"
        )


def pca(train: rp.Dataset, test: rp.Dataset, rank: int) -> np.ndarray:
    """scikit-learn's."""
    from sklearn.decomposition import PCA

    model = PCA(rank, random_state=0).fit(train.flux * train.unit)
    return model.inverse_transform(model.transform(test.flux * test.unit))


def pursuit(train: rp.Dataset, test: rp.Dataset, rank: int) -> np.ndarray:
    """Principal component pursuit (Candes et al. 2011) of the test half itself, cut to the rank."""
    from pyrpca import rpca_pcp_ialm

    flux = np.asarray(test.flux * test.unit, float)
    low_rank, _ = rpca_pcp_ialm(flux, 1.0 / math.sqrt(max(flux.shape)), tol=1e-5, verbose=False)
    left, size, right = np.linalg.svd(low_rank, full_matrices=False)
    return (left[:, :rank] * size[:rank]) @ right[:rank]


def hmf(train: rp.Dataset, test: rp.Dataset, rank: int) -> np.ndarray:
    """The Gaussian model with the errors as given (Tsalmantza & Hogg 2012)."""
    return rp.reconstruct(gaussian(train, rank), test)


def gaussian(data: rp.Dataset, rank: int) -> rp.Fit:
    """Its fit."""
    return rp.fit(data, rank, schedule=rp.anneal.constant(), max_epochs=PATIENCE, **GAUSSIAN)


def clipping(train: rp.Dataset, test: rp.Dataset, rank: int) -> np.ndarray:
    """The same with iterated sigma clipping, of the training half and of what is projected."""
    fit, kept = clipped(train, rank), test.observed
    for _ in range(ROUNDS):
        model = rp.reconstruct(fit, test.hide(~kept))
        now = within(test, model, rank)
        if (now == kept).all():
            break
        kept = now
    return rp.reconstruct(fit, test.hide(~kept))


def clipped(data: rp.Dataset, rank: int) -> rp.Fit:
    """Fit the Gaussian model, drop cells beyond `CLIP` sigma, and again until no cell comes or goes."""
    kept, fit = data.observed, None
    for _ in range(ROUNDS):
        fit = rp.fit(data.hide(~kept), rank, max_epochs=PATIENCE, init=fit, **GAUSSIAN)
        now = within(data, rp.reconstruct(fit), rank)
        if (now == kept).all():
            break
        kept = now
    assert fit is not None
    return fit


def within(data: rp.Dataset, model: np.ndarray, rank: int) -> np.ndarray:
    """Cells that are kept: an object or pixel that had too few of them could never come back."""
    z2 = data.ivar / data.unit**2 * (data.flux * data.unit - model) ** 2
    now = data.observed & (z2 < CLIP**2)
    return now | data.observed & ~(now.sum(1, keepdims=True) > rank) | data.observed & ~(now.sum(0) > rank)


class Point(NamedTuple):
    """A fit of robusta-hmf 0.0.2: what it says of the test half, and how long it took."""

    rank: int
    scale: float
    model: np.ndarray  # (N, M) of the test half
    seconds: float  # fit, compilation and inference of the test half
    finite: bool


def package(train: rp.Dataset, test: rp.Dataset, points: Sequence[tuple[int, float]]) -> list[Point]:
    """The published package at some points of the grid, one after the other in one process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder, halves = Path(name), {"train": train, "test": test}
        arrays = {f"{half}_flux": np.asarray(x.flux, float) * x.unit for half, x in halves.items()}
        arrays |= {f"{half}_ivar": np.asarray(x.ivar, float) / x.unit**2 for half, x in halves.items()}
        np.savez(folder / "data.npz", **arrays)
        command = [str(PACKAGE), str(Path(__file__).with_name("package_worker.py")), name, json.dumps(points)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = []
        for i, (rank, scale) in enumerate(points):
            with np.load(folder / f"{i}.npz") as result:
                A, G, seconds = result["coefficients"], result["basis"], float(result["seconds"])
            finite = bool(np.isfinite(A).all() and np.isfinite(G).all())
            found.append(Point(rank, scale, A @ G, seconds, finite))
    return found
