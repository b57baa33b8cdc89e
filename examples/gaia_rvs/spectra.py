# %% [markdown]
# # Clean spectra between 846 and 870 nm
#
# An absorbing layer in front of a flat continuum: flux = broadening[exp(-tau)], where the optical depth
#
#     tau_i(wavelength) = sum over species of strength_s(star i) profile_s(wavelength)
#
# has a fixed profile per species and a strength that is smooth in temperature, gravity, abundances and
# activity. It is no model atmosphere: lines are where they should be and react as they should, in the right
# order of size, so that a search meets the variety that it would meet in the sky.

# %%
from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import fft, special

from examples.gaia_rvs.lines import FIRST, PASCHEN, PIXELS, STEP, air_to_vacuum

GRID = FIRST + STEP * np.arange(PIXELS)
LIGHT = 299_792.458  # speed of light [km/s]
KM_S = LIGHT * STEP / 858.0  # of one pixel; it varies by 1.4 % over the window, which we neglect
RESOLUTION = 11_500  # of the RVS: Cropper et al. (2018)
ROWS = 128  # stars at a time: their transforms stay in the cache
LIMB = 0.6  # linear limb darkening, typical of the near infrared

# The layer is computed on a wider grid, so that no kernel reaches round its ends.
MARGIN, WIDE = 171, 2744
_WIDE_GRID = FIRST + STEP * (np.arange(WIDE) - MARGIN)

# Wavelengths in AIR [nm], rounded, with a relative optical depth; of lines that are seen in F-K stars.
CA_TRIPLET = {849.802: 0.60, 854.209: 1.0, 866.214: 0.86}
FE_LOW = {
    846.84: 0.9, 851.41: 1.1, 851.51: 0.8, 858.23: 0.8, 861.18: 0.8, 862.16: 0.8, 866.19: 0.7, 867.47: 1.1,
    868.86: 1.9, 869.94: 0.6,
}  # fmt: skip
FE_HIGH = {
    847.17: 0.4, 848.20: 0.3, 849.70: 0.4, 852.67: 0.7, 853.80: 0.4, 857.18: 0.3, 859.30: 0.3, 859.88: 0.6,
    861.39: 0.3, 861.63: 0.5, 863.24: 0.3,
}  # fmt: skip
TI = {846.85: 0.5, 851.84: 0.5, 854.81: 0.3, 867.54: 0.6, 868.30: 0.5, 869.23: 0.4}
SI = {850.22: 0.5, 850.15: 0.3, 853.62: 0.4, 855.68: 0.7, 864.85: 0.8, 868.64: 0.3}
SPECIES = {
    "Fe I, low excitation": FE_LOW,
    "Fe I, high excitation": FE_HIGH,
    "Ti I": TI,
    "Si I": SI,
    "Mg I": {847.37: 0.6},
    "Ni I": {863.70: 0.5, 857.99: 0.2},
    "Cr I": {854.88: 0.4},
    "Al I": {864.07: 0.4},
    "S I": {867.89: 0.3, 868.04: 0.3, 869.39: 0.5, 869.46: 0.7},
    "N I": {856.77: 0.4, 859.40: 0.5, 862.92: 0.6, 865.59: 0.4, 868.03: 1.0, 868.34: 0.8, 868.62: 0.5},
}
TIO_HEADS = {844.2: 0.7, 845.1: 0.9, 847.2: 0.5, 850.6: 0.5, 851.3: 0.4, 857.0: 0.2}  # vacuum, rounded
VO_HEADS = {852.1: 0.5, 857.5: 0.9, 862.5: 0.7, 866.9: 0.5}


class Atmosphere(NamedTuple):
    """What shapes a normal spectrum; one entry per star."""

    temperature: np.ndarray  # effective [K]
    gravity: np.ndarray  # log10 of it [cm/s^2]
    metallicity: np.ndarray  # [M/H] [dex]
    alpha: np.ndarray  # enhancement of O, Mg, Si, S, Ca and Ti over iron [dex]
    activity: np.ndarray  # relative change of the depth of the Ca II cores
    rotation: np.ndarray  # v sin i [km/s]
    velocity: np.ndarray  # left over by the reduction to rest [km/s]
    slope: np.ndarray  # left over by the normalisation, from the middle to an end
    curvature: np.ndarray

    def take(self, rows: np.ndarray) -> Atmosphere:
        """These stars alone."""
        return Atmosphere(*(values[rows] for values in self))


CALCIUM = air_to_vacuum(np.array(list(CA_TRIPLET)))  # Ca II triplet [nm, vacuum]
HYDROGEN = np.array(sorted(PASCHEN.values(), reverse=True))  # P12-P18 [nm, vacuum]


