"""One procedure for every basis: coefficients of held-out spectra under a common law, and what they predict.

    y_j ~ law(a . g_j, S_j),     S_j^2 = sigma_j^2 + f^2,

with the coefficients of maximum likelihood from the shown cells, no prior, and the hidden cells judged by the
law about a . g_j, its variance widened by g_j . Cov(a) g_j.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import special

import robusta_prob as rp
from examples.ultracool.config import Judging
from robusta_prob.selection.segments import segments

STEPS, SETTLED = 50, 1e-4  # of reweighting; largest change of a weight
RIDGE = 1e-9  # of the information matrix, relative to its trace


class Law(NamedTuple):
    """A noise law with unit scale."""

    name: str
    nu: float  # degrees of freedom; inf is Gaussian
    floor: float


class Cells(NamedTuple):
    """Held-out spectra: what is shown, and what is judged."""

    flux: np.ndarray
    ivar: np.ndarray
    shown: np.ndarray
    hidden: np.ndarray
    classes: np.ndarray  # letter of the spectral type


class Judgement(NamedTuple):
    """Of one basis, over the objects."""

    density: float  # mean log predictive density of the hidden cells [nats per cell]
    median_density: float  # of the median object
    rms_z: float  # median over objects of the rms of residual / S over the hidden cells
    rms_z_fitted: float  # the same over all cells, all of them fitted
    by_class: dict[str, float]  # mean density of M, L and T dwarfs


class Told(NamedTuple):
    """Of one basis, object by object."""

    density: np.ndarray  # (N,) sum of log predictive densities of the hidden cells [nats], and
    count: np.ndarray  # (N,) how many there are
    rms_z: np.ndarray  # (N,) of residual / S over the hidden cells; NaN where there is none


def laws(settings: Judging) -> tuple[Law, Law]:
    """The common law of the tables, and the one that checks it."""
    return (
        Law("Student's t", settings.nu, settings.floor),
        Law("Gaussian", math.inf, settings.gaussian_floor),
    )


def cells_of(data: rp.Dataset, settings: Judging, seed: int) -> Cells:
    """Four segments of every object are hidden, the same ones whoever is judged."""
    n, m = data.shape
    parts = segments(n, m, settings.share, settings.guard, seed)
    judged, unseen = parts.cells(slice(0, n))
    flux, ivar = np.asarray(data.flux, float) * data.unit, np.asarray(data.ivar, float) / data.unit**2
    classes = np.array([str(one)[:1] for one in data.meta["spex_type"]])
    return Cells(flux, ivar, (ivar > 0) & ~unseen, (ivar > 0) & judged, classes)


def variance(ivar: np.ndarray, law: Law) -> np.ndarray:
    """S^2; infinite where there is no measurement."""
    with np.errstate(divide="ignore"):
        return np.where(ivar > 0, 1.0 / ivar + law.floor**2, np.inf)


def project(
    basis: np.ndarray, flux: np.ndarray, ivar: np.ndarray, seen: np.ndarray, law: Law
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (N, K) of maximum likelihood, and their covariances by expected information."""
    W = np.where(seen, 1.0 / variance(ivar, law), 0.0)
    products = (basis[:, None] * basis[None]).reshape(len(basis) ** 2, -1).T

    def information(weights: np.ndarray) -> np.ndarray:
        A = (weights @ products).reshape(-1, len(basis), len(basis))
        return A + RIDGE * np.trace(A, axis1=1, axis2=2)[:, None, None] * np.eye(len(basis))

    def solved(weights: np.ndarray) -> np.ndarray:
        return np.linalg.solve(information(weights), ((weights * flux) @ basis.T)[..., None])[..., 0]

    A, share = solved(W), np.ones_like(W)
    if math.isfinite(law.nu):
        for _ in range(STEPS):
            before = share
            share = (law.nu + 1.0) / (law.nu + W * (flux - A @ basis) ** 2)
            A = solved(W * share)
            if np.abs(share - before).max() < SETTLED:
                break
    expected = 1.0 if math.isinf(law.nu) else (law.nu + 1.0) / (law.nu + 3.0)
    return A, np.linalg.inv(expected * information(W))


def log_density(residual: np.ndarray, variance: np.ndarray, nu: float) -> np.ndarray:
    """Of a Gaussian, or of Student's t of this scale."""
    z2 = residual**2 / variance
    if math.isinf(nu):
        return -0.5 * (z2 + np.log(2.0 * math.pi * variance))
    constant = special.gammaln((nu + 1.0) / 2.0) - special.gammaln(nu / 2.0)
    return constant - 0.5 * np.log(nu * math.pi * variance) - 0.5 * (nu + 1.0) * np.log1p(z2 / nu)


def object_by_object(basis: np.ndarray, cells: Cells, law: Law) -> Told:
    """What a finite basis says of the hidden cells of each object."""
    A, covariance = project(basis, cells.flux, cells.ivar, cells.shown, law)
    scale2 = np.where(cells.hidden, variance(cells.ivar, law), 1.0)
    spread = np.einsum("km,nkl,lm->nm", basis, covariance, basis, optimize=True)
    residual = cells.flux - A @ basis
    density = np.where(cells.hidden, log_density(residual, scale2 + spread, law.nu), 0.0).sum(1)
    count = cells.hidden.sum(1)
    with np.errstate(invalid="ignore"):
        rms_z = np.sqrt((cells.hidden * residual**2 / scale2).sum(1) / count)
    return Told(density, count, rms_z)


def judge(basis: np.ndarray, cells: Cells, law: Law) -> Judgement:
    """The same of all together; NaN of a basis that is not finite."""
    if not np.isfinite(basis).all():
        return Judgement(*[math.nan] * 4, {})
    density, count, rms_z = object_by_object(basis, cells, law)
    some, seen = count > 0, cells.ivar > 0
    by_class = {
        str(letter): float(density[here].sum() / count[here].sum())
        for letter in np.unique(cells.classes)
        if (here := (cells.classes == letter) & some).any()
    }
    whole, _ = project(basis, cells.flux, cells.ivar, seen, law)
    fitted = (cells.flux - whole @ basis) ** 2 / np.where(seen, variance(cells.ivar, law), np.inf)
    return Judgement(
        density=float(density.sum() / count.sum()),
        median_density=float(np.median(density[some] / count[some])),
        rms_z=float(np.median(rms_z[some])),
        rms_z_fitted=float(np.median(np.sqrt(fitted.sum(1) / np.maximum(seen.sum(1), 1)))),
        by_class=by_class,
    )


class Agreement(NamedTuple):
    """Of the bases of two halves of the same survey."""

    shared: float  # mean squared cosine of the angles between the subspaces; 1 is the same subspace
    alike: int  # directions with a squared cosine above 0.9
    flux: (
        float  # rms difference of their descriptions of the same spectra, of the median object [median flux]
    )


def agreement(first: np.ndarray, second: np.ndarray, data: rp.Dataset, law: Law) -> Agreement:
    """How much of a basis comes back from other sources."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return Agreement(math.nan, 0, math.nan)
    cosines = np.linalg.svd(first @ second.T, compute_uv=False) ** 2
    flux, ivar = np.asarray(data.flux, float) * data.unit, np.asarray(data.ivar, float) / data.unit**2
    a, b = (project(basis, flux, ivar, ivar > 0, law)[0] @ basis for basis in (first, second))
    difference = np.sqrt(((a - b) ** 2).mean(1))
    return Agreement(float(cosines.mean()), int((cosines > 0.9).sum()), float(np.median(difference)))
