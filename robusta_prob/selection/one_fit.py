"""`relevance`: one generous fit, and how many of its components new objects have any use for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from robusta_prob.data import Dataset
from robusta_prob.inference.progress import Rows
from robusta_prob.inference.projection import robust_weights
from robusta_prob.inference.results import Fit, PopulationLaw
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior
from robusta_prob.selection.candidates import fitted
from robusta_prob.selection.held_out import Judgement, comparable, judge
from robusta_prob.selection.preparing import Prepared, checked_ranks, warn_of_guard
from robusta_prob.selection.results import Candidate, Difference, Selection, choose, paired

TELLING = 2000  # objects that tell in which directions there is information


class Component(NamedTuple):
    """A component of the generous fit."""

    scale: float  # root of its second moment in the population, learned [flux]
    gain: Difference  # of the score by having it beside all the others


@dataclass(frozen=True, eq=False, repr=False)
class Relevance(Selection):
    """A `Selection` whose candidates are the first 1, 2, ... components of one fit, the most useful first."""

    components: tuple[Component, ...] = ()  # in this order; `rank` of them are supported


def relevance(
    data: Dataset,
    rank: int,
    *,
    noise: Noise | None = None,
    prior: Prior | None = None,
    train: float = 0.5,
    group: str | Any = None,
    hidden: float = 0.2,
    guard: int | None = None,
    key: Array | int = 0,
    tol: float = 0.1,
    max_epochs: int = 60,
    folder: str | PathLike[str] | None = None,
    callback: Callable[[Rows], None] | None = None,
) -> Relevance:
    """How many components are supported, from one fit with more of them than needed.

    The population gives every component a scale of its own, which is learned. Each is left out alone, and by
    what the held-out density of other objects loses they are ordered; then the first 1, 2, ... of them are
    judged as the candidates of `rp.select` are, and chosen from by the same rule. A component of noise, or of
    a few strange objects, has a scale as well, but is of no use to objects that it was not learned from.

    One fit, where a grid needs one for each rank: the quick look. Candidates are components of the generous
    fit, under its noise law, and not fits of their own. They are ordered and judged by the same objects: of
    many spare components the luckiest comes first, and may be taken once in a while.

    Parameters
    ----------
    data : Dataset
        N objects x M pixels.
    rank : int
        More components than are expected.
    noise, prior, train, group, hidden, guard, key, tol, max_epochs, folder
        As in `rp.select`; the prior must be a population.
    callback : callable, optional
        Called with `Rows` as components are judged; `rp.Progress("relevance")` is a progress bar.

    Returns
    -------
    Relevance
        `.rank` components are supported, `.components` has their scales and gains. `.fit()` is made of them,
        with the coefficients that they have beside the others: where to begin a fit of that rank.

    Raises
    ------
    ValueError, TypeError, OSError
        As `rp.select`; and for a flat prior, under which there are no scales to learn.

    References
    ----------
    MacKay (1994) and Neal (1996) for relevance by learned scales, Bishop (1999) for principal components.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.low_rank(300, 60, 2, seed=1).data
    >>> rp.relevance(data, 5).rank
    2
    """
    (rank,) = checked_ranks([rank])
    own = Prepared.of(
        data,
        [rank],
        [None],
        noise=noise,
        prior=prior,
        train=train,
        group=group,
        hidden=hidden,
        guard=guard,
        key=key,
        tol=tol,
        max_epochs=max_epochs,
        folder=folder,
    )
    if prior is not None and prior.is_flat:
        raise ValueError("under a flat prior components have no scales: leave out prior=, or use rp.select")
    whole = by_information(fitted(own.learn, rank, None, own.settings, None), own.learn)
    hide, done = own.hide(whole), 0
    warn_of_guard(hide)

    def told(kept: Sequence[int]) -> Judgement:
        nonlocal done
        judgement = judge(muted(whole, kept), own.rest, hide, own.stride)
        done += 1
        if callback is not None:
            callback(Rows(done, max(2 * rank - 1, 1), "relevance", " candidates"))
        return judgement

    every = range(rank)
    full = told(every)
    without = [told([k for k in every if k != left]) for left in (every if rank > 1 else ())]
    (all_of_them, *others), count = comparable([full, *without], rank)
    gains = [paired(all_of_them.density - other.density, count, own.groups) for other in others]
    gains = gains or [paired(np.zeros(len(count)), count, own.groups)]
    order = sorted(every, key=lambda k: -gains[k].mean)
    nested, _ = comparable([*(told(order[:size]) for size in range(1, rank)), full], rank)
    candidates = tuple(
        Candidate(size, None, one.density, one.published, whole.status)
        for size, one in enumerate(nested, start=1)
    )
    scales = np.sqrt(whole.moments)
    return Relevance(
        candidates,
        choose(candidates, count, own.groups),
        count,
        own.rest.ids,
        own.groups,
        hide,
        {(size, None): with_components(whole, order[:size]) for size in range(1, rank + 1)},
        tuple(Component(float(scales[k]), gains[k]) for k in order),
    )


def by_information(fit: Fit, train: Dataset) -> Fit:
    """The same factorisation along the directions in which the data tell most, in units of their errors.

    With errors u_i v_j, these are the singular directions of A G / (u v): the leading ones lose least.
    Those of largest scale in flux do not: where spectra are precise, a true one has a share in all others.
    """
    n, _ = train.shape
    rows = np.unique(np.linspace(0, n - 1, min(n, TELLING)).astype(int))
    some = train.take(rows).load()
    weight = np.nan_to_num(robust_weights(fit, some)) * some.ivar.astype(float)
    seen = np.maximum((weight > 0).sum(1), 1)
    of_objects = np.sqrt(weight.sum(1) / seen)
    of_pixels = np.sqrt((weight / np.where(of_objects > 0, of_objects, 1.0)[:, None] ** 2).mean(0))
    A, G = fit.coefficients[rows].astype(float), fit.basis.astype(float)
    right: np.ndarray = np.linalg.qr((G * of_pixels).T)[1]
    _, _, turn = np.linalg.svd(np.linalg.qr(A * of_objects[:, None])[1] @ right.T)
    T = turn @ np.linalg.inv(right.T)
    return transformed(
        fit, T / np.linalg.norm(T @ G, axis=1)[:, None]
    )  # of unit length: coefficients are fluxes


def transformed(fit: Fit, T: Float[np.ndarray, "rank rank"]) -> Fit:
    """The same A G with the basis T G; coefficients go by the inverse."""
    back = np.linalg.inv(T)
    population = PopulationLaw(fit.population.mean @ back, back.T @ fit.population.covariance @ back)
    return replace(
        fit,
        basis=(T @ fit.basis).astype(fit.dtype),
        coefficients=(fit.coefficients @ back).astype(fit.coefficients.dtype),
        coefficient_covariance=(back.T @ fit.coefficient_covariance @ back).astype(fit.coefficients.dtype),
        basis_covariance=(T @ fit.basis_covariance @ T.T).astype(fit.basis_covariance.dtype),
        population=population,
        moments=np.diagonal(population.covariance) + population.mean**2,
        near_equal=(),
    )


def muted(fit: Fit, kept: Sequence[int]) -> Fit:
    """The same fit with all other components silent: of the same shape, so that nothing is compiled."""
    heard = np.isin(np.arange(fit.rank), kept)
    basis = np.where(heard[:, None], fit.basis, 0).astype(fit.dtype)
    covariance = np.where(heard[:, None] & heard, fit.basis_covariance, 0).astype(fit.basis_covariance.dtype)
    return replace(fit, basis=basis, basis_covariance=covariance)


def with_components(fit: Fit, kept: Sequence[int]) -> Fit:
    """The fit of some components, in the gauge of all fits; coefficients are those beside the others."""
    across, down = np.ix_(kept, kept)
    some = list(kept)
    part = replace(
        fit,
        basis=fit.basis[some],
        coefficients=fit.coefficients[:, some],
        coefficient_covariance=fit.coefficient_covariance[:, across, down],
        basis_covariance=fit.basis_covariance[:, across, down],
        population=PopulationLaw(fit.population.mean[some], fit.population.covariance[across, down]),
        moments=fit.moments[some],
        config=dict(fit.config) | {"rank": len(some)},
    )
    upper = np.linalg.qr(part.basis.astype(float).T)[1]
    part = transformed(part, np.linalg.inv(upper.T))
    moment = part.population.covariance + np.outer(part.population.mean, part.population.mean)
    turn = np.linalg.eigh(moment)[1].T[::-1]
    sign = np.sign([row[np.abs(row).argmax()] for row in turn @ part.basis])
    return transformed(part, turn * sign[:, None])