def clean(star: Atmosphere) -> np.ndarray:
    """Spectra without noise, continuum 1, shape (stars, 2401), float32.

    Every row depends on its star alone, so that a changed `Atmosphere` gives the spectrum of a changed star.
    """
    depth, profile = strengths(star), profiles()
    x = np.linspace(-1, 1, PIXELS, dtype=np.float32)
    bend = np.stack([x, 1.5 * x**2 - 0.5])
    flux = np.stack([star.slope, star.curvature], 1).astype(np.float32) @ bend
    flux += 1
    for start in range(0, len(flux), ROWS):
        rows = slice(start, start + ROWS)
        layer = depth[rows] @ profile
        np.negative(layer, out=layer)
        np.exp(layer, out=layer)
        flux[rows] *= broaden(layer, star.rotation[rows], star.velocity[rows])
    return flux


def strengths(star: Atmosphere) -> np.ndarray:
    """Optical depth of every species, (stars, species) float32, in the order of `profiles`.

    Excitation and ionisation enter through u = ln(T / 5800 K): a neutral metal goes like exp(-slope u) until
    it is ionised; molecules set in where it is cold, hydrogen and nitrogen where it is hot.
    """
    u = np.log(star.temperature / 5800.0)
    g = star.gravity - 4.45
    metals, alphas = 10.0 ** (0.6 * star.metallicity), 10.0 ** (0.6 * star.alpha)
    above, below = _rise, lambda x, limit, width: _rise(-x, -limit, width)

    # in M dwarfs molecules take over the opacity, and atomic lines grow no further
    cold = 0.06 * np.log1p(np.exp((u + 0.32) / 0.06)) - 0.32

    def neutral(depth: float, slope: float, ionised: float = 0.25) -> np.ndarray:
        return depth * metals * np.exp(-slope * cold) * below(u, ionised, 0.09) * above(u, -0.62, 0.12)

    calcium = metals**0.6 * alphas**0.6 * below(u, 0.30, 0.09) * above(u, -0.48, 0.10)
    ionised_calcium = below(u, 0.6, 0.1) * metals * calcium**0.2  # what is left of the lines in A stars
    hydrogen = above(u, 0.30, 0.07)
    columns = {
        "Fe I, low excitation": neutral(1.1, 1.3),
        "Fe I, high excitation": neutral(0.9, 0.5, 0.30),
        "Ti I": neutral(0.35, 4.5, 0.1) * alphas,
        "Si I": neutral(0.8, -1.0, 0.35) * alphas * above(u, -0.35, 0.1),
        "Mg I": neutral(0.7, 0.8, 0.35) * alphas * 10.0 ** (0.15 * g),
        "Ni I": neutral(0.8, 0.8),
        "Cr I": neutral(0.5, 3.0, 0.15),
        "Al I": neutral(0.5, 1.5),
        "S I": 0.25 * metals * alphas * above(u, 0.0, 0.1) * below(u, 0.5, 0.1),
        "N I": 0.9 * above(u, 0.42, 0.07),
        "calcium core": (1.0 + star.activity) * (0.5 * calcium + 0.5 * ionised_calcium),
        "calcium wings": 0.95 * calcium * 10.0 ** (-0.10 * g),
        "hydrogen core": 0.30 * hydrogen * 10.0 ** (-0.15 * g),
        "hydrogen wings": 0.22 * hydrogen * 10.0 ** (0.25 * g),
        "CN": 0.10 * metals**1.5 * np.exp(-0.5 * ((u + 0.16) / 0.13) ** 2) * 10.0 ** (-0.25 * g),
        "TiO": 0.50 * metals * alphas * below(u, -0.46, 0.05),
        "VO": 0.16 * metals * below(u, -0.60, 0.05),
        "blends, low excitation": neutral(0.10, 3.0),
        "blends, high excitation": neutral(0.10, 0.3, 0.35),
        "blends, molecular": 0.25 * metals * below(u, -0.40, 0.06),
    }  # fmt: skip
    return np.stack(list(columns.values()), 1).astype(np.float32)


@cache
def profiles() -> np.ndarray:
    """Optical depth per unit of strength, (species, wide grid) float32, in the order of `strengths`."""
    x = _WIDE_GRID
    near = x - CALCIUM[:, None]
    relative = np.array(list(CA_TRIPLET.values()))[:, None]
    stark = x - HYDROGEN[:, None]
    height = 1.0 - 0.06 * np.arange(len(HYDROGEN))[:, None]
    rng = np.random.default_rng(846_870)  # of the places of blends: always the same
    rows = [
        _lines(air_to_vacuum(np.array(list(lines))), np.array(list(lines.values())))
        for lines in SPECIES.values()
    ]
    rows += [
        (relative * np.exp(-0.5 * (near / 0.05) ** 2)).sum(0),
        (relative / (1.0 + (near / 0.09) ** 2)).sum(0),
        # Holtsmark's law: wings fall like the distance to the power -5/2
        (height * (1.0 + (stark / 0.45) ** 2) ** -1.25).sum(0),
        (height * (1.0 + (stark / 1.1) ** 2) ** -1.25).sum(0),
        _branches(),
        _bands(TIO_HEADS, 3.0, rng),
        _bands(VO_HEADS, 2.5, rng),
    ]
    for count in (70, 90, 260):
        rows.append(_lines(rng.uniform(x[0], x[-1], count), rng.exponential(1.0, count)))
    return np.stack(rows).astype(np.float32)


