"""Companions: which flagged objects are off in the same way, and which of them form a family."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import sparse, special

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_objects, check_same_pixels
from robusta_prob.inference.checks import check_types
from robusta_prob.inference.projection import project
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.scoring.predictive import Judged, cells
from robusta_prob.scoring.results import Surprise
from robusta_prob.scoring.runs import bounded

MOST = 3000  # objects that are compared with each other, the most surprising first
CHANCE = 0.01  # expected number of pairs that are called alike by accident
ALIKE = 0.3  # |cosine| below which two objects are not called alike, however significant


class Families(NamedTuple):
    """Objects compared by the shape of their residuals; F of them, the most surprising first."""

    rows: Int[np.ndarray, " flagged"]  # of the objects, in the data
    ids: Shaped[np.ndarray, " flagged"]
    neighbours: Int[np.ndarray, "flagged neighbours"]  # rows in the data, first what chance explains least
    similarity: Float[np.ndarray, "flagged neighbours"]  # cosine of the residuals, in [-1, 1]
    family: Int[np.ndarray, " flagged"]  # 0, 1, ... from the largest family on; -1 for none
    direction: Float[np.ndarray, "families pixels"]  # what its members share, of unit norm [in z]
    share: Float[np.ndarray, " families"]  # of the members' residuals that lies along it; 1: all is shared


def families(
    fit: Fit,
    data: Dataset,
    scores: Surprise,
    projection: Projection | None = None,
    *,
    rows: Int[np.ndarray, " some"] | None = None,
    neighbours: int = 5,
) -> Families:
    """Find the nearest of the flagged objects to each of them in residual space, and families.

    Residuals are compared in predictive standard deviations, bounded at 4 times the object's own scale, by
    their cosine over common pixels. Two objects are alike if their cosine is larger than chance would make it
    anywhere among all pairs; chance takes into account how smooth both are, by their power spectra, and how
    many pixels they have in common. The nearest are those that chance explains least.
    Families are connected components of likeness; each is described by its leading direction.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    scores : Surprise
        Of these data.
    projection : Projection, optional
        Of these data, if there is one already; else the objects compared are projected.
    rows : indices, optional
        Which objects; default: the 3000 most surprising of `scores.flagged`.
    neighbours : int
        How many nearest objects to list.

    Returns
    -------
    Families
        Of the F objects compared: `rows`, `ids` and `family` (F,), `neighbours` and `similarity`
        (F, `neighbours`), or (F, F - 1) where that is less. Of the families: `direction` (families, M),
        dimensionless and of unit norm, and `share` (families,), between 0 and 1.

    Raises
    ------
    ValueError
        If the pixels are not those of the fit, scores or projection are of other objects or of another rank,
        `neighbours` is below 1, or rows are repeated, out of range, or more than 3000.
    TypeError
        If `fit`, `data`, `scores` or `projection` is not what its name says, or `neighbours` no integer.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.toy(300, 150, seed=1).data
    >>> fit = rp.fit(data, rank=5)
    >>> rp.families(fit, data, rp.surprise(fit, data)).share.ndim
    1
    """
    check_same_pixels(fit, data)
    if projection is not None:
        check_same_objects(projection, data, fit=fit)
    check_same_objects(scores, data, "scores", "surprise")
    check_types(None, None, None, 0, neighbours=neighbours)
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours}")
    if rows is None:
        rows = scores.ranking[scores.flagged[scores.ranking]][:MOST]
    rows = np.atleast_1d(np.asarray(rows))
    if rows.dtype == bool and rows.shape == (data.shape[0],):
        rows = np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" or (len(rows) and not 0 <= rows.min() <= rows.max() < data.shape[0]):
        raise ValueError(
            f"rows must be indices from 0 to {data.shape[0] - 1}, or a mask of the objects; got {rows}"
        )
    if len(np.unique(rows)) < len(rows):
        raise ValueError("rows has an object twice; give each once")
    if len(rows) > MOST:
        raise ValueError(f"{len(rows)} objects are too many to compare all pairs of; give at most {MOST}")
    if not len(rows):
        none = np.zeros((0, neighbours))
        no_family = (np.zeros(0, int), np.zeros((0, data.shape[1])), np.zeros(0))
        return Families(rows, data.ids[:0], none.astype(int), none, *no_family)
    x = _residuals(fit, data, scores, projection, rows)
    cosine, deviate = _compared(x)
    # by how sure the likeness is: over one common pixel every cosine is 1
    order = np.argsort(-deviate, axis=1)[:, : min(neighbours, max(len(rows) - 1, 0))]
    chosen = np.take_along_axis(cosine, order, 1)
    pairs = max(len(rows) * (len(rows) - 1) / 2, 1)
    alike = (np.abs(cosine) > ALIKE) & (deviate > -special.ndtri(0.5 * CHANCE / pairs))
    family = _labels(alike)
    described = [_described(x[family == i]) for i in range(family.max(initial=-1) + 1)]
    m = data.shape[1]
    return Families(
        rows,
        data.ids[rows],
        rows[order],
        chosen,
        family,
        np.array([direction for direction, _ in described]).reshape(-1, m),
        np.array([share for _, share in described]),
    )


def _residuals(
    fit: Fit, data: Dataset, scores: Surprise, projection: Projection | None, rows: Int[np.ndarray, " some"]
) -> Float[np.ndarray, "some pixels"]:
    """Bounded z over the object's scale; 0 where unseen."""
    part = data.take(rows)
    own = project(fit, part) if projection is None else projection.take(rows)
    scale = scores.null.scale * np.maximum(np.nan_to_num(scores.object.scale[rows], nan=1.0), 1.0)
    blocks = [block for _, block in cells(fit, Judged(part, own, scores.object.in_training[rows]))]
    z = np.concatenate([np.where(block.seen, block.z, 0.0) for block in blocks]).astype(float)
    return np.asarray(bounded(z / scale[:, None]), float)


