"""`robusta-prob report`, and the record that `score` leaves for it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

import robusta_prob as rp
from robusta_prob.cli.shared import ROLES, say, warn
from robusta_prob.io import atomic_path
from robusta_prob.io.files import check_writable

SCORES, RECORD, MAP, PAGE = "scores.h5", "scores.json", "embedding.csv", "report.html"


def keep_scores(
    scores: rp.Surprise, folder: Path, fit: Path, spectra: Path, options: argparse.Namespace
) -> None:
    """The scores, and of which fit and of which spectra they are."""
    rp.save(scores, folder / SCORES)
    names = {name: getattr(options, name, None) for name in (*ROLES, "mask_bits")}
    record = {
        "fit": _from(folder, fit),
        "spectra": _from(folder, spectra),
        "names": {name: value for name, value in names.items() if value},
        "on_disk": bool(getattr(options, "on_disk", False)),
    }
    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def run_report(options: argparse.Namespace) -> int:
    """Write the page of a run that has been scored."""
    from robusta_prob import report
    from robusta_prob.report.mapping import map_of, read_map, residual_map, write_map
    from robusta_prob.report.writing import check_library

    check_library()
    folder = Path(options.run)
    target = Path(options.output) if options.output else folder / PAGE
    record = _record(folder)
    check_writable(target)
    fit, scores = rp.load(folder / record["fit"]), rp.load(folder / SCORES)
    data = _spectra(folder, record, options, str(fit.dtype))
    low, high = float(data.grid.min()), float(data.grid.max())
    for name, places in (options.lines or {}).items():
        if not any(low <= place <= high for place in places):
            warn(f"--lines {name}: none of these is within the grid, {low:g} to {high:g}")
    with rp.Progress("spectra", disable=options.quiet) as bar:
        explorer = report.explore(
            fit,
            data,
            scores,
            embedding=False,
            lines=options.lines,
            spectra=options.spectra,
            limit_mb=options.limit,
            callback=bar,
        )
    carried = explorer.place >= 0
    ids, kept = explorer.columns["id"][carried], folder / MAP
    known = None
    if kept.exists() and kept.stat().st_mtime >= (folder / SCORES).stat().st_mtime:
        known = read_map(kept, ids)
    if known is not None and known[0] == map_of(int(np.isfinite(known[1]).all(1).sum())):
        points = explorer.maps_of(carried, known[1])
        explorer = explorer.with_map(known[0], points)
    elif len(ids):
        say(options, f"Map: {map_of(len(ids))} of {len(ids):,} objects ...")
        name, points = residual_map(explorer)
        if carried.all() or not kept.exists():  # a map of some is not to replace that of all
            write_map(kept, ids, name, points[carried])
        explorer = explorer.with_map(name, points)
    report.write_page(explorer, target, title=options.title or folder.resolve().name)
    n, m = data.shape
    size = target.stat().st_size / 1e6
    say(
        options,
        f"{target}: {len(carried):,} of {n:,} objects, {len(ids):,} with their spectra of {m:,} pixels, "
        f"{size:.1f} MB; open it in a browser",
    )
    return 0


def _record(folder: Path) -> dict[str, Any]:
    """What `keep_scores` has kept."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"{folder} {what}; give the folder that `robusta-prob score` wrote to")
    missing = [name for name in (SCORES, RECORD) if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {' and no '.join(missing)}: run `robusta-prob score {folder} SPECTRA` first"
        )
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {key: record[key] for key in ("fit", "spectra", "names", "on_disk")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RECORD} is damaged ({error}); score again") from None


def _spectra(folder: Path, record: dict[str, Any], options: argparse.Namespace, dtype: str) -> rp.Dataset:
    """The data that were scored, where they were or where they are now."""
    file = (
        Path(options.file) if options.file else Path(os.path.normpath(folder.resolve() / record["spectra"]))
    )
    if not options.file and not file.exists():
        raise FileNotFoundError(
            f"the spectra of these scores are no longer {file}: say where they are, "
            f"robusta-prob report {folder} SPECTRA"
        )
    try:
        data = rp.read(file, dtype=dtype, in_memory=not record["on_disk"], **record["names"])
    except ValueError as error:
        said = ", ".join(f"{role} {name!r}" for role, name in record["names"].items()) or "the usual names"
        raise ValueError(f"{file} is not read as the spectra that were scored ({said}): {error}") from None
    n, m = data.shape
    say(options, f"{file}: {n:,} objects x {m:,} pixels; {data.census}")
    return data


def _from(folder: Path, path: Path) -> str:
    """A path from the folder, so that both can be moved together."""
    try:
        return os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # on another drive
        return str(path.resolve())
