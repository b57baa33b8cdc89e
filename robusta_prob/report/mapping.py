"""Where objects lie on a plane by what their residuals look like; to look at, and never a score."""

from __future__ import annotations

import csv
import os
import warnings
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float, Shaped

from robusta_prob.io import atomic_path
from robusta_prob.report.codes import decoded
from robusta_prob.report.explorer import Explorer

LEAST = 15  # objects, with fewer of which there is no UMAP
NEIGHBOURS, MIN_DIST, SEED = 15, 0.1, 0
UMAP, PCA = "UMAP of residuals", "PCA of residuals"


def residual_map(explorer: Explorer) -> tuple[str, Float[np.ndarray, "objects 2"]]:
    """A plane on which objects with similar residuals are neighbours.

    UMAP (McInnes, Healy & Melville 2018) by the angle between residuals, where umap-learn is installed and
    there are at least 15 objects, else their first two principal components. Residuals are asinh(z), so that
    one cosmic ray does not decide, and missing ones are 0.

    Parameters
    ----------
    explorer : Explorer
        N objects, some or all with their spectra, all on the same pixels.

    Returns
    -------
    str
        Which of the two it is.
    (N, 2) array
        The same for the same objects: the seed is fixed. NaN for objects without a spectrum, or a cell.

    Raises
    ------
    ValueError
        If the runs are on different pixels.
    """
    runs = explorer.runs
    if len({run.grid.tobytes() for run in runs}) > 1:
        raise ValueError("the runs are on different pixels, so that their residuals cannot be compared")
    z = np.concatenate([decoded(run.codes)[0] for run in runs])
    starts = np.cumsum([0, *(len(run.coefficients) for run in runs)])
    carried = np.flatnonzero(explorer.place >= 0)
    z = z[starts[explorer.run[carried]] + explorer.place[carried]]
    some = ~np.isnan(z).all(1)
    residual = np.arcsinh(np.nan_to_num(z[some])).astype(np.float32)
    name = map_of(len(residual))
    points = np.full((len(explorer.place), 2), np.nan)
    if len(residual):
        points[carried[some]] = _umap(residual) if name == UMAP else _principal(residual)
    return name, points


def map_of(n: int) -> str:
    """What the map of n objects is."""
    return UMAP if n >= LEAST and find_spec("umap") else PCA


def read_map(path: str | os.PathLike[str], ids: Shaped[np.ndarray, " some"]) -> tuple[str, np.ndarray] | None:
    """The name of the map in `path`, and the places of these objects, if it has all of them."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        places = {line["id"]: (float(line["x"]), float(line["y"])) for line in lines}
        names = {line["map"] for line in lines}
    except (OSError, KeyError, TypeError, ValueError):
        return None
    wanted = [str(one) for one in ids]
    if len(names) != 1 or not set(wanted) <= set(places):
        return None
    return names.pop(), np.array([places[one] for one in wanted])


def write_map(
    path: str | os.PathLike[str],
    ids: Shaped[np.ndarray, " some"],
    name: str,
    points: Float[np.ndarray, "some 2"],
) -> None:
    """As CSV, for `read_map`."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "x", "y", "map"])
        writer.writerows([one, f"{x:.7g}", f"{y:.7g}", name] for one, (x, y) in zip(ids, points, strict=True))


def _umap(residual: Float[np.ndarray, "objects pixels"]) -> Float[np.ndarray, "objects 2"]:
    import umap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the seed takes one thread
        mapper = umap.UMAP(
            n_neighbors=min(NEIGHBOURS, len(residual) - 1),
            min_dist=MIN_DIST,
            metric="cosine",
            random_state=SEED,
            n_jobs=1,
        )
        return np.asarray(mapper.fit_transform(residual), float)


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
