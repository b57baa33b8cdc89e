"""Flux and inverse variances that stay on disk: what a `Dataset` holds where they do not fit into memory.

A `Source` reads rows when they are asked for and cleans them as those in memory are cleaned; its two sides,
flux and ivar, are `Stored`: they have a shape and a dtype and can be indexed, as arrays can.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from robusta_prob import validate
from robusta_prob.data import Dataset, DataWarning, Labels, dataset, slices, warn_of_contradictions

ROWS = 1024  # that are read at once where many are asked for
GAP = 16  # rows that are read and thrown away rather than begin a new read

Raw = tuple[np.ndarray, np.ndarray]
Pair = tuple[Float[np.ndarray, "rows pixels"], Float[np.ndarray, "rows pixels"]]


@dataclass(frozen=True)
class Source:
    """Where rows come from: `fetch(slice)` reads consecutive ones, raw flux and ivar in the user's units."""

    fetch: Callable[[slice], Raw]
    shape: tuple[int, int]
    unit: float
    dtype: np.dtype
    index: Int[np.ndarray, " objects"] | None = None  # rows of the file; all of them where there is none
    hidden: Bool[np.ndarray, " pixels"] | None = None  # pixels that count as missing

    def take(self, rows: Int[np.ndarray, " some"]) -> Source:
        """Some of the rows, in that order; nothing is read."""
        index = rows if self.index is None else self.index[rows]
        return replace(self, shape=(len(rows), self.shape[1]), index=index)

    def without(self, pixels: Bool[np.ndarray, " pixels"]) -> Source:
        """The same with these pixels missing."""
        return replace(self, hidden=pixels if self.hidden is None else pixels | self.hidden)

    def read(self, rows: slice) -> Pair:
        """Flux and ivar of consecutive rows, in units of `unit`; missing cells are 0 in both."""
        flux, ivar = self.fetched(rows)
        if self.hidden is not None:
            ivar = np.where(self.hidden, np.zeros((), ivar.dtype), ivar)
        return validate.cleaned(flux, ivar, self.unit, self.dtype)

    def fetched(self, rows: slice) -> Raw:
        """Flux and ivar of consecutive rows as the file has them."""
        start, stop, _ = rows.indices(self.shape[0])
        if self.index is None:
            return self.fetch(slice(start, stop))
        return self._scattered(self.index[start:stop])

    def _scattered(self, index: Int[np.ndarray, " rows"]) -> Raw:
        """Rows anywhere in the file, read in the order of the file."""
        if len(index) and (np.diff(index) == 1).all():
            return self.fetch(slice(int(index[0]), int(index[-1]) + 1))
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > GAP) + 1)
        parts = [(run - run[0], self.fetch(slice(int(run[0]), int(run[-1]) + 1))) for run in runs]
        back = np.argsort(order, kind="stable")
        flux, ivar = (np.concatenate([raw[side][at] for at, raw in parts])[back] for side in (0, 1))
        return flux, ivar

    def blocks(self, wanted: Sequence[slice]) -> Iterator[tuple[slice, Pair]]:
        """(slice, pair) of these rows; the next ones are read while these are used."""
        if not wanted:
            return
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(self.read, wanted[0])
            for here, following in zip(wanted, [*wanted[1:], None], strict=True):
                pair = ahead.result()
                if following is not None:
                    ahead = reader.submit(self.read, following)
                yield here, pair


