"""The fused sweep: everything one pass over a block of objects has to do, while the block is in cache.

Per block: residual, weights, every object's K x K Gram in one matrix product, the coefficients'
increment, the sufficient statistics of the basis' increment, of the noise law and of the population.
The statistics are sums over objects, so one function serves full batches, minibatches and streams.

With q(a_i) = Normal(m_i, V_i) and the Student-t law as a scale mixture, the bound that a pass raises is

    F = sum_ij log t((y_ij - m_i.g_j)^2 + g_j.V_i.g_j) - sum_i KL(q(a_i) || Normal(mu, C)),

the evidence lower bound of `models.rhmf_mixture` with its precisions at their optimum. With
`Form.marginal` false, V = 0 and F is the joint log density of `models.rhmf` instead (up to a constant).

Notation of the kernels, after the paper: Y flux, W ivar (B, M); A coefficients (B, K); G basis (K, M).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from robusta_prob.inference.linalg import congruence, pack, pair_count, pairs, solve, unpack
from robusta_prob.inference.listening import (
    Heard,
    heard,
    heard_product,
    nothing_told,
    sums_of,
)
from robusta_prob.inference.noise_step import NoiseSums
from robusta_prob.inference.quantities import (
    Form,
    Globals,
    Local,
    PerObject,
    Population,
    Settings,
    Statistics,
)
from robusta_prob.models.noise import Law, effective_ivar, law_at

_HALF_POINT = 0.37455  # c with E[z^2 / (z^2 + c)] = 1/2 for a standard normal z
BLOCK = 128  # objects per inner step: a block of float32 spectra stays in the second-level cache

Swept = tuple[Local, Statistics, PerObject]


class Round(NamedTuple):
    """How a batch is gone through; traced, so that none of it compiles anything."""

    rows: Int[Array, ""] | int  # real objects, the first ones: a short batch costs no more than these
    times: Int[Array, ""] | int = 1  # as often for each object, of which the last counts


def nothing_seen(
    rank: int, pixels: int, rows: int, dtype: np.dtype, form: Form
) -> tuple[Statistics, PerObject]:
    """Before the first object: zeros of the right shapes."""
    p, zeros = pair_count(rank), partial(jnp.zeros, dtype=dtype)
    statistics = Statistics(
        zeros((p, pixels)),
        zeros((p, pixels)),
        zeros((rank, pixels)),
        *nothing_told(pixels, form.stride, dtype),
        zeros(()),
        zeros(rank),
        zeros((rank, rank)),
    )
    return statistics, PerObject(*(zeros(rows) for _ in PerObject._fields))


def sweep_block(
    Y: Float[Array, "block pixels"],
    W: Float[Array, "block pixels"],
    local: Local,
    shared: Globals,
    settings: Settings,
    form: Form,
    listen: Bool[Array, ""] | bool = True,
) -> Swept:
    """One pass over one block: new local values, the statistics, and the bound before the update.

    Where it is to `listen`, so are sums over cells, one of `Form.stride`, of what they say about their law.
    """
    A, V, log_det, scale2, _ = local
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

    # where variances differ by more than roundings, the smallest may be lost
    spread = known * jnp.maximum((V * twice) @ GG, 0.0) if form.marginal else jnp.zeros_like(R)

    def told() -> tuple[NoiseSums, Array]:
        outer, expected = A[:, first] * A[:, second] * twice, 1.0 - settings.bare
        of_basis = known * expected * jnp.maximum(heard_product(outer, basis_covariance, form.stride), 0.0)
        if form.stride == 1:
            return sums_of(Heard(R, P, W, seen, expected * spread), of_basis, law)
        # anew for these: to keep all of them for a few costs more
        r, w = heard(Y, form.stride) - heard_product(A, G, form.stride), heard(W, form.stride)
        p, v = effective_ivar(w, law), jnp.zeros_like(r)
        if form.marginal:
            v = known * expected * jnp.maximum(heard_product(V * twice, GG, form.stride), 0.0)
        return sums_of(Heard(r, p, w, p > 0, v), of_basis, law)

    # of the target model, whatever the annealing
    noise, influence = lax.cond(listen, told, lambda: nothing_told(Y.shape[1], form.stride, Y.dtype))
    P = P / jnp.maximum(scale2, 1.0)[:, None] ** settings.object_scale
    law = law._replace(inverse_df=jnp.maximum(law.inverse_df, settings.tail))
    X = P * (R**2 + spread)  # z^2, or its posterior mean
    at = law_at(X, jnp.where(seen, P, 1.0), law)
    w = P * at.pull  # the E-step's precision: without contamination (nu+1)/(nu+z^2) / (s^2 (sigma^2+f^2))

    H = unpack((w @ GG.T).T, rank) + population.precision[:, :, None]
    offset = A - population.mean
    h = (w * R) @ G.T - offset @ population.precision
    bound = _log_likelihood(at, P, seen) + _log_prior(offset, population)
    if form.marginal:  # -KL(q || population) is the log prior density plus the entropy and the spread of q
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
        gram_cov=V_new.T @ w if form.marginal else jnp.zeros_like(GG),
        rhs=A_new.T @ wR,
        noise=noise,
        influence=influence,
        moment0=omega.sum(),
        moment1=omega @ offset,
        moment2=unpack(
            omega @ (offset[:, first] * offset[:, second] + (V_new if form.marginal else 0.0)), rank
        ),
    )
    gain = 0.5 * (h * step.T).sum(1)  # of the quadratic that touches F from below
    return Local(A_new, V_new, -log_det_H, scale2, quality), statistics, PerObject(bound, gain)


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

    def nearer(_: int, scale2: Array) -> Array:
        share = (X / (X + _HALF_POINT * scale2[:, None])).sum(1) / jnp.maximum(count, 1.0)
        step = jnp.clip(share / jnp.maximum(1.0 - share, 1e-6), 1e-2, None)
        return jnp.where(count > 0, jnp.clip(scale2 * step, 1e-6, 1e30), 1.0)

    found: Array = lax.fori_loop(0, 4, nearer, scale2)
    return found


@jax.jit
def turned_by(local: Local, T: Float[Array, "rank rank"]) -> Local:
    """The same posteriors in another gauge: T m, and T V T^T."""
    return local._replace(
        coefficients=local.coefficients @ T.T,
        covariance=local.covariance @ congruence(T).T,
        log_det=local.log_det + 2.0 * jnp.linalg.slogdet(T)[1],
    )


@partial(jax.jit, static_argnames=("form",))
def sweep(
    Y: Float[Array, "rows pixels"],
    W: Float[Array, "rows pixels"],
    local: Local,
    how: Round,
    turn: Float[Array, "rank rank"],
    shared: Globals,
    settings: Settings,
    *,
    form: Form,
) -> Swept:
    """`sweep_block` over a larger batch, whose length is a multiple of `BLOCK`, as `how` says.

    `turn` takes the coefficients from the gauge in which they are into that of the basis.
    """
    total, pixels = Y.shape
    local = turned_by(local, turn)
    if not form.contaminated:
        shared = shared._replace(loss=shared.loss._replace(contamination=0.0))

    def body(b: Array, carry: Swept) -> Swept:
        old, sums, seen = carry
        start = b * BLOCK

        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, start, BLOCK)

        def paste(x: Array, part: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(x, part, start, 0)

        y, w = cut(Y), cut(W)

        def once(time: Array, now: tuple[Local, Statistics, PerObject]) -> Swept:
            listen = (settings.listen > 0) & (time == how.times - 1)
            return sweep_block(y, w, now[0], shared, settings, form, listen)

        nothing = nothing_seen(len(shared.basis), pixels, BLOCK, Y.dtype, form)
        new, part, objects = lax.fori_loop(0, how.times, once, (jax.tree.map(cut, old), *nothing))
        return (
            jax.tree.map(paste, old, new),
            jax.tree.map(jnp.add, sums, part),
            jax.tree.map(paste, seen, objects),
        )

    nothing = nothing_seen(len(shared.basis), pixels, total, Y.dtype, form)
    return lax.fori_loop(0, (how.rows + BLOCK - 1) // BLOCK, body, (local, *nothing))
