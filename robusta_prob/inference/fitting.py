"""`fit`: from a data set to a basis, coefficients, a noise law and their uncertainties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from robusta_prob.data import Dataset
from robusta_prob.inference import anneal, checks, em, isolate, variational
from robusta_prob.inference.blocks import Blocks, rows_per_batch
from robusta_prob.inference.finish import finish
from robusta_prob.inference.guides import Program
from robusta_prob.inference.initialise import STARTS
from robusta_prob.inference.iterate import NON_FINITE, Callback, Epoch, Run, Status, iterate
from robusta_prob.inference.problem import Problem, precision
from robusta_prob.inference.request import Plan, Request
from robusta_prob.inference.restart import restart
from robusta_prob.inference.results import Fit
from robusta_prob.inference.settle import settle
from robusta_prob.inference.start import Begun, compete, warm
from robusta_prob.models import rhmf
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

MOST_STARTS = len(STARTS) + 1  # the last is the generous one
RESTARTS = 3  # rounds of them at most
ISOLATIONS = 5  # rounds at most of leaving pixels out
HALF, MANY = (
    0.45,
    0.15,
)  # share of bad cells at which a noise law is lost: at rest, and where it will not rest
UPDATES = 8  # in a pass, as long as the basis is far from rest
LONGER_IN_PARTS = 1  # passes with many updates after the schedule has ended


class Solved(NamedTuple):
    """One round of a fit: what it came to, and what is to be told of it."""

    begun: Begun
    run: Run
    notes: list[str]
    restarted: int = 0
    column_covariance: Float[np.ndarray, "pixels rank rank"] | None = None
    has_law: bool = True


def fit(
    data: Dataset,
    rank: int,
    *,
    noise: Noise | None = None,
    model: Program | None = None,
    prior: Prior | None = None,
    engine: str = "em",
    guide: Program | str | None = None,
    optimizer: Any = None,
    schedule: anneal.Schedule | None = None,
    starts: int | None = None,
    init: Fit | Float[Array, "rank pixels"] | None = None,
    key: Array | int = 0,
    max_epochs: int = 500,
    tol: float = 0.01,
    batch_rows: int | None = None,
    callback: Callback | None = None,
) -> Fit:
    """Learn a robust low-rank basis from flux with errors, holes and outliers.

    By default expectation-maximisation in closed form of the model in `robusta_prob.models.rhmf`, with the
    coefficients marginalised under their population (flat prior: maximum likelihood). With `engine="svi"`
    stochastic variational inference of that program, or of one of your own.

    Parameters
    ----------
    data : Dataset
        N objects x M pixels.
    rank : int
        Number of basis vectors K, 1 <= K < number of objects with data, K <= number of pixels with data.
    noise : Noise, optional
        Which parts of the loss are given; default: all learned. `Noise(1.0, Q, 0.0)` is the published loss.
    model : callable, optional
        For `engine="svi"`: a NumPyro program `model(flux, ivar, *, rank, ...)` with the sites "basis" (K, M),
        "coefficients" (N, K) and "flux"; of `noise`, `prior` and `size` it is given those that it takes, in
        units of `data.unit`. Default `rp.models.rhmf`. As with `jax.jit`, a function that was compiled before
        is not looked at again: it must not depend on anything that changes. The result comes in the common
        gauge: programs whose basis has a meaning of its own (non-negative, say) are better fitted in a
        script, see `rp.guide_for`.
    prior : Prior, optional
        Population of the coefficients: learned by default, `Prior.flat()` (closed form only) for none.
    engine : {"em", "svi"}
        Closed form, or NumPyro's SVI with minibatches.
    guide : {"map", "normal", "low_rank"} or callable, optional
        For `engine="svi"`: point estimate (the default) or Gaussian posterior of all that is shared, with the
        coefficients solved for, see `rp.guide_for`; or a NumPyro guide of your own, for all sites, which says
        itself where it begins.
    optimizer : optax.GradientTransformation or NumPyro optimiser, optional
        For `engine="svi"`; default `inference.svi.adam`.
    schedule : callable, optional
        Epoch -> `anneal.Robustness`; default `anneal.tightening()`, but `anneal.constant()` with `init` or
        after the warm-up of `engine="svi"`.
    starts : int, optional
        How many cheap starts compete on a subsample, 1 to 4 (the default); ignored with `init`.
    init : Fit or (K, M) array, optional
        Warm start: a fit, or a basis.
    key : JAX key or int
        Of the subsample and its held-out cells. The same key gives the same fit.
    max_epochs : int
        Passes over the data at most, over all rounds of a fit.
    tol : float
        The fit ends when the basis is within `tol` of its posterior standard deviations (rms) of rest;
        with `engine="svi"` when the bound has not become better for 8 epochs.
    batch_rows : int, optional
        Objects per compiled call, a multiple of 128; default 1024, or minibatches of 256 for "svi".
    callback : callable, optional
        Called with an `Epoch` after every pass; `robusta_prob.Progress()` is a progress bar.

    Returns
    -------
    Fit
        Look at `Fit.status`: running out of epochs or losing finiteness is reported there.

    Raises
    ------
    ValueError
        On an impossible rank or setting, or data without information.
    FloatingPointError
        If not even one pass stays finite, or its result does not; the message says what to try.

    References
    ----------
    Hilder, Hogg, Casey & Rix, "Robust Heteroskedastic Matrix Factorization"; Tipping & Bishop (1999),
    JRSS B 61, 611, for marginalised coefficients; Lange, Little & Taylor (1989), JASA 84, 881, for the
    Student-t E-step.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> rp.fit(survey.data, rank=5).basis.shape
    (5, 150)
    """
    checks.check_data(data)
    checks.check_types(
        noise, prior, schedule, key, starts=starts, max_epochs=max_epochs, batch_rows=batch_rows
    )
    noise, prior = (noise or Noise()).validated(), prior or Prior()
    checks.check_settings(prior, starts, MOST_STARTS, max_epochs, tol, batch_rows)
    checks.check_engine(engine, prior, model, guide, optimizer)
    checks.check_learnable(data, rank, noise)
    gentle = init is None and engine == "em"  # the variational engine is warmed up in closed form
    updates = min(UPDATES, -(-data.shape[0] // (batch_rows or rows_per_batch(data))))
    schedule = checks.checked(schedule or (anneal.paced(updates) if gentle else anneal.constant()))
    plan = Plan(model or rhmf, guide or "map", optimizer) if engine == "svi" else None
    request = Request(
        schedule,
        starts or MOST_STARTS,
        init,
        checks.seed_of(key),
        max_epochs,
        tol,
        batch_rows,
        callback,
        plan,
    )
    isolated = isolate.out_of_proportion(data) & noise.is_robust
    honest = np.zeros_like(isolated)
    history: list[Epoch] = []

    def alone_in(state: em.State) -> Bool[np.ndarray, " pixels"]:
        return isolate.alone(np.asarray(state.shared.basis)) & noise.is_robust & ~isolated & ~honest

    with precision(data.dtype):
        for round_ in range(ISOLATIONS + 1):
            problem = Problem.of(data.without(isolated), rank, noise, prior)
            blocks = Blocks.of(problem.data, data.unit, None if plan else batch_rows)
            solved = _solve(problem, blocks, request, len(history), lambda state: bool(alone_in(state).any()))
            history += solved.run.history
            state, alone = solved.run.state, alone_in(solved.run.state)
            coefficients = blocks.gather([local.coefficients for local in state.local])
            back = isolate.predicted(data, coefficients, isolated)
            if not (alone | back).any() or round_ == ISOLATIONS or len(history) >= max_epochs:
                break
            honest = honest | back
            isolated = (isolated | alone) & ~honest
        begun, run = solved.begun, solved.run._replace(history=history)
        config = {
            "rank": rank,
            "noise": noise,
            "prior": "flat" if prior.is_flat else "population",
            "engine": engine,
            "start": begun.name,
            "start_scores": dict(begun.scores),
            "restarted": solved.restarted,
            "isolated": tuple(map(int, np.flatnonzero(isolated))),
            "seed": request.seed,
            "max_epochs": max_epochs,
            "tol": tol,
            "starts": request.starts,
            "batch_rows": batch_rows,
            "schedule": [list(value) for value in anneal.values(schedule, max_epochs)],
        }
        notes = [*isolate.note(isolated, alone), *solved.notes]
        return finish(
            problem,
            run,
            blocks,
            data,
            begun,
            config,
            notes,
            solved.column_covariance,
            has_law=solved.has_law,
        )


def _solve(
    problem: Problem,
    blocks: Blocks,
    request: Request,
    spent: int,
    interrupt: Callable[[em.State], bool],
) -> Solved:
    """The best start, or the given one, and the engine from there."""
    if request.init is None:
        generous = request.starts > len(STARTS)
        begun = compete(problem, STARTS[: request.starts], request.seed, generous=generous)
    else:
        begun = warm(problem, request.init, request.seed)
    if request.plan is not None:
        found = variational.run(problem, begun, blocks, request.plan, request, spent)
        return Solved(begun, found.run, [], 0, found.column_covariance, found.has_law)

    def lost(state: em.State, *, at_rest: bool = False) -> bool:
        """So many cells count as bad: rather, the basis was not there yet when the law was learned."""
        most = HALF if at_rest else MANY
        return problem.learn.contamination > 0 and float(state.shared.loss.contamination) > most

    state = _state_of(problem, begun, blocks, exact=request.init is not None)
    solved = _iterate(problem, begun, state, blocks, request, spent, lambda x: interrupt(x) or lost(x))
    state, spent = solved.run.state, spent + len(solved.run.history)
    if not lost(state, at_rest=solved.run.status.ok) or spent >= request.max_epochs:
        return solved
    anew = warm(problem, state.shared.basis, request.seed)
    state = _state_of(problem, anew, blocks, exact=True)
    unannealed = request._replace(schedule=anneal.constant())  # the basis is near, and annealing lost the law
    again = _iterate(problem, begun, state, blocks, unannealed, spent, interrupt)
    return again._replace(run=again.run._replace(history=[*solved.run.history, *again.run.history]))


def _state_of(problem: Problem, begun: Begun, blocks: Blocks, *, exact: bool) -> em.State:
    """All objects' coefficients at the shared values; `exact`: nothing shared moves before they fit those."""
    state = begun.state_for(blocks)
    if len(begun.coefficients) == 1 and (exact or len(blocks.rows) == 1):  # else part by part, see `em`
        state, _ = settle(problem, state, blocks, anneal.FULL, em.FIRST_PASSES)
    return settle(problem, state, blocks)[0] if exact else state


