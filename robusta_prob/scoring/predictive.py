"""Residuals in units of their predictive standard deviation, per block of objects.

    var_ij = v_ij (1 - I_ij g_j.Cov(a_i).g_j - I_ij a_i.Cov(g_j).a_i)       objects of the training set
    var_ij = v_ij (1 - I_ij g_j.Cov(a_i).g_j) + a_i.Cov(g_j).a_i            others

with v = s^2 (sigma^2 + f^2) and Fisher information I = (1-eps) (nu+1)/(nu+3) / v of the cell. Coefficients
are always fitted to these very cells, the basis only for the training set: what was fitted takes away from
the residual, what was not adds to it. For Gaussian noise these are the textbook leverages. An object that
the fit refused to follow has cells of so much less information as its mean robust weight is below 1.
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
from robusta_prob.inference.isolate import within_reach
from robusta_prob.inference.linalg import pairs
from robusta_prob.inference.problem import precision
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.models.noise import NoiseLaw, robust_weight

REFUSED = 0.5  # mean robust weight of an object below which the fit refused to follow it
SMALLEST_SHARE = 0.1  # of the noise variance that must be left: leverages hold to first order only


class Cells(NamedTuple):
    """A block of objects, cell by cell."""

    z: Float[np.ndarray, "rows pixels"]  # 0 where unseen
    sd: Float[np.ndarray, "rows pixels"]  # predictive standard deviation, in units of `Fit.unit`
    error: Float[np.ndarray, "rows pixels"]  # the same before what was fitted took away; inf where unseen
    seen: Bool[np.ndarray, "rows pixels"]
    weight: Float[np.ndarray, "rows pixels"]  # the published robust weight, under the fitted loss
    taken: Float[np.ndarray, " rows"]  # degrees of freedom that fitted parameters took from the row


class _Known(NamedTuple):
    """The fit as arrays for the kernel, in units of `Fit.unit`."""

    G: Float[np.ndarray, "rank pixels"]
    GG: Float[np.ndarray, "pairs pixels"]
    BB: Float[np.ndarray, "pairs pixels"]  # Cov(g_j), packed
    noise: NoiseLaw
    loss: NoiseLaw
    trained: Bool[np.ndarray, " pixels"]


def cells(
    fit: Fit, data: Dataset, projection: Projection, trained: Bool[np.ndarray, " objects"]
) -> Iterator[tuple[slice, Cells]]:
    """Yield (slice of objects, `Cells` of NumPy arrays) over the data, in the dtype of the fit."""
    first, second = pairs(fit.rank)
    twice = np.where(first == second, 1.0, 2.0).astype(fit.dtype)
    known = _Known(
        fit.basis,
        fit.basis[first] * fit.basis[second],
        np.moveaxis(fit.basis_covariance, 0, -1)[first, second],
        fit.noise.in_unit(fit.unit),
        fit.loss.in_unit(fit.unit),
        fit.trained,
    )
    rows = em.rows_per_batch(data)
    for here, flux, ivar in data.blocks(rows, fit.unit):
        pad = ((0, rows - (here.stop - here.start)), (0, 0))
        A = np.pad((projection.coefficients[here] / fit.unit).astype(fit.dtype), pad)
        V = np.nan_to_num(projection.covariance[here][:, first, second]) / fit.unit**2
        V = np.pad((V * twice).astype(fit.dtype), pad)
        member = np.pad(trained[here, None], pad)
        outer = A[:, first] * A[:, second] * twice
        with precision(fit.dtype):  # closed before yielding, or the consumer would run in it
            flux, ivar = within_reach(flux.astype(fit.dtype), ivar.astype(fit.dtype))
            block = _cells(flux, ivar, A, V, outer, member, known)
            block = Cells(*(np.asarray(x)[: here.stop - here.start] for x in block))
        yield here, block


@jax.jit
def _cells(
    Y: Array, W: Array, A: Array, V: Array, outer: Array, trained: Array, known: _Known
) -> tuple[Array, ...]:
    seen = (W > 0) & known.trained
    given = 1.0 / jnp.where(seen, W, 1.0)
    noise = known.noise.scale**2 * (given + known.noise.floor**2)
    eta = known.noise.inverse_df
    information = (1.0 - known.noise.contamination) * (1.0 + eta) / (1.0 + 3.0 * eta) / noise
    of_basis = outer @ jnp.asarray(known.BB)
    residual = jnp.where(seen, Y - A @ jnp.asarray(known.G), 0.0)
    # pull of the core, with mean 1 in a normal object
    pull = robust_weight(residual**2, jnp.where(seen, W, 0.0), known.noise)
    pull *= (1.0 + eta) / (1.0 - known.noise.contamination)
    heard = jnp.minimum(jnp.where(seen, pull, 0.0).sum(1) / jnp.maximum(seen.sum(1), 1), 1.0)[:, None]
    # a mean hides that a refused object was heard in the few cells that happen to fit
    information *= jnp.where(heard < REFUSED, jnp.minimum(pull, 1.0), heard)
    fitted = information * (V @ jnp.asarray(known.GG) + jnp.where(trained, of_basis, 0.0))
    added = jnp.where(trained, 0.0, of_basis)
    sd = jnp.sqrt(noise * jnp.maximum(1.0 - fitted, SMALLEST_SHARE) + added)
    error = jnp.where(seen, jnp.sqrt(noise + added), jnp.inf)
    taken = jnp.where(seen, jnp.minimum(fitted, 1.0), 0.0).sum(1)
    weight = robust_weight(residual**2, jnp.where(seen, W, 0.0), known.loss)
    return residual / sd, sd, error, seen, weight, taken


def quantile(
    values: Float[np.ndarray, "rows pixels"], seen: Bool[np.ndarray, "rows pixels"], q: float
) -> Float[np.ndarray, " rows"]:
    """Linear quantile over the seen cells of every row; NaN where there are none."""
    ordered = np.sort(np.where(seen, values, np.inf), axis=1)
    count = seen.sum(1)
    place = q * np.maximum(count - 1, 0)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    some = count > 0
    a, b = (np.where(some, np.take_along_axis(ordered, i[:, None], 1)[:, 0], np.nan) for i in (low, high))
    return a + (place - low) * (b - a)
