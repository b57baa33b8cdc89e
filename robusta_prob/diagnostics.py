"""A fit or chains as ArviZ knows them: draws, replicas, log densities and data, with named dimensions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_pixels
from robusta_prob.inference.chains import Chains
from robusta_prob.inference.checks import check_types
from robusta_prob.inference.draws import Draws, check_program, evaluate, of_chains, of_fit
from robusta_prob.inference.results import Fit
from robusta_prob.inference.uncertainty import Rows

DRAWS = 500  # of a fit, by default
MOST_BYTES = 2**30
DENSITIES = ("cell", "object")
SAMPLES, FLUX = ("chain", "draw"), ("objects", "pixels")  # dimensions


def to_arviz(
    source: Fit | Chains,
    data: Dataset,
    *,
    draws: int | None = None,
    key: Array | int = 0,
    rows: Rows = None,
    predictive: bool = True,
    log_likelihood: str | Collection[str] = DENSITIES,
) -> Any:
    """Posterior, replicas, log densities and data for ArviZ, in the user's flux unit.

    Dimensions are "chain", "draw", "objects" (the ids), "pixels" (the grid, or 0..M-1 where it repeats
    itself) and "component". Groups:

    - posterior: "coefficients", "basis" and the sampled parts of the noise law, but for pixels that were
      never observed in training. A fit has one noise law, which is in constant_data: repeated over draws
      it would not vary, and have no r_hat.
    - posterior_predictive: "flux", replicas of the observed cells; NaN elsewhere.
    - log_likelihood [nats]: "cell" over the observed cells alone, named by "cell_object" and "cell_pixel";
      and "object", of all observed cells of an object, its coefficients being integrated out under the
      population (`inference.marginal`): given coefficients that know it, no object can be left out.
    - observed_data, constant_data: "flux" (NaN where missing); "ivar", "grid", "trained", "in_training" and
      the numeric columns of `data.meta`.
    - sample_stats: of chains alone.

    Parameters
    ----------
    source : Fit or Chains
        A fit gives one chain, of draws from its Gaussian posteriors.
    data : Dataset
        Objects on the pixels of the fit; for chains those that were sampled.
    draws : int, optional
        Per chain. Default: 500 of a fit; all that chains have, else so many of them at equal distances.
    key : JAX key or int
        Of the draws and the replicas.
    rows : indices, mask or slice, optional
        Only these objects.
    predictive : bool
        Whether to draw replicas.
    log_likelihood : names
        Which of "cell" and "object"; () for neither.

    Returns
    -------
    arviz.InferenceData (ArviZ 0.x) or xarray.DataTree (1.x)
        `az.loo(tree, var_name="object")` estimates how well an object follows from the other objects,
        `var_name="cell"` how well a cell does from all other cells.

    Raises
    ------
    ValueError
        If pixels, objects or noise law are not those of the source, no cell is observed, or all would take
        more than 1 GiB.
    TypeError
        If an argument is of the wrong kind.

    Notes
    -----
    Log weights of `az.loo` over objects have a variance of about K M / N: k-hat is above 0.7 for under 1
    percent of them at K M / N = 0.5, for 5 to 8 at 1.3 and for half at 6, where the basis rests on every
    one of them. The population (which is estimated for a flat prior as well) and the noise law of a fit are
    those of all objects. Objects that were not in training need no leaving out: their predictive density is
    the mean of exp("object"). Objects without a posterior (a flat prior, fewer cells than coefficients) do
    not appear. ArviZ has no r_hat of one chain, and says so; `az.summary(tree, kind="stats")` does not ask
    for it.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27, 1413.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.low_rank(100, 40, 2).data
    >>> tree = rp.to_arviz(rp.fit(data, rank=2), data, draws=20)
    >>> tree.log_likelihood["object"].dims
    ('chain', 'draw', 'objects')
    """
    if not isinstance(source, Fit | Chains):
        raise TypeError(
            f"source must be a Fit (of rp.fit) or Chains (of rp.nuts), got {type(source).__name__}; an MCMC "
            "of your own is converted by az.from_numpyro"
        )
    fit = source if isinstance(source, Fit) else source.fit
    check_same_pixels(fit, data)
    check_types(None, None, None, key, draws=draws)
    wanted = _wanted(predictive, log_likelihood)
    chains, most = (1, None) if isinstance(source, Fit) else source.coefficients.shape[:2]
    number = (most or DRAWS) if draws is None else draws
    if number < 1 or (most is not None and number > most):
        limit = "" if most is None else f" and at most the {most} that every chain has"
        raise ValueError(f"draws must be at least 1{limit}, got {draws}")
    part = data if rows is None else data.take(rows)
    _check_size(fit, part, chains * number, wanted)
    if isinstance(source, Fit):
        posterior = of_fit(source, part, number, key)
    else:
        pick = np.linspace(0, source.coefficients.shape[1] - 1, number).round().astype(int)
        posterior = of_chains(source, data, rows, pick)
        if wanted:
            check_program(source, data)
    groups = _groups(fit, posterior, evaluate(fit, posterior, wanted, key) if wanted else {})
    return _tree(groups, _attributes(fit, data, source))


def _wanted(predictive: Any, log_likelihood: Any) -> tuple[str, ...]:
    """What is to be evaluated: "flux" for replicas, and the names of densities."""
    names = (log_likelihood,) if isinstance(log_likelihood, str) else log_likelihood
    if not isinstance(names, Collection) or any(name not in DENSITIES for name in names):
        raise ValueError(
            f"log_likelihood must be some of {DENSITIES}, or () for neither, got {log_likelihood!r}"
        )
    if not isinstance(predictive, bool):
        raise TypeError(f"predictive must be True or False, got {predictive!r}")
    return (*(["flux"] if predictive else []), *names)


def _check_size(fit: Fit, data: Dataset, draws: int, wanted: Collection[str]) -> None:
    """Refuse what does not fit beside other things into memory."""
    (n, m), cells = data.shape, int((data.observed & fit.trained).sum())
    numbers = {
        "posterior": 2 * fit.rank * (n + m),
        "posterior_predictive": n * m * ("flux" in wanted),
        "log_likelihood": cells * ("cell" in wanted) + n * ("object" in wanted),
    }
    sizes = {name: number * draws * fit.coefficients.dtype.itemsize for name, number in numbers.items()}
    if sum(sizes.values()) > MOST_BYTES:
        told = ", ".join(f"{name} {size / 2**30:.2g}" for name, size in sizes.items())
        raise ValueError(
            f"{draws} draws of {n} x {m} cells take {sum(sizes.values()) / 2**30:.2g} GiB ({told}), and "
            f"{MOST_BYTES / 2**30:g} is allowed: choose objects with rows=, take fewer draws=, or leave out "
            'groups, predictive=False and log_likelihood="object" or ()'
        )


def _groups(
    fit: Fit, posterior: Draws, evaluated: Mapping[str, Float[np.ndarray, "*shape ..."]]
) -> dict[str, Any]:
    """The groups as xarray's data sets."""
    import xarray as xr

    data, trained, (chains, draws) = posterior.data, fit.trained, posterior.shape
    ids, pixels = data.ids, data.grid
    if len(np.unique(pixels)) < len(pixels):  # no index
        pixels = np.arange(len(pixels))
    samples = {"chain": np.arange(chains), "draw": np.arange(draws)}
    labels = {"objects": ids, "pixels": pixels}

    values: dict[str, Any] = {
        "coefficients": ((*SAMPLES, "objects", "component"), posterior.coefficients),
        "basis": ((*SAMPLES, "component", "pixels"), posterior.basis[..., trained]),
    }
    for name, x in posterior.sampled.items():
        values[name] = (SAMPLES, x) if x.ndim == 2 else ((*SAMPLES, "pixels"), x[..., trained])
    known = {"objects": ids, "pixels": pixels[trained], "component": np.arange(fit.rank)}
    groups = {"posterior": xr.Dataset(values, samples | known)}

    if "flux" in evaluated:
        replicas = {"flux": ((*SAMPLES, *FLUX), evaluated["flux"])}
        groups["posterior_predictive"] = xr.Dataset(replicas, samples | labels)
    used = data.observed & trained
    densities: dict[str, Any] = {}
    places: dict[str, Any] = dict(samples)
    if "cell" in evaluated:
        i, j = np.nonzero(used)
        densities["cell"] = ((*SAMPLES, "cells"), evaluated["cell"])
        places |= {"cell_object": ("cells", ids[i]), "cell_pixel": ("cells", pixels[j])}
    if "object" in evaluated:
        densities["object"] = ((*SAMPLES, "objects"), evaluated["object"])
        places["objects"] = ids[used.any(1)]
    if densities:
        groups["log_likelihood"] = xr.Dataset(densities, places)
    if posterior.statistics:
        statistics = {name: (SAMPLES, x) for name, x in posterior.statistics.items()}
        groups["sample_stats"] = xr.Dataset(statistics, samples)

    flux = np.where(data.observed, data.flux.astype(float) * data.unit, np.nan)
    groups["observed_data"] = xr.Dataset({"flux": (FLUX, flux.astype(fit.coefficients.dtype))}, labels)
    constant: dict[str, Any] = {
        "ivar": (FLUX, data.ivar.astype(float) / data.unit**2),
        "grid": ("pixels", data.grid),
        "trained": ("pixels", trained),
        "in_training": ("objects", posterior.in_training),
        **{name: ("pixels" if np.ndim(x) else (), x) for name, x in posterior.given.items()},
    }
    for name, column in data.meta.items():
        if column.dtype.kind in "biuf":
            own = name.replace("/", "_")  # which would be a path in a DataTree
            own = f"meta_{own}" if own in {*constant, *labels} else own
            constant[own] = (("objects", *(f"{own}_dim_{i}" for i in range(1, column.ndim))), column)
    groups["constant_data"] = xr.Dataset(constant, labels)
    return groups


def _attributes(fit: Fit, data: Dataset, source: Fit | Chains) -> dict[str, str | int | float]:
    """What else there is to know, as netCDF can hold it."""
    try:
        release = version("robusta-prob")
    except PackageNotFoundError:  # a source tree that was never installed
        release = "0+unknown"
    return {
        "inference_library": "robusta_prob",
        "inference_library_version": release,
        "source": type(source).__name__,
        "status": fit.status.code,
        "status_message": fit.status.message,
        "rank": fit.rank,
        "flux_name": data.labels.flux_name,
        "grid_name": data.labels.grid_name,
        "unit": data.unit,
    }


def _tree(groups: Mapping[str, Any], attributes: Mapping[str, Any]) -> Any:
    """An InferenceData, or from ArviZ 1.0 on a DataTree."""
    import arviz as az
    import xarray as xr

    groups = {**groups, "posterior": groups["posterior"].assign_attrs(attributes)}
    if int(az.__version__.partition(".")[0]) < 1:  # 1.x warns when asked whether it has an InferenceData
        return az.InferenceData(attrs=dict(attributes), **groups)
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **groups})
