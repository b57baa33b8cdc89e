"""The variational engine: NumPyro's SVI with optax, over the same programs, in minibatches.

`engine(...)` gives `init(key, batch) -> State`, `step(State, batch, robustness) -> (State, loss)`, pure
functions. It begins where the closed-form engine's starts end, with the basis in units of its posterior
deviations there, so that one learning rate suits every entry, however precise its pixel is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jaxtyping import Array, Float
from numpyro.handlers import block, seed, substitute, trace
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.svi import SVIState

from robusta_prob.inference.anneal import TARGET, Robustness
from robusta_prob.inference.guides import Program, annealed, guide_for, whitened
from robusta_prob.inference.linalg import invert
from robusta_prob.inference.sweep import Globals
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

Matrix = Float[Array | np.ndarray, "rows pixels"]
Batch = tuple[Matrix, Matrix]  # flux, ivar
Sites = dict[str, Array]
RATE = 0.05  # of Adam, in posterior deviations of the basis per step
OTHERS = 0.1  # of that rate, for all that is not whitened
SLOWER, PATIENCE = 0.3, 4  # factor on the rate after so many epochs without a better bound
LEAST_RATE = 0.01  # of the first
LEAST_STEPS = 40  # per epoch of patience with a guide of the user's
MEAN_DRAWS = 64  # that tell the mean of a guide of the user's


class State(NamedTuple):
    """What is carried from step to step: arrays alone, so it can be stored, and resumed after an `init`."""

    svi: SVIState


class Engine(NamedTuple):
    """Pure functions over `State`; a batch is (flux, ivar), in the unit of the data set."""

    init: Callable[[Array, Batch], State]
    step: Callable[[State, Batch, Robustness], tuple[State, Float[Array, ""]]]  # loss: -ELBO [nats]
    centre: Callable[[State, Batch], Sites]  # all that is shared, at the guide's median
    draw: Callable[[State, Array, Batch], Sites]  # the same, drawn from the guide


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
    program = _given(model, first, size, noise, prior)
    if isinstance(guide, str):
        program = whitened(program, first.basis, jnp.asarray(root))
        whole = guide_for(program, guide, _values(first))
        shared, median = whole.shared, whole.shared.median  # type: ignore[attr-defined]
    else:
        whole, shared, median = _unannealed(guide), guide, None
    optimizer = optimizer or adam(steps_per_epoch, ours=isinstance(guide, str))
    svi = SVI(_annealing(program), whole, optimizer, Trace_ELBO())

    def init(key: Array, batch: Batch) -> State:
        if not isinstance(guide, str):
            _check_guide(program, guide, batch, size)
        return State(svi.init(key, *batch, robustness=TARGET))

    @jax.jit
    def step(state: State, batch: Batch, robustness: Robustness) -> tuple[State, Float[Array, ""]]:
        new, loss = svi.stable_update(state.svi, *batch, robustness=robustness)
        return State(new), loss

    def sites(params: Mapping[str, Array], values: Sites, key: Array, batch: Batch) -> Sites:
        seen = trace(substitute(seed(program, key), {**params, **values})).get_trace(*batch)
        return {
            name: site["value"]
            for name, site in seen.items()
            if site["type"] in ("sample", "deterministic") and name not in ("coefficients", "flux")
        } | {name: params[name] for name in POPULATION if name in params}

    @jax.jit
    def draw(state: State, key: Array, batch: Batch) -> Sites:
        params = svi.get_params(state.svi)
        with block():
            drawn = trace(substitute(seed(shared, key), params)).get_trace(*batch)
        values = {name: site["value"] for name, site in drawn.items() if site["type"] == "sample"}
        return sites(params, values, key, batch)

    @jax.jit
    def centre(state: State, batch: Batch) -> Sites:
        if median is None:
            keys = jax.random.split(jax.random.key(0), MEAN_DRAWS)
            drawn = jax.lax.map(lambda key: draw(state, key, batch), keys)
            return jax.tree.map(lambda x: x.mean(0), drawn)
        params = svi.get_params(state.svi)
        return sites(params, median(params), jax.random.key(0), batch)

    return Engine(init, step, centre, draw)


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


POPULATION = ("population_mean", "population_root")  # in units of the first guess


def population_at(sites: Sites, first: Globals) -> tuple[Array, Array] | None:
    """Mean and covariance of the population that `_given` has made learnable."""
    if POPULATION[0] not in sites:
        return None
    half = _root(first)
    spread = half @ sites[POPULATION[1]]
    return first.population.mean + half @ sites[POPULATION[0]], spread @ spread.T


def _given(model: Program, first: Globals, size: int, noise: Noise, prior: Prior) -> Program:
    """`model` as a function of flux and ivar, with those settings that it takes."""
    takes = inspect.signature(model).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    rank = len(first.basis)

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


def _root(first: Globals) -> Float[Array, "rank rank"]:
    covariance, _ = invert(first.population.precision[:, :, None])
    return jnp.linalg.cholesky(covariance[:, :, 0])


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
