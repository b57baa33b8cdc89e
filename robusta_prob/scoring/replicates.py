"""Objects with few pixels: what the same analysis makes of normal objects with their errors and holes.

Where about ten pixels per coefficient are observed, or fewer, coefficients adapt to the very noise that
is judged, and no formula for the residuals' law holds. Replicates know: coefficients from the
population, noise from its law, fitted again. The mean and the variance of their deviates follow from what
the coefficients take of the object's degrees of freedom, a regression over all replicates, and what is
left has one law for all: its ranks give the probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from robusta_prob.data import Dataset, dataset
from robusta_prob.inference.projection import projected
from robusta_prob.inference.results import Fit
from robusta_prob.models.noise import NoiseLaw
from robusta_prob.scoring.calibration import Null, learn_null
from robusta_prob.scoring.core import Core
from robusta_prob.scoring.evidence import NULL_OBJECTS, STRANGE, gather
from robusta_prob.scoring.predictive import SMALLEST_SHARE, Judged, cells, noise_of

FEW = 10  # observed pixels per coefficient, below which objects are compared with replicates
TOTAL = 20_000  # replicates, spread over these objects
PER_TERM = 100  # replicates that a term of the regression needs
LEAST = 50  # replicates of each object that may be asked for
PILOT = 4000  # replicates from which the law of their noise is corrected, this often:
PILOTS = 6
CLOSE, LONGEST = 0.003, 0.3  # in the logarithms of 1/nu and scale: near enough; longest step
NEARLY_GAUSSIAN = 0.01  # 1/nu
LEAST_RANKED, RANKED = 2000, 20  # replicates from which ranks are taken, and those beyond the last rank used
MOST_CELLS = 2**22  # of replicates at once


def by_replicates(
    count: Int[np.ndarray, " objects"], rank: int, each: int | None
) -> Bool[np.ndarray, " objects"]:
    """Which objects with so many pixels are judged by replicates: by default those with few."""
    return count < FEW * rank if each is None else np.full(count.shape, each > 0)


def calibrated(
    fit: Fit, few: Judged, deviate: Float[np.ndarray, " few"], null: Null, each: int | None, seed: int
) -> Float[np.ndarray, " few"]:
    """Deviates of objects with few pixels, calibrated by `each` replicates of every one."""
    few = few.fitted()
    rng = np.random.default_rng(seed)
    n = len(deviate)
    chosen = rng.permutation(n)[: TOTAL if each is None else n]
    each = max(1, TOTAL // n) if each is None else each
    own = []
    rows = np.tile(chosen, each)
    for part in _parts(few, rows):
        copies = _replicated(fit, part, _law(fit, null), rng)
        own.append(-special.ndtri_exp(gather(fit, copies, null, ()).log_p(null)))
    design = _design(fit, few)
    if len(rows) < PER_TERM * design.shape[1]:
        design = design[:, :1]
    designs = design[rows]
    w = np.concatenate(own)
    good = np.isfinite(w)
    mean = np.linalg.lstsq(designs[good], w[good], rcond=None)[0]
    variance = np.linalg.lstsq(designs[good], (w - designs @ mean)[good] ** 2, rcond=None)[0]

    def standard(x: np.ndarray, at: np.ndarray) -> np.ndarray:
        return (x - at @ mean) / np.sqrt(np.maximum(at @ variance, 0.05))

    return _as_normal(standard(deviate, design), np.sort(standard(w[good], designs[good])))


def _as_normal(x: Float[np.ndarray, " few"], replicates: Float[np.ndarray, " all"]) -> np.ndarray:
    """Normal deviates with the ranks that x has among the replicates; beyond them, as far beyond."""
    n = len(replicates)
    if n < LEAST_RANKED:
        return x
    far = -special.ndtri(RANKED / n)
    at = np.unique((special.ndtr(np.linspace(-far, far, 41)) * n).astype(int))
    known, normal = replicates[at], special.ndtri((at + 0.5) / n)
    outside = np.minimum(x - known[0], 0.0) + np.maximum(x - known[-1], 0.0)
    return np.interp(x, known, normal) + outside


def _law(fit: Fit, null: Null) -> NoiseLaw:
    if null.replicated is None:
        return fit.noise
    return fit.noise._replace(inverse_df=null.replicated[0], scale=null.replicated[1])


def with_replicated_law(
    fit: Fit, judged: Judged, rows: Int[np.ndarray, " few"], null: Null, seed: int
) -> Null:
    """The null law with the noise with which replicates show the residuals that the objects `rows` show.

    With few pixels per coefficient the learned law is itself biased: indirect inference (Gourieroux,
    Monfort & Renault 1993). Strange objects do not count, and fewer than 50 leave the law as it is.
    """
    if not len(rows):
        return null
    rows = rows[gather(fit, judged.take(rows), null, ()).log_p(null) > math.log(STRANGE)]
    n = len(rows)
    if n < NULL_OBJECTS:
        return null
    few = judged.take(rows).fitted()
    some = np.random.default_rng(seed).permutation(n)[:PILOT]
    part = few.take(np.tile(some, -(-PILOT // len(some))))
    target = _log_law_of(fit, few, null)
    gaussian = target[0] < math.log(NEARLY_GAUSSIAN)

    def law_at(x: Float[np.ndarray, " two"]) -> NoiseLaw:
        eta, scale = np.exp(np.clip(x, (-7.0, -2.0), (0.0, 2.0)))
        return fit.noise._replace(inverse_df=0.0 if gaussian else float(eta), scale=float(scale))

    def off(x: Float[np.ndarray, " two"]) -> Float[np.ndarray, " two"]:
        same_noise = np.random.default_rng(seed)  # so that laws are compared, not draws
        shown = _log_law_of(fit, _replicated(fit, part, law_at(x), same_noise), null)
        return np.where([gaussian, False], 0.0, shown - target)

    start = np.log([max(float(fit.noise.inverse_df), NEARLY_GAUSSIAN), float(fit.noise.scale)])
    law = law_at(_broyden(off, start))
    return null._replace(replicated=(float(law.inverse_df), float(law.scale)))


def _broyden(off: Callable[[np.ndarray], np.ndarray], x: Float[np.ndarray, " two"]) -> np.ndarray:
    """Where `off` was nearest to 0 in a few steps, the first as if it were x - constant (Broyden 1965)."""
    slope, value = np.eye(len(x)), off(x)
    best, least = x, np.linalg.norm(value)
    for _ in range(PILOTS):
        if least < CLOSE:
            break
        step = np.clip(-np.linalg.lstsq(slope, value, rcond=None)[0], -LONGEST, LONGEST)
        x, before = x + step, value
        value = off(x)
        slope += np.outer(value - before - slope @ step, step) / max(float(step @ step), 1e-12)
        if np.linalg.norm(value) < least:
            best, least = x, np.linalg.norm(value)
    return best


def _log_law_of(fit: Fit, judged: Judged, null: Null) -> Float[np.ndarray, " two"]:
    """Logarithms of 1/nu and scale that residuals show, the contamination as it is."""
    z = np.concatenate([block.z[block.seen] for _, block in cells(fit, judged)])
    shown = learn_null(z, null.contamination)
    return np.log([shown.inverse_df, shown.scale])


def _design(fit: Fit, few: Judged) -> Float[np.ndarray, "few terms"]:
    """What mean and variance of an object's deviate depend on: the share that its coefficients take."""
    prior = 0.0 if fit.flat_prior else np.linalg.inv(fit.population.covariance)
    taken, count = [], few.data.count(fit.trained)
    for part in _parts(few, np.arange(len(count))):
        variance, _ = noise_of(_given(fit, part), fit.noise)
        precision = np.where(part.data.observed & fit.trained, 1.0 / variance, 0.0)
        gram = np.einsum("nm,km,lm->nkl", precision, fit.basis, fit.basis, optimize=True)
        taken.append(np.einsum("nkl,nlk->n", np.linalg.pinv(gram + prior, hermitian=True), gram))
    share, member = np.concatenate(taken) / count, few.trained.astype(float)
    return np.stack([np.ones(len(count)), share, share**2, 1.0 / count, member, member * share], axis=1)


