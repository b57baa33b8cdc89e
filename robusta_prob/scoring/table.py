"""The score table: what `surprise` found and what the data say of every object, side by side."""

from __future__ import annotations

import csv
import json
import math
import os
from typing import Any

import numpy as np
from jaxtyping import Shaped

from robusta_prob.data import Dataset
from robusta_prob.io import atomic_path
from robusta_prob.scoring.results import Surprise


def score_columns(scores: Surprise, data: Dataset) -> dict[str, Shaped[np.ndarray, "objects ..."]]:
    """Scores and metadata of every object, column by column, in the order of the data.

    Parameters
    ----------
    scores : Surprise
    data : Dataset
        The N objects that were scored.

    Returns
    -------
    dict of name to (N, ...) array
        First `rank` (1 is the most surprising) and `id`, then the fields of `scores.object` (with `log10_p`
        and `log10_p_run` for its natural logarithms), `log10_least_p`, by which they are ranked, and the
        fields of `scores.lines`, as `<name>_amplitude` and so on, then the metadata. A metadata column that
        bears one of the names before it is called `meta_<name>`; all others keep their names.

    Raises
    ------
    ValueError
        If the scores are not those of these objects, in this order.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.toy(200, 150, seed=1).data
    >>> columns = rp.score_columns(rp.surprise(rp.fit(data, rank=5), data), data)
    >>> list(columns)[:4]
    ['rank', 'id', 'score', 'z']
    """
    if not np.array_equal(scores.ids, data.ids):
        raise ValueError(
            "scores and data must be of the same objects in the same order, and their ids differ: "
            "give the data that were given to `surprise`"
        )
    columns = _own(scores)
    taken = {*columns, *data.meta}
    for name, values in data.meta.items():
        if name in columns:
            name = f"meta_{name}"
            while name in taken:
                name = f"meta_{name}"
        columns[name] = values
    return columns


def write_scores(scores: Surprise, data: Dataset, path: str | os.PathLike[str]) -> None:
    """Write the score table as CSV, the most surprising object first.

    The columns are those of `score_columns`. Scores have seven digits, metadata all of theirs; a metadata
    cell that is an array is written as JSON. A failure leaves an existing file untouched.

    Parameters
    ----------
    scores : Surprise
    data : Dataset
        The N objects that were scored.
    path : path
        File to write (UTF-8), in a folder that exists.

    Raises
    ------
    ValueError
        If the scores are not those of these objects, in this order.
    OSError
        If nothing can be written there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import robusta_prob as rp
    >>> data = rp.simulate.toy(200, 150, seed=1).data
    >>> path = Path(tempfile.mkdtemp()) / "scores.csv"
    >>> rp.write_scores(rp.surprise(rp.fit(data, rank=5), data), data, path)
    >>> path.read_text().startswith("rank,id,score,z,p_value")
    True
    """
    columns = score_columns(scores, data)
    own = len(columns) - len(data.meta)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in scores.ranking:
            cells = [values[row] for values in columns.values()]
            writer.writerow([*map(_short, cells[:own]), *map(_full, cells[own:])])


def write_windows(scores: Surprise, path: str | os.PathLike[str]) -> None:
    """Write the strange windows of flagged objects as CSV, one line each, in the order of the data.

    Parameters
    ----------
    scores : Surprise
    path : path
        File to write (UTF-8), in a folder that exists; a failure leaves an existing file untouched.

    Raises
    ------
    OSError
        If nothing can be written there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import robusta_prob as rp
    >>> data = rp.simulate.toy(200, 150, seed=1).data
    >>> path = Path(tempfile.mkdtemp()) / "windows.csv"
    >>> rp.write_windows(rp.surprise(rp.fit(data, rank=5), data), path)
    >>> path.read_text().startswith("row,id,start,stop,centre,width,depth")
    True
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["log10_p" if name == "log_p" else name for name in scores.windows._fields])
        columns = scores.windows._replace(log_p=scores.windows.log_p / math.log(10.0))
        for row in zip(*columns, strict=True):
            writer.writerow([*map(_short, row)])


def most_surprising(scores: Surprise, rows: int) -> str:
    """The first `rows` of the ranking with what matters most of each, aligned, to be printed."""
    o = scores.object
    shown = (
        ("score", o.score, ",.1f"),
        ("z", o.z, ".2f"),
        ("log10 least p", scores.log_least_p / math.log(10.0), ",.1f"),  # by which they are ranked,
        ("q", o.q_any, ".2g"),  # and by which they are flagged
        ("mahalanobis", o.mahalanobis, ",.0f"),
        ("scale", o.scale, ".2f"),
        ("weight", o.median_weight, ".3f"),
        ("kind", o.kind, ""),
        ("pixels", o.n_observed, "d"),
    )
    lines = [["rank", "id", *(name for name, _, _ in shown)]]
    for rank, row in enumerate(scores.ranking[:rows], 1):
        values = (format(column[row], style) for _, column, style in shown)
        lines.append([str(rank), " ".join(str(scores.ids[row]).split()), *values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines
    )


def _own(scores: Surprise) -> dict[str, np.ndarray]:
    o = scores.object
    rank = np.empty(len(scores.ids), int)
    rank[scores.ranking] = np.arange(1, len(rank) + 1)
    columns = {"rank": rank, "id": scores.ids}
    for name, values in o._asdict().items():
        if name.startswith("log_p"):
            columns[name.replace("log", "log10", 1)] = values / math.log(10.0)
        else:
            columns[name] = values
    columns["log10_least_p"] = scores.log_least_p / math.log(10.0)
    for name, line in scores.lines.items():
        columns |= {f"{name}_{field}": values for field, values in line._asdict().items()}
    return columns


def _short(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, np.floating) else str(value)


def _full(value: Any) -> str:
    return json.dumps(value.tolist(), default=str) if isinstance(value, np.ndarray) else str(value)
