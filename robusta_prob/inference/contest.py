"""Several cheap starts compete on a subsample, judged by cells that they did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from robusta_prob.inference.anneal import FULL
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.initialise import Start, has_structure, majority
from robusta_prob.inference.iterate import ADVICE
from robusta_prob.inference.linalg import product
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.settle import settle
from robusta_prob.inference.start import GIVEN, Begun, begin, subsample
from robusta_prob.inference.threads import in_order
from robusta_prob.models.noise import effective_ivar, log_density

RUNNERS = 500  # of them that run on, about
HELD_OUT = 0.1  # share of their cells that judges them
EPOCHS = 5
SPARE = 2  # components of the generous start
FITTED = 2.0  # objects whose squared scale of z is at most so many times the typical one are fitted
CLIP = 2.0  # in units of the typical scale: larger residuals do not count for more
STILL = 0.1  # posterior deviations per pass above which a start has not come to a solution of its own
LONGER = 12  # passes more for starts that seem to lead apart, accelerated
DISTINCT = 0.3  # sine of the angle from which two starts count as two solutions
SETTLING = 2  # passes more for the coefficients alone

Matrix = Float[np.ndarray, "objects pixels"]


class Ran(NamedTuple):
    """A start after some passes."""

    begun: Begun
    coefficients: Float[np.ndarray, "objects rank"]
    scale2: Float[np.ndarray, " objects"]  # robust squared scale of each object's z
    score: Float[np.ndarray, " objects"]  # mean log density of each object's hidden cells [nats]

    @property
    def typical(self) -> float:
        """The median object's score; outlying and ultra-precise ones do not decide."""
        return float(np.median(self.score)) if np.isfinite(self.score).all() else -math.inf


