"""One damped Fisher-scoring step of the noise law, from a pass's sums.

Parameters are four of all cells, t = (log s^2, 1/nu, log width, eps), and floors f_g^2 of groups g of them:
one of all pixels, or one per pixel. The Fisher information, that of the law as it stands, integrated
numerically, is then an arrow, and solving for t first costs nothing. A cell's score is

    d/d log s^2   = P(good) ((nu + 1) z^2 / (nu + z^2) - 1) / 2 + P(bad) R / (2 w^2) = a,
    d/d f_g^2     = a u,  u = 1 / (sigma^2 + f_g^2),
    d/d (1/nu)    = P(good) d log t(z) / d(1/nu),
    d/d log width = P(bad) R (1 - 1/w^2),
    d/d eps       = P(bad)/eps - P(good)/(1 - eps),      R = (z^2 - w^2) / (z^2 + w^2), w^2 = 1 + (width/S)^2.

In the information, cells enter through the sums of 1, u and u^2 alone: for the width, which does not scale
with the errors, a typical cell stands for all.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from robusta_prob.models.noise import NO_SHARE, NoiseLaw, law_at, log_kernel_slope, log_normaliser, quadrature
from robusta_prob.models.priors import (
    CONTAMINATION_MEAN,
    FLOOR_WIDTH,
    INVERSE_DF_RATE,
    LOG_SCALE_WIDTH,
    LOG_WIDTH_WIDTH,
)

SEPARATE = 1e4  # in units of the typical error
DAMPING = 0.7  # with outliers the likelihood is flatter than its expectation, and full steps oscillate
LEAST_SHARE = 0.05
SLOWER, FASTER = 0.5, 1.1  # factors on the pace after a step that turned back, and after one that went on
SCALE_RANGE = 14.0  # |log s^2| at most: noise a thousand times off its errors is no noise
NO_FLOOR = 1e-8  # f^2 below this share of the typical variance is no floor
SHARE_REST = 0.1  # relative move of eps that counts like a move of 1 of the others
NO_TAIL = 1e-6  # 1/nu below this is the Gaussian limit
LEAST, MOST = 1e-6, 0.5  # of a learned contamination: from none, to where good and bad would change places
# of log(width / typical error): nearer, bad cells would be a tail
NARROWEST, WIDEST = math.log(10.0), math.log(1e8)


class NoiseSums(NamedTuple):
    """What the cells of a pass say about the noise law; sums over cells."""

    score: Float[Array, " three"]  # of log s^2, 1/nu, log width
    bad: Float[Array, ""]  # of P(bad)
    floor: Float[Array, "four pixels"]  # per pixel, of 1, u, u^2 and the floor's score


class Pace(NamedTuple):
    """How much of a Fisher step is taken: where the law is not that of the data, full steps may cycle."""

    share: Float[Array, ""]
    step: Float[Array, " four"]  # the step before of t, in units of its standard deviations


def first_pace(dtype: np.dtype) -> Pace:
    """Before the first step."""
    return Pace(jnp.asarray(DAMPING, dtype), jnp.zeros(4, dtype))


class Arrow(NamedTuple):
    """A step's problem: scores and information of t and of the floors."""

    score: Float[Array, " four"]
    floor_score: Float[Array, " groups"]
    information: Float[Array, "four four"]
    floor_information: Float[Array, " groups"]
    cross: Float[Array, "four groups"]


class Bounds(NamedTuple):
    """Limits of a step; equal where nothing may move."""

    low: Float[Array, " parameters"]
    high: Float[Array, " parameters"]


