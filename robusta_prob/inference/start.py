"""Where a fit begins: several cheap starts compete on a subsample, judged by cells they did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robusta_prob.inference import em
from robusta_prob.inference.anneal import FULL
from robusta_prob.inference.initialise import Start, project_wrapped
from robusta_prob.inference.isolate import tamed
from robusta_prob.inference.iterate import ADVICE, Epoch
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.results import Fit, in_training
from robusta_prob.inference.settle import settle
from robusta_prob.inference.sweep import Globals
from robusta_prob.models.noise import log_density

SUBSAMPLE = 1000  # objects on which starts compete
HELD_OUT = 0.1  # share of their cells that judges them
EPOCHS = 8
DISTINCT = 0.3  # sine of the angle from which two starts count as two solutions
SETTLING = 2  # passes more for the coefficients alone


class Begun(NamedTuple):
    """Shared values to begin with, and the coefficients: one row for all objects, or one row each."""

    name: str
    shared: Globals
    coefficients: Float[np.ndarray, "rows rank"]
    history: tuple[Epoch, ...]
    scores: Mapping[str, float] = MappingProxyType({})  # of all starts: typical held-out log density [nats]
    doubt: str = ""  # where another start predicts as well and yet differs

    def state_for(self, blocks: Sequence[em.Block]) -> em.State:
        """The engine's state over these blocks."""
        objects = sum(block.rows for block in blocks)
        A = np.broadcast_to(self.coefficients, (objects, self.coefficients.shape[1]))
        return em.init(self.shared, em.dealt(A, blocks))


def compete(problem: Problem, starts: Sequence[Callable[..., Start]], seed: int) -> Begun:
    """Run every start for a few passes and keep the one that best predicts held-out cells.

    The score is the median over objects of the mean held-out log density, so that neither outlying
    objects nor ultra-precise ones decide.
    """
    rng = np.random.default_rng(seed)
    sample = _subsample(problem, rng)
    Y, W = np.asarray(sample.data.flux), np.asarray(sample.data.ivar)
    hidden = rng.random(Y.shape) < HELD_OUT
    shown = np.where(hidden, 0, W).astype(W.dtype)
    field, scores = [], []
    for number, start in enumerate(starts):
        first = start(Y, shown > 0, problem.rank, seed + number)
        begun, score = _try(sample, first, shown, W * hidden, start.__name__)
        field.append(begun)
        scores.append(score)
    typical = [float(np.median(score)) if np.isfinite(score).all() else -math.inf for score in scores]
    best = int(np.argmax(typical))
    if not np.isfinite(np.asarray(field[best].shared.basis)).all():
        raise FloatingPointError(f"no start stays finite; {ADVICE}")
    doubts = (
        f"start {field[other].name} leads to another basis (sine of the angle {angle:.2g}) that predicts "
        "held-out cells as well"
        for other in range(len(field))
        if (angle := _angle(field[best], field[other])) > DISTINCT
        and not _clearly_better(scores[best], scores[other])
    )
    return field[best]._replace(
        scores=MappingProxyType({begun.name: score for begun, score in zip(field, typical, strict=True)}),
        doubt=next(doubts, ""),
    )


def warm(problem: Problem, init: Fit | Array, seed: int) -> Begun:
    """Begin at a fit, or at a basis (K, M)."""
    data, rank = problem.data, problem.rank
    basis = np.asarray(init.basis if isinstance(init, Fit) else init)
    if basis.shape != (rank, data.shape[1]) or not np.isfinite(basis).all():
        raise ValueError(
            f"init must be a Fit or a finite basis of shape (rank, pixels) = ({rank}, {data.shape[1]}), "
            f"got shape {basis.shape}"
        )
    if np.linalg.matrix_rank(basis) < rank:
        raise ValueError(
            f"the {rank} rows of init must be linearly independent, else they are no basis of that rank"
        )
    sample = _subsample(problem, np.random.default_rng(seed))
    Y, W = np.asarray(sample.data.flux), np.asarray(sample.data.ivar)
    if isinstance(init, Fit):
        mean, covariance = init.population.mean / data.unit, init.population.covariance / data.unit**2
        floors = np.broadcast_to(init.noise.floor, data.shape[1]) if problem.per_pixel else None
        floor = init.noise.typical_floor if floors is None else floors
        law = problem.law(init.noise._replace(floor=floor).in_unit(data.unit))
        law = law._replace(**_given(problem))
        shared = problem.shared(basis, law, problem.population(mean, covariance))
        same = data.shape[0] == len(init.ids) and in_training(init, data).all()
        return Begun("init", shared, init.coefficients / data.unit if same else mean[None], ())
    first = project_wrapped(Y, W > 0, basis.astype(data.dtype))
    return _begin(sample, first, W, "init")


