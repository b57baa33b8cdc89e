"""The search over all windows of an object, and what its best one is worth.

The best of all windows is judged by what the best of a null object's windows is (a scan statistic: Glaz,
Naus & Wallenstein 2001), by simulation, whose tail is extrapolated as a Poisson rate of clumps. The simulated
objects have the fitted basis taken out, as the real ones have: what is as smooth as the basis shows less in
the residuals. Where the share of wide pixels depends on an object's errors, so does what its best window is
worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from robusta_prob.scoring.calibration import Null, between_knots
from robusta_prob.scoring.core import Core
from robusta_prob.scoring.predictive import SMALLEST_SHARE
from robusta_prob.scoring.runs import best_windows, bounded, log_p_of_windows

SIMULATED = 2**23  # cells of null objects, from which the search is calibrated,
LEAST_LEVELS = 10  # different ones, without which there is no tail to extrapolate
LEAST_ROWS, MOST_ROWS = 1000, 20_000  # and how many such objects


class Rate(NamedTuple):
    """How often some window of a null object is as strange as this."""

    strangeness: Float[np.ndarray, " steps"]  # -log p of a window, rising
    log_rate: Float[np.ndarray, " steps"]  # of clumps of such windows per pixel; NaN: nothing is searched


class Search(NamedTuple):
    """The search over all windows, and what its best one is worth; see `log_p_of_best`."""

    null: Null
    widths: tuple[int, ...]
    rates: tuple[Rate, ...]  # one for each of the knots of the null law


UNKNOWN = Rate(np.zeros(1), np.full(1, np.nan))


def log_p_of_best(
    search: Search,
    log_p: Float[np.ndarray, " rows"],
    count: Float[np.ndarray, " rows"],
    level: Float[np.ndarray, " rows"] | None = None,
) -> Float[np.ndarray, " rows"]:
    """log P(the best of all windows of a null object with `count` pixels is at least that strange).

    `level` is the logarithm of the typical error of the objects.
    """
    per_pixel = between_knots(
        search.null.weights(len(log_p), level),
        lambda knot, rows: _extrapolated(-log_p[rows], *search.rates[knot]),
    )
    log_rate = np.log(np.maximum(count, 1)) + per_pixel
    # log(1 - exp(-rate)), which is log(rate) far out
    return np.where(log_rate < -20.0, log_rate, np.log(-np.expm1(-np.exp(np.minimum(log_rate, 6.0)))))


def sampled(objects: int, pixels: int) -> Int[np.ndarray, " some"]:
    """Which of so many objects stand for the holes of all."""
    return np.unique(np.linspace(0, objects - 1, _rows(pixels)).astype(int))


def _rows(pixels: int) -> int:
    return int(np.clip(SIMULATED // pixels, LEAST_ROWS, MOST_ROWS))


def search_law(
    null: Null,
    widths: tuple[int, ...],
    seen: Bool[np.ndarray, "objects pixels"],
    taken: Float[np.ndarray, "rank pixels"] | None = None,
) -> Search:
    """Calibrate the search over all windows by simulated null objects with the holes of these.

    Orthonormal rows `taken`, the fitted basis in units of the noise, are projected out. The rate is NaN where
    no window is observed well enough to be searched.
    """
    n_pixels = seen.shape[1]
    if not widths:
        return Search(null, widths, len(null.knots) * (UNKNOWN,))
    rows = _rows(n_pixels)
    holes = seen[np.linspace(0, len(seen) - 1, rows).astype(int)]
    rates = {}
    for law, score in null_scores(null, rows, n_pixels, taken):
        best = best_windows(jnp.asarray(np.where(holes, score, np.float32(0.0))), jnp.asarray(holes), widths)
        rates[law] = _rate(log_p_of_windows(law, np.asarray(best), widths).min(0), holes.sum(1).mean())
    return Search(null, widths, tuple(rates[law] for law in null.knots))


def _rate(log_p: Float[np.ndarray, " rows"], pixels: float) -> Rate:
    """Of the best windows of simulated objects with so many pixels."""
    rows = len(log_p)
    below = (np.arange(rows) + 0.5) / rows
    at = np.searchsorted(below, np.linspace(0.005, 1.0 - 40.0 / rows, 100))
    strangeness, first = np.unique(np.sort(-log_p)[at], return_index=True)
    if len(strangeness) < LEAST_LEVELS:
        return UNKNOWN
    return Rate(strangeness, np.log(-np.log(below[at][first]) / pixels))


def null_scores(
    null: Null,
    rows: int,
    length: int,
    taken: Float[np.ndarray, "rank pixels"] | None = None,
    seed: int = 0,
) -> Iterator[tuple[Null, Float[np.ndarray, "rows length"]]]:
    """Scores of simulated null objects: bad pixels in runs, the others correlated, as the null law says.

    The same objects, but for their bad pixels, under each of the knots of that law that differ.
    """
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
    if not null.core.is_gaussian:
        deviate = np.linspace(0.0, 9.0, 4000)
        of_core = -Core(null.inverse_df).quantile(special.ndtr(-deviate))
        core = np.sign(normal) * np.interp(np.abs(normal), deviate, of_core)
    good, chance = bounded(core.astype(np.float32)), rng.random(core.shape, np.float32)
    for law in dict.fromkeys(null.knots):
        score = good.copy()
        row, pixel = np.nonzero(chance < law.contamination * (1.0 - law.clumping))
        value = bounded(law.wide.draw(rng, len(row)) / law.scale)
        while len(row):
            score[row, pixel] = value
            on = (rng.random(len(row)) < law.clumping) & (pixel < length - 1)
            row, pixel, value = row[on], pixel[on] + 1, value[on]
        yield law, score


def _extrapolated(
    x: Float[np.ndarray, " rows"], level: Float[np.ndarray, " steps"], value: Float[np.ndarray, " steps"]
) -> Float[np.ndarray, " rows"]:
    """Interpolate, and go on beyond the ends as at the ends; in the tail by the slope of the last third."""
    if not np.isfinite(value).all():
        return np.full(np.shape(x), np.nan)
    third = len(level) * 2 // 3
    slope = min(-0.5, np.polyfit(level[third:], value[third:], 1)[0])
    inside = np.interp(x, level, value)
    return inside + slope * np.maximum(x - level[-1], 0.0) - np.minimum(x - level[0], 0.0)
