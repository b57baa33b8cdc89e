"""What the data are: a matrix of flux with inverse variances and holes, validated once."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from robusta_prob import validate


class DataWarning(UserWarning):
    """The input contradicts itself in places; those cells are treated as missing."""


def warn_user(message: str) -> None:
    """A `DataWarning` at the user's own line: the first that is outside this package (and `contextlib`)."""
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in (__package__, "contextlib"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DataWarning, stacklevel=level)


def warn_of_contradictions(census: validate.Census) -> None:
    """Say so, if there are any."""
    if census.flux_not_finite or census.ivar_negative or census.ivar_not_finite:
        warn_user(f"contradictory cells are treated as missing: {census}")


@dataclass(frozen=True, eq=False)
class Labels:
    """The host side of a `Dataset`. Compared by identity, so that JAX can carry it as static."""

    grid: Float[np.ndarray, " pixels"]
    ids: Shaped[np.ndarray, " objects"]
    meta: Mapping[str, Shaped[np.ndarray, "objects ..."]]
    unit: float
    grid_name: str
    flux_name: str
    census: validate.Census
    n_observed: Int[np.ndarray, " objects"]

    def take(self, index: Int[np.ndarray, " some"]) -> Labels:
        """Those of some objects; the counts are left to whoever has the cells."""
        columns = {name: validate.frozen(column[index]) for name, column in self.meta.items()}
        return replace(self, ids=validate.frozen(self.ids[index]), meta=columns)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Dataset:
    """N objects x M pixels of flux with inverse variances; make one with `dataset` or `read`.

    The leaves `flux` and `ivar` are divided by one power of two, `unit` (exact, and it keeps fluxes of
    1e-17 with inverse variances of 1e38 within float32). Missing cells have `flux == 0` and
    `ivar == 0`: no NaN ever enters traced code. Everything else stays on the host and is never traced,
    so that 64-bit ids survive. All arrays are private copies that refuse to be written to.

    Attributes
    ----------
    flux, ivar : (N, M) arrays
        In units of `unit` and `unit**-2`.
    """

    flux: Float[np.ndarray, "objects pixels"]
    ivar: Float[np.ndarray, "objects pixels"]
    labels: Labels = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """(objects, pixels)."""
        n, m = self.flux.shape
        return n, m

    @property
    def dtype(self) -> np.dtype:
        """The dtype of flux and ivar, and of whatever is fitted to them."""
        return np.dtype(self.flux.dtype)

    @property
    def grid(self) -> Float[np.ndarray, " pixels"]:
        """Pixel coordinates, by default 0..M-1."""
        return self.labels.grid

    @property
    def ids(self) -> Shaped[np.ndarray, " objects"]:
        """Unique identifier of each object, by default 0..N-1."""
        return self.labels.ids

    @property
    def meta(self) -> Mapping[str, np.ndarray]:
        """Further per-object columns by name, read-only."""
        return MappingProxyType(self.labels.meta)

    @property
    def unit(self) -> float:
        """The power of two, in the user's flux unit, in which the leaves are stored."""
        return self.labels.unit

    @property
    def census(self) -> validate.Census:
        """Counts of missing and contradictory cells, empty objects and empty pixels."""
        return self.labels.census

    @property
    def observed(self) -> Bool[np.ndarray, "objects pixels"]:
        """Where there is a measurement; made anew at every call, see `n_observed`."""
        return np.asarray(self.ivar) > 0

    @property
    def n_observed(self) -> Int[np.ndarray, " objects"]:
        """How many pixels of each object are observed; counted once."""
        return self.labels.n_observed

    def take(self, rows: Shaped[np.ndarray, " some"] | Sequence[int] | slice) -> Dataset:
        """The objects `rows` (indices, a boolean mask or a slice), in that order, as a copy.

        Raises
        ------
        ValueError
            If `rows` selects no object.
        """
        index = np.arange(self.shape[0])[rows]
        if index.size == 0:
            raise ValueError(f"the selection is empty: it takes none of the {self.shape[0]} objects")
        return self._rows(index, self.labels.take(index))

    def _rows(self, index: Int[np.ndarray, " some"], labels: Labels) -> Dataset:
        flux, ivar = (validate.take_rows(leaf, index) for leaf in (self.flux, self.ivar))
        return Dataset(flux, ivar, labels).counted()

    def with_meta(self, **columns: Any) -> Dataset:
        """With these (N, ...) columns beside or instead of those that there are; raises as `dataset` does."""
        return self._labelled(meta={**self.meta, **validate.check_columns(columns, self.shape[0])})

    def with_grid(self, grid: Any, name: str = "grid") -> Dataset:
        """With other pixel coordinates, (M,), and this label of their axis; raises as `dataset` does."""
        return self._labelled(grid=validate.check_grid(grid, self.shape[1]), grid_name=name)

    def _labelled(self, **labels: Any) -> Dataset:
        return replace(self, labels=replace(self.labels, **labels))

    def load(self) -> Dataset:
        """The same data in memory, where these are."""
        return self

    def counted(self) -> Dataset:
        """With the census of what is there now; what contradicts itself was counted once, in the input."""
        n_observed, census = validate.count(self.ivar)
        return self._labelled(census=census, n_observed=n_observed)

    def hide(self, cells: Bool[np.ndarray, "objects pixels"]) -> Dataset:
        """The same objects with these cells missing, as a copy: to fit without them, and to judge by them.

        Raises
        ------
        TypeError, ValueError
            If `cells` is not boolean, or not of the shape of the data.
        """
        cells = np.asarray(cells)
        if cells.dtype != bool:
            raise TypeError(f"cells must be a boolean mask, True for what to hide; got dtype {cells.dtype}")
        if cells.shape != self.shape:
            raise ValueError(f"cells must have the shape of the data {self.shape}, got {cells.shape}")
        here = self.load()
        flux, ivar = (validate.frozen(np.where(cells, 0, leaf)) for leaf in (here.flux, here.ivar))
        return Dataset(flux, ivar, self.labels).counted()

    def without(self, pixels: Bool[np.ndarray, " pixels"]) -> Dataset:
        """All objects with these pixels missing; itself, where there are none."""
        if not pixels.any():
            return self
        flux, ivar = (np.where(pixels, 0, leaf).astype(self.dtype) for leaf in (self.flux, self.ivar))
        return Dataset(validate.frozen(flux), validate.frozen(ivar), self.labels).counted()

    def count(self, pixels: Bool[np.ndarray, " pixels"]) -> Int[np.ndarray, " objects"]:
        """How many of these pixels are observed, per object."""
        if pixels.all():
            return self.n_observed
        counts = np.empty(self.shape[0], int)
        for here, _, ivar in self.blocks(1024):
            counts[here] = ((ivar > 0) & pixels)[: here.stop - here.start].sum(1)
        return counts

    def blocks(
        self, rows: int, unit: float | None = None, order: Sequence[int] | None = None
    ) -> Iterator[tuple[slice, Float[np.ndarray, "rows pixels"], Float[np.ndarray, "rows pixels"]]]:
        """(slice, flux, ivar) of consecutive blocks of `rows` objects, in units of `unit`, a power of two.

        `order` are the numbers of the blocks wanted, in that order; default: all. The last block is padded
        with missing objects: every block has one shape, so that nothing is compiled twice. Its slice covers
        the real objects only.

        Raises
        ------
        ValueError
            If `rows` is not positive, or where the dtype cannot hold the data in units of `unit`.
        """
        if rows < 1:
            raise ValueError(f"a block must have at least one row, got rows={rows}")
        return self._blocks(rows, self.unit if unit is None else validate.check_unit(unit), order)

    def _blocks(
        self, rows: int, unit: float, order: Sequence[int] | None
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        _, m = self.shape
        exponent = round(math.log2(self.unit) - math.log2(unit))
        for here, (flux, ivar) in self._pairs(slices(self.shape[0], rows, order)):
            if exponent:
                seen = ivar > 0
                with np.errstate(over="ignore", under="ignore"):
                    flux, ivar = np.ldexp(flux, exponent), np.ldexp(ivar, -2 * exponent)
                validate.check_range(flux, ivar, seen, unit)
            short = rows - (here.stop - here.start)
            if short:
                flux, ivar = (np.concatenate([x, np.zeros((short, m), x.dtype)]) for x in (flux, ivar))
            yield here, flux, ivar

    def _pairs(self, wanted: Sequence[slice]) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray]]]:
        for here in wanted:
            yield here, (self.flux[here], self.ivar[here])


