"""From a start to rest: the engine, objects begun again, and a noise law that was lost and found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from robusta_prob.inference import anneal, em, variational
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.contest import compete
from robusta_prob.inference.initialise import STARTS
from robusta_prob.inference.iterate import NON_FINITE, Epoch, Run, Status, iterate
from robusta_prob.inference.journal import Journal
from robusta_prob.inference.m_step import on_device
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.request import Request
from robusta_prob.inference.restart import NOBODY, Rows, restart
from robusta_prob.inference.settle import NOTHING, settle
from robusta_prob.inference.start import Begun, given_start, warm

RESTARTS = 3  # rounds of them at most
HALF, MANY = (
    0.45,
    0.15,
)  # share of bad cells at which a noise law is lost: at rest, and where it will not rest
UPDATES = 8  # in a pass at most, as long as the basis is far from rest,
SIDE_BY_SIDE = 2  # and after so many blocks at least
FAST = 0.1  # nats a cell by which a pass gains while the basis of very precise data is still far from rest
LATEST = 50  # epochs that the schedule waits for it at most
LONGER_IN_PARTS = 1  # passes with many updates after the schedule has ended


class Solved(NamedTuple):
    """One round of a fit: what it came to, and what is to be told of it."""

    begun: Begun
    run: Run
    notes: list[str]
    restarted: int = 0
    column_covariance: Float[np.ndarray, "pixels rank rank"] | None = None
    has_law: bool = True


def solve(
    problem: Problem,
    blocks: Blocks,
    request: Request,
    journal: Journal,
    spent: int,
    interrupt: Callable[[em.State], bool],
) -> Solved:
    """The best start, or the given one, and the engine from there."""
    if request.starts > 0 or request.init is None:
        generous = request.starts > len(STARTS)
        starts = [
            *STARTS[: request.starts],
            *([] if request.init is None else [given_start(problem, request.init)]),
        ]
        begun = compete(problem, starts, request.seed, generous=generous)
        shared, A = blocks.agreed((begun.shared, begun.coefficients))  # or processes may have chosen others
        begun = begun._replace(shared=on_device(shared, begun.shared), coefficients=A)
    else:
        begun = warm(problem, request.init, request.seed)
    if request.plan is not None:
        found = variational.run(problem, begun, blocks, request.plan, request, spent)
        return Solved(begun, found.run, [], 0, found.column_covariance, found.has_law)

    def lost(state: em.State, *, at_rest: bool = False) -> bool:
        """So many cells count as bad: rather, the basis was not there yet when the law was learned."""
        most = HALF if at_rest else MANY
        return problem.learn.contamination > 0 and float(state.shared.loss.contamination) > most

    exact = request.starts == 0
    state, _ = journal.state("begun", lambda: (_state_of(problem, begun, blocks, exact=exact), None))
    solved = _iterate(
        problem, begun, state, blocks, request, journal, spent, lambda x: interrupt(x) or lost(x)
    )
    run, spent = solved.run, spent + len(solved.run.history)
    if (
        not journal.value("lost", lambda: lost(run.state, at_rest=run.status.ok))
        or spent >= request.max_epochs
    ):
        return solved

    def anew() -> em.State:
        first = warm(problem, run.state.shared.basis, request.seed)
        return _state_of(problem, first, blocks, exact=True)

    state, _ = journal.state("begun anew", lambda: (anew(), None))
    unannealed = request._replace(schedule=anneal.constant())  # the basis is near, and annealing lost the law
    again = _iterate(problem, begun, state, blocks, unannealed, journal, spent, interrupt)
    return again._replace(run=again.run._replace(history=[*solved.run.history, *again.run.history]))


def updates_of(blocks: int) -> int:
    """How many updates a pass over so many blocks makes while the basis is far from rest."""
    return max(1, min(UPDATES, blocks // SIDE_BY_SIDE))


def _state_of(problem: Problem, begun: Begun, blocks: Blocks, *, exact: bool) -> em.State:
    """All objects' coefficients at the shared values; `exact`: nothing shared moves before they fit those."""
    state = begun.state_for(blocks)
    if len(begun.coefficients) == 1 and (
        exact or updates_of(blocks.fewest) == 1
    ):  # else part by part, see `em`
        state, _ = settle(problem, state, blocks, anneal.FULL, em.FIRST_PASSES)
    return settle(problem, state, blocks)[0] if exact else state


