"""Matched filters: is there anything at these positions, in all of them together?

A set of lines is one template T, a Gaussian at every position. Its amplitude in an object is the generalised
least-squares one, beside coefficients that are free to take up whatever the basis can explain of it:

    b = (T.W r - T.W G' V G W (1 - w) r) / (T.W T - T.W G' V G W.T),     W = 1 / predictive variance,

where the robust weights w of the fit have already left a strong line under the template unexplained. Widths
are tried in steps, and the best is interpolated between them. The statistic is a sum over bounded z, so that
one bad pixel is no line, and what its largest value over the widths is worth is learned from simulated null
objects. Of objects far from the population r and V are those under a population that holds them less
(`held_less`): their amplitudes are above that model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

from robusta_prob.data import Dataset, warn_user
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.scoring.calibration import Null, between_knots, q_values
from robusta_prob.scoring.evidence import level_of
from robusta_prob.scoring.manifold import yielded
from robusta_prob.scoring.predictive import Cells
from robusta_prob.scoring.runs import bounded
from robusta_prob.scoring.search import SIMULATED, null_scores

SIGMAS = (0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # widths that are tried, in pixels at the line
REACHED = 0.5  # share of a template's squared height that must be observed, however precise the pixels are
WITH_WIDTH = math.sqrt(1.5)  # sd of a Gaussian's fitted height, over that at a known width
RESERVED = {"object", "run", "p_value", "p_run", "p_pixel", "p_flag", "any"}  # names of other tests
SUPPORT = 0.05  # of a template's height, down to which its pixels count as the line's


class Line(NamedTuple):
    """One set of lines in all N objects, an entry of `Surprise.lines`; NaN where it is not observed.

    Attributes
    ----------
    amplitude : (N,) array
        Common height of the peaks above the model, in the user's flux unit; below 0 where they absorb.
    amplitude_sd : (N,) array
        Its standard deviation, as large as it is where the width is fitted as well [flux].
    width : (N,) array
        Standard deviation of the Gaussian profile that fits best, in units of the grid.
    z : (N,) array
        The normal deviate with that p-value for either sign; it has the sign of the amplitude.
    p_value : (N,) array
        P(as much at these positions | normal object), for either sign, corrected for the widths tried.
    q_value : (N,) array
        False-discovery rate if all objects up to this one are called.
    """

    amplitude: Float[np.ndarray, " objects"]
    amplitude_sd: Float[np.ndarray, " objects"]
    width: Float[np.ndarray, " objects"]
    z: Float[np.ndarray, " objects"]
    p_value: Float[np.ndarray, " objects"]
    q_value: Float[np.ndarray, " objects"]

    @property
    def log_p(self) -> Float[np.ndarray, " objects"]:
        """The logarithm of p_value [nats], where it underflows."""
        return math.log(2.0) + special.log_ndtr(-np.abs(self.z))

    def with_deviates(self, z: Float[np.ndarray, " objects"]) -> Line:
        """The same with other deviates, such as those against an empirical null, and their probabilities."""
        p = 2.0 * special.ndtr(-np.abs(z))
        return self._replace(z=z, p_value=p, q_value=q_values(p))

    def __repr__(self) -> str:
        return f"Line({len(self.z):,} objects, {int((self.q_value < 0.05).sum()):,} with q < 0.05)"


def checked_lines(lines: object, grid: Float[np.ndarray, " pixels"]) -> dict[str, np.ndarray]:
    """Sets of positions by name, inside the grid.

    Raises
    ------
    TypeError, ValueError
        If it is no mapping or sequence of finite numbers, or all of a set lie outside the grid.
    """
    if lines is None:
        return {}
    named = lines if isinstance(lines, Mapping) else {"lines": lines}
    if not isinstance(named, Mapping) or not named:
        raise TypeError(f"lines must be positions, or positions by name, in units of the grid; got {lines!r}")
    low, high = grid.min(), grid.max()
    out = {}
    if taken := sorted(set(map(str, named)) & RESERVED):
        raise ValueError(
            f"a set of lines may not be called {', '.join(map(repr, taken))}: these are other tests"
        )
    for name, positions in named.items():
        try:
            x = np.atleast_1d(np.asarray(positions, float))
        except (TypeError, ValueError):
            raise TypeError(
                f"lines[{name!r}] must be numbers in units of the grid, got {positions!r}"
            ) from None
        if x.ndim != 1 or not x.size or not np.isfinite(x).all():
            raise ValueError(f"lines[{name!r}] must be a list of finite positions, got {positions!r}")
        inside = x[(x >= low) & (x <= high)]
        if not inside.size:
            raise ValueError(
                f"lines[{name!r}] = {positions!r} lies outside the grid, {low:g} to {high:g}: in which unit "
                "are these positions, and are they vacuum or air wavelengths as the grid is?"
            )
        if len(inside) < len(x):
            dropped = ", ".join(f"{value:g}" for value in x[(x < low) | (x > high)])
            warn_user(f"lines[{name!r}]: {dropped} outside the grid, {low:g} to {high:g}, and left out")
        out[str(name)] = np.unique(inside)
    return out


def templates(
    positions: Float[np.ndarray, " lines"], grid: Float[np.ndarray, " pixels"]
) -> tuple[Float[np.ndarray, "widths pixels"], Float[np.ndarray, " widths"]]:
    """One template per width, of unit height, and the widths in units of the grid."""
    step = np.abs(np.gradient(grid))
    local = np.interp(positions, np.sort(grid), step[np.argsort(grid)])
    sigma = np.array(SIGMAS)[:, None, None] * local[:, None]
    profiles = np.exp(-0.5 * ((grid - positions[:, None]) / sigma) ** 2)
    return profiles.sum(1), np.array(SIGMAS) * local.mean()


class LineSums(NamedTuple):
    """Of one block of objects and one set: amplitude, its sd and the deviate, per width (rows, widths)."""

    amplitude: Float[np.ndarray, "rows widths"]
    amplitude_sd: Float[np.ndarray, "rows widths"]
    z: Float[np.ndarray, "rows widths"]


def matched(
    T: Float[np.ndarray, "widths pixels"],
    cell: Cells,
    G: Float[np.ndarray, "rank pixels"],
    V: Float[np.ndarray, "rows rank rank"],
    null: Null,
) -> LineSums:
    """Matched filters in residuals; V the covariance of the coefficients, all in units of `Fit.unit`."""
    inverse = 1.0 / cell.error.astype(float)
    W = inverse**2
    information = W @ (T**2).T
    reached = cell.seen @ (T**2).T / (T**2).sum(1)
    of_basis = np.einsum("nm,wm,km->nwk", W, T, G, optimize=True)
    carried = np.einsum("nwk,nkl->nwl", of_basis, V)
    left = information - (carried * of_basis).sum(2)
    known = (left > 0.05 * information) & (reached > REACHED)
    left = np.where(known, left, np.nan)
    residual = np.where(cell.seen, cell.z * cell.sd, 0.0).astype(float)
    unexplained = W * (1.0 - np.where(cell.seen, cell.weight, 1.0)) * residual
    support = (SUPPORT * T.max(1, keepdims=True) < T).astype(float)
    pull = np.einsum("nm,wm,km->nwk", unexplained, support, G, optimize=True)
    amplitude = ((W * residual) @ T.T - (carried * pull).sum(2)) / left
    score = np.where(cell.seen, bounded(cell.z / null.scale) * cell.sd * W, 0.0)
    return LineSums(amplitude, null.scale / np.sqrt(left), score @ T.T / np.sqrt(left))


def combined(
    sums: LineSums,
    widths: Float[np.ndarray, " widths"],
    laws: Sequence[LineLaw],
    weights: Float[np.ndarray, "laws objects"],
) -> tuple[Float[np.ndarray, " objects"], ...]:
    """Amplitude, sd and width where most is explained; z and p of the most telling width, per object.

    The law of an object is the mean of `laws` with these weights.
    """
    size = np.nan_to_num(np.abs(sums.z), nan=-1.0)
    rows, told = np.arange(len(size)), size.argmax(1)
    amplitude, sd, width = _at_best_width(sums, widths)
    most = size[rows, told]
    deviate = between_knots(weights, lambda knot, some: laws[knot].deviate_of(most[some]))
    log_p = special.log_ndtr(-deviate)
    return tuple(
        np.where(most >= 0, x, np.nan)
        for x in (
            amplitude,
            sd,
            width,
            -np.sign(amplitude) * special.ndtri_exp(special.log_ndtr(-deviate) - math.log(2.0)),
            np.exp(log_p),
        )
    )


def _at_best_width(
    sums: LineSums, widths: Float[np.ndarray, " widths"]
) -> tuple[Float[np.ndarray, " objects"], ...]:
    """Amplitude, its sd and the width at which a line explains most, between the widths that are tried."""
    # scores are bounded and a strong line is not: they would choose too wide a profile for it
    gain = np.nan_to_num((sums.amplitude / sums.amplitude_sd) ** 2, nan=-1.0)
    best = gain.argmax(1)
    near = np.clip(best, 1, len(widths) - 2)[:, None] + np.arange(-1, 2)
    whole = (np.take_along_axis(gain, near, 1) >= 0).all(1, keepdims=True)
    near = np.where(whole, near, best[:, None])
    three, nearby = np.log(widths)[near], np.take_along_axis(gain, near, 1)
    first, second = _differences(three, nearby)
    curved = second < 0
    vertex = 0.5 * (three[:, 0] + three[:, 1] - first / np.where(curved, second, 1.0))
    top = np.where(curved, np.clip(vertex, three[:, 0], three[:, 2]), np.log(widths[best]))

    def there(values: Float[np.ndarray, "objects widths"]) -> Float[np.ndarray, " objects"]:
        known = np.take_along_axis(values, near, 1)
        first, second = _differences(three, known)
        return known[:, 0] + (top - three[:, 0]) * (first + second * (top - three[:, 1]))

    return there(sums.amplitude), WITH_WIDTH * there(sums.amplitude_sd), np.exp(top)


def _differences(
    x: Float[np.ndarray, "rows 3"], y: Float[np.ndarray, "rows 3"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Newton's divided differences of the parabola through three points; 0 where they are one point."""
    step = np.where(np.diff(x, axis=1) > 0, np.diff(x, axis=1), 1.0)
    slope = np.diff(y, axis=1) / step
    return slope[:, 0], (slope[:, 1] - slope[:, 0]) / step.sum(1)


