"""What kind of surprise an object is: isolated pixels, lines, underestimated errors, or a foreign spectrum.

All evidence is in z over the object's own robust scale, where errors that are underestimated as a whole are
gone. What is still off together in a few windows is lines, if the rest of the object is normal. Else
the lag-1 autocorrelation of the bounded z decides: a foreign spectrum has structure along the pixels, wrong
errors have none beyond what all objects of the survey show.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from robusta_prob.inference.results import Fit
from robusta_prob.scoring.calibration import Null, log_tail
from robusta_prob.scoring.correlation import BAD, neighbours, of_basis
from robusta_prob.scoring.lines import WITH_WIDTH, matched
from robusta_prob.scoring.predictive import Cells
from robusta_prob.scoring.runs import bounded, lag_one, log_p_of_windows, window_scores
from robusta_prob.scoring.search import Search, log_p_of_best

PIXELS, LINES, ERRORS, FOREIGN, UNCLEAR = "isolated pixels", "lines", "errors", "foreign", "unclear"
STRANGE_WINDOW = math.log(1e-2)  # log p, corrected for the search, below which a window is a line
MOST_LINES = 16  # per object
LEAST_ROWS = 64  # that are searched at once
NARROW = 0.25  # share of the observed pixels that lines may cover; more is a foreign spectrum
NORMAL_REST = math.log(1e-3)  # log p of the object without its lines, above which they explain it
STRUCTURE = 3.5  # standard deviations of the lag-1 autocorrelation
GROWTH = 1.5  # |z| of the same sign by which a window grows into its neighbours
MOST_TAKEN = 3.0  # height of a line over what of it is left in the residual, if it is one
BOXCAR = 2.8  # width, in standard deviations, of the window that finds a Gaussian line best
SHAPES = (0.35, 0.5, 0.7, 1.0, 1.4)  # widths of lines that are tried in a window, over that
MOST_PLACES = 32  # centres that are tried
FWHM = 2.3548  # of a Gaussian, in standard deviations


class Windows(NamedTuple):
    """Stretches of pixels that are off together, one entry each, in objects that some list flags."""

    row: Int[np.ndarray, " windows"]  # of the object, in the data
    id: Shaped[np.ndarray, " windows"]
    start: Int[np.ndarray, " windows"]  # first pixel, and
    stop: Int[np.ndarray, " windows"]  # the one after the last
    centre: Float[np.ndarray, " windows"]  # in units of the grid
    width: Float[np.ndarray, " windows"]  # full width at half maximum of a Gaussian line [grid]
    # its height above the model, negative below it [flux]; NaN where no line is there but another spectrum
    depth: Float[np.ndarray, " windows"]
    depth_sd: Float[np.ndarray, " windows"]
    log_p: Float[np.ndarray, " windows"]  # corrected for the search over places and widths

    def __repr__(self) -> str:
        return f"Windows({len(self.row):,} in {len(np.unique(self.row)):,} objects)"


def structure(
    null: Null,
    lag1: Float[np.ndarray, " rows"],
    pairs: Float[np.ndarray, " rows"],
    taken: Float[np.ndarray, "rank pixels"],
) -> Float[np.ndarray, " rows"]:
    """Lag-1 autocorrelation of a row less a normal one's, in standard deviations (Bartlett 1946).

    It is a mean over so many pairs of neighbours. A normal row has that of the survey's noise, and what
    fitting the basis, as orthonormal rows `taken`, did to it.
    """
    rho = np.concatenate([[1.0], null.correlation, [0.0, 0.0]])
    two_sided = np.concatenate([rho[:0:-1], rho])
    middle = len(rho) - 1
    here, right, left = two_sided[1:-1], two_sided[2:], two_sided[:-2]
    first = two_sided[middle + 1]
    terms = here**2 + left * right - 4.0 * first * here * left + 2.0 * first**2 * here**2
    usual = first - of_basis(taken, 1)[0]
    return (lag1 - usual) * np.sqrt(np.maximum(pairs, 1) / max(float(terms.sum()), 0.1))


def no_windows(ids: Shaped[np.ndarray, " objects"]) -> Windows:
    """None at all."""
    none, number = np.zeros(0, int), np.zeros(0)
    return Windows(none, ids[:0], none, none, number, number, number, number, number)


class Found(NamedTuple):
    """Windows of some rows, and which cells they cover."""

    windows: list[tuple[int, int, int, float]]  # (row, start, stop, log p)
    covered: Bool[np.ndarray, "rows pixels"]


def find_windows(
    z: Float[np.ndarray, "rows pixels"],
    seen: Bool[np.ndarray, "rows pixels"],
    scale: Float[np.ndarray, " rows"],
    level: Float[np.ndarray, " rows"],
    null: Null,
    search: Search,
) -> Found:
    """All windows of each row that are strange, the strangest first, until the rest has none."""
    size = null.scale * np.maximum(scale, 1.0)[:, None]
    score = np.where(seen, bounded(z / size), 0.0).astype(np.float32)
    covered = np.zeros(z.shape, bool)
    found: list[tuple[int, int, int, float]] = []
    active = np.arange(len(z))
    for _ in range(MOST_LINES if search.widths else 0):
        if not len(active):
            break
        open_cells = seen[active] & ~covered[active]
        pad = ((0, _padded(len(active)) - len(active)), (0, 0))
        scores = np.pad(np.where(open_cells, score[active], 0.0), pad)
        best, place = (
            np.asarray(x)[:, : len(active)]
            for x in _strongest(scores, np.pad(open_cells, pad), search.widths)
        )
        log_p = log_p_of_windows(null, best, search.widths, level[active])
        which = log_p.argmin(0)
        rows = np.arange(len(active))
        corrected = log_p_of_best(search, log_p[which, rows], open_cells.sum(1), level[active])
        strange = corrected < STRANGE_WINDOW
        for i in np.flatnonzero(strange):
            row, start = active[i], int(place[which[i], i])
            start, stop = _grown(
                score[row], seen[row] & ~covered[row], start, start + search.widths[which[i]]
            )
            covered[row, start:stop] = True
            found.append((int(row), start, stop, float(corrected[i])))
        active = active[strange]
    return Found(found, covered & seen)


def _padded(rows: int) -> int:
    """At most four times as many, in few sizes: every size is compiled anew."""
    return 4 ** math.ceil(math.log(max(rows, LEAST_ROWS), 4))


@jax.jit(static_argnames="widths")
def _strongest(score: Array, seen: Array, widths: tuple[int, ...]) -> tuple[Array, Array]:
    """Largest window score of each width (widths, rows), and its first pixel."""
    windows = [jnp.abs(x) for x in window_scores(score, seen, widths)]
    return jnp.stack([x.max(1) for x in windows]), jnp.stack([x.argmax(1) for x in windows])


def _grown(
    score: Float[np.ndarray, " pixels"], seen: Bool[np.ndarray, " pixels"], start: int, stop: int
) -> tuple[int, int]:
    """The window with its neighbours that are off to the same side."""
    sign = 1.0 if score[start:stop][seen[start:stop]].sum() >= 0 else -1.0
    off = seen & (sign * score > GROWTH)
    while start > 0 and off[start - 1]:
        start -= 1
    while stop < len(score) and off[stop]:
        stop += 1
    return start, stop


def name_kinds(
    cell: Cells,
    scale: Float[np.ndarray, " rows"],
    level: Float[np.ndarray, " rows"],
    found: Found,
    null: Null,
    taken: Float[np.ndarray, "rank pixels"],
) -> list[str]:
    """The kind of each row, all of which are flagged."""
    rest = cell.seen & ~found.covered
    count = rest.sum(1)
    enough = count > cell.taken + 1
    own = cell.z / np.maximum(scale, 1.0)[:, None]
    surprise = np.where(rest, null.surprise(own), 0.0).sum(1) / np.maximum(count, 1)
    log_p = np.full(len(count), -np.inf)
    log_p[enough] = log_tail(null, surprise[enough], (count - cell.taken)[enough], level[enough])
    observed = cell.seen.sum(1)
    deviation, of_rest = (_structure(cell.z, which, scale, null, taken) for which in (cell.seen, rest))
    normal_rest = (log_p > NORMAL_REST) & (of_rest < STRUCTURE)
    of_lines = found.covered.any(1) & (found.covered.sum(1) <= NARROW * observed) & normal_rest
    # the median of |z| has a standard deviation of 1.17 / sqrt(n) for normal z
    too_wide = (scale - 1.0) * np.sqrt(observed / null.inflation) / 1.17 > 3.0
    bad = (cell.seen & (np.abs(own) > BAD * null.scale)).any(1)
    return np.select(
        [of_lines, deviation > STRUCTURE, too_wide, bad], [LINES, FOREIGN, ERRORS, PIXELS], UNCLEAR
    ).tolist()


def _structure(
    z: Float[np.ndarray, "rows pixels"],
    which: Bool[np.ndarray, "rows pixels"],
    scale: Float[np.ndarray, " rows"],
    null: Null,
    taken: Float[np.ndarray, "rank pixels"],
) -> Float[np.ndarray, " rows"]:
    """`structure` of those cells, over the object's scale."""
    size = null.scale * np.maximum(scale, 1.0)[:, None]
    lag1 = lag_one(np.where(which, bounded(z / size), 0.0), which)
    return structure(null, lag1, neighbours(which), taken)


