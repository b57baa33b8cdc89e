"""A `Fit` on disk: one HDF5 file, versioned, without pickle, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import fields
from os import PathLike
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from robusta_prob.inference.iterate import Epoch, Status
from robusta_prob.inference.results import Fit, PopulationLaw
from robusta_prob.io import atomic_path, open_hdf5
from robusta_prob.models.noise import Noise, NoiseLaw
from robusta_prob.validate import frozen

FORMAT = "robusta_prob.Fit"
VERSION = 2
_ARRAYS = (
    "basis",
    "coefficients",
    "coefficient_covariance",
    "basis_covariance",
    "moments",
    "trained",
    "ids",
    "fingerprints",
    "grid",
)
_SCALARS = ("information", "flat_prior", "grid_name", "flux_name", "unit")


def save(fit: Fit, path: str | PathLike[str]) -> None:
    """Write a fit to one HDF5 file; an existing file is replaced only once the new one is complete.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to; nothing is left behind then.
    """
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        for name in _ARRAYS:
            array = np.asarray(getattr(fit, name))
            if array.dtype.kind in "US":
                file[name] = array.astype(h5py.string_dtype())
            else:  # with checksums: a damaged file is refused when it is read
                file.create_dataset(name, data=array, chunks=True, fletcher32=True)
        for name in _SCALARS:
            file.attrs[name] = getattr(fit, name)
        for name in ("loss", "noise"):
            law = getattr(fit, name)
            file.attrs[name] = np.array(law._replace(floor=law.typical_floor), float)
            file[f"{name}_floor"] = law.floor
        file["population_mean"], file["population_covariance"] = fit.population
        file.attrs["near_equal"] = np.array(fit.near_equal, int)
        file.attrs["status"] = list(fit.status)
        file.attrs["config"] = json.dumps(dict(fit.config), default=_plain)
        for column in Epoch._fields:
            values = np.array([getattr(line, column) for line in fit.history])
            file[f"history/{column}"] = values.astype(h5py.string_dtype()) if column == "stage" else values


def load(path: str | PathLike[str]) -> Fit:
    """Read a fit written by `save`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no fit, was truncated, or was written by a newer version.
    """
    with open_hdf5(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise ValueError(
                f"{path} is an HDF5 file but not a fit of robusta_prob; it holds {sorted(file)[:10]}"
            )
        try:
            version = int(file.attrs["version"])
            fit = _read(file) if version == VERSION else None
        except (KeyError, OSError) as error:
            raise ValueError(
                f"{path} is incomplete or damaged ({error}); fit again, or restore the file"
            ) from error
        if fit is None and version < VERSION:
            raise ValueError(
                f"{path} has format version {version}, from before bad cells were part of the noise law; "
                f"this is version {VERSION}: fit again"
            )
        if fit is None:
            raise ValueError(
                f"{path} has format version {version}, newer than {VERSION}, the newest known here: "
                "update robusta-prob to read it"
            )
        return fit


def _read(file: h5py.File) -> Fit:
    values: dict[str, Any] = {name: frozen(file[name][()]) for name in _ARRAYS}
    if values["ids"].dtype.kind == "O":
        values["ids"] = frozen(file["ids"].asstr()[()].astype(str))
    values |= {name: file.attrs[name] for name in _SCALARS}
    for name in ("loss", "noise"):
        floor = file[f"{name}_floor"][()]
        floor = frozen(floor) if np.ndim(floor) else float(floor)
        values[name] = NoiseLaw(*(float(x) for x in file.attrs[name]))._replace(floor=floor)
    values |= {name: float(values[name]) for name in ("information", "unit")}
    values["flat_prior"] = bool(values["flat_prior"])
    population = (frozen(file[f"population_{name}"][()]) for name in PopulationLaw._fields)
    values["population"] = PopulationLaw(*population)
    values["near_equal"] = tuple(int(k) for k in file.attrs["near_equal"])
    values["status"] = Status(*(str(text) for text in file.attrs["status"]))
    config = json.loads(file.attrs["config"])
    law: list[Any] = [x if x is None or isinstance(x, str) else float(x) for x in config["noise"]]
    config["noise"], config["isolated"] = Noise(*law), tuple(config.get("isolated", ()))
    values["config"] = MappingProxyType(config)
    columns = {name: file[f"history/{name}"] for name in Epoch._fields}
    rows = zip(*(c.asstr()[()] if name == "stage" else c[()] for name, c in columns.items()), strict=True)
    kinds = [int, str] + [float] * (len(Epoch._fields) - 2)
    values["history"] = tuple(Epoch(*(kind(x) for kind, x in zip(kinds, row, strict=True))) for row in rows)
    if odd := {field.name for field in fields(Fit)} ^ set(values):
        raise KeyError(f"what is stored and what makes a fit differ in {sorted(odd)}")
    return Fit(**values)


def _plain(value: Any) -> Any:
    """What JSON knows no type for: NumPy's scalars as Python's, anything else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)
