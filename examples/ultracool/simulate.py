"""A stand-in for the library: dwarfs along a temperature sequence, and strangers of each kind.

Not a model of atmospheres: humps between bands of water and methane that deepen as it gets cooler, with the
columns, the ranges of noise, the repeated sources and the underestimated errors of the real file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.ultracool import survey
from examples.ultracool.config import Simulation
from robusta_prob.io import atomic_path

PIXELS = 448
WATER = ((0.93, 0.03), (1.13, 0.04), (1.40, 0.07), (1.88, 0.10), (2.55, 0.12))  # centre, width [micron]
METHANE = ((1.16, 0.04), (1.35, 0.05), (1.68, 0.08), (2.28, 0.09))
HYDRIDES = ((0.87, 0.015), (0.99, 0.012), (1.20, 0.02))  # FeH, stronger in subdwarfs
CARBON = ((2.32, 0.05),)  # CO band head
LETTERS = "MLT"
REPEATED = 0.1  # of the sources


def simulate(path: Path, settings: Simulation) -> None:
    """Write the file that `survey.read` reads; the same seed writes the same spectra."""
    rng = np.random.default_rng(settings.seed)
    wave = np.exp(np.linspace(np.log(0.8024), np.log(2.4189), PIXELS))
    n = settings.objects
    sources = np.arange(round(n / (1.0 + REPEATED)))
    source = np.concatenate([sources, rng.choice(sources, n - len(sources))])
    kind = _kinds(len(sources), settings.strange, rng)[source]
    cool = rng.beta(1.2, 1.8, len(sources))[source]  # 0: M6, 1: T8
    dust, gravity = (rng.normal(0.0, 0.3, len(sources))[source] for _ in range(2))
    redshift = rng.uniform(0.0, 0.3, len(sources))[source]
    clean = np.array(
        [
            spectrum(wave, k, c, d, g, z)
            for k, c, d, g, z in zip(kind, cool, dust, gravity, redshift, strict=True)
        ]
    )
    clean /= np.median(clean[:, (wave > survey.NORMAL[0]) & (wave < survey.NORMAL[1])], axis=1, keepdims=True)
    snr = np.exp(rng.normal(np.log(73.0), 1.0, n))
    sigma = (0.5 + 0.5 / np.sqrt(np.maximum(clean, 0.05))) / snr[:, None]
    flux = clean + np.hypot(sigma, settings.floor) * rng.standard_t(6.0, clean.shape)
    hole = rng.random(n) < 0.04
    seen = ~(hole[:, None] & (wave < 0.86))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            wave_um=wave,
            flux=np.where(seen, flux, 0.0).astype(np.float32),
            ivar=np.where(seen, sigma**-2, 0.0).astype(np.float32),
            **labels(source, kind, cool, snr, rng),
        )


def _kinds(n: int, strange: float, rng: np.random.Generator) -> np.ndarray:
    """Dwarfs, and one of each stranger in turn."""
    names = ("GIANT", "GALAXY", "WD", "STAR", "sd", "binary")
    kind = np.full(n, "VLM", "U8")
    odd = rng.permutation(n)[: max(round(n * strange), len(names))]
    kind[odd] = np.resize(names, len(odd))
    return kind


def bands(wave: np.ndarray, places: tuple[tuple[float, float], ...], depth: float) -> np.ndarray:
    """Transmission of absorption bands: steep heads on the blue side, soft on the red."""
    opacity = np.zeros_like(wave)
    for centre, width in places:
        x = (wave - centre) / np.where(wave < centre, 0.6 * width, 1.2 * width)
        opacity += np.exp(-0.5 * x**2)
    return np.exp(-depth * opacity)


def continuum(wave: np.ndarray, kelvin: float) -> np.ndarray:
    """Planck's law per wavelength, in arbitrary units."""
    return wave**-5.0 / np.expm1(14388.0 / (wave * kelvin))


def spectrum(
    wave: np.ndarray, kind: str, cool: float, dust: float, gravity: float, redshift: float
) -> np.ndarray:
    """Flux density without noise."""
    if kind == "WD":
        return continuum(wave, 9000.0) * bands(wave, ((1.005, 0.01), (1.094, 0.01), (1.282, 0.012)), 0.3)
    if kind == "STAR":
        return continuum(wave, 3600.0) * bands(wave, CARBON, 0.15)
    if kind == "GALAXY":
        lines = sum(
            np.exp(-0.5 * ((wave - c * (1.0 + redshift)) / 0.006) ** 2) for c in (0.6563, 0.9531, 1.083)
        )
        return (wave / 1.3) ** -0.5 + 1.5 * lines
    if kind == "GIANT":
        return continuum(wave, 3000.0) * bands(wave, WATER, 0.5) * bands(wave, CARBON, 0.9)
    if kind == "binary":
        pair = (spectrum(wave, "VLM", c, dust, gravity, 0.0) for c in (0.45 * cool, 0.9))
        return sum(w * f / np.median(f) for w, f in zip((0.75, 0.25), pair, strict=True))
    kelvin = 2700.0 - 1900.0 * cool
    flux = continuum(wave, kelvin) * np.exp(0.5 * dust * (wave - 1.3))
    flux = flux * bands(wave, WATER, 0.4 + 2.2 * cool) * bands(wave, METHANE, 4.0 * max(cool - 0.65, 0.0))
    hydrides = 0.3 * (1.0 - cool) * np.exp(0.5 * gravity) * (4.0 if kind == "sd" else 1.0)
    carbon = 0.0 if kind == "sd" else 0.5 * (1.0 - cool)
    return flux * bands(wave, HYDRIDES, hydrides) * bands(wave, CARBON, carbon)


def labels(
    source: np.ndarray, kind: np.ndarray, cool: np.ndarray, snr: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The columns of the real file that the comparison reads."""
    n = len(source)
    dwarf = np.isin(kind, ("VLM", "sd", "binary"))
    step = 6 + 22 * cool
    types = np.array([f"{LETTERS[min(int(s // 10), 2)]}{s % 10:.1f}" for s in step])
    return {
        "filename": np.array([f"{10001 + i}_{10001 + s}.fits" for i, s in enumerate(source)]),
        "source_key": np.array([str(10001 + s) for s in source]),
        "name": np.array([f"simulated {s}" for s in source]),
        "object_type": np.where(dwarf, "VLM", kind),
        "metallicity_class": np.where(kind == "sd", "sd", ""),
        "sbinary": np.where(kind == "binary", "Y", ""),
        "quality": np.where(rng.random(n) < 0.05, "POOR", "OK"),
        "spex_type": np.where(dwarf, types, ""),
        "lit_type": np.where(dwarf, types, ""),
        "median_snr": np.rint(snr),
    }
