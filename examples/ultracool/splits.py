"""Halves by source, and what is put into the training half."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import robusta_prob as rp
from examples.ultracool import survey
from examples.ultracool.config import INJECTED, Contamination, Splits


@dataclass(frozen=True)
class Half:
    """Which of the two halves of a split teaches, clean or not."""

    split: int
    half: int
    contamination: str

    @property
    def folder(self) -> str:
        """Where what it has taught is kept."""
        return f"{self.contamination}/split{self.split}-half{self.half}"


def halves(data: rp.Dataset, settings: Splits, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the two halves; all spectra of a source are in one."""
    keys, member = np.unique(data.meta["source_key"], return_inverse=True)
    chosen = np.random.default_rng([settings.seed, split]).permutation(len(keys)) < len(keys) // 2
    return np.flatnonzero(chosen[member]), np.flatnonzero(~chosen[member])


def training(data: rp.Dataset, which: Half, splits: Splits, spoiled: Contamination) -> rp.Dataset:
    """The half that teaches, with more wrong in it where that is asked for."""
    train = data.take(halves(data, splits, which.split)[which.half])
    if which.contamination != INJECTED:
        return train
    seed = [spoiled.seed, splits.seed, which.split, which.half]
    return contaminated(
        train, data.take(survey.rare(data)) if survey.rare(data).any() else train, spoiled, seed
    )


def contaminated(
    train: rp.Dataset, strangers: rp.Dataset, settings: Contamination, seed: list[int]
) -> rp.Dataset:
    """Cosmic rays, foreign spectra and underestimated errors in different rows, labels left as they are."""
    n, m = train.shape
    rng = np.random.default_rng(seed)
    counts = [round(n * share) for share in (settings.bad_pixels, settings.foreign, settings.errors)]
    order = rng.permutation(n)[: sum(counts)]
    struck, foreign, noisy = np.split(order, np.cumsum(counts)[:2])
    replaced, smooth = foreign[::2], foreign[1::2]

    data = train
    if len(smooth):
        data = rp.inject(
            data, "foreign spectrum", 1.0, key=int(rng.integers(2**31)), rows=np.sort(smooth)
        ).data
    if len(noisy):
        key = int(rng.integers(2**31))
        data = rp.inject(data, "scaled noise", settings.factor, key=key, rows=np.sort(noisy)).data
    flux, ivar = np.array(data.flux) * data.unit, np.array(data.ivar) / data.unit**2
    donors = rng.integers(strangers.shape[0], size=len(replaced))
    flux[replaced] = strangers.flux[donors] * strangers.unit
    ivar[replaced] = strangers.ivar[donors] / strangers.unit**2
    for row in struck:
        level = np.median(np.abs(flux[row][ivar[row] > 0]))
        for _ in range(settings.hits):
            start, width = rng.integers(m), rng.integers(1, 4)
            flux[row, start : start + width] += level * np.exp(rng.uniform(*np.log(settings.height)))
    return rp.dataset(
        flux,
        ivar,
        grid=data.grid,
        ids=data.ids,
        meta=data.meta,
        unit=data.unit,
        grid_name=data.labels.grid_name,
    )