def _iterate(
    problem: Problem,
    begun: Begun,
    state: em.State,
    blocks: Blocks,
    request: Request,
    spent: int,
    interrupt: Callable[[em.State], bool],
) -> Solved:
    """Iterate to rest, begin objects again that sit in a wrong solution, and go on while that helps."""
    restarted, moved = 0, 0
    history: list[Epoch] = []
    notes: list[str] = []
    before: Run | None = None

    def ended(epoch: int) -> bool:
        return anneal.has_ended(request.schedule, epoch - spent)

    def whole(epoch: int) -> bool:
        """Whether there is one update a pass: near to rest, where these can be accelerated."""
        return ended(spent) or (epoch - LONGER_IN_PARTS >= spent and ended(epoch - LONGER_IN_PARTS))

    def step(state: em.State, epoch: int) -> tuple[em.State, em.Info, Epoch]:
        robustness, stage = request.schedule(epoch - spent), "restarted" if moved else "fit"
        updates = 1 if whole(epoch) else UPDATES
        return problem.step(state, blocks, robustness, epoch, stage, steady=ended(epoch), updates=updates)

    for turn in range(RESTARTS + 1):
        run = iterate(
            step,
            state,
            first=spent + len(history),
            max_epochs=request.max_epochs,
            tol=request.tol,
            settled=ended,
            callback=request.callback,
            interrupt=interrupt,
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
        before = run
        state, moved = restart(problem, run.state, blocks)
        if not moved or spent + len(history) >= request.max_epochs:
            break
        restarted += moved
    if restarted:
        notes.append(f"objects in a wrong solution of their own were begun again, {restarted} in all")
    return Solved(begun, run, notes, restarted)
