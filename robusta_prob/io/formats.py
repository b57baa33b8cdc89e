"""One small reader per file format, and one small writer where it can be written; chosen by suffix."""

from __future__ import annotations

import json
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import h5py
import numpy as np

from robusta_prob.data import warn_user
from robusta_prob.io.files import beginning, check_file, open_hdf5
from robusta_prob.validate import as_str

VERSION = 1
_HEADER = "robusta_prob"  # JSON, an attribute (HDF5) or a text (NPZ), with what the arrays cannot say
_CHUNK_BYTES = 2**20
_T = TypeVar("_T")
_GRID_LABELS = {
    "wave": "wavelength",
    "lambda": "wavelength",
    "wave_um": "wavelength [um]",
    "wave_nm": "wavelength [nm]",
    "loglam": "log10 wavelength [Angstrom]",
    "freq": "frequency",
}


class Contents(NamedTuple):
    """What any file format reduces to."""

    path: Path
    arrays: Mapping[str, Any]  # name -> something with .shape and .dtype that np.asarray reads
    units: Mapping[str, str]  # name -> unit of that array, where the file states it
    header: Mapping[str, Any]  # flux_name, grid_name, unit in files made by `write`, else empty


@contextmanager
def _read_npz(path: Path) -> Iterator[Contents]:
    check_file(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a whole NPZ archive, it begins with {beginning(path)}")
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as members:
            for name in members.files:
                try:
                    arrays[name] = np.asarray(members[name])
                except ValueError as error:
                    warn_user(f"{name!r} in {path} is left out, Python objects are never loaded: {error}")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is a damaged NPZ archive ({error}); copy or make it again") from error
    header = _parse_header(arrays.pop(_HEADER, None), path)
    yield Contents(path, arrays, {}, header)


@contextmanager
def _read_hdf5(path: Path) -> Iterator[Contents]:
    arrays: dict[str, h5py.Dataset] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            arrays[name] = item

    with open_hdf5(path) as file:
        file.visititems(keep)
        units = {}
        for name, item in arrays.items():
            stated = np.ravel(item.attrs.get("unit", item.attrs.get("units", "")))
            if stated.size == 1 and as_text(stated[0]):
                units[name] = as_text(stated[0])
        yield Contents(path, arrays, units, _parse_header(file.attrs.get(_HEADER), path))


@contextmanager
def _read_fits(path: Path) -> Iterator[Contents]:
    try:
        from astropy.io import fits
        from astropy.utils.exceptions import AstropyUserWarning
    except ImportError as error:
        raise ImportError("reading FITS needs astropy: pip install 'robusta-prob[astropy]'") from error
    check_file(path)
    arrays: dict[str, np.ndarray] = {}
    units: dict[str, str] = {}
    try:
        with warnings.catch_warnings():
            damage = "File may have been truncated|Error validating header"
            warnings.filterwarnings("error", damage, AstropyUserWarning)
            with fits.open(path) as hdus:
                images = [(hdu.name, hdu.data, hdu.header.get("BUNIT")) for hdu in hdus if hdu.is_image]
                table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU)), None)
                columns = (
                    [] if table is None else [(c.name, table.data[c.name], c.unit) for c in table.columns]
                )
                for name, values, unit in images + columns:
                    if values is not None and name not in arrays:
                        array = np.asarray(values)
                        arrays[name] = array.astype(array.dtype.newbyteorder("="))  # out of the mapped file
                        units |= {name: str(unit)} if unit else {}
    except (OSError, TypeError, ValueError, AstropyUserWarning) as error:
        raise ValueError(f"{path} is not a whole FITS file ({error}); copy or make it again") from error
    yield Contents(path, arrays, units, {})


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray], header: str) -> None:
    members: dict[str, Any] = {**arrays, _HEADER: np.array(header)}
    with path.open("wb") as file:  # given a path, savez would append .npz to .NPZ
        np.savez(file, **members)


def _write_hdf5(path: Path, arrays: Mapping[str, np.ndarray], header: str) -> None:
    with h5py.File(path, "w") as file:
        file.attrs[_HEADER] = header
        for name, array in arrays.items():
            if array.dtype.kind == "U":
                array = array.astype(h5py.string_dtype())
            elif array.dtype.kind in "mM":
                array = array.astype(h5py.opaque_dtype(array.dtype))
            chunks = None
            if name in ("flux", "ivar"):  # whole rows, so that objects can be read one by one
                rows = min(len(array), max(1, _CHUNK_BYTES // array[0].nbytes))
                chunks = (rows, array.shape[1])
            file.create_dataset(name, data=array, chunks=chunks)


def _parse_header(text: Any, path: Path) -> dict[str, Any]:
    header = {} if text is None else json.loads(str(text))
    if header.get("version", 0) > VERSION:
        raise ValueError(
            f"{path} was written by a newer robusta_prob (format {header['version']}, here {VERSION})"
        )
    return header


def as_text(value: Any) -> str:
    """`value` as str; bytes that are no UTF-8 are escaped."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def as_column(array: Any) -> np.ndarray | None:
    """In memory, with text as str; None where it holds any other Python objects."""
    column = np.asarray(array)
    if column.dtype.kind in "OT":
        if not all(isinstance(value, bytes | str) for value in column.flat):
            return None
        column = np.array([as_text(value) for value in column.flat], dtype=str).reshape(column.shape)
    return as_str(column)


def by_suffix(path: Path, formats: Mapping[str, _T]) -> _T:
    """The reader or writer, one of `formats`, that the end of the name asks for."""
    for suffix, use in formats.items():
        if path.name.lower().endswith(suffix):
            return use
    raise ValueError(f"{path} has no suffix that says its format; expected one of {', '.join(formats)}")


_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
WRITERS: dict[str, Callable[[Path, Mapping[str, np.ndarray], str], None]] = {
    ".npz": _write_npz,
    **dict.fromkeys(_HDF5_SUFFIXES, _write_hdf5),
}
READERS: dict[str, Callable[[Path], AbstractContextManager[Contents]]] = {
    ".npz": _read_npz,
    **dict.fromkeys(_HDF5_SUFFIXES, _read_hdf5),
    **dict.fromkeys((".fits", ".fits.gz"), _read_fits),
}


def lookup(arrays: Mapping[str, Any], name: str) -> str | None:
    """The array of that name, in capitals or not."""
    return name if name in arrays else next((key for key in arrays if key.lower() == name.lower()), None)


def inventory(arrays: Mapping[str, Any]) -> str:
    """Names and shapes, in words."""
    return ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items()) or "no arrays"


def label_of(contents: Contents, key: str | None, default: str) -> str:
    """The label of an axis, with the unit that the file states."""
    if key is None:
        return default
    name = key.rpartition("/")[2]
    label = _GRID_LABELS.get(name.lower(), name.lower() if name.isupper() else name)
    unit = contents.units.get(key)
    return f"{label.partition(' [')[0]} [{unit}]" if unit else label
