"""`inject`: put known anomalies into objects, to learn which of them the scores would find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from robusta_prob import validate
from robusta_prob.data import Dataset
from robusta_prob.inference.checks import check_data, check_types, seed_of
from robusta_prob.scoring.anomalies import KINDS, Block, moved

ROWS = 1024  # objects at once, in float64


class Injected(NamedTuple):
    """Data with anomalies in R of the N objects; the rest, and ids, errors, holes and grid, are as before.

    Attributes
    ----------
    data : Dataset
        All N objects, in memory.
    rows : (R,) array of int
        Into which of them something was put; the arrays that follow are in this order.
    kind : (R,) array of str
        What.
    amplitude : (R,) array
        In the unit of the kind, see `rp.inject`.
    strength : (R,) array
        sqrt(sum_j ivar_j d_j^2) of what was added [sigma].
    position : (R, positions) array
        Of lines, or of the middle of a segment, in units of the grid; (R, 0) for other kinds.
    donor : (R,) array of int
        Row of the object whose spectrum was added; -1 where none was.
    """

    data: Dataset
    rows: Int[np.ndarray, " rows"]
    kind: Shaped[np.ndarray, " rows"]
    amplitude: Float[np.ndarray, " rows"]
    strength: Float[np.ndarray, " rows"]
    position: Float[np.ndarray, "rows positions"]
    donor: Int[np.ndarray, " rows"]

    @property
    def labels(self) -> Shaped[np.ndarray, " objects"]:
        """What was put into each object of `data`; "" where nothing was."""
        out = np.full(self.data.shape[0], "", self.kind.dtype)
        out[self.rows] = self.kind
        return out


def inject(
    data: Dataset,
    kind: str,
    amplitude: float | tuple[float, float] | Sequence[float] | Float[np.ndarray, " rows"],
    *,
    key: Array | int,
    rows: Int[np.ndarray, " rows"] | Bool[np.ndarray, " objects"] | Sequence[int] | None = None,
    clean: Float[np.ndarray, "objects pixels"] | None = None,
    width: float | None = None,
    positions: float | Sequence[float] | Float[np.ndarray, "rows positions"] | None = None,
    shift: float = 0.0,
) -> Injected:
    """Add an anomaly d to the flux of some objects; errors, holes, ids and all other objects stay.

    Where the object's flux f comes in, it is its row of `clean`, or else the measured one, noise and all;
    holes are bridged linearly. L is the median of |f| over the object's observed pixels, j counts pixels.

    ==================  ===============================================  =====================================
    kind                d_j                                              amplitude a
    ==================  ===============================================  =====================================
    "emission line"     a L exp(-(j - c)^2 / 2 width^2)                  height over L, >= 0
    "absorption line"   the same, negative                               depth over L, >= 0
    "line set"          the sum over several c                           height over L; absorption: < 0
    "second spectrum"   a f'_(j - shift) L/L' of another object          flux ratio, >= 0
    "shifted segment"   f_(j - a) - f_j over `width` pixels              pixels to the right; to the left: < 0
    "scaled noise"      Normal(0, (a^2 - 1) / ivar_j)                    true over stated errors, >= 1
    "foreign spectrum"  a (L (1 + 0.3 g_j) - f_j), g smooth noise        share of the flux, 0 to 1
    ==================  ===============================================  =====================================

    Between pixels, spectra are interpolated linearly. Without `clean`, a second spectrum brings its own
    noise, a segment takes its noise along, and a foreign spectrum gets what noise the object's share loses.
    A second spectrum with `shift = 0` lies in the span of normal spectra: residuals cannot show it.

    Parameters
    ----------
    data : Dataset
        N objects x M pixels. Data on disk are loaded whole: give `data.take(rows)` where they do not fit.
    kind : str
        One of the above.
    amplitude : float, (low, high) or (rows,) array
        For all objects; or, as a tuple of two, drawn log-uniformly between them; or one per object.
    key : JAX key or int
        Places, donors and noise depend on it and on `rows`, not on the amplitude.
    rows : indices or mask, optional
        Into which objects; by default all that have an observed pixel.
    clean : (N, M) array, optional
        Flux without noise in the user's unit, such as `rp.reconstruct(fit, data)`. NaN counts as a hole.
    width : float, optional
        Standard deviation of lines (default 2), length of a segment (default M / 8), or correlation length
        of a foreign spectrum, the deviation of the Gaussian that smooths it (default M / 50) [pixels].
    positions : float, (positions,) or (rows, positions) array, optional
        Of lines, or of a segment's middle [grid]; a kind with one position takes a number, or one per object.
        By default at random where the object is observed, three of them in a line set.
    shift : float
        Of the second spectrum [pixels].

    Returns
    -------
    Injected
        `.data` in memory, and of each of the R objects of `.rows` what was put in: `.kind`, `.amplitude`,
        `.strength` [sigma], `.position` [grid] and `.donor`.

    Raises
    ------
    ValueError
        On an unknown kind, an argument that is out of range or that the kind does not have, an object
        without observed pixels, or flux beyond the range of the data's dtype.
    TypeError
        If `data` is no Dataset, or an argument is no number.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.toy(200, 150, seed=1).data
    >>> found = rp.inject(data, "absorption line", (0.05, 0.5), key=0, rows=[3, 8])
    >>> found.data.shape, found.position.shape, found.kind.tolist()
    ((200, 150), (2, 1), ['absorption line', 'absorption line'])
    """
    check_data(data)
    check_types(None, None, None, key)
    data = data.load()
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}; got {kind!r}")
    recipe = KINDS[kind]
    index = _checked_rows(data, rows)
    for_amplitude, for_place, for_donor, rng = np.random.default_rng(seed_of(key)).spawn(4)
    a = _checked_amplitude(kind, amplitude, len(index), for_amplitude)
    width = _checked_width(kind, width, data.shape[1])
    if shift and kind != "second spectrum":
        raise ValueError(f"shift belongs to the kind 'second spectrum', and kind is {kind!r}: leave it out")
    if not math.isfinite(shift):
        raise ValueError(f"shift must be a finite number of pixels, got {shift}")
    if clean is not None and np.shape(clean) != data.shape:
        raise ValueError(
            f"clean must have the shape of data, {data.shape}, got {np.shape(clean)}; "
            "rp.reconstruct(fit, data) has it"
        )
    centre = _checked_positions(kind, positions, data, index, for_place)
    if kind == "shifted segment":
        first = np.clip(np.rint(centre - 0.5 * (width - 1.0)), 0.0, data.shape[1] - width)
        centre = first + 0.5 * (width - 1.0)
    donor = _donors(data, index, for_donor) if kind == "second spectrum" else np.full(len(index), -1)

    flux = validate.aligned(data.shape, data.dtype)
    flux[...] = data.flux
    strength = np.empty(len(index))
    for start in range(0, len(index), ROWS):
        here = slice(start, start + ROWS)
        some = index[here]
        ivar = np.asarray(data.ivar[some], float)
        seen = ivar > 0
        sigma = np.where(seen, 1.0 / np.sqrt(np.where(seen, ivar, 1.0)), 0.0)
        own, level = _bridged(data, clean, some)
        other = None
        if kind == "second spectrum":
            other, its_level = _bridged(data, clean, donor[here])
            other = moved(other, np.full(len(some), shift))
            other *= (level / np.where(its_level > 0, its_level, np.inf))[:, None]
        block = Block(own, level[:, None], sigma, clean is None, centre[here], width, other, rng)
        d = np.where(seen, recipe.added(a[here, None], block), 0.0)
        strength[here] = np.sqrt((ivar * d**2).sum(1))
        with np.errstate(over="ignore"):
            flux[some] = flux[some] + d
        validate.check_range(flux[some], data.ivar[some], seen, data.unit)
    flux.flags.writeable = False
    grid = np.interp(centre, np.arange(len(data.grid)), data.grid)
    return Injected(
        Dataset(flux, data.ivar, data.labels), index, np.full(len(index), kind), a, strength, grid, donor
    )


def _bridged(
    data: Dataset, clean: Float[np.ndarray, "objects pixels"] | None, rows: Int[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, "rows pixels"], Float[np.ndarray, " rows"]]:
    """Flux of some objects in units of `data.unit`, holes bridged, and its median size where observed."""
    seen = data.ivar[rows] > 0
    flux = np.asarray(data.flux[rows] if clean is None else np.asarray(clean)[rows] / data.unit, float)
    known = seen if clean is None else np.isfinite(flux)
    if not (known & seen).any(1).all():
        raise ValueError("clean has no finite flux where some object is observed: leave that object out")
    level = np.nanmedian(np.where(known & seen, np.abs(flux), np.nan), axis=1)
    flux = np.where(known, flux, 0.0)
    pixel = np.arange(flux.shape[1])
    for i in np.flatnonzero(~known.all(1)):
        flux[i] = np.interp(pixel, pixel[known[i]], flux[i, known[i]])
    return flux, level


def _donors(
    data: Dataset, rows: Int[np.ndarray, " rows"], rng: np.random.Generator
) -> Int[np.ndarray, " rows"]:
    """Another object for each."""
    seen = np.flatnonzero(data.n_observed > 0)
    if len(seen) < 2:
        raise ValueError("a second spectrum needs another object with observed pixels, and data has none")
    pick = rng.integers(0, len(seen) - 1, len(rows))
    return seen[pick + (pick >= np.searchsorted(seen, rows))]


def _checked_rows(data: Dataset, rows: Any) -> Int[np.ndarray, " rows"]:
    n = data.shape[0]
    if rows is None:
        index = np.flatnonzero(data.n_observed > 0)
    else:
        chosen = np.atleast_1d(np.asarray(rows))
        index = np.arange(n)[chosen if chosen.size else chosen.astype(int)]
    if not len(index):
        raise ValueError(f"rows selects none of the {n} objects with observed pixels: nothing to inject into")
    if len(np.unique(index)) < len(index):
        raise ValueError("rows names an object twice; inject one anomaly at a time")
    if empty := int((data.n_observed[index] == 0).sum()):
        raise ValueError(f"{empty} of the rows have no observed pixel; leave them out: data.n_observed > 0")
    return index


def _checked_amplitude(
    kind: str, amplitude: Any, n: int, rng: np.random.Generator
) -> Float[np.ndarray, " rows"]:
    least, most = KINDS[kind].least, KINDS[kind].most
    a = _numbers("amplitude", amplitude)
    if ((a < least) | (a > most)).any():
        raise ValueError(
            f"amplitude of {kind!r} must lie between {least:g} and {most:g}, see rp.inject; got {amplitude!r}"
        )
    if isinstance(amplitude, tuple):
        if a.shape != (2,) or a[0] * a[1] <= 0 or abs(a[0]) > abs(a[1]):
            raise ValueError(
                f"amplitude as a tuple must be (low, high), of one sign and not 0; got {amplitude!r}"
            )
        return a[0] * (a[1] / a[0]) ** rng.random(n)
    if a.shape not in ((), (n,)):
        raise ValueError(
            f"amplitude must be a number, a tuple (low, high) or one per object, ({n},); got shape {a.shape}"
        )
    return np.broadcast_to(a, (n,)).copy()


def _checked_width(kind: str, width: Any, m: int) -> float:
    default = KINDS[kind].width
    if default is None:
        if width is not None:
            raise ValueError(f"kind {kind!r} has no width: leave it out")
        return 0.0
    if width is None:
        return default(m)
    number = _numbers("width", width)
    whole = kind != "shifted segment" or (number >= 1 and number == np.rint(number))
    if number.ndim or not 0 < number <= m or not whole:
        what = "a whole number of pixels" if kind == "shifted segment" else "in pixels, above 0"
        raise ValueError(f"width of {kind!r} must be {what}, at most the {m} of the data; got {width!r}")
    return float(number)


def _checked_positions(
    kind: str, positions: Any, data: Dataset, rows: Int[np.ndarray, " rows"], rng: np.random.Generator
) -> Float[np.ndarray, "rows positions"]:
    """In pixels, given or drawn."""
    wanted, n, m = KINDS[kind].positions, len(rows), data.shape[1]
    if positions is None:
        chance = rng.random((2, n, wanted))
        centre = np.empty((n, wanted))
        for i, row in enumerate(rows if wanted else ()):
            seen = np.flatnonzero(data.ivar[row] > 0)
            centre[i] = seen[(chance[0, i] * len(seen)).astype(int)]
        return np.clip(centre + chance[1] - 0.5, 0.0, m - 1.0)
    if not wanted:
        raise ValueError(f"kind {kind!r} has no positions: leave them out")
    x = _numbers("positions", positions)
    if wanted == 1:
        fits, shapes = x.shape in ((), (n,), (n, 1)), f"a number, or one per object, ({n},)"
        x = x.reshape(-1, 1)
    else:
        fits = x.size > 0 and (x.ndim < 2 or (x.ndim == 2 and len(x) == n))
        shapes = f"numbers, (positions,), or per object, ({n}, positions)"
        x = np.atleast_1d(x)
    if not fits:
        raise ValueError(f"positions of {kind!r} must be {shapes}; got shape {np.shape(positions)}")
    low, high = data.grid.min(), data.grid.max()
    if ((x < low) | (x > high)).any():
        raise ValueError(f"positions must lie on the grid, from {low:g} to {high:g}; got {positions!r}")
    order = np.argsort(data.grid)
    pixel = np.interp(x, data.grid[order], order.astype(float))
    return np.broadcast_to(pixel, (n, pixel.shape[-1]))


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        x = np.asarray(values, float)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or numbers, got {values!r}") from None
    if not np.isfinite(x).all():
        raise ValueError(f"{name} must be finite, got {values!r}")
    return x
