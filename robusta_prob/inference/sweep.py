"""The fused sweep: everything one pass over a block of objects has to do, while the block is in cache.

Per block: residual, weights, every object's K x K Gram in one matrix product, the coefficients'
increment, the sufficient statistics of the basis' increment, of the noise law and of the population.
The statistics are sums over objects, so one function serves full batches, minibatches and streams.

With q(a_i) = Normal(m_i, V_i) and the Student-t law as a scale mixture, the bound that a pass raises is

    F = sum_ij log t((y_ij - m_i.g_j)^2 + g_j.V_i.g_j) - sum_i KL(q(a_i) || Normal(mu, C)),

the evidence lower bound of `models.rhmf_mixture` with its precisions at their optimum. With
`marginal=False`, V = 0 and F is the joint log density of `models.rhmf` instead (up to a constant).

Notation of the kernels, after the paper: Y flux, W ivar (B, M); A coefficients (B, K); G basis (K, M).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from robusta_prob.inference.linalg import congruence, pack, pair_count, pairs, solve, unpack
from robusta_prob.inference.noise_step import NoiseSums
from robusta_prob.inference.quantities import Globals, Local, PerObject, Population, Settings, Statistics
from robusta_prob.models.noise import Law, NoiseLaw, effective_ivar, law_at, log_kernel_slope, log_normaliser

_HALF_POINT = 0.37455  # c with E[z^2 / (z^2 + c)] = 1/2 for a standard normal z
FAR = 1e12  # z^2 from which a cell says nothing more about the noise law, and its square stays in float32
BLOCK = 128  # objects per inner step: a block of float32 spectra stays in the second-level cache


def _no_sums(pixels: int, dtype: np.dtype) -> NoiseSums:
    return NoiseSums(jnp.zeros(3, dtype), jnp.zeros((), dtype), jnp.zeros((4, pixels), dtype))


def empty_statistics(rank: int, pixels: int, dtype: np.dtype) -> Statistics:
    """Zeros of the right shapes."""
    p, zeros = pair_count(rank), partial(jnp.zeros, dtype=dtype)
    return Statistics(
        zeros((p, pixels)),
        zeros((p, pixels)),
        zeros((rank, pixels)),
        _no_sums(pixels, dtype),
        zeros(5),
        zeros(()),
        zeros(rank),
        zeros((rank, rank)),
    )


def sweep_block(
    Y: Float[Array, "block pixels"],
    W: Float[Array, "block pixels"],
    local: Local,
    shared: Globals,
    settings: Settings,
    *,
    marginal: bool,
    listen: Bool[Array, ""] | bool = True,
) -> tuple[Local, Statistics, PerObject]:
    """One pass over one block: new local values, the statistics, and the bound before the update.

    The sums of the noise law, half of the work where there are any, are left out where it is not to `listen`.
    """
    A, V, log_det, scale2 = local
    G, law, population, basis_covariance = shared
    rank = len(G)
    first, second = pairs(rank)
    GG = G[first] * G[second]
    twice = jnp.asarray(np.where(first == second, 1.0, 2.0), G.dtype)  # off-diagonal pairs count twice

    R = _residual(Y, A, G)
    P = effective_ivar(W, law)
    seen = P > 0
    count = seen.sum(1).astype(G.dtype)
    X = P * R**2
    scale2 = lax.cond(
        settings.object_scale > 0, lambda: object_scale2(X, count, scale2), lambda: jnp.ones_like(scale2)
    )
    # an annealed Cov(a) lags behind: with it, every cell of precise objects would look bad to the end
    known = 1.0 - settings.object_scale

    def spread_by(covariance: Array, basis: Array) -> Array:
        """g.V.g per cell; where variances differ by more than roundings, the smallest may be lost."""
        found = lax.cond(known > 0, lambda: (covariance * twice) @ basis, lambda: jnp.zeros_like(R))
        return known * jnp.maximum(found, 0.0)

    spread = spread_by(V, GG) if marginal else jnp.zeros_like(R)

    def noise_sums() -> NoiseSums:
        # no cell is fitted more than wholly, and the basis does not take what the coefficients took
        of_basis = jnp.minimum(P * spread_by(A[:, first] * A[:, second], basis_covariance), 1.0)
        taken = P * spread + of_basis * jnp.maximum(1.0 - P * spread, 0.0)
        return _noise_sums(P * R**2, taken, P, W, seen, law)

    # the noise law is that of the target model, whatever the annealing
    noise = lax.cond(listen, noise_sums, lambda: _no_sums(Y.shape[1], Y.dtype))
    P = P / jnp.maximum(scale2, 1.0)[:, None] ** settings.object_scale
    law = law._replace(inverse_df=jnp.maximum(law.inverse_df, settings.tail))
    X = P * (R**2 + spread)  # z^2, or its posterior mean
    at = law_at(X, jnp.where(seen, P, 1.0), law)
    influence = _influence(at, X, seen)
    w = P * at.pull  # the E-step's precision: without contamination (nu+1)/(nu+z^2) / (s^2 (sigma^2+f^2))

    H = settings.information * unpack((w @ GG.T).T, rank) + population.precision[:, :, None]
    offset = A - population.mean
    h = (w * R) @ G.T - offset @ population.precision
    bound = _log_likelihood(at, P, seen) + _log_prior(offset, population)
    if marginal:  # -KL(q || population) is the log prior density plus the entropy and the spread of q
        spread = (V * twice) @ pack(population.precision)
        bound = bound + 0.5 * (log_det + rank - spread)

    step, inverse, log_det_H = solve(H, h.T)
    A_new, V_new = A + step.T, pack(inverse).T
    wR = w * _residual(R, step.T, G)

    quality = jnp.where(seen, at.pull, 0.0).sum(1) / ((1.0 + law.inverse_df) * jnp.maximum(count, 1.0))
    offset = A_new - population.mean
    determined = (population.precision[0, 0] > 0) | (count > rank)  # without a prior, K cells fit anything
    omega = jnp.where(determined, _object_weight(offset, quality, population, settings.object_cut), 0.0)
    outer = A_new[:, first] * A_new[:, second]
    statistics = Statistics(
        gram=outer.T @ w,
        gram_cov=V_new.T @ w if marginal else jnp.zeros_like(GG),
        rhs=A_new.T @ wR,
        noise=noise,
        influence=influence,
        moment0=omega.sum(),
        moment1=omega @ offset,
        moment2=unpack(omega @ (offset[:, first] * offset[:, second] + (V_new if marginal else 0.0)), rank),
    )
    gain = 0.5 * (h * step.T).sum(1)  # of the quadratic that touches F from below
    return Local(A_new, V_new, -log_det_H, scale2), statistics, PerObject(bound, gain, quality)


def _residual(Y: Array, A: Array, G: Array) -> Array:
    """Y - A G as an unrolled sum, which fuses with what follows; a matrix product does not."""
    for k in range(len(G)):
        Y = Y - A[:, k, None] * G[k]
    return Y


def _log_likelihood(at: Law, P: Array, seen: Array) -> Float[Array, " block"]:
    return jnp.where(seen, 0.5 * jnp.log(jnp.where(seen, P, 1.0)) + at.log_density, 0.0).sum(1)


def _log_prior(offset: Array, population: Population) -> Float[Array, " block"]:
    """log Normal(m | population) without its 2 pi; 0 for the flat prior."""
    return 0.5 * population.log_det - 0.5 * ((offset @ population.precision) * offset).sum(1)


def _object_weight(
    offset: Array, quality: Array, population: Population, cut: Array | float
) -> Float[Array, " block"]:
    """An object's vote on the population: its mean robust weight, less if its coefficients are far out."""
    distance2 = ((offset @ population.precision) * offset).sum(1)
    return quality * cut / jnp.maximum(distance2, cut)


