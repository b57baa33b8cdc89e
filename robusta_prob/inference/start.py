"""Where a fit begins: shared values, and coefficients, from a start on a subsample or from what is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robusta_prob.inference import em
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.initialise import Start, project_wrapped
from robusta_prob.inference.isolate import tamed
from robusta_prob.inference.iterate import Epoch
from robusta_prob.inference.linalg import pack, product
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.quantities import Globals
from robusta_prob.inference.results import Fit, in_training

GIVEN = "init"  # the name of a start that a user gives
SUBSAMPLE = 1000  # objects whose medians starts go by: with fewer, 45 % of bad ones may be a majority


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


def basis_of(init: Fit | Array, problem: Problem) -> Float[np.ndarray, "rank pixels"]:
    """The basis that is given, if it can be one of this problem."""
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
    return basis.astype(data.dtype)


def given_start(problem: Problem, init: Fit | Array) -> Callable[..., Start]:
    """What is given as a start among others: its basis alone, with coefficients and noise law of its own."""
    basis, _ = np.linalg.qr(basis_of(init, problem).T)

    def start(Y: np.ndarray, seen: np.ndarray, rank: int, seed: int) -> Start:
        return project_wrapped(Y, seen, basis.T)

    start.__name__ = GIVEN
    return start


def warm(problem: Problem, init: Fit | Array, seed: int) -> Begun:
    """Begin at a fit, or at a basis (K, M)."""
    data, basis = problem.data, basis_of(init, problem)
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
        return Begun(GIVEN, shared, init.coefficients / data.unit if same else mean[None], ())
    first = project_wrapped(Y, W > 0, basis)
    return begin(sample, first, W, GIVEN)


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


def begin(sample: Problem, first: Start, W: Float[np.ndarray, "objects pixels"], name: str) -> Begun:
    """Noise law and population from the start's own residuals and coefficients."""
    A, G = first.coefficients, first.basis
    law = sample.first_law(np.asarray(sample.data.flux) - product(A, G), W)
    mean = np.median(A, axis=0)
    spread = 1.4826 * np.median(np.abs(A - mean), axis=0)
    spread = np.maximum(spread, 1e-3 * max(np.linalg.norm(mean), spread.max(), 1e-30))
    population = sample.population(mean, np.diag(4.0 * spread**2))
    return Begun(name, sample.shared(G, law, population), mean[None], ())
