"""From a fit, its data and their scores to what the page shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_objects, check_same_pixels
from robusta_prob.inference.progress import Rows
from robusta_prob.inference.projection import project
from robusta_prob.inference.results import Fit, Projection, mark_of
from robusta_prob.plots.panels import stretches, windows_of
from robusta_prob.plots.surveys import median_sn
from robusta_prob.report.codes import Codes, quantised
from robusta_prob.report.columns import LABELS, columns_of
from robusta_prob.report.explorer import (
    CELL_BYTES,
    ROW_BYTES,
    Explorer,
    Run,
    Window,
    bytes_of_table,
    carriers,
    room_for,
)
from robusta_prob.report.facts import P_BINS, facts_of, p_histogram
from robusta_prob.report.mapping import residual_map
from robusta_prob.scoring.predictive import Judged, cells
from robusta_prob.scoring.results import Surprise

LIMIT_MB = 55.0
MOST_OBJECTS = 50_000  # lines of the table
LEVELS = (0.68, 0.95)  # of the predictive bands
AT_ONCE = 512  # objects
COEFFICIENTS, GIVEN = "coefficients 1 and 2", "map as given"
Lines = Mapping[str, Iterable[Any]]


def explore(
    fit: Fit,
    data: Dataset,
    scores: Surprise,
    projection: Projection | None = None,
    *,
    embedding: Float[np.ndarray, "objects 2"] | tuple[str, Any] | bool = True,
    lines: Lines | None = None,
    spectra: str | Shaped[np.ndarray, " some"] | Sequence[int] = "all",
    limit_mb: float = LIMIT_MB,
    labels: Mapping[str, str] | None = None,
    survey: Surprise | None = None,
    callback: Callable[[Rows], None] | None = None,
) -> Explorer:
    """What the page of one fit shows.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit. Their metadata become columns.
    scores : Surprise
        Of these data.
    projection : Projection, optional
        Of these data, if there is one already; else the objects that carry spectra are projected.
    embedding : (N, 2) array, (str, (N, 2) array) or bool
        Where objects lie on the map, NaN for those that do not, perhaps with a name for it. True: by their
        residuals, with UMAP where umap-learn is installed, else by principal components. False: nowhere.
    lines : mapping of str to positions, or to (str, position) pairs, optional
        Sets of line markers [grid]. Default: the sets that were scored.
    spectra : {"all", "flagged"} or rows
        Which objects carry their spectra: all that there is room for, only flagged ones, or these.
    limit_mb : float
        How large the page may be [MB]. Where not all spectra have room, the flagged ones come first, the
        most surprising before all others, and then others at random (always the same).
    labels : mapping of str to str, optional
        Names with units of metadata columns: {"bp_rp": "BP − RP [mag]"}.
    survey : Surprise, optional
        The scores of all objects, where `data` are only some of them: for the summary.
    callback : callable, optional
        Called with the number of spectra done; `Progress` is one.

    Returns
    -------
    Explorer
        At most 50,000 objects: the flagged ones, and others at random.

    Raises
    ------
    ValueError
        If scores or projection are of other objects or of another fit, the pixels are not those of the fit,
        or an option is impossible.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import report
    >>> data = rp.simulate.toy(200, 150, seed=1).data
    >>> fit = rp.fit(data, rank=5)
    >>> report.explore(fit, data, rp.surprise(fit, data), embedding=False)
    Explorer(200 objects, 200 with spectra, 32 columns)
    """
    if scores.origin is not None and scores.origin.fit != mark_of(fit):
        raise ValueError("the scores are of another fit: score these spectra with this one")
    check_same_pixels(fit, data)
    check_same_objects(scores, data, "scores", "surprise")
    if projection is not None:
        check_same_objects(projection, data, fit=fit)
    points = checked_points(embedding, data.shape[0])
    sets = _checked_lines(scores.settings.lines if lines is None else lines)
    survey = scores if survey is None else survey

    n, m = data.shape
    asked = _asked(spectra, n)
    names = [f"coefficient_{k + 1}" for k in range(min(fit.rank, 2))]
    columns = columns_of(scores, data, median_sn(data), dict.fromkeys(names, np.full(n, np.nan)))
    rank, first = columns["rank"], columns["flagged"] if asked is None else asked | columns["flagged"]
    here = np.ones(n, bool) if n <= MOST_OBJECTS else carriers(rank, first, MOST_OBJECTS)
    other = bytes_of_table({name: values[here] for name, values in columns.items()}, [fit.basis.shape])
    room = room_for(limit_mb, other, CELL_BYTES * m + ROW_BYTES)
    # others come in the same random order in both draws: the first of them are on the page
    brings = carriers(
        rank, columns["flagged"] if asked is None else asked, room, normal=asked is None and spectra == "all"
    )
    carried = np.flatnonzero(brings & here)
    run = _run_of(fit, data, scores, projection, carried, survey, callback)
    place = np.full(n, -1)
    place[carried] = np.arange(len(carried))

    coefficients = _spread(run.coefficients[:, :2], carried, n)
    columns |= dict(zip(names, coefficients.T, strict=False))
    explorer = Explorer(
        columns=MappingProxyType(columns),
        run=np.zeros(n, int),
        place=place,
        runs=(run,),
        total=len(survey.ids),
        labels=MappingProxyType({**LABELS, **(labels or {})}),
        lines=sets,
        maps=MappingProxyType({COEFFICIENTS: coefficients} if fit.rank > 1 else {}),
        axes=_axes(columns),
    )
    if points is None and embedding is True:
        points = residual_map(explorer)
    if points is not None:
        explorer = explorer.with_map(*points)
    return explorer if here.all() else explorer.take(np.flatnonzero(here))


def _run_of(
    fit: Fit,
    data: Dataset,
    scores: Surprise,
    projection: Projection | None,
    carried: Int[np.ndarray, " carried"],
    survey: Surprise,
    callback: Callable[[Rows], None] | None,
) -> Run:
    """The fit, with the spectra of these objects."""
    order = np.argsort(data.grid, kind="stable")
    grid, m = data.grid[order], data.shape[1]
    codes, coefficients = [_nothing(m)], [np.empty((0, fit.rank))]
    for start in range(0, len(carried), AT_ONCE):
        rows = carried[start : start + AT_ONCE]
        part = data.take(rows)
        own = project(fit, part) if projection is None else projection.take(rows)
        for here, block in cells(fit, Judged(part, own, scores.object.in_training[rows])):
            z, sd, weight = (
                np.where(block.seen, values, np.nan)[:, order].astype(float)
                for values in (block.z, block.sd, block.weight)
            )
            codes.append(quantised(z, sd * fit.unit, weight))
            coefficients.append(own.coefficients[here].astype(float))
        if callback is not None:
            callback(Rows(min(start + AT_ONCE, len(carried)), len(carried), "spectra"))
    joined = Codes(*(np.concatenate(parts) for parts in zip(*codes, strict=True)))
    first, second = (float(scores.null.core.quantile(0.5 * (1.0 + level))) for level in LEVELS)
    return Run(
        name="",
        grid=grid,
        grid_name=data.labels.grid_name,
        flux_name=data.labels.flux_name,
        basis=np.where(fit.trained, fit.basis, np.nan)[:, order].astype(np.float32),
        reach=(first, second),
        coefficients=np.concatenate(coefficients),
        codes=joined,
        windows=tuple(_windows(scores, int(row), grid, order) for row in carried),
        facts=facts_of(fit, survey),
        p_values=p_histogram(survey.object.p_value, P_BINS),
    )


def _nothing(m: int) -> Codes:
    empty, ends = np.empty((0, m), np.uint8), np.empty(0)
    return Codes(empty, empty, empty, ends, ends, ends, ends)


def _windows(
    scores: Surprise, row: int, grid: Float[np.ndarray, " pixels"], order: Int[np.ndarray, " pixels"]
) -> tuple[Window, ...]:
    own, w = windows_of(scores, row), scores.windows
    return tuple(
        Window(
            one.left,
            one.right,
            one.number,
            *(float(values[own[one.number - 1]]) for values in (w.centre, w.depth, w.depth_sd)),
        )
        for one in stretches(scores, row, grid, order)
    )


def _asked(
    spectra: str | Shaped[np.ndarray, " some"] | Sequence[int], n: int
) -> Bool[np.ndarray, " objects"] | None:
    """The rows that are to bring their spectra; None where a word says which."""
    if isinstance(spectra, str):
        if spectra not in ("all", "flagged"):
            raise ValueError(f"spectra must be 'all', 'flagged' or rows of the data, got {spectra!r}")
        return None
    asked = np.zeros(n, bool)
    try:
        asked[np.asarray(spectra)] = True
    except IndexError as error:
        raise ValueError(f"spectra must be 'all', 'flagged' or rows of the data ({error})") from None
    return asked


def checked_points(embedding: Any, n: int) -> tuple[str, np.ndarray] | None:
    """A name and places of n objects; None where they are not given."""
    if isinstance(embedding, bool):
        return None
    name, points = embedding if isinstance(embedding, tuple) else (GIVEN, embedding)
    points = np.asarray(points, float)
    if points.shape != (n, 2):
        raise ValueError(f"embedding must have a place for each object, shape ({n}, 2); got {points.shape}")
    return str(name), points


def _checked_lines(lines: Lines) -> Mapping[str, tuple[tuple[str, float], ...]]:
    """(name, place) of every line; those of a set of bare positions bear the name of the set."""
    sets = {}
    for name, members in lines.items():
        pairs = [(str(name), one) if np.ndim(one) == 0 else tuple(one) for one in members]
        try:
            sets[str(name)] = tuple(sorted(((str(a), float(b)) for a, b in pairs), key=lambda pair: pair[1]))
        except (TypeError, ValueError):
            raise ValueError(
                f"lines[{name!r}] must be positions, or (name, position) pairs; got {list(members)!r}"
            ) from None
        if not all(math.isfinite(place) for _, place in sets[str(name)]):
            raise ValueError(f"lines[{name!r}] must be finite positions, got {list(members)!r}")
    return MappingProxyType(sets)


def _spread(points: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Two numbers of some objects (or one), as those of all."""
    full = np.full((n, 2), np.nan)
    full[rows, : points.shape[1]] = points
    return full


def _axes(columns: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """Surprise against S/N; its logarithm, where most have one."""
    some = np.isfinite(columns["log10_sn"])
    return ("log10_sn" if 2 * some.sum() > len(some) else "sn"), "z"
