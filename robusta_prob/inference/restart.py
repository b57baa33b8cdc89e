"""Objects in a wrong solution of their own: begun again, and moved where that raises their bound.

A robust loss has several optima in the coefficients of a badly hit object: one that explains the spectrum,
and others that explain what hit it. The basis is the same for both, so the object alone decides.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from robusta_prob.inference import em
from robusta_prob.inference.anneal import FULL, TARGET
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.quantities import Local
from robusta_prob.inference.settle import NOTHING, PASSES, settle

SUSPICIOUS = 0.8  # objects whose mean robust weight is below this share of the median
ANNEALED_PASSES = 12
PRESENT_PASSES = 3  # of solutions that have come to rest with the basis, but for its last move
MANY = 0.01  # share of the objects that moved from which on the basis may follow, and others with it
GAIN = 3.0  # nats by which the new solution must be better

Rows = Int[np.ndarray, " rows"]
NOBODY = np.empty(0, int)


def restart(
    problem: Problem, state: em.State, blocks: Blocks, known: Rows = NOBODY
) -> tuple[em.State, tuple[int, Rows]]:
    """The state with the better of two solutions for every suspicious object; how many moved, and which not.

    The second solution begins at the population's mean with full robustness; no object's bound falls. Objects
    that are `known` to stay are not asked again. Who is suspicious is told by the weights of the last pass.
    """
    turned = em.in_gauge(state)
    present = _gathered(turned, blocks)
    rows = np.setdiff1d(_suspicious(problem, present["weight"]), known)
    if not len(rows):
        return state, (0, known)
    part = problem._replace(data=problem.data.take(rows).load())
    few = Blocks.of(part.data, part.data.unit, part.rows)
    old = em.State(state.shared, _dealt({name: x[rows] for name, x in present.items()}, few), turned.turn)
    mean = np.asarray(state.shared.population.mean)
    middle = np.median(present["coefficients"], axis=0) if problem.prior.is_flat else mean
    new = em.init(state.shared, few.deal(np.tile(middle, (len(rows), 1)), problem.dtype))
    new, _ = settle(part, new, few, FULL, ANNEALED_PASSES)
    _, old_bound = _settled(part, old, few, PRESENT_PASSES)
    new, new_bound = _settled(part, new, few, PASSES)
    better = new_bound > old_bound + GAIN
    stayed = np.union1d(known, rows[~better])
    if not better.any():
        return state, (0, stayed)
    found = _gathered(new, few)
    for name, values in present.items():
        values[rows[better]] = found[name][better]
    moved = int(better.sum())
    if moved > MANY * len(present["weight"]):
        stayed = NOBODY
    return turned._replace(local=_dealt(present, blocks), past=None), (moved, stayed)


def _gathered(state: em.State, blocks: Blocks) -> dict[str, np.ndarray]:
    """What each object has of its own, over all blocks, by name."""
    return {name: blocks.gather([getattr(local, name) for local in state.local]) for name in Local._fields}


def _dealt(values: dict[str, np.ndarray], blocks: Blocks) -> tuple[Local, ...]:
    """The inverse of `_gathered`."""
    columns = zip(*(blocks.deal(values[name], values[name].dtype) for name in Local._fields), strict=True)
    return tuple(Local(*map(jnp.asarray, x)) for x in columns)


def _suspicious(problem: Problem, weight: Float[np.ndarray, " objects"]) -> Rows:
    seen = problem.data.n_observed > 0
    return np.flatnonzero(seen & (weight < SUSPICIOUS * np.median(weight[seen])))


def _settled(
    problem: Problem, state: em.State, blocks: Blocks, passes: int
) -> tuple[em.State, Float[np.ndarray, " rows"]]:
    """The state at rest, and every object's share of F there."""
    state, _ = settle(problem, state, blocks, passes=passes)
    state, info, _ = problem.step(state, blocks, TARGET, 0, "restart", NOTHING)
    return state, blocks.gather([objects.bound for objects in info.objects]).astype(float)
