# %% [markdown]
# # RVS mean spectra as the Gaia archive gives them, and as one file
#
# No network here. Two shapes come in: the tables of `Gaia.load_data`, and the bulk files
# `RvsMeanSpectrum_*.csv.gz`. Both become `Spectra`; batches of them are kept, and written into one HDF5 file.
# The shapes are those of the data model of DR3 and of public programs that read them; no file of the archive
# itself was at hand when this was written.

# %%
from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from tqdm import tqdm

from examples.gaia_rvs.lines import FIRST, PIXELS, STEP
from robusta_prob.io import atomic_path, open_hdf5, remove_temporaries

GRID = np.round(FIRST + STEP * np.arange(PIXELS), 2)  # nm, vacuum


class Spectra(NamedTuple):
    """Some RVS mean spectra."""

    source_id: np.ndarray  # (N,) int64
    flux: np.ndarray  # (N, 2401) float32, normalised; NaN: missing
    flux_error: np.ndarray  # (N, 2401) float32


# %% Parsing.
def _pixels(values: Any, what: str) -> np.ndarray:
    """One spectrum of 2401 pixels; masked is NaN."""
    array = np.ma.filled(np.ma.asarray(values, np.float32), np.nan).ravel()
    if array.size != GRID.size:
        raise ValueError(f"{what} has {array.size} pixels, an RVS mean spectrum has {GRID.size}")
    return array


def _stack(rows: Iterable[tuple[int, np.ndarray, np.ndarray]], what: str) -> Spectra:
    rows = list(rows)
    ids = np.array([row[0] for row in rows], np.int64)
    unique, count = np.unique(ids, return_counts=True)
    if (count > 1).any():
        raise ValueError(f"{what}: source {unique[count > 1][0]} is there twice")
    flux, error = (np.array([row[i] for row in rows], np.float32).reshape(-1, GRID.size) for i in (1, 2))
    return Spectra(ids, flux, error)


def require(found: Iterable[str], needed: Iterable[str], what: str) -> None:
    """Raise ValueError if a needed column is not there."""
    missing = sorted(set(needed) - set(found))
    if missing:
        raise ValueError(f"{what}: there is no column {', '.join(missing)}; there are {', '.join(found)}")


def parse_products(products: Mapping[str, Any]) -> Spectra:
    """Spectra from what `Gaia.load_data` returns, in either structure.

    Parameters
    ----------
    products : mapping
        Name of a file -> list of tables, of `astropy.table` or `astropy.io.votable`. INDIVIDUAL: a file
        ``RVS-Gaia DR3 <source_id>.xml`` for each source, with columns `wavelength` [nm], `flux` and
        `flux_error`, a row per pixel. RAW: a row per source, with `source_id` and arrays.

    Returns
    -------
    Spectra
        In the order of the tables.

    Raises
    ------
    ValueError
        If a column is missing, a spectrum is not on the grid of 846-870 nm, a source is there twice, or a
        table does not say whose spectrum it is.
    """
    rows = []
    for name, tables in products.items():
        for item in tables if isinstance(tables, Sequence) else [tables]:
            table = item.to_table() if hasattr(item, "to_table") else item
            column = {str(key).lower(): key for key in table.colnames}
            require(column, ("flux", "flux_error"), name)
            flux, error = table[column["flux"]], table[column["flux_error"]]
            if "source_id" in column:  # RAW
                for i, source in enumerate(table[column["source_id"]]):
                    what = f"{name}: source {source}"
                    rows.append((int(source), _pixels(flux[i], what), _pixels(error[i], what)))
                continue
            require(column, ("wavelength",), name)
            source = re.search(r"Gaia DR3 (\d+)", name)
            if source is None:
                raise ValueError(f"{name}: expected a name like 'RVS-Gaia DR3 <source_id>.xml'")
            wavelength = _pixels(table[column["wavelength"]], name)
            if not np.allclose(wavelength, GRID, atol=1e-3, rtol=0):
                raise ValueError(
                    f"{name}: expected wavelengths 846, 846.01, ... 870 nm, "
                    f"got {wavelength[0]:g}, {wavelength[1]:g}, ... {wavelength[-1]:g}"
                )
            rows.append((int(source[1]), _pixels(flux, name), _pixels(error, name)))
    return _stack(rows, "the answer of DataLink")


