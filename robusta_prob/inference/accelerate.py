"""Anderson acceleration of the basis: what the last moves had in common is taken in one jump.

EM converges linearly, slowly along directions that the data hardly determine. With moves f_t and the jumps
s_t that were taken, the next jump is f - sum_i c_i (s_i + df_i), where c fits f by the differences df of
the moves by least squares: a secant step in the few directions that are slow (Walker & Ni 2011, SIAM J.
Numer. Anal. 49, 1715; for EM, with restarts, Henderson & Varadhan 2019, J. Comput. Graph. Stat. 28, 834).
Moves are tangents of the Grassmann manifold: across the gauge, and carried along when the gauge turns.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

DEPTH = 3  # differences remembered
LONGEST = 30.0  # a jump in units of the move that it replaces
GROWTH = 2.0  # a move this many times longer than the one before: the past says nothing any more
CERTAIN = 2.0  # a jump is trusted to end within this fraction of its own length
RIDGE = 1e-5  # on a unit diagonal: above what float32 loses of nearly parallel differences

Tangent = Float[Array, "rank pixels"]


class Leaps(NamedTuple):
    """The last moves and jumps of the basis, in its present gauge."""

    jumps: Float[Array, "depth rank pixels"]
    changes: Float[Array, "depth rank pixels"]  # of the move, after each jump
    move: Tangent
    jump: Tangent
    seen: Int[Array, ""]  # moves seen since the last restart


class Jump(NamedTuple):
    """What to do, and how far from rest that is thought to be; squared lengths in the metric of the Grams."""

    step: Tangent
    move2: Float[Array, ""]  # of the plain move
    left2: Float[Array, ""]  # of what will be left after the jump; infinite while nothing is known


def no_leaps(rank: int, pixels: int, dtype: np.dtype) -> Leaps:
    """Nothing seen yet."""
    many, one = jnp.zeros((DEPTH, rank, pixels), dtype), jnp.zeros((rank, pixels), dtype)
    return Leaps(many, many, one, one, jnp.zeros((), int))


def leap(leaps: Leaps, move: Tangent, gram: Float[Array, "rank rank pixels"]) -> tuple[Jump, Leaps]:
    """The jump to take instead of `move`, and what to remember; lengths are in the metric of `gram`."""

    def lowered(x: Tangent) -> Tangent:
        return (gram * x[None]).sum(1)

    move2, before2 = (move * lowered(move)).sum(), (leaps.move * lowered(leaps.move)).sum()
    follows = (leaps.seen > 0) & (move2 < GROWTH**2 * before2)
    jumps = jnp.concatenate([leaps.jump[None], leaps.jumps[:-1]])
    changes = jnp.concatenate([(move - leaps.move)[None], leaps.changes[:-1]])
    seen = jnp.where(follows, leaps.seen, 0)
    known = jnp.arange(DEPTH) < seen
    lower = jnp.stack([lowered(x) for x in changes])
    inner = jnp.einsum("ikj,lkj->il", changes, lower)
    size = jnp.sqrt(jnp.where(known & (jnp.diagonal(inner) > 0), jnp.diagonal(inner), 1.0))
    system = jnp.where(known[:, None] & known, inner / size[:, None] / size, 0.0)
    system = jnp.where(jnp.eye(DEPTH, dtype=bool), 1.0 + RIDGE, system)
    rhs = jnp.where(known, jnp.einsum("kj,ikj->i", move, lower) / size, 0.0)
    share = jnp.linalg.solve(system, rhs) / size
    extra = -jnp.einsum("i,ikj->kj", share, jumps + changes)
    extra2 = (extra * lowered(extra)).sum()
    tiny = jnp.finfo(move.dtype).tiny
    extra = extra * jnp.minimum(1.0, LONGEST * jnp.sqrt(move2 / jnp.maximum(extra2, tiny)))
    jump = jnp.where(seen > 0, move + extra, move)
    left = move - jnp.einsum("i,ikj->kj", jnp.where(known, share, 0.0), changes)
    jump2 = (jump * lowered(jump)).sum()
    # the unexplained rest is a move: what it would come to is longer, as this jump is longer than its move
    left2 = (left * lowered(left)).sum() * jnp.maximum(1.0, jump2 / jnp.maximum(move2, tiny))
    left2 = jnp.where(seen > 0, jnp.maximum(left2, jump2 / CERTAIN**2), jnp.where(move2 > 0, jnp.inf, 0.0))
    return Jump(jump, move2, left2), Leaps(jumps, changes, move, jump, jnp.minimum(seen + 1, DEPTH + 1))


def no_leap(leaps: Leaps, move: Tangent, gram: Float[Array, "rank rank pixels"]) -> tuple[Jump, Leaps]:
    """The move itself, and nothing is remembered."""
    move2 = (move * (gram * move[None]).sum(1)).sum()
    left2 = jnp.where(move2 > 0, jnp.inf, 0.0)
    return Jump(move, move2, left2), leaps._replace(seen=jnp.zeros_like(leaps.seen))


def carried(leaps: Leaps, turn: Float[Array, "rank rank"]) -> Leaps:
    """The same tangents after the basis G became `turn` G."""
    jumps, changes = (jnp.einsum("kl,ilj->ikj", turn, x) for x in (leaps.jumps, leaps.changes))
    return Leaps(jumps, changes, turn @ leaps.move, turn @ leaps.jump, leaps.seen)
