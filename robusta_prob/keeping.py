"""Results on disk: fits, projections, scores, selections and recoveries, each one HDF5 file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py

from robusta_prob.inference import storage
from robusta_prob.inference.iterate import Status
from robusta_prob.inference.results import Fit, Origin, Projection
from robusta_prob.io import atomic_path, open_hdf5
from robusta_prob.io.trees import read_tree, write_tree
from robusta_prob.scoring import calibration, empirical, kinds, lines, recovered, results, search
from robusta_prob.selection.held_out import Published
from robusta_prob.selection.results import Candidate, Selection
from robusta_prob.selection.segments import Segments

VERSION = 1
_WHOLE = (results.Surprise, recovered.Recovery, Selection)  # dataclasses, the others are named tuples
_RESULTS = (
    empirical.EmpiricalNull,
    empirical.Tail,
    results.ObjectSurprise,
    results.PixelSurprise,
    results.Settings,
)
_SCORING = (calibration.Null, kinds.Windows, lines.Line, search.Search, search.Rate, *_RESULTS)
_RECOVERED = (recovered.Completeness, recovered.FalsePositives, recovered.Proportion, recovered.Trials)
_PARTS = (Candidate, Origin, Projection, Published, Segments, Status, *_SCORING, *_RECOVERED)
WHOLE: dict[str, Any] = {one.__name__: one for one in _WHOLE}
KINDS: dict[str, type] = {one.__name__: one for one in _PARTS}
Result = Fit | Projection | results.Surprise | Selection | recovered.Recovery


def save(result: Result, path: str | PathLike[str]) -> None:
    """Write a result to one HDF5 file; an existing file is replaced only once the new one is complete.

    Parameters
    ----------
    result : Fit, Projection, Surprise, Selection or Recovery
        Of a selection, only its fits that are files (`folder=`) are kept, by their paths from this one; of
        scores, cells that were written elsewhere (`out=`) are left out.
    path : path
        In a folder that exists.

    Raises
    ------
    TypeError
        If it is none of these.
    OSError
        If nothing can be written there.

    Examples
    --------
    >>> import os, tempfile
    >>> import robusta_prob as rp
    >>> data = rp.simulate.low_rank(200, 60, 2, seed=1).data
    >>> fit = rp.fit(data, 2)
    >>> path = os.path.join(tempfile.mkdtemp(), "scores.h5")
    >>> rp.save(rp.surprise(fit, data), path)
    >>> bool(rp.load(path).flagged.sum() < 3)
    True
    """
    if isinstance(result, Fit):
        return storage.save(result, path)
    name = type(result).__name__
    if name not in WHOLE and not isinstance(result, Projection):
        raise TypeError(f"a Fit, a Projection, or a {', a '.join(WHOLE)} can be saved; got {name}")
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["version"] = f"robusta_prob.{name}", VERSION
        content: Any = result
        if name in WHOLE:
            content = {field.name: getattr(result, field.name) for field in fields(WHOLE[name])}
        if isinstance(result, results.Surprise) and not result.cells_in_memory:
            content |= {"pixel": None}
        if isinstance(result, Selection):
            content |= {"fits": _paths(result.fits, Path(path).parent)}
        write_tree(file, "content", content)
    return None


def load(path: str | PathLike[str]) -> Any:
    """Read what `save` wrote.

    Returns
    -------
    Fit, Projection, Surprise, Selection or Recovery

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is none of these, is damaged, or was written by another version.
    """
    with open_hdf5(path) as file:
        try:
            name = str(file.attrs.get("format", "")).removeprefix("robusta_prob.")
            if name != Projection.__name__ and name not in WHOLE:
                return storage.load(path)
            version = int(file.attrs["version"])
            content = read_tree(file["content"], KINDS) if version == VERSION else None
            result = WHOLE[name](**content) if content is not None and name in WHOLE else content
        except (KeyError, OSError, RuntimeError, TypeError) as error:
            raise ValueError(f"{path} is incomplete or damaged ({error}); make it again") from error
    if version != VERSION:
        advice = "update robusta-prob to read it" if version > VERSION else "make it again"
        raise ValueError(f"{path} is a {name} of format {version}, and here is {VERSION}: {advice}")
    if not isinstance(result, Selection):
        return result
    fits: Any = result.fits  # as `_paths` has them
    folder = Path(path).parent
    return replace(result, fits=MappingProxyType({(rank, scale): folder / at for rank, scale, at in fits}))


def _paths(fits: Mapping[Any, Any], folder: Path) -> list[tuple[int, float | None, str]]:
    """(rank, scale, path from the folder) of the fits that are files."""
    return [
        (rank, scale, os.path.relpath(kept, folder))
        for (rank, scale), kept in fits.items()
        if isinstance(kept, Path)
    ]
