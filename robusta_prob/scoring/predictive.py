"""Residuals in units of their predictive standard deviation, per block of objects.

    var_ij = v_ij (1 - I_ij g_j.Cov(a_i).g_j - I_ij a_i.Cov(g_j).a_i)       objects of the training set
    var_ij = v_ij (1 - I_ij g_j.Cov(a_i).g_j) + a_i.Cov(g_j).a_i            others

with v = s^2 (sigma^2 + f^2) and the Fisher information I = (nu+1)/(nu+3) / v of the cell. Coefficients are
always fitted to these very cells, the basis only for the training set: what was fitted takes away from
the residual, what was not adds to it. For Gaussian noise these are the textbook leverages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from robusta_prob.data import Dataset
from robusta_prob.inference import em
from robusta_prob.inference.linalg import pairs
from robusta_prob.inference.problem import precision
from robusta_prob.inference.projection import internal_law
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.models.noise import NoiseLaw, log_kernel, log_normaliser, robust_weight

SMALLEST_SHARE = 0.1  # of the noise variance that must be left: leverages hold to first order only


class Cells(NamedTuple):
    """A block of objects, cell by cell."""

    z: Float[Array, "rows pixels"]  # 0 where unseen
    seen: Bool[Array, "rows pixels"]
    weight: Float[Array, "rows pixels"]  # the published robust weight, under the fitted loss
    sd: Float[Array, "rows pixels"]  # predictive standard deviation in units of `Fit.unit`


class _Known(NamedTuple):
    """The fit as arrays for the kernel, in units of `Fit.unit`."""

    G: Float[Array, "rank pixels"]
    GG: Float[Array, "pairs pixels"]
    BB: Float[Array, "pairs pixels"]  # Cov(g_j), packed
    noise: NoiseLaw
    loss: NoiseLaw
    trained: Bool[Array, " pixels"]


def cells(
    fit: Fit, data: Dataset, projection: Projection, trained: Bool[np.ndarray, " objects"]
) -> Iterator[tuple[slice, Cells]]:
    """Yield (slice of objects, `Cells`) over the data; rows beyond the slice are padding, unseen."""
    first, second = pairs(fit.rank)
    twice = np.where(first == second, 1.0, 2.0).astype(fit.dtype)
    known = _Known(
        jnp.asarray(fit.basis),
        jnp.asarray(fit.basis[first] * fit.basis[second]),
        jnp.asarray(np.moveaxis(fit.basis_covariance, 0, -1)[first, second]),
        internal_law(fit, fit.noise),
        internal_law(fit, fit.loss),
        jnp.asarray(fit.trained),
    )
    start = 0
    for block in em.blocks_of(data, fit.unit, dtype=fit.dtype):
        here = slice(start, start + block.rows)
        start = here.stop
        pad = ((0, len(block.flux) - block.rows), (0, 0))
        A = np.pad((projection.coefficients[here] / fit.unit).astype(fit.dtype), pad)
        V = projection.covariance[here][:, first, second] / fit.unit**2
        V = np.pad((V * twice).astype(fit.dtype), pad)
        member = np.pad(trained[here, None], pad)
        outer = A[:, first] * A[:, second] * twice
        with precision(fit.dtype):
            yield here, _cells(block.flux, block.ivar, A, V, outer, member, known)


@jax.jit
def _cells(Y: Array, W: Array, A: Array, V: Array, outer: Array, trained: Array, known: _Known) -> Cells:
    seen = (W > 0) & known.trained
    given = 1.0 / jnp.where(seen, W, 1.0)
    noise = known.noise.scale**2 * (given + known.noise.floor**2)
    eta = known.noise.inverse_df
    information = (1.0 + eta) / (1.0 + 3.0 * eta) / noise
    of_basis = outer @ known.BB
    fitted = information * (V @ known.GG + jnp.where(trained, of_basis, 0.0))
    variance = noise * jnp.maximum(1.0 - fitted, SMALLEST_SHARE) + jnp.where(trained, 0.0, of_basis)
    sd = jnp.sqrt(variance)
    residual = jnp.where(seen, Y - A @ known.G, 0.0)
    loss = residual**2 / (known.loss.scale**2 * (given + known.loss.floor**2))
    return Cells(residual / sd, seen, robust_weight(loss, known.loss), sd)


class Sums(NamedTuple):
    """Per object, over its observed pixels."""

    observed: Float[Array, " rows"]
    surprise: Float[Array, " rows"]  # sum of the bounded surprise [nats]
    median_weight: Float[Array, " rows"]
    low_weight: Float[Array, " rows"]  # 1 % quantile, the published score
    scale: Float[Array, " rows"]  # robust scale of z: median |z| over that of a normal


@jax.jit
def object_sums(
    block: Cells,
    inverse_df: Float[Array, ""] | float,
    scale: Float[Array, ""] | float,
    contamination: Float[Array, ""] | float,
    cap: Float[Array, ""] | float,
) -> Sums:
    """Sums and quantiles of a block under the null law."""
    core = log_normaliser(inverse_df) - jnp.log(scale) + log_kernel((block.z / scale) ** 2, inverse_df)
    bounded = -jnp.logaddexp(jnp.log1p(-contamination) + core, -cap)
    weight = jnp.sort(jnp.where(block.seen, block.weight, jnp.inf), axis=1)
    size = jnp.sort(jnp.where(block.seen, jnp.abs(block.z), jnp.inf), axis=1)
    count = block.seen.sum(1)
    return Sums(
        count.astype(core.dtype),
        jnp.where(block.seen, bounded, 0.0).sum(1),
        _quantile(weight, count, 0.5),
        _quantile(weight, count, 0.01),
        _quantile(size, count, 0.5) / 0.67449,
    )


def _quantile(ordered: Array, count: Array, q: float) -> Float[Array, " rows"]:
    """Linear quantile of the first `count` entries of every row; NaN where there are none."""
    place = q * jnp.maximum(count - 1, 0)
    low = jnp.floor(place).astype(int)
    high = jnp.minimum(low + 1, jnp.maximum(count - 1, 0))
    a, b = (jnp.take_along_axis(ordered, i[:, None], 1)[:, 0] for i in (low, high))
    return jnp.where(count > 0, a + (place - low) * (b - a), jnp.nan)
