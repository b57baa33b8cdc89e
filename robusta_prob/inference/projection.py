"""New objects on a learned basis: coefficients with covariances, reconstructions, residuals, weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Shaped

from robusta_prob.data import Dataset, warn_user
from robusta_prob.inference import em
from robusta_prob.inference.anneal import FULL
from robusta_prob.inference.belonging import check_rank, check_same_objects, check_same_pixels
from robusta_prob.inference.blocks import BATCH_ROWS, Blocks, rows_per_batch
from robusta_prob.inference.checks import check_batch_rows, check_types
from robusta_prob.inference.digits import precision
from robusta_prob.inference.problem import Problem, stride_of
from robusta_prob.inference.progress import Rows
from robusta_prob.inference.quantities import Globals
from robusta_prob.inference.results import Fit, Origin, Projection, fingerprints_of, mark_of
from robusta_prob.inference.settle import NOTHING, covariances, settle
from robusta_prob.inference.threads import in_order
from robusta_prob.models.noise import Noise, robust_weight
from robusta_prob.models.priors import Prior
from robusta_prob.validate import frozen

FAR = 100.0  # ratio of typical fluxes from which on the unit is in doubt
ANNEALED_PASSES = 12  # at most, with object scales, so that a foreign object does not lock in at once


def project(
    fit: Fit,
    data: Dataset,
    *,
    batch_rows: int | None = None,
    callback: Callable[[Rows], None] | None = None,
) -> Projection:
    """Coefficients of objects on the basis of `fit`, with the fitted loss and prior.

    Objects are independent of each other. One with few observed pixels falls back to the population
    (unless the fit had a flat prior); one with none gets the population's mean and covariance.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the same M pixels.
    batch_rows : int, optional
        Objects per compiled call, a multiple of 128.
    callback : callable, optional
        Called with `Rows` after every such call; `robusta_prob.Progress("project")` is a progress bar.

    Returns
    -------
    Projection
        coefficients (N, K) in the user's flux unit, covariance (N, K, K) in its square.

    Raises
    ------
    ValueError
        If the pixels are not those of the fit, or `batch_rows` is no positive multiple of 128.
    TypeError
        If `fit` is no Fit, `data` no Dataset or `batch_rows` no integer.
    """
    check_same_pixels(fit, data)
    check_types(None, None, None, 0, batch_rows=batch_rows)
    check_batch_rows(batch_rows)
    ratio = data.unit / fit.unit
    if not 1.0 / FAR <= ratio <= FAR:
        warn_user(
            f"the typical flux of these data is {ratio:.2g} times that of the training data: "
            "is it in the unit of the fit?"
        )
    return projected(fit, data, batch_rows=batch_rows, callback=callback)


def projected(
    fit: Fit,
    data: Dataset,
    *,
    batch_rows: int | None = None,
    stride: int | None = None,
    callback: Callable[[Rows], None] | None = None,
) -> Projection:
    """`project`, unchecked; with the `stride` of the fit's own data nothing is compiled that was not."""
    unit = fit.unit
    with precision(fit.dtype):
        problem = _fixed_problem(fit, data, stride)
        shared = _shared(fit, problem)
    start, scale = np.asarray(fit.population.mean / unit), unit * np.eye(fit.rank)
    output = fit.coefficient_covariance.dtype

    def work(one: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        state = em.init(shared, [np.tile(start, (one.size, 1))])
        state, _ = settle(problem, state, one, FULL, ANNEALED_PASSES)
        state, _ = settle(problem, state, one)
        spread = covariances(state, one, fit.information, scale, output)
        (block,) = one
        marks = fingerprints_of(block.flux, block.rows)
        return one.gather([state.local[0].coefficients]), spread, marks

    means, spreads, fingerprints, done = [], [], [], 0
    blocks = Blocks.of(data, unit, batch_rows, fit.dtype, known=fit.trained, at_hand=False)
    with precision(fit.dtype):
        for mean, spread, marks in in_order(work, blocks.one_by_one()):
            means.append(mean)
            spreads.append(spread)
            fingerprints.append(marks)
            done += len(mean)
            if callback is not None:
                callback(Rows(done, data.shape[0], "project"))
    covariance = np.concatenate(spreads)
    if fit.flat_prior:  # without a prior, fewer cells than coefficients determine nothing
        covariance[data.count(fit.trained) < fit.rank] = np.nan
    return Projection(
        frozen((np.concatenate(means).astype(float) * unit).astype(output)),
        frozen(covariance),
        data.ids,
        Origin(mark_of(fit), np.concatenate(fingerprints), unit, str(fit.dtype)),
    )


def reconstruct(
    fit: Fit,
    objects: Projection | Dataset | None = None,
    *,
    rows: Shaped[np.ndarray, " some"] | slice | None = None,
    out: Any = None,
) -> Any:
    """The model A G in the user's flux unit, (N, M); NaN at pixels that were never observed in training.

    Parameters
    ----------
    fit : Fit
    objects : Projection or Dataset, optional
        Whose coefficients; a Dataset is projected first. Default: the training objects.
    rows : indices, mask or slice, optional
        Only these objects.
    out : array-like with slice assignment, optional
        Where to write block by block (an HDF5 dataset, say); returned instead of a new array.

    Returns
    -------
    (N, M) array
        In the dtype of the coefficients, or `out`.

    Raises
    ------
    ValueError
        If the objects are of a fit of another rank or on other pixels, or `out` holds no floats in (N, M).
    TypeError
        If `objects` is neither a Projection nor a Dataset.
    """
    if isinstance(objects, Dataset):
        objects = project(fit, objects)
    elif objects is not None:
        check_rank(objects, fit.rank, "objects", "pass a Dataset, or what rp.project(fit, data) returns")
    A = (fit if objects is None else objects).coefficients
    A = A if rows is None else A[rows]
    basis = np.where(fit.trained, fit.basis, np.nan).astype(fit.dtype)
    slices = (slice(start, start + BATCH_ROWS) for start in range(0, len(A), BATCH_ROWS))
    return collect(((here, A[here] @ basis) for here in slices), (len(A), basis.shape[1]), A.dtype, out)


def residuals(
    fit: Fit,
    data: Dataset,
    projection: Projection | None = None,
    *,
    rows: Shaped[np.ndarray, " some"] | slice | None = None,
    out: Any = None,
) -> Any:
    """flux - A G in the user's flux unit, (N, M); NaN where missing or never observed in training.

    Parameters
    ----------
    fit : Fit
    data : Dataset
    projection : Projection, optional
        Of these data, if there is one already; else they are projected first.
    rows, out
        As in `reconstruct`.

    Returns
    -------
    (N, M) array in the dtype of the fit, or `out`

    Raises
    ------
    ValueError
        If the pixels are not those of the fit, the projection is of a fit of another rank, of other objects
        or of these in another order, or `out` holds no floats in (N, M).
    TypeError
        If `fit` is no Fit, `data` no Dataset or `projection` no Projection.
    """
    part, blocks = evaluate(fit, data, projection, rows)
    values = (
        (here, np.where(seen, (flux - model) * fit.unit, np.nan)) for here, flux, _, seen, model in blocks
    )
    return collect(values, part.shape, fit.dtype, out)


def robust_weights(
    fit: Fit,
    data: Dataset,
    projection: Projection | None = None,
    *,
    rows: Shaped[np.ndarray, " some"] | slice | None = None,
    out: Any = None,
) -> Any:
    """Weight of every cell in the fit, over that of a perfect one, (N, M) in [0, 1]; NaN where missing.

    Without contamination nu/(nu + z^2), the published robust weight: Hilder, Hogg, Casey & Rix write it
    Q^2/(Q^2 + r^2/sigma^2), with Q^2 = nu s^2.

    Parameters
    ----------
    fit, data, projection, rows, out
        As in `residuals`.

    Returns
    -------
    (N, M) array in the dtype of the fit, or `out`

    Raises
    ------
    ValueError, TypeError
        As in `residuals`.
    """
    part, blocks = evaluate(fit, data, projection, rows)
    law = fit.loss.in_unit(fit.unit)

    def weights() -> Iterator[tuple[slice, np.ndarray]]:
        for here, flux, ivar, seen, model in blocks:
            with precision(fit.dtype):
                weight = robust_weight((flux - model) ** 2, ivar, law)
            yield here, np.where(seen, np.asarray(weight), np.nan)

    return collect(weights(), part.shape, fit.dtype, out)


def evaluate(
    fit: Fit,
    data: Dataset,
    projection: Projection | None = None,
    rows: Shaped[np.ndarray, " some"] | slice | None = None,
) -> tuple[Dataset, Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]]:
    """The chosen objects, and an iterator over (slice, flux, ivar, seen, model) in units of `fit.unit`.

    `seen` marks the cells that are observed and that the fit knows.
    """
    check_same_pixels(fit, data)
    if projection is not None:
        check_same_objects(projection, data, fit=fit, hidden=True)
    part = data if rows is None else data.take(rows)
    A = (project(fit, part) if projection is None else projection).coefficients
    A = A[rows] if projection is not None and rows is not None else A

    def blocks() -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        for here, flux, ivar in part.blocks(BATCH_ROWS, fit.unit):
            size = here.stop - here.start
            ivar = np.where(fit.trained, ivar[:size], 0).astype(fit.dtype)
            model = (A[here] / fit.unit).astype(fit.dtype) @ fit.basis
            yield here, flux[:size].astype(fit.dtype), ivar, ivar > 0, model

    return part, blocks()


