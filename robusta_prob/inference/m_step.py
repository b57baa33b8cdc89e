"""What one update makes of a pass's sums: basis, noise law and population, on the host in float64.

The sums are small, K (K + 1) / 2 x M at most, and the algebra is long: compiled for every shape anew it took
longer than most fits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from robusta_prob.inference.accelerate import Leaps, carried, leap, no_leap, no_leaps
from robusta_prob.inference.linalg import congruent, invert_on_host, pack, solve_on_host, unpack
from robusta_prob.inference.noise_step import FIRST_PACE, Free, Pace, noise_step
from robusta_prob.inference.quantities import Globals, Population, Statistics

TINY = float(np.finfo(float).tiny)
LEAST_VARIANCE = 1e-8  # of the population along any direction, in units of the largest: none is lost


class Learn(NamedTuple):
    """Which parts of `Globals` are learned."""

    basis: bool
    nu: bool
    scale: bool
    floor: bool
    contamination: bool
    width: bool
    population: bool

    @property
    def any_noise(self) -> bool:
        """Whether any part of the noise law is learned."""
        return any((self.nu, self.scale, self.floor, self.contamination, self.width))


class Turned(NamedTuple):
    """Shared values, and what takes coefficients into the gauge in which they are told."""

    shared: Globals
    turn: Float[np.ndarray, "rank rank"]


class Memory(NamedTuple):
    """What updates have learned of their own moves."""

    leaps: Leaps  # of the basis
    pace: Pace  # of the noise law


class Moves(NamedTuple):
    """How far an update went."""

    basis: float  # rms EM move of an entry, in posterior standard deviations
    to_go: float  # what is thought to be left after the jump, in the same unit
    noise: float  # largest of log s^2, 1/nu, f^2 / (sigma^2 + f^2), eps and eps log width


NOWHERE, ASTRAY = Moves(0.0, 0.0, 0.0), Moves(math.nan, math.nan, math.nan)


def no_memory(shared: Globals, pace: Pace = FIRST_PACE) -> Memory:
    """Before the first update, or after one that was taken back."""
    return Memory(no_leaps(*shared.basis.shape), pace)


def maximise(
    shared: Globals, statistics: Statistics, memory: Memory, learn: Learn, *, steady: bool
) -> tuple[Turned, Memory, Moves]:
    """The next shared values, in float64, and how far they went.

    `statistics` are sums over all objects, on the host. Moves are compared with one another only where passes
    are `steady`, not while a schedule changes them. Sums that are not finite give a basis that is not.
    """
    rank, pixels = shared.basis.shape
    astray = Turned(shared._replace(basis=math.nan * shared.basis), np.eye(rank)), memory, ASTRAY
    if not all(np.isfinite(x).all() for x in jax.tree.leaves((shared, statistics))):
        return astray
    old = on_host(shared)
    law, pace, noise_move = old.loss, FIRST_PACE, 0.0
    if learn.any_noise:
        free = Free(np.array([learn.scale, learn.nu, learn.width, learn.contamination]), learn.floor)
        law, noise_move, pace = noise_step(old.loss, statistics.noise, free, memory.pace)
    population = _next_population(old.population, statistics) if learn.population else old.population
    new = Turned(old._replace(loss=law, population=population), np.eye(rank))
    leaps, moves = no_leaps(rank, pixels), NOWHERE
    if learn.basis:
        try:
            new, leaps, moves = _next_basis(
                new.shared, statistics, memory.leaps, shared.basis.dtype, steady=steady
            )
        except np.linalg.LinAlgError:  # a basis that lost a direction
            return astray
    return new, Memory(leaps, pace if steady else FIRST_PACE), moves._replace(noise=noise_move)


def _next_basis(
    shared: Globals, statistics: Statistics, leaps: Leaps, dtype: np.dtype, *, steady: bool
) -> tuple[Turned, Leaps, Moves]:
    """The basis one step on, in its gauge, with everything that is told in it."""
    G, rank, eps = shared.basis, len(shared.basis), float(np.finfo(dtype).eps)
    drag = (unpack(statistics.gram_cov, rank) * G[None]).sum(1)  # Cov(a) pulls on the basis as well
    gram = unpack(statistics.gram + statistics.gram_cov, rank)
    dG, inverse = solve_on_host(gram, statistics.rhs - drag, eps)
    # what moves along the rows of G is taken as it is (T), what moves across them is accelerated
    T = np.eye(rank) + np.linalg.solve(G @ G.T, G @ dG.T).T
    move = np.linalg.solve(T, G + dG) - G
    # while the passes themselves change, moves have nothing in common
    jump, leaps = (leap if steady else no_leap)(leaps, move, gram)
    across = jump.step - jump.step @ G.T @ np.linalg.solve(G @ G.T, G)
    moved = shared._replace(basis=T @ (G + across), basis_covariance=pack(inverse))
    new = _in_gauge(moved, covariance_of(statistics))
    leaps = carried(leaps, np.linalg.inv(new.turn).T @ T)

    # changes of the size of one rounding of G never die out where spectra are very precise
    rounding2 = (0.5 * eps) ** 2 * (np.einsum("kkj->kj", gram) * G**2).sum()
    # the naive Gram's posterior standard deviation is not the true one; while annealed, about that of the end
    scale2 = information(statistics) / (rank * max(int((gram[0, 0] > 0).sum()), 1))
    went, left = (math.sqrt(scale2 * max(x - rounding2, 0.0)) for x in (jump.move2, jump.left2))
    return new, leaps, Moves(went, left, 0.0)


def _in_gauge(shared: Globals, covariance: Float[np.ndarray, "rank rank"]) -> Turned:
    """Rows of the basis orthonormal, coefficients uncorrelated: every small system is then well scaled.

    Any T is right as long as all follow it; the final order and signs are `models.gauge`'s business.
    """
    gram = shared.basis @ shared.basis.T
    L = np.linalg.cholesky(gram + 1e-6 * np.diagonal(gram).max() * np.eye(len(gram)))
    _, U = np.linalg.eigh(L.T @ covariance @ L)
    T = U.T @ L.T
    back = np.linalg.inv(T)
    mean, precision, log_det = shared.population
    if precision[0, 0] > 0:
        log_det = log_det - 2.0 * np.linalg.slogdet(T)[1]
    population = Population(T @ mean, back.T @ precision @ back, log_det)
    known = congruent(back.T, shared.basis_covariance)
    return Turned(Globals(back.T @ shared.basis, shared.loss, population, known), T)


def population_of(mean: Float[np.ndarray, " rank"], covariance: Float[np.ndarray, "rank rank"]) -> Population:
    """Normal(mean, covariance) as the sweep wants it."""
    inverse, log_det = invert_on_host(np.asarray(covariance, float)[:, :, None], float(np.finfo(float).eps))
    return Population(np.asarray(mean, float), inverse[:, :, 0], -log_det[0])


def _next_population(population: Population, statistics: Statistics) -> Population:
    """Weighted empirical Bayes: mean and covariance of the coefficients, including their own uncertainty."""
    if not statistics.moment0 > 0:
        return population
    return population_of(mean_of(population, statistics), covariance_of(statistics))


def mean_of(population: Population, statistics: Statistics) -> Float[np.ndarray, " rank"]:
    """Mean of the coefficients by these sums, which are taken about the population's present mean."""
    return np.asarray(population.mean, float) + statistics.moment1 / max(float(statistics.moment0), TINY)