def object_scale2(X: Array, count: Array, scale2: Array) -> Float[Array, " block"]:
    """Squared M-scale of an object's z: mean z^2/(z^2 + c s^2) = 1/2, which half of its pixels cannot break.

    Four fixed-point steps from the previous value, each of any size, since spectra may be off by 10^4 sigma
    at first; c makes it 1 for a standard normal.
    """
    for _ in range(4):
        share = (X / (X + _HALF_POINT * scale2[:, None])).sum(1) / jnp.maximum(count, 1.0)
        step = jnp.clip(share / jnp.maximum(1.0 - share, 1e-6), 1e-2, None)
        scale2 = jnp.where(count > 0, jnp.clip(scale2 * step, 1e-6, 1e30), 1.0)
    return scale2


def _noise_sums(XR: Array, spread: Array, P: Array, W: Array, seen: Array, law: NoiseLaw) -> NoiseSums:
    """What the cells say about the noise law, from z^2 at the posterior mean, and the variance of z.

    By Fisher's identity the score of the marginal likelihood is the expectation of a cell's score under the
    posterior. At the mean of z^2 alone 1/nu would come out 0.7 K/M too small, so half the second derivative
    times the variance of z^2, 4 X (X - XR) - 2 (X - XR)^2, is added. And the posterior is wider than V, which
    takes the precisions for known, by naive over Fisher information, (nu + 3)/(nu + 1).
    """
    at = law_at(XR + spread, jnp.where(seen, P, 1.0), law)
    eta = law.inverse_df
    U = W / (1.0 + W * law.floor**2)
    width2 = 1.0 + law.width**2 * P
    reach = at.bad * (XR + spread - width2) / (XR + spread + width2)
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
    tail, of_width, bad = (jnp.where(seen, counts * x, 0.0).sum() for x in (tail, of_width, at.bad))
    of_floor = jnp.stack([counts.sum(0), (counts * U).sum(0), (counts * U**2).sum(0), (excess * U).sum(0)])
    return NoiseSums(jnp.stack([excess.sum(), tail, of_width]), bad, of_floor)


