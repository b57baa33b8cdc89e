"""The closed-form engine: E-step weights, exact coefficients, exact basis, one Fisher step of the noise law.

`init -> State`, `step(State, blocks) -> (State, Info)`: `inference.blocks` are gone through once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from robusta_prob.inference.blocks import Block, Blocks
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
from robusta_prob.inference.quantities import Form, Globals, Local, PerObject, Settings, Statistics
from robusta_prob.inference.sweep import Round, sweep, turned_by
from robusta_prob.inference.threads import in_order

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
        one = jnp.ones(rows, A.dtype)
        return Local(A, V, jnp.zeros_like(one), one, one)

    return State(shared, tuple(local(A) for A in coefficients), np.eye(rank))


def in_gauge(state: State) -> State:
    """The same with all coefficients in the gauge of the basis; what is known of the past is in another."""
    if (state.turn == np.eye(len(state.turn))).all():
        return state
    turn = state.turn.astype(state.shared.basis.dtype)
    local = tuple(turned_by(x, turn) for x in state.local)
    return state._replace(local=local, turn=np.eye(len(turn)), past=None)


def step(
    state: State,
    blocks: Blocks,
    settings: Settings,
    learn: Learn,
    *,
    form: Form,
    steady: bool,
    updates: int = 1,
    times: int = 1,
) -> tuple[State, Info]:
    """One pass over the blocks, then one update of everything shared; a jump that lowered F is taken back.

    With more `updates`, one after every part of the blocks instead, as far as there are so many.
    Coefficients are gone through so many `times` before an update of everything.
    """
    updates = min(updates, blocks.fewest)
    if updates > 1:
        return _in_parts(state, blocks, settings, learn, updates, form)
    past = state.past
    memory = no_memory(state.shared) if past is None else past.memory
    seen = _pass(state, blocks, settings, form, times)
    # judged once the coefficients have followed: along slow directions F falls until they do
    slack = _slack(state.shared, sum(blocks.every), learn)
    if past is not None and memory.leaps.differences and not seen.height >= past.height - slack:
        forgotten = no_memory(state.shared, memory.pace)
        turned, memory, _ = _maximised(blocks, past.shared, past.statistics, forgotten, learn, steady=steady)
        state = State(turned.shared, state.local, turned.turn)
        seen = _pass(state, blocks, settings, form, times)
    turned, memory, moves = _maximised(blocks, state.shared, seen.total, memory, learn, steady=steady)
    past = Past(memory, state.shared, seen.total, seen.height)
    new = State(turned.shared, seen.local, turned.turn, past)
    return new, Info(seen.height, moves, seen.total, seen.objects)


def _in_parts(
    state: State, blocks: Blocks, settings: Settings, learn: Learn, updates: int, form: Form
) -> tuple[State, Info]:
    """One pass with an update after each of so many parts of the blocks."""
    # every so-manieth block makes a part: a sample of all of the data, in whatever order they are
    members = [range(part, len(blocks.rows), updates) for part in range(updates)]
    stream = blocks.ordered([number for some in members for number in some])
    shared, moves = state.shared, NOWHERE
    memory = no_memory(shared)
    parts = state.parts or Parts((None,) * updates)
    local = list(state.local)
    turns, height = [state.turn] * updates, 0.0
    objects_of: dict[int, PerObject] = {}
    for part, some in enumerate(members):
        few, here = blocks.some(stream, some), State(shared, tuple(local[i] for i in some), turns[part])
        seen = _pass(here, few, settings, form, FIRST_PASSES if parts.each[part] is None else 1)
        height += seen.height
        parts = parts.replaced(part, seen.total, shared)
        turned, _, moves = _maximised(blocks, shared, parts.at(shared), memory, learn, steady=False)
        shared, parts = turned.shared, parts.carried(turned.turn)
        turns = [turned.turn @ (np.eye(len(turn)) if i == part else turn) for i, turn in enumerate(turns)]
        for i, now, told in zip(some, seen.local, seen.objects, strict=True):
            local[i], objects_of[i] = now, told
    for part, some in enumerate(members):
        for i in some:
            local[i] = turned_by(local[i], turns[part].astype(shared.basis.dtype))
    objects = tuple(objects_of[i] for i in range(len(local)))
    new = State(shared, tuple(local), np.eye(len(shared.basis)), None, parts)
    return new, Info(height, moves, parts.at(shared), objects)


class _Pass(NamedTuple):
    """What a pass over some blocks gives."""

    local: tuple[Local, ...]
    total: Statistics
    objects: tuple[PerObject, ...]
    height: float  # F at the new coefficients, at least


def _pass(state: State, blocks: Blocks, settings: Settings, form: Form, times: int = 1) -> _Pass:
    """The sweep over all blocks, its sums added up; each object so many times, of which the last counts."""
    dtype = state.shared.basis.dtype
    turn = np.asarray(state.turn, dtype)

    def work(item: tuple[Block, Local]) -> tuple[Local, Statistics, PerObject]:
        block, old = item
        how = Round(block.rows, times)
        new, statistics, seen = sweep(
            block.flux, block.ivar, old, how, turn, state.shared, settings, form=form
        )
        return new, jax.tree.map(lambda x: np.asarray(x, float), statistics), seen

    total: Statistics | None = None
    local, objects = [], []
    over: Any = in_order if len(state.local) > 1 else map
    for new, statistics, seen in over(work, zip(blocks, state.local, strict=True)):
        # always in the same order, so that the sums are the same bits
        total = statistics if total is None else jax.tree.map(np.add, total, statistics)
        local.append(new)
        objects.append(seen)
    assert total is not None
    height = sum(
        float((np.asarray(seen.bound, float) + np.asarray(seen.gain, float))[:rows].sum())
        for seen, rows in zip(objects, blocks.rows, strict=True)
    )
    return _Pass(tuple(local), blocks.summed(total), tuple(objects), float(blocks.summed(height)))


def _maximised(
    blocks: Blocks, shared: Globals, statistics: Statistics, memory: Memory, learn: Learn, *, steady: bool
) -> tuple[Turned, Memory, Moves]:
    """`maximise`, on which all processes agree; nothing where there is nothing to learn."""
    if not any(learn):
        return Turned(shared, np.eye(len(shared.basis))), memory, NOWHERE
    turned, memory, moves = maximise(shared, statistics, memory, learn, steady=steady)
    (new, turn), told = blocks.agreed((turned, moves))
    return Turned(on_device(new, shared), turn), memory, Moves(*map(float, told))


def _slack(shared: Globals, objects: int, learn: Learn) -> float:
    """How far F may fall and count as rising: by rounding, or more where its noise law moves on its own."""
    rounding = 10.0 * float(jnp.finfo(shared.basis.dtype).eps)
    least = max(rounding, 1e-6 if learn.any_noise or learn.population else 0.0)
    return least * objects * shared.basis.shape[1]
