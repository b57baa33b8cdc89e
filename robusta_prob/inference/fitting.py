"""`fit`: from a data set to a basis, coefficients, a noise law and their uncertainties."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from robusta_prob.data import Dataset
from robusta_prob.inference import anneal, em, isolate
from robusta_prob.inference.finish import finish
from robusta_prob.inference.initialise import STARTS
from robusta_prob.inference.iterate import NON_FINITE, Callback, Epoch, Run, Status, iterate
from robusta_prob.inference.problem import Problem, precision
from robusta_prob.inference.restart import restart
from robusta_prob.inference.results import Fit
from robusta_prob.inference.settle import settle
from robusta_prob.inference.start import Begun, compete, warm
from robusta_prob.inference.sweep import BLOCK
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

FAR = 10**9  # an epoch at which every schedule has ended
SPARE_CELLS = 20  # cells beyond the number of parameters that a noise law can be learned from
RESTARTS = 3  # rounds of them at most
ISOLATIONS = 5  # rounds at most of leaving pixels out
FIRST_PASSES = 3  # at the start's basis and noise law, before either is learned further


def fit(
    data: Dataset,
    rank: int,
    *,
    noise: Noise | None = None,
    prior: Prior | None = None,
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

    Expectation-maximisation in closed form of the model in `robusta_prob.models.rhmf`, with the
    coefficients marginalised under their population (flat prior: maximum likelihood).

    Parameters
    ----------
    data : Dataset
        N objects x M pixels.
    rank : int
        Number of basis vectors K, 1 <= K < number of objects with data, K <= number of pixels with data.
    noise : Noise, optional
        Which parts of the loss are given; default: all learned. `Noise(1.0, Q, 0.0)` is the published loss.
    prior : Prior, optional
        Population of the coefficients: learned by default, `Prior.flat()` for none.
    schedule : callable, optional
        Epoch -> `anneal.Robustness`; default `anneal.tightening()`, with `init` `anneal.constant()`.
    starts : int, optional
        How many cheap starts compete on a subsample, 1 to 3 (the default); ignored with `init`.
    init : Fit or (K, M) array, optional
        Warm start: a fit, or a basis.
    key : JAX key or int
        Of the subsample and its held-out cells. The same key gives the same fit.
    max_epochs : int
        Passes over the data at most.
    tol : float
        The fit ends when the basis is within `tol` of its posterior standard deviations (rms) of rest.
    batch_rows : int, optional
        Objects per compiled call, a multiple of 128; default 1024.
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
    noise, prior = (noise or Noise()).validated(), prior or Prior()
    _check(data, rank, prior, starts, max_epochs, tol, batch_rows)
    _check_learnable(data, rank, noise)
    schedule = schedule or (anneal.tightening() if init is None else anneal.constant())
    _check_schedule(schedule, max_epochs)
    seed = _seed(key)
    isolated = isolate.out_of_proportion(data) & noise.is_robust
    with precision(data.dtype):
        for round_ in range(ISOLATIONS + 1):
            problem = Problem.of(isolate.without(data, isolated), rank, noise, prior)
            blocks = tuple(em.blocks_of(problem.data, data.unit, batch_rows))
            begun, state = _begin(problem, blocks, starts, init, seed)
            run, restarted = _run(problem, state, blocks, schedule, max_epochs, tol, callback)
            alone = isolate.alone(np.asarray(run.state.shared.basis)) & noise.is_robust & ~isolated
            if round_ == ISOLATIONS or not alone.any():
                break
            isolated = isolated | alone
        config = {
            "rank": rank,
            "noise": noise,
            "prior": "flat" if prior.is_flat else "population",
            "engine": "em",
            "start": begun.name,
            "start_scores": dict(begun.scores),
            "restarted": restarted,
            "isolated": tuple(map(int, np.flatnonzero(isolated))),
            "seed": seed,
            "max_epochs": max_epochs,
            "tol": tol,
        }
        return finish(problem, run, blocks, data, begun, config)


def _begin(
    problem: Problem,
    blocks: tuple[em.Block, ...],
    starts: int | None,
    init: Fit | Array | None,
    seed: int,
) -> tuple[Begun, em.State]:
    """The best start, or the given one, with the coefficients of all objects near their places."""
    if init is None:
        begun = compete(problem, STARTS[: starts or len(STARTS)], seed)
    else:
        begun = warm(problem, init, seed)
    state = begun.state_for(blocks)
    if len(begun.coefficients) == 1:
        state, _ = settle(problem, state, blocks, anneal.FULL, FIRST_PASSES)
    if init is not None:  # nothing shared moves before the coefficients fit what is known already
        state, _ = settle(problem, state, blocks)
    return begun, state


def _run(
    problem: Problem,
    state: em.State,
    blocks: tuple[em.Block, ...],
    schedule: anneal.Schedule,
    max_epochs: int,
    tol: float,
    callback: Callback | None,
) -> tuple[Run, int]:
    """Iterate to rest, begin objects again that sit in a wrong solution, and go on while that helps."""
    final, restarted = schedule(FAR), 0
    history: list[Epoch] = []
    before, moved = None, 0
    for turn, stage in enumerate(("fit", *["restarted"] * RESTARTS)):
        run = iterate(
            lambda state, epoch: problem.step(state, blocks, schedule(epoch), epoch, stage),  # noqa: B023
            state,
            first=len(history),
            max_epochs=max_epochs,
            tol=tol,
            settled=lambda epoch: schedule(epoch) == final,
            callback=callback,
        )
        history += run.history
        run = run._replace(history=history)
        if run.status.code == NON_FINITE and before is not None:
            failure = f"after {moved} objects were begun again {run.status.message}. This is the fit before"
            status = Status(before.status.code, f"{before.status.message}; {failure}")
            return before._replace(history=history, status=status), restarted - moved
        if not run.status.ok or len(history) >= max_epochs or turn == RESTARTS:
            break
        before = run
        state, moved = restart(problem, run.state, blocks)
        if not moved:
            break
        restarted += moved
    return run, restarted


def _seed(key: Array | int) -> int:
    """A host-side seed from a JAX key or an integer."""
    if isinstance(key, int | np.integer):
        return int(key)
    return int(np.asarray(jax.random.bits(key, dtype="uint32")))


def _check(
    data: Dataset,
    rank: Any,
    prior: Prior,
    starts: int | None,
    max_epochs: int,
    tol: float,
    batch_rows: int | None,
) -> None:
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data must be a Dataset, got {type(data).__name__}; make one with rp.dataset(flux, ivar)"
        )
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer):
        raise TypeError(f"rank must be an integer, got {rank!r}")
    (n, m), census = data.shape, data.census
    objects, pixels = n - census.empty_objects, m - census.empty_pixels
    if census.observed == 0:
        raise ValueError("no cell of the data is observed: every ivar is 0, or every flux is NaN")
    if objects < 2:
        raise ValueError(
            f"a basis cannot be learned from {objects} object with data; fit several objects, "
            "or rp.project one object on an existing fit"
        )
    if not 1 <= rank <= min(objects - 1, pixels):
        raise ValueError(
            f"rank must be between 1 and {min(objects - 1, pixels)} for {objects} objects "
            f"and {pixels} pixels with data, got {rank}"
        )
    if (
        prior.mean is not None
        or prior.basis_scale not in (None, math.inf)
        or not (prior.is_flat or prior.covariance is None)
    ):
        raise ValueError(
            "fit learns the population of the coefficients: prior must be Prior() (learned) "
            "or Prior.flat() (none). A given population is for the NumPyro programs in robusta_prob.models"
        )
    if starts is not None and not 1 <= starts <= len(STARTS):
        raise ValueError(f"starts must be between 1 and {len(STARTS)}, got {starts}")
    if max_epochs < 1 or not 0 < tol < math.inf:
        raise ValueError(f"max_epochs must be at least 1 and tol positive, got {max_epochs} and {tol}")
    if batch_rows is not None and (batch_rows < BLOCK or batch_rows % BLOCK):
        raise ValueError(f"batch_rows must be a positive multiple of {BLOCK}, got {batch_rows}")


def _check_schedule(schedule: anneal.Schedule, max_epochs: int) -> None:
    """Refuse a schedule that gives anything but settings within their limits."""
    for epoch in (*range(max_epochs), FAR):
        value = schedule(epoch)
        if not isinstance(value, anneal.Robustness) or not (
            0.0 <= value.object_scale <= 1.0 and 0.0 <= value.tail <= 2.0
        ):
            raise ValueError(
                "a schedule must map an epoch to rp.anneal.Robustness(object_scale, tail) with object_scale "
                f"in [0, 1] and tail in [0, 2]; at epoch {epoch} it gives {value!r}"
            )


def _check_learnable(data: Dataset, rank: int, noise: Noise) -> None:
    """Refuse data whose residuals cannot tell how large the noise is."""
    if not np.any(data.flux):
        raise ValueError("every observed flux is zero: there is nothing to learn")
    (n, m), census = data.shape, data.census
    objects, pixels = n - census.empty_objects, m - census.empty_pixels
    spare = census.observed - rank * (objects + pixels - rank) - (pixels if noise.floor == "pixel" else 0)
    if (noise.scale is None or noise.floor == "pixel") and spare < SPARE_CELLS:
        raise ValueError(
            f"rank {rank} leaves {max(spare, 0)} degrees of freedom in {census.observed} observed cells, "
            "too few to learn the noise: lower the rank, or trust the errors with "
            "noise=rp.Noise(scale=1.0, floor=0.0)"
        )