def _influence(at: Law, X: Array, seen: Array) -> Float[Array, " five"]:
    """Sums of 1, weight, squared score, slope and its square, of the loss in units of a cell's precision."""
    parts = (jnp.ones_like(X), at.pull, at.pull**2 * X, at.slope, at.slope**2)
    return jnp.stack([jnp.where(seen, x, 0.0).sum() for x in parts])


@jax.jit
def turned_by(local: Local, T: Float[Array, "rank rank"]) -> Local:
    """The same posteriors in another gauge: T m, and T V T^T."""
    return local._replace(
        coefficients=local.coefficients @ T.T,
        covariance=local.covariance @ congruence(T).T,
        log_det=local.log_det + 2.0 * jnp.linalg.slogdet(T)[1],
    )


@partial(jax.jit, static_argnames=("marginal",))
def sweep(
    Y: Float[Array, "rows pixels"],
    W: Float[Array, "rows pixels"],
    local: Local,
    rows: Int[Array, ""],
    turn: Float[Array, "rank rank"],
    shared: Globals,
    settings: Settings,
    *,
    marginal: bool,
) -> tuple[Local, Statistics, PerObject]:
    """`sweep_block` over the first `rows` of a larger batch, whose length is a multiple of `BLOCK`.

    `turn` takes the coefficients from the gauge in which they are into that of the basis. The number of rows
    is traced: a short batch costs no more than its rows, and compiles nothing.
    """
    total, pixels = Y.shape
    local = turned_by(local, turn)

    def body(b: Array, carry: tuple[Local, Statistics, PerObject]) -> tuple[Local, Statistics, PerObject]:
        old, sums, seen = carry
        start = b * BLOCK

        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, start, BLOCK)

        def paste(x: Array, part: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(x, part, start, 0)

        listen = (settings.listen > 0) & (b % jnp.maximum(settings.listen, 1.0) == 0)
        new, part, objects = sweep_block(
            cut(Y), cut(W), jax.tree.map(cut, old), shared, settings, marginal=marginal, listen=listen
        )
        return (
            jax.tree.map(paste, old, new),
            jax.tree.map(jnp.add, sums, part),
            jax.tree.map(paste, seen, objects),
        )

    start = (
        local,
        empty_statistics(len(shared.basis), pixels, Y.dtype),
        PerObject(*(jnp.zeros(total, Y.dtype) for _ in PerObject._fields)),
    )
    return lax.fori_loop(0, (rows + BLOCK - 1) // BLOCK, body, start)