def _compared(x: Float[np.ndarray, "some pixels"]) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of every pair over its common pixels, and in deviations of unrelated objects as smooth."""
    seen = (x != 0).astype(float)
    power = x**2 @ seen.T
    cosine = x @ x.T / np.maximum(np.sqrt(power * power.T), 1e-12)
    # var cos = sum over lags of both autocorrelations / common pixels (Bartlett 1935); that sum is the mean
    # of the product of both power spectra, and of few pixels too noisy to be trusted below white noise
    spectra = np.abs(np.fft.fft(x, n=2 * x.shape[1], axis=1)) ** 2
    spectra /= np.maximum((x**2).sum(1, keepdims=True), 1e-12)
    smooth = np.maximum(spectra @ spectra.T / (2 * x.shape[1]), 1.0)
    deviate = np.abs(cosine) * np.sqrt(seen @ seen.T / smooth)
    np.fill_diagonal(cosine, 0.0)
    np.fill_diagonal(deviate, -1.0)  # nobody is his own neighbour, not even who has no data
    return cosine, deviate


def _labels(alike: np.ndarray) -> Int[np.ndarray, " some"]:
    """Family of each object, 0 the largest; -1 for those that are like no other."""
    _, label = sparse.csgraph.connected_components(sparse.csr_matrix(alike), directed=False)
    sizes = np.bincount(label)
    order = np.argsort(-sizes, kind="stable")
    place = np.empty(len(sizes), int)
    place[order] = np.arange(len(sizes))
    place[sizes < 2] = -1
    return place[label]


def _described(x: Float[np.ndarray, "members pixels"]) -> tuple[Float[np.ndarray, " pixels"], float]:
    """The leading direction of these residuals, and its share of their power."""
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    _, values, rows = np.linalg.svd(unit, full_matrices=False)
    sign = np.sign((unit @ rows[0]).sum()) or 1.0
    return sign * rows[0], float(values[0] ** 2 / (values**2).sum())
