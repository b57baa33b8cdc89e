"""The noise law of `models.noise` as a NumPyro distribution."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.util import promote_shapes, validate_sample

from robusta_prob.models.noise import NoiseLaw, law_at


class StudentT(dist.Distribution):
    """NumPyro distribution of the noise law, parametrised by 1/nu >= 0: Gaussian at 0, float32-safe.

    Parameters
    ----------
    inverse_df, loc, scale, contamination : arrays that broadcast
        1/nu (dimensionless), centre and scale (unit of flux), share of bad cells (0: plain Student-t).
    width : array that broadcasts
        Of bad cells (unit of flux).
    """

    arg_constraints = {  # noqa: RUF012  (the form that NumPyro asks for)
        "inverse_df": constraints.nonnegative,
        "loc": constraints.real,
        "scale": constraints.positive,
        "contamination": constraints.unit_interval,
        "width": constraints.positive,
    }
    support = constraints.real
    reparametrized_params = ["loc", "scale"]  # noqa: RUF012

    def __init__(
        self,
        inverse_df: Any,
        loc: Any = 0.0,
        scale: Any = 1.0,
        contamination: Any = 0.0,
        width: Any = 1.0,
        *,
        validate_args: bool | None = None,
    ) -> None:
        given = (inverse_df, loc, scale, contamination, width)
        shape = lax.broadcast_shapes(*map(jnp.shape, given))
        given = promote_shapes(*given, shape=shape)
        self.inverse_df, self.loc, self.scale, self.contamination, self.width = given
        super().__init__(batch_shape=shape, validate_args=validate_args)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw through the scale mixture: a normal over the root of a Gamma(nu/2, nu/2) precision."""
        shape = self.shape(sample_shape)
        key_normal, key_gamma, key_bad, key_wide = jax.random.split(key, 4)
        heavy = jnp.broadcast_to(self.inverse_df, shape) > 0
        half_df = 0.5 / jnp.where(heavy, self.inverse_df, 1.0)
        precision = jnp.where(heavy, jax.random.gamma(key_gamma, half_df, shape) / half_df, 1.0)
        good = self.scale * jax.random.normal(key_normal, shape) / jnp.sqrt(precision)
        bad = jax.random.uniform(key_bad, shape) < self.contamination
        wide = jnp.hypot(self.width, self.scale) * jax.random.cauchy(key_wide, shape)
        return self.loc + jnp.where(bad, wide, good)

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log density in nats."""
        z2 = ((value - self.loc) / self.scale) ** 2
        law = NoiseLaw(self.inverse_df, 1.0, 0.0, self.contamination, self.width)
        return law_at(z2, self.scale**-2.0, law).log_density - jnp.log(self.scale)

    @property
    def mean(self) -> Array:
        """The centre where nu > 1 and no cell is bad, else NaN."""
        return jnp.where((self.inverse_df < 1) & (self.contamination == 0), self.loc, jnp.nan)

    @property
    def variance(self) -> Array:
        """scale^2 nu/(nu-2) where nu > 2 and no cell is bad, infinite above 1, else NaN."""
        finite = self.inverse_df < 0.5
        value = self.scale**2 / jnp.where(finite, 1.0 - 2.0 * self.inverse_df, 1.0)
        value = jnp.where(finite, value, jnp.where(self.inverse_df < 1, jnp.inf, jnp.nan))
        return jnp.where(self.contamination == 0, value, jnp.nan)
