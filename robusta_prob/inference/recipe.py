"""What the variational engine compiles: program, guide and optimiser of one recipe, at any place to begin.

The parts remember the first values that they have seen, so they are assembled anew wherever a function is
traced; the recipe itself holds settings alone, and where to begin is an argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import Array, Float
from numpyro.handlers import block, seed, substitute, trace
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.svi import SVIState

from robusta_prob.inference import local
from robusta_prob.inference.anneal import TARGET, Robustness
from robusta_prob.inference.guides import Program, annealed, guide_for, whitened
from robusta_prob.inference.quantities import Globals, Population
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

Matrix = Float[Array | np.ndarray, "rows pixels"]
Batch = tuple[Matrix, Matrix]  # flux, ivar
Sites = dict[str, Array]


class Recipe(NamedTuple):
    """All that is compiled in."""

    model: Program
    rank: int
    size: int  # objects of the survey
    noise: Noise
    prior: Prior
    guide: Program | str
    optimizer: Any


class Place(NamedTuple):
    """Where to begin."""

    first: Globals
    root: Float[Array | np.ndarray, "pixels rank rank"]  # of the posterior covariance of a basis column


class Parts(NamedTuple):
    """What NumPyro works with."""

    program: Program
    svi: SVI
    shared: Program  # the guide of what is shared
    median: Callable[[Mapping[str, Array]], Sites] | None  # of the shared sites, where it is known


def assemble(
    recipe: Recipe, place: Place, key: Array, batch: Batch, *, linear: bool
) -> tuple[Parts, SVIState]:
    """Program, guide and optimiser, and their first state, by which NumPyro learns what sites there are."""
    program, guide = given(recipe, place.first.population), recipe.guide
    if isinstance(guide, str):
        program = whitened(program, place.first.basis, jnp.asarray(place.root))
        whole = guide_for(program, guide, _values(place.first), linear=linear)
        shared, median = whole.shared, whole.shared.median  # type: ignore[attr-defined]
    else:
        whole, shared, median = _unannealed(guide), guide, None
    svi = SVI(_annealing(program), whole, recipe.optimizer, Trace_ELBO())
    first = svi.init(key, *batch, robustness=TARGET)
    return Parts(program, svi, shared, median), first


def is_linear(recipe: Recipe, shape: tuple[int, int], dtype: np.dtype) -> bool:
    """Whether the program's mean is coefficients @ basis, see `local.is_linear`, wherever it begins."""
    ones = np.ones(shape, dtype)

    def run(more: Mapping[str, Array]) -> local.Trace:
        anywhere = Population(jnp.zeros(recipe.rank), jnp.eye(recipe.rank), jnp.zeros(()))
        program = substitute(seed(given(recipe, anywhere), 0), data=more)
        return trace(program).get_trace(0.0 * ones, ones)

    with block():
        return local.is_linear(run)


POPULATION = ("population_mean", "population_root")  # in units of the first guess


def population_at(sites: Sites, first: Population) -> tuple[Array, Array] | None:
    """Mean and covariance of the population that `given` has made learnable."""
    if POPULATION[0] not in sites:
        return None
    half = _root(first)
    spread = half @ sites[POPULATION[1]]
    return first.mean + half @ sites[POPULATION[0]], spread @ spread.T


def given(recipe: Recipe, first: Population) -> Program:
    """The recipe's model as a function of flux and ivar, with those settings that it takes."""
    model, rank, size, noise, prior, *_ = recipe
    takes = inspect.signature(model).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())

    def program(flux: Array, ivar: Array) -> Any:
        settings: dict[str, Any] = {"rank": rank, "noise": noise, "prior": prior, "size": size}
        settings = {name: value for name, value in settings.items() if anything or name in takes}
        if "prior" in settings and not prior.is_flat:
            mean = numpyro.param(POPULATION[0], jnp.zeros(rank))
            spread = numpyro.param(POPULATION[1], jnp.eye(rank))
            mean, covariance = population_at(dict(zip(POPULATION, (mean, spread), strict=True)), first)  # type: ignore[misc]
            settings["prior"] = Prior(mean, covariance, prior.basis_scale)
        return model(flux, ivar, **settings)

    return program


def _root(first: Population) -> Float[Array, "rank rank"]:
    return jnp.linalg.cholesky(jnp.linalg.inv(first.precision))


def _values(first: Globals) -> dict[str, Any]:
    """The first guess, by the names of the sites."""
    law = first.loss
    return {
        "basis": first.basis,
        "basis_whitened": jnp.zeros_like(first.basis),
        "nu": 1.0 / jnp.maximum(law.inverse_df, 1e-3),
        "scale": law.scale,
        "floor": jnp.maximum(law.floor, 1e-3 * law.width),
        "contamination": jnp.clip(law.contamination, 1e-3, 0.5),
        "width": law.width,
    }


def _annealing(program: Program) -> Program:
    """The program with an argument `robustness`, see `guides.annealed`."""

    def more_robust(*args: Any, robustness: Robustness) -> Any:
        return annealed(program, robustness)(*args)

    return more_robust


def _unannealed(guide: Program) -> Program:
    """A guide of the user's, which knows no `robustness`."""

    def plain(*args: Any, robustness: Robustness) -> Any:
        del robustness
        return guide(*args)

    return plain