def _parse_array(text: Any, what: str) -> np.ndarray:
    """`[1.0,NaN,null]`, or with other brackets; an array that is null altogether is missing everywhere."""
    if not isinstance(text, str):
        return np.full(GRID.size, np.nan, np.float32)
    entries = text.strip()[1:-1].replace("null", "nan").replace("--", "nan").split(",")
    try:
        return _pixels(np.array(entries, np.float64), what)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def read_bulk(path: Path) -> Spectra:
    """Spectra of a bulk file `RvsMeanSpectrum_*.csv.gz`: ECSV, a row per source, arrays as text.

    Parameters
    ----------
    path : Path
        The file, compressed or not. It may be without a single spectrum.

    Returns
    -------
    Spectra
        In the order of the file; `null`, masked and `NaN` entries are NaN.

    Raises
    ------
    ValueError
        If the file is damaged, or as for `parse_products`.
    """
    try:
        table = pd.read_csv(path, comment="#", dtype={"source_id": "int64"})
    except FileNotFoundError:
        raise
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} cannot be read, remove it and get it again: {error}") from error
    require(table.columns, Spectra._fields, str(path))
    return _stack(
        (
            (
                source,
                _parse_array(flux, f"{path}: flux of {source}"),
                _parse_array(error, f"{path}: error of {source}"),
            )
            for source, flux, error in zip(*(table[name] for name in Spectra._fields), strict=True)
        ),
        str(path),
    )


# %% Keeping: batches, and all of them in one file.
def write_batch(spectra: Spectra, asked: np.ndarray, path: Path) -> None:
    """A batch, and the sources that were asked for: the archive may know fewer."""
    remove_temporaries(path)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["asked"] = asked
        for name, values in spectra._asdict().items():
            file[name] = values


def read_batch(path: Path) -> Spectra:
    """What `write_batch` wrote."""
    with open_hdf5(path) as file:
        return Spectra(*(file[name][:] for name in Spectra._fields))


def read_asked(path: Path) -> np.ndarray:
    """Only the sources that were asked for."""
    with open_hdf5(path) as file:
        return file["asked"][:]


def check_space(folder: Path, spectra: int) -> None:
    """Raise OSError, before the first of so many spectra, if the disk cannot hold them."""
    need, free = spectra * GRID.size * 8, shutil.disk_usage(folder).free
    if need > free:
        raise OSError(f"{folder}: {spectra} spectra need {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def assemble(paths: Iterable[Path], output: Path) -> int:
    """Write `dr3-rvs-all.hdf5` from batches (`.h5`) and bulk files, holding one of them in memory at a time.

    The file appears when it is complete; one that was there before stays until then.

    Parameters
    ----------
    paths : iterable of Path
        Batches and bulk files, in the order in which their spectra shall stand.
    output : Path
        The file: `source_id` (N,) int64, `flux` and `flux_error` (N, 2401) float32.

    Returns
    -------
    int
        Number of spectra.

    Raises
    ------
    ValueError
        If a source is in two of the files, or one of them is malformed; it is named.
    """
    remove_temporaries(output)
    known: set[int] = set()
    with atomic_path(output) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("source_id", (0,), np.int64, maxshape=(None,), chunks=(65536,))
        for name in ("flux", "flux_error"):
            shape = GRID.size
            file.create_dataset(name, (0, shape), np.float32, maxshape=(None, shape), chunks=(32, shape))
        for path in tqdm(list(paths), desc=output.name, disable=None):
            spectra = read_batch(path) if path.suffix == ".h5" else read_bulk(path)
            ids = spectra.source_id.tolist()
            if again := known.intersection(ids):
                raise ValueError(
                    f"{path}: source {min(again)} is already in a file before it; give each once"
                )
            check_space(output.parent, len(ids))
            start = len(known)
            known.update(ids)
            for name, values in spectra._asdict().items():
                file[name].resize(len(known), axis=0)
                file[name][start:] = values
    return len(known)