def _iterate(
    problem: Problem,
    begun: Begun,
    state: em.State,
    blocks: Blocks,
    request: Request,
    journal: Journal,
    spent: int,
    interrupt: Callable[[em.State], bool],
) -> Solved:
    """Iterate to rest, begin objects again that sit in a wrong solution, and go on while that helps."""
    restarted, moved = 0, 0
    history: list[Epoch] = []
    notes: list[str] = []
    before: Run | None = None
    stayed = NOBODY  # objects that were begun again and stayed where they were

    lines: list[Epoch] = []
    late = 0  # epochs by which the schedule has waited

    def ended(epoch: int) -> bool:
        return anneal.has_ended(request.schedule, max(epoch - spent - late, 0))

    def whole(epoch: int) -> bool:
        """Whether there is one update a pass: near to rest, where these can be accelerated."""
        return ended(spent) or (epoch - LONGER_IN_PARTS >= spent and ended(epoch - LONGER_IN_PARTS))

    def step(state: em.State, epoch: int) -> tuple[em.State, variational.Info, Epoch]:
        nonlocal late
        if late < LATEST and not ended(epoch - 1) and _gains(lines[-2:], problem.data.census.observed):
            late += 1
        robustness, stage = request.schedule(epoch - spent - late), "restarted" if moved else "fit"
        updates = 1 if whole(epoch) else updates_of(blocks.fewest)

        def compute() -> tuple[em.State, Any]:
            new, info, line = problem.step(
                state, blocks, robustness, epoch, stage, steady=ended(epoch), updates=updates
            )
            # a step that leads astray is not taken
            return new if math.isfinite(line.bound + line.move) else state, (info.moves, line)

        new, (moves, line) = journal.state("epoch", compute)
        lines.append(line)
        return new, variational.Info(moves), line

    def begin_again(state: em.State, stayed: Rows) -> tuple[em.State, tuple[int, Rows]]:
        if request.schedule(anneal.FAR) != anneal.TARGET:  # the weights of its last pass are not the model's
            state, *_ = problem.step(state, blocks, anneal.TARGET, 0, "restart", NOTHING)
        return restart(problem, state, blocks, stayed)

    for turn in range(RESTARTS + 1):
        run = iterate(
            step,
            state,
            first=spent + len(history),
            max_epochs=request.max_epochs,
            tol=request.tol,
            settled=ended,
            callback=request.callback,
            interrupt=partial(journal.value, "interrupted", interrupt),
        )
        history += run.history
        run = run._replace(history=history)
        if run.status.code == NON_FINITE and before is not None:
            failure = f"after {moved} objects were begun again {run.status.message}. This is the fit before"
            status = Status(before.status.code, f"{before.status.message}; {failure}")
            return Solved(begun, before._replace(history=history, status=status), [], restarted - moved)
        if not run.status.ok:
            notes.append("objects in a wrong solution of their own were not looked for")
            break
        if turn == RESTARTS:
            notes.append(f"the last of {RESTARTS} rounds moved {moved} of them: there may be more")
            break
        kept, _ = journal.state("before", lambda state: (state, None), run.state, slot="before")
        before = run = run._replace(state=kept)
        state, (moved, stayed) = journal.state("restart", begin_again, run.state, stayed)
        if not moved or spent + len(history) >= request.max_epochs:
            break
        restarted += moved
    if restarted:
        notes.append(f"objects in a wrong solution of their own were begun again, {restarted} in all")
    return Solved(begun, run, notes, restarted)


def _gains(lines: Sequence[Epoch], cells: int) -> bool:
    """Whether the last pass gained much over one before it that was as robust."""
    if len(lines) < 2 or lines[0].object_scale != lines[1].object_scale or lines[0].tail != lines[1].tail:
        return False
    return (lines[1].bound - lines[0].bound) / cells > FAST
