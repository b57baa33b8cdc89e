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
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.initialise import Start, has_structure, majority, project_wrapped
from robusta_prob.inference.isolate import tamed
from robusta_prob.inference.iterate import ADVICE, Epoch
from robusta_prob.inference.linalg import pack, product
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.quantities import Globals
from robusta_prob.inference.restart import SUSPICIOUS
from robusta_prob.inference.results import Fit, in_training
from robusta_prob.inference.settle import settle
from robusta_prob.inference.threads import in_order
from robusta_prob.models.noise import effective_ivar, log_density, robust_weight

SUBSAMPLE = 1000  # objects whose medians starts go by: with fewer, 45 % of bad ones may be a majority
RUNNERS = 500  # of them that run on, about
HELD_OUT = 0.1  # share of their cells that judges them
EPOCHS = 5
SPARE = 2  # components of the generous start
CLIP = 2.0  # errors up to which residuals count where structure is looked for
STILL = 0.1  # posterior deviations per pass above which a start has not come to a solution of its own
LONGER = 12  # passes more for starts that seem to lead apart, accelerated
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

    def state_for(self, blocks: Blocks) -> em.State:
        """The engine's state over these blocks."""
        A = np.broadcast_to(self.coefficients, (sum(blocks.every), self.coefficients.shape[1]))
        return em.init(self.shared, blocks.deal(A, self.shared.basis.dtype))