def slices(n: int, rows: int, order: Sequence[int] | None = None) -> list[slice]:
    """Consecutive blocks of `rows` out of `n`, all or those of the numbers in `order`."""
    every = [slice(start, min(start + rows, n)) for start in range(0, n, rows)]
    return every if order is None else [every[number] for number in order]


def dataset(
    flux: Any,
    ivar: Any,
    *,
    grid: Any = None,
    ids: Any = None,
    meta: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    unit: float | None = None,
    grid_name: str | None = None,
    flux_name: str | None = None,
) -> Dataset:
    """Validate a matrix of measurements once, and make it a `Dataset`.

    A cell is missing where its flux is not finite or its ivar is not positive and finite. That is
    silent where the input says so itself (`ivar == 0`, a NaN flux with `ivar` 0 or NaN, a cell that is
    masked in either array); where it contradicts itself a `DataWarning` tells how often. Empty rows and
    columns are kept and counted in `Dataset.census`.

    Parameters
    ----------
    flux : (N, M) array
        Measurements, in any unit: integers, any byte order, masked arrays and astropy Quantities too.
    ivar : (N, M) array
        Inverse variances 1/sigma^2, in the unit of flux^-2; 0 marks a missing measurement. A Quantity is
        converted to `flux.unit**-2`: both flux and ivar have a unit, or neither has.
    grid : (M,) array, optional
        Pixel coordinates (a wavelength, say), with or without a unit.
    ids : (N,) array, optional
        Unique integers or strings; byte strings become text.
    meta : mapping of name to (N,) array, optional
        Further per-object columns, carried along and joined to score tables.
    dtype : {"float32", "float64"}
        Of the leaves and of everything computed from them. Needs no global JAX setting.
    unit : float, optional
        Power of two in which the leaves are stored. By default the one nearest to the typical flux.
    grid_name, flux_name : str, optional
        Axis labels with units, for pictures. By default "wavelength [nm]" and "flux [Jy]" for Quantities in
        these units, else "grid" ("pixel" where none is given) and "flux".

    Raises
    ------
    ValueError
        On wrong shapes, duplicate ids, masked labels, units of flux and ivar that do not belong together, a
        `unit` that is no power of two, or values beyond the range of `dtype`.
    TypeError
        On values that are not real numbers.

    Examples
    --------
    >>> import numpy as np, robusta_prob as rp
    >>> data = rp.dataset(np.ones((3, 4)), np.full((3, 4), 25.0), ids=[10, 11, 12])
    >>> data.shape, data.unit
    ((3, 4), 1.0)
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    flux, ivar, flux_unit = validate.strip_units(flux, ivar)
    grid_default = "pixel" if grid is None else "grid"
    if validate.is_quantity(grid):
        grid, grid_default = validate.without_unit(grid), validate.label("wavelength", str(grid.unit))
    values, weights = validate.check_real("flux", flux), validate.check_real("ivar", ivar)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"flux must be a non-empty matrix (objects, pixels), got shape {values.shape}")
    if weights.shape != values.shape:
        raise ValueError(
            f"ivar must have the shape of flux {values.shape}, got {weights.shape}. "
            "If one error per pixel or object is meant, say so: np.broadcast_to(ivar, flux.shape)"
        )
    hidden = np.ma.getmask(flux) | np.ma.getmask(ivar)
    if hidden.any():
        weights = np.where(hidden, 0, weights)
    n, m = values.shape
    grid = validate.check_grid(np.arange(m) if grid is None else grid, m)
    names, columns = validate.frozen(validate.check_ids(ids, n)), validate.check_columns(meta, n)

    unit = validate.choose_unit(values, weights) if unit is None else validate.check_unit(unit)
    values, weights, n_observed, census = validate.clean(values, weights, unit, np.dtype(dtype))
    warn_of_contradictions(census)
    flux_name = validate.label("flux", flux_unit) if flux_name is None else flux_name
    grid_name = grid_default if grid_name is None else grid_name
    labels = Labels(grid, names, columns, unit, grid_name, flux_name, census, n_observed)
    return Dataset(values, weights, labels)
