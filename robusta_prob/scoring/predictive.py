"""Residuals in units of their predictive standard deviation, per block of objects.

    var_ij = v_ij (1 - I_ij g_j.Cov(a_i).g_j - I_ij a_i.Cov(g_j).a_i)       objects of the training set
    var_ij = v_ij (1 - I_ij g_j.Cov(a_i).g_j) + a_i.Cov(g_j).a_i            other objects
    var_ij = v_ij + g_j.Cov(a_i).g_j + a_i.Cov(g_j).a_i                     cells that were held out

with v = s^2 (sigma^2 + f^2) and Fisher information I = (1-eps) (nu+1)/(nu+3) / v of the cell. What was
fitted to a cell takes away from its residual, what was not adds to it. For Gaussian noise these are the
textbook leverages. An object that the fit refused to follow has cells of so much less information as its
mean robust weight is below 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robusta_prob.data import Dataset
from robusta_prob.inference.blocks import rows_per_batch
from robusta_prob.inference.digits import precision
from robusta_prob.inference.isolate import within_reach
from robusta_prob.inference.linalg import pairs
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.models.noise import NoiseLaw, robust_weight

REFUSED = 0.5  # mean robust weight of an object below which the fit refused to follow it
TYPICAL = 1000  # objects whose errors are typical
SMALLEST_SHARE = 0.1  # of the noise variance that must be left: leverages hold to first order only


class Judged(NamedTuple):
    """Objects, where they lie on the basis, and what of them was fitted."""

    data: Dataset
    projection: Projection
    trained: Bool[np.ndarray, " objects"]  # which of them taught the basis
    held_out: Bool[np.ndarray, "objects pixels"] | None = None  # cells that they were not fitted to

    def take(self, rows: Int[np.ndarray, " some"]) -> Judged:
        """Some of them, perhaps repeatedly."""
        held_out = None if self.held_out is None else self.held_out[rows]
        return Judged(self.data.take(rows), self.projection.take(rows), self.trained[rows], held_out)

    def fitted(self) -> Judged:
        """The same without the cells that were held out."""
        return (
            self
            if self.held_out is None
            else self._replace(data=self.data.hide(self.held_out), held_out=None)
        )

    def n_fitted(self, known: Bool[np.ndarray, " pixels"]) -> Int[np.ndarray, " objects"]:
        """How many cells of each object were fitted."""
        if self.held_out is None:
            return self.data.count(known)
        counts = np.empty(len(self.trained), int)
        for here, _, ivar in self.data.blocks(rows_per_batch(self.data)):
            counts[here] = ((ivar[: here.stop - here.start] > 0) & known & ~self.held_out[here]).sum(1)
        return counts


class Cells(NamedTuple):
    """A block of objects, cell by cell."""

    z: Float[np.ndarray, "rows pixels"]  # 0 where nothing is known
    sd: Float[np.ndarray, "rows pixels"]  # predictive standard deviation, in units of `Fit.unit`
    error: Float[np.ndarray, "rows pixels"]  # the same before what was fitted took away; inf where unseen
    seen: Bool[np.ndarray, "rows pixels"]  # observed, known to the fit, and fitted
    held_out: Bool[np.ndarray, "rows pixels"]  # the same, and not fitted
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


def cells(fit: Fit, judged: Judged, rows: int | None = None) -> Iterator[tuple[slice, Cells]]:
    """Yield (slice of objects, `Cells` of NumPy arrays) over the data, in the dtype of the fit.

    `rows` objects are computed at once: as many as another call had need no new compilation.
    """
    data, projection, trained, held_out = judged
    held_out = np.zeros((len(trained), 1), bool) if held_out is None else held_out
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
    rows = rows_per_batch(data) if rows is None else rows
    for here, flux, ivar in data.blocks(rows, fit.unit):
        pad = ((0, rows - (here.stop - here.start)), (0, 0))
        A = np.pad((projection.coefficients[here] / fit.unit).astype(fit.dtype), pad)
        V = np.nan_to_num(projection.covariance[here][:, first, second]) / fit.unit**2
        V = np.pad((V * twice).astype(fit.dtype), pad)
        member, held = np.pad(trained[here, None], pad), np.pad(held_out[here], pad)
        outer = A[:, first] * A[:, second] * twice
        with precision(fit.dtype):  # closed before yielding, or the consumer would run in it
            flux, ivar = within_reach(flux.astype(fit.dtype), ivar.astype(fit.dtype))
            block = _cells(flux, ivar, A, V, outer, member, held, known)
            block = Cells(*(np.asarray(x)[: here.stop - here.start] for x in block))
        yield here, block


def noise_of(given: Any, law: NoiseLaw) -> tuple[Any, Any]:
    """Variance v of cells with the variance `given`, and their Fisher information; of either NumPy or JAX."""
    noise = law.scale**2 * (given + law.floor**2)
    return noise, (1.0 - law.contamination) * (1.0 + law.inverse_df) / (1.0 + 3.0 * law.inverse_df) / noise


@jax.jit
def _cells(
    Y: Array, W: Array, A: Array, V: Array, outer: Array, trained: Array, held_out: Array, known: _Known
) -> tuple[Array, ...]:
    there = (W > 0) & known.trained
    seen = there & ~held_out
    noise, information = noise_of(1.0 / jnp.where(there, W, 1.0), known.noise)
    of_coefficients, of_basis = V @ jnp.asarray(known.GG), outer @ jnp.asarray(known.BB)
    residual = jnp.where(there, Y - A @ jnp.asarray(known.G), 0.0)
    # pull of the core, with mean 1 in a normal object
    pull = robust_weight(residual**2, jnp.where(there, W, 0.0), known.noise)
    pull *= (1.0 + known.noise.inverse_df) / (1.0 - known.noise.contamination)
    heard = jnp.minimum(jnp.where(seen, pull, 0.0).sum(1) / jnp.maximum(seen.sum(1), 1), 1.0)[:, None]
    # a mean hides that a refused object was heard in the few cells that happen to fit
    information *= jnp.where(heard < REFUSED, jnp.minimum(pull, 1.0), heard)
    fitted = information * (of_coefficients + jnp.where(trained, of_basis, 0.0))
    fitted = jnp.where(held_out, 0.0, fitted)
    added = jnp.where(held_out, of_coefficients + of_basis, jnp.where(trained, 0.0, of_basis))
    sd = jnp.sqrt(noise * jnp.maximum(1.0 - fitted, SMALLEST_SHARE) + added)
    error = jnp.where(seen, jnp.sqrt(noise + added), jnp.inf)
    taken = jnp.where(seen, jnp.minimum(fitted, 1.0), 0.0).sum(1)
    weight = robust_weight(residual**2, jnp.where(there, W, 0.0), known.loss)
    return residual / sd, sd, error, seen, there & held_out, weight, taken


def quantiles(
    values: Float[np.ndarray, "rows pixels"], seen: Bool[np.ndarray, "rows pixels"], levels: Sequence[float]
) -> list[Float[np.ndarray, " rows"]]:
    """Linear quantiles over the seen cells of every row; NaN where there are none."""
    ordered = np.sort(np.where(seen, values, np.inf), axis=1)
    some, last = seen.any(1), np.maximum(seen.sum(1) - 1, 0)
    out = []
    for level in levels:
        low = np.floor(level * last).astype(int)
        ends = (low, np.minimum(low + 1, last))
        a, b = (np.where(some, np.take_along_axis(ordered, i[:, None], 1)[:, 0], np.nan) for i in ends)
        out.append(a + (level * last - low) * (b - a))
    return out


def taken_by_basis(fit: Fit, judged: Judged) -> Float[np.ndarray, "rank pixels"]:
    """The basis in units of the typical error of each pixel, as orthonormal rows; 0 where it is unknown."""
    n, m = judged.data.shape
    some = judged.take(np.arange(0, n, max(1, n // TYPICAL))).fitted().data
    ivar = np.asarray(some.ivar, float) / some.unit**2
    seen = (ivar > 0) & fit.trained
    given = np.where(seen, 1.0 / np.where(seen, ivar, 1.0), np.nan)
    known = seen.any(0)
    typical = np.ones(m)
    typical[known] = np.nanmedian(given[:, known], axis=0)
    noise, _ = noise_of(typical, fit.noise)
    q, _ = np.linalg.qr(np.where(known, fit.basis / np.sqrt(noise), 0.0).T)
    return q.T
