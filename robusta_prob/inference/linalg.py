"""Many small symmetric systems at once: one per object, and one per pixel, K x K each.

Systems lie along the LAST axis, so that every step is one vectorised pass over all of them; this beats
a batched Cholesky by an order of magnitude on a CPU. Symmetric matrices are packed as their P = K(K+1)/2
pairs (i <= j).
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

ALONE = 250_000  # multiplications that OpenBLAS does not share out
LIFT = 100.0  # roundings by which a unit diagonal is lifted: above what the Grams themselves lose

AnyArray = TypeVar("AnyArray", Array, np.ndarray)


def pairs(rank: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Row and column index of each packed entry."""
    first, second = np.triu_indices(rank)
    return first, second


def pair_count(rank: int) -> int:
    """P = K(K+1)/2."""
    return rank * (rank + 1) // 2


def _places(rank: int) -> Int[np.ndarray, "rank rank"]:
    first, second = pairs(rank)
    places = np.zeros((rank, rank), int)
    places[first, second] = places[second, first] = np.arange(len(first))
    return places


def unpack(packed: Float[AnyArray, "pairs *systems"], rank: int) -> Float[AnyArray, "rank rank *systems"]:
    """Full symmetric matrices from packed ones."""
    return packed[_places(rank)]


def pack(full: Float[AnyArray, "rank rank *systems"]) -> Float[AnyArray, "pairs *systems"]:
    """Packed upper triangles of symmetric matrices."""
    first, second = pairs(full.shape[0])
    return full[first, second]


def congruence(T: Float[AnyArray, "rank rank"]) -> Float[AnyArray, "pairs pairs"]:
    """The matrix that takes packed V to packed T V T^T."""
    first, second = pairs(len(T))
    mixed = np.where(first == second, 0.0, 1.0).astype(T.dtype)
    return T[first][:, first] * T[second][:, second] + mixed * T[second][:, first] * T[first][:, second]


def product(
    left: Float[np.ndarray, "rows inner"], right: Float[np.ndarray, "inner columns"]
) -> Float[np.ndarray, "rows columns"]:
    """left @ right on the host, in pieces that BLAS does alone.

    Having done a larger product together, its threads wait for the next one as busily as they work, on cores
    that a sweep could use.
    """
    if len(left) < right.shape[1]:
        return product(right.T, left.T).T
    if right.size > ALONE:  # there is no row alone that is small enough
        return left @ right
    step = max(1, ALONE // max(right.size, 1))
    return np.concatenate([left[i : i + step] @ right for i in range(0, len(left), step)])


def congruent(
    T: Float[np.ndarray, "rank rank"], packed: Float[np.ndarray, "pairs systems"]
) -> Float[np.ndarray, "pairs systems"]:
    """Packed T V T^T of packed systems V, on the host."""
    return product(congruence(T), packed)


@jax.jit
def invert(
    full: Float[Array, "rank rank systems"],
) -> tuple[Float[Array, "rank rank systems"], Float[Array, " systems"]]:
    """Inverse and log determinant of positive semi-definite systems.

    Scaled to a unit diagonal, lifted by `LIFT` roundings so that a singular system has a large but finite
    inverse, then swept out pivot by pivot (Goodnight 1979). An all-zero system has inverse one.
    """
    rank = full.shape[0]
    diagonal = jnp.diagonal(full).T
    scale = jnp.where(diagonal > 0, 1.0 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0)), 1.0)
    lift = LIFT * jnp.finfo(full.dtype).eps
    X = full * scale[:, None] * scale[None, :]
    X = X.at[np.arange(rank), np.arange(rank)].set(1.0 + lift)
    log_det = -2.0 * jnp.log(scale).sum(0)
    for k in range(rank):
        pivot = jnp.maximum(X[k, k], lift)
        log_det = log_det + jnp.log(pivot)
        row = X[k] / pivot
        X = X - X[:, k, None] * row[None]
        X = X.at[:, k].set(-row).at[k].set(-row).at[k, k].set(-1.0 / pivot)
    return -X * scale[:, None] * scale[None, :], log_det


def solve(
    full: Float[Array, "rank rank systems"], rhs: Float[Array, "rank systems"]
) -> tuple[Float[Array, "rank systems"], Float[Array, "rank rank systems"], Float[Array, " systems"]]:
    """Increments that never make the residual of a system larger, its inverse, and its log determinant.

    Where roundings spoil the inverse of a (nearly) singular system, the increment is a Jacobi step, which
    contracts for every positive semi-definite system with at most K on its scaled spectrum.
    """
    inverse, log_det = invert(full)
    x = (inverse * rhs[None]).sum(1)
    diagonal = jnp.diagonal(full).T
    weight = jnp.where(diagonal > 0, 1.0 / jnp.where(diagonal > 0, diagonal, 1.0), 0.0)
    left = rhs - (full * x[None]).sum(1)
    spoilt = ~((weight * left**2).sum(0) <= 0.25 * (weight * rhs**2).sum(0))
    return jnp.where(spoilt, weight * rhs / full.shape[0], x), inverse, log_det


def informed(
    covariance: Float[AnyArray, "systems pairs"],
    prior: Float[AnyArray, "rank rank"],
    information: Any,
    xp: Any = np,
) -> Float[AnyArray, "systems rank rank"]:
    """Packed V = (Gram + prior)^-1 as (information Gram + prior)^-1, by NumPy or `jax.numpy`.

    That is (information + (1 - information) V prior)^-1 V: between V and V / information, and neither V nor
    the prior need have an inverse that is known to all digits.
    """
    V = xp.moveaxis(unpack(covariance.T, len(prior)), -1, 0)
    one = xp.eye(len(prior), dtype=V.dtype)
    X = xp.linalg.solve(information * one + (1.0 - information) * (V @ prior), V)
    return 0.5 * (X + xp.swapaxes(X, 1, 2))


def invert_on_host(
    full: Float[np.ndarray, "rank rank systems"], eps: float
) -> tuple[Float[np.ndarray, "rank rank systems"], Float[np.ndarray, " systems"]]:
    """`invert` in float64, for what is done once a pass; the systems were summed with roundings of `eps`."""
    rank, lift = len(full), LIFT * eps
    diagonal = np.einsum("kks->ks", full)
    scale = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 1.0)
    X = full * scale[:, None] * scale[None, :]
    X[np.arange(rank), np.arange(rank)] = 1.0 + lift
    log_det = -2.0 * np.log(scale).sum(0)
    for k in range(rank):
        pivot = np.maximum(X[k, k], lift)
        log_det += np.log(pivot)
        row = X[k] / pivot
        X -= X[:, k, None] * row[None]
        X[:, k] = X[k] = -row
        X[k, k] = -1.0 / pivot
    return -X * scale[:, None] * scale[None, :], log_det


def solve_on_host(
    full: Float[np.ndarray, "rank rank systems"], rhs: Float[np.ndarray, "rank systems"], eps: float
) -> tuple[Float[np.ndarray, "rank systems"], Float[np.ndarray, "rank rank systems"]]:
    """`solve` in float64: the increments, and the inverse."""
    inverse, _ = invert_on_host(full, eps)
    x = np.einsum("kls,ls->ks", inverse, rhs)
    diagonal = np.einsum("kks->ks", full)
    weight = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    left = rhs - np.einsum("kls,ls->ks", full, x)
    spoilt = ~((weight * left**2).sum(0) <= 0.25 * (weight * rhs**2).sum(0))
    return np.where(spoilt, weight * rhs / len(full), x), inverse
