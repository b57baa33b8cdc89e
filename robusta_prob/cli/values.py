"""What arguments of the command line can be: text, turned into numbers and lists, or refused."""

from __future__ import annotations

import argparse
from typing import Any


class Named(argparse.Action):
    """Collect (name, positions) in a mapping."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Add one set."""
        (name, positions), known = values, getattr(namespace, self.dest) or {}
        if name in known:
            raise argparse.ArgumentError(self, f"two sets are called {name}; give each a name of its own")
        setattr(namespace, self.dest, {**known, name: positions})


def lines(text: str) -> tuple[str, list[float]]:
    """CaII=8498,8542: a name, and positions."""
    name, _, positions = text.rpartition("=")
    try:
        return name or "lines", [float(x) for x in positions.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like CaII=8498,8542,8662; got {text!r}") from None


def widths(text: str) -> list[int]:
    """2,4,8: whole numbers."""
    try:
        return [int(x) for x in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 2,4,8; got {text!r}") from None


def ranks(text: str) -> list[int]:
    """1-8, 2,4,8 or 5: numbers from 1 on, and ranges of them."""
    found: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        last = last if dash else first
        if not (first.strip().isdecimal() and last.strip().isdecimal() and 1 <= int(first) <= int(last)):
            raise argparse.ArgumentTypeError(
                f"must look like 1-8 or 2,4,8, from 1 on, the smaller first; got {text!r}"
            )
        found += range(int(first), int(last) + 1)
    return found


def scales(text: str) -> list[float]:
    """1,3,5: numbers."""
    try:
        return [float(x) for x in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 1,3,5; got {text!r}") from None


def bits(text: str) -> list[int]:
    """1,5,12: numbers of bits."""
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"must be numbers of bits, such as 1,5,12, got {text!r}")
    return [int(number) for number in numbers]


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def floor(text: str) -> float | str:
    """A number, or the word for one floor per pixel."""
    try:
        return text if text == "pixel" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or the word pixel, got {text!r}") from None
