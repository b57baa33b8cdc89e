"""Missing data: where the holes are, and what the data say there."""

from __future__ import annotations

import numpy as np

from robusta_prob.simulate.published import N_PIXELS
from robusta_prob.simulate.survey import Cells, Matrix


def cut_holes(rng: np.random.Generator, keep: Cells, count: int) -> Cells:
    """One contiguous missing segment in each of `count` spectra, sparing the cells in `keep`."""
    n, m = keep.shape
    missing = np.zeros((n, m), bool)
    rows = rng.permutation(n)[:count]
    lengths = np.rint(rng.integers(50, 200, count, endpoint=True) * m / N_PIXELS).astype(int)
    for row, length, u in zip(rows, lengths, rng.random(count), strict=True):
        walls = np.concatenate([[-1], np.flatnonzero(keep[row]), [m]])
        room = np.diff(walls) - 1
        fits = min(length, room.max())
        places = np.cumsum(np.maximum(room - fits + 1, 0))  # admissible ones, up to and with each gap
        place = int(u * places[-1])
        gap = np.searchsorted(places, place, side="right")
        end = walls[gap + 1] - (places[gap] - 1 - place)
        missing[row, end - fits : end] = True
    return missing


def with_holes(flux: Matrix, sigma: Matrix, missing: Cells) -> tuple[Matrix, Matrix]:
    """Flux with NaN, written into `flux`, and inverse variance with 0 where data are missing."""
    flux[missing] = np.nan
    ivar = 1 / (sigma * sigma)
    ivar[missing] = 0
    return flux, ivar