def noise_step(
    law: NoiseLaw, sums: NoiseSums, free: Bool[Array, " four"], free_floor: Bool[Array, ""], pace: Pace
) -> tuple[NoiseLaw, Float[Array, ""], Pace]:
    """The next noise law, every parameter within its bounds, how far the whole step would go, and the pace.

    `free` says which of t are learned.
    """
    eta, eps = jnp.asarray(law.inverse_df), jnp.asarray(law.contamination)
    tiny = jnp.finfo(eta.dtype).tiny
    shape = jnp.shape(law.floor)
    floor = jnp.atleast_1d(law.floor)
    groups = sums.floor if shape else sums.floor.sum(1, keepdims=True)
    count, first = groups[0].sum(), groups[1].sum()
    # harmonic mean of sigma^2 + f^2; 1 where nothing is learned and the sums were left out
    spread = jnp.where(first > 0, count / jnp.maximum(first, tiny), 1.0)
    spreads = jnp.where(groups[0] > 0, groups[0] / jnp.maximum(groups[1], tiny), spread)
    typical = 1.0 / (law.scale**2 * spread)
    inner = law._replace(contamination=jnp.clip(eps, LEAST, 1.0 - LEAST))
    log_scale2, log_width = 2.0 * jnp.log(law.scale), jnp.log(law.width) + 0.5 * jnp.log(typical)
    zero = jnp.zeros_like(eta)
    bounds = Bounds(
        jnp.stack(
            [
                jnp.maximum(-1.0, -SCALE_RANGE - log_scale2),
                -0.9 * eta,
                jnp.maximum(-1.0, NARROWEST - log_width),
                0.9 * (LEAST - eps),
            ]
        ),
        jnp.stack(
            [
                jnp.minimum(1.0, SCALE_RANGE - log_scale2),
                jnp.minimum(0.25, 2.0 - eta),
                jnp.minimum(1.0, WIDEST - log_width),
                jnp.minimum(0.1, MOST - eps),
            ]
        ),
    )
    floor_bounds = Bounds(-0.95 * floor**2, 3.0 * floor**2 + 0.1 * spreads)
    bounds = Bounds(*(jnp.where(free, x, 0.0) for x in bounds))
    floor_bounds = Bounds(*(jnp.where(free_floor & (groups[0] > 0), x, 0.0) for x in floor_bounds))
    arrow = _arrow(inner, sums, groups, typical)
    delta, floor_delta = _bounded(arrow, bounds, floor_bounds)
    of_share = SHARE_REST / (eps + NO_SHARE)  # a share on its way to nothing is not at rest at 0.001
    moved = jnp.abs(delta * jnp.stack([1.0 + zero, 1.0 + zero, eps, of_share])).max()
    moved = jnp.maximum(moved, jnp.abs(floor_delta / spreads).max())
    step = delta * jnp.sqrt(jnp.maximum(jnp.diagonal(arrow.information), 0.0))
    pace = _next_pace(pace, step)
    delta, floor_delta = pace.share * delta, pace.share * floor_delta
    floor2 = floor**2 + floor_delta
    new_floor = jnp.sqrt(jnp.where(floor2 > NO_FLOOR * spreads, floor2, 0.0))
    new = NoiseLaw(
        inverse_df=jnp.where(eta + delta[1] > NO_TAIL, eta + delta[1], 0.0),
        scale=law.scale * jnp.exp(0.5 * delta[0]),
        floor=new_floor.reshape(shape),
        contamination=eps + delta[3],
        width=law.width * jnp.exp(delta[2]),
    )
    return new, moved, pace


def _next_pace(pace: Pace, step: Float[Array, " four"]) -> Pace:
    """Slower if this step takes back most of the one before without being a longer one of its own."""
    before2 = pace.step @ pace.step
    overshot = (pace.step @ step < -0.5 * before2) & (step @ step < 4.0 * before2)
    share = pace.share * jnp.where(overshot, SLOWER, FASTER)
    return Pace(jnp.clip(share, LEAST_SHARE, DAMPING), step)


