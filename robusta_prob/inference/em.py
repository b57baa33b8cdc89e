"""The closed-form engine: E-step weights, exact coefficients, exact basis, one Fisher step of the noise law.

`init -> State`, `step(State, blocks) -> (State, Info)`: `inference.blocks` are gone through once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.linalg import pair_count
from robusta_prob.inference.m_step import Learn, Memory, Moves, maximise, no_memory
from robusta_prob.inference.sweep import (
    Globals,
    Local,
    PerObject,
    Settings,
    Statistics,
    sweep,
)


class Past(NamedTuple):
    """The pass before, for the way back from a bad jump."""

    memory: Memory  # of its update
    shared: Globals
    statistics: Statistics
    height: float  # F once the coefficients had followed, at least


class State(NamedTuple):
    """What is carried from pass to pass."""

    shared: Globals
    local: tuple[Local, ...]  # one per block
    turn: Float[np.ndarray, "rank rank"]  # takes them into the gauge of `shared`
    past: Past | None = None


class Info(NamedTuple):
    """What is looked at after a pass."""

    bound: float  # F once the coefficients have followed the basis of before the pass, at least [nats]
    moves: Moves
    statistics: Statistics
    objects: tuple[PerObject, ...]


def init(shared: Globals, coefficients: Iterable[Float[np.ndarray, "rows rank"]]) -> State:
    """State at given shared values and coefficients.

    Coefficients count as known until the first pass: a covariance as wide as the population's would make
    every precise cell look bad.
    """
    rank = len(shared.basis)

    def local(host: Float[np.ndarray, "rows rank"]) -> Local:
        A, rows = jnp.asarray(host, shared.basis.dtype), len(host)
        V = jnp.zeros((rows, pair_count(rank)), A.dtype)
        return Local(A, V, jnp.zeros(rows, A.dtype), jnp.ones(rows, A.dtype))

    return State(shared, tuple(local(A) for A in coefficients), np.eye(rank))


def step(
    state: State,
    blocks: Blocks,
    settings: Settings,
    learn: Learn,
    *,
    marginal: bool,
    steady: bool,
) -> tuple[State, Info]:
    """One pass over the blocks, then one update of everything shared; a jump that lowered F is taken back."""
    past = state.past
    memory = no_memory(state.shared) if past is None else past.memory
    local, total, objects, height = _pass(state, blocks, settings, marginal)
    # judged once the coefficients have followed: along slow directions F falls until they do
    slack = _slack(state.shared, sum(blocks.rows), learn)
    if past is not None and memory.leaps.differences and not height >= past.height - slack:
        forgotten = no_memory(state.shared, memory.pace)
        turned, memory, _ = maximise(past.shared, past.statistics, forgotten, learn, steady=steady)
        state = State(turned.shared, state.local, turned.turn)
        local, total, objects, height = _pass(state, blocks, settings, marginal)
    turned, memory, moves = maximise(state.shared, total, memory, learn, steady=steady)
    past = Past(memory, state.shared, total, height)
    return State(turned.shared, local, turned.turn, past), Info(height, moves, total, objects)


def _pass(
    state: State, blocks: Blocks, settings: Settings, marginal: bool
) -> tuple[tuple[Local, ...], Statistics, tuple[PerObject, ...], float]:
    """The sweep over all blocks, its sums added up; F at the new coefficients, at least."""
    total: Statistics | None = None
    waiting: Statistics | None = None  # of the block before: added up while the device is at the next one
    turn = jnp.asarray(state.turn.astype(state.shared.basis.dtype))
    local, objects = [], []
    for block, old in zip(blocks, state.local, strict=True):
        new, statistics, seen = sweep(
            block.flux, block.ivar, old, block.rows, turn, state.shared, settings, marginal=marginal
        )
        total = _plus(total, waiting)
        local.append(new)
        objects.append(seen)
        waiting = statistics
    total = _plus(total, waiting)
    assert total is not None
    height = sum(
        float((np.asarray(seen.bound, float) + np.asarray(seen.gain, float))[:rows].sum())
        for seen, rows in zip(objects, blocks.rows, strict=True)
    )
    return tuple(local), total, tuple(objects), height


def _plus(total: Statistics | None, part: Statistics | None) -> Statistics | None:
    """Sums on the host, in float64; that waits for the device, or blocks would be read faster than used."""
    if part is None:
        return total
    host: Statistics = jax.tree.map(lambda x: np.asarray(x, float), part)
    return host if total is None else jax.tree.map(np.add, total, host)


def _slack(shared: Globals, objects: int, learn: Learn) -> float:
    """How far F may fall and count as rising: by rounding, or more where its noise law moves on its own."""
    rounding = 10.0 * float(jnp.finfo(shared.basis.dtype).eps)
    least = max(rounding, 1e-6 if learn.any_noise or learn.population else 0.0)
    return least * objects * shared.basis.shape[1]
