"""The parts of the law of z, on the host in float64: a Student-t core into its far tails, and a wide one."""

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


REACH = 50.0  # a z beyond it counts as one of REACH
REACHES = (6.25, 12.5, 25.0, REACH)  # of the flat laws that make up the wide part


class Wide(NamedTuple):
    """The wide part: flat laws over |z| < `REACHES`, so that it falls with |z|, and what lies beyond `REACH`.

    What is wrong by a fixed flux reaches less far in noisy objects than in precise ones.
    """

    weights: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0, 0.0)  # of the flat laws, and of what lies beyond

    def quantiles(self, n: int) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Values of |z| and their probabilities, `n` for each of the flat laws."""
        middles = (np.arange(n) + 0.5) / n
        value = np.append((np.array(REACHES)[:, None] * middles).ravel(), REACH)
        return value, np.append(np.repeat(np.array(self.weights[:-1]) / n, n), self.weights[-1])

    def between(self, edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " bins"]:
        """P(z in a bin), of rising edges; the first and the last bin have what lies beyond them."""
        return np.array(self.weights) @ parts_between(edges)

    def draw(self, rng: np.random.Generator, n: int) -> Float[np.ndarray, " n"]:
        """Independent draws; those beyond `REACH` at `REACH`."""
        weights = np.array(self.weights)
        reach = rng.choice((*REACHES, np.inf), n, p=weights / weights.sum())
        return np.clip(rng.uniform(-1.0, 1.0, n) * reach, -REACH, REACH)


def parts_between(edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, "parts bins"]:
    """P(z in a bin) under each part of `Wide`; the first and the last bin have what lies beyond them."""
    edges = np.concatenate([[-np.inf], edges[1:-1], [np.inf]])
    flat = np.diff(np.clip(edges / np.array(REACHES)[:, None], -1.0, 1.0), axis=1) / 2.0
    beyond = np.zeros(len(edges) - 1)
    beyond[[0, -1]] = 0.5
    return np.vstack([flat, beyond])
