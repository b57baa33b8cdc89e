"""A progress bar for `callback=`: how far the basis is from rest, live."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tqdm.auto import tqdm

from robusta_prob.inference.iterate import Epoch


class Progress:
    """Context manager and callback: `with Progress() as bar: fit(..., callback=bar)`."""

    def __init__(self, label: str = "fit", *, disable: bool | None = None) -> None:
        self._bar = tqdm(desc=label, unit=" epochs", disable=disable, leave=True)

    def __call__(self, line: Epoch) -> None:
        """Show one line of the history."""
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
