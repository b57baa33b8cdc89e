"""NUTS on the same model: the reference posterior of a small problem, told in the gauge of a fit."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_value

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_pixels
from robusta_prob.inference.checks import check_types, seed_of
from robusta_prob.inference.digits import precision
from robusta_prob.inference.guides import Program, whitened
from robusta_prob.inference.isolate import tamed
from robusta_prob.inference.projection import project
from robusta_prob.inference.results import Fit, fingerprints
from robusta_prob.models import rhmf
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

MOST_BYTES = 2**30  # of draws, beyond which a problem is not a small one
LAW = ("nu", "scale", "floor", "contamination", "width")  # sites of the noise law
STATISTICS = ("potential_energy", "energy", "num_steps", "accept_prob")  # of every draw, besides "diverging"


class Chains(NamedTuple):
    """Draws of the posterior, in the user's flux unit and in the gauge of the fit, see `in_gauge_of`."""

    coefficients: Float[np.ndarray, "chains draws objects rank"]
    basis: Float[np.ndarray, "chains draws rank pixels"]
    noise: dict[str, Float[np.ndarray, "chains draws ..."]]  # those parts of the law that were sampled
    r_hat: float  # worst over all of these (split; Gelman et al. 2013); below 1.01 where chains have mixed
    divergences: int
    mcmc: MCMC  # as NumPyro leaves it: in units of `data.unit`, in the gauge of the population
    fit: Fit  # whose gauge, population and pixels these are
    ids: Shaped[np.ndarray, " objects"]
    fingerprints: Shaped[np.ndarray, " objects"]  # of the objects' flux, see `results.fingerprints`


