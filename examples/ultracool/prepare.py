"""From a local copy of SPLAT, the SpeX Prism Library Analysis Toolkit, to one file of spectra and labels.

What is read, wherever below the folder it lies in the version at hand:

    db/spectral_data.txt            a line per spectrum: DATA_FILE, SOURCE_KEY, QUALITY_FLAG, MEDIAN_SNR, ...
    db/source_data.txt              a line per source: SOURCE_KEY, NAME, OBJECT_TYPE, METALLICITY_CLASS, ...
    resources/Spectra/SPEX-PRISM/   the spectra: FITS, or text of the same name

Both tables are separated by tabs; the lines of some versions end with a carriage return alone. A FITS file
has one array of rows wavelength [micron], flux and noise; text has the same as columns, below comments (; or
#). In some files, all that are text among them, the third is the signal-to-noise ratio instead: the
catalogue's MEDIAN_SNR tells which it is.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.ultracool import survey
from robusta_prob.io import atomic_path

FIRST, LAST = 0.8023, 2.4190  # micron, of the common grid
LEAST = 0.5  # share of the grid that a spectrum must cover
ANGSTROM = 1e4  # per micron
NAMES = {"GAL": "GALAXY"}  # of object types in older versions
OF_SPECTRUM = {
    "quality": "QUALITY_FLAG",
    "spex_type": "SPEX_TYPE",
    "gravity": "SPEX_GRAVITY_CLASSIFICATION",
    "published": "PUBLISHED",
}
OF_SOURCE = {
    "name": "NAME",
    "opt_type": "OPT_TYPE",
    "lit_type": "LIT_TYPE",
    "object_type": "OBJECT_TYPE",
    "metallicity_class": "METALLICITY_CLASS",
    "library": "LIBRARY",
    "sbinary": "SBINARY",
    "binary": "BINARY",
    "note": "NOTE",
}
NUMBERS = {"median_snr": "MEDIAN_SNR", "resolution": "RESOLUTION", "airmass": "AIRMASS"}


class Spectrum(NamedTuple):
    """As it was observed; sigma is infinite where there is no measurement."""

    wave: np.ndarray  # micron, increasing
    flux: np.ndarray
    sigma: np.ndarray
    noise_was_snr: bool


def prepare(folder: Path, output: Path) -> str:
    """Write the file; returns what was done in words.

    Raises
    ------
    FileNotFoundError
        If the folder, a table or the spectra are not there.
    ValueError
        If a table lacks a column, or no spectrum can be used.
    """
    spectra = read_table(
        found(folder, "spectral_data.txt"), {"DATA_FILE", "SOURCE_KEY", *OF_SPECTRUM.values()}
    )
    sources = read_table(found(folder, "source_data.txt"), {"SOURCE_KEY", *OF_SOURCE.values()})
    by_key = {line["SOURCE_KEY"]: line for line in sources}
    places = spectra_folder(folder)
    usable, why = [], Counter[str]()
    for line in spectra:
        try:
            path = file_of(places, line["DATA_FILE"])
            usable.append((line, normalised(read_spectrum(path, number(line, "MEDIAN_SNR")))))
        except (OSError, ValueError) as problem:
            why[str(problem).split(":")[0]] += 1
    if not usable:
        raise ValueError(f"none of the {len(spectra)} spectra in {places} can be used: {dict(why)}")
    grid = common_grid([spectrum.wave for _, spectrum in usable])
    rows = [(line, one, *resampled(one, grid)) for line, one in usable]
    rows = [row for row in rows if (row[3] > 0).mean() >= LEAST]
    lines = [{**by_key.get(line["SOURCE_KEY"], {}), **line} for line, *_ in rows]
    with atomic_path(output) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            wave_um=grid,
            flux=np.array([flux for _, _, flux, _ in rows], np.float32),
            ivar=np.array([ivar for _, _, _, ivar in rows], np.float32),
            filename=np.array([line["DATA_FILE"] for line in lines]),
            source_key=np.array([line["SOURCE_KEY"] for line in lines]),
            noise_was_snr=np.array([one.noise_was_snr for _, one, _, _ in rows]),
            **{
                name: np.array([text(line, column) for line in lines]) for name, column in OF_SPECTRUM.items()
            },
            **{
                name: np.array([text(by_key.get(line["SOURCE_KEY"], {}), column) for line in lines])
                for name, column in OF_SOURCE.items()
            },
            **{name: np.array([number(line, column) for line in lines]) for name, column in NUMBERS.items()},
        )
    left = ", ".join(f"{count} {reason}" for reason, count in why.items())
    short = len(usable) - len(rows)
    return (
        f"{output}: {len(rows)} spectra of {len(grid)} pixels; left out: {left or 'none'}, {short} too short"
    )


def found(folder: Path, name: str) -> Path:
    """The table of this name that is nearest to the top."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: give the folder of a copy of SPLAT")
    places = sorted(folder.rglob(name), key=lambda path: (len(path.parts), str(path)))
    if not places:
        raise FileNotFoundError(
            f"there is no {name} below {folder}: is it a copy of SPLAT, with its db folder?"
        )
    return places[0]


