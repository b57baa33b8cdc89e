"""Parts of a data set: objects to train on, and others to judge by."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from robusta_prob.data import Dataset


def split(
    data: Dataset, fraction: float = 0.5, *, seed: int = 0, group: str | Any = None
) -> tuple[Dataset, Dataset]:
    """Split the objects at random into two sets: `fraction` of them, and the rest.

    Parameters
    ----------
    fraction : float
        Share of the objects (of the groups, where `group` is given) in the first set, 0 < fraction < 1.
    seed : int
        The same seed gives the same split.
    group : str or (N,) array, optional
        A column of `data.meta`, or labels: objects of one group (repeat observations of one source)
        never end up on both sides.

    Raises
    ------
    ValueError
        If a side would be empty.
    KeyError
        If `group` names no column.
    """
    first, _ = drawn(data, fraction, seed, group)
    return data.take(first), data.take(~first)


def drawn(
    data: Dataset, fraction: float, seed: int, group: str | Any
) -> tuple[Bool[np.ndarray, " objects"], Int[np.ndarray, " objects"]]:
    """Which objects are in the first set, and the number of everyone's group; raises as `split` does."""
    n, _ = data.shape
    if isinstance(group, str):
        if group not in data.meta:
            raise KeyError(f"group={group!r} is no column of the metadata; there are {sorted(data.meta)}")
        group = data.meta[group]
    labels = np.arange(n) if group is None else np.asarray(group)
    if labels.shape != (n,):
        raise ValueError(f"group must have one label per object ({n}), got shape {labels.shape}")
    try:
        groups, member = np.unique(labels, return_inverse=True, equal_nan=False)
    except TypeError:
        raise TypeError("group must hold labels of one kind that can be ordered: numbers, or text") from None
    first = round(fraction * len(groups))
    if not 0 < first < len(groups):
        raise ValueError(
            f"fraction={fraction} of {len(groups)} groups leaves one side empty; take another fraction"
        )
    chosen = np.zeros(len(groups), bool)
    chosen[np.random.default_rng(seed).permutation(len(groups))[:first]] = True
    return chosen[member], member
