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
from robusta_prob.inference.m_step import (
    NOWHERE,
    Learn,
    Memory,
    Moves,
    Turned,
    maximise,
    no_memory,
    on_device,
)
from robusta_prob.inference.parts import Parts
from robusta_prob.inference.quantities import Globals, Local, PerObject, Settings, Statistics
from robusta_prob.inference.sweep import sweep, turned_by

FIRST_PASSES = 3  # over coefficients that mean nothing yet, before the basis follows them


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
    past: Past | None = None  # of whole passes
    parts: Parts | None = None  # of passes with an update after every part


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
    updates: int = 1,
) -> tuple[State, Info]:
    """One pass over the blocks, then one update of everything shared; a jump that lowered F is taken back.

    With more `updates`, one after every part of the blocks instead, as far as there are so many.
    """
    updates = min(updates, blocks.fewest)
    if updates > 1:
        return _in_parts(state, blocks, settings, learn, updates, marginal=marginal)
    past = state.past
    memory = no_memory(state.shared) if past is None else past.memory
    seen = _pass(state, blocks, settings, marginal)
    # judged once the coefficients have followed: along slow directions F falls until they do
    slack = _slack(state.shared, sum(blocks.every), learn)
    if past is not None and memory.leaps.differences and not seen.height >= past.height - slack:
        forgotten = no_memory(state.shared, memory.pace)
        turned, memory, _ = _maximised(blocks, past.shared, past.statistics, forgotten, learn, steady=steady)
        state = State(turned.shared, state.local, turned.turn)
        seen = _pass(state, blocks, settings, marginal)
    turned, memory, moves = _maximised(blocks, state.shared, seen.total, memory, learn, steady=steady)
    past = Past(memory, state.shared, seen.total, seen.height)
    new = State(turned.shared, seen.local, turned.turn, past)
    return new, Info(seen.height, moves, seen.total, seen.objects)


def _in_parts(
    state: State, blocks: Blocks, settings: Settings, learn: Learn, updates: int, *, marginal: bool
) -> tuple[State, Info]:
    """One pass with an update after each of so many parts of the blocks."""
    # every so-manieth block makes a part: a sample of all of the data, in whatever order they are
    members = [range(part, len(blocks.rows), updates) for part in range(updates)]
    stream = blocks.ordered([number for some in members for number in some])
    shared, memory, moves = state.shared, no_memory(state.shared), NOWHERE
    parts = state.parts or Parts((None,) * updates)
    local = list(state.local)
    turns, height = [state.turn] * updates, 0.0
    objects_of: dict[int, PerObject] = {}
    for part, some in enumerate(members):
        few, here = blocks.some(stream, some), State(shared, tuple(local[i] for i in some), turns[part])
        seen = _pass(here, few, settings, marginal, FIRST_PASSES if parts.each[part] is None else 1)
        height += seen.height
        parts = parts.replaced(part, seen.total, shared)
        turned, memory, moves = _maximised(blocks, shared, parts.at(shared), memory, learn, steady=False)
        shared, parts = turned.shared, parts.carried(turned.turn)
        turns = [turned.turn @ (np.eye(len(turn)) if i == part else turn) for i, turn in enumerate(turns)]
        for i, now, told in zip(some, seen.local, seen.objects, strict=True):
            local[i], objects_of[i] = now, told
    for part, some in enumerate(members):
        for i in some:
            local[i] = turned_by(local[i], jnp.asarray(turns[part].astype(shared.basis.dtype)))
    objects = tuple(objects_of[i] for i in range(len(local)))
    new = State(shared, tuple(local), np.eye(len(shared.basis)), None, parts)
    return new, Info(height, moves, parts.at(shared), objects)


class _Pass(NamedTuple):
    """What a pass over some blocks gives."""

    local: tuple[Local, ...]
    total: Statistics
    objects: tuple[PerObject, ...]
    height: float  # F at the new coefficients, at least


def _pass(state: State, blocks: Blocks, settings: Settings, marginal: bool, times: int = 1) -> _Pass:
    """The sweep over all blocks, its sums added up; each block so many times, of which the last counts."""
    total: Statistics | None = None
    waiting: Statistics | None = None  # of the block before: added up while the device is at the next one
    turn, one = (
        jnp.asarray(x.astype(state.shared.basis.dtype)) for x in (state.turn, np.eye(len(state.turn)))
    )
    quiet = settings._replace(listen=jnp.zeros_like(settings.listen))
    local, objects = [], []
    for block, new in zip(blocks, state.local, strict=True):
        for time in range(times):
            new, statistics, seen = sweep(
                block.flux,
                block.ivar,
                new,
                block.rows,
                one if time else turn,
                state.shared,
                quiet if time < times - 1 else settings,
                marginal=marginal,
            )
        total = _plus(total, waiting)
        local.append(new)
        objects.append(seen)
        waiting = statistics
    total = blocks.summed(_plus(total, waiting))
    assert total is not None
    height = sum(
        float((np.asarray(seen.bound, float) + np.asarray(seen.gain, float))[:rows].sum())
        for seen, rows in zip(objects, blocks.rows, strict=True)
    )
    return _Pass(tuple(local), total, tuple(objects), float(blocks.summed(height)))


def _maximised(
    blocks: Blocks, shared: Globals, statistics: Statistics, memory: Memory, learn: Learn, *, steady: bool
) -> tuple[Turned, Memory, Moves]:
    """`maximise`, on which all processes agree."""
    turned, memory, moves = maximise(shared, statistics, memory, learn, steady=steady)
    (new, turn), told = blocks.agreed((turned, moves))
    return Turned(on_device(new, shared), turn), memory, Moves(*map(float, told))


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
