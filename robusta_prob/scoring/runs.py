"""Runs of pixels that are off together: scan statistics over windows of many widths.

A window's score is the sum of its z, each bounded, so that a single bad pixel is no run. Its tail is
exact, by convolution of the null law; neighbours that are correlated count for fewer pixels; and the best
of all windows of an object is judged by what the best of a null object's windows is (a scan statistic:
Glaz, Naus & Wallenstein 2001), by simulation, whose tail is extrapolated as a Poisson rate of clumps.
The simulated objects have the fitted basis taken out, as the real ones have: what is as smooth as the basis
shows less in the residuals.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import special

from robusta_prob.data import Dataset
from robusta_prob.inference.results import Fit
from robusta_prob.scoring.calibration import REACH, Null
from robusta_prob.scoring.predictive import SMALLEST_SHARE

LARGEST = 1e9  # |z|, so that no square of it is infinite
LINEAR, BOUND = 3.0, 4.0  # scores are |z| in units of the null's scale up to LINEAR, and approach BOUND
STEP = 0.05  # of the lattice on which scores are summed
WIDTHS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of windows [pixels], at most a quarter of the spectrum
SIMULATED = 2**23  # cells of null objects, from which the search is calibrated,
LEAST_ROWS, MOST_ROWS = 1000, 20_000  # and how many such objects
TYPICAL = 1000  # objects whose errors are typical
BAD = 5.0  # |z| beyond which a pixel is bad, for the statistics of their neighbours,
FEW_BAD, MOST_CLUMPING = 20, 0.9  # which need so many, and reach so far
RARE = 0.1  # share of the objects; what is seen in fewer is not taken for normal
FULL = 0.5  # share of a window's pixels that must be observed


class Search(NamedTuple):
    """How often some window of a null object is as strange as this; see `log_p_of_best`."""

    widths: tuple[int, ...]
    level: Float[np.ndarray, " levels"]  # -log p of a window, rising
    log_rate: Float[np.ndarray, " levels"]  # of clumps of such windows per pixel


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
    null: Null, best: Float[np.ndarray, "widths *rows"], widths: tuple[int, ...]
) -> Float[np.ndarray, "widths *rows"]:
    """log P(|sum| / sqrt(width) at least this in one given window of a null object), for either sign."""
    out = np.empty(np.shape(best))
    for place, width in enumerate(widths):
        law = (null.inverse_df, null.scale, null.contamination)
        size, log_p = _window_law(*law, width, null.inflation_of_sum(width))
        out[place] = np.interp(np.abs(best[place]), size, log_p)
    return out


def log_p_of_best(
    search: Search, log_p: Float[np.ndarray, " rows"], count: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    """log P(the best of all windows of a null object with `count` pixels is at least that strange)."""
    log_rate = np.log(np.maximum(count, 1)) + _extrapolated(-log_p, search.level, search.log_rate)
    # log(1 - exp(-rate)), which is log(rate) far out
    return np.where(log_rate < -20.0, log_rate, np.log(-np.expm1(-np.exp(np.minimum(log_rate, 6.0)))))


def search_law(
    null: Null,
    widths: tuple[int, ...],
    seen: Bool[np.ndarray, "objects pixels"],
    taken: Float[np.ndarray, "rank pixels"] | None = None,
) -> Search:
    """Calibrate the search over all windows by simulated null objects with the holes of these.

    Orthonormal rows `taken`, the fitted basis in units of the noise, are projected out.
    """
    n_pixels = seen.shape[1]
    if not widths:
        return Search(widths, np.zeros(1), np.full(1, np.nan))
    rows = int(np.clip(SIMULATED // n_pixels, LEAST_ROWS, MOST_ROWS))
    score = null_scores(null, rows, n_pixels, taken)
    holes = seen[np.linspace(0, len(seen) - 1, rows).astype(int)]
    best = np.asarray(
        best_windows(jnp.asarray(np.where(holes, score, 0.0), jnp.float32), jnp.asarray(holes), widths)
    )
    level = np.sort(-log_p_of_windows(null, best, widths).min(0))
    below = (np.arange(rows) + 0.5) / rows
    at = np.searchsorted(below, np.linspace(0.005, 1.0 - 40.0 / rows, 100))
    level, first = np.unique(level[at], return_index=True)
    return Search(widths, level, np.log(-np.log(below[at][first]) / holes.sum(1).mean()))


def null_scores(
    null: Null,
    rows: int,
    length: int,
    taken: Float[np.ndarray, "rank pixels"] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "rows length"]:
    """Scores of simulated null objects: bad pixels in runs, the others correlated, as the null law says."""
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((rows, length))
    if null.correlation:
        spectrum = np.zeros(length)
        lags = np.arange(1, min(len(null.correlation), length // 2) + 1)
        spectrum[0], spectrum[lags], spectrum[-lags] = 1.0, *(2 * [null.correlation[: len(lags)]])
        root = np.sqrt(np.maximum(np.fft.fft(spectrum).real, 0.0))
        normal = np.fft.ifft(np.fft.fft(normal, axis=1) * root, axis=1).real
        normal /= normal.std()
    if taken is not None:
        normal -= (normal @ taken.T) @ taken
        normal /= np.sqrt(np.maximum(1.0 - (taken**2).sum(0), SMALLEST_SHARE))
    core = normal
    if null.inverse_df >= 1e-6:
        deviate = np.linspace(0.0, 9.0, 4000)
        of_core = -special.stdtrit(1.0 / null.inverse_df, special.ndtr(-deviate))
        core = np.sign(normal) * np.interp(np.abs(normal), deviate, of_core)
    row, pixel = np.nonzero(rng.random(core.shape) < null.contamination * (1.0 - null.clumping))
    value = rng.uniform(-REACH, REACH, len(row)) / null.scale
    while len(row):
        core[row, pixel] = value
        on = (rng.random(len(row)) < null.clumping) & (pixel < length - 1)
        row, pixel, value = row[on], pixel[on] + 1, value[on]
    return bounded(core.astype(np.float32))


def clumping(
    null: Null, z: Float[np.ndarray, "objects pixels"], seen: Bool[np.ndarray, "objects pixels"]
) -> float:
    """Probability that the neighbour of a bad pixel is bad, to the same side, beyond chance.

    What happens to few objects is no property of normal ones: those with most bad pixels do not vote.
    """
    score = np.where(seen, z / null.scale, 0.0)
    hit = np.count_nonzero(np.abs(score) > BAD, axis=1)
    votes = np.argsort(hit, kind="stable")[: len(hit) - int(RARE * len(hit))]
    score, seen = score[votes], seen[votes]
    bad = np.abs(score) > BAD
    asked = bad[:, :-1] & seen[:, 1:]
    same = asked & bad[:, 1:] & (score[:, :-1] * score[:, 1:] > 0)
    number = np.count_nonzero(asked)
    if number < FEW_BAD:
        return 0.0
    chance = float(bad.sum() / seen.sum())
    return float(np.clip(np.count_nonzero(same) / number - chance, 0.0, MOST_CLUMPING))


def taken_by_basis(fit: Fit, data: Dataset) -> Float[np.ndarray, "rank pixels"]:
    """The basis in units of the typical error of each pixel, as orthonormal rows; 0 where it is unknown."""
    some = data.ivar[:: max(1, len(data.ivar) // TYPICAL)].astype(float) / data.unit**2
    seen = (some > 0) & fit.trained
    given = np.where(seen, 1.0 / np.where(seen, some, 1.0), np.nan)
    known = seen.any(0)
    typical = np.ones(data.shape[1])
    typical[known] = np.nanmedian(given[:, known], axis=0)
    noise = float(fit.noise.scale) ** 2 * (typical + np.asarray(fit.noise.floor, float) ** 2)
    q, _ = np.linalg.qr(np.where(known, fit.basis / np.sqrt(noise), 0.0).T)
    return q.T


@lru_cache(maxsize=256)
def _window_law(
    inverse_df: float, scale: float, contamination: float, width: int, inflation: float
) -> tuple[np.ndarray, np.ndarray]:
    """|sum| / sqrt(width) and its two-sided log tail."""
    scores = np.concatenate([[-BOUND], np.arange(-BOUND + STEP / 2, BOUND, STEP), [BOUND]])
    edges = _unbounded(scores)
    core = special.ndtr(edges) if inverse_df < 1e-6 else special.stdtr(1.0 / inverse_df, edges)
    reach = REACH / scale
    mass = (1.0 - contamination) * np.diff(core)
    mass += contamination * np.diff(np.clip((edges + reach) / (2.0 * reach), 0.0, 1.0))
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


def _extrapolated(
    x: Float[np.ndarray, " rows"], level: Float[np.ndarray, " levels"], value: Float[np.ndarray, " levels"]
) -> Float[np.ndarray, " rows"]:
    """Interpolate, and go on beyond the ends as at the ends; in the tail by the slope of the last third."""
    if not np.isfinite(value).all():
        return np.full(np.shape(x), np.nan)
    third = len(level) * 2 // 3
    slope = min(-0.5, np.polyfit(level[third:], value[third:], 1)[0])
    inside = np.interp(x, level, value)
    return inside + slope * np.maximum(x - level[-1], 0.0) - np.minimum(x - level[0], 0.0)
