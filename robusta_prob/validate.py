"""What may enter a `Dataset`: real numbers in consistent units, unique ids; and what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

_ROWS_AT_ONCE = 4096  # `clean` works on this many rows, so it never doubles the memory
_TYPICAL_ROWS = 256  # whose typical flux is that of all
_SMALLEST_FLOAT32_UNIT = 2.0**-100  # whose inverse float32 holds, with room for fluxes of other sizes
_LARGEST_EXPONENT = 511  # the squares of 2**511 and 2**-511 are normal float64


class Census(NamedTuple):
    """What validation found, in numbers of cells, objects and pixels.

    The contradictions (non-finite flux, negative or non-finite ivar) belong to the validation of the
    input: they are 0 in a part that was taken of a data set.
    """

    observed: int  # cells with a finite flux and a positive, finite inverse variance
    missing: int  # all other cells, whatever the reason
    flux_not_finite: int  # NaN or infinite flux under a positive inverse variance
    ivar_negative: int
    ivar_not_finite: int  # infinite inverse variance, or NaN under a finite flux
    empty_objects: int  # rows without one observed cell
    empty_pixels: int  # columns without one observed cell

    def __str__(self) -> str:
        total = max(self.observed + self.missing, 1)
        text = f"{self.observed:,} of {total:,} cells observed ({100 * self.missing / total:.2f} % missing)"
        odd = [
            (self.flux_not_finite, "with a non-finite flux under a positive ivar"),
            (self.ivar_negative, "with a negative ivar"),
            (self.ivar_not_finite, "with a non-finite ivar"),
        ]
        text += "".join(f"; {count:,} cells {what}" for count, what in odd if count)
        empty = [(self.empty_objects, "object"), (self.empty_pixels, "pixel")]
        return text + "".join(f"; {count:,} {what}s without data" for count, what in empty if count)


def check_real(name: str, values: Any) -> np.ndarray:
    """`values` as a plain array of real numbers; what lies under a mask is kept."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def strip_units(flux: Any, ivar: Any) -> tuple[Any, Any, str]:
    """Plain flux, ivar in the unit of flux^-2, and the name of the flux' unit ("" where there is none).

    Anything with `.unit` and `.to_value` counts as an astropy Quantity.
    """
    if is_quantity(flux) != is_quantity(ivar):
        has, lacks = ("flux", "ivar") if is_quantity(flux) else ("ivar", "flux")
        unit = str(flux.unit if has == "flux" else ivar.unit) or "dimensionless"
        raise ValueError(
            f"{has} has a unit ({unit}) and {lacks} has none: give {lacks} its unit too (ivar has that of "
            f"flux**-2), or pass plain numbers for both: {has}.value"
        )
    if not is_quantity(flux):
        return flux, ivar, ""
    try:
        factor = float(ivar.unit.to(flux.unit**-2))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"ivar must be in the unit of flux**-2 = ({flux.unit})**-2, got ivar in {ivar.unit}: {error}"
        ) from error
    weights = without_unit(ivar)
    if factor != 1.0:  # in float64: 1e34 in float32 would overflow
        weights = np.multiply(weights, factor, dtype=np.float64)
    return without_unit(flux), weights, str(flux.unit)


def is_quantity(values: Any) -> bool:
    """Whether `values` carry a unit as astropy's Quantity does."""
    return hasattr(values, "unit") and hasattr(values, "to_value")


def without_unit(quantity: Any) -> np.ndarray:
    """The numbers of a Quantity, in its own unit; astropy's mask becomes NumPy's."""
    values = quantity.to_value(quantity.unit)
    return np.ma.array(values.unmasked, mask=values.mask) if hasattr(values, "unmasked") else values


def label(name: str, unit: str) -> str:
    """An axis label: "flux [Jy]", or the name alone where there is no unit."""
    return f"{name} [{unit}]" if unit else name


def check_unmasked(name: str, values: Any) -> np.ndarray:
    """`values` as a plain array, if no entry is masked: only flux and ivar may have holes."""
    masked = int(np.ma.count_masked(values)) if isinstance(values, np.ma.MaskedArray) else 0
    if masked:
        raise ValueError(
            f"{name} has {masked} masked entries; fill them, or leave those objects or pixels out"
        )
    return np.asarray(values)


def check_grid(grid: Any, m: int) -> Float[np.ndarray, " pixels"]:
    """A frozen copy of `grid`, if it holds `m` finite coordinates."""
    coordinates = check_real("grid", check_unmasked("grid", grid)).astype(float)
    finite = np.isfinite(coordinates)
    if coordinates.shape != (m,) or not finite.all():
        raise ValueError(
            f"grid must hold one finite coordinate per pixel, shape ({m},), got shape {coordinates.shape}, "
            f"{coordinates.size - finite.sum()} of them not finite"
        )
    return frozen(coordinates)


