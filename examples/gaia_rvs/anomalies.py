# %% [markdown]
# # What is wrong with a few of the stars
#
# Nine kinds of anomaly, each with one amplitude that is drawn log-uniformly, from what nobody can see to what
# nobody can miss. A kind returns the change of the spectrum, so that its strength against the noise is exact.

# %%
from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from examples.gaia_rvs.lines import PIXELS, STEP
from examples.gaia_rvs.spectra import CALCIUM, GRID, HYDROGEN, KM_S, Atmosphere, clean

HOT, COOL = 7500.0, 6200.0  # [K] broad Paschen lines above, unusually fast rotation below
EDGE = 45  # pixels at either end, which may be missing or clipped: nothing local is put there


class Star(NamedTuple):
    """One star that gets an anomaly."""

    atmosphere: Atmosphere  # of length 1
    flux: np.ndarray  # (2401,) its normal spectrum
    error: np.ndarray  # (2401,) of every pixel
    noise: np.ndarray  # (2401,) deviates: the noise is noise * error
    seen: np.ndarray  # (2401,) bool


class Kind(NamedTuple):
    """A kind of anomaly."""

    low: float  # range of the amplitude, log-uniform
    high: float
    unit: str
    change: Callable[[np.random.Generator, Star, float], tuple[np.ndarray, dict[str, Any]]]
    hotter: float = 0.0  # only stars between these temperatures [K]
    cooler: float = np.inf


