"""From the engine's last state to a `Fit`: coefficients at rest, noise law, covariances, gauge, units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from robusta_prob.data import Dataset
from robusta_prob.inference import em, m_step
from robusta_prob.inference.anneal import TARGET
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.isolate import tamed
from robusta_prob.inference.iterate import ADVICE, Epoch, Run, Status, iterate
from robusta_prob.inference.linalg import invert_on_host, pack, product, unpack
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.quantities import Globals, Statistics
from robusta_prob.inference.results import Fit, PopulationLaw, fingerprints
from robusta_prob.inference.settle import covariances, settle
from robusta_prob.inference.start import Begun
from robusta_prob.models.gauge import fix_gauge, near_equal
from robusta_prob.models.noise import Noise, NoiseLaw
from robusta_prob.models.priors import Prior
from robusta_prob.validate import frozen

NOISE_CELLS = 2**19  # suffice for a law that only describes what is left
WIDE = 2.0  # information from which on a loss counts as a threshold, not as a noise law
OVERRULED = 0.3  # share of a coefficient's variance that such a loss may leave to the population in silence
SPARSE = 4.0  # observed cells per parameter below which a learned noise law is not to be trusted
WIDEST_TAIL = 1.99  # 1/nu near the bound of `noise_step`
MOST_FITTED = 0.9  # parameters per cell that corrections reckon with
NO_NOISE = 2e-3  # a learned scale this small has met the bound of `noise_step.SCALE_RANGE`
NOISE_PASSES = 60
NOISE_REST = 1e-2  # `iterate` asks the noise law to move by less than a tenth of it


def finish(
    problem: Problem,
    run: Run,
    blocks: Blocks,
    whole: Dataset,
    begun: Begun,
    config: Mapping[str, Any],
    notes: Sequence[str],
    column_covariance: Float[np.ndarray, "pixels rank rank"] | None = None,
    *,
    has_law: bool = True,
) -> Fit:
    """Settle the coefficients, learn the noise law, and put all into the gauge and the user's units.

    `whole` is the data set with the pixels that were kept from the fit, `notes` go into the status, and
    `column_covariance` is an engine's own posterior of the basis. `has_law` is false where the fitted program
    had another noise law than ours.
    """
    if run.info is None:
        raise FloatingPointError(run.status.message)
    if not _finite(run.state):
        raise FloatingPointError(f"the fit did not stay finite; {ADVICE}")
    data, rank, unit = problem.data, problem.rank, problem.data.unit
    state, info = settle(problem, run.state, blocks, bare=True)
    A = blocks.gather([local.coefficients for local in state.local]).astype(float)
    population = _moments(state, info.statistics)
    information = _information(problem, info.statistics)
    gram = unpack(np.asarray(info.statistics.gram, float) * information, rank)
    if column_covariance is None:
        column_covariance = np.moveaxis(invert_on_host(gram, float(np.finfo(data.dtype).eps))[0], -1, 0)
    trained = np.asarray(info.statistics.gram[0]) > 0
    column_covariance[~trained] = 0.0

    noise, noise_status = state.shared.loss, run.status
    if not (has_law and _all_learned(problem)):
        known = jnp.asarray(np.moveaxis(column_covariance, 0, -1), problem.dtype)
        shared = state.shared._replace(basis_covariance=pack(known))
        noise, noise_status = _learn_noise(problem, shared, A, population, config["seed"])
    loss, noise = (on_host(law) for law in (state.shared.loss, noise))

    basis = np.where(trained, np.asarray(state.shared.basis), 0.0)
    gauge = fix_gauge(basis, population.covariance + np.outer(population.mean, population.mean))
    T = gauge.to_coefficients
    back = np.linalg.inv(T)
    moderate = 2.0**-30 < unit < 2.0**30  # else float32 cannot hold these in the user's unit, or its square
    output = data.dtype if moderate else np.dtype(float)
    spread = covariances(state, blocks, information, T * unit, output)
    if problem.prior.is_flat:  # without a prior, fewer cells than coefficients determine nothing
        spread[data.n_observed < rank] = np.nan
    objects = data.shape[0] - data.census.empty_objects
    told = PopulationLaw(T @ population.mean * unit, T @ population.covariance @ T.T * unit**2)
    all_notes = [
        *notes,
        *([f"{begun.doubt}: compare fits with other keys, or lower the rank"] if begun.doubt else []),
        *_noise_notes(problem, run.status, noise_status, float(noise.scale), float(noise.inverse_df)),
        *_threshold_notes(problem, information, spread, told),
    ]
    return Fit(
        basis=frozen(gauge.basis.astype(data.dtype)),
        coefficients=frozen((A @ T.T * unit).astype(output)),
        coefficient_covariance=frozen(spread),
        basis_covariance=frozen((back.T @ column_covariance @ back).astype(data.dtype)),
        loss=loss.in_unit(1.0 / unit),
        noise=noise.in_unit(1.0 / unit),
        information=information,
        population=told,
        flat_prior=problem.prior.is_flat,
        moments=frozen(gauge.moments * unit**2),
        near_equal=tuple(near_equal(gauge.moments, 2.0 * np.sqrt(2.0 / objects))),
        trained=frozen(trained),
        ids=data.ids,
        fingerprints=frozen(fingerprints(whole, unit, data.dtype)),
        grid=data.grid,
        grid_name=data.labels.grid_name,
        flux_name=data.labels.flux_name,
        unit=unit,
        history=(*begun.history, *run.history),
        status=Status(run.status.code, "; ".join([run.status.message, *all_notes])),
        config=MappingProxyType(dict(config)),
    )


def _information(problem: Problem, statistics: Statistics) -> float:
    """`m_step.information` of residuals: under a threshold the naive Cov(a) is many times too large.

    They are those after so many parameters were fitted.
    """
    n, m = problem.data.shape
    census, rank = problem.data.census, problem.rank
    fitted = rank * (m - census.empty_pixels + n - census.empty_objects - rank)
    return m_step.information(statistics, min(fitted / census.observed, MOST_FITTED))


def _moments(state: em.State, statistics: Statistics) -> PopulationLaw:
    return PopulationLaw(
        m_step.mean_of(state.shared.population, statistics), m_step.covariance_of(statistics)
    )


def on_host(law: NoiseLaw) -> NoiseLaw:
    """Plain numbers, and an array of floors where there is one per pixel."""
    floor = np.asarray(law.floor, float)
    return NoiseLaw(*map(float, law._replace(floor=0.0)))._replace(
        floor=frozen(floor) if floor.ndim else float(floor)
    )


def _all_learned(problem: Problem) -> bool:
    """Whether the loss is the noise law already; without marginalised coefficients its scale is too small."""
    return problem.noise in (Noise(), Noise(floor="pixel")) and problem.form.marginal


def _learn_noise(
    problem: Problem,
    shared: Globals,
    A: Float[np.ndarray, "objects rank"],
    population: PopulationLaw,
    seed: int,
) -> tuple[NoiseLaw, Status]:
    """The noise law of the residuals, at fixed basis and coefficients, on a random part of the objects."""
    data = problem.data
    rows = np.flatnonzero(data.n_observed > 0)
    rows = np.sort(
        np.random.default_rng([seed, 1]).permutation(rows)[: max(NOISE_CELLS // data.shape[1], 256)]
    )
    part = tamed(data.take(rows))
    # where only the given scale lets a floor be learned, it is believed here as well
    scale = problem.noise.scale if problem.learn.floor and not problem.separable else None
    noise = Noise(scale=scale, floor="pixel" if problem.per_pixel else None)
    free = Problem.of(part, problem.rank, noise, Prior())
    residual = np.asarray(part.flux) - product(A[rows], np.asarray(shared.basis, float)).astype(data.dtype)
    shared = shared._replace(
        loss=free.first_law(residual, np.asarray(part.ivar)),
        population=free.population(population.mean, population.covariance),
    )
    blocks = Blocks.of(part, data.unit, problem.rows)
    first = em.init(shared, blocks.deal(A[rows], data.dtype))

    def step(now: em.State, epoch: int) -> tuple[em.State, em.Info, Epoch]:
        new, info, line = free.step(
            now, blocks, TARGET, epoch, "noise", free.learn._replace(basis=False, population=False)
        )
        held = [x._replace(coefficients=y.coefficients) for x, y in zip(new.local, first.local, strict=True)]
        return new._replace(local=tuple(held), past=None), info, line

    run = iterate(step, first, max_epochs=NOISE_PASSES, tol=NOISE_REST)
    return run.state.shared.loss, run.status


def _noise_notes(
    problem: Problem, status: Status, noise_status: Status, scale: float, tail: float
) -> list[str]:
    notes = []
    if status.ok and not noise_status.ok:
        notes.append(f"Fit.noise is not at rest, the fit is: {noise_status.message}")
    census, (n, m) = problem.data.census, problem.data.shape
    parameters = problem.rank * (n - census.empty_objects + m - census.empty_pixels - problem.rank)
    if problem.learn.any_noise and census.observed < SPARSE * parameters:
        notes.append(
            f"{census.observed} observed cells for {parameters} coefficients and basis entries are too few "
            "to trust the learned noise: give it, noise=rp.Noise(scale=1.0, floor=0.0), or lower the rank"
        )
    if tail >= WIDEST_TAIL:
        notes.append("nu has met its lower limit of 0.5: these residuals follow no law of this kind")
    if scale < NO_NOISE:
        notes.append(
            "the residuals are about a thousand times smaller than the errors say: is there any noise?"
        )
    elif problem.given_floor is not None and problem.noise.floor in (None, "pixel"):
        notes.append("the errors vary too little to tell a floor from a scale: the floor stays 0")
    return notes


def _threshold_notes(
    problem: Problem,
    information: float,
    spread: Float[np.ndarray, "objects rank rank"],
    population: PopulationLaw,
) -> list[str]:
    """Under a wide threshold data of low S/N count for less than the population: weak components are lost."""
    if problem.prior.is_flat or information < WIDE:
        return []
    root = np.linalg.cholesky(np.linalg.inv(population.covariance))
    naive = information * np.median(spread, axis=0)  # what the loss takes the covariance for
    share = float(np.linalg.eigvalsh(root.T @ naive @ root).max())
    if share < OVERRULED:
        return []
    return [
        "the loss is so much wider than the noise that in one direction the population determines "
        f"{100 * min(share, 1.0):.0f} % of the typical coefficient: learn the noise, or give "
        "prior=rp.Prior.flat()"
    ]


def _finite(state: em.State) -> bool:
    """Whether every number that a fit consists of is finite."""
    leaves = [state.shared.basis, *state.shared.loss, *(local.coefficients for local in state.local)]
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves)