def check_columns(meta: Mapping[str, Any] | None, n: int) -> dict[str, Shaped[np.ndarray, "objects ..."]]:
    """Frozen copies of the columns, if each has one entry for each of `n` objects."""
    columns = {}
    for name, column in ({} if meta is None else meta).items():
        entries = check_unmasked(f"meta[{str(name)!r}]", column)
        if entries.shape[:1] != (n,):
            raise ValueError(
                f"meta[{str(name)!r}] must have one entry per object ({n}), got shape {entries.shape}"
            )
        columns[str(name)] = frozen(entries)
    return columns


def check_ids(ids: Any, n: int) -> Shaped[np.ndarray, " objects"]:
    """`ids`, bytes as text, if they are `n` unique integers or strings; 0..n-1 for None."""
    ids = check_unmasked("ids", np.arange(n) if ids is None else ids)
    if ids.shape != (n,):
        raise ValueError(f"ids must have one entry per object, shape ({n},), got shape {ids.shape}")
    if ids.dtype.kind == "O" and all(isinstance(name, str) for name in ids):
        ids = ids.astype(str)  # a column of a pandas table
    if ids.dtype.kind not in "iuUS":
        raise TypeError(f"ids must be integers or strings (floats lose digits), got dtype {ids.dtype}")
    ids = as_str(ids)
    values, counts = np.unique(ids, return_counts=True)
    repeated = values[counts > 1]
    if len(repeated):
        some = ", ".join(str(value) for value in repeated[:3])
        raise ValueError(f"ids must be unique, but {len(repeated)} occur more than once, such as {some}")
    return ids


def as_str(array: np.ndarray) -> np.ndarray:
    """`array`, with byte strings as text (bytes that are no UTF-8 are escaped)."""
    return np.char.decode(array, "utf-8", "backslashreplace") if array.dtype.kind == "S" else array


def check_unit(unit: float) -> float:
    """`unit`, if it is a power of two whose square and inverse square float64 can hold."""
    unit = float(unit)
    mantissa, exponent = math.frexp(unit)  # a power of two is 0.5 * 2**exponent
    if mantissa != 0.5 or abs(exponent - 1) > _LARGEST_EXPONENT:
        limits = f"from 2**-{_LARGEST_EXPONENT} to 2**{_LARGEST_EXPONENT}"
        raise ValueError(f"unit must be a positive power of two, {limits}, got {unit!r}")
    return unit


