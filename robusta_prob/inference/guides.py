"""Guides for programs of this shape: shared sites by one of NumPyro's autoguides, coefficients solved for.

Cost per step depends on the minibatch alone: no parameter belongs to an object, so that nothing is stale
and nothing scales with the survey.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.handlers import block, reparam, scale, seed, substitute, trace
from numpyro.infer.autoguide import (
    AutoDelta,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoNormal,
)
from numpyro.infer.initialization import init_to_value
from numpyro.infer.reparam import Reparam
from numpyro.primitives import Messenger

from robusta_prob.inference import local
from robusta_prob.inference.anneal import TARGET, Robustness
from robusta_prob.inference.sweep import object_scale2
from robusta_prob.models.student_t import StudentT

Program = Callable[..., Any]
FIRST_SCALE = 0.3  # of Gaussian guides; the basis is whitened, so in units of its posterior deviation
LAW = ("nu", "scale", "floor", "contamination", "width")  # sites of the noise law

SHARED = {"map": AutoDelta, "normal": AutoNormal, "low_rank": AutoLowRankMultivariateNormal}


def guide_for(
    model: Program,
    shared: str = "map",
    init: Mapping[str, Any] | None = None,
    local_sites: Sequence[str] = (),
    linear: bool | None = None,
) -> Callable[..., None]:
    """A guide for a program with the sites "coefficients" (of objects) and "flux"; most others are shared.

    Parameters
    ----------
    model : callable
        NumPyro program `model(flux, ivar, ...)`, such as `rp.models.rhmf`, or one of your own.
    shared : {"map", "normal", "low_rank"}
        Point estimate, mean-field or low-rank Gaussian posterior of everything shared; the noise law, which
        every cell informs, is a point estimate throughout. Deviations of a mean field come out too small, by
        up to 15 %; those of "low_rank" by 3-5 %.
    init : mapping, optional
        Values of shared sites to begin with, say `{"basis": G}`; others are drawn.
    local_sites : sequence of str
        Further sites with one row or number per object: solved for with the coefficients, by Newton's
        method. "object_scale", that of `rp.models.rhmf_scaled`, is known to be one.
    linear : bool, optional
        Whether the mean of the flux is coefficients @ basis, up to an offset, and the noise knows neither;
        by default the guide finds out.

    Returns
    -------
    callable
        A NumPyro guide with the arguments of the model. Its attribute `shared` is the autoguide.

    Examples
    --------
    >>> from functools import partial
    >>> import optax, robusta_prob as rp
    >>> from numpyro.infer import SVI, Trace_ELBO
    >>> model = partial(rp.models.rhmf, rank=2)
    >>> svi = SVI(model, rp.guide_for(model), optax.adam(0.01), Trace_ELBO())
    """
    if shared not in SHARED:
        raise ValueError(f"shared must be one of {sorted(SHARED)}, got {shared!r}")

    of_objects = ("coefficients", *local_sites, *(() if "object_scale" in local_sites else ("object_scale",)))

    def showing(wanted: Callable[[str], bool]) -> Program:
        def hide(site: dict[str, Any]) -> bool:
            name = site["name"]
            latent = site["type"] == "sample" and name not in (*of_objects, "flux")
            return site["type"] != "param" and not (latent and wanted(name))

        return block(seed(model, 0), hide_fn=hide)

    begin = init_to_value(values=dict(init or {}))
    if shared == "map":
        autoguide = AutoDelta(showing(lambda name: True), init_loc_fn=begin)
    else:
        autoguide = AutoGuideList(model)
        autoguide.append(AutoDelta(showing(lambda name: name in LAW), init_loc_fn=begin))
        others = showing(lambda name: name not in LAW)
        autoguide.append(SHARED[shared](others, init_loc_fn=begin, init_scale=FIRST_SCALE))

    def run(
        known: Mapping[str, Array], flux: Any, ivar: Any, settings: Any, more: Mapping[str, Array]
    ) -> Any:
        args, named = settings
        program = substitute(seed(model, 0), data={**known, **more})
        return trace(program).get_trace(flux, ivar, *args, **dict(named))

    def solve(
        fixed: Any, known: Mapping[str, Array], flux: Array, ivar: Array, robustness: Robustness
    ) -> local.Normals:
        settings, names, linear = fixed
        with block():
            at = partial(run, known, flux, ivar, settings)
            return local.posterior(at, flux, ivar, robustness, names, linear=linear)

    def looks_linear(ivar: Array, called: Any) -> bool:
        ones = np.ones(ivar.shape, ivar.dtype)
        with block():  # at values of its own: those of a step are traced
            return local.is_linear(lambda more: run({}, 0.0 * ones, ones, called, more))

    # NumPyro calls a guide outside of any compilation first, operation by operation
    solved = jax.jit(solve, static_argnums=0)

    def guide(flux: Array, ivar: Array, *args: Any, robustness: Robustness = TARGET, **settings: Any) -> None:
        flux, ivar = jnp.asarray(flux), jnp.asarray(ivar)
        called = (args, tuple(settings.items()))
        with block(expose_types=["param"]):
            sites = run({}, flux, ivar, called, {})
        _check_sites(sites, local_sites)
        values = autoguide(flux, ivar, *args, **settings)
        params = {name: site["value"] for name, site in sites.items() if site["type"] == "param"}
        names = tuple(name for name in of_objects if name in sites)
        known = jax.lax.stop_gradient({**values, **params})
        fixed = (called, names, looks_linear(ivar, called) if linear is None else linear)
        try:
            hash(fixed)
        except TypeError:  # settings that are arrays
            q = solve(fixed, known, flux, ivar, robustness)
        else:
            q = solved(fixed, known, flux, ivar, robustness)
        weight = sites["coefficients"]["scale"]
        with scale(scale=1.0 if weight is None else weight):
            local.sample({name: sites[name]["fn"] for name in names}, q)

    guide.shared = autoguide  # type: ignore[attr-defined]
    return guide


def _check_sites(sites: Mapping[str, Any], local_sites: Sequence[str]) -> None:
    """Refuse a program without the sites that a guide of this shape is about."""
    latent = sorted(name for name, site in sites.items() if site["type"] == "sample")
    missing = [name for name in ("coefficients", "flux", *local_sites) if name not in latent]
    if missing:
        raise ValueError(
            f'the program has no site {" and no site ".join(map(repr, missing))}: it needs "coefficients" '
            f'(N, K), "flux" (N, M) and what local_sites names; it has {", ".join(latent) or "none"}'
        )


class Whitened(dist.Distribution):
    """Law of u, where centre + root u has the law `fn`: a posterior of unit size for a well chosen root."""

    pytree_data_fields = ("fn", "centre", "root")

    def __init__(
        self,
        fn: dist.Distribution,
        centre: Float[Array, "rank pixels"],
        root: Float[Array, "pixels rank rank"],
    ) -> None:
        self.fn, self.centre, self.root = fn, centre, root
        super().__init__(event_shape=centre.shape, validate_args=False)

    support = constraints.independent(constraints.real, 2)

    def unwhitened(self, u: Float[Array, "rank pixels"]) -> Float[Array, "rank pixels"]:
        """Centre + root u."""
        return self.centre + jnp.einsum("jkl,lj->kj", self.root, u)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """By drawing from `fn`."""
        offset = self.fn.sample(key, sample_shape) - self.centre
        return jnp.einsum("jkl,...lj->...kj", jnp.linalg.inv(self.root), offset)

    def log_prob(self, value: Float[Array, "rank pixels"]) -> Array:
        """Log density in nats, up to the constant log determinant of the root."""
        return jnp.sum(self.fn.log_prob(self.unwhitened(value)))


class Whiten(Reparam):
    """Whiten a site of real support; leaves others alone."""

    def __init__(self, centre: Float[Array, "rank pixels"], root: Float[Array, "pixels rank rank"]) -> None:
        self.centre, self.root = centre, root

    def __call__(self, name: str, fn: Any, obs: Any) -> Any:
        """Site "<name>_whitened", from which <name> follows."""
        if obs is not None or not local.is_real(fn.support) or fn.shape() != self.centre.shape:
            return fn, obs
        law = Whitened(fn, self.centre, self.root)
        return None, law.unwhitened(numpyro.sample(f"{name}_whitened", law))


def whitened(
    model: Program, centre: Float[Array, "rank pixels"], root: Float[Array, "pixels rank rank"]
) -> Program:
    """The program with its site "basis" in units of a posterior deviation about `centre`."""
    return reparam(model, config={"basis": Whiten(centre, root)})


class annealed(Messenger):  # noqa: N801  (an effect handler, written as NumPyro writes them)
    """The program with more robust noise than its own, see `anneal.Robustness`."""

    def __init__(self, fn: Program, robustness: Robustness) -> None:
        super().__init__(fn)
        self.robustness = robustness

    def process_message(self, msg: dict[str, Any]) -> None:
        """Put the tail and the object scales into the site "flux"."""
        if msg["type"] != "sample" or msg["name"] != "flux" or msg["value"] is None:
            return
        cells, value = local.bare(msg["fn"]), msg["value"]
        seen = local.mask_of(msg["fn"])
        if isinstance(cells, dist.Normal):
            cells = StudentT(jnp.zeros(()), cells.loc, cells.scale)
        if not isinstance(cells, StudentT):
            return
        exponent, tail = self.robustness
        z2 = jnp.where(seen, ((value - cells.loc) / cells.scale) ** 2, 0.0)
        count = jnp.broadcast_to(seen, value.shape).sum(1).astype(z2.dtype)
        size2 = jax.lax.cond(
            exponent > 0, lambda: object_scale2(z2, count, jnp.ones_like(count)), lambda: jnp.ones_like(count)
        )
        wider = jax.lax.stop_gradient(jnp.maximum(size2, 1.0))[:, None] ** (0.5 * exponent)
        law = StudentT(
            jnp.maximum(cells.inverse_df, tail),
            cells.loc,
            cells.scale * wider,
            cells.contamination,
            cells.width,
        )
        msg["fn"] = law.mask(seen).to_event(msg["fn"].event_dim)
