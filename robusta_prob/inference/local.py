"""Coefficients of a batch at given shared values, for use inside a guide: q(a_i) = Normal(m_i, V_i).

Both ways read the NumPyro program itself. Where its population is Gaussian and its noise law Student-t or
Gaussian, the engine's own pass solves for the coefficients (`closed_form`). Anything else is maximised by
Newton steps on the program's log density, and V is the inverse curvature there (`laplace`; Tierney & Kadane
1986, JASA 81, 82).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Float
from numpyro.distributions import biject_to, constraints

from robusta_prob.inference.anneal import FULL, Robustness
from robusta_prob.inference.linalg import invert, pair_count, unpack
from robusta_prob.inference.sweep import Globals, Local, Population, Settings, sweep_block
from robusta_prob.models.noise import NoiseLaw
from robusta_prob.models.student_t import StudentT

ANNEALED_PASSES, PASSES = 4, 5
NEWTON_STEPS = 15
NO_CUT = 1e30

Trace = Mapping[str, Any]  # of a program: its sites by name
Run = Callable[[Mapping[str, Array]], Trace]  # the program at the shared values and these coefficients
Matrix = Float[Array, "objects pixels"]
Normals = tuple[Float[Array, "objects rank"], Float[Array, "objects rank rank"]]  # mean, and root of V


def posterior(run: Run, flux: Matrix, ivar: Matrix, robustness: Robustness) -> dist.Distribution:
    """q of the site "coefficients", in its own space."""
    at_zero = run({})
    prior = at_zero["coefficients"]["fn"]
    population, law = _population(prior), _law(bare(at_zero["flux"]["fn"]))
    if population is None or law is None or "basis" not in at_zero:
        mean, root = laplace(run, prior)
    else:
        origin = run({"coefficients": jnp.zeros(prior.shape(), flux.dtype)})
        mean, root = closed_form(origin, population, law, flux, ivar, robustness)
    mean, root = lax.stop_gradient((mean, root))  # at the optimum the bound does not change with them
    q = dist.MultivariateNormal(mean, scale_tril=root).to_event(prior.event_dim - 1)
    return dist.TransformedDistribution(q, biject_to(prior.support)) if population is None else q


def closed_form(
    origin: Trace, population: Population, law: NoiseLaw, flux: Matrix, ivar: Matrix, robustness: Robustness
) -> Normals:
    """By passes of the engine over one block; `origin` is the program's trace at coefficients zero."""
    cells, basis = bare(origin["flux"]["fn"]), origin["basis"]["value"]
    seen = ivar > 0
    Y = jnp.where(seen, flux - cells.loc, 0.0)
    W = jnp.where(seen, 1.0 / jnp.broadcast_to(cells.scale, flux.shape) ** 2, 0.0)
    Y, W, basis, population, law = lax.stop_gradient((Y, W, basis, population, law))
    rank, dtype = len(basis), flux.dtype
    shared = Globals(basis, law, population, jnp.eye(rank, dtype=dtype))

    # the E-step's precision takes its weights for known; the Fisher information does not
    fisher = (1.0 + law.inverse_df) / (1.0 + 3.0 * law.inverse_df)

    def once(turn: Array, now: Local) -> Local:
        """Annealed passes, passes of the target, and a last one for V."""
        here = (jnp.where(turn < ANNEALED_PASSES, *x) for x in zip(FULL, robustness, strict=True))
        information = jnp.where(turn == ANNEALED_PASSES + PASSES, fisher, 1.0)
        settings = Settings(*(jnp.asarray(x, dtype) for x in (*here, 0.0, NO_CUT, information)))
        new, _, _ = sweep_block(Y, W, now, shared, settings, marginal=True)
        return new

    objects = len(flux)
    first = Local(
        jnp.broadcast_to(population.mean, (objects, rank)).astype(dtype),
        jnp.zeros((objects, pair_count(rank)), dtype),
        jnp.zeros(objects, dtype),
        jnp.ones(objects, dtype),
    )
    last = lax.fori_loop(0, ANNEALED_PASSES + PASSES + 1, once, first)
    return last.coefficients, _root(jnp.moveaxis(unpack(last.covariance.T, rank), -1, 0))


