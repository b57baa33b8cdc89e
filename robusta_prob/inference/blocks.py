"""The data set as an engine goes through it: blocks of objects of one shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from robusta_prob.data import Dataset
from robusta_prob.inference import processes
from robusta_prob.inference.isolate import within_reach
from robusta_prob.inference.sweep import BLOCK
from robusta_prob.stored import StoredDataset

BATCH_ROWS = 512  # objects handed to one compiled call


class Block(NamedTuple):
    """Consecutive objects, padded to a fixed shape with missing ones."""

    flux: Float[Array, "rows pixels"]
    ivar: Float[Array, "rows pixels"]
    rows: int  # real objects


class Blocks:
    """All blocks of a data set: at hand, or read anew in every pass."""

    def __init__(
        self,
        read: Callable[[Sequence[int]], Iterator[Block]],
        size: int,
        rows: Sequence[int],
        *,
        at_hand: bool,
        shared: bool = False,
        mine: range | None = None,
    ) -> None:
        self.size, self.at_hand, self.shared = size, at_hand, shared
        self.every = tuple(rows)  # real objects of all blocks, also those of other processes
        self.mine = mine or (processes.share(len(rows)) if shared else range(len(rows)))
        self._read = read
        self._blocks = tuple(read(self.mine)) if at_hand else ()

    @property
    def rows(self) -> tuple[int, ...]:
        """Real objects of every block that this process goes through."""
        return self.every[self.mine.start : self.mine.stop]

    @property
    def fewest(self) -> int:
        """Blocks that every process has at least."""
        return len(self.every) // processes.count() if self.shared else len(self.rows)

    @classmethod
    def of(
        cls,
        data: Dataset,
        unit: float,
        rows: int | None = None,
        dtype: np.dtype | None = None,
        *,
        known: Bool[np.ndarray, " pixels"] | None = None,
        at_hand: bool = True,
        shared: bool = False,
    ) -> Blocks:
        """The data set in units of `unit`, `rows` objects a block; only `known` pixels, where they are given.

        At hand, the blocks of data in memory share their buffers; those of data on disk never are. Where they
        are `shared`, each process goes through its own.
        """
        size, kind, n = rows or rows_per_batch(data), dtype or data.dtype, data.shape[0]

        def read(order: Sequence[int]) -> Iterator[Block]:
            for here, *pair in data.blocks(size, unit, order):
                flux, ivar = within_reach(*(x.astype(kind, copy=False) for x in pair))
                if known is not None and not known.all():
                    ivar = np.where(known, ivar, np.zeros((), kind))
                yield Block(jax.device_put(flux), jax.device_put(ivar), here.stop - here.start)

        real = [min(size, n - start) for start in range(0, n, size)]
        return cls(read, size, real, at_hand=at_hand and not isinstance(data, StoredDataset), shared=shared)

    def __iter__(self) -> Iterator[Block]:
        return self.ordered(range(len(self.mine)))

    def ordered(self, order: Sequence[int]) -> Iterator[Block]:
        """Blocks of these numbers, among those of this process, one after the other."""
        if self.at_hand:
            return (self._blocks[number] for number in order)
        return self._read([self.mine[number] for number in order])

    def some(self, stream: Iterator[Block], numbers: Sequence[int]) -> Blocks:
        """The next blocks of a stream, which are those of these numbers, as all there are."""
        rows = [self.rows[number] for number in numbers]

        def read(_: Sequence[int]) -> Iterator[Block]:
            return islice(stream, len(rows))

        return Blocks(read, self.size, rows, at_hand=False, shared=self.shared, mine=range(len(rows)))

    def one_by_one(self) -> Iterator[Blocks]:
        """Each block as all there is."""
        for block in self:
            yield Blocks(partial(_again, block), self.size, (block.rows,), at_hand=True)

    def gather(self, parts: Sequence[ArrayLike]) -> np.ndarray:
        """Per-block arrays as one over the real objects, of all processes."""
        own = np.concatenate([np.asarray(part)[:n] for part, n in zip(parts, self.rows, strict=True)])
        return processes.joined(own) if self.shared else own

    def summed(self, tree: Any) -> Any:
        """Sums over blocks as sums over those of all processes."""
        return processes.summed(tree) if self.shared else tree

    def agreed(self, tree: Any) -> Any:
        """What all processes go on with."""
        return processes.agreed(tree) if self.shared else tree

    def deal(self, values: Float[np.ndarray, "objects *rest"], dtype: np.dtype) -> list[np.ndarray]:
        """One row per object of all processes dealt out to the blocks of this one, padded with zeros."""
        ends = np.cumsum(self.every)[:-1]
        dealt = np.split(np.asarray(values), ends)[self.mine.start : self.mine.stop]
        parts = [np.zeros((self.size, *values.shape[1:]), dtype) for _ in dealt]
        for part, some in zip(parts, dealt, strict=True):
            part[: len(some)] = some
        return parts


def _again(block: Block, _: Sequence[int]) -> Iterator[Block]:
    return iter((block,))


def rows_per_batch(data: Dataset) -> int:
    """Objects per compiled call: one block, or `BATCH_ROWS`; every other size would be compiled anew."""
    return BLOCK if data.shape[0] <= BLOCK else BATCH_ROWS
