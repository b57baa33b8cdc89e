"""What a sweep takes and what it gives, by name."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Float

from robusta_prob.inference.noise_step import NoiseSums
from robusta_prob.models.noise import NoiseLaw

Numbers = Any  # arrays of the device in a sweep, of the host (float64) between sweeps


class Population(NamedTuple):
    """Normal(mean, precision^-1) of the coefficients; precision 0 is the flat prior."""

    mean: Float[Numbers, " rank"]
    precision: Float[Numbers, "rank rank"]
    log_det: Float[Numbers, ""]  # of the precision; 0 for the flat prior


class Globals(NamedTuple):
    """What all objects share, and what a sweep needs to know of it."""

    basis: Float[Numbers, "rank pixels"]
    loss: NoiseLaw
    population: Population
    # Cov(g_j), packed, with the weights taken for known; 0 until it is known
    basis_covariance: Float[Numbers, "pairs pixels"]


class Local(NamedTuple):
    """What each object has of its own."""

    coefficients: Float[Array, "objects rank"]  # posterior mean m_i
    covariance: Float[Array, "objects pairs"]  # posterior covariance V_i, packed
    log_det: Float[Array, " objects"]  # of V_i
    scale2: Float[Array, " objects"]  # robust squared scale of the object's z, see `object_scale2`
    weight: Float[Array, " objects"]  # mean robust weight over its pixels in the last pass; 0 without any


class Form(NamedTuple):
    """What a sweep is compiled for."""

    marginal: bool  # whether coefficients are marginalised, or else maximised
    contaminated: bool = True  # whether cells may be bad; where none may, half of the work on them is saved
    stride: int = 1  # how many cells go to each that says something about the law of all


class Settings(NamedTuple):
    """How a pass works; all traced, so no value compiles anything."""

    # see `anneal.Robustness`
    object_scale: Float[Numbers, ""] | float
    tail: Float[Numbers, ""] | float
    # whether cells say something about their law, see `listening`; and whether by their residuals alone
    listen: Float[Numbers, ""] | float
    bare: Float[Numbers, ""] | float
    # squared Mahalanobis distance up to which an object votes fully on the population
    object_cut: Float[Numbers, ""] | float


class Statistics(NamedTuple):
    """Sums over objects: all that the update of `Globals` needs."""

    gram: Float[Numbers, "pairs pixels"]  # sum_i w_ij m_i m_i^T
    gram_cov: Float[Numbers, "pairs pixels"]  # sum_i w_ij V_i
    rhs: Float[Numbers, "rank pixels"]  # sum_i w_ij m_i r_ij
    noise: NoiseSums
    influence: Float[Numbers, " five"]  # sums of 1, w, psi^2, psi', psi'^2 over cells: the sandwich's scalars
    moment0: Float[Numbers, ""]  # sum_i omega_i
    moment1: Float[Numbers, " rank"]  # sum_i omega_i (m_i - mu), centred or float32 loses C
    moment2: Float[Numbers, "rank rank"]  # sum_i omega_i ((m_i - mu) (m_i - mu)^T + V_i)


class PerObject(NamedTuple):
    """What is looked at, per object."""

    bound: Float[Array, " objects"]  # the object's share of F, before the update [nats]
    gain: Float[Array, " objects"]  # by which its new coefficients raise it at least [nats]
