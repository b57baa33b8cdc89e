"""`fit`: from a data set to a basis, coefficients, a noise law and their uncertainties."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float

from robusta_prob.data import Dataset
from robusta_prob.inference import anneal, checks, em, isolate, processes
from robusta_prob.inference.blocks import Blocks, rows_per_batch
from robusta_prob.inference.digits import precision
from robusta_prob.inference.finish import finish
from robusta_prob.inference.guides import Program
from robusta_prob.inference.initialise import STARTS
from robusta_prob.inference.iterate import Callback, Epoch
from robusta_prob.inference.journal import Checkpoint, Journal
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.request import Plan, Request
from robusta_prob.inference.results import Fit
from robusta_prob.inference.solving import solve, updates_of
from robusta_prob.models import rhmf
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

MOST_STARTS = len(STARTS) + 1  # the last is the generous one
ISOLATIONS = 5  # rounds at most of leaving pixels out


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
    checkpoint: Checkpoint | str | PathLike[str] | None = None,
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
        Epoch -> `anneal.Robustness`; default `anneal.tightening()`, but `anneal.constant()` with `init` alone
        or after the warm-up of `engine="svi"`.
    starts : int, optional
        How many cheap starts compete on a subsample, 1 to 4; default 4, or none with `init`. The fourth,
        which begins with components too many, only where the others leave more than noise.
    init : Fit or (K, M) array, optional
        Warm start: a fit, or a basis. With `starts` it competes with these, and has to win.
    key : JAX key or int
        Of the subsample and its held-out cells. The same key gives the same fit.
    max_epochs : int
        Passes over the data at most, over all rounds of a fit.
    tol : float
        The fit ends when the basis is within `tol` of its posterior standard deviations (rms) of rest;
        with `engine="svi"` when the bound has not become better for 8 epochs.
    batch_rows : int, optional
        Objects per compiled call, a multiple of 128; default 512, or minibatches of 256 for "svi".
    callback : callable, optional
        Called with an `Epoch` after every pass; `robusta_prob.Progress()` is a progress bar.
    checkpoint : path or Checkpoint, optional
        File in which a long closed-form fit saves what it has done, every half minute at most: killed, and
        called again in the same way, it goes on from there to the same result, see `rp.Checkpoint`.

    Returns
    -------
    Fit
        Look at `Fit.status`: running out of epochs or losing finiteness is reported there.

    Raises
    ------
    ValueError
        On an impossible rank or setting, data without information, or a checkpoint of other data or settings.
    OSError
        If the checkpoint cannot be written.
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
    if checkpoint is not None and engine != "em":
        raise ValueError(
            "checkpoint is for the closed-form engine, engine='em'; SVI of your own can save its state"
        )
    if processes.count() > 1 and engine != "em":
        raise ValueError("several processes: engine='em' alone is for them")
    starts = (MOST_STARTS if init is None else 0) if starts is None else starts
    gentle = starts > 0 and engine == "em"  # the variational engine is warmed up in closed form
    blocks_each = -(-data.shape[0] // (batch_rows or rows_per_batch(data))) // processes.count()
    usual = anneal.paced(updates_of(blocks_each)) if gentle else anneal.constant()
    schedule = checks.checked(schedule or usual)
    plan = Plan(model or rhmf, guide or "map", optimizer) if engine == "svi" else None
    request = Request(
        schedule,
        starts,
        init,
        checks.seed_of(key),
        max_epochs,
        tol,
        batch_rows,
        callback,
        plan,
    )
    settings = {
        "rank": rank,
        "noise": noise,
        "prior": "flat" if prior.is_flat else "population",
        "engine": engine,
        "seed": request.seed,
        "max_epochs": max_epochs,
        "tol": tol,
        "starts": request.starts,
        "batch_rows": batch_rows,
        "schedule": [list(value) for value in anneal.values(schedule, max_epochs)],
    }
    journal = Journal.of(checkpoint, data, settings, prior, init)
    isolated = isolate.out_of_proportion(data) & noise.is_robust
    honest = np.zeros_like(isolated)
    history: list[Epoch] = []

    def alone_in(state: em.State) -> Bool[np.ndarray, " pixels"]:
        return isolate.alone(np.asarray(state.shared.basis)) & noise.is_robust & ~isolated & ~honest

    def odd_in(state: em.State, blocks: Blocks) -> tuple[Bool[np.ndarray, " pixels"], ...]:
        """Pixels to be left out, and those that were and follow from the others after all."""
        coefficients = blocks.gather([local.coefficients for local in state.local])
        return alone_in(state), isolate.predicted(data, coefficients, isolated)

    with precision(data.dtype):
        for round_ in range(ISOLATIONS + 1):
            problem = Problem.of(data.without(isolated), rank, noise, prior, None if plan else batch_rows)
            blocks = Blocks.of(problem.data, data.unit, problem.rows, shared=plan is None)
            solved = solve(
                problem, blocks, request, journal, len(history), lambda state: bool(alone_in(state).any())
            )
            history += solved.run.history
            alone, back = journal.value("isolated", odd_in, solved.run.state, blocks)
            if not (alone | back).any() or round_ == ISOLATIONS or len(history) >= max_epochs:
                break
            honest = honest | back
            isolated = (isolated | alone) & ~honest
        begun, run = solved.begun, solved.run._replace(history=history)
        journal.save()
        config = settings | {
            "start": begun.name,
            "start_scores": dict(begun.scores),
            "restarted": solved.restarted,
            "isolated": tuple(map(int, np.flatnonzero(isolated))),
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
