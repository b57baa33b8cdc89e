"""Coefficients of a batch at given shared values, for use inside a guide: q(a_i) = Normal(m_i, V_i).

Both ways read the NumPyro program itself. Where its population is Gaussian and its noise law Student-t or
Gaussian, the engine's own pass solves for the coefficients (`closed_form`). Anything else is maximised by
Newton steps on the program's log density, and V is the inverse curvature there (`laplace`; Tierney & Kadane
1986, JASA 81, 82).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import lax
from jaxtyping import Array, Bool, Float
from numpyro.distributions import biject_to, constraints

from robusta_prob.inference.anneal import FULL, Robustness
from robusta_prob.inference.linalg import informed, invert, pair_count
from robusta_prob.inference.problem import NO_CUT
from robusta_prob.inference.quantities import Form, Globals, Local, Population, Settings
from robusta_prob.inference.sweep import sweep_block
from robusta_prob.models.noise import NoiseLaw
from robusta_prob.models.student_t import StudentT

ANNEALED_PASSES, PASSES = 4, 5
NEWTON_STEPS = 15
SHARES = (1.0, 0.5, 0.2, 0.05, 0.0)  # of a Newton step, of which every object takes the best

Trace = Mapping[str, Any]  # of a program: its sites by name
Run = Callable[[Mapping[str, Array]], Trace]  # the program at the shared values and these coefficients
Matrix = Float[Array, "objects pixels"]
Normals = tuple[Float[Array, "objects sizes"], Float[Array, "objects sizes sizes"]]  # mean, and root of V


def posterior(
    run: Run,
    flux: Matrix,
    ivar: Matrix,
    robustness: Robustness,
    names: Sequence[str],
    *,
    linear: bool,
) -> Normals:
    """q of what belongs to the objects: a Gaussian each over the sites `names`, in unconstrained space.

    `linear` says whether the mean of the flux is "coefficients" times "basis", see `is_linear`.
    """
    at_zero = run({})
    priors = {name: at_zero[name]["fn"] for name in names}
    prior, seen = priors["coefficients"], ivar > 0
    population, law = _population(prior), _law(bare(at_zero["flux"]["fn"]))
    if population is None or law is None or not linear:
        mean, root = laplace(run, priors, {}, seen)
    else:
        origin = run({"coefficients": jnp.zeros(prior.shape(), flux.dtype)})
        mean, root = closed_form(origin, population, law, flux, ivar, robustness)
        if len(priors) > 1:  # the other sites at what they were drawn for now
            mean, root = laplace(run, priors, {"coefficients": mean}, seen)
    return lax.stop_gradient((mean, root))  # at the optimum the bound does not change with them


def is_linear(run: Run) -> bool:
    """Whether the program's mean is an offset plus coefficients @ basis, and its noise knows neither.

    Looked at once, at drawn values; a program that cannot be evaluated so counts as one that is not.
    """

    def look() -> Bool[Array, ""] | bool:
        site = run({})
        if "basis" not in site:
            return False
        A, G = site["coefficients"]["value"], site["basis"]["value"]
        cells = bare(site["flux"]["fn"])
        origin = bare(run({"coefficients": jnp.zeros_like(A)})["flux"]["fn"])
        expected, sizes = A @ G, (jnp.shape(cells.loc), jnp.shape(origin.loc))
        if sizes != (expected.shape, expected.shape):
            return False
        slack = 1e-3 * (jnp.abs(expected).max() + 1e-20)
        same = jnp.allclose(cells.loc - origin.loc, expected, rtol=1e-3, atol=slack)
        return same & jnp.allclose(cells.scale, origin.scale, rtol=1e-5)

    try:
        with jax.ensure_compile_time_eval():
            return bool(jax.jit(look)())
    except (AttributeError, TypeError, ValueError, jax.errors.ConcretizationTypeError):
        return False


def sample(priors: Mapping[str, dist.Distribution], q: Normals) -> None:
    """Sample the sites, from one auxiliary site in unconstrained space as NumPyro's autoguides do."""
    law = dist.MultivariateNormal(q[0], scale_tril=q[1]).to_event(1)
    u = numpyro.sample("objects_unconstrained", law, infer={"is_auxiliary": True})
    for name, part in _split(u, priors).items():
        transform = biject_to(priors[name].support)
        value = transform(part)
        volume = transform.log_abs_det_jacobian(part, value)
        numpyro.sample(name, dist.Delta(value, -volume, event_dim=priors[name].event_dim))


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
    known = jnp.zeros((pair_count(rank), basis.shape[1]), dtype)
    shared = Globals(basis, law, population, known)

    def once(turn: Array, now: Local) -> Local:
        """Annealed passes, then passes of the target."""
        here = (jnp.where(turn < ANNEALED_PASSES, *x) for x in zip(FULL, robustness, strict=True))
        settings = Settings(*(jnp.asarray(x, dtype) for x in (*here, 0.0, 0.0, NO_CUT)))
        new, _, _ = sweep_block(Y, W, now, shared, settings, Form(marginal=True), listen=False)
        return new

    objects = len(flux)
    first = Local(
        jnp.broadcast_to(population.mean, (objects, rank)).astype(dtype),
        jnp.zeros((objects, pair_count(rank)), dtype),
        jnp.zeros(objects, dtype),
        *2 * (jnp.ones(objects, dtype),),
    )
    last = lax.fori_loop(0, ANNEALED_PASSES + PASSES, once, first)
    # the E-step's precision takes its weights for known; the Fisher information does not
    fisher = (1.0 + law.inverse_df) / (1.0 + 3.0 * law.inverse_df)
    return last.coefficients, _root(informed(last.covariance, population.precision, fisher, jnp))


