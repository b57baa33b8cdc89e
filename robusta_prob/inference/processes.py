"""What processes tell one another, each of which goes through its share of the objects.

Started by `jax.distributed.initialize`; with one process every function gives back what it is given. All
processes call the same functions in the same order, with data that all of them can read.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Shaped

AXIS = "processes"


def count() -> int:
    """How many there are."""
    return jax.process_count()


def share(blocks: int) -> range:
    """The numbers of this process's blocks, consecutive ones.

    Raises
    ------
    ValueError
        If there are fewer blocks than processes.
    """
    if blocks < count():
        raise ValueError(
            f"{count()} processes cannot share {blocks} blocks of objects; start fewer, or lower batch_rows"
        )
    ends = [blocks * number // count() for number in range(count() + 1)]
    return range(ends[jax.process_index()], ends[jax.process_index() + 1])


def summed(tree: Any) -> Any:
    """Sums over processes of arrays and numbers, in float64; the same bits for all."""
    if count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf, float) for leaf in leaves]
    flat = np.concatenate([array.ravel() for array in arrays])
    total = _together(flat, reduce=True)
    parts = np.split(total, np.cumsum([array.size for array in arrays])[:-1])
    shaped = [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]
    return jax.tree.unflatten(structure, [x if x.ndim else x[()] for x in shaped])


def joined(rows: Shaped[np.ndarray, "own *rest"]) -> Shaped[np.ndarray, "all *rest"]:
    """The rows of all processes, in their order."""
    if count() == 1:
        return rows
    sizes = _together(np.array([float(len(rows))]), reduce=False).ravel().astype(int)
    padded = np.zeros((sizes.max(), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    every = _together(padded, reduce=False)
    return np.concatenate([some[:size] for some, size in zip(every, sizes, strict=True)])


def agreed(tree: Any) -> Any:
    """What the first process has: machines of other kinds may differ in the last bits."""
    if count() == 1:
        return tree
    mine = jax.process_index() == 0
    return summed(jax.tree.map(lambda x: np.where(mine, np.asarray(x, float), 0.0), tree))


def _together(own: Float[np.ndarray, "*shape"], *, reduce: bool) -> Float[np.ndarray, "..."]:
    """Sum over processes, or all of them stacked."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([first[number] for number in range(count())]), (AXIS,))
    with jax.enable_x64(True):
        each = jax.make_array_from_process_local_data(
            NamedSharding(mesh, PartitionSpec(AXIS)), np.ascontiguousarray(own)[None]
        )
        try:
            found = _program(NamedSharding(mesh, PartitionSpec()), reduce)(each)
            return np.asarray(found.addressable_data(0))
        except jax.errors.JaxRuntimeError as error:
            raise ConnectionError(
                f"another process was lost, or cannot be reached: process {jax.process_index()} of {count()} "
                f"ends ({str(error).splitlines()[0]})"
            ) from error


def _program(sharding: NamedSharding, reduce: bool) -> Any:
    return jax.jit(_sum if reduce else _same, out_shardings=sharding)


_sum = partial(jax.numpy.sum, axis=0)


def _same(x: Any) -> Any:
    return x
