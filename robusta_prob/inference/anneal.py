"""The annealed robustness: a pure schedule, epoch -> settings of the pass.

What is annealed is not the threshold Q: lowered from a large value it lets gross outliers choose the basis
first. Instead every object's z is divided by its own robust scale, where that exceeds one, so that an
object that the basis does not fit yet has no more say than any other; and the tail is at least a Cauchy's,
so that no object settles on a few cells that happen to fit. The object scale is the latent variable of
`models.rhmf_scaled`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Robustness(NamedTuple):
    """How much more robust than the model a pass is; all zero is the model itself."""

    object_scale: float = 0.0  # exponent in [0, 1] on each object's own scale
    tail: float = 0.0  # least 1/nu, in [0, 2]


Schedule = Callable[[int], Robustness]
"""Epoch (0, 1, ...) -> `Robustness`. Must come to a constant value, for which the fit may converge."""

FAR = 10**9  # an epoch at which every schedule has ended
CLOSE = 1e-3  # to its last value: then a schedule has ended

TARGET = Robustness()
FULL = Robustness(1.0, 1.0)


def has_ended(schedule: Schedule, epoch: int) -> bool:
    """Whether the schedule is at its last value, for which a fit may converge."""
    return all(abs(x - y) <= CLOSE for x, y in zip(schedule(epoch), schedule(FAR), strict=True))


def values(schedule: Schedule, max_epochs: int) -> list[Robustness]:
    """What the schedule gives, epoch by epoch, until it has ended; the last value stands for all the rest."""
    found: list[Robustness] = []
    while len(found) < max_epochs and not has_ended(schedule, len(found)):
        found.append(schedule(len(found)))
    return [*found, schedule(FAR)]


def constant(robustness: Robustness = TARGET) -> Schedule:
    """The same at every epoch; by default the model from the start."""
    return lambda epoch: robustness


def paced(updates: int) -> Schedule:
    """`tightening` for so many updates an epoch, of which fewer are needed.

    Not fewer than twice two: objects with two solutions are each seen once an epoch, and go to the worse one
    where it ends too soon (F lower by 100 nats, of 4e5, on a toy survey of 1200 objects with once one).
    """
    return tightening() if updates == 1 else tightening(2, 2)


def tightening(hold: int = 4, release: int = 2, begin: Robustness = FULL) -> Schedule:
    """`begin` for `hold` epochs, then linearly to the model over `release` more."""

    def schedule(epoch: int) -> Robustness:
        left = min(1.0, max(0.0, 1.0 - (epoch - hold + 1) / max(release, 1))) if epoch >= hold else 1.0
        return Robustness(left * begin.object_scale, left * begin.tail)

    return schedule
