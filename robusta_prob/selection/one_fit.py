"""`relevance`: one generous fit, and how many of its components new objects have any use for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from robusta_prob.data import Dataset
from robusta_prob.inference import checks
from robusta_prob.inference.problem import stride_of
from robusta_prob.inference.progress import Rows
from robusta_prob.inference.projection import robust_weights
from robusta_prob.inference.results import Fit, PopulationLaw
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior
from robusta_prob.partition import drawn
from robusta_prob.selection.candidates import Settings, fitted, made
from robusta_prob.selection.grid import check_shares, checked_ranks
from robusta_prob.selection.held_out import Judgement, judge, reach
from robusta_prob.selection.results import Candidate, Difference, Selection, choose, paired
from robusta_prob.selection.segments import segments

TELLING = 2000  # objects that tell in which directions there is information
TINY = 1e-300


class Component(NamedTuple):
    """A component of the generous fit."""

    scale: float  # root of its second moment in the population, learned [flux]
    gain: Difference  # of the score by having it beside all the others


@dataclass(frozen=True, eq=False)
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

    One fit and one compilation, where a grid needs one for each rank: the quick look. Candidates are
    components of the generous fit, under its noise law, and not fits of their own.

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
        `.rank` components are supported, `.components` has their scales and gains, `.fit()` is made of them.

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
    checks.check_data(data)
    (rank,) = checked_ranks([rank])
    check_shares(train, hidden, guard)
    if prior is not None and prior.is_flat:
        raise ValueError("under a flat prior components have no scales: leave out prior=, or use rp.select")
    seed = checks.seed_of(key)
    first, member = drawn(data, train, seed, group)
    learn, rest, groups = data.take(first), data.take(~first), member[~first]
    checks.check_learnable(learn, rank, noise or Noise())
    settings = Settings(noise or Noise(), prior, seed, tol, max_epochs, made(folder))
    whole, stride = fitted(learn, rank, None, settings, None), stride_of(learn)
    whole = by_information(whole, learn)
    width = max(1, reach(whole, learn, stride)) if guard is None else guard
    cells = segments(rest.shape[0], rest.shape[1], hidden, width, seed)
    done = 0

    def told(kept: Sequence[int]) -> Judgement:
        nonlocal done
        judgement = judge(muted(whole, kept), rest, cells, stride)
        done += 1
        if callback is not None:
            callback(Rows(done, 2 * rank, "relevance", " candidates"))
        return judgement

    every = range(rank)
    full = told(every)
    if not full.cells.any():
        raise ValueError("no hidden cell is observed: nothing can be judged; hide more, or give more objects")
    gains = [
        paired(full.density - told([k for k in every if k != left]).density, full.cells, groups)
        for left in (every if rank > 1 else ())
    ]
    order = sorted(every, key=lambda k: -gains[k].mean) if rank > 1 else [0]
    nested = [*(told(order[:size]) for size in range(1, rank)), full]
    candidates = tuple(
        Candidate(size, None, one.density, one.published, whole.status)
        for size, one in enumerate(nested, start=1)
    )
    scales = np.sqrt(whole.moments)
    return Relevance(
        candidates,
        choose(candidates, full.cells, groups),
        full.cells,
        rest.ids,
        groups,
        cells,
        {(size, None): with_components(whole, order[:size]) for size in range(1, rank + 1)},
        tuple(Component(float(scales[k]), gains[k]) for k in order) if rank > 1 else (),
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
    of_pixels = np.sqrt((weight / np.maximum(of_objects, TINY)[:, None] ** 2).mean(0))
    A, G = fit.coefficients[rows].astype(float), fit.basis.astype(float)
    right: np.ndarray = np.linalg.qr((G * of_pixels).T)[1]
    _, _, turn = np.linalg.svd(np.linalg.qr(A * of_objects[:, None])[1] @ right.T)
    T = turn @ np.linalg.inv(right.T)  # of the basis; coefficients go by its inverse
    back = np.linalg.inv(T)
    size = np.linalg.norm(T @ G, axis=1)  # rows of unit length, so that coefficients are fluxes
    T, back = T / size[:, None], back * size
    population = PopulationLaw(fit.population.mean @ back, back.T @ fit.population.covariance @ back)
    return replace(
        fit,
        basis=(T @ G).astype(fit.dtype),
        coefficients=(fit.coefficients @ back).astype(fit.coefficients.dtype),
        coefficient_covariance=(back.T @ fit.coefficient_covariance @ back).astype(fit.coefficients.dtype),
        basis_covariance=(T @ fit.basis_covariance @ T.T).astype(fit.dtype),
        population=population,
        moments=np.diagonal(population.covariance) + population.mean**2,
        near_equal=(),  # components are told apart by their information
    )


def muted(fit: Fit, kept: Sequence[int]) -> Fit:
    """The same fit with all other components silent: of the same shape, so that nothing is compiled."""
    heard = np.isin(np.arange(fit.rank), kept)
    basis = np.where(heard[:, None], fit.basis, 0).astype(fit.dtype)
    covariance = np.where(heard[:, None] & heard, fit.basis_covariance, 0).astype(fit.basis_covariance.dtype)
    return replace(fit, basis=basis, basis_covariance=covariance)


def with_components(fit: Fit, kept: Sequence[int]) -> Fit:
    """The fit of some components alone, in the order of the fit, with all else as it was."""
    some = np.sort(np.asarray(kept))
    across, down = np.ix_(some, some)
    population = PopulationLaw(fit.population.mean[some], fit.population.covariance[across, down])
    return replace(
        fit,
        basis=fit.basis[some],
        coefficients=fit.coefficients[:, some],
        coefficient_covariance=fit.coefficient_covariance[:, across, down],
        basis_covariance=fit.basis_covariance[:, across, down],
        population=population,
        moments=fit.moments[some],
        near_equal=(),
        config=dict(fit.config) | {"rank": len(some), "components": tuple(map(int, some))},
    )
