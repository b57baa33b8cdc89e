"""Raw flux and inverse variances out of the arrays of a file, all rows or some."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped


class Cells(NamedTuple):
    """Arrays of one shape, in memory or in a file."""

    flux: Any
    spread: Any  # inverse variances, or
    is_error: bool  # errors
    mask: Any = None  # booleans or bits
    bits: list[int] | None = None  # of the mask that mean bad; all where there is None
    pixels: slice | Shaped[np.ndarray, " pixels"] = slice(None)  # columns that are wanted

    def validated(self, name: str | None) -> Cells:
        """`self`, if the mask, called `name`, is one."""
        mask, shape = self.mask, tuple(self.spread.shape)
        if mask is None:
            return self
        if tuple(mask.shape) != shape or mask.dtype.kind not in "iub":
            raise ValueError(
                f"mask {name!r} must be boolean or integer, of shape {shape}, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        width = 8 * mask.dtype.itemsize if mask.dtype.kind != "b" else 1
        if self.bits is not None and max(self.bits) >= width:
            raise ValueError(
                f"mask {name!r} of dtype {mask.dtype} has the bits 0 to {width - 1}, got "
                f"mask_bits={self.bits}; give numbers of bits, not their values"
            )
        return self

    def rows(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Flux and inverse variances of these rows, in the units of the file."""
        flux, ivar = (np.asarray(x[rows])[:, self.pixels] for x in (self.flux, self.spread))
        if self.is_error:
            ivar = _ivar_from_error(ivar)
        if self.mask is not None:
            ivar = np.where(self._masked(rows), ivar.dtype.type(0), ivar)
        return flux, ivar

    def _masked(self, rows: slice) -> Bool[np.ndarray, "rows pixels"]:
        mask = np.asarray(self.mask[rows])[:, self.pixels]
        if self.bits is None:
            return mask != 0
        unsigned = mask.astype(f"u{mask.dtype.itemsize}")
        return (unsigned & unsigned.dtype.type(sum(1 << bit for bit in set(self.bits)))) != 0


class OpenCells:
    """Rows of a file that stays open until nobody can ask for any."""

    def __init__(self, cells: Cells, file: ExitStack) -> None:
        self._cells = cells
        weakref.finalize(self, file.close)

    def __call__(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Flux and inverse variances of these rows, in the units of the file."""
        return self._cells.rows(rows)


def _ivar_from_error(error: np.ndarray) -> np.ndarray:
    error = np.asarray(error, np.float64)
    usable = np.isfinite(error) & (error > 0)
    with np.errstate(over="ignore"):
        return np.where(usable, (1 / np.where(usable, error, 1.0)) ** 2, 0.0)


def check_bits(bits: Iterable[int]) -> list[int]:
    """Numbers of bits as a list."""
    numbers = list(bits) if isinstance(bits, Iterable) else []
    if not numbers or not all(isinstance(bit, int | np.integer) and bit >= 0 for bit in numbers):
        raise ValueError(f"mask_bits must be a list of numbers of bits, such as [1, 5], got {bits!r}")
    return [int(bit) for bit in numbers]


def chosen(what: str, of: Any, number: int) -> Int[np.ndarray, " some"] | None:
    """Numbers of the rows or pixels that are wanted; None for all of them."""
    if of is None:
        return None
    wanted = of if isinstance(of, slice) else np.asarray(of)
    right = isinstance(wanted, slice) or (wanted.ndim == 1 and wanted.size and wanted.dtype.kind in "iub")
    index = np.arange(number)[wanted] if right else np.zeros(0, int)
    if not index.size:
        raise ValueError(f"{what} must be indices, a mask or a slice that selects some of {number}: {of!r}")
    return index


def one_way(grid: np.ndarray) -> bool:
    """Whether it rises or falls from each pixel to the next."""
    steps = np.diff(grid)
    return bool((steps > 0).all() or (steps < 0).all())