class Stored:
    """One side of a `Source`, read when it is indexed."""

    def __init__(self, source: Source, side: int) -> None:
        self.source, self._side = source, side

    @property
    def shape(self) -> tuple[int, int]:
        """(objects, pixels)."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        """That of what is read."""
        return self.source.dtype

    @property
    def size(self) -> int:
        """Number of cells."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Shaped[np.ndarray, "..."]:
        rows, *columns = key if isinstance(key, tuple) else (key,)
        index = np.arange(len(self))[rows]
        if index.ndim > 1 or any(np.ndim(rows) and np.ndim(column) for column in columns):
            raise IndexError(
                "data on disk are read by rows: index the rows alone by a list or a mask, then the columns "
                "of what comes, flux[rows][:, columns], or load() the data"
            )
        some = self.source.take(np.atleast_1d(index))
        parts = [pair[self._side][:, *columns] for _, pair in some.blocks(slices(index.size, ROWS))]
        values = np.concatenate(parts) if parts else np.empty((0, self.shape[1]), self.dtype)[:, *columns]
        return values if index.ndim else values[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __repr__(self) -> str:
        return f"Stored({self.shape[0]:,} x {self.shape[1]:,} {self.dtype}, on disk)"


@dataclass(frozen=True, eq=False)
class StoredDataset(Dataset):
    """A `Dataset` whose flux and ivar stay on disk; whoever needs them whole says `load`."""

    @classmethod
    def of(cls, source: Source, labels: Labels) -> StoredDataset:
        """These rows, with labels that fit."""
        make: Any = cls  # its sides are arrays but in name
        return make(Stored(source, 0), Stored(source, 1), labels)

    @property
    def source(self) -> Source:
        """Where the rows come from."""
        side: Any = self.flux
        return side.source

    def load(self) -> Dataset:
        """The same data in memory."""
        flux, ivar = (validate.aligned(self.shape, self.dtype) for _ in range(2))
        for here, (y, w) in self._pairs(slices(self.shape[0], ROWS)):
            flux[here], ivar[here] = y, w
        flux.flags.writeable = ivar.flags.writeable = False
        return Dataset(flux, ivar, self.labels)

    def without(self, pixels: Bool[np.ndarray, " pixels"]) -> Dataset:
        """All objects with these pixels missing; itself, where there are none."""
        return type(self).of(self.source.without(pixels), self.labels).counted() if pixels.any() else self

    def counted(self) -> Dataset:
        """With the census of what is there now, in one pass."""
        n_observed, pixel_seen = np.empty(self.shape[0], np.int64), np.zeros(self.shape[1], bool)
        for here, (_, ivar) in self._pairs(slices(self.shape[0], ROWS)):
            seen = ivar > 0
            n_observed[here] = seen.sum(1)
            pixel_seen |= seen.any(0)
        census = validate.census_of(n_observed, pixel_seen)
        labels = replace(self.labels, census=census, n_observed=validate.frozen(n_observed))
        return type(self).of(self.source, labels)

    def _rows(self, index: Int[np.ndarray, " some"], labels: Labels) -> Dataset:
        return type(self).of(self.source.take(index), labels).counted()

    def _pairs(self, wanted: Sequence[slice]) -> Iterator[tuple[slice, Pair]]:
        return self.source.blocks(wanted)


def stored(
    fetch: Callable[[slice], Raw],
    shape: tuple[int, int],
    *,
    index: Int[np.ndarray, " objects"] | None = None,
    ids: Any = None,
    meta: Mapping[str, Any] | None = None,
    **settings: Any,
) -> StoredDataset:
    """The data set of the rows that `fetch` reads, validated in one pass; as `dataset` does.

    `index` are the rows of the file that are meant, where these are not all; `shape` is that of the data.
    """
    n, m = shape
    if 0 in shape:
        raise ValueError(f"flux must be a non-empty matrix (objects, pixels), got shape {shape}")
    names, columns = validate.frozen(validate.check_ids(ids, n)), validate.check_columns(meta, n)
    step = validate.sampling(n)
    source = Source(fetch, shape, 1.0, np.dtype(np.float64), index)
    some = [
        source.fetched(slice(row, row + 1 if step > 1 else n)) for row in range(0, n if step > 1 else 1, step)
    ]
    with warnings.catch_warnings():  # the whole will be told of
        warnings.simplefilter("ignore", DataWarning)
        few = dataset(*(np.concatenate(side) for side in zip(*some, strict=True)), **settings)
    source = replace(source, unit=few.unit, dtype=few.dtype)

    odd, n_observed, pixel_seen = np.zeros(3, int), np.empty(n, np.int64), np.zeros(m, bool)
    for start in range(0, n, ROWS):
        rows = slice(start, min(start + ROWS, n))
        raw = source.fetched(rows)
        odd += validate.contradictions(*raw)
        seen = validate.cleaned(*raw, few.unit, few.dtype)[1] > 0
        n_observed[rows] = seen.sum(1)
        pixel_seen |= seen.any(0)
    census = validate.with_contradictions(validate.census_of(n_observed, pixel_seen), odd)
    warn_of_contradictions(census)
    n_observed = validate.frozen(n_observed)
    labels = replace(few.labels, ids=names, meta=columns, census=census, n_observed=n_observed)
    return StoredDataset.of(source, labels)