def broaden(layer: np.ndarray, rotation: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """Rotate, shift and observe with the RVS: one product in Fourier space, cut to the 2401 pixels.

    Parameters
    ----------
    layer : (stars, WIDE) float32 array
        Flux on the wide grid.
    rotation, velocity : (stars,) array
        v sin i and radial velocity [km/s], up to 350 and 200.
    """
    sigma = 858.0 / RESOLUTION / STEP / np.sqrt(8.0 * np.log(2.0))  # of the line spread function [pixels]
    frequency = fft.rfftfreq(WIDE)
    response = np.exp(-2.0 * (np.pi * sigma * frequency) ** 2)
    kept = int((response > 1e-6).sum())  # the instrument sees nothing finer
    waves = fft.rfft(layer, axis=1)
    waves[:, kept:] = 0
    angle = (2.0 * np.pi * frequency[:kept]).astype(np.float32)
    kernel = _rotation((np.maximum(rotation, 0.1) / KM_S).astype(np.float32)[:, None] * angle)
    kernel *= response[:kept].astype(np.float32)
    waves[:, :kept] *= kernel
    phase = (velocity / KM_S).astype(np.float32)[:, None] * angle
    turn = np.empty(phase.shape, np.complex64)
    turn.real, turn.imag = np.cos(phase), -np.sin(phase)
    waves[:, :kept] *= turn
    return fft.irfft(waves, WIDE, axis=1, overwrite_x=True)[:, MARGIN : MARGIN + PIXELS]


def rotation_transform(b: np.ndarray) -> np.ndarray:
    """Fourier transform of the profile of a rotating, linearly limb-darkened star (Gray 2005, ch. 18).

    At angular frequency times half width b; with J1, 2 pi (1 - e) J1(b)/b + 2 pi e (sin b - b cos b)/b^3,
    over pi (1 - e/3), so that it is 1 at b = 0.
    """
    b = np.maximum(b, 1e-3)  # below it, rounding is larger than the change
    disc = (1.0 - LIMB) * 2.0 * special.j1(b) / b
    darkened = LIMB * 2.0 * (np.sin(b) - b * np.cos(b)) / b**3
    return (disc + darkened) / (1.0 - LIMB / 3.0)


@cache
def _rotation_table(step: float = 0.01, end: float = 250.0) -> np.ndarray:
    return rotation_transform(np.arange(0.0, end, step)).astype(np.float32)


def _rotation(b: np.ndarray) -> np.ndarray:
    """`rotation_transform` in float32, to 1e-5: the nearest entries of a table, and a straight line."""
    b = b * np.float32(100.0)
    index = b.astype(np.int32)
    b -= index
    table = _rotation_table()
    low = table[index]
    index += 1
    b *= table[index] - low
    b += low
    return b


def _rise(x: np.ndarray, at: float, width: float) -> np.ndarray:
    """From 0 to 1 around `at`."""
    return special.expit((x - at) / width)


def _lines(centres: np.ndarray, depths: np.ndarray, width: float = 0.016) -> np.ndarray:
    """Gaussian lines, by thermal and turbulent motion [nm]; the instrument adds twice as much."""
    return depths @ np.exp(-0.5 * ((_WIDE_GRID - centres[:, None]) / width) ** 2)


def _bands(heads: dict[float, float], decay: float, rng: np.random.Generator) -> np.ndarray:
    """Molecular bands: a sharp head, degraded to the red over `decay` nm, with rotational lines."""
    out = np.zeros(WIDE)
    for head, depth in heads.items():
        beyond = _WIDE_GRID - head
        edge = np.clip(beyond / 0.04 + 0.5, 0.0, 1.0)
        centres = head + rng.uniform(0.0, 3.0 * decay, 120)
        forest = _lines(centres, rng.exponential(0.35, 120))
        out += depth * edge * np.exp(-np.maximum(beyond, 0.0) / decay) * (0.75 + forest)
    return out


def _branches() -> np.ndarray:
    """Red system of CN: branches of rotational lines, whose distance grows with their number (Fortrat)."""
    out = np.zeros(WIDE)
    for head, spread in ((845.2, 0.011), (851.9, 0.012), (859.6, 0.010), (866.3, 0.013)):
        number = np.arange(1, 45)
        out += _lines(head + spread * number**2 / 4.0, number * np.exp(-((number / 18.0) ** 2)) / 10.0)
    return out
