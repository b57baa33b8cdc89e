"""The core of the law of z: Student's t on the host, in float64 and far into its tails."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

GAUSSIAN = 1e-6  # 1/nu below which the law is the normal one


class Core(NamedTuple):
    """StudentT(nu, 0, scale), with the normal law at 1/nu = 0 (where `scipy.stats.t` has no draws)."""

    inverse_df: float  # 1/nu
    scale: float = 1.0

    @property
    def is_gaussian(self) -> bool:
        """Whether the tails are those of the normal law."""
        return self.inverse_df < GAUSSIAN

    def log_density(self, z: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
        """Log density of z [nats]."""
        z2 = (np.asarray(z, float) / self.scale) ** 2
        if self.is_gaussian:
            return -0.5 * z2 - math.log(self.scale) - 0.5 * math.log(2.0 * math.pi)
        nu = 1.0 / self.inverse_df
        half = 0.5 * (nu + 1.0)
        constant = special.gammaln(half) - special.gammaln(0.5 * nu) - 0.5 * math.log(math.pi * nu)
        return constant - math.log(self.scale) - half * np.log1p(self.inverse_df * z2)

    def cdf(self, z: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
        """P(Z <= z), with all its digits in the lower tail."""
        x = np.asarray(z, float) / self.scale
        return special.ndtr(x) if self.is_gaussian else special.stdtr(1.0 / self.inverse_df, x)

    def two_sided(self, z: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
        """P(|Z| >= |z|)."""
        return 2.0 * self.cdf(-np.abs(np.asarray(z, float)))

    def quantile(self, p: Float[np.ndarray, "*levels"] | float) -> Float[np.ndarray, "*levels"]:
        """The z with P(Z <= z) = p."""
        x = special.ndtri(p) if self.is_gaussian else special.stdtrit(1.0 / self.inverse_df, p)
        return self.scale * x

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "*shape"]:
        """Independent draws."""
        x = rng.standard_normal(shape) if self.is_gaussian else rng.standard_t(1.0 / self.inverse_df, shape)
        return self.scale * x
