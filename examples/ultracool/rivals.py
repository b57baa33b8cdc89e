"""Who learns a basis: all get the same rows, and all that do not learn it the same floor of the errors."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import robusta_prob as rp
from examples.ultracool.config import CLIPPED, HMF, OURS, OURS_FLOOR, PACKAGE, PCA, Fits

PYTHON = Path(__file__).parents[2] / ".venv-robusta-hmf" / "bin" / "python"  # of `make ultracool`
GAUSSIAN = {"noise": rp.Noise(math.inf, 1.0, 0.0), "prior": rp.Prior.flat()}
PATIENCE = 100  # epochs of a Gaussian fit
ROUNDS = 5  # of sigma clipping at most
IMPUTATIONS = 20  # of the missing cells of PCA at most


def package_python() -> Path | None:
    """The interpreter that has robusta-hmf, if there is one."""
    path = Path(os.environ.get("ROBUSTA_HMF_PYTHON", PYTHON))
    return path if path.exists() else None


def available(methods: Sequence[str]) -> tuple[str, ...]:
    """Those that can run here: robusta-hmf lives in an environment of its own."""
    return tuple(name for name in methods if name != PACKAGE or package_python() is not None)


def floored(data: rp.Dataset, floor: float) -> rp.Dataset:
    """The same flux with an error floor added in quadrature."""
    ivar = np.asarray(data.ivar, float) / data.unit**2
    return rp.dataset(
        np.asarray(data.flux) * data.unit,
        ivar / (1.0 + ivar * floor**2),
        grid=data.grid,
        ids=data.ids,
        unit=data.unit,
    )


def learn(method: str, data: rp.Dataset, rank: int, settings: Fits) -> np.ndarray:
    """A basis (K, M) with orthonormal rows."""
    return orthonormal(_LEARN[method](data, rank, settings))


def orthonormal(basis: np.ndarray) -> np.ndarray:
    """The same span; NaN where a basis is not finite."""
    if not np.isfinite(basis).all():
        return np.full_like(basis, np.nan)
    return np.linalg.svd(np.asarray(basis, float), full_matrices=False)[2]


def pca(data: rp.Dataset, rank: int, settings: Fits) -> np.ndarray:
    """The mean and K - 1 principal components; missing cells are imputed from them until they rest."""
    flux, seen = np.asarray(data.flux, float), data.observed
    count = np.maximum(seen.sum(0), 1)
    full = np.where(seen, flux, (flux * seen).sum(0) / count)
    for _ in range(IMPUTATIONS):
        mean = full.mean(0)
        centred = full - mean
        components = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, : rank - 1].T
        imputed = np.where(seen, flux, mean + centred @ components.T @ components)
        moved, full = np.abs(imputed - full).max(), imputed
        if moved < 1e-4:
            break
    return np.vstack([mean, components])


def hmf(data: rp.Dataset, rank: int, settings: Fits) -> np.ndarray:
    """The Gaussian model (Tsalmantza & Hogg 2012)."""
    return _gaussian(floored(data, settings.floor), rank).basis


def _gaussian(data: rp.Dataset, rank: int) -> rp.Fit:
    return rp.fit(data, rank, schedule=rp.anneal.constant(), max_epochs=PATIENCE, starts=2, **GAUSSIAN)


def clipped(data: rp.Dataset, rank: int, settings: Fits) -> np.ndarray:
    """The same, without cells beyond so many sigma, until none comes or goes."""
    data = floored(data, settings.floor)
    kept, fit = data.observed, None
    for _ in range(ROUNDS):
        part = data.hide(~kept)
        fit = (
            _gaussian(part, rank)
            if fit is None
            else rp.fit(part, rank, max_epochs=PATIENCE, init=fit, **GAUSSIAN)
        )
        z2 = np.asarray(data.ivar) * (data.flux - rp.reconstruct(fit) / data.unit) ** 2
        now = data.observed & (z2 < settings.clip**2)
        # an object or a pixel that had too few cells left could never come back
        now |= data.observed & (~(now.sum(1, keepdims=True) > rank) | ~(now.sum(0) > rank))
        if (now == kept).all():
            break
        kept = now
    assert fit is not None
    return fit.basis


def ours(data: rp.Dataset, rank: int, settings: Fits) -> np.ndarray:
    """Everything learned: tail, scale, floor, bad cells, population."""
    return rp.fit(data, rank).basis


def ours_with_floor(data: rp.Dataset, rank: int, settings: Fits) -> np.ndarray:
    """The others' floor, given; the tail and the bad cells are learned."""
    return rp.fit(data, rank, noise=fixed(settings)).basis


def fixed(settings: Fits) -> rp.Noise:
    """The noise law with the others' error floor."""
    return rp.Noise(scale=1.0, floor=settings.floor)


def package(data: rp.Dataset, rank: int, settings: Fits) -> np.ndarray:
    """robusta-hmf 0.0.2, in a process of its own.

    Raises
    ------
    FileNotFoundError
        If its environment is not there.
    """
    python = package_python()
    if python is None:
        raise FileNotFoundError(
            f"robusta-hmf is not installed in {PYTHON.parents[1]}: make ultracool does it"
        )
    data = floored(data, settings.floor)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flux, ivar = np.asarray(data.flux, float) * data.unit, np.asarray(data.ivar, float) / data.unit**2
        np.savez(folder / "data.npz", flux=flux, ivar=ivar)
        wanted = json.dumps([rank, settings.robustness, settings.package_steps])
        worker = Path(__file__).with_name("package_worker.py")
        subprocess.run([str(python), str(worker), name, wanted], check=True, stdout=subprocess.DEVNULL)
        return np.load(folder / "basis.npy")


def without_package(settings: Fits) -> Fits:
    """The settings with those methods only that can run here."""
    return replace(settings, methods=available(settings.methods))


_LEARN = {PCA: pca, HMF: hmf, CLIPPED: clipped, PACKAGE: package, OURS: ours, OURS_FLOOR: ours_with_floor}
