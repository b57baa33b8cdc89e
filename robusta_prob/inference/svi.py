"""The variational engine: NumPyro's SVI with optax, over the same programs, in minibatches.

`engine(...)` gives `init(key, batch) -> State`, `step(State, batch, robustness) -> (State, loss)`, pure
functions. It begins where the closed-form engine's starts end, with the basis in units of its posterior
deviations there, so that one learning rate suits every entry, however precise its pixel is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from numpyro.handlers import block, seed, substitute, trace
from numpyro.infer.svi import SVIState

from robusta_prob.inference.anneal import Robustness
from robusta_prob.inference.guides import Program
from robusta_prob.inference.quantities import Globals
from robusta_prob.inference.recipe import (
    POPULATION,
    Batch,
    Parts,
    Place,
    Recipe,
    Sites,
    assemble,
    given,
    is_linear,
)
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

RATE = 0.05  # of Adam, in posterior deviations of the basis per step
OTHERS = 0.1  # of that rate, for all that is not whitened
SLOWER, PATIENCE = 0.3, 4  # factor on the rate after so many epochs without a better bound
LEAST_RATE = 0.01  # of the first
LEAST_STEPS = 40  # per epoch of patience with a guide of the user's
MEAN_DRAWS = 64  # that tell the mean of a guide of the user's
RECIPES = 8  # whose compiled functions are kept


class State(NamedTuple):
    """What is carried from step to step: arrays alone, so it can be stored, and resumed after an `init`."""

    svi: SVIState


class Engine(NamedTuple):
    """Pure functions over `State`; a batch is (flux, ivar), in the unit of the data set."""

    init: Callable[[Array, Batch], State]
    step: Callable[[State, Batch, Robustness], tuple[State, Float[Array, ""]]]  # loss: -ELBO [nats]
    centre: Callable[[State, Batch], Sites]  # all that is shared, at the guide's median
    draw: Callable[[State, Array, Batch], Sites]  # the same, drawn from the guide


class Compiled(NamedTuple):
    """The functions of an `Engine` of some recipe, at a place that is an argument."""

    init: Callable[[Place, Array, Batch], State]
    step: Callable[[Place, State, Batch, Robustness], tuple[State, Float[Array, ""]]]
    centre: Callable[[Place, State, Batch], Sites]
    draw: Callable[[Place, State, Array, Batch], Sites]


def engine(
    model: Program,
    first: Globals,
    root: Float[np.ndarray, "pixels rank rank"],
    *,
    size: int,
    steps_per_epoch: int,
    noise: Noise,
    prior: Prior,
    guide: Program | str = "map",
    optimizer: Any = None,
) -> Engine:
    """Assemble program, guide and optimiser.

    Engines that differ in `first` and `root` alone share what they compile. As with `jax.jit`, a program,
    guide or optimiser of one's own is known by its identity.

    Parameters
    ----------
    model : callable
        `model(flux, ivar, *, rank, ...)`; of `noise`, `prior` and `size` it is given those that it takes.
    first : Globals
        Where to begin.
    root : (M, K, K) array
        Root of the posterior covariance of every basis column.
    size, steps_per_epoch : int
        Objects of the survey, and minibatches per epoch.
    noise, prior : Noise, Prior
        A population that is to be learned becomes parameters of the program (empirical Bayes).
    guide : str or callable
        A kind of `guide_for`, or a NumPyro guide of your own for all sites.
    optimizer : optax.GradientTransformation or NumPyro optimiser, optional
        Default: Adam, slower wherever the bound does not improve.
    """
    optimizer = optimizer or adam(steps_per_epoch, ours=isinstance(guide, str))
    recipe = Recipe(model, len(first.basis), size, noise, prior, guide, optimizer)
    try:
        compiled = _compiled(recipe)
    except TypeError:  # settings that are arrays have no hash
        compiled = _compiled.__wrapped__(recipe)
    place = jax.tree.map(jnp.asarray, Place(first, root))

    def init(key: Array, batch: Batch) -> State:
        if callable(guide):
            _check_guide(given(recipe, first.population), guide, batch, size)
        return compiled.init(place, key, batch)

    return Engine(
        init, partial(compiled.step, place), partial(compiled.centre, place), partial(compiled.draw, place)
    )


@lru_cache(maxsize=RECIPES)
def _compiled(recipe: Recipe) -> Compiled:
    """The functions of all engines of a recipe; the least recently used recipes are forgotten."""
    looked_at = lru_cache(partial(is_linear, recipe))

    def assembled(place: Place, key: Array, batch: Batch) -> tuple[Parts, SVIState]:
        return assemble(recipe, place, key, batch, linear=looked_at(batch[1].shape, batch[1].dtype))

    @jax.jit
    def init(place: Place, key: Array, batch: Batch) -> State:
        return State(assembled(place, key, batch)[1])

    @jax.jit
    def step(
        place: Place, state: State, batch: Batch, robustness: Robustness
    ) -> tuple[State, Float[Array, ""]]:
        parts, _ = assembled(place, state.svi.rng_key, batch)
        new, loss = parts.svi.stable_update(state.svi, *batch, robustness=robustness)
        return State(new), loss

    def sites(parts: Parts, params: Mapping[str, Array], values: Sites, key: Array, batch: Batch) -> Sites:
        seen = trace(substitute(seed(parts.program, key), {**params, **values})).get_trace(*batch)
        return {
            name: site["value"]
            for name, site in seen.items()
            if site["type"] in ("sample", "deterministic") and name not in ("coefficients", "flux")
        } | {name: params[name] for name in POPULATION if name in params}

    def drawn(parts: Parts, params: Mapping[str, Array], batch: Batch, key: Array) -> Sites:
        with block():
            seen = trace(substitute(seed(parts.shared, key), params)).get_trace(*batch)
        values = {name: site["value"] for name, site in seen.items() if site["type"] == "sample"}
        return sites(parts, params, values, key, batch)

    @jax.jit
    def draw(place: Place, state: State, key: Array, batch: Batch) -> Sites:
        parts, _ = assembled(place, key, batch)
        return drawn(parts, parts.svi.get_params(state.svi), batch, key)

    @jax.jit
    def centre(place: Place, state: State, batch: Batch) -> Sites:
        key = jax.random.key(0)
        parts, _ = assembled(place, key, batch)
        params = parts.svi.get_params(state.svi)
        if parts.median is None:
            draws = jax.lax.map(partial(drawn, parts, params, batch), jax.random.split(key, MEAN_DRAWS))
            return jax.tree.map(lambda x: x.mean(0), draws)
        return sites(parts, params, parts.median(params), key, batch)

    return Compiled(init, step, centre, draw)


def _check_guide(program: Program, guide: Program, batch: Batch, size: int) -> None:
    """Refuse a guide of the user's whose sites are not the program's, or that has parameters per object."""
    with block(), seed(rng_seed=0):
        wanted, given = (trace(fn).get_trace(*batch) for fn in (program, guide))

    def latent(sites: Mapping[str, Any]) -> set[str]:
        return {
            name
            for name, site in sites.items()
            if site["type"] == "sample"
            and not site["is_observed"]
            and not site["infer"].get("is_auxiliary", False)
        }

    lacking, odd = latent(wanted) - latent(given), latent(given) - latent(wanted)
    if lacking or odd:
        raise ValueError(
            f"the guide must sample the sites of the program: it lacks {sorted(lacking) or 'none'} and has "
            f"{sorted(odd) or 'none'} besides; `rp.guide_for(program)` makes one"
        )
    own = (len(batch[0]), given["coefficients"]["value"].shape[-1])
    per_object = [
        name for name, site in given.items() if site["type"] == "param" and jnp.shape(site["value"]) == own
    ]
    if per_object and own[0] < size:
        raise ValueError(
            f"the guide's {', '.join(per_object)} belong to the {own[0]} objects of one minibatch, and the "
            f"next has others: amortise, solve for them (rp.guide_for), or give batch_rows of at least {size}"
        )


def patience(epochs: int, steps_per_epoch: int, *, ours: bool) -> int:
    """Epochs without a better bound: more for a guide of the user's, which may begin far away."""
    return epochs if ours else max(epochs, -(-epochs * LEAST_STEPS // steps_per_epoch))


@lru_cache(maxsize=RECIPES)  # the same object, so that it is known again
def adam(steps_per_epoch: int, *, ours: bool = True) -> optax.GradientTransformation:
    """Adam with one rate for the whitened basis (of our own guides) and one for the rest.

    Both are lowered where the bound stays.
    """

    def paced(updates: Any, _: Any) -> Any:
        fast = {name for name in updates if "whitened" in name or name.startswith("auto")}
        fast = fast if ours else set()
        return {name: x if name in fast else OTHERS * x for name, x in updates.items()}

    return optax.chain(
        optax.adam(RATE),
        optax.stateless(paced),
        optax.contrib.reduce_on_plateau(
            factor=SLOWER,
            patience=patience(PATIENCE, steps_per_epoch, ours=ours),
            rtol=0.0,
            atol=1.0,  # nats
            accumulation_size=steps_per_epoch,
            min_scale=LEAST_RATE,
        ),
    )


def minibatches(
    flux: Float[np.ndarray, "objects pixels"],
    ivar: Float[np.ndarray, "objects pixels"],
    rows: int,
    seed: int,
    epoch: int,
) -> Iterator[Batch]:
    """Every object once, in an order of this epoch; a few twice where batches of one size ask for it."""
    order = np.random.default_rng([seed, epoch]).permutation(len(flux))
    rows = batch_rows(len(flux), rows)
    order = np.resize(order, -(-len(flux) // rows) * rows)
    for here in order.reshape(-1, rows):
        yield flux[here], ivar[here]


def batch_rows(objects: int, rows: int) -> int:
    """At most `rows`, such that batches of one size cover the objects with few of them twice."""
    return -(-objects // -(-objects // rows))
