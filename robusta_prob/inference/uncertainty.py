"""What a fit does not know: standard deviations of the model's flux, and draws of basis and coefficients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Shaped

from robusta_prob.data import Dataset
from robusta_prob.inference.blocks import BATCH_ROWS
from robusta_prob.inference.checks import check_types, seed_of
from robusta_prob.inference.linalg import pairs
from robusta_prob.inference.projection import collect, project
from robusta_prob.inference.results import Fit, Projection

Rows = Shaped[np.ndarray, " some"] | slice | None


class Draw(NamedTuple):
    """One draw of everything that A G consists of."""

    coefficients: Float[np.ndarray, "objects rank"]  # in the user's flux unit
    basis: Float[np.ndarray, "rank pixels"]  # its rows are orthonormal up to the scatter of the draws


def reconstruct_sd(
    fit: Fit, objects: Projection | Dataset | None = None, *, rows: Rows = None, out: Any = None
) -> Any:
    """Standard deviation of the model A G in the user's flux unit, (N, M); arguments as in `rp.reconstruct`.

    `var = g_j.Cov(a_i).g_j + a_i.Cov(g_j).a_i`, coefficients and basis being independent to first order. NaN
    at pixels that were never observed in training, and for objects whose covariance is.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> fit = rp.fit(rp.simulate.low_rank(100, 40, 2).data, rank=2)
    >>> rp.reconstruct_sd(fit).shape
    (100, 40)
    """
    if isinstance(objects, Dataset):
        objects = project(fit, objects)
    source = fit if objects is None else objects
    A, spread = source.coefficients, _spread(source)
    A, spread = (A, spread) if rows is None else (A[rows], spread[rows])
    first, second = pairs(fit.rank)
    twice = np.where(first == second, 1.0, 2.0)
    basis = np.where(fit.trained, fit.basis, np.nan).astype(float)
    of_coefficients = basis[first] * basis[second]
    of_basis = np.moveaxis(fit.basis_covariance, 0, -1)[first, second].astype(float)

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(A), BATCH_ROWS):
            here = slice(start, start + BATCH_ROWS)
            outer = A[here].astype(float)[:, first] * A[here][:, second] * twice
            V = spread[here][:, first, second].astype(float) * twice
            yield here, np.sqrt(np.maximum(V @ of_coefficients + outer @ of_basis, 0.0))

    return collect(blocks(), (len(A), fit.basis.shape[1]), A.dtype, out)


def posterior_draws(
    fit: Fit,
    number: int,
    *,
    key: Array | int = 0,
    objects: Projection | Dataset | None = None,
    rows: Rows = None,
) -> Iterator[Draw]:
    """Draw coefficients and basis from their Gaussian posteriors, one draw at a time: memory does not grow.

    NaN at pixels that were never observed in training, as in `rp.reconstruct`.

    Parameters
    ----------
    fit : Fit
    number : int
        Of draws.
    key : JAX key or int
        The same key gives the same draws.
    objects, rows
        Whose coefficients, as in `rp.reconstruct`.

    Raises
    ------
    ValueError, TypeError
        If `number` is negative or no integer, or `key` is no key.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> fit = rp.fit(rp.simulate.low_rank(100, 40, 2).data, rank=2)
    >>> [draw.coefficients @ draw.basis for draw in rp.posterior_draws(fit, 2)][1].shape
    (100, 40)
    """
    check_types(None, None, None, key, number=number)
    if number < 0:
        raise ValueError(f"number of draws must be at least 0, got {number}")
    if isinstance(objects, Dataset):
        objects = project(fit, objects)
    source = fit if objects is None else objects
    A, spread = source.coefficients, _spread(source)
    A, spread = (A, spread) if rows is None else (A[rows], spread[rows])
    roots = [_root(x.astype(float)) for x in (spread, fit.basis_covariance)]
    rng = np.random.default_rng(seed_of(key))
    basis = np.where(fit.trained, fit.basis, np.nan)

    def draws() -> Iterator[Draw]:
        for _ in range(number):
            offsets = [np.einsum("nij,nj->ni", root, rng.standard_normal(root.shape[:2])) for root in roots]
            yield Draw((A + offsets[0]).astype(A.dtype), (basis + offsets[1].T).astype(fit.dtype))

    return draws()


def _spread(source: Fit | Projection) -> Float[np.ndarray, "objects rank rank"]:
    return source.coefficient_covariance if isinstance(source, Fit) else source.covariance


def _root(V: Float[np.ndarray, "systems rank rank"]) -> Float[np.ndarray, "systems rank rank"]:
    """A root of positive semi-definite matrices; NaN where they are."""
    known = np.isfinite(V).all((1, 2))
    values, vectors = np.linalg.eigh(np.where(known[:, None, None], V, 0.0))
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return np.where(known[:, None, None], root, np.nan)
