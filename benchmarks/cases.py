"""Contaminated surveys with known truth: what each case does to which cell, in a few lines each.

Clean data are draws from the model, flux of root mean square 1, errors log-normal around 0.03, 10 % of the
cells missing. Amplitudes are in units of that flux. Every corrupted cell is recorded: a fit with those
cells masked, begun at the truth, gives the attainable bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from robusta_prob.simulate import low_rank

RANK, MISSING = 5, 0.1
Draw = np.random.Generator


class Contaminated(NamedTuple):
    """Flux (NaN where missing) and ivar as a method sees them, which cells are bad, and the true basis."""

    flux: np.ndarray
    ivar: np.ndarray
    bad: np.ndarray
    basis: np.ndarray


class Clean(NamedTuple):
    """What a case starts from: noiseless flux and the errors."""

    flux: np.ndarray
    sigma: np.ndarray


Change = tuple[np.ndarray, np.ndarray, np.ndarray]  # flux before noise, sigma, bad cells
Case = Callable[[Draw, Clean], Change]


def survey(case: Case, seed: int, *, smooth: bool, size: tuple[int, int] = (1000, 400)) -> Contaminated:
    """One draw of one case."""
    base = low_rank(*size, RANK, seed=seed, smooth=smooth)
    rng = np.random.default_rng([seed, 77])
    flux, sigma, bad = case(rng, Clean(base.truth.clean.copy(), base.truth.sigma.astype(float)))
    flux = flux + sigma * rng.standard_normal(size)
    holes = rng.random(size) < MISSING
    return Contaminated(
        np.where(holes, np.nan, flux), np.where(holes, 0.0, sigma**-2.0), bad, base.truth.basis
    )


def clean(rng: Draw, data: Clean) -> Change:
    """Nothing wrong."""
    return data.flux, data.sigma, np.zeros(data.flux.shape, bool)


def pixels(share: float, amplitude: float) -> Case:
    """Scattered bad pixels, either sign."""

    def case(rng: Draw, data: Clean) -> Change:
        bad = rng.random(data.flux.shape) < share
        return data.flux + bad * amplitude * _signs(rng, bad.shape), data.sigma, bad

    return case


def columns(share: float, amplitude: float, count: int = 8) -> Case:
    """Hot detector columns that hit a share of the rows, always upwards."""

    def case(rng: Draw, data: Clean) -> Change:
        n, m = data.flux.shape
        bad = np.zeros((n, m), bool)
        bad[:, rng.choice(m, count, replace=False)] = rng.random((n, count)) < share
        return data.flux + bad * amplitude * rng.uniform(0.5, 1.5, (n, m)), data.sigma, bad

    return case


def segments(share: float, amplitude: float, width: int = 60) -> Case:
    """One contiguous segment, shifted up or down, in a share of the rows."""

    def case(rng: Draw, data: Clean) -> Change:
        n, m = data.flux.shape
        width_here = min(width, m // 3)
        first = rng.integers(0, m - width_here + 1, n)[:, None]
        bad = (np.arange(m) >= first) & (np.arange(m) < first + width_here) & (rng.random((n, 1)) < share)
        return data.flux + bad * amplitude * _signs(rng, (n, 1)), data.sigma, bad

    return case


def foreign(share: float, amplitude: float, precision: float = 1.0) -> Case:
    """Rows that are waves instead, each of its own frequency and phase; `precision` divides their errors."""

    def case(rng: Draw, data: Clean) -> Change:
        n, m = data.flux.shape
        rows = rng.random((n, 1)) < share
        wave = np.sin(np.arange(m) / m * rng.uniform(6, 120, (n, 1)) + rng.uniform(0, 2 * np.pi, (n, 1)))
        sigma = np.where(rows, data.sigma / precision, data.sigma)
        return np.where(rows, amplitude * wave, data.flux), sigma, np.broadcast_to(rows, (n, m))

    return case


def twins(share: float, amplitude: float) -> Case:
    """Rows that are one and the same foreign spectrum: coherent, so that a component could be spent on it."""

    def case(rng: Draw, data: Clean) -> Change:
        n, m = data.flux.shape
        rows = rng.random((n, 1)) < share
        wave = amplitude * np.sin(0.9 * np.arange(m))
        return np.where(rows, wave, data.flux), data.sigma, np.broadcast_to(rows, (n, m))

    return case


def mixed(low: float, high: float) -> Case:
    """Errors of each row between 10^low and 10^high; 5 % of pixels x 10, 5 % of rows waves x 30."""

    def case(rng: Draw, data: Clean) -> Change:
        errors = 10.0 ** rng.uniform(low, high, (len(data.flux), 1)) * data.sigma / np.median(data.sigma)
        flux, errors, rows = foreign(0.05, 30.0)(rng, Clean(data.flux, errors))
        flux, errors, cells = pixels(0.05, 10.0)(rng, Clean(flux, errors))
        return flux, errors, rows | cells

    return case


def _signs(rng: Draw, shape: tuple[int, ...]) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)


CASES: dict[str, Case] = {
    "clean": clean,
    **{
        f"{share:.0%} pixels x {amplitude}": pixels(share, amplitude)
        for share in (0.01, 0.05, 0.1, 0.2, 0.3)
        for amplitude in (10, 300)
    },
    "8 hot columns, 30 %": columns(0.30, 50),
    "8 hot columns, 45 %": columns(0.45, 50),
    **{
        f"segments in {share:.0%} x {amplitude}": segments(share, amplitude)
        for share in (0.3, 0.6)
        for amplitude in (10, 50)
    },
    **{f"{share:.0%} foreign rows x 30": foreign(share, 30) for share in (0.05, 0.2, 0.4)},
    "10% the same foreign row x 2": twins(0.1, 2.0),
    "2% ultra-precise foreign": foreign(0.02, 1, precision=1000),
    "errors over 4 decades": mixed(-3.5, 0.5),
    "S/N 1": mixed(0.0, 0.0),
}
