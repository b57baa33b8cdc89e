"""Sizes and counts, checked at the boundary of the simulators."""

from __future__ import annotations

import math
import operator


def integer(name: str, value: int, least: int, most: float = math.inf) -> int:
    """`value` as an int, or an error that names it if it is none or out of range."""
    number = operator.index(value)
    if not least <= number <= most:
        raise ValueError(f"{name} must lie between {least} and {most} at this size, got {number}")
    return number


def count(name: str, given: int | None, default: float, most: int) -> int:
    """`given`, or else the default, rounded to at least one where there is room for one."""
    return min(max(1, round(default)), most) if given is None else integer(name, given, 0, most)
