"""From evidence to probabilities: what each of the tests says of every object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from robusta_prob.inference.results import Fit
from robusta_prob.scoring.calibration import Null, q_values
from robusta_prob.scoring.evidence import LEFT, Evidence
from robusta_prob.scoring.manifold import mahalanobis
from robusta_prob.scoring.predictive import Judged
from robusta_prob.scoring.replicates import calibrated
from robusta_prob.scoring.results import FLAG, EmpiricalNull
from robusta_prob.scoring.search import Search, log_p_of_best

NORMAL_QUARTILE = 0.67449
NARROWEST = 1e-3  # bulk of the objects [z]


class Verdict(NamedTuple):
    """One entry per object; NaN where there is no score."""

    scored: Bool[np.ndarray, " objects"]
    z: Float[np.ndarray, " objects"]  # of the object as a whole
    z_run: Float[np.ndarray, " objects"]  # of its strangest window
    p_pixel: Float[np.ndarray, " objects"]  # of its largest |z|
    mahalanobis: Float[np.ndarray, " objects"]
    p_mahalanobis: Float[np.ndarray, " objects"]
    bulk: EmpiricalNull

    @property
    def log_p(self) -> Float[np.ndarray, " objects"]:
        """Logarithm of `p`, which may underflow."""
        return special.log_ndtr(-self.z)

    @property
    def p(self) -> Float[np.ndarray, " objects"]:
        """P(as much surprise | normal object)."""
        return np.exp(self.log_p)

    @property
    def p_run(self) -> Float[np.ndarray, " objects"]:
        """P(as strange a run anywhere | normal object)."""
        return np.exp(special.log_ndtr(-self.z_run))

    @property
    def q_any(self) -> Float[np.ndarray, " objects"]:
        """False-discovery rate of the two together (Bonferroni)."""
        return q_values(np.minimum(2.0 * np.fmin(self.p, self.p_run), 1.0))

    @property
    def flagged(self) -> Bool[np.ndarray, " objects"]:
        """By one of the two, or by both together."""
        return (q_values(self.p) < FLAG) | (q_values(self.p_run) < FLAG) | (self.q_any < FLAG)


def verdict_on(
    fit: Fit,
    judged: Judged,
    evidence: Evidence,
    null: Null,
    search: Search,
    scored: Bool[np.ndarray, " objects"],
    few: Int[np.ndarray, " few"],
    replicates: int | None,
    seed: int,
    empirical_null: bool,
) -> Verdict:
    """All tests of all objects; those of `few` with replicates, and against the bulk if so wanted."""
    scored = scored & (evidence.observed - evidence.taken > LEFT)
    z = np.where(scored, -special.ndtri_exp(evidence.log_p(null)), np.nan)
    few = few[scored[few]]
    if len(few):
        z[few] = calibrated(fit, judged.take(few), z[few], null, replicates, seed)
    log_p_run = log_p_of_best(search, evidence.log_p_window, evidence.observed)
    z_run = np.where(scored, -special.ndtri_exp(log_p_run), np.nan)
    bulk = _bulk(z, empirical_null)
    if empirical_null:
        z, z_run = ((x - own.centre) / own.width for x, own in ((z, bulk), (z_run, _bulk(z_run, True))))
    of_largest = np.minimum(null.core.two_sided(evidence.largest), 1.0 - 1e-16)
    p_pixel = np.where(scored, -np.expm1(evidence.observed * np.log1p(-of_largest)), np.nan)
    distance, directions = mahalanobis(fit, judged.projection)
    p_mahalanobis = np.where(directions > 0, special.chdtrc(np.maximum(directions, 1), distance), np.nan)
    return Verdict(scored, z, z_run, p_pixel, distance, p_mahalanobis, bulk)


def _bulk(z: Float[np.ndarray, " objects"], applied: bool) -> EmpiricalNull:
    """The bulk of these deviates, by median and quartiles."""
    known = z[~np.isnan(z)]
    if not len(known):
        return EmpiricalNull(np.nan, np.nan, applied)
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    width = max(float(high - low) / (2.0 * NORMAL_QUARTILE), NARROWEST)
    return EmpiricalNull(float(middle), width, applied)
