"""Anderson acceleration of the basis: what the last moves had in common is taken in one jump.

EM converges linearly, slowly along directions that the data hardly determine. With moves f_t and the jumps
s_t that were taken, the next jump is f - sum_i c_i (s_i + df_i), where c fits f by the differences df of
the moves by least squares: a secant step in the few directions that are slow (Walker & Ni 2011, SIAM J.
Numer. Anal. 49, 1715; for EM, with restarts, Henderson & Varadhan 2019, J. Comput. Graph. Stat. 28, 834).
Moves are tangents of the Grassmann manifold: across the gauge, and carried along when the gauge turns.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

DEPTH = 3  # differences remembered
LONGEST = 30.0  # a jump in units of the move that it replaces
GROWTH = 2.0  # a move this many times longer than the one before: the past says nothing any more
CERTAIN = 2.0  # a jump is trusted to end within this fraction of its own length
RIDGE = 1e-5  # on a unit diagonal: above what float32 Grams lose of nearly parallel differences
TINY = float(np.finfo(float).tiny)

Tangent = Float[np.ndarray, "rank pixels"]


class Leaps(NamedTuple):
    """The last moves and jumps of the basis, in its present gauge, newest first."""

    jumps: Float[np.ndarray, "differences rank pixels"]
    changes: Float[np.ndarray, "differences rank pixels"]  # of the move, after each jump
    move: Tangent
    jump: Tangent
    seen: int  # moves seen since the last restart

    @property
    def differences(self) -> int:
        """How many of them the next jump may go by."""
        return len(self.jumps)


class Jump(NamedTuple):
    """What to do, and how far from rest that is thought to be; squared lengths in the metric of the Grams."""

    step: Tangent
    move2: float  # of the plain move
    left2: float  # of what will be left after the jump; infinite while nothing is known


def no_leaps(rank: int, pixels: int) -> Leaps:
    """Nothing seen yet."""
    none, one = np.zeros((0, rank, pixels)), np.zeros((rank, pixels))
    return Leaps(none, none, one, one, 0)


def leap(leaps: Leaps, move: Tangent, gram: Float[np.ndarray, "rank rank pixels"]) -> tuple[Jump, Leaps]:
    """The jump to take instead of `move`, and what to remember; lengths are in the metric of `gram`."""
    lowered = _lowered(move, gram)
    move2 = float((move * lowered).sum())
    follows = leaps.seen > 0 and move2 < GROWTH**2 * _length2(leaps.move, gram)
    if not follows:
        jump, _ = no_leap(leaps, move, gram)
        return jump, Leaps(leaps.jumps[:0], leaps.changes[:0], move, move, 1)
    jumps = np.concatenate([leaps.jump[None], leaps.jumps])[:DEPTH]
    changes = np.concatenate([(move - leaps.move)[None], leaps.changes])[:DEPTH]
    lower = np.stack([_lowered(x, gram) for x in changes])
    inner = np.einsum("ikj,lkj->il", changes, lower)
    diagonal = np.diagonal(inner)
    size = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    system = inner / size[:, None] / size
    np.fill_diagonal(system, 1.0 + RIDGE)
    share = np.linalg.solve(system, np.einsum("kj,ikj->i", move, lower) / size) / size
    extra = -np.tensordot(share, jumps + changes, 1)
    extra2 = _length2(extra, gram)
    step = move + min(1.0, LONGEST * math.sqrt(move2 / max(extra2, TINY))) * extra
    step2 = _length2(step, gram)
    left = move - np.tensordot(share, changes, 1)
    left2 = float((left * (lowered - np.tensordot(share, lower, 1))).sum())
    # the unexplained rest is a move: what it would come to is longer, as this jump is longer than its move
    left2 = max(left2 * max(1.0, step2 / max(move2, TINY)), step2 / CERTAIN**2)
    return Jump(step, move2, left2), Leaps(jumps, changes, move, step, leaps.seen + 1)


def no_leap(leaps: Leaps, move: Tangent, gram: Float[np.ndarray, "rank rank pixels"]) -> tuple[Jump, Leaps]:
    """The move itself, and nothing is remembered."""
    move2 = _length2(move, gram)
    rank, pixels = move.shape
    return Jump(move, move2, math.inf if move2 > 0 else 0.0), no_leaps(rank, pixels)


def carried(leaps: Leaps, turn: Float[np.ndarray, "rank rank"]) -> Leaps:
    """The same tangents after the basis G became `turn` G."""
    return Leaps(turn @ leaps.jumps, turn @ leaps.changes, turn @ leaps.move, turn @ leaps.jump, leaps.seen)


def _lowered(x: Tangent, gram: Float[np.ndarray, "rank rank pixels"]) -> Tangent:
    return np.einsum("klj,lj->kj", gram, x)


def _length2(x: Tangent, gram: Float[np.ndarray, "rank rank pixels"]) -> float:
    return float((x * _lowered(x, gram)).sum())
