"""Where objects lie on a plane by what their residuals look like; to look at, and never a score."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float, UInt8

from robusta_prob.report.codes import Codes, decoded

LEAST = 15  # objects, with fewer of which there is no UMAP
NEIGHBOURS, MIN_DIST, SEED = 15, 0.1, 0
UMAP, PCA = "UMAP of the residuals", "PCA of the residuals"


def residual_map(codes: Codes) -> tuple[str, Float[np.ndarray, "objects 2"]]:
    """A plane on which objects with similar residuals are neighbours.

    UMAP (McInnes, Healy & Melville 2018) by the angle between residuals, where umap-learn is installed and
    there are at least 15 objects, else their first two principal components. Residuals are asinh(z), so that
    one cosmic ray does not decide, and missing ones are 0.

    Parameters
    ----------
    codes : Codes
        Of S objects on M pixels.

    Returns
    -------
    str
        Which of the two it is.
    (S, 2) array
        The same for the same objects: the seed is fixed. NaN for objects without a cell.
    """
    z, _, _ = decoded(codes)
    residual = np.arcsinh(np.nan_to_num(z)).astype(np.float32)
    some = _some(codes.z)
    points = np.full((len(residual), 2), np.nan)
    mapper = _umap(int(some.sum()))
    name = PCA if mapper is None else UMAP
    if some.any():
        points[some] = _principal(residual[some]) if mapper is None else mapper.fit_transform(residual[some])
    return name, points


def _some(cells: UInt8[np.ndarray, "objects pixels"]) -> np.ndarray:
    return np.asarray((cells > 0).any(1))


def _umap(n: int):  # type: ignore[no-untyped-def]  # umap-learn has no types
    """The mapper; None where it cannot be had."""
    if n < LEAST:
        return None
    try:
        import umap
    except ImportError:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the seed takes one thread
        return umap.UMAP(
            n_neighbors=min(NEIGHBOURS, n - 1),
            min_dist=MIN_DIST,
            metric="cosine",
            random_state=SEED,
            n_jobs=1,
        )


def _principal(residual: Float[np.ndarray, "objects pixels"]) -> Float[np.ndarray, "objects 2"]:
    """The first two principal components, by the smaller of the two second moments."""
    centred = (residual - residual.mean(0)).astype(float)
    n, m = centred.shape
    if n <= m:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        points = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0.0))
    else:
        _, vectors = np.linalg.eigh(centred.T @ centred)
        points = centred @ vectors[:, ::-1][:, :2]
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    largest = points[np.abs(points).argmax(0), np.arange(2)]
    return points * np.where(largest < 0, -1.0, 1.0)  # a sign of its own, whatever the library says
