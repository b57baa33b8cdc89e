"""How neighbouring residuals of normal objects depend on each other: correlation, and clumps of bad ones."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from robusta_prob.scoring.calibration import LAGS, Null
from robusta_prob.scoring.predictive import SMALLEST_SHARE
from robusta_prob.scoring.runs import bounded, lag_one

LEAST = 0.003  # correlation that is worth a correction: a third in the variance of a sum over 64 pixels
SIGNIFICANT = 4.0  # standard errors
OWN = 6.0  # median absolute deviations of the lag-1 autocorrelation of an object, 4 standard deviations
BAD = 5.0  # |z| beyond which a pixel is bad, for the statistics of their neighbours,
FEW_BAD, MOST_CLUMPING = 20, 0.9  # which need so many, and reach so far
RARE = 0.1  # share of the objects; what is seen in fewer is not taken for normal
TOGETHER = 4  # lags that are judged together: weak correlation that reaches far is seen in none of them alone


def with_correlation(
    null: Null,
    z: Float[np.ndarray, "objects pixels"],
    seen: Bool[np.ndarray, "objects pixels"],
    taken: Float[np.ndarray, "rank pixels"],
) -> Null:
    """The null law with the autocorrelation of these residuals of normal objects.

    What the fitted basis, as orthonormal rows `taken`, does to independent noise is not counted, and
    objects with a structure of their own do not vote.
    """
    score = np.where(seen, bounded(z / null.scale), 0.0).astype(np.float32)
    lag1 = lag_one(score, seen)
    off = np.abs(lag1 - np.median(lag1))
    votes = off <= OWN * np.median(off)
    z, seen, score = z[votes], seen[votes], score[votes]
    rho, errors = autocorrelation(score, seen)
    rho = rho + of_basis(taken, len(rho))
    blocks = np.arange(0, len(rho), TOGETHER)
    size = np.diff(np.append(blocks, len(rho)))
    means = np.add.reduceat(rho, blocks) / size
    weak = np.abs(means) < np.maximum(LEAST, SIGNIFICANT * errors[blocks] / np.sqrt(size))
    alone = np.abs(rho[:TOGETHER]) > np.maximum(LEAST, SIGNIFICANT * errors[:TOGETHER])
    reach = int(blocks[weak.argmax()]) if weak.any() else len(rho)
    reach = max(reach, int(np.flatnonzero(alone).max(initial=-1)) + 1)
    if reach == 0:
        return null
    surprise = null.surprise(z)
    own = np.where(seen, surprise, 0.0).sum(1) / np.maximum(seen.sum(1), 1)  # that of wrong errors, say
    centred = np.where(seen, surprise - own[:, None], 0.0).astype(np.float32)
    of_surprise, _ = autocorrelation(centred, seen, reach)
    inflation = max(1.0, 1.0 + 2.0 * float(of_surprise.sum()))
    return null._replace(correlation=tuple(float(x) for x in rho[:reach]), inflation=inflation)


def of_basis(taken: Float[np.ndarray, "rank pixels"], lags: int) -> Float[np.ndarray, " lags"]:
    """Minus the correlation that residuals of independent noise have because the basis was fitted."""
    scaled = taken / np.sqrt(np.maximum(1.0 - (taken**2).sum(0), SMALLEST_SHARE))
    return np.array([(scaled[:, lag:] * scaled[:, :-lag]).sum(0).mean() for lag in range(1, lags + 1)])


def neighbours(seen: Bool[np.ndarray, "rows pixels"]) -> Int[np.ndarray, " rows"]:
    """Pairs of neighbouring pixels that are both seen."""
    return (seen[:, 1:] & seen[:, :-1]).sum(1)


def autocorrelation(
    score: Float[np.ndarray, "objects pixels"], seen: Bool[np.ndarray, "objects pixels"], lags: int = LAGS
) -> tuple[Float[np.ndarray, " lags"], Float[np.ndarray, " lags"]]:
    """Correlation of scores (0 where unseen) 1, 2, ... pixels apart, and its standard errors."""
    lags = min(lags, max(score.shape[1] // 4, 1))
    variance = np.vdot(score, score) / max(seen.sum(), 1)
    rho, errors = np.zeros(lags), np.full(lags, np.inf)
    for lag in range(1, lags + 1):
        both = np.count_nonzero(seen[:, lag:] & seen[:, :-lag])
        if both and variance > 0:
            rho[lag - 1] = np.vdot(score[:, lag:], score[:, :-lag]) / both / variance
            errors[lag - 1] = both**-0.5
    return rho, errors


def clumping(
    null: Null, z: Float[np.ndarray, "objects pixels"], seen: Bool[np.ndarray, "objects pixels"]
) -> float:
    """Probability that the neighbour of a bad pixel is bad, to the same side, beyond chance.

    What happens to few objects is no property of normal ones: those with most bad pixels do not vote.
    """
    score = np.where(seen, z / null.scale, 0.0)
    hit = np.count_nonzero(np.abs(score) > BAD, axis=1)
    votes = np.argsort(hit, kind="stable")[: len(hit) - int(RARE * len(hit))]
    score, seen = score[votes], seen[votes]
    bad = np.abs(score) > BAD
    asked = bad[:, :-1] & seen[:, 1:]
    same = asked & bad[:, 1:] & (score[:, :-1] * score[:, 1:] > 0)
    number = np.count_nonzero(asked)
    if number < FEW_BAD:
        return 0.0
    chance = float(bad.sum() / seen.sum())
    return float(np.clip(np.count_nonzero(same) / number - chance, 0.0, MOST_CLUMPING))