def covariance_of(statistics: Statistics) -> Float[np.ndarray, "rank rank"]:
    """Covariance of the coefficients; variances of at least 1e-8 of the largest, so that none is lost."""
    mass = max(float(statistics.moment0), TINY)
    offset = statistics.moment1 / mass
    covariance = statistics.moment2 / mass - np.outer(offset, offset)
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    return (vectors * np.maximum(values, LEAST_VARIANCE * values.max() + TINY)) @ vectors.T


def information(statistics: Statistics, fitted: float = 0.0) -> float:
    """True information over naive information, (sum psi')^2 / (sum psi^2 sum w): Huber (1967), as one scalar.

    1 for a Gaussian loss on Gaussian noise; (nu+1)/(nu+3), the Fisher information, where a Student-t
    loss is the noise law. `fitted` parameters per cell make residuals smaller than errors and slopes larger:
    corrected to first order (Huber 1973, Ann. Stat. 1, 799).
    """
    count, weight, psi2, slope, slope2 = map(float, statistics.influence)
    if not weight > 0:
        return 1.0
    slope = max(slope, 1e-3 * weight)
    ratio = (1.0 - fitted) * slope**2 / max(psi2 * weight, TINY)
    excess = max(count * slope2 / slope**2 - 1.0, 0.0)  # var psi' / (mean psi')^2
    return ratio / (1.0 + fitted * excess) ** 2


def on_host(shared: Globals) -> Globals:
    """The same in float64, a law of plain numbers."""
    host: Globals = jax.tree.map(lambda x: np.asarray(x, float), shared)
    floor = host.loss.floor
    law = host.loss._replace(floor=0.0)
    return host._replace(loss=type(law)(*map(float, law))._replace(floor=floor))


def on_device(new: Globals, like: Globals) -> Globals:
    """In the dtypes of `like`."""
    cast: Globals = jax.device_put(jax.tree.map(lambda x, old: np.asarray(x, old.dtype), new, like))
    return cast


def flat_population(rank: int) -> Population:
    """No prior on the coefficients."""
    return Population(np.zeros(rank), np.zeros((rank, rank)), np.zeros(()))
