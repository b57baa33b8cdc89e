"""What is believed before seeing the data: small NumPyro pieces for basis, coefficients and noise law."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from robusta_prob.models.noise import Noise, NoiseLaw

INVERSE_DF_RATE = 2.0  # 1/nu ~ Exponential(mean 1/2)
LOG_SCALE_WIDTH = 1.0  # log s ~ Normal(0, 1)
CONTAMINATION_MEAN = 0.1  # eps ~ Beta(1, 9)
LOG_WIDTH_WIDTH = 2.0  # log width ~ Normal(0, 2), in that unit as well
FLOOR_WIDTH = 0.1  # f ~ HalfNormal(1/10), in the unit of the flux that the model is given


class Prior(NamedTuple):
    """Population of the coefficients, a_i ~ Normal(mean, covariance), and a weak prior on the basis.

    `Prior()` learns the population from the data (empirical Bayes, in the engines). `Prior.flat()` is the
    published choice: no prior at all, so the fit is maximum likelihood. All in the unit of the flux that
    the model is given (`Dataset.unit` times the user's).
    """

    mean: Float[Array, " rank"] | None = None
    covariance: Float[Array, "rank rank"] | float | None = None  # inf: flat
    # standard deviation of a basis entry; inf: flat; None: the program's default
    basis_scale: float | None = None

    @classmethod
    def flat(cls) -> Prior:
        """No prior on coefficients and basis: maximum likelihood."""
        return cls(None, math.inf, math.inf)

    @property
    def is_flat(self) -> bool:
        """Whether the coefficients have no prior."""
        return isinstance(self.covariance, float) and math.isinf(self.covariance)


def sample_basis(rank: int, pixels: int, prior: Prior) -> Float[Array, "rank pixels"]:
    """Site "basis" (K, M). By default rows of unit length on average: Normal(0, 1/sqrt(M)) per entry."""
    scale = 1.0 / math.sqrt(pixels) if prior.basis_scale is None else prior.basis_scale
    if math.isinf(scale):
        return numpyro.sample("basis", dist.ImproperUniform(constraints.real, (), (rank, pixels)))
    return numpyro.sample("basis", dist.Normal(jnp.zeros((rank, pixels)), scale).to_event(2))


def sample_coefficients(objects: int, rank: int, pixels: int, prior: Prior) -> Float[Array, "objects rank"]:
    """Site "coefficients" (N, K).

    The default population, Normal(0, M) per coefficient, gives fluxes of order one with the default basis.
    """
    law: dist.Distribution
    if prior.is_flat:
        law = dist.ImproperUniform(constraints.real_vector, (), (rank,))
    else:
        mean = jnp.zeros(rank) if prior.mean is None else jnp.asarray(prior.mean)
        covariance = pixels * jnp.eye(rank) if prior.covariance is None else jnp.asarray(prior.covariance)
        law = dist.MultivariateNormal(mean, covariance)
    # an event over the objects, not a plate: the plate "objects" is the flux's, one dimension further left
    return numpyro.sample("coefficients", law.expand([objects]).to_event(1))


def sample_noise(noise: Noise, pixels: int) -> NoiseLaw:
    """Sites "nu", "scale", "floor", "contamination", "width": sampled where learned, else deterministic.

    Weak priors: 1/nu ~ Exponential(mean 1/2), log s ~ Normal(0, 1), f ~ HalfNormal(1/10) and log width ~
    Normal(0, 2) in the unit of the flux that the program is given, eps ~ Beta(1, 9).
    """
    noise = noise.validated()
    half_normal = dist.HalfNormal(FLOOR_WIDTH)
    of_floor = half_normal.expand([pixels]).to_event(1) if noise.floor == "pixel" else half_normal
    nu = (
        numpyro.sample("nu", dist.InverseGamma(1.0, INVERSE_DF_RATE))
        if noise.nu is None
        else numpyro.deterministic("nu", jnp.asarray(noise.nu, float))
    )
    scale = (
        numpyro.sample("scale", dist.LogNormal(0.0, LOG_SCALE_WIDTH))
        if noise.scale is None
        else numpyro.deterministic("scale", jnp.asarray(noise.scale, float))
    )
    floor = (
        numpyro.sample("floor", of_floor)
        if noise.floor is None or noise.floor == "pixel"
        else numpyro.deterministic("floor", jnp.asarray(noise.floor, float))
    )
    contamination = (
        numpyro.sample("contamination", dist.Beta(1.0, 1.0 / CONTAMINATION_MEAN - 1.0))
        if noise.learns_contamination
        else numpyro.deterministic(
            "contamination", jnp.asarray(0.0 if noise.contamination is None else noise.contamination, float)
        )
    )
    width = (
        numpyro.sample("width", dist.LogNormal(0.0, LOG_WIDTH_WIDTH))
        if noise.has_contamination
        else numpyro.deterministic("width", jnp.ones(()))
    )
    return NoiseLaw(1.0 / nu, scale, floor, contamination, width)