def spectra_folder(folder: Path) -> Path:
    """Where the spectra are."""
    places = sorted(folder.rglob("SPEX-PRISM"), key=lambda path: (len(path.parts), str(path)))
    places = [place for place in places if place.is_dir() and "Models" not in str(place)]
    if not places:
        raise FileNotFoundError(f"there is no folder resources/Spectra/SPEX-PRISM below {folder}")
    return places[0]


def read_table(path: Path, wanted: set[str]) -> list[dict[str, str]]:
    """Lines of a table by column name; extra columns stay.

    Raises
    ------
    ValueError
        If one of the wanted columns is missing.
    """
    content = path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    reader = csv.DictReader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = sorted(wanted - set(reader.fieldnames or ()))
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}; it has {reader.fieldnames}")
    return [{key: (value or "").strip() for key, value in line.items() if key} for line in reader]


def text(line: Mapping[str, str], column: str) -> str:
    """A label, under its present name."""
    value = line.get(column, "")
    return NAMES.get(value, value) if column == "OBJECT_TYPE" else value


def number(line: Mapping[str, str], column: str) -> float:
    """A number, NaN where there is none."""
    try:
        return float(line.get(column, ""))
    except ValueError:
        return float("nan")


def file_of(folder: Path, name: str) -> Path:
    """The file, or text of the same name."""
    for path in (folder / name, (folder / name).with_suffix(".txt")):
        if path.is_file():
            return path
    raise FileNotFoundError("without a file")


def read_spectrum(path: Path, median_snr: float) -> Spectrum:
    """Wavelength, flux and noise of one file.

    Raises
    ------
    ValueError
        If it is no spectrum with noise.
    """
    if path.suffix == ".fits":
        from astropy.io import fits

        rows = np.asarray(fits.getdata(path), float)
    else:
        rows = np.loadtxt(path, comments=(";", "#"), ndmin=2).T
    if rows.ndim != 2 or len(rows) < 3:
        raise ValueError("without noise")
    wave, flux, third = rows[:3]
    good = np.isfinite(wave) & (wave > 0)
    order = np.flatnonzero(good)[np.argsort(wave[good], kind="stable")]
    wave, flux, third = wave[order], flux[order], third[order]
    if len(wave) < 2:
        raise ValueError("without wavelengths")
    wave = wave / ANGSTROM if np.median(wave) > 100.0 else wave
    is_snr = third_is_snr(flux, third, median_snr)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.abs(flux) / third if is_snr else third
    known = np.isfinite(flux) & np.isfinite(sigma) & (sigma > 0) & (third > 0)
    return Spectrum(wave, np.where(known, flux, 0.0), np.where(known, sigma, np.inf), is_snr)


def third_is_snr(flux: np.ndarray, third: np.ndarray, median_snr: float) -> bool:
    """Whether the third row is a signal-to-noise ratio: which reading is nearer to the catalogue's."""
    good = np.isfinite(flux) & np.isfinite(third) & (third > 0) & (flux > 0)
    if not good.any():
        raise ValueError("without noise")
    as_noise, as_snr = np.median(flux[good] / third[good]), np.median(third[good])
    if not median_snr > 0:
        return bool(as_noise < 1.0 < as_snr)
    return bool(abs(np.log(as_snr / median_snr)) < abs(np.log(as_noise / median_snr)))


def normalised(one: Spectrum) -> Spectrum:
    """Divided by its median flux over 1.00-1.75 micron.

    Raises
    ------
    ValueError
        If that is not positive.
    """
    here = (one.wave > survey.NORMAL[0]) & (one.wave < survey.NORMAL[1]) & np.isfinite(one.sigma)
    level = float(np.median(one.flux[here])) if here.any() else 0.0
    if not level > 0:
        raise ValueError("without flux at 1.00-1.75 micron")
    return one._replace(flux=one.flux / level, sigma=one.sigma / level)


def common_grid(waves: list[np.ndarray]) -> np.ndarray:
    """The native grid that begins in the middle of all, within the range that is used."""
    starts = np.array([wave[wave > FIRST][:1].sum() for wave in waves])
    middle = waves[int(np.argsort(starts, kind="stable")[len(starts) // 2])]
    return middle[(middle > FIRST) & (middle < LAST)]


def resampled(one: Spectrum, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flux and inverse variance on the grid, linear between pixels; none beside a missing pixel."""
    flux = np.interp(grid, one.wave, one.flux)
    known = np.isfinite(one.sigma)
    variance = np.interp(grid, one.wave, np.where(known, one.sigma, 0.0) ** 2)
    there = np.interp(grid, one.wave, known.astype(float), left=0.0, right=0.0) > 1.0 - 1e-9
    ivar = np.where(there & (variance > 0), 1.0 / np.where(variance > 0, variance, 1.0), 0.0)
    return np.where(ivar > 0, flux, 0.0), ivar