def calcium(rng: np.random.Generator, star: Star, height: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Emission in the cores of all three lines of Ca II: an active chromosphere, or a hot star's disc."""
    sigma = rng.uniform(2.0, 4.0)
    profiles = np.exp(-0.5 * ((GRID - CALCIUM[:, None]) / (sigma * STEP)) ** 2)
    return height * profiles.sum(0), {"sigma_pixels": sigma}


def broad_paschen(rng: np.random.Generator, star: Star, height: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Broad, shallow lines of hydrogen, two in three in emission, as of a Be star's disc.

    The amplitude is the height of a line that stands alone; the weaker higher lines overlap.
    """
    sigma = rng.uniform(40.0, 100.0)
    sign = rng.choice([1.0, 1.0, -1.0])
    relative = 0.9 ** np.arange(len(HYDROGEN))[:, None]
    profiles = relative * np.exp(-0.5 * ((GRID - HYDROGEN[:, None]) / (sigma * STEP)) ** 2)
    return sign * height * profiles.sum(0) * star.flux, {"sigma_pixels": sigma, "sign": sign}


def binary(rng: np.random.Generator, star: Star, ratio: float) -> tuple[np.ndarray, dict[str, Any]]:
    """The lines of a companion on the same sequence: as metal-rich, fainter, hence cooler, and shifted.

    The primary stays at rest. T ~ F^0.12 along the sequence at these wavelengths, to a few per cent.
    """
    primary = star.atmosphere
    velocity = rng.choice([-1.0, 1.0]) * np.exp(rng.uniform(np.log(30.0), np.log(200.0)))
    companion = primary._replace(
        temperature=np.maximum(primary.temperature * ratio**0.12, 2900.0),
        rotation=np.minimum(primary.rotation, rng.uniform(2.0, 20.0)),
        velocity=primary.velocity + velocity,
    )
    both = (star.flux + ratio * clean(companion)[0]) / (1.0 + ratio)
    return both - star.flux, {"velocity_km_s": velocity, "shift_pixels": velocity / KM_S}


def velocity_error(rng: np.random.Generator, star: Star, speed: float) -> tuple[np.ndarray, dict[str, Any]]:
    """The spectrum was moved to rest with a wrong radial velocity."""
    velocity = speed * rng.choice([-1.0, 1.0])
    moved = star.atmosphere._replace(velocity=star.atmosphere.velocity + velocity)
    return clean(moved)[0] - star.flux, {"velocity_km_s": velocity, "shift_pixels": velocity / KM_S}


def fast_rotation(rng: np.random.Generator, star: Star, speed: float) -> tuple[np.ndarray, dict[str, Any]]:
    """A cool star that spins: the amplitude is its v sin i."""
    before = float(star.atmosphere.rotation[0])
    spun = star.atmosphere._replace(rotation=np.array([speed]))
    return clean(spun)[0] - star.flux, {"normal_rotation_km_s": before}


def wrong_errors(rng: np.random.Generator, star: Star, factor: float) -> tuple[np.ndarray, dict[str, Any]]:
    """The noise is `factor` times what `flux_error` says: the change is the noise beyond it."""
    return (factor - 1.0) * star.noise * star.error, {}


def cosmic_rays(rng: np.random.Generator, star: Star, height: float) -> tuple[np.ndarray, dict[str, Any]]:
    """One to six single pixels far too bright; the amplitude is that of the brightest, in its errors."""
    inside = EDGE + np.flatnonzero(star.seen[EDGE : PIXELS - EDGE])
    count = min(int(rng.integers(1, 7)), len(inside))
    change = np.zeros(PIXELS)
    hit = rng.choice(inside, count, replace=False)
    heights = np.exp(rng.uniform(np.log(8.0), np.log(height), count))
    heights[:1] = height
    change[hit] = heights * star.error[hit]
    first = int(hit[0]) if count else None  # a spectrum may have no pixel left
    return change, {"first_pixel": first, "n_pixels": count}


def segment(rng: np.random.Generator, star: Star, offset: float) -> tuple[np.ndarray, dict[str, Any]]:
    """A piece of the detector is off by a constant, up or down."""
    length = int(rng.integers(50, 401))
    first = int(rng.integers(EDGE, PIXELS - EDGE - length))
    sign = rng.choice([-1.0, 1.0])
    change = np.zeros(PIXELS)
    change[first : first + length] = sign * offset
    return change, {"sign": sign, "first_pixel": first, "n_pixels": length}


def bent_continuum(rng: np.random.Generator, star: Star, size: float) -> tuple[np.ndarray, dict[str, Any]]:
    """The normalisation left a slope, in half of the cases also a bend; the amplitude is end to end."""
    sign = rng.choice([-1.0, 1.0])
    bend = rng.uniform(-1.0, 1.0) * rng.integers(0, 2)
    x = np.linspace(-0.5, 0.5, PIXELS)
    shape = x + bend * (2.0 * x**2 - 1.0 / 6.0)
    return sign * size * shape * star.flux, {"sign": sign, "curvature": bend}


KINDS = {
    "Ca II emission": Kind(0.003, 0.30, "continuum", calcium),
    "broad Paschen": Kind(0.005, 0.20, "continuum", broad_paschen, hotter=HOT),
    "double-lined binary": Kind(0.03, 1.0, "flux ratio", binary),
    "velocity error": Kind(2.0, 60.0, "km/s", velocity_error),
    "fast rotation": Kind(60.0, 350.0, "km/s", fast_rotation, cooler=COOL),
    "underestimated errors": Kind(1.1, 3.0, "factor", wrong_errors),
    "cosmic rays": Kind(8.0, 100.0, "errors", cosmic_rays),
    "detector segment": Kind(0.01, 0.20, "continuum", segment),
    "continuum slope": Kind(0.01, 0.20, "continuum", bent_continuum),
}
COLUMNS = (
    "sign",
    "sigma_pixels",
    "velocity_km_s",
    "shift_pixels",
    "normal_rotation_km_s",
    "first_pixel",
    "n_pixels",
    "curvature",
)


def choose(rng: np.random.Generator, temperature: np.ndarray, share: float) -> np.ndarray:
    """Place in KINDS of the anomaly of every star, -1 for none: any of those that its temperature allows.

    Those that few stars can have count triple where they can, so that they do not get too rare.
    """
    weight = np.stack(
        [
            np.where(
                (temperature > kind.hotter) & (temperature < kind.cooler), 3.0 if kind.hotter else 1.0, 0
            )
            for kind in KINDS.values()
        ],
        1,
    )
    upper = np.cumsum(weight, 1) / weight.sum(1, keepdims=True)
    picked = (rng.random((len(temperature), 1)) >= upper).sum(1)
    return np.where(rng.random(len(temperature)) < share, picked, -1)


def inject(rng: np.random.Generator, name: str, star: Star) -> tuple[np.ndarray, dict[str, Any]]:
    """Change of the flux by an anomaly of this kind, and what is known of it.

    Returns
    -------
    change : (2401,) array
        To be added to the flux.
    facts : dict
        kind, amplitude, unit, strength = sqrt(sum of (change/error)^2 over observed pixels), and more.
    """
    kind = KINDS[name]
    low = kind.low
    if name == "underestimated errors" and rng.random() < 0.8:
        low = 1.5  # only a few below, which hardly anything can tell from normal
    amplitude = float(np.exp(rng.uniform(np.log(low), np.log(kind.high))))
    change, facts = kind.change(rng, star, amplitude)
    signal = (change / star.error)[star.seen]
    strength = float(np.sqrt((signal**2).sum()))
    return change, {"kind": name, "amplitude": amplitude, "unit": kind.unit, "strength": strength, **facts}