class LineLaw(NamedTuple):
    """What the largest |z| over the widths is worth: the normal deviate with its p-value, by simulation."""

    level: Float[np.ndarray, " levels"]
    deviate: Float[np.ndarray, " levels"]

    def deviate_of(self, size: Float[np.ndarray, " objects"]) -> Float[np.ndarray, " objects"]:
        """Interpolated, and beyond the last level by the slope before it."""
        slope = np.polyfit(self.level[-20:], self.deviate[-20:], 1)[0]
        return np.interp(size, self.level, self.deviate) + slope * np.maximum(size - self.level[-1], 0.0)


def line_laws(null: Null, T: Float[np.ndarray, "widths pixels"]) -> list[LineLaw]:
    """Calibrate a set of lines by simulated null objects with equal errors around them, knot by knot."""
    near = np.ascontiguousarray(T[:, T.max(0) > 1e-3])
    return _line_laws(null, near.tobytes(), near.shape[1])


@lru_cache(maxsize=16)  # a recovery asks for the same ones again and again
def _line_laws(null: Null, templates: bytes, pixels: int) -> list[LineLaw]:
    near = np.frombuffer(templates).reshape(-1, pixels)
    rows = min(20_000, SIMULATED // near.shape[1])
    above = 1.0 - (np.arange(rows) + 0.5) / rows
    at = np.unique(np.searchsorted(-above, -np.geomspace(0.98, 20.0 / rows, 80)))
    laws = {}
    for knot, score in null_scores(null, rows, near.shape[1]):
        level = np.sort(np.abs(score @ near.T / np.sqrt((near**2).sum(1))).max(1))
        level, first = np.unique(level[at], return_index=True)
        laws[knot] = LineLaw(level, -special.ndtri(above[at][first]))
    return [laws[knot] for knot in null.knots]


def held_less(
    fit: Fit, block: Cells, projection: Projection
) -> tuple[Cells, Float[np.ndarray, "rows rank rank"]]:
    """A block in which far objects are not drawn to the population, and the covariance of coefficients."""
    far, z, covariance = yielded(fit, projection), block.z.copy(), projection.covariance.copy()
    covariance[far.rows] = far.covariance
    shift = far.shift @ fit.basis / fit.unit
    z[far.rows] -= np.where(block.seen[far.rows], shift / block.sd[far.rows], 0.0).astype(z.dtype)
    return block._replace(z=z), covariance


class LineSearch:
    """One set of lines, looked for block by block."""

    def __init__(self, fit: Fit, data: Dataset, null: Null, positions: Float[np.ndarray, " lines"]) -> None:
        self._T, self._widths = templates(positions, data.grid)
        self._fit, self._null, self._laws = fit, null, line_laws(null, self._T)
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, block: Cells, covariance: Float[np.ndarray, "rows rank rank"]) -> None:
        """Look at the next block, see `held_less`."""
        covariance = np.nan_to_num(covariance.astype(float)) / self._fit.unit**2
        sums = matched(self._T, block, self._fit.basis.astype(float), covariance, self._null)
        weights = self._null.weights(len(block.z), level_of(block, self._fit.unit))
        self._parts.append(combined(sums, self._widths, self._laws, weights))

    def result(self) -> Line:
        """Of all objects so far."""
        amplitude, sd, width, z, p = (np.concatenate(x) for x in zip(*self._parts, strict=True))
        return Line(amplitude * self._fit.unit, sd * self._fit.unit, width, z, p, q_values(p))
