"""From residuals in units of their predictive error to probabilities: the null law and its tails.

The null of one pixel is contaminated, (1 - eps) StudentT(nu, s) + eps wide, and its surprise is bounded
by the wide part: one bad pixel alone leaves p of an average object above 0.01, except among fewer than about
50 pixels of a survey where hardly any is wide (with a Gaussian core 1e-3 among 20). There the share that is
learned expects as many such objects as there are, so that hardly any is a discovery. What is wrong by a
fixed flux stands out in precise objects and drowns in noisy ones: what share of an object's pixels is wide
depends on its errors. Tails of the sum over an object's pixels are saddlepoint approximations (Lugannani &
Rice 1980; Barndorff-Nielsen 1986).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, special

from robusta_prob.scoring.core import Core

REACH = 50.0  # the wide part is flat over |z| < REACH, and a z beyond it counts as one of REACH
BOUNDING = 1e-4  # at least such a contamination bounds the surprise, even where fewer pixels are wide
WIDE = 1000  # quantiles of the wide part
SMALLEST = 1e-7  # contamination; at 1e-4, 1200 pixels without any would be off by 0.06 standard deviations


class Null(NamedTuple):
    """Law of z = residual / predictive standard deviation of a normal pixel."""

    inverse_df: float  # 1/nu of the core
    scale: float  # of the core; 1 where the noise law of the fit holds
    contamination: float  # eps, the share of pixels in the wide part
    correlation: tuple[float, ...] = ()  # of the z of pixels 1, 2, ... apart; empty where there is none
    inflation: float = 1.0  # of the variance of an object's summed surprise, by that correlation
    clumping: float = 0.0  # probability that the neighbour of a bad pixel is bad to the same side
    levels: tuple[float, ...] = ()  # log of an object's typical error in the flux unit, rising, at which
    shares: tuple[float, ...] = ()  # so much of its pixels is wide; empty where that is eps for all
    replicated: tuple[float, float] | None = None  # 1/nu and scale of the noise of replicates, if there are

    def validated(self) -> Null:
        """`self`, or a ValueError that says which entry is impossible."""
        for name, good, limits in (
            ("inverse_df", 0.0 <= self.inverse_df < math.inf, "0 <= 1/nu < inf"),
            ("scale", 0.0 < self.scale < math.inf, "0 < scale < inf"),
            ("contamination", 0.0 < self.contamination < 1.0, "0 < contamination < 1"),
            ("correlation", all(abs(x) <= 1.0 for x in self.correlation), "between -1 and 1"),
            ("inflation", 0.0 < self.inflation < math.inf, "0 < inflation < inf"),
            ("clumping", 0.0 <= self.clumping < 1.0, "0 <= clumping < 1"),
            (
                "levels",
                np.isfinite(self.levels).all() and (np.diff(self.levels) > 0).all(),
                "finite and rising",
            ),
            ("shares", len(self.shares) == len(self.levels), "as many as levels"),
            ("shares", all(0.0 < x < 1.0 for x in self.shares), "between 0 and 1"),
            ("replicated", self._replicated_is_a_law, "None, or 1/nu of at least 0 and a positive scale"),
        ):
            if not good:
                raise ValueError(f"null.{name} must be {limits}; got {getattr(self, name)!r}")
        return self

    @property
    def _replicated_is_a_law(self) -> bool:
        if self.replicated is None:
            return True
        inverse_df, scale = self.replicated
        return 0.0 <= inverse_df < math.inf and 0.0 < scale < math.inf

    @property
    def core(self) -> Core:
        """The law of z in a good pixel."""
        return Core(self.inverse_df, self.scale)

    @property
    def knots(self) -> tuple[Null, ...]:
        """The same law with each of the shares of wide pixels; itself where that is one for all."""
        alike = self._replace(levels=(), shares=())
        return tuple(alike._replace(contamination=share) for share in self.shares) or (alike,)

    def weights(
        self, n: int, level: Float[np.ndarray, " objects"] | None = None
    ) -> Float[np.ndarray, "knots objects"]:
        """How much each of the knots counts for n objects with such errors; as much as any where unknown."""
        knots = np.arange(len(self.knots))
        if level is None:
            return np.full((len(knots), n), 1.0 / len(knots))
        place = np.interp(level, self.levels or (0.0,), knots)
        return np.maximum(1.0 - np.abs(place - knots[:, None]), 0.0)

    @property
    def cap(self) -> float:
        """The largest surprise of a pixel [nats]."""
        return -math.log(self.bounding / (2.0 * REACH))

    @property
    def bounding(self) -> float:
        """The contamination by which the surprise is bounded."""
        return max(self.contamination, BOUNDING)

    def expected_surprise(self, level: Float[np.ndarray, " objects"]) -> Float[np.ndarray, " objects"]:
        """Mean surprise of a null pixel of objects with such errors [nats]."""
        laws = (_surprise_distribution(self, knot.contamination) for knot in self.knots)
        return np.array([float(mass @ value) for value, mass in laws]) @ self.weights(len(level), level)

    def inflation_of_sum(self, width: int) -> float:
        """Variance of the sum of z over `width` neighbours, over that of as many independent ones."""
        lags = np.arange(1, len(self.correlation) + 1)
        return max(0.1, float(1.0 + 2.0 * np.maximum(1.0 - lags / width, 0.0) @ np.array(self.correlation)))

    def surprise(self, z: Float[np.ndarray, "*cells"]) -> Float[np.ndarray, "*cells"]:
        """-log density of z [nats], at most `cap`; a |z| beyond `REACH` counts as one of `REACH`."""
        within = np.clip(z, -REACH, REACH)
        return -np.logaddexp(math.log1p(-self.bounding) + self.core.log_density(within), -self.cap)


def learn_null(z: Float[np.ndarray, " cells"], contamination: float | None = None) -> Null:
    """Maximum likelihood of (nu, scale, contamination) for these residuals, binned in |z|.

    A contamination that is given is not learned.
    """
    counts, middles, flat = _binned(z)

    def loss(x: Float[np.ndarray, " three"]) -> float:
        inverse_df, scale, share = math.exp(x[0]), math.exp(x[1]), special.expit(x[2])
        core = Core(inverse_df, scale).log_density(middles) + math.log1p(-share)
        return float(-(counts * np.logaddexp(core, flat + math.log(share))).sum()) / counts.sum()

    low, high = special.logit(SMALLEST), 0.0
    if contamination is not None:
        low = high = special.logit(contamination)
    ends = [(math.log(1e-4), math.log(2.0)), (-4.0, 6.0), (low, high)]
    share = min(max(special.logit(0.01), low), high)
    trials = [
        optimize.minimize(loss, (math.log(eta), 0.0, share), method="L-BFGS-B", bounds=ends)
        for eta in (0.01, 0.25)
    ]
    best = min(trials, key=lambda trial: trial.fun).x
    return Null(math.exp(best[0]), math.exp(best[1]), float(special.expit(best[2])))


def _binned(z: Float[np.ndarray, " cells"]) -> tuple[np.ndarray, np.ndarray, float]:
    """Counts of |z| and the middles of their bins; log density of the wide part."""
    edges = np.concatenate([np.linspace(0.0, 8.0, 801), np.geomspace(8.0, REACH, 100)[1:]])
    counts, _ = np.histogram(np.minimum(np.abs(z), REACH), edges)
    return counts, 0.5 * (edges[1:] + edges[:-1]), -math.log(2.0 * REACH)


def learn_share(null: Null, z: Float[np.ndarray, " cells"]) -> float:
    """Maximum likelihood of the share of wide pixels among these, the core as it is."""
    counts, middles, flat = _binned(z)
    core = null.core.log_density(middles)

    def loss(x: float) -> float:
        share = special.expit(x)
        return float(-(counts * np.logaddexp(core + math.log1p(-share), flat + math.log(share))).sum())

    best = optimize.minimize_scalar(loss, bounds=(special.logit(SMALLEST), 0.0), method="bounded")
    return float(special.expit(best.x))


def log_tail(
    null: Null,
    mean: Float[np.ndarray, " objects"],
    count: Float[np.ndarray, " objects"],
    level: Float[np.ndarray, " objects"] | None = None,
) -> Float[np.ndarray, " objects"]:
    """log P(mean surprise of `count` null pixels >= `mean`); correlated ones count for fewer.

    `level` is the logarithm of the typical error of the objects.
    """
    root, knots = np.sqrt(count / null.inflation), null.knots
    return special.log_ndtr(
        -between_knots(
            null.weights(len(mean), level),
            lambda knot, rows: _deviate(null, knots[knot].contamination, mean[rows], root[rows]),
        )
    )


def between_knots(
    weights: Float[np.ndarray, "knots objects"],
    at_knot: Callable[[int, Bool[np.ndarray, " objects"]], Float[np.ndarray, " some"]],
) -> Float[np.ndarray, " objects"]:
    """Mean over the knots of `at_knot(knot, rows)`, which is asked of rows that have a weight there."""
    out = np.zeros(weights.shape[1])
    for knot, weight in enumerate(weights):
        rows = weight > 0
        out[rows] += weight[rows] * at_knot(knot, rows)
    return out


def _deviate(
    null: Null, share: float, mean: Float[np.ndarray, " objects"], root: Float[np.ndarray, " objects"]
) -> Float[np.ndarray, " objects"]:
    """r* = sqrt(n) r(t) + c(t) / sqrt(n); r and c depend on the tilt t alone: one table serves all."""
    law = Null(null.inverse_df, null.scale, null.contamination)  # what the table depends on
    first, r, correction = _saddlepoints(law, share)
    inside = np.clip(mean, first[0], first[-1])
    return root * np.interp(inside, first, r) + np.interp(inside, first, correction) / root


@lru_cache(maxsize=64)
def _saddlepoints(null: Null, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tilted means K'(t), signed roots r(t) and corrections log(u/r)/r for one pixel's surprise."""
    value, mass = _surprise_distribution(null, share)
    tilt = np.sinh(np.linspace(-8.0, 8.0, 2001)) / 40.0  # dense around 0, where most objects are
    exponent = tilt[:, None] * value
    top = exponent.max(1)
    zeroth, first, second = (np.exp(exponent - top[:, None]) @ (mass * value ** np.arange(3)[:, None]).T).T
    cumulant, first = top + np.log(zeroth), first / zeroth
    second = np.maximum(second / zeroth - first**2, 1e-300)
    r = np.sign(tilt) * np.sqrt(np.maximum(2.0 * (tilt * first - cumulant), 0.0))
    u = tilt * np.sqrt(second)
    centred = value - mass @ value
    at_zero = mass @ centred**3 / (mass @ centred**2) ** 1.5 / 6.0
    safe = np.abs(r) > 1e-5
    with np.errstate(divide="ignore", invalid="ignore"):
        correction = np.where(safe, np.log(u / r) / r, at_zero)
    rising = np.concatenate([[True], np.diff(first) > 0])  # beyond the support's ends the mean stands still
    return first[rising], r[rising], correction[rising]


def q_values(p: Float[np.ndarray, " objects"]) -> Float[np.ndarray, " objects"]:
    """Benjamini & Hochberg (1995) adjusted p-values; NaN stays NaN and does not count."""
    q = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    ranks = np.arange(1, len(order) + 1)
    q[order] = np.minimum(np.minimum.accumulate((p[order] * len(order) / ranks)[::-1])[::-1], 1.0)
    return q


def _surprise_distribution(null: Null, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Values and probabilities of a null pixel's surprise, on quantiles of either part of the law.

    Those of the core are refined in its tail.
    """
    tail = np.concatenate([np.linspace(0.0, 0.99, 800)[:-1], 1.0 - np.geomspace(0.01, 1e-9, 400), [1.0]])
    below = 0.5 - 0.25 * (tail[1:] + tail[:-1])  # probability on one side, which keeps its digits in the tail
    flat = REACH * (np.arange(WIDE) + 0.5) / WIDE
    mass = np.append(np.diff(tail) * (1.0 - share), np.full(WIDE, share / WIDE))
    return null.surprise(np.append(-null.core.quantile(below), flat)), mass
