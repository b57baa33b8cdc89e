# %% [markdown]
# # Who is observed
#
# Stars along the main sequence with twins above it and giants off it, and what the catalogue says of them.

# %%
from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from examples.gaia_rvs.bins import ridge
from examples.gaia_rvs.config import Bins
from examples.gaia_rvs.spectra import Atmosphere

BLOCK, WITHOUT_SPECTRUM = 1024, 40  # stars of a block with a spectrum, and in the catalogue only
COLOURS = Bins().bp_rp  # of the sequence [mag]
NULLS = {"parallax": 0.01, "bp_rp": 0.01, "phot_g_mean_mag": 0.002, "teff_gspphot": 0.15}  # shares of rows

# Spectra per bin, published for bins 0, 4 and 7 and guessed between them; one bin per 3.1/13 mag.
_COUNTS = (6.8, 25.0, 70.0, 150.0, 192.0, 110.0, 35.0, 9.3, 6.0, 4.5, 3.5, 2.2, 1.0, 0.4)
_KNOTS = np.linspace(*COLOURS, len(_COUNTS))

# BP-RP [mag], effective temperature [K] and log gravity of dwarfs: Pecaut & Mamajek (2013), rounded.
_DWARFS = np.array(
    [
        (-0.15, 11_200, 4.10), (0.0, 9_700, 4.15), (0.27, 8_000, 4.20), (0.41, 7_200, 4.25),
        (0.59, 6_500, 4.30), (0.78, 5_930, 4.42), (0.85, 5_660, 4.47), (0.98, 5_270, 4.53),
        (1.36, 4_440, 4.63), (1.84, 3_850, 4.75), (2.13, 3_560, 4.83), (2.50, 3_400, 4.92),
        (2.83, 3_210, 5.02), (3.2, 3_090, 5.10),
    ]
).T  # fmt: skip


class Population(NamedTuple):
    """Cumulative distribution of BP-RP."""

    colour: np.ndarray  # [mag]
    below: np.ndarray  # share of all stars


class Stars(NamedTuple):
    """Of one block: first those with a spectrum."""

    source_id: np.ndarray
    colour: np.ndarray  # BP-RP [mag]
    apparent: np.ndarray  # G [mag]
    parallax: np.ndarray  # [mas]
    atmosphere: Atmosphere


def dwarf(colour: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Effective temperature [K] and log10 of the gravity [cm/s^2] of a dwarf with this BP-RP [mag]."""
    return np.interp(colour, _DWARFS[0], _DWARFS[1]), np.interp(colour, _DWARFS[0], _DWARFS[2])


def density(colours: tuple[float, float], flatness: float) -> Population:
    """Of BP-RP between two limits [mag]; `flatness` is the share of stars that are spread evenly."""
    x = np.linspace(*colours, 2001)
    archive = np.exp(np.interp(x, _KNOTS, np.log(_COUNTS)))
    both = (1.0 - flatness) * archive / archive.mean() + flatness
    below = np.concatenate([[0.0], np.cumsum(both[1:] + both[:-1])])
    return Population(x, below / below[-1])


def draw_stars(rng: np.random.Generator, population: Population, number: int) -> Stars:
    """Stars along the main sequence, with unresolved twins above it and some giants."""
    n = BLOCK + WITHOUT_SPECTRUM
    colour = np.interp(rng.random(n), population.below, population.colour)
    offset, sequence = rng.normal(0.0, 0.35, n), ridge(Bins(), colour)
    giant = (rng.random(n) < 0.05) & (colour > 0.9) & (colour < 2.0)
    offset = np.where(giant, 3.4 - 3.4 * (colour - 0.9) + 1.5 * offset - sequence, offset)
    twin = np.where(rng.random(n) < 0.04, 0.75, 0.0)  # two equal stars are 2.5 log10(2) mag brighter
    absolute = sequence + offset - twin
    # counts that rise like 10^(0.25 G) between G = 6 and 14
    apparent = 6.0 + np.log10(1.0 + rng.random(n) * (10.0**2.0 - 1.0)) / 0.25
    temperature, gravity = dwarf(colour)
    gravity = gravity + 0.4 * offset  # g ~ M T^4 / L
    typical = 3.0 + 110.0 / (1.0 + np.exp(-(temperature - 6900.0) / 250.0))
    metallicity = rng.normal(-0.05, 0.2, n)
    atmosphere = Atmosphere(
        temperature * (1.0 + rng.normal(0.0, 80.0 / 5800.0, n)),
        gravity,
        metallicity,
        rng.normal(0.04, 0.04, n) - 0.15 * metallicity,
        rng.normal(0.0, 0.04, n),
        np.minimum(typical * np.exp(rng.normal(0.0, 0.38, n)), 300.0),
        rng.normal(0.0, 0.3, n),
        *rng.normal(0.0, 0.002, (2, n)),
    )
    # HEALPix cell of level 12, then a running number, then 7 bits for components: as in the archive, but
    # with no relation to the position on the sky. The cells are those that make 19 digits.
    cell, running = rng.integers(30_000_000, 12 * 4**12, n), number * n + np.arange(n)
    return Stars(
        cell << 35 | running << 7, colour, apparent, 10.0 ** (2.0 + 0.2 * (absolute - apparent)), atmosphere
    )


def describe(rng: np.random.Generator, stars: Stars) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of the catalogue, with gaps and with a column `listed`, and the signal-to-noise per pixel."""
    n = len(stars.apparent)
    photon = 15.0 * 10.0 ** (0.2 * (14.0 - stars.apparent)) * np.exp(rng.normal(0.0, 0.12, n))
    quality = 1.0 / np.hypot(1.0 / photon, 1.0 / 300.0)  # the floor is what the calibration leaves
    precision = 0.015 * 10.0 ** (0.08 * np.maximum(stars.apparent - 12.0, 0.0))
    parallax = stars.parallax + precision * rng.standard_normal(n)
    spurious = rng.random(n) < 0.006
    parallax[spurious] = rng.normal(-0.5, 0.4, int(spurious.sum()))
    columns = {
        "ra": rng.uniform(0.0, 360.0, n).round(9),
        "dec": np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n))).round(9),
        "phot_g_mean_mag": (stars.apparent + rng.normal(0.0, 0.003, n)).round(6),
        "source_id": stars.source_id,
        "bp_rp": (stars.colour + rng.normal(0.0, 0.004, n)).round(6),
        "parallax": parallax.round(6),
        "parallax_error": precision.round(6),
        "radial_velocity": rng.normal(0.0, 35.0, n).round(4),
        "rv_expected_sig_to_noise": quality.round(4),
        "teff_gspphot": (stars.atmosphere.temperature + rng.normal(0.0, 90.0, n)).round(2),
    }
    for name, share in NULLS.items():
        columns[name] = np.where(rng.random(n) < share, np.nan, columns[name])
    listed = rng.random(n) >= 0.03
    listed[BLOCK:] = True
    return pd.DataFrame({**columns, "listed": listed}), quality
