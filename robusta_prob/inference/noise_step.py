"""One damped Fisher-scoring step of the noise law (log s^2, f^2, 1/nu, log width, eps), from a pass's sums.

The Fisher information is that of the law as it stands, integrated numerically; a cell's score is

    d/d log s^2   = P(good) ((nu + 1) z^2 / (nu + z^2) - 1) / 2 + P(bad) R / (2 w^2) = a,
    d/d f^2       = a u,  u = 1 / (sigma^2 + f^2),
    d/d (1/nu)    = P(good) d log t(z) / d(1/nu),
    d/d log width = P(bad) R (1 - 1/w^2),
    d/d eps       = P(bad)/eps - P(good)/(1 - eps),      R = (z^2 - w^2) / (z^2 + w^2), w^2 = 1 + (width/S)^2.

In the information, cells enter through the sums of 1, u and u^2 alone: for the width, which does not scale
with the errors, a typical cell stands for all.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from robusta_prob.models.noise import NoiseLaw, law_at, log_kernel_slope, log_normaliser, quadrature
from robusta_prob.models.priors import (
    CONTAMINATION_MEAN,
    FLOOR_WIDTH,
    INVERSE_DF_RATE,
    LOG_SCALE_WIDTH,
    LOG_WIDTH_WIDTH,
)

DAMPING = 0.7  # with outliers the likelihood is flatter than its expectation, and full steps oscillate
SCALE_RANGE = 14.0  # |log s^2| at most: noise a thousand times off its errors is no noise
NO_FLOOR = 1e-8  # f^2 below this share of the typical variance is no floor
NO_TAIL = 1e-6  # 1/nu below this is the Gaussian limit
LEAST, MOST = 1e-6, 0.5  # of a learned contamination: below, none; above, good and bad would change places
# of the logarithm of width / typical error: nearer, bad cells could not be told from good ones
NARROWEST, WIDEST = math.log(10.0), math.log(1e8)


def noise_step(
    law: NoiseLaw,
    score: Float[Array, " four"],
    moments: Float[Array, " four"],
    free: Bool[Array, " five"],
) -> tuple[NoiseLaw, Float[Array, ""]]:
    """The next noise law, with f^2, 1/nu and eps kept in bounds, and how far it moved.

    `score` and `moments` as in `sweep.Statistics`; `free` says which of the five are learned.
    """
    eta, eps = jnp.asarray(law.inverse_df), jnp.asarray(law.contamination)
    count, first, _, bad = moments
    tiny = jnp.finfo(eta.dtype).tiny
    inner = jnp.clip(eps, LEAST, 1.0 - LEAST)
    all_scores = jnp.append(score, bad / inner - (count - bad) / (1.0 - inner))
    slope, curvature = _prior(law, inner)
    floor2, log_scale2 = law.floor**2, 2.0 * jnp.log(law.scale)
    spread = count / jnp.maximum(first, tiny)  # harmonic mean of sigma^2 + f^2
    typical = 1.0 / (law.scale**2 * spread)
    log_width = jnp.log(law.width) + 0.5 * jnp.log(typical)
    information = _information(law._replace(contamination=inner), typical, moments) + jnp.diag(curvature)
    low = jnp.stack(
        [
            jnp.maximum(-1.0, -SCALE_RANGE - log_scale2),
            -0.95 * floor2,
            -0.5 * eta,
            jnp.maximum(-1.0, NARROWEST - log_width),
            0.5 * (LEAST - eps),
        ]
    )
    high = jnp.stack(
        [
            jnp.minimum(1.0, SCALE_RANGE - log_scale2),
            3.0 * floor2 + 0.1 * spread,
            jnp.minimum(0.25, 2.0 - eta),
            jnp.minimum(1.0, WIDEST - log_width),
            jnp.minimum(0.1, MOST - eps),
        ]
    )
    delta = DAMPING * _bounded(information, all_scores + slope, free, low, high)
    new_floor2 = floor2 + delta[1]
    new_floor2 = jnp.where(new_floor2 > NO_FLOOR * spread, new_floor2, 0.0)
    new = NoiseLaw(
        inverse_df=jnp.where(eta + delta[2] > NO_TAIL, eta + delta[2], 0.0),
        scale=law.scale * jnp.exp(0.5 * delta[0]),
        floor=jnp.sqrt(new_floor2),
        contamination=eps + delta[4],
        width=law.width * jnp.exp(delta[3]),
    )
    size = jnp.stack([1.0 + 0.0 * eta, 1.0 / spread, 1.0 + 0.0 * eta, eps, 1.0 + 0.0 * eta])
    return new, jnp.abs(delta * size).max()


def _prior(law: NoiseLaw, eps: Array) -> tuple[Float[Array, " five"], Float[Array, " five"]]:
    """Slope and (negative) curvature of the weak priors of `models.priors.sample_noise`."""
    like, rate = jnp.zeros_like(eps), 1.0 / CONTAMINATION_MEAN - 2.0
    slope = [
        -jnp.log(law.scale) / (2.0 * LOG_SCALE_WIDTH**2),
        like - 0.5 / FLOOR_WIDTH**2,
        like - INVERSE_DF_RATE,
        -jnp.log(law.width) / LOG_WIDTH_WIDTH**2,
        -rate / (1.0 - eps),
    ]
    return jnp.stack(slope), jnp.stack(
        [like + 0.25 / LOG_SCALE_WIDTH**2, like, like, like + 1.0 / LOG_WIDTH_WIDTH**2, like]
    )


def _information(
    law: NoiseLaw, precision: Array, moments: Float[Array, " four"]
) -> Float[Array, "five five"]:
    """Fisher information of all cells under the law as it stands."""
    eta, eps = jnp.asarray(law.inverse_df), jnp.asarray(law.contamination)
    z, step = (jnp.asarray(x, eta.dtype) for x in quadrature())
    at = law_at(z**2, precision, law)
    width2 = 1.0 + law.width**2 * precision
    reach = at.bad * (z**2 - width2) / (z**2 + width2)
    excess = 0.5 * at.good * ((1.0 + eta) * z**2 / (1.0 + eta * z**2) - 1.0) + 0.5 * reach / width2
    tail = at.good * (jax.grad(log_normaliser)(eta) + log_kernel_slope(z**2, eta))
    scores = jnp.stack(
        [excess, excess, tail, reach * (1.0 - 1.0 / width2), at.bad / eps - at.good / (1.0 - eps)]
    )
    one_cell = (scores * step * jnp.exp(at.log_density)) @ scores.T
    count, first, second, _ = moments
    of_floor = jnp.zeros(5, eta.dtype).at[1].set(1.0)  # every factor of the floor's score brings a u
    return one_cell * jnp.where(
        jnp.outer(of_floor, of_floor) > 0, second, jnp.where(of_floor + of_floor[:, None] > 0, first, count)
    )


def _bounded(information: Array, score: Array, free: Array, low: Array, high: Array) -> Float[Array, " five"]:
    """Newton step within bounds: what hits a bound stays there, and the rest is solved again."""
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(information), jnp.finfo(score.dtype).tiny))
    metric, slope = information / size[:, None] / size[None, :], score / size
    low, high = low * size, high * size
    one = jnp.eye(len(size), dtype=score.dtype)
    fixed = jnp.where(free, jnp.nan, 0.0).astype(score.dtype)  # NaN: still to be solved for
    delta = jnp.zeros_like(score)
    for _ in size:
        held = ~jnp.isnan(fixed)
        known = jnp.where(held, fixed, 0.0)
        system = jnp.where(held[:, None] | held[None, :], one, metric)
        rhs = jnp.where(held, known, slope - metric @ known)
        delta = jnp.linalg.solve(system + 1e-6 * one, rhs)
        fixed = jnp.where(
            held, known, jnp.where((delta < low) | (delta > high), jnp.clip(delta, low, high), jnp.nan)
        )
    return jnp.where(jnp.isnan(fixed), delta, fixed) / size
