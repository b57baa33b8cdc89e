"""A progress bar for `callback=`: how far the basis is from rest, or how many objects are done, live."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Self

from tqdm.auto import tqdm

from robusta_prob.inference.iterate import Epoch


class Rows(NamedTuple):
    """How far a pass over the objects has come."""

    done: int
    total: int
    what: str  # is being done


class Progress:
    """Context manager and callback: `with Progress() as bar: fit(..., callback=bar)`."""

    def __init__(self, label: str = "fit", *, disable: bool | None = None) -> None:
        self._bar = tqdm(desc=label, unit=" epochs", disable=disable, leave=True)
        self._what = ""

    def __call__(self, line: Epoch | Rows) -> None:
        """Show one line of the history, or how many objects are done."""
        if isinstance(line, Rows):
            if line.what != self._what:
                self._bar.reset(line.total)
                self._bar.set_description(line.what, refresh=False)
                self._bar.unit, self._what = " objects", line.what
            self._bar.update(line.done - self._bar.n)
            return
        self._bar.set_postfix_str(
            f"basis moves {line.move:.1e} sd, nu {line.nu:.3g}, scale {line.scale:.3g}, "
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