def _fixed_problem(fit: Fit, data: Dataset, stride: int | None) -> Problem:
    prior = Prior.flat() if fit.flat_prior else Prior()
    noise = Noise(contamination=float(fit.loss.contamination))  # whether there is any is what counts
    if np.ndim(fit.loss.floor):
        stride = 1
    elif stride is None:
        stride = stride_of(data)  # the program of a fit of these data
    return Problem(data, fit.rank, noise, prior, NOTHING, True, fit.dtype, rows_per_batch(data), stride)


def _shared(fit: Fit, problem: Problem) -> Globals:
    population = problem.population(fit.population.mean / fit.unit, fit.population.covariance / fit.unit**2)
    return problem.shared(fit.basis, problem.law(fit.loss.in_unit(fit.unit)), population)


def collect(
    blocks: Iterable[tuple[slice, np.ndarray]], shape: tuple[int, int], dtype: np.dtype, out: Any
) -> Any:
    """Write blocks one by one into `out`, or into a new array."""
    if out is None:
        out = np.empty(shape, dtype)
    elif tuple(out.shape) != shape or np.dtype(out.dtype).kind != "f":
        raise ValueError(f"out must hold floats in shape {shape}, got {out.dtype} in {tuple(out.shape)}")
    for here, values in blocks:
        out[here] = values
    return out
