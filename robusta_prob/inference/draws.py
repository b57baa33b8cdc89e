"""Draws of the posterior in one form, whether a fit or chains have them, and what they say of every cell."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int, Shaped
from numpyro import handlers

from robusta_prob.data import Dataset
from robusta_prob.inference.chains import LAW, Chains
from robusta_prob.inference.checks import seed_of
from robusta_prob.inference.digits import precision
from robusta_prob.inference.isolate import tamed
from robusta_prob.inference.local import bare
from robusta_prob.inference.marginal import nodes, object_log_density
from robusta_prob.inference.projection import project
from robusta_prob.inference.results import Fit, fingerprints, in_training
from robusta_prob.inference.uncertainty import Rows, posterior_draws
from robusta_prob.models.factorisation import noise_at
from robusta_prob.models.noise import NoiseLaw, log_density

STATISTICS = {  # ArviZ's names of NumPyro's
    "diverging": "diverging",
    "energy": "energy",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
    "potential_energy": "lp",
}
SMALLEST = 1e-12  # of the population's variances, in units of the largest


class Draws(NamedTuple):
    """Draws for some objects; `shape` = (chains, draws)."""

    data: Dataset  # these objects
    coefficients: Float[np.ndarray, "*shape objects rank"]  # in the user's flux unit and the gauge of the fit
    basis: Float[np.ndarray, "*shape rank pixels"]
    sampled: Mapping[str, Float[np.ndarray, "*shape ..."]]  # parts of the noise law, in the user's flux unit
    given: Mapping[str, Any]  # its other parts
    statistics: Mapping[str, Shaped[np.ndarray, "*shape"]]  # of the sampler
    in_training: Bool[np.ndarray, " objects"]  # whether the basis was learned from the object
    # the same model in units of `data.unit`, in the gauge of the population
    A: Float[np.ndarray, "*shape objects rank"]
    G: Float[np.ndarray, "*shape rank pixels"]
    law: Mapping[str, Float[np.ndarray, "*shape ..."]]  # by `LAW`; incomplete where a program has other ones

    @property
    def shape(self) -> tuple[int, int]:
        """(chains, draws)."""
        chains, draws = self.A.shape[:2]
        return chains, draws


def of_fit(fit: Fit, data: Dataset, number: int, key: Array | int) -> Draws:
    """One chain of draws from the Gaussian posteriors, at the one noise law of the fit.

    Objects without a posterior (a flat prior, and fewer observed cells than coefficients) are left out.

    Raises
    ------
    ValueError
        If that leaves none.
    """
    projection = project(fit, data)
    known = np.isfinite(projection.covariance).all((1, 2))
    if not known.any():
        raise ValueError(
            f"none of the objects has the {fit.rank} observed cells that its coefficients need without a "
            "population: the fit had a flat prior"
        )
    if not known.all():
        data, projection = data.take(known), projection.take(known)
    drawn = list(posterior_draws(fit, number, key=key, objects=projection))
    A, G = np.stack([x.coefficients for x in drawn])[None], np.stack([x.basis for x in drawn])[None]
    told = _told(fit.noise.in_unit(data.unit))
    return Draws(
        data,
        A,
        G,
        sampled={},
        given=_without_idle_width(_told(fit.noise)),
        statistics={},
        in_training=in_training(fit, data),
        A=(A / data.unit).astype(fit.dtype),
        G=np.where(fit.trained, G, 0.0).astype(fit.dtype),
        law={name: np.broadcast_to(x, (1, number, *np.shape(x))) for name, x in told.items()},
    )


def of_chains(chains: Chains, data: Dataset, rows: Rows, pick: Int[np.ndarray, " draws"]) -> Draws:
    """The draws with the numbers `pick` of every chain, for some of the objects.

    Raises
    ------
    ValueError
        If the objects are not those that were sampled.
    """
    known = fingerprints(data, data.unit, chains.fit.dtype)
    if not (np.array_equal(chains.ids, data.ids) and np.array_equal(chains.fingerprints, known)):
        raise ValueError(
            f"the chains are of {len(chains.ids)} objects, and these {data.shape[0]} differ from them in "
            "number, ids, order or flux: give the data that rp.nuts was given, and choose objects with rows="
        )
    raw = {name: x[:, pick] for name, x in _raw(chains).items()}
    objects = np.arange(data.shape[0])[slice(None) if rows is None else rows]
    sampled = {name: x[:, pick] for name, x in chains.noise.items()}
    law = {name: raw[name] for name in LAW if name in raw}
    units = {"floor": data.unit, "width": data.unit}
    first = {name: units.get(name, 1.0) * x[0, 0] for name, x in law.items()}
    fields = chains.mcmc.get_extra_fields(group_by_chain=True)
    statistics = {new: np.asarray(fields[old])[:, pick] for old, new in STATISTICS.items() if old in fields}
    if "lp" in statistics:
        statistics["lp"] = -statistics["lp"]
    return Draws(
        data if rows is None else data.take(rows),
        chains.coefficients[:, pick][:, :, objects],
        chains.basis[:, pick],
        sampled=sampled,
        given={name: x for name, x in _without_idle_width(first).items() if name not in sampled},
        statistics=statistics,
        in_training=np.ones(len(objects), bool),
        A=raw["coefficients"][:, :, objects],
        G=raw["basis"],
        law=law,
    )


def check_program(chains: Chains, data: Dataset) -> None:
    """Refuse chains of a program that has another noise law or population than ours, by its first draw.

    Raises
    ------
    ValueError
        If cells or coefficients have another density there than `rp.models.rhmf` gives them.
    """
    first = {name: x[0, 0] for name, x in _raw(chains).items()}
    fit, unit, seen = chains.fit, data.unit, tamed(data).without(~chains.fit.trained)
    same = all(name in first for name in LAW)
    if same:
        with precision(fit.dtype):
            run = handlers.substitute(handlers.seed(chains.mcmc.sampler.model, 0), first)
            trace = handlers.trace(run).get_trace(seen.flux, seen.ivar)
            A, G = trace["coefficients"]["value"], trace["basis"]["value"]
            mean, covariance = fit.population.mean / unit, fit.population.covariance / unit**2
            cells = bare(trace["flux"]["fn"]).log_prob(np.asarray(seen.flux))
            of_objects = bare(trace["coefficients"]["fn"]).log_prob(A).reshape(len(A), -1).sum(1)
            expected = log_density((seen.flux - A @ G) ** 2, seen.ivar, _law(first))
            pairs = (
                (cells[seen.observed], expected[seen.observed]),
                (of_objects, dist.MultivariateNormal(mean, covariance).log_prob(A)),
            )
            same = all(x.shape == y.shape and np.allclose(x, y, rtol=1e-3, atol=0.01) for x, y in pairs)
    if not same:
        raise ValueError(
            "the chains are of a program with another noise law or population than rp.models.rhmf, whose "
            "replicas and densities are not known: leave them out, predictive=False, log_likelihood=()"
        )


def evaluate(
    fit: Fit, draws: Draws, wanted: Collection[str], key: Array | int
) -> dict[str, Float[np.ndarray, "*shape ..."]]:
    """What is `wanted` of "flux", "cell" and "object" under every draw, in the user's flux unit.

    "flux" are replicas (N, M), NaN where missing; "cell" the log densities of the observed cells, row by row;
    "object" those of all objects with an observed cell, see `marginal`.

    Raises
    ------
    ValueError
        If no cell is observed at a pixel that the fit knows.
    """
    seen, unit, dtype = tamed(draws.data).without(~fit.trained), draws.data.unit, fit.dtype
    used = seen.observed
    some, count = used.any(1), used.sum(1)
    if not some.any():
        raise ValueError(
            "no cell of these objects is observed, or none that the fit knows, and nothing can be evaluated: "
            "take other rows, or predictive=False, log_likelihood=()"
        )
    Y, W = np.asarray(seen.flux, dtype), np.asarray(seen.ivar, dtype)
    values, vectors = np.linalg.eigh(fit.population.covariance / unit**2)
    size = np.sqrt(np.maximum(values, SMALLEST * values[-1]))
    mean = (fit.population.mean / unit).astype(dtype)
    root, back, u = (x.astype(dtype) for x in (vectors * size, vectors / size, nodes(fit.rank)))
    pure = not np.any(draws.law["contamination"])
    sizes = {"flux": used.shape, "cell": (used.sum(),), "object": (some.sum(),)}
    out = {name: np.empty((*draws.shape, *sizes[name]), fit.coefficients.dtype) for name in wanted}
    with precision(dtype):
        keys = jax.random.split(jax.random.key(seed_of(key)), draws.shape)
        for place in np.ndindex(draws.shape):
            A, G = draws.A[place], draws.G[place]
            law = _law({name: x[place].astype(dtype) for name, x in draws.law.items()})
            if "flux" in wanted:
                replica = np.asarray(_replica(keys[place], A, G, W, law, pure=pure))
                out["flux"][place] = np.where(used, replica.astype(float) * unit, np.nan)
            if "cell" in wanted:
                out["cell"][place] = np.asarray(_cells(A, G, Y, W, law))[used] - math.log(unit)
            if "object" in wanted:
                density = object_log_density(Y, W, (A - mean) @ back, G, law, mean, root, u, pure=pure)
                out["object"][place] = (np.asarray(density) - count * math.log(unit))[some]
    return out


@partial(jax.jit, static_argnames="pure")
def _replica(
    key: Array,
    A: Float[Array, "objects rank"],
    G: Float[Array, "rank pixels"],
    ivar: Float[Array, "objects pixels"],
    law: NoiseLaw,
    *,
    pure: bool,
) -> Float[Array, "objects pixels"]:
    law = law._replace(contamination=0.0) if pure else law
    return noise_at(A @ G, ivar, law).sample(key)


@jax.jit
def _cells(
    A: Float[Array, "objects rank"],
    G: Float[Array, "rank pixels"],
    flux: Float[Array, "objects pixels"],
    ivar: Float[Array, "objects pixels"],
    law: NoiseLaw,
) -> Float[Array, "objects pixels"]:
    return log_density((flux - A @ G) ** 2, ivar, law)


def _raw(chains: Chains) -> dict[str, np.ndarray]:
    """All sites, in units of `data.unit`, in the gauge of the population."""
    sites: dict[str, np.ndarray] = jax.device_get(chains.mcmc.get_samples(group_by_chain=True))
    return sites


def _law(sites: Mapping[str, Any]) -> NoiseLaw:
    nu, *others = (sites[name] for name in LAW)
    return NoiseLaw(1.0 / nu, *others)


def _told(law: NoiseLaw) -> dict[str, Any]:
    """A noise law by the names of its sites."""
    return dict(zip(LAW, (law.nu, *law[1:]), strict=True))


def _without_idle_width(sites: Mapping[str, Any]) -> dict[str, Any]:
    """Without the width of bad cells where there are none."""
    return {name: x for name, x in sites.items() if name != "width" or sites.get("contamination", 1.0) > 0}
