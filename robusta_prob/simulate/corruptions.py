"""Corruptions of the toy survey: each writes into the caller's `flux`, and returns what it changed."""

from __future__ import annotations

import numpy as np

from robusta_prob.simulate.survey import Cells, Matrix, Objects

FOREIGN_WIDTH, FOREIGN_REACH = 2.0, 8  # [pixels] sigma of a foreign line, and where its profile ends


def replace_spectra(rng: np.random.Generator, flux: Matrix, count: int) -> Objects:
    """Whole spectra become 1 + A sin(2 pi f j / (M - 1)), with A ~ U(0.1, 0.3) and f ~ U(10, 30)."""
    changed = np.zeros(len(flux), bool)
    rows = rng.permutation(len(flux))[:count]
    amplitude, frequency = rng.uniform([0.1, 10], [0.3, 30], (count, 2)).T[:, :, None]
    flux[rows] = 1 + amplitude * np.sin(2 * np.pi * frequency * np.linspace(0, 1, flux.shape[1]))
    changed[rows] = True
    return changed


def hit_columns(rng: np.random.Generator, flux: Matrix, count: int) -> Cells:
    """In each bad column 30 % of the spectra are off by +-U(0.25, 0.45)."""
    changed = np.zeros(flux.shape, bool)
    for column in rng.permutation(flux.shape[1])[:count]:
        rows = rng.permutation(len(flux))[: max(1, round(0.3 * len(flux)))]
        flux[rows, column] += rng.choice([-1, 1], len(rows)) * rng.uniform(0.25, 0.45, len(rows))
        changed[rows, column] = True
    return changed


def hit_pixels(rng: np.random.Generator, flux: Matrix, count: int) -> Cells:
    """Single cells anywhere are off by +-U(0.25, 0.75)."""
    changed = np.zeros(flux.shape, bool)
    cells = rng.choice(flux.size, count, replace=False)
    flux.reshape(-1)[cells] += rng.choice([-1, 1], count) * rng.uniform(0.25, 0.75, count)
    changed.reshape(-1)[cells] = True
    return changed


def add_lines(rng: np.random.Generator, flux: Matrix, count: int, eligible: Objects) -> Cells:
    """Three more Gaussian absorption lines each, of depth U(0.3, 0.6), in `count` eligible spectra."""
    changed = np.zeros(flux.shape, bool)
    pixel = np.arange(flux.shape[1])
    rows = rng.permutation(len(flux))
    for row in rows[eligible[rows]][:count]:
        for centre, depth in rng.uniform([FOREIGN_REACH, 0.3], [pixel[-1] - FOREIGN_REACH, 0.6], (3, 2)):
            # Cut at 4 sigma: what is called unchanged is exactly so, at errors of 1e-5 too.
            near = np.abs(pixel - centre) <= FOREIGN_REACH
            flux[row, near] -= depth * np.exp(-(((pixel[near] - centre) / FOREIGN_WIDTH) ** 2) / 2)
            changed[row] |= near
    return changed