def laplace(run: Run, prior: dist.Distribution) -> Normals:
    """Mode and curvature of the log density in the unconstrained space of the coefficients.

    Objects are independent given what they share: the Hessian has one K x K block per object, and K
    Hessian-vector products show all of them. Negative curvature counts by its size, so that steps climb.
    """
    transform = biject_to(prior.support)
    objects, rank = prior.shape()

    def log_joint(u: Float[Array, "objects rank"]) -> Float[Array, ""]:
        site = run({"coefficients": transform(u)})
        terms = (site[name]["fn"].log_prob(site[name]["value"]).sum() for name in ("coefficients", "flux"))
        return sum(terms) + transform.log_abs_det_jacobian(u, transform(u)).sum()

    slope = jax.grad(log_joint)

    def curvature(u: Float[Array, "objects rank"]) -> tuple[Array, Array]:
        units = jnp.broadcast_to(jnp.eye(rank, dtype=u.dtype)[:, None], (rank, objects, rank))
        rows = jax.vmap(lambda v: jax.jvp(slope, (u,), (v,))[1])(units)
        values, vectors = jnp.linalg.eigh(-0.5 * (rows.transpose(1, 0, 2) + rows.transpose(1, 2, 0)))
        size = jnp.abs(values)
        return jnp.maximum(size, 1e-6 * size.max(1, keepdims=True) + 1e-20), vectors

    def climb(_: int, u: Float[Array, "objects rank"]) -> Float[Array, "objects rank"]:
        values, vectors = curvature(u)
        along = jnp.einsum("nij,ni->nj", vectors, slope(u)) / values
        step = jnp.einsum("nij,nj->ni", vectors, along)
        length, far = (jnp.linalg.norm(x, axis=1, keepdims=True) for x in (step, u))
        return u + step * jnp.minimum(1.0, (1.0 + far) / jnp.maximum(length, 1e-20))

    u = lax.fori_loop(0, NEWTON_STEPS, climb, jnp.zeros((objects, rank)))
    values, vectors = curvature(u)
    return u, _root(jnp.einsum("nik,nk,njk->nij", vectors, 1.0 / values, vectors))


def _root(V: Float[Array, "objects rank rank"]) -> Float[Array, "objects rank rank"]:
    """Cholesky factor through the correlations, lifted by roundings."""
    size = jnp.sqrt(jnp.diagonal(V, axis1=1, axis2=2))
    lift = 100.0 * jnp.finfo(V.dtype).eps * jnp.eye(V.shape[1], dtype=V.dtype)
    return size[:, :, None] * jnp.linalg.cholesky(V / size[:, :, None] / size[:, None] + lift)


def bare(fn: Any) -> Any:
    """A distribution without its masks, expansions and reinterpretations."""
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution | dist.Independent):
        fn = fn.base_dist
    return fn


def _population(prior: dist.Distribution) -> Population | None:
    """The prior of the coefficients, if it is one Gaussian for all objects, or flat."""
    inner, rank = bare(prior), prior.shape()[-1]
    none = jnp.zeros(())
    if isinstance(inner, dist.ImproperUniform) and is_real(inner.support):
        return Population(jnp.zeros(rank), jnp.zeros((rank, rank)), none)
    if isinstance(inner, dist.MultivariateNormal) and inner.loc.shape == (rank,):
        precision, _ = invert(inner.covariance_matrix[:, :, None])
        return Population(inner.loc, precision[:, :, 0], none)
    if isinstance(inner, dist.Normal) and inner.batch_shape in ((), (rank,)):
        mean, scale = (jnp.broadcast_to(x, (rank,)) for x in (inner.loc, inner.scale))
        return Population(mean, jnp.diag(scale**-2.0), none)
    return None


def _law(cells: Any) -> NoiseLaw | None:
    """The law of z, if it is the same in all cells and one that the engine knows."""
    if isinstance(cells, dist.Normal):
        return NoiseLaw(jnp.zeros(()), 1.0, 0.0)
    if isinstance(cells, StudentT):
        parts = [jnp.asarray(x) for x in (cells.inverse_df, cells.contamination, cells.width)]
        if all(x.size == 1 for x in parts):
            inverse_df, contamination, width = (x.reshape(()) for x in parts)
            return NoiseLaw(inverse_df, 1.0, 0.0, contamination, width)
    return None


def is_real(support: Any) -> bool:
    """Whether a support is the whole space."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.real or support is constraints.real_vector
