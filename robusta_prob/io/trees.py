"""Nested named tuples and mappings of arrays and plain values in an HDF5 file, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np

PLAIN = {"bool": bool, "int": int, "float": float, "str": str}


def write_tree(parent: h5py.Group, name: str, value: Any) -> None:
    """Write `value` below `parent`: named tuples, tuples, lists, mappings, arrays, numbers, text, None.

    Raises
    ------
    TypeError
        On anything else.
    """
    if isinstance(value, Mapping):
        group = parent.create_group(name, track_order=True)
        group.attrs["kind"] = "mapping"
        for number, (key, item) in enumerate(value.items()):  # a key may hold a slash
            write_tree(group, str(number), item)
            group[str(number)].attrs["key"] = key
        return
    if value is None or isinstance(value, tuple | list):
        group = parent.create_group(name, track_order=True)
        group.attrs["kind"] = type(value).__name__
        for key, item in zip(_names(value), value or (), strict=True):
            write_tree(group, key, item)
        return
    kind = "jax" if isinstance(value, jax.Array) else type(value).__name__
    if isinstance(value, np.ndarray | np.generic):
        kind = "numpy"
    if kind not in ("jax", "numpy", *PLAIN):
        raise TypeError(f"{parent.name}/{name} is a {kind}, which has no form on disk")
    array = np.asarray(value)
    if array.dtype.kind == "U" and array.ndim:
        kind, array = "text", array.astype(h5py.string_dtype())
    if array.size > 1 and kind != "text":  # with checksums: a damaged file is refused when it is read
        parent.create_dataset(name, data=array, chunks=True, fletcher32=True)
    else:
        parent[name] = value if kind == "str" else array
    parent[name].attrs["kind"] = kind


def read_tree(node: h5py.Group | h5py.Dataset, kinds: Mapping[str, type]) -> Any:
    """What `write_tree` wrote; `kinds` are the named tuples that may occur, by their names.

    Raises
    ------
    KeyError, TypeError
        On a named tuple that is not among them, or has other fields.
    """
    kind = str(node.attrs["kind"])
    if isinstance(node, h5py.Dataset):
        if kind == "str":
            return node.asstr()[()]
        if kind == "text":
            return node.asstr()[()].astype(str)
        value = node[()]
        return PLAIN[kind](value) if kind in PLAIN else jnp.asarray(value) if kind == "jax" else value
    items = (read_tree(node[name], kinds) for name in node)
    if kind == "mapping":
        pairs = {str(node[name].attrs["key"]): item for name, item in zip(node, items, strict=True)}
        return MappingProxyType(pairs)
    if kind in ("tuple", "list"):
        return tuple(items) if kind == "tuple" else list(items)
    return None if kind == "NoneType" else kinds[kind](**dict(zip(node, items, strict=True)))


def _names(value: Any) -> list[str]:
    fields = getattr(value, "_fields", None)
    return list(fields) if fields else [str(number) for number in range(len(value or ()))]
