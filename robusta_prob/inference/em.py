"""The closed-form engine: E-step weights, exact coefficients, exact basis, one Fisher step of the noise law.

`init -> State`, `step(State, blocks) -> (State, Info)`: `inference.blocks` are gone through once.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from robusta_prob.inference.accelerate import Leaps, carried, leap, no_leap, no_leaps
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.linalg import congruence, invert, pack, pair_count, solve, unpack
from robusta_prob.inference.noise_step import Pace, first_pace, noise_step
from robusta_prob.inference.sweep import (
    Globals,
    Local,
    PerObject,
    Population,
    Settings,
    Statistics,
    sweep,
)


class Learn(NamedTuple):
    """1 where a part of `Globals` is learned, 0 where it is given; traced."""

    basis: float
    nu: float
    scale: float
    floor: float
    contamination: float
    width: float
    population: float

    @property
    def any_noise(self) -> float:
        """1 where any part of the noise law is learned."""
        return max(self.nu, self.scale, self.floor, self.contamination, self.width)


class Memory(NamedTuple):
    """What updates have learned of their own moves."""

    leaps: Leaps  # of the basis
    pace: Pace  # of the noise law


class Past(NamedTuple):
    """The pass before, for the way back from a bad jump."""

    memory: Memory  # of its update
    shared: Globals
    statistics: Statistics
    height: float  # F once the coefficients had followed, at least


class State(NamedTuple):
    """What is carried from pass to pass."""

    shared: Globals
    local: tuple[Local, ...]  # one per block
    past: Past | None = None


class Moves(NamedTuple):
    """How far an update went."""

    basis: Float[Array, ""] | float  # rms EM move of an entry, in posterior standard deviations
    to_go: Float[Array, ""] | float  # what is thought to be left after the jump, in the same unit
    noise: Float[Array, ""] | float  # largest of log s^2, 1/nu, f^2 / (sigma^2 + f^2), eps and eps log width


class Info(NamedTuple):
    """What is looked at after a pass."""

    bound: float  # F once the coefficients have followed the basis of before the pass, at least [nats]
    moves: Moves
    statistics: Statistics
    objects: tuple[PerObject, ...]


def population_of(
    mean: Float[np.ndarray, " rank"], covariance: Float[np.ndarray, "rank rank"], dtype: np.dtype
) -> Population:
    """Normal(mean, covariance) as the sweep wants it."""
    inverse, log_det = invert(jnp.asarray(covariance, dtype)[:, :, None])
    return Population(jnp.asarray(mean, dtype), inverse[:, :, 0], -log_det[0])


def flat_population(rank: int, dtype: np.dtype) -> Population:
    """No prior on the coefficients."""
    return Population(jnp.zeros(rank, dtype), jnp.zeros((rank, rank), dtype), jnp.zeros((), dtype))


def init(shared: Globals, coefficients: Iterable[Float[np.ndarray, "rows rank"]]) -> State:
    """State at given shared values and coefficients.

    Coefficients count as known until the first pass: a covariance as wide as the population's would make
    every precise cell look bad.
    """
    rank = len(shared.basis)

    def local(host: Float[np.ndarray, "rows rank"]) -> Local:
        A, rows = jnp.asarray(host, shared.basis.dtype), len(host)
        V = jnp.zeros((rows, pair_count(rank)), A.dtype)
        return Local(A, V, jnp.zeros(rows, A.dtype), jnp.ones(rows, A.dtype))

    return State(shared, tuple(local(A) for A in coefficients))


def step(
    state: State,
    blocks: Blocks,
    settings: Settings,
    learn: Learn,
    *,
    marginal: bool,
) -> tuple[State, Info]:
    """One pass over the blocks, then one update of everything shared; a jump that lowered F is taken back."""
    past = state.past
    memory = _no_memory(state.shared) if past is None else past.memory
    local, total, objects, height = _pass(state, blocks, settings, marginal)
    # judged once the coefficients have followed: along slow directions F falls until they do
    slack = _slack(state.shared, sum(blocks.rows), learn)
    if past is not None and memory.leaps.seen > 1 and not height >= past.height - slack:
        forgotten = _no_memory(state.shared)._replace(pace=memory.pace)
        shared, memory, _ = update(past.shared, past.statistics, forgotten, settings, learn)
        state = State(shared, state.local)
        local, total, objects, height = _pass(state, blocks, settings, marginal)
    shared, memory, moves = update(state.shared, total, memory, settings, learn)
    past = Past(memory, state.shared, total, height)
    return State(shared, local, past), Info(height, jax.device_get(moves), total, objects)


def _no_memory(shared: Globals) -> Memory:
    rank, pixels = shared.basis.shape
    return Memory(no_leaps(rank, pixels, shared.basis.dtype), first_pace(shared.basis.dtype))


def _pass(
    state: State, blocks: Blocks, settings: Settings, marginal: bool
) -> tuple[tuple[Local, ...], Statistics, tuple[PerObject, ...], float]:
    """The sweep over all blocks, its sums added up; F at the new coefficients, at least."""
    total: Statistics | None = None
    local, objects = [], []
    for block, old in zip(blocks, state.local, strict=True):
        if total is not None and not blocks.at_hand:  # else blocks are read faster than they are used
            jax.block_until_ready(total)
        new, statistics, seen = sweep(
            block.flux, block.ivar, old, block.rows, state.shared, settings, marginal=marginal
        )
        total = statistics if total is None else _add(total, statistics)
        local.append(new)
        objects.append(seen)
    assert total is not None
    height = sum(
        float((np.asarray(seen.bound, float) + np.asarray(seen.gain, float))[:rows].sum())
        for seen, rows in zip(objects, blocks.rows, strict=True)
    )
    return tuple(local), total, tuple(objects), height


def _slack(shared: Globals, objects: int, learn: Learn) -> float:
    """How far F may fall and count as rising: by rounding, or more where its noise law moves on its own."""
    rounding = 10.0 * float(jnp.finfo(shared.basis.dtype).eps)
    least = max(rounding, 1e-6 if learn.any_noise or learn.population else 0.0)
    return least * objects * shared.basis.shape[1]


_add = jax.jit(partial(jax.tree.map, jnp.add))


@jax.jit
def update(
    shared: Globals, statistics: Statistics, memory: Memory, settings: Settings, learn: Learn
) -> tuple[Globals, Memory, Moves]:
    """Basis, noise law and population from the sums of a pass; and how far basis and noise law moved."""
    G, law, population, *_ = shared
    rank = len(G)
    drag = (unpack(statistics.gram_cov, rank) * G[None]).sum(1)  # Cov(a) pulls on the basis as well
    gram = unpack(statistics.gram + statistics.gram_cov, rank)
    dG, inverse, _ = solve(gram, statistics.rhs - drag)
    # what moves along the rows of G is taken as it is (T), what moves across them is accelerated
    T = jnp.eye(rank, dtype=G.dtype) + jnp.linalg.solve(G @ G.T, G @ dG.T).T
    move = jnp.linalg.inv(T) @ (G + dG) - G
    # while the passes themselves change, moves have nothing in common
    steady = settings.steady > 0
    jump, leaps = jax.lax.cond(steady & (learn.basis > 0), leap, no_leap, memory.leaps, move, gram)
    across = jump.step - jump.step @ G.T @ jnp.linalg.solve(G @ G.T, G)
    G_new = jnp.where(learn.basis > 0, T @ (G + across), G)
    free = jnp.stack([learn.scale, learn.nu, learn.width, learn.contamination]) > 0
    new_law, noise_move, pace = noise_step(
        law, statistics.noise, free, jnp.asarray(learn.floor) > 0, memory.pace
    )
    new_population = _population_step(population, statistics, learn)
    known = jnp.where(
        learn.basis > 0, pack(inverse), shared.basis_covariance
    )  # held: of more objects than these
    new = Globals(G_new, new_law, new_population, jnp.eye(rank, dtype=G.dtype), known)
    new = jax.lax.cond(learn.basis > 0, _in_gauge, lambda x, _: x, new, covariance_of(statistics))
    pace = jax.tree.map(partial(jnp.where, steady), pace, first_pace(G.dtype))
    memory = Memory(carried(leaps, jnp.linalg.inv(new.turn).T @ T), pace)

    # changes of the size of one rounding of G never die out where spectra are very precise
    rounding2 = (0.5 * jnp.finfo(G.dtype).eps) ** 2 * (jnp.diagonal(gram).T * G**2).sum()
    # the naive Gram's posterior standard deviation is not the true one
    scale2 = information(statistics) / (rank * jnp.maximum((gram[0, 0] > 0).sum(), 1))
    lengths = (jnp.sqrt(scale2 * jnp.maximum(x - rounding2, 0.0)) for x in (jump.move2, jump.left2))
    went, left = (jnp.where(learn.basis > 0, x, 0.0) for x in lengths)
    return new, memory, Moves(went, left, noise_move)


def _in_gauge(shared: Globals, covariance: Float[Array, "rank rank"]) -> Globals:
    """Rows of the basis orthonormal, coefficients uncorrelated: every small system is then well scaled.

    Any T is right as long as all follow it; the final order and signs are `models.gauge`'s business.
    """
    gram = shared.basis @ shared.basis.T
    tiny = 1e-6 * jnp.diagonal(gram).max()
    L = jnp.linalg.cholesky(gram + tiny * jnp.eye(len(gram), dtype=gram.dtype))
    _, U = jnp.linalg.eigh(L.T @ covariance @ L)
    T = U.T @ L.T
    back = jnp.linalg.inv(T)
    mean, precision, log_det = shared.population
    population = Population(
        T @ mean,
        back.T @ precision @ back,
        jnp.where(precision[0, 0] > 0, log_det - 2.0 * jnp.linalg.slogdet(T)[1], 0.0),
    )
    return Globals(
        back.T @ shared.basis, shared.loss, population, T, congruence(back.T) @ shared.basis_covariance
    )


@jax.jit
def information(statistics: Statistics, fitted: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
    """True information over naive information, (sum psi')^2 / (sum psi^2 sum w): Huber (1967), as one scalar.

    1 for a Gaussian loss on Gaussian noise; (nu+1)/(nu+3), the Fisher information, where a Student-t
    loss is the noise law. `fitted` parameters per cell make residuals smaller than errors and slopes larger:
    corrected to first order (Huber 1973, Ann. Stat. 1, 799).
    """
    count, weight, psi2, slope, slope2 = statistics.influence
    tiny = jnp.finfo(weight.dtype).tiny
    slope = jnp.maximum(slope, 1e-3 * weight)
    ratio = (1.0 - fitted) * slope**2 / jnp.maximum(psi2 * weight, tiny)
    excess = jnp.maximum(count * slope2 / jnp.maximum(slope**2, tiny) - 1.0, 0.0)  # var psi' / (mean psi')^2
    return jnp.where(weight > 0, ratio / (1.0 + fitted * excess) ** 2, 1.0)


def _population_step(population: Population, statistics: Statistics, learn: Learn) -> Population:
    """Weighted empirical Bayes: mean and covariance of the coefficients, including their own uncertainty."""
    precision, log_det = invert(covariance_of(statistics)[:, :, None])
    new = Population(mean_of(population, statistics), precision[:, :, 0], -log_det[0])
    enough = (learn.population > 0) & (statistics.moment0 > 0)
    return jax.tree.map(lambda a, b: jnp.where(enough, a, b), new, population)


@jax.jit
def mean_of(population: Population, statistics: Statistics) -> Float[Array, " rank"]:
    """Mean of the coefficients by these sums, which are taken about the population's present mean."""
    return population.mean + statistics.moment1 / _mass(statistics)


@jax.jit
def covariance_of(statistics: Statistics) -> Float[Array, "rank rank"]:
    """Covariance of the coefficients; variances of at least 1e-8 of the largest, so that none is lost."""
    offset = statistics.moment1 / _mass(statistics)
    covariance = statistics.moment2 / _mass(statistics) - jnp.outer(offset, offset)
    values, vectors = jnp.linalg.eigh(0.5 * (covariance + covariance.T))
    tiny = jnp.finfo(values.dtype).tiny
    return (vectors * jnp.maximum(values, 1e-8 * values.max() + tiny)) @ vectors.T


def _mass(statistics: Statistics) -> Array:
    return jnp.maximum(statistics.moment0, jnp.finfo(statistics.moment0.dtype).tiny)