def sampling(n: int) -> int:
    """Of `n` rows every so many tell the typical flux."""
    return max(1, n // _TYPICAL_ROWS)


def choose_unit(flux: np.ndarray, ivar: np.ndarray) -> float:
    """The power of two nearest to the typical size of an observed flux; 1 where there is none."""
    rows = slice(None, None, sampling(len(flux)))
    some, weight = np.asarray(flux[rows], float), np.asarray(ivar[rows], float)
    seen = np.isfinite(some) & np.isfinite(weight) & (weight > 0) & (some != 0)
    if not seen.any():
        return 1.0
    exponent = round(float(np.median(np.log2(np.abs(some[seen])))))
    if abs(exponent) > _LARGEST_EXPONENT:
        size = f"1e{round(exponent * math.log10(2))}"
        raise ValueError(
            f"the typical flux is about {size}, and its square is beyond float64; rescale the flux: "
            f"divide it and its errors by {size} before you compute ivar = 1 / error**2"
        )
    return 2.0**exponent


def clean(
    flux: np.ndarray, ivar: np.ndarray, unit: float, dtype: np.dtype
) -> tuple[
    Float[np.ndarray, "objects pixels"],
    Float[np.ndarray, "objects pixels"],
    Int[np.ndarray, " objects"],
    Census,
]:
    """Holes as zeros, everything in units of `unit`; observed cells per object, and what was found."""
    flux_out, ivar_out = aligned(flux.shape, dtype), aligned(flux.shape, dtype)
    odd = np.zeros(3, int)
    for start in range(0, len(flux), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        odd += contradictions(flux[rows], ivar[rows])
        clean_into(flux_out[rows], ivar_out[rows], flux[rows], ivar[rows], unit)
    flux_out.flags.writeable = ivar_out.flags.writeable = False
    n_observed, census = count(ivar_out)
    return flux_out, ivar_out, n_observed, with_contradictions(census, odd)


def contradictions(flux: np.ndarray, ivar: np.ndarray) -> Int[np.ndarray, " three"]:
    """Cells with a non-finite flux under a positive ivar, with a negative and with a non-finite ivar."""
    finite, weight_finite = np.isfinite(flux), np.isfinite(ivar)
    return np.array(
        [
            np.count_nonzero(~finite & weight_finite & (ivar > 0)),
            np.count_nonzero(weight_finite & (ivar < 0)),
            np.count_nonzero(np.isinf(ivar) | (finite & np.isnan(ivar))),
        ]
    )


def with_contradictions(census: Census, odd: Int[np.ndarray, " three"]) -> Census:
    """The census with what `contradictions` counted."""
    flux_odd, negative, ivar_odd = map(int, odd)
    return census._replace(flux_not_finite=flux_odd, ivar_negative=negative, ivar_not_finite=ivar_odd)


def clean_into(
    flux_out: np.ndarray, ivar_out: np.ndarray, flux: np.ndarray, ivar: np.ndarray, unit: float
) -> None:
    """Write these rows in units of `unit`, holes as zeros."""
    seen = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
    least = flux_out.dtype if _SMALLEST_FLOAT32_UNIT <= unit <= 1.0 / _SMALLEST_FLOAT32_UNIT else np.float64
    y, w = (x.astype(np.result_type(x, least), copy=False) for x in (flux, ivar))
    back, there = y.dtype.type(1.0 / unit), w.dtype.type(unit)  # a power of two: exact
    with np.errstate(over="ignore", under="ignore"):
        flux_out[...] = np.where(seen, y, y.dtype.type(0)) * back
        ivar_out[...] = np.where(seen, w, w.dtype.type(0)) * there * there  # unit^2 alone may be too small
    check_range(flux_out, ivar_out, seen, unit)


def cleaned(
    flux: np.ndarray, ivar: np.ndarray, unit: float, dtype: np.dtype
) -> tuple[Float[np.ndarray, "rows pixels"], Float[np.ndarray, "rows pixels"]]:
    """These rows alone, as `clean` has them."""
    flux_out, ivar_out = aligned(flux.shape, dtype), aligned(flux.shape, dtype)
    clean_into(flux_out, ivar_out, flux, ivar, unit)
    return flux_out, ivar_out


def check_range(flux: np.ndarray, ivar: np.ndarray, seen: np.ndarray, unit: float) -> None:
    """Refuse what the dtype cannot hold in units of `unit`; an ivar that became subnormal is lost in JAX."""
    dtype = ivar.dtype
    advice = "pass dtype='float64'" if dtype == np.float32 else "choose another unit, or set ivar = 0 there"
    if not (np.isfinite(flux).all() and np.isfinite(ivar).all()):
        raise ValueError(f"flux/{unit:g} or ivar*{unit**2:g} overflows {dtype}; {advice}")
    if (seen & (ivar < np.finfo(dtype).tiny)).any():
        raise ValueError(f"ivar*{unit**2:g} underflows {dtype} in observed cells; {advice}")


def count(ivar: Float[np.ndarray, "objects pixels"]) -> tuple[Int[np.ndarray, " objects"], Census]:
    """Observed cells per object, and the census, of validated inverse variances."""
    n_observed, pixel_seen = np.empty(len(ivar), np.int64), np.zeros(ivar.shape[1], bool)
    for start in range(0, len(ivar), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        seen = ivar[rows] > 0
        n_observed[rows] = seen.sum(1)
        pixel_seen |= seen.any(0)
    return frozen(n_observed), census_of(n_observed, pixel_seen)


def census_of(n_observed: Int[np.ndarray, " objects"], pixel_seen: Bool[np.ndarray, " pixels"]) -> Census:
    """The census of cells that do not contradict themselves."""
    observed, empty_objects, empty_pixels = (int(x.sum()) for x in (n_observed, n_observed == 0, ~pixel_seen))
    missing = len(n_observed) * len(pixel_seen) - observed
    return Census(observed, missing, 0, 0, 0, empty_objects, empty_pixels)


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array on a 64-byte boundary, which JAX on a CPU then reads without a copy."""
    buffer = np.empty(math.prod(shape) * dtype.itemsize + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + buffer.size - 64].view(dtype).reshape(shape)


def take_rows(leaf: Any, rows: Shaped[np.ndarray, " some"]) -> Float[np.ndarray, "some pixels"]:
    """A frozen, aligned copy of the rows with these indices."""
    leaf = np.asarray(leaf)
    taken = aligned((len(rows), *leaf.shape[1:]), leaf.dtype)
    np.take(leaf, rows, axis=0, out=taken, mode="clip")  # the indices are valid, and "raise" would buffer
    taken.flags.writeable = False
    return taken


def frozen(values: Any) -> Shaped[np.ndarray, "..."]:
    """A private, C-contiguous copy that refuses to be written to."""
    array = np.array(values, order="C")
    array.flags.writeable = False
    return array