def _given(problem: Problem) -> dict[str, Array]:
    """The given parts of the noise law, in the engine's units."""
    nu, scale, _, contamination = problem.noise
    floor = problem.given_floor
    if contamination is None and not problem.learn.contamination:
        contamination = 0.0
    values = {
        "inverse_df": None if nu is None else 1.0 / nu,
        "scale": scale,
        "floor": None if floor is None else np.full(problem.floor_shape, floor / problem.data.unit),
        "contamination": contamination,
    }
    return {name: jnp.asarray(x, problem.data.dtype) for name, x in values.items() if x is not None}


def _subsample(problem: Problem, rng: np.random.Generator) -> Problem:
    rows = np.flatnonzero(problem.data.observed.any(1))
    rows = np.sort(rng.permutation(rows)[:SUBSAMPLE])
    return problem._replace(data=tamed(problem.data.take(rows)))


def _begin(sample: Problem, first: Start, W: Float[np.ndarray, "objects pixels"], name: str) -> Begun:
    """Noise law and population from the start's own residuals and coefficients."""
    A, G = first.coefficients, first.basis
    law = sample.first_law(np.asarray(sample.data.flux) - A @ G, W)
    mean = np.median(A, axis=0)
    spread = 1.4826 * np.median(np.abs(A - mean), axis=0)
    spread = np.maximum(spread, 1e-3 * max(np.linalg.norm(mean), spread.max(), 1e-30))
    population = sample.population(mean, np.diag(4.0 * spread**2))
    return Begun(name, sample.shared(G, law, population), mean[None], ())


def _try(
    sample: Problem,
    first: Start,
    shown: Float[np.ndarray, "objects pixels"],
    hidden: Float[np.ndarray, "objects pixels"],
    name: str,
) -> tuple[Begun, Float[np.ndarray, " objects"]]:
    begun = _begin(sample, first, shown, name)
    seen = sample._replace(data=_with_ivar(sample, shown))
    blocks = tuple(em.blocks_of(seen.data, seen.data.unit))
    rows = [min(block.rows, len(block.flux)) for block in blocks]
    state = begun.state_for(blocks)
    history = []
    for epoch in range(EPOCHS):
        state, _, line = seen.step(state, blocks, FULL, epoch, f"start: {name}")
        history.append(line)
    state, _ = settle(seen, state, blocks, FULL, SETTLING)  # coefficients in the gauge of the last basis
    A = np.concatenate([np.asarray(x.coefficients)[:n] for x, n in zip(state.local, rows, strict=True)])
    score = _held_out_score(sample, A, state.shared, hidden)
    return Begun(name, state.shared, np.median(A, axis=0)[None], tuple(history)), score


def _held_out_score(
    sample: Problem, A: np.ndarray, shared: Globals, hidden: Float[np.ndarray, "objects pixels"]
) -> Float[np.ndarray, " objects"]:
    """Mean log density of every object's hidden cells [nats]; objects without any are left out."""
    residual = np.asarray(sample.data.flux) - A @ np.asarray(shared.basis)
    density = np.asarray(log_density(residual**2, hidden, shared.loss), float)
    count = (hidden > 0).sum(1)
    return density.sum(1)[count > 0] / count[count > 0] if count.any() else np.array([-np.inf])


def _clearly_better(score: Float[np.ndarray, " objects"], other: Float[np.ndarray, " objects"]) -> bool:
    """Whether most objects prefer the first, by a sign test at three standard deviations."""
    wins = int((score > other).sum())
    return wins - 0.5 * len(score) > 1.5 * math.sqrt(len(score))


def _angle(one: Begun, other: Begun) -> float:
    """Sine of the largest angle between two subspaces whose bases are orthonormal."""
    G, H = (np.asarray(begun.shared.basis, float) for begun in (one, other))
    return float(np.linalg.norm(G - (G @ H.T) @ H, 2)) if np.isfinite(H).all() else 0.0


def _with_ivar(sample: Problem, ivar: Float[np.ndarray, "objects pixels"]):  # type: ignore[no-untyped-def]
    return type(sample.data)(sample.data.flux, ivar, sample.data.labels)
