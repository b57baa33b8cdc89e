"""The search: all objects teach, every object is scored, and the labels say what was found.

An object is strange where the basis leaves a residual, or where it needs coefficients as nobody else's.
`either` takes the better of its two places in the ranking, for every method alike; labels have no part in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

import robusta_prob as rp
from examples.ultracool import judge, rivals, survey
from examples.ultracool.config import OURS, OURS_FLOOR, PACKAGE, Config
from examples.ultracool.store import load, scores_path
from robusta_prob.io import atomic_path

LOW = 0.01  # quantile of the robust weights that robusta-hmf's search for strange stars takes
LEAST_P = 1e-300
OURS_SCORE = "least p or coefficients"  # ours, whatever the rank


def missing(config: Config) -> list[tuple[str, int]]:
    """What has not been searched yet."""
    return [
        (method, rank)
        for rank in config.strangers.ranks
        for method in config.fits.methods
        if not scores_path(config, method, rank).exists()
    ]


def search(config: Config, what: tuple[str, int]) -> int:
    """Fit all objects, score them, keep the scores with the basis."""
    method, rank = what
    data, path = load(config.files.data), scores_path(config, method, rank)
    if method in (OURS, OURS_FLOOR):
        fit = rp.fit(data, rank, noise=None if method == OURS else rivals.fixed(config.fits))
        found = {**of_ours(fit, data), "basis": rivals.orthonormal(fit.basis)}
        path.parent.mkdir(parents=True, exist_ok=True)
        if method == OURS:
            rp.save(fit, path.with_suffix(".h5"))
    else:
        basis = rivals.learn(method, data, rank, config.fits)
        found = {**of_rival(method, basis, data, config), "basis": basis}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **found)
    return 1


def of_ours(fit: rp.Fit, data: rp.Dataset) -> dict[str, np.ndarray]:
    """Our scores: the larger, the stranger; the first is the one by which lists of residuals are made."""
    scores = rp.surprise(fit, data)
    local = rp.surprise(fit, data, empirical_null="by error")
    surprise, run = scores.object.log_p, np.log(np.maximum(scores.object.p_run, LEAST_P))
    return {
        "least p": -np.minimum(surprise, run),
        "p": -np.asarray(surprise),
        "least p, by error": -np.minimum(local.object.log_p, np.log(np.maximum(local.object.p_run, LEAST_P))),
        "coefficients": np.asarray(scores.object.mahalanobis),
    }


def of_rival(method: str, basis: np.ndarray, data: rp.Dataset, config: Config) -> dict[str, np.ndarray]:
    """What can be made of a basis: chi^2, robust weights, and Hotelling's T^2 of the coefficients."""
    nu = 1.0 if method == PACKAGE else np.inf
    scale = config.fits.robustness if method == PACKAGE else 1.0
    flux = np.asarray(data.flux, float) * data.unit
    ivar = np.asarray(data.ivar, float) / data.unit**2
    seen = ivar > 0
    # its loss is Student's t of scale Q: the same as errors Q times as large
    wide = np.where(seen, 1.0 / judge.variance(ivar, judge.Law("", nu, config.fits.floor)) / scale**2, 0.0)
    A, _ = judge.project(basis, flux, wide, seen, judge.Law("", nu, 0.0))
    z2 = scale**2 * wide * (flux - A @ basis) ** 2
    weight = np.where(seen, 1.0 / (1.0 + z2 / config.fits.robustness**2), np.nan)
    away = A - A.mean(0)
    return {
        "chi2": z2.sum(1) / np.maximum(seen.sum(1), 1),
        "median weight": -np.nanmedian(weight, axis=1),
        "1 % weight": -np.nanquantile(weight, LOW, axis=1),
        "coefficients": np.einsum("nk,kl,nl->n", away, np.linalg.pinv(np.cov(A.T)), away),
    }


def either(residual: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Minus the better of two places, from 0 to -1; ties go to the better sum."""
    places = np.array([stats.rankdata(-_known(x)) / len(x) for x in (residual, coefficients)])
    return -places.min(0) - 1e-6 * places.sum(0)


def _known(score: np.ndarray) -> np.ndarray:
    """Objects that could not be scored are the least strange."""
    return np.nan_to_num(score, nan=-np.inf, posinf=np.finfo(float).max)


def auc(score: np.ndarray, strange: np.ndarray, others: np.ndarray) -> float:
    """Probability that a stranger is ranked above another object."""
    n, m = strange.sum(), others.sum()
    if n == 0 or m == 0:
        return float("nan")
    place = stats.rankdata(_known(np.concatenate([score[strange], score[others]])))
    return float((place[:n].sum() - n * (n + 1) / 2) / (n * m))


def precision(score: np.ndarray, strange: np.ndarray, leading: int) -> float:
    """Share of strangers among the leading objects."""
    return float(strange[np.argsort(-_known(score), kind="stable")[:leading]].mean())


class Found(NamedTuple):
    """How well a score finds the strangers, and how well that is known."""

    auc: float
    precision: float
    auc_error: float
    precision_error: float
    auc_by_kind: dict[str, float]
    among_leading: dict[str, int]
    samples: np.ndarray  # (resamples, 2): AUC and precision, of the same resamples for every score


def all_scores(config: Config, method: str, rank: int) -> dict[str, np.ndarray]:
    """Every score of a method: of residuals, of coefficients, and of either."""
    with np.load(scores_path(config, method, rank)) as file:
        known = {name: file[name] for name in file.files if name != "basis"}
    residual = {name: score for name, score in known.items() if name != "coefficients"}
    joint = {
        f"{name} or coefficients": either(score, known["coefficients"]) for name, score in residual.items()
    }
    return {**residual, "coefficients": known["coefficients"], **joint}


def resamples(data: rp.Dataset, number: int, seed: int) -> list[np.ndarray]:
    """Rows of sources drawn with replacement."""
    keys, member = np.unique(data.meta["source_key"], return_inverse=True)
    rows = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
    rng = np.random.default_rng(seed)
    return [np.concatenate([rows[i] for i in rng.integers(len(keys), size=len(keys))]) for _ in range(number)]


def judged(score: np.ndarray, data: rp.Dataset, samples: list[np.ndarray], leading: int) -> Found:
    """AUC of what is no dwarf against all else, of each kind against clean dwarfs, and the list."""
    kinds, dwarfs = survey.kinds(data), survey.clean(data)
    rare = survey.rare(data)
    drawn = np.array(
        [
            (auc(score[rows], rare[rows], ~rare[rows]), precision(score[rows], rare[rows], leading))
            for rows in samples
        ]
    )
    top = np.argsort(-_known(score), kind="stable")[:leading]
    errors = np.nanstd(drawn, axis=0, ddof=1)
    return Found(
        auc(score, rare, ~rare),
        precision(score, rare, leading),
        float(errors[0]),
        float(errors[1]),
        {name: auc(score, mask, dwarfs & ~mask) for name, mask in kinds.items()},
        {name: int(mask[top].sum()) for name, mask in kinds.items()},
        drawn,
    )
