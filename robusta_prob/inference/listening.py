"""What the cells of a block say about their law: scores of the noise law, and its influence.

In large data one cell of several is asked, and of every object and every pixel as many: outliers come by
objects, and with only some of these the share of bad cells was a third off; errors come by pixels.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from robusta_prob.inference.noise_step import NoiseSums
from robusta_prob.models.noise import NoiseLaw, law_at, log_kernel_slope, log_normaliser

FAR = 1e12  # z^2 from which a cell says nothing more about the noise law, and its square stays in float32


def nothing_told(pixels: int, stride: int, dtype: np.dtype) -> tuple[NoiseSums, Float[Array, " five"]]:
    """`sums_of` no cells."""
    zeros = partial(jnp.zeros, dtype=dtype)
    return NoiseSums(zeros(3), zeros(2), zeros((4, _padded(pixels, stride)))), zeros(5)


def heard(x: Shaped[Array, "rows pixels"], stride: int) -> Shaped[Array, "groups heard"]:
    """One cell of `stride`: of row i the pixels i, i + stride, ..., so that each is heard in as many rows."""
    if stride == 1:
        return x
    phases = _in_phases(x, stride)
    cells = phases.reshape(-1, stride, *phases.shape[1:])
    return jnp.diagonal(cells, axis1=1, axis2=3).reshape(len(cells), -1)


def heard_product(
    left: Float[Array, "rows inner"], right: Float[Array, "inner pixels"], stride: int
) -> Float[Array, "groups heard"]:
    """`heard` of left @ right, of which the rest is not computed."""
    if stride == 1:
        return left @ right
    phases = left.reshape(-1, stride, left.shape[1])
    return jnp.einsum("gsp,phs->ghs", phases, _in_phases(right, stride)).reshape(len(phases), -1)


def _in_phases(x: Shaped[Array, "rows pixels"], stride: int) -> Shaped[Array, "rows steps stride"]:
    pixels = x.shape[1]
    return jnp.pad(x, ((0, 0), (0, _padded(pixels, stride) - pixels))).reshape(len(x), -1, stride)


def _padded(pixels: int, stride: int) -> int:
    return -(-pixels // stride) * stride


class Heard(NamedTuple):
    """What the noise law is told of cells."""

    residual: Float[Array, "rows pixels"]
    precision: Float[Array, "rows pixels"]  # 1 / (s^2 (sigma^2 + f^2))
    ivar: Float[Array, "rows pixels"]  # 1 / sigma^2
    seen: Bool[Array, "rows pixels"]
    spread: Float[Array, "rows pixels"]  # g.Cov(a).g


def sums_of(
    cells: Heard, of_basis: Float[Array, "rows pixels"], law: NoiseLaw
) -> tuple[NoiseSums, Float[Array, " five"]]:
    """What cells say about the noise law, and about its influence: see `Statistics`.

    From z^2 at the posterior mean, and the variance of z; `of_basis` is a.Cov(g).a.

    By Fisher's identity the score of the marginal likelihood is the expectation of a cell's score under the
    posterior. At the mean of z^2 alone 1/nu would come out 0.7 K/M too small, so half the second derivative
    times the variance of z^2, 4 X (X - XR) - 2 (X - XR)^2, is added. And the posterior is wider than V, which
    takes the precisions for known, by naive over Fisher information, (nu + 3)/(nu + 1).
    """
    R, P, W, seen, spread = cells
    # no cell is fitted more than wholly, and the basis does not take what the coefficients took
    XR, spread, of_basis = P * R**2, P * spread, jnp.minimum(P * of_basis, 1.0)
    spread = spread + of_basis * jnp.maximum(1.0 - spread, 0.0)
    fitted = XR + spread
    at, eta = law_at(fitted, jnp.where(seen, P, 1.0), law), law.inverse_df
    U = W / (1.0 + W * law.floor**2)
    width2 = 1.0 + law.width**2 * P
    reach = at.bad * (fitted - width2) / (fitted + width2)
    XR = jnp.minimum(XR, FAR)
    X = jnp.minimum(XR + spread * (1.0 + 3.0 * eta) / (1.0 + eta), 2.0 * FAR)
    weight = 1.0 / (1.0 + eta * X)
    variance = (X - XR) * (4.0 * X - 2.0 * (X - XR)) * weight**3
    excess = 0.5 * ((1.0 + eta) * X * weight - 1.0) - 0.5 * eta * (1.0 + eta) * variance
    # (1 - leverage at full weight)^2: what was fitted wholly tells nothing, and moves with the law itself
    others = spread / jnp.maximum(1.0 - at.pull * spread, 1e-3)
    counts = jnp.where(seen, 1.0 / (1.0 + others) ** 2, 0.0)
    excess = jnp.where(seen, counts * (at.good * excess + 0.5 * reach / width2), 0.0)
    tail = jax.grad(log_normaliser)(eta) + log_kernel_slope(X, eta)
    tail = at.good * (tail + 0.25 * (1.0 + 2.0 * eta - eta * X) * variance)
    of_width = reach * (1.0 - 1.0 / width2)
    tail, of_width, bad, bad2 = (
        jnp.where(seen, counts * x, 0.0).sum() for x in (tail, of_width, at.bad, at.bad**2)
    )
    of_floor = jnp.stack([counts.sum(0), (counts * U).sum(0), (counts * U**2).sum(0), (excess * U).sum(0)])
    influence = (jnp.ones_like(XR), at.pull, at.pull**2 * fitted, at.slope, at.slope**2)
    return (
        NoiseSums(jnp.stack([excess.sum(), tail, of_width]), jnp.stack([bad, bad2]), of_floor),
        jnp.stack([jnp.where(seen, x, 0.0).sum() for x in influence]),
    )
