"""The spectra with their labels, and what the labels mean."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

import robusta_prob as rp

TEXT = (
    "filename",
    "source_key",
    "name",
    "object_type",
    "metallicity_class",
    "sbinary",
    "quality",
    "spex_type",
    "lit_type",
)
NUMBERS = ("median_snr",)
STAMP = ("GIANT", "GALAXY", "WD", "PLANET", "SN")  # object types that are no dwarf of any temperature
NORMAL = (1.00, 1.75)  # micron: spectra are divided by their median flux between these
SUBDWARFS = ("d/sd", "sd", "esd")


def read(path: Path) -> rp.Dataset:
    """Spectra on the wavelength grid, with the labels as further columns.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message says where spectra come from.
    ValueError
        If it is another kind of file, or lacks a column.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: make it from a local copy of SPLAT (python -m examples.ultracool prepare "
            "SPLAT_FOLDER --data FILE), or take simulated spectra (--simulate small)"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of spectra in NumPy's npz format: {error}") from error
    missing = [name for name in ("wave_um", "flux", "ivar", *TEXT, *NUMBERS) if name not in columns]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: is it what `prepare` or `simulate` writes?")
    flux, ivar = columns["flux"], columns["ivar"]
    return rp.dataset(
        flux,
        ivar,
        grid=columns["wave_um"],
        ids=columns["filename"],
        meta={name: columns[name] for name in (*TEXT, *NUMBERS)},
        grid_name="wavelength [µm]",
        flux_name="flux density / median",
        unit=1.0,
    )


def clean(data: rp.Dataset) -> np.ndarray:
    """Labelled ultracool dwarfs of good quality, of which nothing odd is known."""
    meta = data.meta
    return (
        (meta["object_type"] == "VLM")
        & (meta["metallicity_class"] == "")
        & (meta["sbinary"] != "Y")
        & (meta["quality"] == "OK")
        & (meta["spex_type"] != "")
    )


def rare(data: rp.Dataset) -> np.ndarray:
    """What is no dwarf at all: giants, galaxies, white dwarfs, planets, a supernova."""
    return np.isin(data.meta["object_type"], STAMP)


def no_ultracool_dwarf(data: rp.Dataset) -> np.ndarray:
    """These, and stars warmer than the dwarfs: what does not belong here by its label."""
    return rare(data) | (data.meta["object_type"] == "STAR")


def kinds(data: rp.Dataset) -> dict[str, np.ndarray]:
    """The known strangers by kind, those that are rare together first."""
    meta = data.meta
    known = {
        "all that is no dwarf": rare(data),
        "giants": meta["object_type"] == "GIANT",
        "galaxies": meta["object_type"] == "GALAXY",
        "white dwarfs": meta["object_type"] == "WD",
        "planets, supernova": np.isin(meta["object_type"], ("PLANET", "SN")),
        "subdwarfs": np.isin(meta["metallicity_class"], SUBDWARFS) & (meta["object_type"] == "VLM"),
        "spectral binaries": (meta["sbinary"] == "Y") & (meta["object_type"] == "VLM"),
        "warmer stars": meta["object_type"] == "STAR",
    }
    return {name: mask for name, mask in known.items() if mask.any()}


def label_of(data: rp.Dataset, row: int) -> str:
    """What is known of an object, in a word or two."""
    meta = {name: str(column[row]) for name, column in data.meta.items()}
    words = {"WD": "white dwarf", "SN": "supernova", "VLM": "dwarf", "": "no label"}
    kind = words.get(meta["object_type"], meta["object_type"].lower())
    kind = "subdwarf" if meta["metallicity_class"] else kind
    kind = "spectral binary" if meta["sbinary"] == "Y" else kind
    spectral = meta["lit_type"] or meta["spex_type"]
    return kind if spectral.lower() in ("", "wd", "wd?") or kind in spectral else f"{kind} {spectral}"
