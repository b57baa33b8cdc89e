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
with the errors, a typical cell stands for all. How well bad cells can be told, which differs most between
precise and noisy ones, is what the cells' own scores of eps say. One cell's information is integrated by JAX,
in one program for all shapes; the rest are a few small arrays on the host.
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
FIRST_SHARE = (
    0.7  # with outliers the likelihood is flatter than its expectation, and full steps may oscillate
)
LEAST_SHARE = 0.05
LEAST_TOLD = 0.1  # of the information on share and width of bad cells, where hardly any is to be told
SLOWER, FASTER = 0.5, 1.2  # factors on the pace after a step that turned back, and after one that went on
SCALE_RANGE = 14.0  # |log s^2| at most: noise a thousand times off its errors is no noise
NO_FLOOR = 1e-8  # f^2 below this share of the typical variance is no floor
SHARE_REST = 0.1  # relative move of eps that counts like a move of 1 of the others
NO_TAIL = 1e-6  # 1/nu below this is the Gaussian limit
LEAST, MOST = 1e-6, 0.5  # of a learned contamination: from none, to where good and bad would change places
# of log(width / typical error): nearer, bad cells would be a tail
NARROWEST, WIDEST = math.log(10.0), math.log(1e8)
TINY = float(np.finfo(float).tiny)


class NoiseSums(NamedTuple):
    """What the cells of a pass say about the noise law; sums over cells."""

    score: Float[Array | np.ndarray, " three"]  # of log s^2, 1/nu, log width
    bad: Float[Array | np.ndarray, " two"]  # of P(bad) and its square
    floor: Float[Array | np.ndarray, "four pixels"]  # per pixel, of 1, u, u^2 and the floor's score


class Free(NamedTuple):
    """Which parameters of the law are learned."""

    t: Bool[np.ndarray, " four"]
    floor: bool


class Pace(NamedTuple):
    """How much of a Fisher step is taken: where the law is not that of the data, full steps may cycle."""

    share: float
    step: Float[np.ndarray, " four"]  # the step before of t, in units of its standard deviations


FIRST_PACE = Pace(FIRST_SHARE, np.zeros(4))


class Arrow(NamedTuple):
    """A step's problem: scores and information of t and of the floors."""

    score: Float[np.ndarray, " four"]
    floor_score: Float[np.ndarray, " groups"]
    information: Float[np.ndarray, "four four"]
    floor_information: Float[np.ndarray, " groups"]
    cross: Float[np.ndarray, "four groups"]


class Bounds(NamedTuple):
    """Limits of a step; equal where nothing may move."""

    low: Float[np.ndarray, " parameters"]
    high: Float[np.ndarray, " parameters"]


def noise_step(law: NoiseLaw, sums: NoiseSums, free: Free, pace: Pace) -> tuple[NoiseLaw, float, Pace]:
    """The next noise law, every parameter within its bounds, how far the whole step would go, and the pace.

    `law` and `sums` are on the host, in float64.
    """
    eta, scale, width, eps = map(float, (law.inverse_df, law.scale, law.width, law.contamination))
    shape, floor = np.shape(law.floor), np.atleast_1d(law.floor)
    groups = np.asarray(sums.floor if shape else sums.floor.sum(1, keepdims=True))
    seen = groups[0] > 0
    count, first = groups[0].sum(), groups[1].sum()
    spread = count / first if first > 0 else 1.0  # harmonic mean of sigma^2 + f^2
    spreads = np.divide(groups[0], groups[1], out=np.full_like(floor, spread), where=seen)
    typical = 1.0 / (scale**2 * spread)
    inner = law._replace(contamination=min(max(eps, LEAST), 1.0 - LEAST))
    log_scale2, log_width = 2.0 * math.log(scale), math.log(width) + 0.5 * math.log(typical)
    low = [
        max(-1.0, -SCALE_RANGE - log_scale2),
        -0.9 * eta,
        max(-1.0, NARROWEST - log_width),
        0.9 * (LEAST - eps),
    ]
    high = [
        min(1.0, SCALE_RANGE - log_scale2),
        min(0.25, 2.0 - eta),
        min(1.0, WIDEST - log_width),
        min(0.1, MOST - eps),
    ]
    bounds = Bounds(*(np.where(free.t, x, 0.0) for x in (low, high)))
    floor_bounds = Bounds(-0.95 * floor**2, 3.0 * floor**2 + 0.1 * spreads)
    floor_bounds = Bounds(*(np.where(free.floor & seen, x, 0.0) for x in floor_bounds))
    arrow = _arrow(inner, sums, groups, typical)
    delta, floor_delta = _bounded(arrow, bounds, floor_bounds)
    of_share = SHARE_REST / (eps + NO_SHARE)  # a share on its way to nothing is not at rest at 0.001
    moved = max(np.abs(delta * [1.0, 1.0, eps, of_share]).max(), np.abs(floor_delta / spreads).max())
    pace = _next_pace(pace, delta * np.sqrt(np.maximum(np.diagonal(arrow.information), 0.0)))
    delta, floor_delta = pace.share * delta, pace.share * floor_delta
    floor2 = floor**2 + floor_delta
    new_floor = np.sqrt(np.where(floor2 > NO_FLOOR * spreads, floor2, 0.0))
    new = NoiseLaw(
        inverse_df=eta + delta[1] if eta + delta[1] > NO_TAIL else 0.0,
        scale=scale * math.exp(0.5 * delta[0]),
        floor=new_floor.reshape(shape),
        contamination=eps + delta[3],
        width=width * math.exp(delta[2]),
    )
    return new, float(moved), pace


