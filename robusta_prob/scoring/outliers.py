"""`surprise`: how unexpected every object is, as a calibrated probability, and in what way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy import special

from robusta_prob.data import Dataset
from robusta_prob.inference.checks import check_types, seed_of
from robusta_prob.inference.projection import check_same_objects, check_same_pixels, project
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.inference.results import in_training as known_to
from robusta_prob.scoring.calibration import Null, q_values
from robusta_prob.scoring.evidence import LEFT, NULL_OBJECTS, Evidence, gather, learn
from robusta_prob.scoring.kinds import (
    PIXELS,
    Windows,
    find_windows,
    measured,
    name_kinds,
    no_windows,
    structure,
)
from robusta_prob.scoring.lines import LineSearch, checked_lines
from robusta_prob.scoring.manifold import mahalanobis
from robusta_prob.scoring.predictive import Cells, cells
from robusta_prob.scoring.replicates import FEW, LEAST, Judged, calibrated, with_replicated_law
from robusta_prob.scoring.results import FLAG, EmpiricalNull, ObjectSurprise, PixelSurprise, Surprise
from robusta_prob.scoring.runs import Search, log_p_of_best, search_law, taken_by_basis, widths_within

NORMAL_QUARTILE = 0.67449
LOOKED_AT = 4096  # flagged objects at once


def surprise(
    fit: Fit,
    data: Dataset,
    projection: Projection | None = None,
    *,
    key: Array | int = 0,
    in_training: Bool[np.ndarray, " objects"] | bool | None = None,
    windows: Sequence[int] | None = None,
    lines: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
    replicates: int | None = None,
    null: Null | None = None,
    empirical_null: bool = False,
    pixel: bool = False,
    out: Mapping[str, Any] | None = None,
) -> Surprise:
    """Score how unexpected every object is under the fitted model, and say in what way.

    Every residual is divided by its predictive standard deviation (noise, coefficients, basis); the
    null law of these z is learned with a contaminating part, which bounds what one bad pixel can say, and
    with the correlation of neighbouring pixels. An object's p-value is the saddlepoint tail of its summed
    surprise; where few pixels are observed, it is calibrated by replicates with coefficients fitted anew.
    Runs of pixels (the best of all windows) and single pixels have p-values of their own.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    projection : Projection, optional
        Of these data, if there is one already.
    key : JAX key or int
        Of the replicates.
    in_training : bool or (N,) array, optional
        Which objects the fit was trained on; default: those whose id and flux the fit knows.
    windows : sequence of int, optional
        Widths of the runs to search for [pixels]; default: 2 to 64, in steps of 1.3 to 1.5.
    lines : positions, or positions by name, optional
        Matched filters, in units of the grid: the positions of a set count together. Results in `.lines`, NaN
        where less than half of what the lines would show is observed. They neither flag nor name an object.
    replicates : int, optional
        Of every object, at least 50; 0 for none. Default: 20,000 in all, of objects with fewer than ten
        observed pixels per component.
    null : Null, optional
        The null law of another call, such as `rp.surprise(fit, training_data).null`: p-values then do not
        depend on which objects are scored together, but for what the holes of these do to p_run, and but for
        the regression over replicates where few pixels are observed. Default: learned from these data, or
        for fewer than 50 objects the noise law of the fit.
    empirical_null : bool
        Judge each object against the bulk of these objects instead, p_value and p_run: for surveys whose
        errors are wrong for everyone. Kinds, windows, lines and single pixels stay with the null law. The
        bulk of the objects' z is always reported in `.empirical`.
    pixel : bool
        Also return z, p and weight per cell, (N, M) each, in `.pixel`.
    out : mapping of "z", "p", "weight" to array-like, optional
        Write those of them that are there block by block, such as into the datasets of an open HDF5 group,
        which need not fit into memory. `.pixel` then holds these.

    Returns
    -------
    Surprise
        `.flagged` is the list with at most 5 % false discoveries expected, by p_value or p_run; so is
        `.object.q_value < 0.05`, by p_value alone. `.object.kind` says of what is in either list: "lines" (a
        few windows are off, the rest is normal; see `.windows`), "foreign" (structure along the spectrum),
        "errors" (underestimated, no structure), "isolated pixels", the last also where p_pixel alone is
        flagged, or "unclear".

    Raises
    ------
    ValueError
        If the pixels are not those of the fit, no object has more than K observed pixels, or an argument
        is out of range.
    TypeError
        If an argument is of the wrong kind.

    References
    ----------
    Lugannani & Rice (1980), saddlepoint tails; Benjamini & Hochberg (1995), q-values; Efron (2004), JASA 99,
    96, empirical null.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> scores = rp.surprise(rp.fit(survey.data, rank=5), survey.data)
    >>> scores.object.p_value.shape
    (200,)
    """
    check_same_pixels(fit, data)
    check_types(None, None, None, key, **({} if replicates is None else {"replicates": replicates}))
    if replicates is not None and not (replicates == 0 or replicates >= LEAST):
        raise ValueError(f"replicates must be 0, or at least {LEAST} of each object, got {replicates}")
    n, m = data.shape
    for name, value in (("empirical_null", empirical_null), ("pixel", pixel)):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    if empirical_null and data.shape[0] < NULL_OBJECTS:
        raise ValueError(f"an empirical null needs at least {NULL_OBJECTS} objects, got {data.shape[0]}")
    if null is not None and not isinstance(null, Null):
        raise TypeError(f"null must be the .null of another call of rp.surprise, got {type(null).__name__}")
    widths = widths_within(m, windows)
    sets = checked_lines(lines, data.grid)
    trained = _membership(fit, data, in_training)
    if projection is None:
        projection = project(fit, data)
    check_same_objects(projection, data)
    observed = data.observed & fit.trained
    count = observed.sum(1)
    scored = count > fit.rank
    if not scored.any():
        raise ValueError(f"no object has more than rank = {fit.rank} observed pixels: nothing can be scored")
    judged = Judged(data, projection, trained)
    taken = taken_by_basis(fit, data)
    few = np.flatnonzero(scored & ((count < FEW * fit.rank) if replicates is None else replicates > 0))
    if null is None:
        null = learn(fit, data, projection, trained, scored, taken)
        null = with_replicated_law(fit, judged, few, null, seed_of(key))
    search = search_law(null, widths, observed[scored], taken)

    cell = _pixels((n, m), fit.dtype, pixel, out)
    searches = {name: LineSearch.of(fit, data, null, positions) for name, positions in sets.items()}

    def keep(here: slice, block: Cells) -> None:
        for one in searches.values():
            one.add(block, projection.covariance[here])
        if cell.z is not None:
            cell.z[here] = np.where(block.seen, block.z, np.nan)
        if cell.p is not None:
            cell.p[here] = np.where(block.seen, _two_sided(block.z, null), np.nan)
        if cell.weight is not None:
            cell.weight[here] = np.where(block.seen, block.weight, np.nan)

    evidence = gather(fit, *judged, null, widths, keep)
    scored &= evidence.observed - evidence.taken > LEFT
    z = np.where(scored, -special.ndtri_exp(evidence.log_p(null)), np.nan)
    few = few[scored[few]]
    if len(few):
        z[few] = calibrated(fit, judged.take(few), z[few], null, replicates, seed_of(key))
    log_p_run = np.where(scored, log_p_of_best(search, evidence.log_p_window, evidence.observed), np.nan)
    bulk = _bulk(z, empirical_null)
    if empirical_null:
        z = (z - bulk.centre) / bulk.width
        of_runs = -special.ndtri_exp(log_p_run)
        run_bulk = _bulk(of_runs, True)
        log_p_run = special.log_ndtr(-(of_runs - run_bulk.centre) / run_bulk.width)
    log_p = special.log_ndtr(-z)
    p, p_run = np.exp(log_p), np.exp(log_p_run)
    of_largest = np.minimum(_two_sided(evidence.largest, null), 1.0 - 1e-16)
    p_pixel = np.where(scored, -np.expm1(evidence.observed * np.log1p(-of_largest)), np.nan)
    distance, directions = mahalanobis(fit, projection)
    p_mahalanobis = np.where(directions > 0, special.chdtrc(np.maximum(directions, 1), distance), np.nan)
    q, q_run, q_pixel, q_mahalanobis = map(q_values, (p, p_run, p_pixel, p_mahalanobis))

    q_any = q_values(np.minimum(2.0 * np.fmin(p, p_run), 1.0))
    flagged = np.flatnonzero((q < FLAG) | (q_run < FLAG) | (q_any < FLAG))
    kind = np.where(q_pixel < FLAG, PIXELS, "")
    kind[flagged], found = _look(fit, judged, flagged, evidence, null, search)
    reason = np.select(
        [scored, count == 0, count <= fit.rank],
        ["", "no observed pixel", f"not more than {fit.rank} observed pixels"],
        "the fit took all degrees of freedom of this object",
    )
    excess = evidence.surprise - count * null.expected_surprise(evidence.level)
    return Surprise(
        ObjectSurprise(
            score=np.where(scored, excess, np.nan),
            z=z,
            p_value=p,
            log_p=log_p,
            q_value=q,
            kind=kind,
            p_run=p_run,
            q_run=q_run,
            q_any=q_any,
            p_pixel=p_pixel,
            q_pixel=q_pixel,
            mahalanobis=distance,
            p_mahalanobis=p_mahalanobis,
            q_mahalanobis=q_mahalanobis,
            scale=np.where(scored, evidence.scale, np.nan),
            structure=np.where(scored, structure(null, evidence.lag1, count), np.nan),
            median_weight=evidence.median_weight,
            low_weight=evidence.low_weight,
            n_observed=count,
            in_training=trained,
            reason=reason,
        ),
        data.ids,
        null,
        bulk,
        found,
        MappingProxyType({name: one.result() for name, one in searches.items()}),
        None if all(x is None for x in cell) else cell,
    )


def _pixels(
    shape: tuple[int, int], dtype: np.dtype, wanted: bool, out: Mapping[str, Any] | None
) -> PixelSurprise:
    """Where the entries of cells are to be written; None for those that are not."""
    if out is None:
        return PixelSurprise(*(np.empty(shape, dtype) if wanted else None for _ in PixelSurprise._fields))
    given = {name: out[name] for name in PixelSurprise._fields if name in out}
    if not given or len(given) < len(out):
        raise ValueError(f"out must have some of 'z', 'p' and 'weight' and nothing else, got {sorted(out)}")
    for name, target in given.items():
        if tuple(target.shape) != shape or np.dtype(target.dtype).kind != "f":
            raise ValueError(
                f"out[{name!r}] must hold floats in shape {shape}, "
                f"got {target.dtype} in {tuple(target.shape)}"
            )
    return PixelSurprise(*(given.get(name) for name in PixelSurprise._fields))


def _bulk(z: Float[np.ndarray, " objects"], applied: bool) -> EmpiricalNull:
    known = z[~np.isnan(z)]
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    return EmpiricalNull(float(middle), max(float(high - low) / (2.0 * NORMAL_QUARTILE), 1e-3), applied)


def _look(
    fit: Fit,
    judged: Judged,
    rows: Int[np.ndarray, " flagged"],
    evidence: Evidence,
    null: Null,
    search: Search,
) -> tuple[list[str], Windows]:
    """Kinds and windows of the objects `rows`, at which a closer look is worth the time."""
    kinds: list[str] = []
    windows = [no_windows(judged.data.ids)]
    for start in range(0, len(rows), LOOKED_AT):
        here = rows[start : start + LOOKED_AT]
        part = judged.take(here)
        blocks = [block for _, block in cells(fit, *part)]
        cell = Cells(*(np.concatenate(x) for x in zip(*blocks, strict=True)))
        scale = evidence.scale[here]
        found = find_windows(cell.z, cell.seen, scale, null, search)
        kinds += name_kinds(cell, scale, evidence.level[here], found, null)
        windows.append(
            measured(found, cell, fit, part.projection.covariance, part.data.grid, here, part.data.ids, null)
        )
    return kinds, Windows(*(np.concatenate(x) for x in zip(*windows, strict=True)))


def _membership(fit: Fit, data: Dataset, given: Any) -> Bool[np.ndarray, " objects"]:
    if given is None:
        return known_to(fit, data)
    trained = np.asarray(given)
    if trained.dtype != bool:
        raise TypeError(f"in_training must be boolean, one or one per object; got dtype {trained.dtype}")
    if trained.shape not in ((), data.shape[:1]):
        raise ValueError(f"in_training must have shape ({data.shape[0]},), got {trained.shape}")
    return np.broadcast_to(trained, data.shape[:1])


def _two_sided(z: Float[np.ndarray, "rows pixels"], null: Null) -> Float[np.ndarray, "rows pixels"]:
    size = -np.abs(z.astype(float)) / null.scale
    if null.inverse_df < 1e-6:
        return 2.0 * special.ndtr(size)
    return 2.0 * special.stdtr(1.0 / null.inverse_df, size)