def measured(
    found: Found,
    cell: Cells,
    fit: Fit,
    covariance: Float[np.ndarray, "rows rank rank"],
    grid: Float[np.ndarray, " pixels"],
    rows: Int[np.ndarray, " rows"],
    ids: Shaped[np.ndarray, " rows"],
    null: Null,
) -> Windows:
    """Where each window is, how wide, and how deep: the Gaussian line that explains most of it."""
    if not found.windows:
        return no_windows(ids)
    row, start, stop, log_p = (np.array(x) for x in zip(*sorted(found.windows), strict=True))
    V = np.nan_to_num(covariance.astype(float)) / fit.unit**2
    lines = np.array([_line(cell, fit, V, null, *place) for place in zip(row, start, stop, strict=True)])
    middle, sigma, depth, depth_sd = lines.T
    pixel = np.arange(len(grid))
    step = np.abs(np.interp(middle + 0.5, pixel, grid) - np.interp(middle - 0.5, pixel, grid))
    centre, width = np.interp(middle, pixel, grid), FWHM * sigma * step
    return Windows(
        rows[row], ids[row], start, stop, centre, width, depth * fit.unit, depth_sd * fit.unit, log_p
    )


def _line(
    cell: Cells, fit: Fit, V: Float[np.ndarray, "rows rank rank"], null: Null, row: int, start: int, stop: int
) -> tuple[float, float, float, float]:
    """Centre and standard deviation [pixels], height and its error of the line in a window."""
    length = stop - start
    reach = slice(max(start - 2 * length, 0), stop + 2 * length)
    here = Cells(*(x[row : row + 1, reach] if x.ndim == 2 else x[row : row + 1] for x in cell))
    middle = np.linspace(start, stop - 1, min(2 * length, MOST_PLACES))
    middle, sigma = (x.ravel() for x in np.meshgrid(middle, length / BOXCAR * np.array(SHAPES)))
    pixel = np.arange(fit.basis.shape[1])[reach]
    T = np.exp(-0.5 * ((pixel - middle[:, None]) / sigma[:, None]) ** 2)
    sums = matched(T, here, fit.basis[:, reach].astype(float), V[row : row + 1], null)
    amplitude, sd = sums.amplitude[0], sums.amplitude_sd[0]
    # what is left above the model: of a line coefficients have taken little, of a foreign spectrum nearly all
    residual = np.where(here.seen, here.z * here.sd, 0.0)[0].astype(float)
    W = here.error[0].astype(float) ** -2.0
    seen = (T @ (W * residual)) / np.maximum(T**2 @ W, np.finfo(float).tiny)
    is_line = (amplitude * seen > 0.0) & (np.abs(amplitude) < MOST_TAKEN * np.abs(seen))
    gain = np.where(is_line, np.nan_to_num((amplitude / sd) ** 2), 0.0)
    if not gain.any():
        return 0.5 * (start + stop - 1), length / BOXCAR, np.nan, np.nan
    best = int(gain.argmax())
    return middle[best], sigma[best], amplitude[best], WITH_WIDTH * sd[best]
