"""From the named arrays of a file to a `Dataset` and back, whatever the format."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from robusta_prob.data import Dataset, warn_user
from robusta_prob.io.cells import Cells, OpenCells, check_bits, chosen, one_way
from robusta_prob.io.files import atomic_path
from robusta_prob.io.formats import (
    READERS,
    VERSION,
    WRITERS,
    Contents,
    as_column,
    by_suffix,
    inventory,
    label_of,
    lookup,
)
from robusta_prob.stored import stored
from robusta_prob.validate import check_ids

_IVAR = ("ivar", "inverse_variance")
_ERROR = ("flux_error", "flux_err", "error", "sigma", "uncertainty")
_GRID = ("grid", "wavelength", "wave", "wave_um", "wave_nm", "loglam", "lambda", "freq")
_IDS = ("ids", "id", "source_id", "object_id")
_META = "meta/"  # where `write` puts the metadata, so that no column's name can be taken for a role


def read(
    path: str | os.PathLike[str],
    *,
    flux: str = "flux",
    ivar: str | None = None,
    error: str | None = None,
    grid: str | None = None,
    ids: str | None = None,
    mask: str | None = None,
    mask_bits: Iterable[int] | None = None,
    rows: Shaped[np.ndarray, " some"] | Sequence[int] | slice | None = None,
    pixels: Shaped[np.ndarray, " some"] | Sequence[int] | slice | None = None,
    dtype: str = "float32",
    in_memory: bool = True,
) -> Dataset:
    """Read a matrix of spectra from an NPZ, HDF5 or FITS file.

    The arguments name arrays in the file, in upper or lower case: members of an NPZ; datasets of an HDF5
    file (``"group/flux"``); in FITS image extensions by EXTNAME and columns of the first binary table.

    Parameters
    ----------
    path : path
        Ends in .npz, .h5, .hdf5, .hdf, .fits or .fits.gz (FITS needs astropy).
    flux : str
        (N, M) measurements, in any unit.
    ivar : str, optional
        (N, M) inverse variances. By default the first of ivar, inverse_variance; else of flux_error,
        flux_err, error, sigma, uncertainty, as below.
    error : str, optional
        (N, M) standard deviations in its place, turned into 1/error^2, as an array with one of these five
        names is wherever it is given; one that is not positive and finite marks a missing cell.
    grid : str, optional
        (M,) pixel coordinates. By default the first of grid, wavelength, wave, wave_um, wave_nm, loglam,
        lambda, freq that has this shape; else they are 0..M-1. A `DataWarning` tells of one of another
        shape, and of a grid that neither rises nor falls.
    ids : str, optional
        (N,) unique integers or strings. By default the first of ids, id, source_id, object_id; where it
        cannot serve it becomes metadata, with a `DataWarning`, and the ids are 0..N-1.
    mask : str, optional
        (N, M) booleans or integer mask bits: a cell where it is not zero is missing. No mask is applied
        unless it is named here.
    mask_bits : iterable of int, optional
        Numbers of the bits (0 is the lowest) of an integer mask that mean bad; by default all of them.
    rows, pixels : indices, mask or slice, optional
        Only these objects, and only these pixels, in this order. Of an HDF5 file no others' spectra are read,
        but for short gaps between objects.
    dtype : {"float32", "float64"}
        Of the leaves, as in `dataset`.
    in_memory : bool
        False leaves flux and ivar of an HDF5 file on disk: they are validated here, in one pass, and read
        again block by block wherever they are used. `Dataset.load` brings them into memory.

    Returns
    -------
    Dataset
        Every other array with one entry per object becomes a metadata column (byte strings as text);
        other (N, M) arrays, and arrays of other lengths, are left out. Axis labels carry the units that the
        file states: attribute ``unit`` or ``units`` (HDF5), BUNIT or TUNIT (FITS).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is unknown, or the file is not what its suffix says, is damaged, or lacks an array; if
        `mask_bits` are given without a mask, or are no bits of it; if `rows` or `pixels` select nothing.
        `dataset` raises its own where the arrays do not fit together.
    IndexError
        If there are no such `rows` or `pixels`.
    ImportError
        For FITS without astropy.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from robusta_prob.io import read
    >>> path = os.path.join(tempfile.mkdtemp(), "stars.npz")
    >>> np.savez(path, flux=np.ones((2, 3)), flux_error=np.full((2, 3), 0.5), wave_nm=[846, 847, 848])
    >>> data = read(path)
    >>> data.labels.grid_name, float(data.ivar[0, 0])
    ('wavelength [nm]', 4.0)
    """
    path = Path(path)
    names = {"flux": flux, "ivar": ivar, "error": error, "grid": grid, "ids": ids, "mask": mask}
    if ivar is not None and error is not None:
        raise ValueError(f"give ivar= or error=, not both; got {ivar!r} and {error!r}")
    bits = None if mask_bits is None else check_bits(mask_bits)
    if bits is not None and mask is None:
        raise ValueError(f"mask_bits={bits} are bits of a mask: name it too, with mask=, or leave them out")
    if not in_memory and by_suffix(path, READERS) is not READERS[".h5"]:
        raise ValueError(f"only HDF5 files can stay on disk, in_memory=False; {path} is none")
    with ExitStack() as stack:
        contents = stack.enter_context(by_suffix(path, READERS)(path))
        return _assemble(contents, names, bits, (rows, pixels), dtype, None if in_memory else stack)


def write(data: Dataset, path: str | os.PathLike[str]) -> Path:
    """Write `data` in its user's units, such that `read` gives the same data back, bit for bit.

    Missing cells have flux NaN and ivar 0. Flux and ivar have the dtype of the data, or float64 where that
    could not hold them in the user's units (ivar of cgs fluxes). Metadata lie under ``meta/``.

    Parameters
    ----------
    data : Dataset
        Of N objects and M pixels.
    path : path
        Ends in .npz, .h5, .hdf5 or .hdf. An existing file is replaced, at once and only by a whole one.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        If the suffix is none of these, or a metadata column holds neither numbers nor text.
    FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If a file cannot be made there; see `atomic_path`.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from robusta_prob.data import dataset
    >>> from robusta_prob.io import read, write
    >>> data = dataset(np.ones((2, 3)), np.ones((2, 3)), ids=[1363284299777747584, 7])
    >>> int(read(write(data, os.path.join(tempfile.mkdtemp(), "stars.h5"))).ids[0])
    1363284299777747584
    """
    path = Path(path)
    store = by_suffix(path, WRITERS)
    names = {"flux_name": data.labels.flux_name, "grid_name": data.labels.grid_name}
    header = json.dumps({"version": VERSION, "unit": data.unit, **names})
    arrays = _take_apart(data)
    with atomic_path(path) as temporary:
        store(temporary, arrays, header)
    return path


def _assemble(
    contents: Contents,
    names: Mapping[str, str | None],
    bits: list[int] | None,
    part: tuple[Any, Any],
    dtype: str,
    keep: ExitStack | None,
) -> Dataset:
    """The data set; `keep` has opened the file, and is emptied where it must stay open."""
    path, arrays, _, header = contents
    flux_key = _find(contents, "flux", names["flux"] or "flux")
    shape = tuple(arrays[flux_key].shape)
    if len(shape) != 2:
        raise ValueError(f"{flux_key!r} in {path} must be a matrix (objects, pixels), got shape {shape}")
    n, m = shape
    rows, pixels = (chosen(what, of, k) for what, of, k in zip(("rows", "pixels"), part, shape, strict=True))

    numbered = {"grid": "Pixels", "ids": "Objects"}

    def pick(role: str, known: tuple[str, ...], want: tuple[int, ...]) -> str | None:
        given = names[role]
        if given is not None:
            return _find(contents, role, given)
        beside = flux_key[: -len(flux_key.rpartition("/")[2])]  # "group/" where the flux is in a group
        keys = [key for at in (beside, "") for name in known if (key := lookup(arrays, f"{at}{name}"))]
        found = next((key for key in keys if arrays[key].shape == want), None)
        other = next((key for key in keys if arrays[key].shape not in ((), (n,))), None)
        if not found and other and role in numbered:
            warn_user(
                f"{other!r} {arrays[other].shape} in {path} is not taken as {role}: of {flux_key!r} {shape} "
                f"that would have shape {want}. {numbered[role]} are numbered instead"
            )
        return found

    errors = names["error"]
    ivar_key = pick("ivar", _IVAR + _ERROR, shape) if errors is None else _find(contents, "error", errors)
    if ivar_key is None:
        raise ValueError(
            f"{path} has no inverse variances or errors of the shape of {flux_key!r}, {shape}. It holds "
            f"{inventory(arrays)}. Say which they are: ivar= names inverse variances, error= errors"
        )
    grid_key, ids_key = pick("grid", _GRID, (m,)), pick("ids", _IDS, (n,))
    if names["ids"] is None and ids_key is not None:
        try:
            check_ids(np.asarray(as_column(arrays[ids_key])), n)
        except (ValueError, TypeError) as error:
            warn_user(f"{ids_key!r} in {path} cannot serve as ids and becomes metadata: {error}")
            ids_key = None

    cells = Cells(
        arrays[flux_key],
        arrays[ivar_key],
        errors is not None or ivar_key.rpartition("/")[2].lower() in _ERROR,
        None if names["mask"] is None else arrays[_find(contents, "mask", names["mask"])],
        bits,
        part[1] if isinstance(part[1], slice) else slice(None) if pixels is None else pixels,  # no copies
    ).validated(names["mask"])
    meta = _metadata(contents, {flux_key, ivar_key, grid_key, ids_key}, shape)
    grid = np.arange(m) if grid_key is None else np.asarray(arrays[grid_key])
    if grid_key and grid.dtype.kind in "iuf" and not one_way(grid):
        warn_user(f"{grid_key!r} in {path} neither rises nor falls: runs are those of neighbouring columns")
    ids = None if ids_key is None else as_column(arrays[ids_key])
    grid, m = (grid, m) if pixels is None else (grid[pixels], len(pixels))
    if rows is not None:
        ids, n = (np.arange(n) if ids is None else ids)[rows], len(rows)
        meta = {name: column[rows] for name, column in meta.items()}
    labels: dict[str, Any] = {
        "grid": grid,
        "ids": ids,
        "meta": meta,
        "index": rows,
        "dtype": dtype,
        "unit": header.get("unit"),
        "grid_name": header.get("grid_name") or label_of(contents, grid_key, "pixel"),
        "flux_name": header.get("flux_name") or label_of(contents, flux_key, "flux"),
    }
    if keep is None:  # block by block: the file's arrays and their copies would be several times the data
        return stored(cells.rows, (n, m), **labels).load()
    return stored(OpenCells(cells, keep.pop_all()), (n, m), **labels)


def _metadata(contents: Contents, used: set[str | None], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name, array in contents.arrays.items():
        per_cell = array.shape == shape and not name.startswith(_META)
        if name in used or per_cell or array.shape[:1] != shape[:1]:
            continue
        column, short = as_column(array), name.removeprefix(_META)
        if column is not None:
            columns[name if short in columns else short] = column
    return columns


def _find(contents: Contents, role: str, name: str) -> str:
    key = lookup(contents.arrays, name)
    if key is None:
        held = inventory(contents.arrays)
        raise ValueError(
            f"{contents.path} has no array {name!r}. It holds {held}. Pass {role}= with the right name"
        )
    return key


def _take_apart(data: Dataset) -> dict[str, np.ndarray]:
    """The arrays from which `_assemble` makes the same data."""
    exponent = round(math.log2(data.unit))
    flux, ivar = _times_power_of_two(data.flux, exponent), _times_power_of_two(data.ivar, -2 * exponent)
    flux[~data.observed] = np.nan
    arrays = {"flux": flux, "ivar": ivar, "grid": data.grid}
    for name, values in {"ids": data.ids, **{_META + key: data.meta[key] for key in data.meta}}.items():
        column = as_column(values)
        if column is None or column.dtype.hasobject:
            raise ValueError(
                f"{name!r} holds Python objects, which are never stored; make it numbers or strings"
            )
        arrays[name] = column
    return arrays


def _times_power_of_two(
    leaf: Float[np.ndarray, "objects pixels"], exponent: int
) -> Float[np.ndarray, "objects pixels"]:
    """leaf * 2**exponent without loss: in float64 where its own dtype cannot hold all of it."""
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(leaf, exponent)
        if (np.ldexp(scaled, -exponent) == leaf).all():
            return scaled
    return np.ldexp(np.asarray(leaf, np.float64), exponent)