def _next_pace(pace: Pace, step: Float[np.ndarray, " four"]) -> Pace:
    """Slower if this step takes back most of the one before without being a longer one of its own."""
    before2 = pace.step @ pace.step
    overshot = pace.step @ step < -0.5 * before2 and step @ step < 4.0 * before2
    share = pace.share * (SLOWER if overshot else FASTER)
    return Pace(min(max(share, LEAST_SHARE), 1.0), step)


@jax.jit
def _information_of_a_cell(law: NoiseLaw, precision: Float[Array, ""]) -> Float[Array, "four four"]:
    """The Fisher information of one cell about t, by quadrature over z."""
    z, step = map(jnp.asarray, quadrature())
    eta, eps = law.inverse_df, law.contamination
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
    return (scores * mass) @ scores.T


def _arrow(law: NoiseLaw, sums: NoiseSums, groups: Float[np.ndarray, "four groups"], typical: float) -> Arrow:
    """Scores of the cells and of the weak priors of `models.priors`, and the information of both."""
    with jax.enable_x64(True):  # one program for data of either precision
        alone = NoiseLaw(*(np.float64(x) for x in law._replace(scale=1.0, floor=0.0)))
        one_cell = np.asarray(_information_of_a_cell(alone, np.float64(typical)))
    eps, (count, first, second, floor_score) = law.contamination, groups
    n, rate = count.sum(), 1.0 / CONTAMINATION_MEAN - 2.0
    prior = [
        -math.log(law.scale) / (2.0 * LOG_SCALE_WIDTH**2),
        -INVERSE_DF_RATE,
        -math.log(law.width) / LOG_WIDTH_WIDTH**2,
        -rate / (1.0 - eps),
    ]
    curvature = np.diag([0.25 / LOG_SCALE_WIDTH**2, 0.0, 1.0 / LOG_WIDTH_WIDTH**2, 0.0])
    bad, bad2 = sums.bad
    of_eps = bad / eps - (n - bad) / (1.0 - eps)
    # sum of squared scores of eps over its expectation, if all cells were typical
    told = (bad2 / eps**2 - 2.0 * bad / eps + n) / (1.0 - eps) ** 2 / max(one_cell[3, 3] * n, TINY)
    told = np.array([1.0, 1.0, *(2 * [math.sqrt(min(max(told, LEAST_TOLD), 1.0))])])
    one_cell = one_cell * told * told[:, None]
    return Arrow(
        np.append(sums.score, of_eps) + prior,
        floor_score - 0.5 / FLOOR_WIDTH**2,
        one_cell * n + curvature,
        one_cell[0, 0] * second,
        one_cell[0][:, None] * first,
    )


def _bounded(
    arrow: Arrow, bounds: Bounds, floor_bounds: Bounds
) -> tuple[Float[np.ndarray, " four"], Float[np.ndarray, " groups"]]:
    """Newton step within bounds: what hits a bound stays there, and the rest is solved again."""
    size = np.sqrt(np.maximum(np.diagonal(arrow.information), TINY))
    floor_size = np.sqrt(np.maximum(arrow.floor_information, TINY))
    score, floor_score = arrow.score / size, arrow.floor_score / floor_size
    metric, cross = arrow.information / size[:, None] / size, arrow.cross / size[:, None] / floor_size
    bounds = Bounds(*(x * size for x in bounds))
    floor_bounds = Bounds(*(x * floor_size for x in floor_bounds))
    one = np.eye(len(score))
    held, delta = bounds.low == bounds.high, np.zeros_like(score)
    floor_held, floor_delta = floor_bounds.low == floor_bounds.high, np.zeros_like(floor_score)
    for _ in range(len(score) + 1):
        known, floor_known = np.where(held, delta, 0.0), np.where(floor_held, floor_delta, 0.0)
        # free floors follow t: delta_f = score_f - cross^T delta_t
        open_cross = np.where(floor_held, 0.0, cross)
        schur = metric - open_cross @ open_cross.T
        rhs = score - cross @ floor_known - open_cross @ np.where(floor_held, 0.0, floor_score)
        system = np.where(held[:, None] | held, one, schur) + 1e-6 * one
        delta = np.linalg.solve(system, np.where(held, known, rhs - schur @ known))
        delta = np.where(held, known, delta)
        floor_delta = np.where(floor_held, floor_known, floor_score - cross.T @ delta)
        out, floor_out = (
            (x <= limits.low) | (x >= limits.high)
            for x, limits in ((delta, bounds), (floor_delta, floor_bounds))
        )
        delta, floor_delta = np.clip(delta, *bounds), np.clip(floor_delta, *floor_bounds)
        if not ((out & ~held).any() or (floor_out & ~floor_held).any()):
            break
        held, floor_held = held | out, floor_held | floor_out
    return delta / size, floor_delta / floor_size
