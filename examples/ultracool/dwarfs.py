"""Dwarf by dwarf: how many are described better by us, and how much of a difference is due to these dwarfs.

The errors of the tables of splits hold who taught. Here sources are resampled: they hold who judged, too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from examples.ultracool import judge, splits, strangers, survey
from examples.ultracool.config import OURS, OURS_FLOOR, Config
from examples.ultracool.splits import Half
from examples.ultracool.store import basis_path, load


@lru_cache(maxsize=2)
def held_out(config: Config, split: int, half: int) -> tuple[np.ndarray, judge.Cells]:
    """Rows of the clean dwarfs that judge what the other half has taught, and what they are judged by."""
    data = load(config.files.data)
    rows = splits.halves(data, config.splits, split)[1 - half]
    rows = rows[survey.clean(data)[rows]]
    seed = 1000 * config.judging.seed + 2 * split + half
    return rows, judge.cells_of(data.take(rows), config.judging, seed)


def densities(config: Config, contamination: str, rank: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{method: (summed log densities, numbers of hidden cells)}, (N,) each over all splits, common law.

    Each dwarf is judged once per split. Methods that lack a basis of some half are left out.
    """
    n = load(config.files.data).shape[0]
    found = {
        method: (np.zeros(n), np.zeros(n))
        for method in config.fits.methods
        if all(basis_path(config, which, method, rank).exists() for which in _halves(config, contamination))
    }
    for which in _halves(config, contamination):
        rows, cells = held_out(config, which.split, which.half)
        for method, (total, count) in found.items():
            told = judge.object_by_object(
                np.load(basis_path(config, which, method, rank)), cells, judge.laws(config.judging)[0]
            )
            total[rows] += told.density
            count[rows] += told.count
    return found


def _halves(config: Config, contamination: str) -> list[Half]:
    return [Half(split, half, contamination) for split in range(config.splits.number) for half in (0, 1)]


def compared(config: Config, contamination: str, rank: int) -> dict[str, Any]:
    """{ours: {other: {"share": better described by ours, "gain": [nats per pixel]}}}, each with its error."""
    data, settings = load(config.files.data), config.strangers
    found = densities(config, contamination, rank)
    samples = strangers.resamples(data, settings.bootstrap, settings.seed)
    return {
        one: {other: _pair(found[one], found[other], samples) for other in found if other != one}
        for one in (OURS, OURS_FLOOR)
        if one in found
    }


def _pair(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], samples: list[np.ndarray]
) -> Any:
    gain, count = one[0] - other[0], one[1]

    def both(rows: np.ndarray) -> tuple[float, float]:
        judged = rows[count[rows] > 0]
        return float((gain[judged] > 0).mean()), float(gain[judged].sum() / count[judged].sum())

    drawn = np.array([both(rows) for rows in samples]).std(0, ddof=1)
    share, mean = both(np.arange(len(gain)))
    return {"share": (share, float(drawn[0])), "gain": (mean, float(drawn[1]))}