def compete(
    problem: Problem, starts: Sequence[Callable[..., Start]], seed: int, *, generous: bool = False
) -> Begun:
    """Run every start for a few passes and keep the one that best predicts held-out cells.

    With `generous`, where that one leaves more than noise it also runs with components too many, which find
    room for what a minority of the objects does; without those it is one more start.

    The score is the median over objects of the mean held-out log density, so that neither outlying
    objects nor ultra-precise ones decide.
    """
    rng = np.random.default_rng(seed)
    many = subsample(problem, rng)
    Y, W = np.asarray(many.data.flux), np.asarray(many.data.ivar)
    hidden = rng.random(Y.shape) < HELD_OUT
    seen = (W > 0) & ~hidden
    some = slice(None, None, max(len(Y) // RUNNERS, 1))
    sample = many._replace(data=many.data.take(some))
    W, hidden = np.asarray(sample.data.ivar), hidden[some]
    shown, judges = (np.where(cells, W, 0).astype(W.dtype) for cells in (~hidden, hidden))
    rank = problem.rank
    most = max(min(rank + SPARE, len(shown) - 1, shown.shape[1]), rank)

    def run(item: tuple[int, Callable[..., Start]]) -> tuple[Start, Begun, np.ndarray, np.ndarray]:
        number, start = item
        basis, A = start(Y, seen, most, seed + number)
        begun = _begin(sample, Start(basis[:rank], A[some, :rank]), shown, start.__name__)
        return Start(basis, A[some]), *_run_on(sample, begun, shown, judges, EPOCHS)

    wide, field, A, scores = map(list, zip(*in_order(run, enumerate(starts)), strict=True))
    best = _best(scores)
    # where all that is left is noise, components too many have nothing to find
    if generous and _something_left(sample, field[best], A[best], seed):
        name = f"{field[best].name} with {most - rank} more"
        begun = _begin(sample._replace(rank=most), wide[best], shown, name)
        begun, score = _generous(sample, begun, shown, judges, seed)
        field.append(begun)
        scores.append(score)
    typical = [_typical(score) for score in scores]
    best = _best(scores)
    if not np.isfinite(np.asarray(field[best].shared.basis)).all():
        raise FloatingPointError(f"no start stays finite; {ADVICE}")
    rivals = [
        begun
        for begun, score in zip(field, scores, strict=True)
        if _angle(field[best], begun) > DISTINCT and not _clearly_better(scores[best], score)
    ]
    all_scores = MappingProxyType({x.name: score for x, score in zip(field, typical, strict=True)})
    return field[best]._replace(scores=all_scores, doubt=_doubt(sample, field[best], rivals, shown, judges))


def _something_left(sample: Problem, begun: Begun, A: Float[np.ndarray, "objects rank"], seed: int) -> bool:
    """Whether the residuals of objects that a start fits have anything in common."""
    residual = np.asarray(sample.data.flux) - product(A, np.asarray(begun.shared.basis))
    if not np.isfinite(residual).all():
        return True
    ivar = np.asarray(sample.data.ivar)
    weight = np.where(ivar > 0, robust_weight(residual**2, ivar, begun.shared.loss), 0.0).sum(1)
    weight /= np.maximum((ivar > 0).sum(1), 1)
    fitted = weight >= SUSPICIOUS * np.median(weight)
    z = residual[fitted] * np.sqrt(effective_ivar(ivar[fitted], begun.shared.loss))
    return has_structure(np.clip(z, -CLIP, CLIP), seed)


def _generous(
    sample: Problem,
    wide: Begun,
    shown: Float[np.ndarray, "objects pixels"],
    hidden: Float[np.ndarray, "objects pixels"],
    seed: int,
) -> tuple[Begun, Float[np.ndarray, " objects"]]:
    """A start with components too many, which are given up once they have found what a minority does."""
    begun, A, _ = _run_on(sample._replace(rank=len(wide.shared.basis)), wide, shown, hidden, LONGER)
    basis = np.asarray(begun.shared.basis)
    if not (np.isfinite(A).all() and np.isfinite(basis).all()):
        return begun, np.full(1, -np.inf)
    few = majority(Start(basis, A), sample.rank, seed)
    begun, _, score = _run_on(sample, _begin(sample, few, shown, begun.name), shown, hidden, EPOCHS)
    return begun, score


def _typical(score: Float[np.ndarray, " objects"]) -> float:
    return float(np.median(score)) if np.isfinite(score).all() else -math.inf


def _best(scores: Sequence[Float[np.ndarray, " objects"]]) -> int:
    return int(np.argmax([_typical(score) for score in scores]))


def _doubt(
    sample: Problem,
    winner: Begun,
    rivals: Sequence[Begun],
    shown: Float[np.ndarray, "objects pixels"],
    hidden: Float[np.ndarray, "objects pixels"],
) -> str:
    """What to tell of rivals that, given more passes, still stay apart and predict as well."""
    if not rivals:
        return ""
    (winner, _, score), *others = (_run_on(sample, x, shown, hidden, LONGER) for x in (winner, *rivals))
    for rival, _, other in others:
        angle, moving = _angle(winner, rival), rival.history[-1].move
        if angle > DISTINCT and moving < STILL and not _clearly_better(score, other):
            return (
                f"start {rival.name} leads to another basis (sine of the angle {angle:.2g}) that predicts "
                "held-out cells as well"
            )
    return ""


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
    sample = subsample(problem, np.random.default_rng(seed))
    Y, W = np.asarray(sample.data.flux), np.asarray(sample.data.ivar)
    if isinstance(init, Fit):
        mean, covariance = init.population.mean / data.unit, init.population.covariance / data.unit**2
        floors = np.broadcast_to(init.noise.floor, data.shape[1]) if problem.per_pixel else None
        floor = init.noise.typical_floor if floors is None else floors
        law = problem.law(init.noise._replace(floor=floor).in_unit(data.unit))
        law = law._replace(**_given(problem))
        shared = problem.shared(basis, law, problem.population(mean, covariance))
        known = jnp.asarray(np.moveaxis(init.basis_covariance * init.information, 0, -1), problem.dtype)
        shared = shared._replace(basis_covariance=pack(known))
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


def subsample(problem: Problem, rng: np.random.Generator) -> Problem:
    """The problem of at most `SUBSAMPLE` random objects with data."""
    rows = np.flatnonzero(problem.data.n_observed > 0)
    rows = np.sort(rng.permutation(rows)[:SUBSAMPLE])
    return problem._replace(data=tamed(problem.data.take(rows)))


def _begin(sample: Problem, first: Start, W: Float[np.ndarray, "objects pixels"], name: str) -> Begun:
    """Noise law and population from the start's own residuals and coefficients."""
    A, G = first.coefficients, first.basis
    law = sample.first_law(np.asarray(sample.data.flux) - product(A, G), W)
    mean = np.median(A, axis=0)
    spread = 1.4826 * np.median(np.abs(A - mean), axis=0)
    spread = np.maximum(spread, 1e-3 * max(np.linalg.norm(mean), spread.max(), 1e-30))
    population = sample.population(mean, np.diag(4.0 * spread**2))
    return Begun(name, sample.shared(G, law, population), mean[None], ())


def _run_on(
    sample: Problem,
    begun: Begun,
    shown: Float[np.ndarray, "objects pixels"],
    hidden: Float[np.ndarray, "objects pixels"],
    epochs: int,
) -> tuple[Begun, Float[np.ndarray, "objects rank"], Float[np.ndarray, " objects"]]:
    """Fully robust passes over the cells shown; the coefficients, and every object's score on hidden ones."""
    seen = sample._replace(data=_with_ivar(sample, shown))
    blocks = Blocks.of(seen.data, seen.data.unit, seen.rows)
    state = begun.state_for(blocks)
    history = []
    for epoch in range(epochs):
        state, _, line = seen.step(state, blocks, FULL, epoch, f"start: {begun.name}", steady=epochs > EPOCHS)
        history.append(line)
    state, _ = settle(seen, state, blocks, FULL, SETTLING)  # coefficients in the gauge of the last basis
    A = blocks.gather([local.coefficients for local in state.local])
    score = _held_out_score(sample, A, state.shared, hidden)
    return Begun(begun.name, state.shared, np.median(A, axis=0)[None], tuple(history)), A, score


def _held_out_score(
    sample: Problem, A: np.ndarray, shared: Globals, hidden: Float[np.ndarray, "objects pixels"]
) -> Float[np.ndarray, " objects"]:
    """Mean log density of every object's hidden cells [nats]; objects without any are left out."""
    residual = np.asarray(sample.data.flux) - product(A, np.asarray(shared.basis))
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
