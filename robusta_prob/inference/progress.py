"""A progress bar for `callback=`: how far the basis is from rest, or how many objects are done, live."""

from __future__ import annotations

import math
import sys
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


PAUSE = 30.0  # seconds between two lines of a log
RECENT = 5  # epochs by whose moves the end is foreseen


class Progress:
    """Context manager and callback: `with Progress() as bar: fit(..., callback=bar)`.

    Shows the rate, how far the basis moves, and what is left: of objects exactly; of a fit the time until its
    moves, should they go on to shrink as lately, are below `tol`. Where there is no terminal, as in the log
    of a batch job, it is told every half minute, and not of what takes less.
    """

    def __init__(self, label: str = "fit", *, tol: float = 0.01, disable: bool = False) -> None:
        self._disable = disable
        self._bar = self._begin(label, " epochs")
        self._what, self._tol, self._moves = "", tol, list[float]()

    def __call__(self, line: Epoch | Rows) -> None:
        """Show one line of the history, or how many objects are done."""
        if isinstance(line, Rows):
            if line.what != self._what:
                self._bar.leave = False
                self._bar.close()
                self._bar, self._what = self._begin(line.what, line.unit, line.total), line.what
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

    def _begin(self, label: str, unit: str, total: int | None = None) -> tqdm:
        live = sys.stderr.isatty() or "ipykernel" in sys.modules  # a notebook draws its bar itself
        seldom = {} if live else {"delay": PAUSE, "mininterval": PAUSE, "maxinterval": 2 * PAUSE}
        return tqdm(desc=label, unit=unit, total=total, disable=self._disable, **seldom)

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
