"""Several runs on one page: the bins of a survey, each with a basis of its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from robusta_prob.report.building import COEFFICIENTS, LIMIT_MB, checked_points
from robusta_prob.report.explorer import Explorer, bytes_of, carriers, room_for
from robusta_prob.report.mapping import residual_map

MISSING = {"b": False, "f": np.nan, "i": np.nan, "u": np.nan}


def joined(
    parts: Sequence[Explorer],
    labels: Sequence[object],
    *,
    facet: str = "run",
    embedding: Float[np.ndarray, "objects 2"] | tuple[str, Any] | bool = True,
    limit_mb: float = LIMIT_MB,
    axes: tuple[str, str] | None = None,
) -> Explorer:
    """Several runs as one page, which can be restricted to any of them.

    `rank` is that among the objects of all runs, by the least of their p-values; an object of two runs has
    two lines.

    Parameters
    ----------
    parts : sequence of Explorer
        Of one run each, made with `embedding=False`: maps of different bases are not comparable.
    labels : sequence
        What each is called.
    facet : str
        Name of the column that these become.
    embedding : (N, 2) array, (str, (N, 2) array) or bool
        Where the objects of all parts, one after the other, lie on the map. True: by their residuals, if
        all parts have the same pixels, as in `explore`.
    limit_mb : float
        How large the page may be [MB]; spectra that have no room are left out as in `explore`.
    axes : (str, str), optional
        Columns of the second scatter at the beginning; with a minus before it an axis runs downwards.

    Returns
    -------
    Explorer
        A column that a part has not is NaN, False or "" for its objects.

    Raises
    ------
    ValueError
        If there are no parts, not as many labels, two are the same, or an axis is no column.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import report
    >>> data = rp.simulate.low_rank(60, 50, 2, seed=1).data
    >>> fits = [rp.fit(data, rank) for rank in (1, 2)]
    >>> parts = [report.explore(fit, data, rp.surprise(fit, data), embedding=False) for fit in fits]
    >>> report.joined(parts, ["rank 1", "rank 2"], embedding=False).facet
    'run'
    """
    if not parts or len(labels) != len(parts):
        raise ValueError(f"{len(parts)} parts and {len(labels)} labels: give at least one, and one for each")
    if len(set(map(str, labels))) < len(labels):
        raise ValueError(f"each part needs a label of its own, got {list(labels)!r}")
    counts = [len(part.place) for part in parts]
    columns = _columns(parts, counts)
    names = np.repeat(np.asarray(labels), counts)
    columns = {facet: names} | {name: values for name, values in columns.items() if name != facet}
    columns["rank"] = _rank(columns)
    first = ["rank", "id", facet]
    columns = {name: columns[name] for name in dict.fromkeys([*first, *columns])}
    starts = np.cumsum([0, *(len(part.runs) for part in parts)])
    if axes is not None and (unknown := [a for a in axes if a.removeprefix("-") not in columns]):
        raise ValueError(f"there is no column {unknown[0]!r}; there are {', '.join(columns)}")
    whole = Explorer(
        columns=MappingProxyType(columns),
        run=np.concatenate([part.run + start for part, start in zip(parts, starts[:-1], strict=True)]),
        place=np.concatenate([part.place for part in parts]),
        runs=tuple(
            run._replace(name=f"{facet} {label}" if len(part.runs) == 1 else f"{facet} {label}, {run.name}")
            for part, label in zip(parts, labels, strict=True)
            for run in part.runs
        ),
        total=sum(part.total for part in parts),
        labels=MappingProxyType({k: v for part in parts for k, v in part.labels.items()}),
        lines=MappingProxyType({k: v for part in parts for k, v in part.lines.items()}),
        maps=MappingProxyType({}),
        facet=facet,
        axes=parts[0].axes if axes is None else axes,
    )
    whole = _within(whole, limit_mb)
    if all(COEFFICIENTS in part.maps for part in parts):
        own = np.concatenate([part.maps[COEFFICIENTS] for part in parts])
        whole = whole.with_map(f"{COEFFICIENTS} of each {facet}", own)
    points = checked_points(embedding, len(whole.place))
    if points is None and embedding is True and len({run.grid.tobytes() for run in whole.runs}) == 1:
        points = residual_map(whole)
    return whole if points is None else whole.with_map(*points)


def _columns(parts: Sequence[Explorer], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """The columns of all, those of the first part first; what a part lacks is missing, False or empty."""
    columns = {}
    for name in dict.fromkeys(name for part in parts for name in part.columns):
        known = [part.columns[name] for part in parts if name in part.columns]
        kinds = {values.dtype.kind for values in known}
        text = bool(kinds - set("biuf")) or kinds > {"b"}  # numbers here and words there
        filling = "" if text else MISSING[max(kinds, key="bfiu".index)]
        pieces = [part.columns.get(name, np.full(n, filling)) for part, n in zip(parts, counts, strict=True)]
        columns[name] = np.concatenate([x.astype(str) for x in pieces] if text else pieces)
    return columns


def _rank(columns: dict[str, np.ndarray]) -> np.ndarray:
    """1, 2, ... by falling surprise; those without a score come last."""
    surprise = np.nan_to_num(columns["minus_log10_least_p"], nan=-np.inf)
    rank = np.empty(len(surprise), int)
    rank[np.lexsort((columns["rank"], -surprise))] = np.arange(1, len(rank) + 1)
    return rank


def _within(whole: Explorer, limit_mb: float) -> Explorer:
    """With as many spectra as there is room for."""
    largest = max(bytes_of(run) for run in whole.runs)
    room = room_for(limit_mb, whole.other_bytes, largest)
    here = whole.place >= 0
    if room >= here.sum():
        return whole
    chosen = np.zeros(len(here), bool)
    chosen[here] = carriers(whole.columns["rank"][here], whole.flagged[here], room)
    return whole.carrying(chosen)
