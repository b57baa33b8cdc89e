"""Typed configurations of the examples: frozen dataclasses, which a TOML file may change."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def changed(old: Any, new: dict[str, Any], source: str, at: str = "") -> Any:
    """A configuration, or a section of it, with these entries."""
    known = {one.name: one for one in dataclasses.fields(old)}
    hints = typing.get_type_hints(type(old))
    values: dict[str, Any] = {}
    for name, value in new.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {at}{near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{source}: there is no {at}{name}; {hint}")
        present = getattr(old, name)
        if dataclasses.is_dataclass(present):
            if not isinstance(value, dict):
                raise ValueError(f"{source}: {name} must be a section, [{name}], got {value!r}")
            values[name] = changed(present, value, source, f"{name}.")
        else:
            values[name] = _as(hints[name], value, f"{source}: {at}{name}")
    return replace(old, **values)


def _as(kind: Any, value: Any, what: str) -> Any:
    """A TOML value as the field's type."""
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list | tuple):
        if Ellipsis not in of and len(value) != len(of):
            raise ValueError(f"{what} must have {len(of)} entries, got {value!r}")
        return tuple(_as(of[0], one, what) for one in value)
    if origin is dict and isinstance(value, dict):
        return {key: _as(of[1], one, f"{what}.{key}") for key, one in value.items()}
    if kind is Any:
        return value
    if kind in (Path, Path | None) and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin is None and type(value) is kind:
        return value
    word = {tuple: "a list", dict: "a table"}.get(origin, getattr(kind, "__name__", kind))
    raise ValueError(f"{what} must be {word}, got {value!r}")
