"""The search: all objects teach, every object is scored, and the labels say what was found.

An object is strange where the basis leaves a residual, or where it needs coefficients as nobody else's.
`either` takes the better of its two places in the ranking, for every method alike. It was settled on after a
look at several rules on these labels.
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

NO_DWARF, NO_ULTRACOOL_DWARF = "no dwarf", "no ultracool dwarf"
LOW = 0.01  # quantile of the robust weights that robusta-hmf's search for strange stars takes
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
    return {
        "least p": -scores.log_least_p,
        "p": -np.asarray(scores.object.log_p),
        "least p, by error": -local.log_least_p,
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
    """How well a score finds those who do not belong, and how well that is known."""

    auc: float
    precision: float
    auc_error: float
    precision_error: float
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


def targets(data: rp.Dataset) -> dict[str, np.ndarray]:
    """Who is to be found among all: what is no dwarf of any temperature, and warmer stars beside it."""
    return {NO_DWARF: survey.rare(data), NO_ULTRACOOL_DWARF: survey.no_ultracool_dwarf(data)}


def judged(score: np.ndarray, strange: np.ndarray, samples: list[np.ndarray], leading: int) -> Found:
    """AUC and precision of a list that should begin with these objects."""
    drawn = np.array(
        [
            (auc(score[rows], strange[rows], ~strange[rows]), precision(score[rows], strange[rows], leading))
            for rows in samples
        ]
    )
    errors = np.nanstd(drawn, axis=0, ddof=1)
    return Found(
        auc(score, strange, ~strange),
        precision(score, strange, leading),
        float(errors[0]),
        float(errors[1]),
        drawn,
    )


def by_kind(score: np.ndarray, data: rp.Dataset, leading: int) -> dict[str, tuple[float, int]]:
    """AUC of each kind against clean dwarfs, and how many of it are among the leading objects."""
    dwarfs, top = survey.clean(data), np.argsort(-_known(score), kind="stable")[:leading]
    return {
        name: (auc(score, mask, dwarfs & ~mask), int(mask[top].sum()))
        for name, mask in survey.kinds(data).items()
    }
