"""Incremental EM: an update after every part of the data, from what every part said when last gone through.

The sums of all parts are kept, and a part's are replaced as it is gone through again: a pass makes as many
updates as there are parts, and yet comes to rest where whole passes do (Neal & Hinton 1998, in Learning in
Graphical Models, 355). Kept sums are absolute, sum_i w m y instead of sum_i w m r, since the basis moves on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from robusta_prob.inference.linalg import congruent, unpack
from robusta_prob.inference.m_step import on_host
from robusta_prob.inference.quantities import Globals, Statistics


class Part(NamedTuple):
    """What a part of the objects said when last gone through, absolute, in the gauge of then."""

    statistics: Statistics
    turn: Float[np.ndarray, "rank rank"]  # into the present gauge


class Parts(NamedTuple):
    """All parts, and their sum in the present gauge; None for a part not yet gone through."""

    each: tuple[Part | None, ...]
    total: Statistics | None = None

    @property
    def complete(self) -> bool:
        """Whether all of them have been gone through."""
        return None not in self.each

    def replaced(self, number: int, statistics: Statistics, shared: Globals) -> Parts:
        """With new sums of one part, taken at `shared`.

        The noise law is told by that part alone, for all: its sums are not carried along as it moves.
        """
        new, old = absolute(statistics, shared), self.each[number]
        total = new if self.total is None else _plus(self.total, new)
        if old is not None:
            total = _plus(total, _times(turned(old.statistics, old.turn), -1.0))
        cells = total.influence[0], max(statistics.influence[0], 1.0)
        total = total._replace(noise=_times(statistics.noise, cells[0] / cells[1]))
        part = Part(new, np.eye(len(shared.basis)))
        return Parts((*self.each[:number], part, *self.each[number + 1 :]), total)

    def carried(self, turn: Float[np.ndarray, "rank rank"]) -> Parts:
        """The same after coefficients m have become `turn` m."""
        assert self.total is not None
        each = tuple(x and x._replace(turn=turn @ x.turn) for x in self.each)
        return Parts(each, turned(self.total, turn))

    def at(self, shared: Globals) -> Statistics:
        """Their sum as a pass over all of them at `shared` would give it."""
        assert self.total is not None
        return relative(self.total, shared)


def absolute(statistics: Statistics, shared: Globals) -> Statistics:
    """Sums about zero, from sums about the fit and the population's mean."""
    return _shifted(statistics, shared, 1.0)


def relative(statistics: Statistics, shared: Globals) -> Statistics:
    """Sums about the fit and the population's mean, from sums about zero."""
    return _shifted(statistics, shared, -1.0)


def _shifted(statistics: Statistics, shared: Globals, sign: float) -> Statistics:
    host, moment0, moment1 = on_host(shared), statistics.moment0, statistics.moment1
    G, mean = host.basis, sign * host.population.mean
    cross = np.outer(mean, moment1)
    return statistics._replace(
        rhs=statistics.rhs + sign * (unpack(statistics.gram, len(G)) * G[None]).sum(1),
        moment1=moment1 + moment0 * mean,
        moment2=statistics.moment2 + cross + cross.T + moment0 * np.outer(mean, mean),
    )


def turned(statistics: Statistics, T: Float[np.ndarray, "rank rank"]) -> Statistics:
    """Absolute sums of coefficients T m."""
    return statistics._replace(
        gram=congruent(T, statistics.gram),
        gram_cov=congruent(T, statistics.gram_cov),
        rhs=T @ statistics.rhs,
        moment1=T @ statistics.moment1,
        moment2=T @ statistics.moment2 @ T.T,
    )


def _plus(one: Statistics, other: Statistics) -> Statistics:
    total: Statistics = jax.tree.map(np.add, one, other)
    return total


def _times(sums: Any, factor: float) -> Any:
    return jax.tree.map(lambda x: factor * x, sums)
