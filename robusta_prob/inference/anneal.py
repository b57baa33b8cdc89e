"""The annealed robustness: a pure schedule, epoch -> settings of the pass.

What is annealed is not the threshold Q (lowering it from a large value lets gross outliers choose the
basis first) but the object scale: each object's own robust scale of z, where it exceeds one, divides
its z to the power `object_scale`. At 1 an object that the basis does not fit yet has no more say than
any other; at 0 the target model holds. The scale is the latent variable of `models.rhmf_scaled`.
"""

from __future__ import annotations

from collections.abc import Callable

Schedule = Callable[[int], float]
"""Epoch (0, 1, ...) -> exponent on the object scale, in [0, 1]. Must end at a constant value."""


def constant(object_scale: float = 0.0) -> Schedule:
    """The same at every epoch; 0 is the target model from the start."""
    return lambda epoch: object_scale


def tightening(hold: int = 4, release: int = 2) -> Schedule:
    """1 for `hold` epochs, then linearly to 0 over `release` more."""

    def schedule(epoch: int) -> float:
        return min(1.0, max(0.0, 1.0 - (epoch - hold + 1) / max(release, 1))) if epoch >= hold else 1.0

    return schedule
