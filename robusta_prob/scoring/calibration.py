"""From residuals in units of their predictive error to probabilities: the null law and its tails.

The null of one pixel is contaminated, (1 - eps) StudentT(nu, s) + eps wide, and its surprise is bounded as if
wide were flat: one bad pixel alone leaves p of an average object above 0.01, except among fewer than about
50 pixels of a survey where hardly any is wide (with a Gaussian core 1e-3 among 20). There the share that is
learned expects as many such objects as there are, so that hardly any is a discovery. What is wrong by a
fixed flux stands out in precise objects and drowns in noisy ones: what share of an object's pixels is wide,
and how wide, depends on its errors. Tails of the sum over an object's pixels are saddlepoint approximations
(Lugannani & Rice 1980; Barndorff-Nielsen 1986).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, special

from robusta_prob.scoring.core import REACH, REACHES, Core, Wide, parts_between

LAGS = 64  # pixels apart, at most: as far as the widest window reaches
BOUNDING = 1e-4  # at least such a contamination bounds the surprise, even where fewer pixels are wide
WIDE = 300  # quantiles of each of the flat laws of the wide part
CORE_ENDS = [(math.log(1e-4), math.log(2.0)), (-4.0, 6.0)]  # of log 1/nu and log scale
ROUNDS, STEPS = 3, 100  # of learning core and wide parts in turn, and of the wide parts
TINY = 1e-300
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
    # at these levels, of the wide part, see `Wide.weights`; empty where that is flat
    falloffs: tuple[tuple[float, ...], ...] = ()

    def __str__(self) -> str:
        nu = 1.0 / self.inverse_df if self.inverse_df > 0.0 else math.inf
        words = (
            f"core Student t, nu = {nu:.3g}, scale {self.scale:.3g}; contamination {self.contamination:.2g}"
        )
        if self.correlation:
            reach = f"{len(self.correlation)} pixels{' or more' if len(self.correlation) == LAGS else ''}"
            words += f"; correlated over {reach}, {self.correlation[0]:.2g} from one to the next"
        return words

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
            (
                "falloffs",
                self._falloffs_are_laws,
                f"empty, or for each level {len(REACHES) + 1} weights of sum 1",
            ),
            ("replicated", self._replicated_is_a_law, "None, or 1/nu of at least 0 and a positive scale"),
        ):
            if not good:
                raise ValueError(f"null.{name} must be {limits}; got {getattr(self, name)!r}")
        return self

    @property
    def _falloffs_are_laws(self) -> bool:
        if len(self.falloffs) not in (0, len(self.levels)):
            return False
        return all(
            len(x) == len(REACHES) + 1 and min(x) >= 0.0 and abs(sum(x) - 1.0) < 1e-6 for x in self.falloffs
        )

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
    def wide(self) -> Wide:
        """The law of z in a wide pixel, where it is one for all."""
        return Wide(*self.falloffs[:1])

    @property
    def knots(self) -> tuple[Null, ...]:
        """The same law with the share of wide pixels, and how wide they are, at each of the levels."""
        shares = self.shares or (self.contamination,)
        falloffs = self.falloffs or len(shares) * (Wide().weights,)
        return tuple(
            self._replace(contamination=share, levels=(0.0,), shares=(share,), falloffs=(tuple(falloff),))
            for share, falloff in zip(shares, falloffs, strict=True)
        )

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
        laws = (_surprise_distribution(self, knot.contamination, knot.wide) for knot in self.knots)
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
    ends = [*CORE_ENDS, (low, high)]
    share = min(max(special.logit(0.01), low), high)
    trials = [
        optimize.minimize(loss, (math.log(eta), 0.0, share), method="L-BFGS-B", bounds=ends)
        for eta in (0.01, 0.25)
    ]
    best = min(trials, key=lambda trial: trial.fun).x
    return Null(math.exp(best[0]), math.exp(best[1]), float(special.expit(best[2])))


def _binned(z: Float[np.ndarray, " cells"]) -> tuple[np.ndarray, np.ndarray, float]:
    """Counts of |z| and the middles of their bins; log density of the wide part."""
    edges = _edges()
    counts, _ = np.histogram(np.minimum(np.abs(z), REACH), edges)
    return counts, 0.5 * (edges[1:] + edges[:-1]), -math.log(2.0 * REACH)


def _edges() -> Float[np.ndarray, " edges"]:
    """Of bins in |z|."""
    return np.concatenate([np.linspace(0.0, 8.0, 801), np.geomspace(8.0, REACH, 100)[1:]])


def learn_shares(null: Null, groups: Sequence[Float[np.ndarray, " cells"]]) -> Null:
    """The null law with a share of wide pixels of its own, and their law, for each group of residuals.

    Both by maximum likelihood, in turn with the core, which is one for all.
    """
    edges = _edges()
    counts = np.stack([np.histogram(np.minimum(np.abs(z), REACH), edges)[0] for z in groups])
    flats = 2.0 * parts_between(np.append(-edges[:0:-1], edges))[:, len(edges) - 1 :]
    parts = np.full((len(groups), len(flats)), 1e-2 / len(flats))
    x = np.log([max(null.inverse_df, 1e-4), null.scale])
    for _ in range(ROUNDS):
        core = _core_between(x, edges)
        for _ in range(STEPS):  # of EM, for mixtures of laws that are known
            total = (1.0 - parts.sum(1, keepdims=True)) * core + parts @ flats
            parts *= (counts / total) @ flats.T / counts.sum(1, keepdims=True)
        good, wide = 1.0 - parts.sum(1, keepdims=True), parts @ flats
        x = optimize.minimize(
            lambda x, good, wide: (
                -(counts * np.log(good * _core_between(x, edges) + wide)).sum() / counts.sum()
            ),
            x,
            (good, wide),
            method="L-BFGS-B",
            bounds=CORE_ENDS,
        ).x
    shares = parts.sum(1)
    parts = np.where(parts > SMALLEST * shares[:, None], parts, 0.0)
    return null._replace(
        inverse_df=math.exp(x[0]),
        scale=math.exp(x[1]),
        shares=tuple(np.clip(shares, SMALLEST, 0.5).tolist()),
        falloffs=tuple(tuple((part / part.sum()).tolist()) for part in parts),
    )


def _core_between(
    x: Float[np.ndarray, " two"], edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, " bins"]:
    """P(|z| in a bin) of a core with these log 1/nu and log scale; what lies beyond is in the last one."""
    mass = 2.0 * np.diff(Core(*np.exp(x)).cdf(edges))
    return np.maximum(np.append(mass[:-1], 1.0 - mass[:-1].sum()), TINY)


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
            lambda knot, rows: _deviate(null, knots[knot], mean[rows], root[rows]),
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
    null: Null, knot: Null, mean: Float[np.ndarray, " objects"], root: Float[np.ndarray, " objects"]
) -> Float[np.ndarray, " objects"]:
    """r* = sqrt(n) r(t) + c(t) / sqrt(n); r and c depend on the tilt t alone: one table serves all."""
    law = Null(null.inverse_df, null.scale, null.contamination)  # what the table depends on
    first, r, correction = _saddlepoints(law, knot.contamination, knot.wide)
    inside = np.clip(mean, first[0], first[-1])
    return root * np.interp(inside, first, r) + np.interp(inside, first, correction) / root


@lru_cache(maxsize=64)
def _saddlepoints(null: Null, share: float, wide: Wide) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tilted means K'(t), signed roots r(t) and corrections log(u/r)/r for one pixel's surprise."""
    value, mass = _surprise_distribution(null, share, wide)
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


def _surprise_distribution(null: Null, share: float, wide: Wide) -> tuple[np.ndarray, np.ndarray]:
    """Values and probabilities of a null pixel's surprise, on quantiles of either part of the law.

    Those of the core are refined in its tail.
    """
    tail = np.concatenate([np.linspace(0.0, 0.99, 800)[:-1], 1.0 - np.geomspace(0.01, 1e-9, 400), [1.0]])
    below = 0.5 - 0.25 * (tail[1:] + tail[:-1])  # probability on one side, which keeps its digits in the tail
    size, of_size = wide.quantiles(WIDE)
    some = of_size > 0
    mass = np.append(np.diff(tail) * (1.0 - share), share * of_size[some])
    return null.surprise(np.append(-null.core.quantile(below), size[some])), mass
