"""From evidence to probabilities: what each of the tests says of every object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from robusta_prob.inference.results import Fit
from robusta_prob.scoring.calibration import Null, q_values
from robusta_prob.scoring.empirical import OBJECT, RUN, EmpiricalNull, bulk_of, by_error
from robusta_prob.scoring.evidence import NULL_OBJECTS, Evidence
from robusta_prob.scoring.lines import Line
from robusta_prob.scoring.manifold import mahalanobis
from robusta_prob.scoring.predictive import Judged
from robusta_prob.scoring.replicates import calibrated
from robusta_prob.scoring.results import BY_ERROR, FLAG
from robusta_prob.scoring.search import Search, log_p_of_best


class Verdict(NamedTuple):
    """One entry per object; NaN where there is no score, or where nothing is known of the coefficients."""

    z: Float[np.ndarray, " objects"]  # of the object as a whole
    p: Float[np.ndarray, " objects"]  # P(as much surprise | normal object), and
    log_p: Float[np.ndarray, " objects"]  # its logarithm [nats], as p may underflow
    q: Float[np.ndarray, " objects"]
    p_run: Float[np.ndarray, " objects"]  # P(as strange a run anywhere | normal object), and
    log_p_run: Float[np.ndarray, " objects"]  # its logarithm [nats]
    q_run: Float[np.ndarray, " objects"]
    q_any: Float[np.ndarray, " objects"]  # of all that flag together (Bonferroni)
    p_pixel: Float[np.ndarray, " objects"]  # P(as large a |z| anywhere | no bad pixels)
    mahalanobis: Float[np.ndarray, " objects"]  # squared distance from the population
    p_mahalanobis: Float[np.ndarray, " objects"]
    bulk: EmpiricalNull  # of all z
    z_lines: Mapping[str, Float[np.ndarray, " objects"]]  # signed deviates of the sets of lines that flag
    level: float  # least p-value up to which objects are flagged, or one alone would be
    told_by_lines: Bool[np.ndarray, " objects"]  # by them more than by anything else, where they flag

    @property
    def listed(self) -> Bool[np.ndarray, " objects"]:
        """In one of the lists by q, q_run and q_any."""
        return (self.q < FLAG) | (self.q_run < FLAG) | (self.q_any < FLAG)


def verdict_on(
    fit: Fit,
    judged: Judged,
    evidence: Evidence,
    null: Null,
    search: Search,
    known: Bool[np.ndarray, " objects"],
    few: Int[np.ndarray, " few"],
    *,
    lines: Mapping[str, Line],
    replicates: int | None,
    seed: int,
    empirical_null: bool | str | EmpiricalNull,
) -> Verdict:
    """All tests of `known` objects, with more than K pixels; `lines` flag, too.

    Those of the rows `few` are calibrated by replicates, all against their or another bulk if so wanted.

    Raises
    ------
    ValueError
        If an empirical null is wanted of fewer than 50 objects with a score.
    """
    log_p = evidence.log_p(null)
    z = np.where(known, -special.ndtri_exp(log_p), np.nan)
    few = few[~np.isnan(z[few])]
    if len(few):
        z[few] = calibrated(fit, judged.take(few), z[few], null, replicates, seed)
    scored = ~np.isnan(z)
    log_p_run = log_p_of_best(search, evidence.log_p_window, evidence.observed, evidence.level)
    z_run = np.where(scored, -special.ndtri_exp(log_p_run), np.nan)
    given = empirical_null if isinstance(empirical_null, EmpiricalNull) else None
    if given is None and empirical_null and scored.sum() < NULL_OBJECTS:
        raise ValueError(
            f"an empirical null needs at least {NULL_OBJECTS} objects with a score, got {scored.sum()}"
        )
    signed = {name: np.where(scored, line.z, np.nan) for name, line in lines.items()}
    bulk = EmpiricalNull(*bulk_of(z), bool(empirical_null), *bulk_of(z_run))
    distance, directions = mahalanobis(fit, judged.projection)
    like = evidence.level, distance / np.maximum(directions, 1)  # errors and distance of each object
    if given is not None:
        bulk = given._replace(applied=True)
    elif empirical_null == BY_ERROR:
        bulk = by_error(bulk, *like, {OBJECT: z, RUN: z_run, **signed}, frozenset(signed))
    if bulk.applied:
        z, z_run, *others = (
            bulk.standardised(test, x, *like) for test, x in {OBJECT: z, RUN: z_run, **signed}.items()
        )
        signed = dict(zip(signed, others, strict=True))
    log_p, log_p_run = special.log_ndtr(-z), special.log_ndtr(-z_run)
    p, p_run = np.exp(log_p), np.exp(log_p_run)
    of_lines = [np.where(scored, line.p_value, np.nan) for line in lines.values()]
    if bulk.applied:
        of_lines = [2.0 * special.ndtr(-np.abs(x)) for x in signed.values()]
    tests = np.stack([p, p_run, *of_lines])
    least = np.fmin.reduce(tests)
    q_any = q_values(np.minimum((~np.isnan(tests)).sum(0) * least, 1.0))
    of_largest = np.minimum(null.core.two_sided(evidence.largest), 1.0 - 1e-16)
    return Verdict(
        z=z,
        p=p,
        log_p=log_p,
        q=q_values(p),
        p_run=p_run,
        log_p_run=log_p_run,
        q_run=q_values(p_run),
        q_any=q_any,
        p_pixel=np.where(scored, -np.expm1(evidence.observed * np.log1p(-of_largest)), np.nan),
        mahalanobis=distance,
        p_mahalanobis=np.where(directions > 0, special.chdtrc(np.maximum(directions, 1), distance), np.nan),
        bulk=bulk,
        z_lines=signed,
        level=_level(tests, q_any),
        told_by_lines=np.nan_to_num(tests[2:], nan=1.0).min(0, initial=1.0) < np.fmin(p, p_run),
    )


def _level(tests: Float[np.ndarray, "tests objects"], q_any: Float[np.ndarray, " objects"]) -> float:
    least = np.fmin.reduce(tests)
    if (q_any < FLAG).any():
        return float(least[q_any < FLAG].max())
    return FLAG / (len(tests) * max(int(np.isfinite(least).sum()), 1))
