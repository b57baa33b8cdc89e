"""Several runs on one page: the bins of a survey, each with a basis of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from robusta_prob.report.building import COEFFICIENTS, LIMIT_MB, checked_points
from robusta_prob.report.codes import Codes
from robusta_prob.report.explorer import Explorer, Run, bytes_of, carriers, room_for
from robusta_prob.report.mapping import residual_map
from robusta_prob.report.packing import EXACT

MISSING = {"b": False, "f": np.nan, "i": np.nan, "u": np.nan}


def joined(
    parts: Sequence[Explorer],
    labels: Sequence[object],
    *,
    facet: str = "run",
    embedding: Float[np.ndarray, "objects 2"] | tuple[str, Any] | bool = True,
    limit_mb: float = LIMIT_MB,
    axes: tuple[str, str] | None = None,
    only: tuple[str, str] | None = None,
) -> Explorer:
    """Several runs as one page, which can be restricted to any of them.

    `rank` is that among the objects of all runs, by the least of their p-values; an object of two runs has
    two lines.

    Parameters
    ----------
    parts : sequence of Explorer
        Of one run each, made with `embedding=False`: maps of different bases are not comparable.
    labels : sequence
        What each is called. Parts of the same label are parts of one run: its flagged objects, say, and a
        sample of all others.
    facet : str
        Name of the column that these become.
    embedding : (N, 2) array, (str, (N, 2) array) or bool
        Where the objects of all parts, one after the other, lie on the map. True: by their residuals, if
        all parts have the same pixels, as in `explore`.
    limit_mb : float
        How large the page may be [MB]; spectra that have no room are left out as in `explore`.
    axes : (str, str), optional
        Columns of the second scatter at the beginning; with a minus before it an axis runs downwards.
    only : (str, str), optional
        A boolean column, and in words to which of the flagged objects the page can be restricted by it:
        ("in_all_bins", "flagged in all their bins").

    Returns
    -------
    Explorer
        A column that a part has not is NaN, False or "" for its objects.

    Raises
    ------
    ValueError
        If there are no parts, not as many labels, two of the same label are of different fits, `facet` is
        a column that says something else, an axis no column of numbers, or `only` none of booleans.

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
    counts = [len(part.place) for part in parts]
    columns = _columns(parts, counts)
    names = np.repeat(np.asarray(labels), counts)
    if facet in columns and not np.array_equal(columns[facet].astype(str), names.astype(str)):
        raise ValueError(
            f"the parts have a column {facet!r} of their own, which says something else: choose another facet"
        )
    columns = {facet: names} | {name: values for name, values in columns.items() if name != facet}
    columns["rank"] = _ranked(columns)
    first = ["rank", "id", facet]
    columns = {name: columns[name] for name in dict.fromkeys([*first, *columns])}
    runs, run, place = _runs(parts, [f"{facet} {label}" for label in labels])
    numbers = [name for name, values in columns.items() if values.dtype.kind in "biuf"]
    if axes is not None and (unknown := [a for a in axes if a.removeprefix("-") not in numbers]):
        raise ValueError(f"there is no column of numbers {unknown[0]!r}; there are {', '.join(numbers)}")
    if only is not None and (only[0] not in columns or columns[only[0]].dtype.kind != "b"):
        flags = [name for name, values in columns.items() if values.dtype.kind == "b"]
        raise ValueError(f"there is no boolean column {only[0]!r}; there are {', '.join(flags)}")
    whole = Explorer(
        columns=MappingProxyType(columns),
        run=run,
        place=place,
        runs=runs,
        total=sum({name: part.total for name, part in zip(map(str, labels), parts, strict=True)}.values()),
        labels=MappingProxyType({k: v for part in parts for k, v in part.labels.items()}),
        lines=MappingProxyType({k: v for part in parts for k, v in part.lines.items()}),
        maps=MappingProxyType({}),
        facet=facet,
        axes=parts[0].axes if axes is None else axes,
        only=only,
    )
    whole = _within(whole, limit_mb)
    if all(COEFFICIENTS in part.maps for part in parts):
        own = np.concatenate([part.maps[COEFFICIENTS] for part in parts])
        whole = whole.with_map(f"{COEFFICIENTS} of each {facet}", own)
    points = checked_points(embedding, len(whole.place))
    if points is None and embedding is True and len({run.grid.tobytes() for run in whole.runs}) == 1:
        points = residual_map(whole)
    return whole if points is None else whole.with_map(*points)


def _ranked(columns: Mapping[str, np.ndarray]) -> Int[np.ndarray, " objects"]:
    """1, 2, ... among all, as `Surprise.ranking` within each part."""
    surprise = np.nan_to_num(columns["minus_log10_least_p"], nan=-np.inf)
    rank = np.empty(len(surprise), int)
    rank[np.lexsort((columns["rank"], -surprise))] = np.arange(1, len(rank) + 1)
    return rank


def _runs(parts: Sequence[Explorer], names: Sequence[str]) -> tuple[tuple[Run, ...], np.ndarray, np.ndarray]:
    """The runs of all, those of one name as one; and where there the spectrum of every object is."""
    whole: dict[str, Run] = {}
    run, place = [], []
    for part, name in zip(parts, names, strict=True):
        if len(part.runs) != 1:
            raise ValueError(f"{name} has {len(part.runs)} runs itself; join all parts at once")
        (own,) = part.runs
        known = whole.get(name)
        start = 0 if known is None else len(known.coefficients)
        whole[name] = own._replace(name=name) if known is None else _extended(known, own)
        run.append(np.full(len(part.place), list(whole).index(name)))
        place.append(np.where(part.place < 0, -1, part.place + start))
    return tuple(whole.values()), np.concatenate(run), np.concatenate(place)


def _extended(run: Run, more: Run) -> Run:
    """With further spectra of the same fit."""
    if run.basis.shape != more.basis.shape or not np.array_equal(run.basis, more.basis, equal_nan=True):
        raise ValueError(f"two parts are called {run.name!r} and are of different fits")
    return run._replace(
        coefficients=np.concatenate([run.coefficients, more.coefficients]),
        codes=Codes(*(np.concatenate(pair) for pair in zip(run.codes, more.codes, strict=True))),
        windows=run.windows + more.windows,
    )


def _columns(parts: Sequence[Explorer], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """The columns of all, those of the first part first; what a part lacks is missing, False or empty."""
    columns = {}
    for name in dict.fromkeys(name for part in parts for name in part.columns):
        known = [part.columns[name] for part in parts if name in part.columns]
        kinds = {values.dtype.kind for values in known}
        text = bool(kinds - set("biuf")) or kinds > {"b"}  # numbers here and words there
        same = len(known) == len(parts) and len(kinds) == 1
        text |= not same and any(x.dtype.kind in "iu" and (x.astype(float) > EXACT).any() for x in known)
        filling = "" if text else MISSING[max(kinds, key="bfiu".index)]
        pieces = [part.columns.get(name, np.full(n, filling)) for part, n in zip(parts, counts, strict=True)]
        columns[name] = np.concatenate([x.astype(str) for x in pieces] if text else pieces)
    return columns


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
