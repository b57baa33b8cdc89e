"""`surprise`: how unexpected every object is, as a calibrated probability, and in what way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_pixels
from robusta_prob.inference.blocks import rows_per_batch
from robusta_prob.inference.checks import seed_of
from robusta_prob.inference.progress import Rows
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.scoring.calibration import Null, q_values
from robusta_prob.scoring.empirical import EmpiricalNull
from robusta_prob.scoring.evidence import Evidence, gather, learn
from robusta_prob.scoring.kinds import (
    LINES,
    PIXELS,
    UNCLEAR,
    Windows,
    find_windows,
    measured,
    name_kinds,
    no_windows,
    structure,
)
from robusta_prob.scoring.lines import LineSearch, checked_lines, held_less
from robusta_prob.scoring.predictive import Cells, Judged, cells, taken_by_basis
from robusta_prob.scoring.replicates import by_replicates, with_replicated_law
from robusta_prob.scoring.request import (
    check_search,
    check_settings,
    checked_held_out,
    judged_of,
    pixel_target,
    write_cells,
)
from robusta_prob.scoring.results import (
    FLAG,
    ObjectSurprise,
    Settings,
    Surprise,
)
from robusta_prob.scoring.runs import widths_within
from robusta_prob.scoring.search import Search, sampled, search_law
from robusta_prob.scoring.verdict import Verdict, verdict_on

LOOKED_AT = 4096  # flagged objects at once


def surprise(
    fit: Fit,
    data: Dataset,
    projection: Projection | None = None,
    *,
    key: Array | int = 0,
    in_training: Bool[np.ndarray, " objects"] | bool | None = None,
    held_out: Bool[np.ndarray, "objects pixels"] | None = None,
    windows: Sequence[int] | None = None,
    lines: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
    flag_lines: bool = False,
    replicates: int | None = None,
    robustness: float | None = None,
    null: Null | None = None,
    search: Search | None = None,
    empirical_null: bool | str | EmpiricalNull = False,
    pixel: bool = False,
    out: Mapping[str, Any] | None = None,
    callback: Callable[[Rows], None] | None = None,
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
    held_out : (N, M) array of bool, optional
        Cells that neither coefficients nor basis were fitted to, such as hidden segments. Their residuals are
        as wide as predictions of new data are; they are judged one by one, in `.pixel`, and objects by all
        other cells. A projection that is given must be of `data.hide(held_out)`, and a fit to training
        objects too.
    windows : sequence of int, optional
        Widths of the runs to search for [pixels]; default: 2 to 64, in steps of 1.3 to 1.5.
    lines : positions, or positions by name, optional
        Matched filters, in units of the grid: the positions of a set count together. Results in `.lines`, NaN
        where less than half of what the lines would show is observed. Objects far from the population are
        held by it less than in the fit.
    flag_lines : bool
        Whether these sets are part of the question: `q_any` is then by (2 + sets) times the least of
        p_value, p_run and their p-values, and what is listed by them, without structure and with the right
        errors, is "lines". Else they neither flag nor name an object.
    replicates : int, optional
        Of every object, at least 50; 0 for none. Default: 20,000 in all, of objects with fewer than ten
        observed pixels per component.
    robustness : float, optional
        The scale Q of the published scores, quantiles of Q^2 / (Q^2 + residual^2 ivar). Default: of the
        robust weights under the loss that was fitted.
    null : Null, optional
        The null law of another call, such as `rp.surprise(fit, training_data).null`: p-values then do not
        depend on which objects are scored together, but for what the holes of these do to p_run, and but for
        the regression over replicates where few pixels are observed. Default: learned from these data, or
        for fewer than 50 objects the noise law of the fit.
    search : Search, optional
        How runs were calibrated in another call with this null law, its `.search`, whose holes then count.
    empirical_null : bool, "by error" or EmpiricalNull
        Judge each object, p_value and p_run, against the bulk of these objects instead, or against that of
        another call, its `.empirical`: for surveys whose errors are wrong for everyone. "by error" judges it
        against the bulk of objects with similar errors, relative to how far they are from the population, and
        lines that flag, too: for surveys of which bright objects are more varied than a basis can describe.
        Kinds, windows, other lines and single pixels stay with the null law. The bulk of these objects is
        reported in `.empirical`.
    pixel : bool
        Also return z, p and weight per cell, (N, M) each, in `.pixel`.
    out : mapping of "z", "p", "weight" to array-like, optional
        Write those of them that are there block by block, such as into the datasets of an open HDF5 group,
        which need not fit into memory. `.pixel` then holds these.
    callback : callable, optional
        Called with `Rows` as objects are projected and scored; `rp.Progress("score")` is a progress bar.

    Returns
    -------
    Surprise
        `.flagged` is the list with at most 5 % false discoveries expected, by p_value or p_run (or `lines`);
        so is `.object.q_value < 0.05`, by p_value alone. `.object.kind` says of what is in one of the lists,
        by q_value, q_run or q_any: "lines" (a few windows are off, the rest normal; see `.windows`),
        "foreign" (structure along the spectrum), "errors" (underestimated, no structure), "isolated
        pixels", the last also where p_pixel alone is flagged, or "unclear".

    Raises
    ------
    ValueError
        If the pixels are not those of the fit; no object has more than K observed pixels; the projection is
        of other objects or another rank; `windows` are not between 2 pixels and half the spectrum, or
        `replicates` neither 0 nor at least 50; all of a set of lines lie outside the grid; `held_out` or an
        entry of `out` has another shape than the data, or `out` other names; `out` comes with `pixel`, or
        `held_out` with neither; the null law is impossible, or an empirical one has fewer than 50 objects.
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
    check_settings(data, key, replicates, null, empirical_null, pixel, flag_lines, robustness)
    widths, sets = widths_within(data.shape[1], windows), checked_lines(lines, data.grid)
    target = pixel_target(data.shape, fit.dtype, pixel, out)
    held_out = checked_held_out(data, held_out, asked=any(x is not None for x in target))
    judged = judged_of(fit, data, projection, in_training, held_out, callback)

    count = judged.n_fitted(fit.trained)
    known = count > fit.rank
    if not known.any():
        raise ValueError(f"no object has more than rank = {fit.rank} fitted pixels: nothing can be scored")
    few = np.flatnonzero(known & by_replicates(count, fit.rank, replicates))

    taken = taken_by_basis(fit, judged)
    if null is None:
        null = with_replicated_law(fit, judged, few, learn(fit, judged, known, taken), seed_of(key))
    if search is None:
        search = search_law(null, widths, _holes(fit, judged, np.flatnonzero(known)), taken)
    check_search(search, null, widths)
    searches = {name: LineSearch(fit, data, null, positions) for name, positions in sets.items()}

    def keep(here: slice, block: Cells) -> None:
        if searches:
            cells_and_spread = held_less(fit, block, judged.projection.take(np.arange(here.start, here.stop)))
        for one in searches.values():
            one.add(*cells_and_spread)
        write_cells(target, here, block, null)
        if callback is not None:
            callback(Rows(here.stop, data.shape[0], "score"))

    evidence = gather(fit, judged, null, widths, keep, robustness)
    told = {name: one.result() for name, one in searches.items()}
    verdict = verdict_on(
        fit,
        judged,
        evidence,
        null,
        search,
        known,
        few,
        lines=told if flag_lines else {},
        replicates=replicates,
        seed=seed_of(key),
        empirical_null=empirical_null,
    )
    listed = np.flatnonzero(verdict.listed)
    kind = np.where(q_values(verdict.p_pixel) < FLAG, PIXELS, "")
    if verdict.bulk.applied:
        told |= {name: told[name].with_deviates(z) for name, z in verdict.z_lines.items()}
    kind[listed], found = _look(fit, judged, listed, evidence, null, search, taken)
    if flag_lines:
        kind[verdict.listed & verdict.told_by_lines & np.isin(kind, (UNCLEAR, PIXELS))] = LINES
    return Surprise(
        _table(fit, judged, evidence, verdict, null, taken, kind),
        data.ids,
        null,
        verdict.bulk,
        found,
        MappingProxyType(told),
        None if all(x is None for x in target) else target,
        Settings(
            None if windows is None else widths, replicates, MappingProxyType(sets), flag_lines, robustness
        ),
        judged.projection.origin if held_out is None else None,
        search,
        verdict.level,
    )


def _holes(fit: Fit, judged: Judged, rows: Int[np.ndarray, " known"]) -> Bool[np.ndarray, "some pixels"]:
    """Where some of these objects are observed."""
    some = judged.take(rows[sampled(len(rows), judged.data.shape[1])])
    return some.fitted().data.observed & fit.trained


def _look(
    fit: Fit,
    judged: Judged,
    rows: Int[np.ndarray, " flagged"],
    evidence: Evidence,
    null: Null,
    search: Search,
    taken: Float[np.ndarray, "rank pixels"],
) -> tuple[list[str], Windows]:
    """Kinds and windows of the objects `rows`, at which a closer look is worth the time."""
    kinds: list[str] = []
    windows = [no_windows(judged.data.ids)]
    for start in range(0, len(rows), LOOKED_AT):
        here = rows[start : start + LOOKED_AT]
        part = judged.take(here)
        blocks = [block for _, block in cells(fit, part, rows_per_batch(judged.data))]
        cell = Cells(*(np.concatenate(x) for x in zip(*blocks, strict=True)))
        scale = evidence.scale[here]
        found = find_windows(cell.z, cell.seen, scale, evidence.level[here], null, search)
        kinds += name_kinds(cell, scale, evidence.level[here], found, null, taken)
        windows.append(
            measured(found, cell, fit, part.projection.covariance, part.data.grid, here, part.data.ids, null)
        )
    return kinds, Windows(*(np.concatenate(x) for x in zip(*windows, strict=True)))


def _table(
    fit: Fit,
    judged: Judged,
    evidence: Evidence,
    verdict: Verdict,
    null: Null,
    taken: Float[np.ndarray, "rank pixels"],
    kind: Shaped[np.ndarray, " objects"],
) -> ObjectSurprise:
    """All columns; NaN in those that need a score where there is none."""
    scored, observed = ~np.isnan(verdict.z), evidence.observed

    def known(values: Float[np.ndarray, " objects"]) -> Float[np.ndarray, " objects"]:
        return np.where(scored, values, np.nan)

    return ObjectSurprise(
        score=known(evidence.surprise - observed * null.expected_surprise(evidence.level)),
        z=verdict.z,
        p_value=verdict.p,
        log_p=verdict.log_p,
        q_value=verdict.q,
        kind=kind,
        p_run=verdict.p_run,
        log_p_run=verdict.log_p_run,
        q_run=verdict.q_run,
        q_any=verdict.q_any,
        p_pixel=verdict.p_pixel,
        q_pixel=q_values(verdict.p_pixel),
        mahalanobis=verdict.mahalanobis,
        p_mahalanobis=verdict.p_mahalanobis,
        q_mahalanobis=q_values(verdict.p_mahalanobis),
        scale=known(evidence.scale),
        structure=known(structure(null, evidence.lag1, evidence.pairs, taken)),
        median_weight=evidence.median_weight,
        low_weight=evidence.low_weight,
        n_observed=observed,
        in_training=judged.trained,
        reason=np.select(
            [scored, observed == 0, observed <= fit.rank],
            ["", f"no {_pixel_of(judged)}", f"not more than {fit.rank} {_pixel_of(judged)}s"],
            "the fit took all degrees of freedom of this object",
        ),
    )


def _pixel_of(judged: Judged) -> str:
    return "observed pixel" if judged.held_out is None else "fitted pixel"