def laplace(
    run: Run,
    priors: Mapping[str, dist.Distribution],
    start: Mapping[str, Array],
    seen: Bool[Array, "objects pixels"],
) -> Normals:
    """Mode and curvature of the log density in the unconstrained space of the objects' sites.

    Objects are independent given what they share: the Hessian has one block per object, and as many
    Hessian-vector products as it has rows show all of them. Negative curvature counts by its size, so that
    steps climb. `start` has unconstrained values to begin with; 0 where it has none.
    """
    transforms = {name: biject_to(prior.support) for name, prior in priors.items()}
    parts = [start.get(name, jnp.zeros(prior.shape())) for name, prior in priors.items()]
    first = jnp.concatenate([x.reshape(len(x), -1) for x in parts], 1)
    objects, size = first.shape

    def log_joint(u: Float[Array, "objects sizes"]) -> Float[Array, " objects"]:
        free = _split(u, priors)
        values = {name: transforms[name](x) for name, x in free.items()}
        site = run(values)
        cells, observed = site["flux"]["fn"], seen & mask_of(site["flux"]["fn"])
        terms = [jnp.where(observed, bare(cells).log_prob(site["flux"]["value"]), 0.0)]
        terms += [bare(site[name]["fn"]).log_prob(values[name]) for name in priors]
        terms += [transforms[name].log_abs_det_jacobian(free[name], values[name]) for name in priors]
        return sum((_per_object(term, objects) for term in terms), jnp.zeros(objects, u.dtype))

    slope = jax.grad(lambda u: log_joint(u).sum())

    def curvature(u: Float[Array, "objects sizes"]) -> tuple[Array, Array]:
        units = jnp.broadcast_to(jnp.eye(size, dtype=u.dtype)[:, None], (size, objects, size))
        rows = jax.vmap(lambda v: jax.jvp(slope, (u,), (v,))[1])(units)
        values, vectors = jnp.linalg.eigh(-0.5 * (rows.transpose(1, 0, 2) + rows.transpose(1, 2, 0)))
        length = jnp.abs(values)
        return jnp.maximum(length, 1e-6 * length.max(1, keepdims=True) + 1e-20), vectors

    def climb(_: int, u: Float[Array, "objects sizes"]) -> Float[Array, "objects sizes"]:
        values, vectors = curvature(u)
        along = jnp.einsum("nij,ni->nj", vectors, slope(u)) / values
        step = jnp.einsum("nij,nj->ni", vectors, along)
        length, far = (jnp.linalg.norm(x, axis=1, keepdims=True) for x in (step, u))
        step = step * jnp.minimum(1.0, (1.0 + far) / jnp.maximum(length, 1e-20))
        step = jnp.where(jnp.isfinite(step).all(1, keepdims=True), step, 0.0)
        shares = jnp.asarray(SHARES, u.dtype)
        heights = lax.map(lambda share: log_joint(u + share * step), shares)
        best = jnp.argmax(jnp.where(jnp.isfinite(heights), heights, -jnp.inf), axis=0)
        return u + shares[best][:, None] * step

    u = lax.fori_loop(0, NEWTON_STEPS, climb, first)
    values, vectors = curvature(u)
    return u, _root(jnp.einsum("nik,nk,njk->nij", vectors, 1.0 / values, vectors))


def _per_object(term: Array, objects: int) -> Float[Array, " objects"]:
    """Sum over all but the first axis; a term without it, of a prior that knows no objects, is shared."""
    return term.reshape(objects, -1).sum(1) if term.ndim else term / objects


def _split(u: Float[Array, "objects sizes"], priors: Mapping[str, dist.Distribution]) -> dict[str, Array]:
    """The columns of every site, in its shape."""
    parts, start = {}, 0
    for name, prior in priors.items():
        shape = prior.shape()
        width = math.prod(shape[1:])
        parts[name] = u[:, start : start + width].reshape(shape)
        start += width
    return parts


def _root(V: Float[Array, "objects rank rank"]) -> Float[Array, "objects rank rank"]:
    """Cholesky factor through the correlations, lifted by roundings."""
    size = jnp.sqrt(jnp.diagonal(V, axis1=1, axis2=2))
    lift = 100.0 * jnp.finfo(V.dtype).eps * jnp.eye(V.shape[1], dtype=V.dtype)
    return size[:, :, None] * jnp.linalg.cholesky(V / size[:, :, None] / size[:, None] + lift)


def mask_of(fn: Any) -> Any:
    """Cells that count, by the masks that a distribution is wrapped in."""
    mask: Any = True
    while isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution | dist.Independent):
        mask = mask & getattr(fn, "_mask", True)
        fn = fn.base_dist
    return mask


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