def nuts(
    fit: Fit,
    data: Dataset,
    *,
    noise: Noise | None = None,
    model: Program = rhmf,
    key: Array | int = 0,
    warmup: int = 500,
    samples: int = 1000,
    chains: int = 2,
    progress: bool = False,
) -> Chains:
    """Sample coefficients, basis and noise law of a small problem, to check the Gaussian posteriors of `fit`.

    The population is that of the fit, as everywhere (empirical Bayes), and pixels that the fit left out count
    as missing; chains begin at the fit, with columns of the basis in units of their posterior deviations.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        The objects, on the pixels of the fit.
    noise : Noise, optional
        Which parts of the noise law are given; default: those that were given to the fit.
    model : callable
        `rp.models.rhmf`, or a program with its arguments and its sites "basis" and "coefficients".
    key : JAX key or int
    warmup, samples, chains : int
        Per chain; chains run one after the other.
    progress : bool
        Show NumPyro's progress bar.

    Returns
    -------
    Chains
        Look at `r_hat` and `divergences` before anything else.

    Raises
    ------
    ValueError
        If the pixels are not those of the fit, the fit had no population (flat prior), or the draws would
        need more than 1 GiB.
    TypeError
        If a setting is of the wrong kind.

    References
    ----------
    Hoffman & Gelman (2014), JMLR 15, 1593.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.low_rank(20, 15, 1).data
    >>> rp.nuts(rp.fit(data, 1), data, warmup=5, samples=4, chains=1).basis.shape
    (1, 4, 1, 15)
    """
    check_same_pixels(fit, data)
    check_types(noise, None, None, key, warmup=warmup, samples=samples, chains=chains)
    for name, value in (("warmup", warmup), ("samples", samples), ("chains", chains)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if fit.flat_prior:
        raise ValueError(
            "a fit with a flat prior has no population to sample with: fit with prior=rp.Prior()"
        )
    size = 2 * chains * samples * fit.rank * sum(data.shape) * fit.dtype.itemsize
    if size > MOST_BYTES:
        raise ValueError(
            f"{chains} chains of {samples} draws of {data.shape[0]} x {data.shape[1]} cells at rank "
            f"{fit.rank} need {size / 2**30:.1f} GiB: NUTS is a reference for small problems, take a part, "
            "data.take(rows), or fewer samples"
        )
    unit, seen = data.unit, tamed(data).without(~fit.trained)
    noise = (noise or fit.config["noise"]).validated()
    if isinstance(noise.floor, float | int):  # given in the user's unit
        noise = noise._replace(floor=noise.floor / unit)
    with precision(fit.dtype):
        mean, covariance = fit.population.mean / unit, fit.population.covariance / unit**2
        population = Prior(jnp.asarray(mean, fit.dtype), jnp.asarray(covariance, fit.dtype))
        program = partial(model, rank=fit.rank, noise=noise, prior=population)
        mcmc = MCMC(
            NUTS(
                whitened(program, jnp.asarray(fit.basis), jnp.asarray(_root(fit))),
                init_strategy=init_to_value(values=_begin(fit, data)),
            ),
            num_warmup=warmup,
            num_samples=samples,
            num_chains=chains,
            chain_method="sequential",
            progress_bar=progress,
        )
        mcmc.run(jax.random.key(seed_of(key)), seen.flux, seen.ivar, extra_fields=STATISTICS)
    draws = jax.device_get(mcmc.get_samples(group_by_chain=True))
    A, G = in_gauge_of(fit, draws["coefficients"], draws["basis"])
    # what is given, or fixed by the program, is no latent site
    sampled = {name: draws[name] for name in LAW if name in mcmc.last_state.z}
    parts = (A, G[..., fit.trained], *sampled.values())
    r_hat = max(float(np.max(split_gelman_rubin(x))) for x in parts) if samples >= 4 else np.nan
    sampled |= {name: unit * sampled[name] for name in ("floor", "width") if name in sampled}
    divergences = int(np.sum(mcmc.get_extra_fields()["diverging"]))
    marks = fingerprints(data, unit, fit.dtype)
    return Chains(A * unit, G, sampled, r_hat, divergences, mcmc, fit, data.ids, marks)


def in_gauge_of(
    fit: Fit,
    coefficients: Float[np.ndarray, "*draws objects rank"],
    basis: Float[np.ndarray, "*draws rank pixels"],
) -> tuple[Float[np.ndarray, "*draws objects rank"], Float[np.ndarray, "*draws rank pixels"]]:
    """The same A G in the gauge where G' G_fit^T = 1: coefficients A' = A G G_fit^T.

    Entries can then be compared with those of the fit; a draw's own order and signs never matter. G' differs
    from the basis of the fit across its rows alone. Arguments may have any number of leading axes.

    Raises
    ------
    ValueError
        If the shapes are not those of the fit, or one basis has a direction that is orthogonal to the other.

    Examples
    --------
    >>> import numpy as np, robusta_prob as rp
    >>> fit = rp.fit(rp.simulate.low_rank(100, 40, 2).data, rank=2)
    >>> A, G = rp.in_gauge_of(fit, fit.coefficients[:, ::-1], -fit.basis[::-1])
    >>> bool(np.allclose(G, fit.basis, atol=1e-4))
    True
    """
    rank, pixels = fit.basis.shape
    if np.shape(basis)[-2:] != (rank, pixels) or np.shape(coefficients)[-1:] != (rank,):
        raise ValueError(
            f"coefficients and basis must end in axes (objects, {rank}) and ({rank}, {pixels}) as the fit, "
            f"got {np.shape(coefficients)} and {np.shape(basis)}"
        )
    T = np.asarray(basis, float) @ fit.basis.T.astype(float)
    if not np.all(np.linalg.cond(T) < 1e8):
        raise ValueError("a basis is not finite or has no part along some basis vector of the fit")
    return (
        (np.asarray(coefficients, float) @ T).astype(np.asarray(coefficients).dtype),
        np.linalg.solve(T, np.asarray(basis, float)).astype(np.asarray(basis).dtype),
    )


def _begin(fit: Fit, data: Dataset) -> dict[str, Array]:
    """The fit, by the names of the sites, inside the support of their priors."""
    law = fit.noise.in_unit(data.unit)
    typical = 1.0 / np.sqrt(np.median(data.ivar[data.observed]))
    values = {
        "basis": fit.basis,
        "basis_whitened": np.zeros_like(fit.basis),
        "coefficients": project(fit, data).coefficients / data.unit,
        "nu": min(law.nu, 1e3),
        "scale": law.scale,
        "floor": np.maximum(law.floor, 1e-3 * typical),
        "contamination": np.clip(law.contamination, 1e-3, 0.5),
        "width": law.width,
    }
    return {name: jnp.asarray(x, fit.dtype) for name, x in values.items()}


def _root(fit: Fit) -> Float[np.ndarray, "pixels rank rank"]:
    """Root of the basis' covariance; that of the weak prior where nothing was observed."""
    weak = 1.0 / fit.basis.shape[1]
    covariance = np.where(
        fit.trained[:, None, None], fit.basis_covariance.astype(float), weak * np.eye(fit.rank)
    )
    return np.linalg.cholesky(covariance + 1e-12 * weak * np.eye(fit.rank)).astype(fit.dtype)
