"""What the page shows, as one immutable object: a table, spectra on one basis or several, maps, a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from robusta_prob.report.codes import Codes

CELL_BYTES = 4  # on the page: three bytes, as text
NUMBER_BYTES = 11  # eight, as text
ROW_BYTES = 400  # of an object's other numbers, with its spectrum
FIXED_BYTES = 1_500_000  # of the plotting library and the page itself
MEGABYTE = 1_000_000


class Window(NamedTuple):
    """A stretch of an object that is off."""

    left: float  # [grid], and
    right: float
    number: int  # 1 is the strangest of the object
    centre: float  # [grid]
    depth: float  # height above the model [flux]; below it: negative
    depth_sd: float


class Run(NamedTuple):
    """One fit, and the spectra that the page carries of its objects. S of them, M pixels, rank K."""

    name: str
    grid: Float[np.ndarray, " pixels"]  # rising
    grid_name: str  # with its unit, and
    flux_name: str
    basis: Float[np.ndarray, "rank pixels"]  # NaN where it is not known
    reach: tuple[float, float]  # |z| within which 68 and 95 % of a normal object's good cells are
    coefficients: Float[np.ndarray, "carried rank"]  # [flux]
    codes: Codes  # of S objects
    windows: tuple[tuple[Window, ...], ...]  # of each of them
    facts: tuple[tuple[str, str], ...]  # name and value: of the fit and of its calibration
    p_values: Int[np.ndarray, " bins"]  # how many objects of the survey have a p-value in 0-0.05, ...

    def take(self, places: Int[np.ndarray, " some"]) -> Run:
        """With the spectra at these places alone."""
        return self._replace(
            coefficients=self.coefficients[places],
            codes=self.codes.take(places),
            windows=tuple(self.windows[place] for place in places),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Explorer:
    """Everything that the page shows; made by `explore` and `joined`, written by `write_page`.

    Attributes
    ----------
    columns : mapping of name to (N,) array
        Numbers, booleans or text; `rank` (1 is the most surprising), `id` and `flagged` are among them.
    labels : mapping of name to str
        Names with units, of columns whose own says less.
    run, place : (N,) integer arrays
        Of which of the runs an object is, and where in it its spectrum is; -1 where there is none.
    runs : tuple of Run
    lines : mapping of str to tuple of (str, float)
        Sets of lines: their names, and where they are [grid].
    maps : mapping of str to (N, 2) array
        Places of the objects; NaN where they have none.
    facet : str, optional
        The column by which the page can be restricted.
    axes : (str, str)
        Columns of the second scatter at the beginning; with a minus before it an axis runs downwards.
    only : (str, str), optional
        A boolean column, and in words to which of the flagged objects the page can be restricted by it.
    total : int
        Objects of the survey, of which N are here.
    """

    columns: Mapping[str, Shaped[np.ndarray, " objects"]]
    run: Int[np.ndarray, " objects"]
    place: Int[np.ndarray, " objects"]
    runs: tuple[Run, ...]
    total: int
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    lines: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=lambda: MappingProxyType({}))
    maps: Mapping[str, Float[np.ndarray, "objects 2"]] = field(default_factory=lambda: MappingProxyType({}))
    facet: str | None = None
    axes: tuple[str, str] = ("log10_sn", "z")
    only: tuple[str, str] | None = None

    def __repr__(self) -> str:
        n, carried = len(self.place), int((self.place >= 0).sum())
        return f"Explorer({n:,} objects, {carried:,} with spectra, {len(self.columns)} columns)"

    @property
    def flagged(self) -> Shaped[np.ndarray, " objects"]:
        """Which objects are flagged."""
        return self.columns["flagged"]

    @property
    def spectra_bytes(self) -> int:
        """What the spectra take on the page."""
        return sum(len(run.coefficients) * bytes_of(run) for run in self.runs)

    @property
    def other_bytes(self) -> int:
        """What all else takes, by estimate."""
        return bytes_of_table(self.columns, [run.basis.shape for run in self.runs])

    def carrying(self, wanted: Shaped[np.ndarray, " objects"]) -> Explorer:
        """With the spectra of the objects `wanted` (boolean), as far as they are here."""
        place = np.full(len(self.place), -1)
        runs = []
        for number, run in enumerate(self.runs):
            own = np.flatnonzero((self.run == number) & (self.place >= 0) & wanted)
            place[own] = np.arange(len(own))
            runs.append(run.take(self.place[own]))
        return replace(self, place=place, runs=tuple(runs))

    def maps_of(
        self, rows: Shaped[np.ndarray, " objects"], points: Float[np.ndarray, "some 2"]
    ) -> Float[np.ndarray, "objects 2"]:
        """The places of the objects `rows` (boolean), as those of all."""
        places = np.full((len(self.place), 2), np.nan)
        places[rows] = points
        return places

    def with_map(self, name: str, points: Float[np.ndarray, "objects 2"]) -> Explorer:
        """With this map before all others; NaN where an object has no place."""
        others = {other: places for other, places in self.maps.items() if other != name}
        return replace(self, maps=MappingProxyType({name: points, **others}))

    def take(self, rows: Int[np.ndarray, " some"]) -> Explorer:
        """The objects `rows` in this order; all spectra stay."""
        return replace(
            self,
            columns=MappingProxyType({name: values[rows] for name, values in self.columns.items()}),
            run=self.run[rows],
            place=self.place[rows],
            maps=MappingProxyType({name: points[rows] for name, points in self.maps.items()}),
        )


def bytes_of(run: Run) -> int:
    """What one spectrum of this run takes on the page."""
    return CELL_BYTES * len(run.grid) + ROW_BYTES


def bytes_of_table(columns: Mapping[str, np.ndarray], bases: Sequence[tuple[int, ...]]) -> int:
    """What the page takes without spectra: the library, bases of these shapes, the table and two maps."""
    size = FIXED_BYTES + sum(6 * rank * pixels + 11 * pixels for rank, pixels in bases)
    for values in columns.values():
        size += len(values) * NUMBER_BYTES // (6 if values.dtype.kind == "b" else 1)
        if values.dtype.kind not in "biuf":  # a number for each object, and every text once
            size += sum(len(text.encode()) + 3 for text in np.unique(values.astype(str)))
    return size + 5 * NUMBER_BYTES * len(next(iter(columns.values()), ()))


def carriers(
    rank: Int[np.ndarray, " objects"],
    flagged: Shaped[np.ndarray, " objects"],
    room: int,
    seed: int = 0,
    *,
    normal: bool = True,
) -> Shaped[np.ndarray, " objects"]:
    """Which `room` objects are shown: the flagged ones, the most surprising first, then others at random."""
    chosen = np.zeros(len(rank), bool)
    strange = np.flatnonzero(flagged)
    chosen[strange[np.argsort(rank[strange], kind="stable")][: max(room, 0)]] = True
    rest = room - len(strange)
    if normal and rest > 0:
        others = np.flatnonzero(~flagged)
        chosen[np.random.default_rng(seed).permutation(others)[:rest]] = True
    return chosen


def room_for(limit_mb: float, other_bytes: int, spectrum_bytes: int) -> int:
    """How many spectra a page of this size has room for.

    Raises
    ------
    ValueError
        If the limit is no number, or there is no room even for what the page needs without a spectrum.
    """
    if not limit_mb > 0:
        raise ValueError(f"the limit must be a positive number of megabytes, got {limit_mb!r}")
    room = limit_mb * MEGABYTE - other_bytes
    if not room >= 0:
        raise ValueError(
            f"the page takes {other_bytes / MEGABYTE:.1f} MB before it holds a spectrum, and its limit is "
            f"{limit_mb!r} MB: raise the limit, or give fewer objects or columns"
        )
    return int(min(room, 1e12) // spectrum_bytes)
