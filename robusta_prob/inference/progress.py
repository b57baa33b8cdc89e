"""A progress bar for `callback=`: how far the basis is from rest, or how many objects are done, live."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from tqdm.auto import tqdm

from robusta_prob.inference.iterate import Epoch


class Rows(NamedTuple):
    """How far a pass over the objects has come."""

    done: int
    total: int
    what: str  # is being done
    unit: str = " objects"


RECENT = 5  # epochs by whose moves the end is foreseen


class Progress:
    """Context manager and callback: `with Progress() as bar: fit(..., callback=bar)`.

    Shows the rate, how far the basis moves, and what is left: of objects exactly; of a fit the time until its
    moves, should they go on to shrink as lately, are below `tol`.
    """

    def __init__(self, label: str = "fit", *, tol: float = 0.01, disable: bool | None = None) -> None:
        self._bar = tqdm(desc=label, unit=" epochs", disable=disable, leave=True)
        self._what, self._tol, self._moves = "", tol, list[float]()

    def __call__(self, line: Epoch | Rows) -> None:
        """Show one line of the history, or how many objects are done."""
        if isinstance(line, Rows):
            if line.what != self._what:
                self._bar.reset(line.total)
                self._bar.set_description(line.what, refresh=False)
                self._bar.unit, self._what = line.unit, line.what
            self._bar.update(line.done - self._bar.n)
            return
        if self._bar.disable:
            return
        self._moves = [*self._moves[-RECENT:], line.move]
        epochs, seconds = epochs_left(self._moves, self._tol), self._bar.format_dict["elapsed"]
        left = f"about {epochs * seconds / (self._bar.n + 1):.0f} s left, " if math.isfinite(epochs) else ""
        self._bar.set_postfix_str(
            f"{left}basis moves {line.move:.1e} sd, nu {line.nu:.3g}, scale {line.scale:.3g}, "
            f"floor {line.floor:.2g}",
            refresh=False,
        )
        self._bar.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def epochs_left(moves: Sequence[float], tol: float) -> float:
    """How many more until these moves, shrinking on as they did, are below `tol`; infinite if they do not."""
    if len(moves) < 3 or not 0 < moves[-1] < moves[0]:
        return math.inf
    pace = math.log(moves[0] / moves[-1]) / (len(moves) - 1)
    return max(math.log(moves[-1] / tol) / pace, 0.0)