def _arrow(law: NoiseLaw, sums: NoiseSums, groups: Float[Array, "four groups"], precision: Array) -> Arrow:
    """Scores of the cells and of the weak priors of `models.priors`, and the information of both."""
    eta, eps, log_width = jnp.asarray(law.inverse_df), jnp.asarray(law.contamination), jnp.log(law.width)
    z, step = (jnp.asarray(x, eta.dtype) for x in quadrature())
    # farther apart good and bad cells do not overlap, and the information no longer depends on the width
    law = law._replace(width=jnp.minimum(law.width, SEPARATE / jnp.sqrt(precision)))
    at = law_at(z**2, precision, law)
    width2 = 1.0 + law.width**2 * precision
    reach = at.bad * (z**2 - width2) / (z**2 + width2)
    excess = 0.5 * at.good * ((1.0 + eta) * z**2 / (1.0 + eta * z**2) - 1.0) + 0.5 * reach / width2
    tail = jax.grad(log_normaliser)(eta) + log_kernel_slope(z**2, eta)
    tail = jnp.where(at.good > 0, at.good * tail, 0.0)  # far out the slope itself overflows
    scores = jnp.stack([excess, tail, reach * (1.0 - 1.0 / width2), at.bad / eps - at.good / (1.0 - eps)])
    mass = step * jnp.exp(at.log_density)
    scores = jnp.where(mass > 0, scores, 0.0)
    one_cell = (scores * mass) @ scores.T
    count, first, second, floor_score = groups
    n, rate = count.sum(), 1.0 / CONTAMINATION_MEAN - 2.0
    prior = jnp.stack(
        [
            -jnp.log(law.scale) / (2.0 * LOG_SCALE_WIDTH**2),
            -INVERSE_DF_RATE + 0.0 * eta,
            -log_width / LOG_WIDTH_WIDTH**2,
            -rate / (1.0 - eps),
        ]
    )
    curvature = jnp.diag(
        jnp.array([0.25 / LOG_SCALE_WIDTH**2, 0.0, 1.0 / LOG_WIDTH_WIDTH**2, 0.0], eta.dtype)
    )
    of_eps = sums.bad / eps - (n - sums.bad) / (1.0 - eps)
    return Arrow(
        jnp.append(sums.score, of_eps) + prior,
        floor_score - 0.5 / FLOOR_WIDTH**2,
        one_cell * n + curvature,
        one_cell[0, 0] * second,
        one_cell[0][:, None] * first,
    )


def _bounded(arrow: Arrow, bounds: Bounds, floor_bounds: Bounds) -> tuple[Array, Array]:
    """Newton step within bounds: what hits a bound stays there, and the rest is solved again."""
    tiny = jnp.finfo(arrow.score.dtype).tiny
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(arrow.information), tiny))
    floor_size = jnp.sqrt(jnp.maximum(arrow.floor_information, tiny))
    score, floor_score = arrow.score / size, arrow.floor_score / floor_size
    metric, cross = arrow.information / size[:, None] / size, arrow.cross / size[:, None] / floor_size
    bounds = Bounds(*(x * size for x in bounds))
    floor_bounds = Bounds(*(x * floor_size for x in floor_bounds))
    one = jnp.eye(len(score), dtype=score.dtype)
    held, delta = bounds.low == bounds.high, jnp.zeros_like(score)
    floor_held, floor_delta = floor_bounds.low == floor_bounds.high, jnp.zeros_like(floor_score)
    for _ in range(len(score) + 1):
        known, floor_known = jnp.where(held, delta, 0.0), jnp.where(floor_held, floor_delta, 0.0)
        # free floors follow t: delta_f = score_f - cross^T delta_t
        open_cross = jnp.where(floor_held, 0.0, cross)
        schur = metric - open_cross @ open_cross.T
        rhs = score - cross @ floor_known - open_cross @ jnp.where(floor_held, 0.0, floor_score)
        system = jnp.where(held[:, None] | held, one, schur) + 1e-6 * one
        delta = jnp.linalg.solve(system, jnp.where(held, known, rhs - schur @ known))
        delta = jnp.where(held, known, delta)
        floor_delta = jnp.where(floor_held, floor_known, floor_score - cross.T @ delta)
        held = held | (delta <= bounds.low) | (delta >= bounds.high)
        floor_held = floor_held | (floor_delta <= floor_bounds.low) | (floor_delta >= floor_bounds.high)
        delta = jnp.clip(delta, *bounds)
        floor_delta = jnp.clip(floor_delta, *floor_bounds)
    return delta / size, floor_delta / floor_size