def _parts(objects: Judged, rows: Int[np.ndarray, " some"]) -> Iterator[Judged]:
    """Those rows, perhaps repeated, as many at once as fit into memory."""
    step = max(1, MOST_CELLS // objects.data.shape[1])
    return (objects.take(rows[start : start + step]) for start in range(0, len(rows), step))


def _given(fit: Fit, objects: Judged) -> Float[np.ndarray, "rows pixels"]:
    """Variances that the data state; 1 where there are none."""
    ivar = np.where(objects.data.observed & fit.trained, objects.data.ivar, 0.0).astype(float)
    return np.where(ivar > 0, objects.data.unit**2 / np.where(ivar > 0, ivar, 1.0), 1.0)


def _replicated(fit: Fit, objects: Judged, law: NoiseLaw, rng: np.random.Generator) -> Judged:
    copies = like_these(fit, objects, law, rng)
    return Judged(copies, projected(fit, copies), objects.trained)


def like_these(fit: Fit, objects: Judged, law: NoiseLaw, rng: np.random.Generator) -> Dataset:
    """A normal object in the place of each, with its errors and holes.

    Flux a G + noise: a from the population (the object's own where the prior is flat), the noise by the law
    of the fit, more of it by what the basis is uncertain for objects that did not teach it, less for those
    that did.
    """
    data = objects.data
    A = objects.projection.coefficients.astype(float)
    if not fit.flat_prior:
        root = _root(fit.population.covariance)
        A = fit.population.mean + rng.standard_normal(A.shape) @ root.T
    given = _given(fit, objects)
    noise, information = noise_of(given, law)
    of_basis = np.einsum("nk,mkl,nl->nm", A, fit.basis_covariance.astype(float), A, optimize=True)
    member = objects.trained[:, None]
    share = np.where(member, np.sqrt(np.maximum(1.0 - information * of_basis, SMALLEST_SHARE)), 1.0)
    flux = A @ fit.basis
    flux += np.sqrt(noise) * share * Core(float(law.inverse_df)).draw(rng, flux.shape)
    flux += np.where(member, 0.0, np.sqrt(of_basis) * rng.standard_normal(flux.shape))
    bad = rng.random(flux.shape) < float(law.contamination)
    flux[bad] += float(law.width) * rng.standard_cauchy(int(bad.sum()))
    ivar = np.where(data.observed & fit.trained, 1.0 / given, 0.0)
    return dataset(flux, ivar, grid=data.grid, dtype=str(fit.dtype), unit=data.unit)


def _root(covariance: Float[np.ndarray, "rank rank"]) -> Float[np.ndarray, "rank rank"]:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
