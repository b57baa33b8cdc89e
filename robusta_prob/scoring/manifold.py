"""Unusual, but on the manifold: how far an object's coefficients are from the population."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from robusta_prob.inference.results import Fit, Projection

UNINFORMED = 1e-2  # share of the population's variance that an estimate must keep to be judged


def mahalanobis(
    fit: Fit, projection: Projection
) -> tuple[Float[np.ndarray, " objects"], Int[np.ndarray, " objects"]]:
    """Squared distance of the coefficients from the population, in units of what they scatter by,
    and the number of directions that count.

    A posterior mean has shrunk: it scatters by C - V, a maximum-likelihood estimate by C + V. Directions
    that the data leave to the prior say nothing and do not count; nor does an object without a covariance,
    whose coefficients nothing determines.
    """
    values, vectors = np.linalg.eigh(fit.population.covariance / fit.unit**2)
    white = vectors / np.sqrt(np.maximum(values, 1e-12 * values.max()))
    offset = (projection.coefficients.astype(float) - fit.population.mean) / fit.unit @ white
    determined = np.isfinite(projection.covariance).all((1, 2))
    covariance = np.where(determined[:, None, None], projection.covariance.astype(float), 0.0)
    spread = white.T @ (covariance / fit.unit**2) @ white
    scatter = np.eye(fit.rank) + (spread if fit.flat_prior else -spread)
    known, axes = np.linalg.eigh(scatter)
    turned = np.einsum("nk,nkl->nl", offset, axes)
    informed = determined[:, None] & (known > UNINFORMED)
    distance = np.where(informed, turned**2 / np.where(informed, known, 1.0), 0.0).sum(1)
    return np.where(informed.any(1), distance, np.nan), informed.sum(1)


class Yielded(NamedTuple):
    """Objects farther from the population than most, where it holds them less."""

    rows: Int[np.ndarray, " far"]
    shift: Float[np.ndarray, "far rank"]  # of their coefficients
    covariance: Float[np.ndarray, "far rank rank"]


def yielded(fit: Fit, projection: Projection) -> Yielded:
    """Coefficients of far objects under a population whose precision falls like the squared distance.

    Where its data are noisy a Normal law draws what is rare towards what is usual, and what is left may look
    like a line. Beyond a distance r, which half of a Normal population has, the precision is (r / d)^2 times
    the Normal law's, like that of a law with a tail: one step of Newton's, with the robust weights as they
    are.
    """
    distance, directions = mahalanobis(fit, projection)
    half = special.chdtri(np.maximum(directions, 1), 0.5)
    rows = np.flatnonzero(distance > (np.inf if fit.flat_prior else half))
    precision, lost = np.linalg.inv(fit.population.covariance), 1.0 - (half / distance)[rows]
    V = projection.covariance[rows].astype(float)
    V = np.linalg.solve(np.eye(fit.rank) - lost[:, None, None] * (V @ precision), V)
    outward = (projection.coefficients[rows] - fit.population.mean) @ precision
    return Yielded(rows, np.einsum("nkl,nl->nk", V, lost[:, None] * outward), V)
