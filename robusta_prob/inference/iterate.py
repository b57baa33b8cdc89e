"""One loop for every engine: passes until nothing moves, with a status instead of silence."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

log = logging.getLogger("robusta_prob")

ADVICE = (
    "look at the input's extreme values, fit with dtype='float64', lower the rank, or give the noise: "
    "noise=rp.Noise(scale=1.0)"
)
LOOK = 25
CONVERGED, OUT_OF_STEPS, NON_FINITE = "converged", "out_of_steps", "non_finite"


class Status(NamedTuple):
    """How a fit ended, and what to do about it."""

    code: str  # "converged", "out_of_steps" or "non_finite"
    message: str

    @property
    def ok(self) -> bool:
        """Whether the fit converged."""
        return self.code == CONVERGED


class Epoch(NamedTuple):
    """One line of the history; also what a `callback` gets."""

    epoch: int
    stage: str
    bound: float  # F once the coefficients have followed [nats], see `inference.em` and `inference.sweep`
    move: float  # rms change of the basis in units of its posterior standard deviation
    noise_move: float
    object_scale: float  # the schedule's values, see `anneal.Robustness`
    tail: float
    nu: float
    scale: float
    floor: float  # in the user's flux unit
    contamination: float


Callback = Callable[[Epoch], None]


class Run(NamedTuple):
    """What the loop gives back."""

    state: Any
    info: Any
    history: list[Epoch]
    status: Status


def iterate(
    step: Callable[[Any, int], tuple[Any, Any, Epoch]],
    state: Any,
    *,
    first: int = 0,
    max_epochs: int,
    tol: float,
    settled: Callable[[int], bool] = lambda epoch: True,
    callback: Callback | None = None,
    interrupt: Callable[[Any], bool] = lambda state: False,
) -> Run:
    """Call `step(state, epoch) -> (state, info, Epoch)` until the basis rests.

    The loop ends where the distance that the engine thinks is still to go falls below `tol` (in posterior
    standard deviations) in an epoch for which `settled` says that the schedule has ended. Epochs count
    from `first`. Every `LOOK` epochs `interrupt` may say that it is no use to go on.
    """
    history: list[Epoch] = []
    info = None
    for epoch in range(first, max_epochs):
        new, new_info, line = step(state, epoch)
        if not all(map(math.isfinite, (line.bound, line.move, line.noise_move))):
            message = f"a number stopped being finite in epoch {epoch}; {ADVICE}"
            return Run(state, info, history, Status(NON_FINITE, message))
        state, info = new, new_info
        history.append(line)
        if callback is not None:
            callback(line)
        log.debug("%s", line)
        moves = info.moves
        if settled(epoch) and epoch > first and moves.to_go < tol and moves.noise < 0.1 * tol:
            return Run(state, info, history, Status(CONVERGED, f"converged in {epoch + 1} epochs"))
        if (epoch + 1 - first) % LOOK == 0 and interrupt(state):
            break
    to_go = f", and would still go {moves.to_go:.2g}" if math.isfinite(moves.to_go) else ""
    advice = (
        "Raise `max_epochs` or `tol`" if settled(epoch) else "The schedule has not ended: raise `max_epochs`"
    )
    restless = f"; the noise law moves by {moves.noise:.2g}" if moves.noise >= 0.1 * tol else ""
    message = (
        f"not converged after {epoch + 1} epochs: the basis moves by {moves.basis:.2g} of its posterior "
        f"standard deviation per epoch{to_go} (tol {tol:g}){restless}. {advice}"
    )
    return Run(state, info, history, Status(OUT_OF_STEPS, message))
