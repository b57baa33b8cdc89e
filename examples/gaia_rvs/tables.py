"""What the steps write and read: tables as CSV and HDF5, and a record of what each was made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from examples.gaia_rvs.config import Config
from robusta_prob.io import atomic_path, open_hdf5


def folder_of(config: Config, number: int) -> Path:
    """Where everything of a bin is."""
    return config.files.output / f"bin-{number:02d}"


def write_table(table: pd.DataFrame, path: Path, *, csv: Sequence[str] | None = None) -> None:
    """`path.h5` with a dataset per column, and `path.csv`, by default with all of them.

    With `csv=[]` there is no second file. An empty table keeps its columns.
    """
    with (
        atomic_path(path.with_suffix(".h5")) as temporary,
        h5py.File(temporary, "w", track_order=True) as file,
    ):
        for name, column in table.items():
            values = column.to_numpy()
            if values.dtype.kind in "OUT":
                values = values.astype(str).astype(h5py.string_dtype())
            file.create_dataset(str(name), data=values)
    if csv is None or len(csv):
        with atomic_path(path.with_suffix(".csv")) as temporary:
            table.to_csv(temporary, index=False, float_format="%.7g", columns=csv)


def read_table(path: Path) -> pd.DataFrame:
    """The table that was written to `path.h5`."""
    with open_hdf5(path.with_suffix(".h5")) as file:
        columns = {}
        for name, dataset in file.items():
            text = h5py.check_string_dtype(dataset.dtype) is not None
            columns[name] = dataset.asstr()[()].astype(str) if text else dataset[()]
    return pd.DataFrame(columns)


def swept(folder: Path) -> Path:
    """The folder, made where it is not there, without what a process left that was killed while it wrote."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; give the name of a folder for the results")
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.rglob(f".{'[0-9a-f]' * 12}.*"):
        left.unlink(missing_ok=True)
    return folder


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """As a whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=_plain) + "\n")


def save_picture(figure: Figure, path: Path, dpi: int) -> None:
    """As PNG, in a folder that is made where it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")


def is_made(record: Path, settings: Mapping[str, Any], *products: Path) -> bool:
    """Whether a step has been done with these settings, by its record, and its products are still there.

    Raises
    ------
    ValueError
        If it was done with others: what is there is neither mixed with new results nor thrown away.
    """
    if record.exists() and (other := _differing(record, settings)):
        raise ValueError(
            f"{record.parent} was made with other settings of {', '.join(other)}: take another output "
            f"folder, or remove {record} to make it again"
        )
    return record.exists() and all(path.exists() for path in products)


def is_current(record: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a step whose results may be made anew has been done with these settings."""
    return record.exists() and not _differing(record, settings)


def _differing(record: Path, settings: Mapping[str, Any]) -> list[str]:
    known = read_record(record)["settings"]
    now = json.loads(json.dumps(settings, default=_plain))
    return [name for name in now if known.get(name) != now[name]]


def read_record(record: Path) -> dict[str, Any]:
    """What a step said of its results.

    Raises
    ------
    FileNotFoundError
        If the step has not been done.
    """
    if not record.exists():
        raise FileNotFoundError(f"there is no {record}: run the step {record.stem!r} first")
    try:
        return json.loads(record.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{record} is no record ({error}): remove it, and run {record.stem!r} again"
        ) from error


def _plain(value: Any) -> Any:
    """What JSON knows no type for."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else str(value)