class Contest(NamedTuple):
    """The objects by which starts are found, those on which they run, and the cells that judge them."""

    many: Problem
    seen: Bool[np.ndarray, "many pixels"]  # cells of the many by which starts are found
    some: slice  # of the many, on which starts run
    sample: Problem
    shown: Matrix  # inverse variances, 0 elsewhere
    hidden: Matrix

    @classmethod
    def of(cls, problem: Problem, seed: int) -> Contest:
        """A random one."""
        rng = np.random.default_rng(seed)
        many = subsample(problem, rng)
        W = np.asarray(many.data.ivar)
        hidden = rng.random(W.shape) < HELD_OUT
        seen, some = (W > 0) & ~hidden, slice(None, None, max(len(W) // RUNNERS, 1))
        shown, judges = (np.where(cells, W, 0).astype(W.dtype)[some] for cells in (seen, hidden))
        return cls(many, seen, some, many._replace(data=many.data.take(some)), shown, judges)

    def begin(self, start: Callable[..., Start], rank: int, seed: int, name: str) -> Begun:
        """A start of this rank, with a noise law and a population of its own."""
        basis, A = start(np.asarray(self.many.data.flux), self.seen, rank, seed)
        return self.begun(Start(basis, A[self.some]), name)

    def begun(self, first: Start, name: str) -> Begun:
        """The same of a basis and the sample's coefficients."""
        return begin(self.sample._replace(rank=len(first.basis)), first, self.shown, name)

    def run(self, begun: Begun, epochs: int) -> Ran:
        """Fully robust passes over the cells shown."""
        data, rank = self.sample.data, len(begun.shared.basis)
        seen = self.sample._replace(data=type(data)(data.flux, self.shown, data.labels), rank=rank)
        blocks = Blocks.of(seen.data, data.unit, seen.rows)
        state, history, stage = begun.state_for(blocks), [], f"start: {begun.name}"
        for epoch in range(epochs):
            state, _, line = seen.step(state, blocks, FULL, epoch, stage, steady=epochs > EPOCHS)
            history.append(line)
        state, _ = settle(seen, state, blocks, FULL, SETTLING)  # coefficients in the gauge of the last basis
        A = blocks.gather([local.coefficients for local in state.local])
        scale2 = blocks.gather([local.scale2 for local in state.local])
        residual = np.asarray(data.flux) - product(A, np.asarray(state.shared.basis))
        density = np.asarray(log_density(residual**2, self.hidden, state.shared.loss), float)
        count = (self.hidden > 0).sum(1)
        score = density.sum(1)[count > 0] / count[count > 0] if count.any() else np.array([-np.inf])
        middle = np.median(A, axis=0)[None]
        return Ran(Begun(begun.name, state.shared, middle, tuple(history)), A, scale2, score)


def compete(
    problem: Problem, starts: Sequence[Callable[..., Start]], seed: int, *, generous: bool = False
) -> Begun:
    """Run every start for a few passes and keep the one that best predicts held-out cells.

    With `generous`, where the best of them leaves more than noise, the best that can have any rank also runs
    with components too many: these find room for what a minority of the objects does, are given up, and the
    rest is one more start.
    """
    contest, rank = Contest.of(problem, seed), problem.rank

    def run(item: tuple[int, Callable[..., Start]]) -> Ran:
        number, start = item
        return contest.run(contest.begin(start, rank, seed + number, start.__name__), EPOCHS)

    field = list(in_order(run, enumerate(starts)))
    best = _best(field)
    if not np.isfinite(np.asarray(best.begun.shared.basis)).all():
        raise FloatingPointError(f"no start stays finite; {ADVICE}")
    n, m = contest.shown.shape
    most = min(rank + SPARE, n - 1, m)
    if generous and most > rank and _something_left(contest, best, seed):
        any_rank = _best([ran for ran in field if ran.begun.name != GIVEN]).begun.name
        start = starts[[ran.begun.name for ran in field].index(any_rank)]
        wide = contest.begin(start, most, seed, f"{any_rank} with {most - rank} more")
        field.append(_generous(contest, wide, rank, seed))
        best = _best(field)
    scores = MappingProxyType({ran.begun.name: ran.typical for ran in field})
    return best.begun._replace(scores=scores, doubt=_doubt(contest, best, field))


def _best(field: Sequence[Ran]) -> Ran:
    return max(field, key=lambda ran: ran.typical)


def _something_left(contest: Contest, ran: Ran, seed: int) -> bool:
    """Whether the residuals of the objects that a start fits have anything in common."""
    shared, data = ran.begun.shared, contest.sample.data
    typical = np.median(ran.scale2)  # of z in units of the loss, which may be much wider than the noise
    fitted = ran.scale2 <= FITTED * typical
    residual = np.asarray(data.flux)[fitted] - product(ran.coefficients[fitted], np.asarray(shared.basis))
    if not (fitted.any() and np.isfinite(residual).all()):
        return True
    precision = np.asarray(effective_ivar(data.ivar, shared.loss))[fitted]  # of all: other shapes compile
    z = residual * np.sqrt(precision / typical)
    return has_structure(np.clip(z, -CLIP, CLIP), seed)


def _generous(contest: Contest, wide: Begun, rank: int, seed: int) -> Ran:
    """A start with components too many, which are given up once they have found what a minority does."""
    ran = contest.run(wide, LONGER)
    first = Start(np.asarray(ran.begun.shared.basis), ran.coefficients)
    if not all(np.isfinite(x).all() for x in first):
        return ran._replace(score=np.full(1, -np.inf))
    return contest.run(contest.begun(majority(first, rank, seed), wide.name), EPOCHS)


def _doubt(contest: Contest, best: Ran, field: Sequence[Ran]) -> str:
    """What to tell of starts that lead elsewhere, and given more passes stay there and predict as well."""
    rivals = [
        ran.begun
        for ran in field
        if _angle(best.begun, ran.begun) > DISTINCT and not _clearly_better(best.score, ran.score)
    ]
    if not rivals:
        return ""
    first, *others = (contest.run(begun, LONGER) for begun in (best.begun, *rivals))
    for other in others:
        angle, moving = _angle(first.begun, other.begun), other.begun.history[-1].move
        if angle > DISTINCT and moving < STILL and not _clearly_better(first.score, other.score):
            return (
                f"start {other.begun.name} leads to another basis (sine of the angle {angle:.2g}) that "
                "predicts held-out cells as well"
            )
    return ""


def _clearly_better(score: Float[np.ndarray, " objects"], other: Float[np.ndarray, " objects"]) -> bool:
    """Whether most objects prefer the first, by a sign test at three standard deviations."""
    wins = int((score > other).sum())
    return wins - 0.5 * len(score) > 1.5 * math.sqrt(len(score))


def _angle(one: Begun, other: Begun) -> float:
    """Sine of the largest angle between two subspaces whose bases are orthonormal."""
    G, H = (np.asarray(begun.shared.basis, float) for begun in (one, other))
    return float(np.linalg.norm(G - (G @ H.T) @ H, 2)) if np.isfinite(H).all() else 0.0
