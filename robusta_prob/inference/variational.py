"""A fit by the variational engine: warmed up in closed form on a subsample, then epochs of minibatches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from robusta_prob.inference import em, svi
from robusta_prob.inference.anneal import FULL, TARGET, Robustness, Schedule, has_ended, tightening
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.guides import LAW
from robusta_prob.inference.isolate import tamed
from robusta_prob.inference.iterate import ADVICE, Epoch, Run, iterate
from robusta_prob.inference.linalg import invert_on_host, unpack
from robusta_prob.inference.m_step import Moves
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.quantities import Globals
from robusta_prob.inference.recipe import Batch, population_at
from robusta_prob.inference.request import Plan, Request
from robusta_prob.inference.settle import NOTHING, settle
from robusta_prob.inference.start import Begun, subsample
from robusta_prob.models.noise import NoiseLaw

BATCH_ROWS = 256
WARM_UP = 20  # passes over the subsample
PATIENCE = 8  # epochs without a better bound that end a fit: more than `svi.PATIENCE`
DRAWS = 400  # of the basis, for its covariance: 4 % of a standard deviation
FIRST_PASSES = 4  # of the coefficients of all objects, annealed


class State(NamedTuple):
    """What is carried from epoch to epoch."""

    svi: svi.State
    centre: Mapping[str, np.ndarray]  # of everything shared
    best: float  # bound so far
    since: int  # epochs ago


class Info(NamedTuple):
    """What is looked at after an epoch."""

    moves: Moves


class Variational(NamedTuple):
    """Result of `run`."""

    run: Run  # over `em.State`, for `finish`
    column_covariance: Float[np.ndarray, "pixels rank rank"] | None  # of the guide, in the gauge of its basis
    has_law: bool  # whether the program's noise law is ours


def run(
    problem: Problem,
    begun: Begun,
    blocks: Blocks,
    plan: Plan,
    request: Request,
    spent: int,
) -> Variational:
    """Epochs of minibatches until the bound has not become better for a while."""
    data, floor, seed = tamed(problem.data), problem.given_floor, request.seed

    def schedule(epoch: int) -> Robustness:
        return request.schedule(epoch - spent)

    size, unit = data.shape[0], data.unit
    rows = svi.batch_rows(size, request.batch_rows or BATCH_ROWS)
    steps = -(-size // rows)
    patience = svi.patience(PATIENCE, steps, ours=isinstance(plan.guide, str))
    first, root, history = warm_up(problem, begun, tightening(), seed)
    engine = svi.engine(
        plan.model,
        first,
        root,
        size=size,
        steps_per_epoch=steps,
        noise=problem.noise if floor is None else problem.noise._replace(floor=floor / unit),
        prior=problem.prior,
        guide=plan.guide,
        optimizer=plan.optimizer,
    )
    batch = next(svi.minibatches(data.flux, data.ivar, rows, seed, 0))

    def step(state: State, epoch: int) -> tuple[State, Info, Epoch]:
        robustness = jax.tree.map(partial(jnp.asarray, dtype=data.dtype), schedule(epoch))
        inner, losses = state.svi, []
        for part in svi.minibatches(data.flux, data.ivar, rows, seed, epoch):
            inner, loss = engine.step(inner, part, robustness)
            losses.append(loss)
        bound = -float(np.mean(jax.device_get(losses)))
        best, since = (bound, 0) if bound > state.best else (state.best, state.since + 1)
        centre = jax.device_get(engine.centre(inner, batch))
        law = _law(centre, first.loss)
        moves = _moves(centre, state.centre, root, at_rest=since >= patience)
        line = Epoch(
            epoch,
            "svi",
            bound,
            moves.basis,
            moves.noise,
            *schedule(epoch),
            law.nu,
            float(law.scale),
            law.typical_floor * unit,
            float(law.contamination),
        )
        return State(inner, centre, best, since), Info(moves), line

    inner = engine.init(jax.random.key(seed), batch)
    begin = State(inner, jax.device_get(engine.centre(inner, batch)), -math.inf, 0)
    outcome = iterate(
        step,
        begin,
        first=spent,
        max_epochs=request.max_epochs,
        tol=request.tol,
        settled=lambda epoch: has_ended(request.schedule, epoch - spent),
        callback=request.callback,
    )
    covariance = None if plan.guide == "map" else _basis_covariance(engine, outcome.state.svi, batch, seed)
    shared = _shared(problem, outcome.state.centre, first)
    mean = np.broadcast_to(np.asarray(shared.population.mean), (size, problem.rank))
    state, _ = settle(problem, em.init(shared, blocks.deal(mean, data.dtype)), blocks, FULL, FIRST_PASSES)
    state, info = settle(problem, state, blocks)
    outcome = outcome._replace(state=state, info=info, history=[*history, *outcome.history])
    return Variational(outcome, covariance, set(LAW) <= set(begin.centre))


def warm_up(
    problem: Problem, begun: Begun, schedule: Schedule, seed: int
) -> tuple[Globals, Float[np.ndarray, "pixels rank rank"], list[Epoch]]:
    """The closed-form engine on a subsample, and a root of the basis' covariance in the whole survey."""
    sample = subsample(problem, np.random.default_rng(seed))
    few = Blocks.of(sample.data, sample.data.unit, sample.rows)
    state = begun._replace(coefficients=np.median(begun.coefficients, axis=0)[None]).state_for(few)
    state, _ = settle(sample, state, few, FULL, FIRST_PASSES)
    history = []
    for epoch in range(WARM_UP):
        steady = has_ended(schedule, epoch)
        state, _, line = sample.step(state, few, schedule(epoch), epoch, "start: closed form", steady=steady)
        history.append(line)
    state, info, _ = sample.step(state, few, TARGET, 0, "information", NOTHING)
    n, m = problem.data.shape
    gram = unpack(np.asarray(info.statistics.gram + info.statistics.gram_cov, float), problem.rank)
    gram *= n / sample.data.shape[0]
    gram += m * np.eye(problem.rank)[:, :, None]  # the weak prior of the programs
    covariance = np.moveaxis(invert_on_host(gram, float(np.finfo(problem.dtype).eps))[0], -1, 0)
    if not all(np.isfinite(x).all() for x in (covariance, *jax.tree.leaves(state.shared))):
        raise FloatingPointError(f"the warm-up in closed form did not stay finite; {ADVICE}")
    root = np.linalg.cholesky(covariance)
    return state.shared, root.astype(problem.dtype), history


