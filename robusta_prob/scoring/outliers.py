"""`surprise`: how unexpected every object is, as a calibrated probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import special

from robusta_prob.data import Dataset
from robusta_prob.inference.projection import check_same_pixels, project
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.inference.results import in_training as known_to
from robusta_prob.scoring.calibration import SMALLEST, Null, learn_null, log_tail, q_values
from robusta_prob.scoring.predictive import cells, quantile

NULL_CELLS = 2**21  # residuals that the null law is learned from
NULL_OBJECTS = 50  # fewer objects cannot teach a null law without being its outliers themselves
NULL_ROUNDS = 3  # learning it again without the objects that it finds strange
NORMAL_MEDIAN = 0.67449  # of |z| for a standard normal z
UNINFORMED = 1e-2  # share of the population's variance that an estimate must keep to be judged
STRANGE = 1e-3  # p-value below which an object does not vote on the null law


class ObjectSurprise(NamedTuple):
    """One entry per object."""

    score: Float[np.ndarray, " objects"]  # surprise in excess of a normal object's, bounded per pixel [nats]
    z: Float[np.ndarray, " objects"]  # the standard normal deviate with the same p-value
    p_value: Float[np.ndarray, " objects"]  # P(as much surprise | normal object)
    log_p: Float[np.ndarray, " objects"]  # its logarithm, where p_value underflows
    q_value: Float[np.ndarray, " objects"]  # false-discovery rate if all objects up to this one are flagged
    # squared distance of the coefficients from the population; NaN where the data say nothing about them
    mahalanobis: Float[np.ndarray, " objects"]
    # robust scale of z over the null's; above 1: errors underestimated, or a model that does not fit
    scale: Float[np.ndarray, " objects"]
    median_weight: Float[np.ndarray, " objects"]  # published scores: median and
    low_weight: Float[np.ndarray, " objects"]  # 1 % quantile of the robust weights
    n_observed: Shaped[np.ndarray, " objects"]
    in_training: Bool[np.ndarray, " objects"]
    reason: Shaped[np.ndarray, " objects"]  # why there is no score; "" where there is one


class PixelSurprise(NamedTuple):
    """One entry per cell; NaN where missing."""

    z: Float[np.ndarray, "objects pixels"]  # residual over its predictive standard deviation
    p: Float[np.ndarray, "objects pixels"]  # two-sided, under the core of the null law
    weight: Float[np.ndarray, "objects pixels"]  # robust weight under the fitted loss


@dataclass(frozen=True, eq=False)
class Surprise:
    """Outlier scores; `ranking` lists the objects, the most surprising first."""

    object: ObjectSurprise
    ids: Shaped[np.ndarray, " objects"]
    null: Null
    pixel: PixelSurprise | None = None

    @property
    def ranking(self) -> Shaped[np.ndarray, " objects"]:
        """Indices of the objects by rising p-value; those without a score come last."""
        return np.lexsort(
            (-np.nan_to_num(self.object.score, nan=-np.inf), np.nan_to_num(self.object.log_p, nan=np.inf))
        )


def surprise(
    fit: Fit,
    data: Dataset,
    projection: Projection | None = None,
    *,
    in_training: Bool[np.ndarray, " objects"] | bool | None = None,
    null: Null | None = None,
    pixel: bool = False,
) -> Surprise:
    """Score how unexpected every object is under the fitted model.

    Every residual is divided by its predictive standard deviation (noise, coefficients, basis); the
    null law of these z is learned with a contaminating part, which bounds what one bad pixel can say; an
    object's p-value is the saddlepoint tail of its summed surprise.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    projection : Projection, optional
        Of these data, if there is one already.
    in_training : bool or (N,) array, optional
        Which objects the fit was trained on; default: those whose id and flux the fit knows.
    null : Null, optional
        The null law of another call, such as `rp.surprise(fit, training_data).null`: p-values then do not
        depend on which objects are scored together. Default: learned from these data, or for fewer than
        50 objects the noise law of the fit.
    pixel : bool
        Also return z, p and weight per cell, (N, M) each.

    Returns
    -------
    Surprise
        `.object.q_value < 0.05` is the list with at most 5 % false discoveries expected.

    Raises
    ------
    ValueError
        If the pixels are not those of the fit, or no object has more than K observed pixels.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> scores = rp.surprise(rp.fit(survey.data, rank=5), survey.data)
    >>> scores.object.p_value.shape
    (200,)
    """
    check_same_pixels(fit, data)
    n, m = data.shape
    trained = _membership(fit, data, in_training)
    projection = project(fit, data) if projection is None else projection
    if len(projection.coefficients) != n:
        raise ValueError(f"projection has {len(projection.coefficients)} objects and data has {n}")
    count = (data.observed & fit.trained).sum(1)
    scored = count > fit.rank
    if not scored.any():
        raise ValueError(f"no object has more than rank = {fit.rank} observed pixels: nothing can be scored")
    null = _learn(fit, data, projection, trained, scored) if null is None else null

    sums = {name: np.full(n, np.nan) for name in ("surprise", "median_weight", "low_weight", "scale")}
    per_pixel = PixelSurprise(*(np.full((n, m), np.nan, fit.dtype) for _ in range(3))) if pixel else None
    for here, block in cells(fit, data, projection, trained):
        sums["surprise"][here] = np.where(block.seen, null.surprise(block.z), 0.0).sum(1)
        sums["median_weight"][here] = quantile(block.weight, block.seen, 0.5)
        sums["low_weight"][here] = quantile(block.weight, block.seen, 0.01)
        sums["scale"][here] = quantile(np.abs(block.z), block.seen, 0.5) / NORMAL_MEDIAN
        if per_pixel is not None:
            per_pixel.z[here] = np.where(block.seen, block.z, np.nan)
            per_pixel.p[here] = np.where(block.seen, _two_sided(block.z, null), np.nan)
            per_pixel.weight[here] = np.where(block.seen, block.weight, np.nan)

    mean = np.where(scored, sums["surprise"] / np.maximum(count, 1), np.nan)
    log_p = np.full(n, np.nan)
    # K coefficients were fitted: count - K independent pixels carry the same mean surprise
    log_p[scored] = log_tail(null, mean[scored], (count - fit.rank)[scored].astype(float))
    p = np.exp(log_p)
    reason = np.where(
        scored, "", np.where(count == 0, "no observed pixel", f"not more than {fit.rank} observed pixels")
    )
    return Surprise(
        ObjectSurprise(
            score=np.where(scored, sums["surprise"] - count * null.mean_surprise, np.nan),
            z=-special.ndtri_exp(log_p),
            p_value=p,
            log_p=log_p,
            q_value=q_values(p),
            mahalanobis=_mahalanobis(fit, projection),
            scale=np.where(scored, sums["scale"] / null.scale, np.nan),
            median_weight=sums["median_weight"],
            low_weight=sums["low_weight"],
            n_observed=count,
            in_training=trained,
            reason=reason,
        ),
        data.ids,
        null,
        per_pixel,
    )


def _membership(fit: Fit, data: Dataset, given: Any) -> Bool[np.ndarray, " objects"]:
    if given is None:
        return known_to(fit, data)
    trained = np.broadcast_to(np.asarray(given), (data.shape[0],))
    if trained.dtype != bool:
        raise TypeError(f"in_training must be boolean, got dtype {trained.dtype}")
    return trained


def _learn(
    fit: Fit,
    data: Dataset,
    projection: Projection,
    trained: Bool[np.ndarray, " objects"],
    scored: Bool[np.ndarray, " objects"],
) -> Null:
    """The null law of z, from objects that are not strange themselves; of few, the fit's noise law."""
    rows = np.flatnonzero(scored)
    if len(rows) < NULL_OBJECTS:
        return Null(float(fit.noise.inverse_df), 1.0, max(float(fit.noise.contamination), SMALLEST))
    rows = rows[:: max(1, len(rows) * data.shape[1] // NULL_CELLS)]
    part = data.take(rows)
    some = Projection(projection.coefficients[rows], projection.covariance[rows], part.ids)
    blocks = [(block.z, block.seen) for _, block in cells(fit, part, some, trained[rows])]
    z, seen = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    normal = np.ones(len(z), bool)
    count = seen.sum(1)
    for _ in range(NULL_ROUNDS):
        null = learn_null(z[normal][seen[normal]])
        mean = np.where(seen, null.surprise(z), 0.0).sum(1) / count
        usual = log_tail(null, mean, (count - fit.rank).astype(float)) > np.log(STRANGE)
        if usual.sum() < 0.5 * len(usual) or (usual == normal).all():
            break  # a null law under which most objects are strange is no null law: keep the last
        normal = usual
    return null


def _mahalanobis(fit: Fit, projection: Projection) -> Float[np.ndarray, " objects"]:
    """Squared distance of the coefficients from the population, in units of what they scatter by.

    A posterior mean has shrunk: it scatters by C - V, a maximum-likelihood estimate by C + V. Directions
    that the data leave to the prior say nothing and do not count.
    """
    values, vectors = np.linalg.eigh(fit.population.covariance / fit.unit**2)
    white = vectors / np.sqrt(np.maximum(values, 1e-12 * values.max()))
    offset = (projection.coefficients.astype(float) - fit.population.mean) / fit.unit @ white
    spread = white.T @ (np.nan_to_num(projection.covariance.astype(float)) / fit.unit**2) @ white
    scatter = np.eye(fit.rank) + (spread if fit.flat_prior else -spread)
    known, axes = np.linalg.eigh(scatter)
    turned = np.einsum("nk,nkl->nl", offset, axes)
    informed = known > UNINFORMED
    distance = np.where(informed, turned**2 / np.where(informed, known, 1.0), 0.0).sum(1)
    return np.where(informed.any(1), distance, np.nan)


def _two_sided(z: Float[np.ndarray, "rows pixels"], null: Null) -> Float[np.ndarray, "rows pixels"]:
    size = -np.abs(z.astype(float)) / null.scale
    if null.inverse_df < 1e-6:
        return 2.0 * special.ndtr(size)
    return 2.0 * special.stdtr(1.0 / null.inverse_df, size)
