"""Several cheap starts compete on a subsample, judged by cells that they did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from robusta_prob.inference.anneal import FULL
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.initialise import Start, has_structure, majority
from robusta_prob.inference.iterate import ADVICE
from robusta_prob.inference.linalg import product
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.settle import settle
from robusta_prob.inference.start import Begun, begin, subsample
from robusta_prob.inference.threads import in_order
from robusta_prob.models.noise import effective_ivar, log_density

RUNNERS = 500  # of them that run on, about
HELD_OUT = 0.1  # share of their cells that judges them
EPOCHS = 5
SPARE = 2  # components of the generous start
FITTED = 2.0  # squared scale of z, in units of the typical one, up to which structure is looked for,
CLIP = 2.0  # in residuals up to so many errors
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
    """The objects on which starts run: the cells that these are shown, and those that judge them."""

    sample: Problem
    shown: Matrix  # inverse variances, 0 elsewhere
    hidden: Matrix

    def begin(self, first: Start, name: str) -> Begun:
        """A start's own noise law and population."""
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

    With `generous`, where that one leaves more than noise it also runs with components too many, which find
    room for what a minority of the objects does; without those it is one more start.
    """
    rng = np.random.default_rng(seed)
    many = subsample(problem, rng)
    Y, W = np.asarray(many.data.flux), np.asarray(many.data.ivar)
    hidden = rng.random(Y.shape) < HELD_OUT
    seen = (W > 0) & ~hidden
    some = slice(None, None, max(len(Y) // RUNNERS, 1))
    shown, judges = (np.where(cells, W, 0).astype(W.dtype)[some] for cells in (seen, hidden))
    contest = Contest(many._replace(data=many.data.take(some)), shown, judges)
    rank = problem.rank
    most = max(min(rank + SPARE, len(shown) - 1, shown.shape[1]), rank)

    def run(item: tuple[int, Callable[..., Start]]) -> tuple[Start, Ran]:
        number, start = item
        basis, A = start(Y, seen, most, seed + number)
        begun = contest.begin(Start(basis[:rank], A[some, :rank]), start.__name__)
        return Start(basis, A[some]), contest.run(begun, EPOCHS)

    wide, field = map(list, zip(*in_order(run, enumerate(starts)), strict=True))
    best = _best(field)
    # where all that is left is noise, components too many have nothing to find
    if generous and _something_left(contest, field[best], seed):
        name = f"{field[best].begun.name} with {most - rank} more"
        field.append(_generous(contest, contest.begin(wide[best], name), rank, seed))
        best = _best(field)
    winner, scores = field[best].begun, {ran.begun.name: ran.typical for ran in field}
    if not np.isfinite(np.asarray(winner.shared.basis)).all():
        raise FloatingPointError(f"no start stays finite; {ADVICE}")
    rivals = [
        ran.begun
        for ran in field
        if _angle(winner, ran.begun) > DISTINCT and not _clearly_better(field[best].score, ran.score)
    ]
    return winner._replace(scores=MappingProxyType(scores), doubt=_doubt(contest, winner, rivals))


def _best(field: Sequence[Ran]) -> int:
    return int(np.argmax([ran.typical for ran in field]))


def _something_left(contest: Contest, ran: Ran, seed: int) -> bool:
    """Whether the residuals of the objects that a start fits have anything in common."""
    shared, data = ran.begun.shared, contest.sample.data
    fitted = ran.scale2 <= FITTED * np.median(ran.scale2)
    residual = np.asarray(data.flux)[fitted] - product(ran.coefficients[fitted], np.asarray(shared.basis))
    if not np.isfinite(residual).all():
        return True
    precision = np.asarray(effective_ivar(data.ivar, shared.loss))[fitted]  # of all: other shapes compile
    z = residual * np.sqrt(precision)
    return has_structure(np.clip(z, -CLIP, CLIP), seed)


def _generous(contest: Contest, wide: Begun, rank: int, seed: int) -> Ran:
    """A start with components too many, which are given up once they have found what a minority does."""
    ran = contest.run(wide, LONGER)
    first = Start(np.asarray(ran.begun.shared.basis), ran.coefficients)
    if not all(np.isfinite(x).all() for x in first):
        return ran._replace(score=np.full(1, -np.inf))
    return contest.run(contest.begin(majority(first, rank, seed), wide.name), EPOCHS)


def _doubt(contest: Contest, winner: Begun, rivals: Sequence[Begun]) -> str:
    """What to tell of rivals that, given more passes, still stay apart and predict as well."""
    if not rivals:
        return ""
    first, *others = (contest.run(begun, LONGER) for begun in (winner, *rivals))
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