def _moves(
    centre: Mapping[str, np.ndarray],
    before: Mapping[str, np.ndarray],
    root: Float[np.ndarray, "pixels rank rank"],
    *,
    at_rest: bool,
) -> Moves:
    change = (centre["basis"] - before["basis"]).T[:, :, None]
    basis = float(np.sqrt(np.mean(np.linalg.solve(root.astype(float), change) ** 2)))
    noise = 0.0
    if set(LAW) <= set(centre):
        with np.errstate(divide="ignore", invalid="ignore"):  # a law that has run away is no finite move
            tail = np.abs(1.0 / np.asarray(centre["nu"]) - 1.0 / np.asarray(before["nu"]))
            size = 2.0 * np.abs(np.log(np.asarray(centre["scale"]) / np.asarray(before["scale"])))
        noise = float(np.maximum(tail, size))
    return Moves(basis, *((0.0, 0.0) if at_rest else (math.inf, noise)))


def _law(centre: Mapping[str, np.ndarray], otherwise: NoiseLaw) -> NoiseLaw:
    """The program's noise law; `otherwise` where it has none of ours."""
    if not set(LAW) <= set(centre):
        return otherwise
    nu, scale, floor, contamination, width = (np.asarray(centre[name]) for name in LAW)
    with np.errstate(divide="ignore"):
        inverse_df = 1.0 / nu
    return NoiseLaw(float(inverse_df), float(scale), floor, float(contamination), float(width))


def _shared(problem: Problem, centre: Mapping[str, np.ndarray], first: Globals) -> Globals:
    population = population_at({name: jnp.asarray(x) for name, x in centre.items()}, first.population)
    return problem.shared(
        np.asarray(centre["basis"]),
        problem.law(_law(centre, first.loss)),
        first.population if population is None else problem.population(*map(np.asarray, population)),
    )


def _basis_covariance(
    engine: svi.Engine, state: svi.State, batch: Batch, seed: int
) -> Float[np.ndarray, "pixels rank rank"]:
    """Of every column of the basis under the guide, from draws; a running sum holds one draw at a time."""
    centre = np.asarray(engine.centre(state, batch)["basis"], float)
    total, square = np.zeros(centre.T.shape), np.zeros((*centre.T.shape, len(centre)))
    for key in jax.random.split(jax.random.key(seed), DRAWS):
        G = (np.asarray(engine.draw(state, key, batch)["basis"], float) - centre).T
        total, square = total + G, square + G[:, :, None] * G[:, None, :]
    mean = total / DRAWS
    return square / DRAWS - mean[:, :, None] * mean[:, None, :]
