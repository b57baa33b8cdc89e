"""What the residuals of each object add up to, in one pass, and the null law they are judged by."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robusta_prob.inference.blocks import rows_per_batch
from robusta_prob.inference.digits import precision
from robusta_prob.inference.results import Fit
from robusta_prob.models.noise import log_kernel, log_normaliser
from robusta_prob.scoring.calibration import (
    BOUNDING,
    SMALLEST,
    Null,
    learn_null,
    learn_shares,
    log_tail,
)
from robusta_prob.scoring.core import REACH
from robusta_prob.scoring.correlation import clumping, neighbours, with_correlation
from robusta_prob.scoring.predictive import Cells, Judged, cells, quantiles
from robusta_prob.scoring.runs import LARGEST, best_windows, bounded, lag_one, log_p_of_windows

NULL_CELLS = 2**21  # residuals that the null law is learned from
NULL_OBJECTS = 50  # fewer objects cannot teach a null law without being its outliers themselves
NULL_ROUNDS = 3  # learning it again without the objects that it finds strange
STRANGE = 1e-3  # p-value below which an object does not vote on the null law
GROUPS, GROUP_CELLS = 8, 20_000  # of objects alike in their errors, and the least that each must have
SPREAD = 0.5  # of the logarithm of the errors, 5 to 95 %, below which all objects are alike
LEFT = 0.5  # degrees of freedom below which nothing is left to judge


class Evidence(NamedTuple):
    """One entry per object; sums and extremes over its observed pixels."""

    observed: Int[np.ndarray, " objects"]
    taken: Float[np.ndarray, " objects"]  # degrees of freedom that fitted parameters took
    surprise: Float[np.ndarray, " objects"]  # sum, bounded per pixel [nats]
    level: Float[np.ndarray, " objects"]  # mean logarithm of the errors [log flux]
    largest: Float[np.ndarray, " objects"]  # |z|
    log_p_window: Float[np.ndarray, " objects"]  # of the strangest window, not yet for the search; NaN: none
    lag1: Float[np.ndarray, " objects"]  # autocorrelation of bounded z over the object's scale,
    pairs: Int[np.ndarray, " objects"]  # a mean over so many neighbours
    scale: Float[np.ndarray, " objects"]  # median |z| over that of the null law
    median_weight: Float[np.ndarray, " objects"]
    low_weight: Float[np.ndarray, " objects"]

    def log_p(self, null: Null) -> Float[np.ndarray, " objects"]:
        """log P(as much surprise | null object); NaN where nothing is left to judge."""
        left = self.observed - self.taken
        some = left > LEFT
        mean = np.where(some, self.surprise / np.maximum(self.observed, 1), 0.0)
        out = np.full(len(mean), np.nan)
        out[some] = log_tail(null, mean[some], left[some], self.level[some])
        return out


def gather(
    fit: Fit,
    judged: Judged,
    null: Null,
    widths: tuple[int, ...],
    each: Callable[[slice, Cells], None] | None = None,
    robustness: float | None = None,
) -> Evidence:
    """One pass over the data; `each` is called with every block.

    Published scores are of the weights under the fitted loss, or of a published one with this scale.
    """
    median = float(null.core.quantile(0.75))  # of |z|
    parts = []
    for here, block in cells(fit, judged):
        (middle,) = quantiles(np.abs(block.z), block.seen, (0.5,))
        scale = np.nan_to_num(middle / median, nan=1.0)
        with precision(np.dtype(np.float32)):
            sums = _row_sums(
                np.clip(block.z, -LARGEST, LARGEST).astype(np.float32),
                block.seen,
                np.maximum(scale, 1.0).astype(np.float32),
                np.array([null.inverse_df, null.scale, null.bounding, null.cap], np.float32),
                widths,
            )
        weight = block.weight if robustness is None else published_weight(fit, block, robustness)
        surprise, largest, lag1, best = (np.asarray(x, float) for x in sums)
        level, log_p = level_of(block, fit.unit), np.full(len(scale), np.nan)
        some = (best > 0).any(0)
        if widths:
            log_p[some] = log_p_of_windows(null, best[:, some], widths, level[some]).min(0)
        parts.append(
            (
                block.seen.sum(1),
                block.taken,
                surprise,
                level,
                largest,
                log_p,
                lag1,
                neighbours(block.seen),
                scale,
                *quantiles(weight, block.seen, (0.5, 0.01)),
            )
        )
        if each is not None:
            each(here, block)
    return Evidence(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def published_weight(fit: Fit, block: Cells, robustness: float) -> Float[np.ndarray, "rows pixels"]:
    """Q^2 / (Q^2 + residual^2 ivar), with the errors as stated (Hilder, Hogg, Casey & Rix)."""
    noise = fit.noise.in_unit(fit.unit)
    stated = (block.error / noise.scale) ** 2 - np.square(noise.floor)
    smallest = np.finfo(block.error.dtype).eps * np.square(block.error)  # where the floor is nearly all of it
    residual = np.where(block.seen, block.z * block.sd, 0.0)
    return robustness**2 / (robustness**2 + residual**2 / np.maximum(stated, smallest))


@jax.jit(static_argnames="widths")
def _row_sums(z: Array, seen: Array, scale: Array, null: Array, widths: tuple[int, ...]) -> tuple[Array, ...]:
    inverse_df, of_core, bad, cap = null
    size = jnp.minimum(jnp.abs(z), LARGEST)
    within = (jnp.minimum(size, REACH) / of_core) ** 2
    core = log_normaliser(inverse_df) + log_kernel(within, inverse_df) - jnp.log(of_core)
    surprise = -jnp.logaddexp(jnp.log1p(-bad) + core, -cap)
    score = jnp.where(seen, bounded(z / of_core), 0.0)
    return (
        jnp.where(seen, surprise, 0.0).sum(1),
        jnp.where(seen, size, 0.0).max(1),
        lag_one(jnp.where(seen, bounded(z / (of_core * scale[:, None])), 0.0), seen),
        best_windows(score, seen, widths) if widths else jnp.zeros((0, len(z))),
    )


def level_of(block: Cells, unit: float) -> Float[np.ndarray, " rows"]:
    """Mean logarithm of the errors of the observed cells, in the user's flux unit whatever the fit's is."""
    logs = np.log(np.where(block.seen, block.error, 1.0))
    return logs.sum(1, dtype=float) / np.maximum(block.seen.sum(1), 1) + np.log(unit)


def learn(
    fit: Fit,
    judged: Judged,
    scored: Bool[np.ndarray, " objects"],
    taken: Float[np.ndarray, "rank pixels"],
) -> Null:
    """The null law of z, from objects that are not strange themselves; of few, the fit's noise law."""
    rows = np.flatnonzero(scored)
    if len(rows) < NULL_OBJECTS:
        return Null(float(fit.noise.inverse_df), 1.0, max(float(fit.noise.contamination), SMALLEST))
    some = max(NULL_OBJECTS, NULL_CELLS // judged.data.shape[1])
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:some])  # every tenth may be alike
    blocks = [
        (block.z, block.seen, block.taken, level_of(block, fit.unit))
        for _, block in cells(fit, judged.take(rows), rows_per_batch(judged.data))
    ]
    z, seen, lost, level = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    normal = np.ones(len(z), bool)
    count = seen.sum(1)
    null = None
    for turn in range(NULL_ROUNDS):
        trial = learn_null(z[normal][seen[normal]])
        if turn > 0:  # outliers look like correlation, under which nothing would be strange
            trial = with_correlation(trial, z[normal], seen[normal], taken)
        trial = _with_shares(trial, z[normal], seen[normal], level[normal])
        mean = np.where(seen, trial.surprise(z), 0.0).sum(1) / count
        usual = log_tail(trial, mean, np.maximum(count - lost, LEFT), level) > np.log(STRANGE)
        if null is not None and usual.sum() < 0.5 * len(usual):
            break  # a law under which most objects are strange is no null law: keep the one before
        null, normal = trial, usual if usual.any() else normal
    assert null is not None
    return null._replace(clumping=clumping(null, z[normal], seen[normal]))


def _with_shares(
    null: Null,
    z: Float[np.ndarray, "objects pixels"],
    seen: Bool[np.ndarray, "objects pixels"],
    level: Float[np.ndarray, " objects"],
) -> Null:
    """The null law with wide pixels that depend on the errors of the object."""
    if null.contamination <= 2.0 * BOUNDING:
        return null
    groups = int(min(GROUPS, seen.sum() // GROUP_CELLS, len(z) // NULL_OBJECTS))
    if groups < 2 or np.ptp(np.quantile(level, (0.05, 0.95))) < SPREAD:
        groups = 1
    members = np.array_split(np.argsort(level, kind="stable"), groups)
    levels = np.array([np.median(level[rows]) for rows in members])
    distinct = np.unique(levels)
    alike = [np.concatenate([members[i] for i in np.flatnonzero(levels == x)]) for x in distinct]
    null = learn_shares(null, [z[rows][seen[rows]] for rows in alike])
    return null._replace(levels=tuple(distinct.tolist()))
