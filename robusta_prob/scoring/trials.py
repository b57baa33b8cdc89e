"""One kind of anomaly, injected into objects that are then scored as the others were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from robusta_prob.data import Dataset, dataset
from robusta_prob.inference.projection import reconstruct
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.scoring.injection import inject
from robusta_prob.scoring.outliers import surprise
from robusta_prob.scoring.recovered import LISTS, Trials
from robusta_prob.scoring.replicates import by_replicates
from robusta_prob.scoring.results import Surprise

COMPANY = 1000  # objects as they are, at most, among which those with replicates are scored,
MANY = 20  # so many times as many as are injected


def p_values(scores: Surprise) -> Float[np.ndarray, "objects lists"]:
    """The columns of `lists_of`; NaN where there is none."""
    of, flagging = scores.object, scores.lines.values() if scores.settings.flag_lines else ()
    p = np.stack([of.p_value, of.p_run, of.p_pixel, *(one.p_value for one in flagging)], axis=1)
    return np.column_stack([p, scores.least_p, np.fmin.reduce(p, axis=1)])


def lists_of(scores: Surprise) -> tuple[str, ...]:
    """Names of the columns of `p_values`."""
    return (*LISTS[:-2], *(scores.lines if scores.settings.flag_lines else ()), *LISTS[-2:])


def tried(
    fit: Fit,
    data: Dataset,
    projection: Projection,
    scores: Surprise,
    rows: Int[np.ndarray, " trials"],
    kind: str,
    amplitude: Float[np.ndarray, " trials"],
    seed: int,
    options: Mapping[str, Any],
) -> Trials:
    """Inject one kind, and score what comes of it."""
    part = data.take(rows).load()
    clean = reconstruct(fit, projection, rows=rows)
    done = inject(part, kind, amplitude, key=seed, clean=clean, **options)
    p, named = scored(fit, done.data, scores, rows, data, seed)
    change = (done.data.flux.astype(float) - part.flux) * data.unit
    beyond = _beyond(fit, part, change)
    return Trials(rows, np.full(len(rows), kind), amplitude, done.strength, beyond, p, named)


def scored(
    fit: Fit, injected: Dataset, scores: Surprise, rows: Int[np.ndarray, " trials"], data: Dataset, seed: int
) -> tuple[Float[np.ndarray, "trials lists"], Shaped[np.ndarray, " trials"]]:
    """p-values and kinds of objects that were the `rows` of `data`, found as `scores` were.

    Those that are judged by replicates are judged by what all such objects of a call show: a batch of
    injected ones is scored among many more that are as they were.
    """
    of, settings = scores.object, scores.settings
    alike: dict[str, Any] = {
        "null": scores.null,
        "search": scores.search,
        "empirical_null": scores.empirical if scores.empirical.applied else False,
        "windows": settings.windows,
        "replicates": settings.replicates,
    }
    if settings.flag_lines:
        alike |= {"lines": settings.lines, "flag_lines": True}
    few = by_replicates(injected.count(fit.trained), fit.rank, settings.replicates)
    p, named = np.empty((len(rows), len(lists_of(scores)))), np.empty(len(rows), object)
    many = np.flatnonzero(~few)
    if len(many):
        found = surprise(fit, injected.take(many), in_training=of.in_training[rows[many]], **alike)
        p[many], named[many] = p_values(found), found.object.kind
    if few.any():
        untouched = by_replicates(of.n_observed, fit.rank, settings.replicates) & ~np.isnan(of.p_value)
        company = np.random.default_rng(seed).permutation(np.flatnonzero(untouched))[:COMPANY]
        step = max(1, len(company) // MANY)
        for start in range(0, few.sum(), step):
            batch = np.flatnonzero(few)[start : start + step]
            others = company[len(batch) :]
            both = _stacked(injected.take(batch), data.take(others).load() if len(others) else None)
            known = of.in_training[np.concatenate([rows[batch], others])]
            found = surprise(fit, both, key=seed, in_training=known, **alike)
            p[batch], named[batch] = (x[: len(batch)] for x in (p_values(found), found.object.kind))
    return p, named.astype(str)


def _stacked(first: Dataset, second: Dataset | None) -> Dataset:
    """Objects of two data sets that share unit and grid, numbered anew."""
    parts = [part for part in (first, second) if part is not None]
    ivar = np.concatenate([part.ivar for part in parts]).astype(float) / first.unit**2
    flux = np.concatenate([part.flux for part in parts]).astype(float) * first.unit
    return dataset(flux, ivar, grid=first.grid, dtype=str(first.dtype), unit=first.unit)


def _beyond(
    fit: Fit, data: Dataset, change: Float[np.ndarray, "trials pixels"]
) -> Float[np.ndarray, " trials"]:
    """sqrt(sum ivar r^2) of what least-squares coefficients leave over of a change [sigma]."""
    ivar = np.where(fit.trained, data.ivar, 0.0).astype(float) / data.unit**2
    G = fit.basis.astype(float)
    gram = np.einsum("nm,km,lm->nkl", ivar, G, G, optimize=True)
    A = np.einsum("nkl,nl->nk", np.linalg.pinv(gram, hermitian=True), (ivar * change) @ G.T)
    return np.sqrt((ivar * (change - A @ G) ** 2).sum(1))
