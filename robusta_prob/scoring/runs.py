"""Runs of pixels that are off together: scan statistics over windows of many widths.

A window's score is the sum of its z, each bounded, so that a single bad pixel is no run. Its tail is
exact, by convolution of the null law; neighbours that are correlated count for fewer pixels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import special

from robusta_prob.scoring.calibration import Null, between_knots
from robusta_prob.scoring.core import Core, Wide

LARGEST = 1e9  # |z|, so that no square of it is infinite
LINEAR, BOUND = 3.0, 4.0  # scores are |z| in units of the null's scale up to LINEAR, and approach BOUND
STEP = 0.05  # of the lattice on which scores are summed
WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of windows [pixels], at most a quarter of the spectrum
FULL = 0.5  # share of a window's pixels that must be observed


def widths_within(n_pixels: int, windows: Sequence[int] | None = None) -> tuple[int, ...]:
    """Widths to search: those given, or `WIDTHS` as far as four of them fit into the spectrum."""
    if windows is None:
        return tuple(w for w in WIDTHS if 4 * w <= n_pixels)
    try:
        widths = tuple(sorted({operator.index(w) for w in windows}))
    except TypeError:
        raise TypeError(f"windows must be a list of whole numbers of pixels, got {windows!r}") from None
    if not widths or widths[0] < 2 or widths[-1] > n_pixels // 2:
        raise ValueError(
            f"windows must be widths between 2 and {n_pixels // 2} pixels, half the spectrum; got {windows}"
        )
    return widths


def bounded(z: Any) -> Any:
    """Scores of pixels, for z in units of the null's scale; without the atoms that a hard bound has.

    NumPy in, NumPy out: what is looked at object by object must not compile for every length.
    """
    xp = jnp if isinstance(z, jax.Array) else np
    size = xp.minimum(xp.abs(z), LARGEST)
    beyond = xp.maximum(size - LINEAR, 0.0)
    return xp.sign(z) * (xp.minimum(size, LINEAR) + (BOUND - LINEAR) * beyond / (BOUND - LINEAR + beyond))


def _unbounded(score: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " edges"]:
    """z of a score: the inverse of `bounded`."""
    beyond = np.clip(np.abs(score) - LINEAR, 0.0, BOUND - LINEAR)
    with np.errstate(divide="ignore"):
        past = (BOUND - LINEAR) * beyond / (BOUND - LINEAR - beyond)
    return np.sign(score) * (np.minimum(np.abs(score), LINEAR) + past)


def lag_one(score: Any, seen: Any) -> Any:
    """Autocorrelation of neighbouring scores (0 where unseen), per row; NumPy in, NumPy out."""
    xp = jnp if isinstance(score, jax.Array) else np
    both = (seen[:, 1:] & seen[:, :-1]).sum(1)
    product = (score[:, 1:] * score[:, :-1]).sum(1) / xp.maximum(both, 1)
    variance = (score**2).sum(1) / xp.maximum(seen.sum(1), 1)
    return product / xp.maximum(variance, 1e-30)


@jax.jit(static_argnames="widths")
def best_windows(
    score: Float[Array, "rows pixels"], seen: Bool[Array, "rows pixels"], widths: tuple[int, ...]
) -> Float[Array, "widths rows"]:
    """Largest |sum of scores| / sqrt(observed pixels) of the windows of each width."""
    return jnp.stack([jnp.abs(window).max(1) for window in window_scores(score, seen, widths)])


def window_scores(score: Array, seen: Array, widths: tuple[int, ...]) -> list[Array]:
    """Sum of scores / sqrt(observed pixels), per width (rows, pixels - width + 1); 0 where few are."""
    return [
        jnp.where(count >= FULL * w, total / jnp.sqrt(jnp.maximum(count, 1.0)), 0.0)
        for w, total, count in zip(
            widths, _sums(score, widths), _sums(seen.astype(score.dtype), widths), strict=True
        )
    ]


def _sums(x: Array, widths: tuple[int, ...]) -> list[Array]:
    """Moving sums by doubling: a handful of additions per cell, and no cancellation as in cumulative sums."""
    doubled = {1: x}
    while 2 * max(doubled) <= max(widths):
        half = max(doubled)
        doubled[2 * half] = doubled[half][:, :-half] + doubled[half][:, half:]
    totals = []
    for width in widths:
        total, done = jnp.zeros_like(x[:, : x.shape[1] - width + 1]), 0
        for part in sorted(doubled, reverse=True):
            while done + part <= width:
                total = total + doubled[part][:, done : done + total.shape[1]]
                done += part
        totals.append(total)
    return totals


def log_p_of_windows(
    null: Null,
    best: Float[np.ndarray, "widths rows"],
    widths: tuple[int, ...],
    level: Float[np.ndarray, " rows"] | None = None,
) -> Float[np.ndarray, "widths rows"]:
    """log P(|sum| / sqrt(width) at least this in one given window of a null object), for either sign.

    `level` is the logarithm of the typical error of the objects, by which the share of wide pixels differs.
    """
    weights, knots = null.weights(best.shape[1], level), null.knots
    size = np.abs(best)

    def at_knot(knot: int, rows: Bool[np.ndarray, " rows"], place: int) -> Float[np.ndarray, " some"]:
        width, law = widths[place], knots[knot]
        tail = _window_law(*law[:3], law.wide, width, null.inflation_of_sum(width))
        return np.interp(size[place, rows], *tail)

    return np.stack([between_knots(weights, partial(at_knot, place=i)) for i in range(len(widths))])


@lru_cache(maxsize=256)
def _window_law(
    inverse_df: float, scale: float, contamination: float, wide: Wide, width: int, inflation: float
) -> tuple[np.ndarray, np.ndarray]:
    """|sum| / sqrt(width) and its two-sided log tail."""
    scores = np.concatenate([[-BOUND], np.arange(-BOUND + STEP / 2, BOUND, STEP), [BOUND]])
    edges = _unbounded(scores)
    core = Core(inverse_df).cdf(edges)
    mass = (1.0 - contamination) * np.diff(core) + contamination * wide.between(scale * edges)
    mass = 0.5 * (mass + mass[::-1])
    total, power, rest = np.ones(1), mass, width
    while rest:  # by squaring; direct convolution keeps the relative precision of the tail
        if rest & 1:
            total = np.convolve(total, power)
        rest >>= 1
        if rest:
            power = np.convolve(power, power)
    half = len(total) // 2
    tail = np.cumsum(total[::-1])[::-1][half:]
    # halfway between P(>=) and P(>): the lattice stands for a continuous law
    log_p = np.log(np.minimum(2.0 * np.maximum(tail - 0.5 * total[half:], 1e-300), 1.0))
    size = STEP * np.arange(len(log_p)) / math.sqrt(width)
    return size, _inflated(log_p, inflation)


def _inflated(log_p: Float[np.ndarray, " levels"], inflation: float) -> Float[np.ndarray, " levels"]:
    """The tail of a sum whose variance correlation multiplies by `inflation`: two-sided deviates shrink."""
    if inflation == 1.0:
        return log_p
    deviate = -special.ndtri_exp(log_p - math.log(2.0))
    return math.log(2.0) + special.log_ndtr(-np.maximum(deviate, 0.0) / math.sqrt(inflation))
