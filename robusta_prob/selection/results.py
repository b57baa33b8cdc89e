"""What a choice of the rank is: every candidate's held-out density, and which one is large enough."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from robusta_prob.inference.iterate import Status
from robusta_prob.inference.results import Fit
from robusta_prob.inference.storage import load
from robusta_prob.io import atomic_path
from robusta_prob.selection.held_out import Published
from robusta_prob.selection.segments import Segments

ENOUGH = (
    2.0  # standard errors: at one, a gain in a single object (d/N +- d/N) would count, at two it takes four
)

IDEAL = {"std_z": 1.0, "chi2": 1.0, "median_z": 0.6745}  # published scores of a standard normal z
EXACT = ("rank", "scale", "score")  # columns that are told to more digits


class Candidate(NamedTuple):
    """A rank, perhaps with a robustness scale, and what the hidden cells say of its fit."""

    rank: int
    scale: float | None  # None: the noise law is not the published loss with a given scale
    density: Float[np.ndarray, " objects"]  # log predictive density of each object's judged cells [nats]
    published: Published
    status: Status


class Difference(NamedTuple):
    """Of two candidates' scores [nats per pixel]."""

    mean: float
    error: (
        float  # standard error, of one split and one fit each: over objects (groups) that might have judged
    )

    @property
    def is_clear(self) -> bool:
        """Whether the first is better by more than can be chance."""
        return self.mean > ENOUGH * self.error


@dataclass(frozen=True, eq=False)
class Selection:
    """Candidates, judged by the same hidden cells of the same objects, none of which taught them anything.

    `rank` and `scale` are the choice: the smallest rank, at its best scale, to which no other is clearly
    preferred, by two standard errors of the paired differences.
    """

    candidates: tuple[Candidate, ...]  # by rank, then by scale
    chosen: int  # which of them
    count: Int[np.ndarray, " objects"]  # judged cells of each object
    ids: Shaped[np.ndarray, " objects"]  # of the objects that judge
    groups: Int[np.ndarray, " objects"]  # which of them belong together
    hidden: Segments
    fits: Mapping[tuple[int, float | None], Fit | Path]  # by (rank, scale): fits, or their files

    @property
    def rank(self) -> int:
        """The chosen rank."""
        return self.candidates[self.chosen].rank

    @property
    def scale(self) -> float | None:
        """The chosen robustness scale; None where the noise law was learned or given."""
        return self.candidates[self.chosen].scale

    @property
    def ranks(self) -> tuple[int, ...]:
        """All ranks, ascending."""
        return tuple(sorted({one.rank for one in self.candidates}))

    @property
    def scales(self) -> tuple[float | None, ...]:
        """All scales, ascending; (None,) where there are none."""
        return tuple(dict.fromkeys(one.scale for one in self.candidates))

    @property
    def scores(self) -> Float[np.ndarray, "ranks scales"]:
        """Held-out log predictive density per judged cell [nats], in the user's flux unit."""
        return self.table([one.density.sum() / self.count.sum() for one in self.candidates])

    @property
    def best(self) -> Candidate:
        """The candidate of the highest score."""
        return max(self.candidates, key=_total)

    def table(self, values: Sequence[float]) -> Float[np.ndarray, "ranks scales"]:
        """One value per candidate as a table of ranks and scales."""
        return np.reshape(values, (len(self.ranks), len(self.scales)))

    def published(self, name: str) -> Float[np.ndarray, "ranks scales"]:
        """One of the scores in `Published`: "kl", "std_z", "chi2", "rmse" or "median_z".

        Raises
        ------
        ValueError
            If it is none of these.
        """
        if name not in Published._fields:
            raise ValueError(f"the published scores are {', '.join(Published._fields)}; got {name!r}")
        return self.table([getattr(one.published, name) for one in self.candidates])

    def by_published(self, name: str) -> Candidate:
        """The candidate that one of the published scores would choose.

        For "kl" and "rmse" the least, for the others the nearest to that of a standard normal z.

        Raises
        ------
        ValueError
            If it is none of these.
        """
        away = np.abs(self.published(name) - IDEAL.get(name, 0.0))
        return self.candidates[int(np.nan_to_num(away, nan=np.inf).argmin())]

    def difference(
        self, first: tuple[int, float | None] | int, second: tuple[int, float | None] | int
    ) -> Difference:
        """By how much the score of one candidate is above another's, and how sure that is.

        Candidates are named by (rank, scale), or by the rank alone where there are no scales.

        Raises
        ------
        KeyError
            If there is no such candidate.
        """
        a, b = (self.candidates[self._place(name)] for name in (first, second))
        return paired(a.density - b.density, self.count, self.groups)

    def fit(self, rank: int | None = None, scale: float | None = None) -> Fit:
        """The fit of a candidate to the training objects; by default of the chosen one.

        For a fit to all objects begin there: `rp.fit(data, selection.rank, init=selection.fit())`.

        Raises
        ------
        KeyError
            If there is no such candidate.
        FileNotFoundError
            If its fit is not kept: `rp.save` keeps where fits are, and those that are in files only.
        """
        place = self.chosen if rank is None else self._place((rank, scale))
        name = self.candidates[place][:2]
        if name not in self.fits:
            raise FileNotFoundError(
                f"the fit of {name} is not kept with this selection: give `rp.select` a folder=, or fit again"
            )
        kept = self.fits[name]
        return load(kept) if isinstance(kept, Path) else kept

    def columns(self) -> dict[str, list[float]]:
        """The table: of every candidate the score, how much it lacks of the best, the published scores."""
        lacks = [paired(self.best.density - one.density, self.count, self.groups) for one in self.candidates]
        table: dict[str, list[float]] = {"rank": [one.rank for one in self.candidates]}
        if self.scales != (None,):
            table["scale"] = [math.nan if one.scale is None else one.scale for one in self.candidates]
        table |= {
            "score": list(map(float, self.scores.ravel())),
            "below_best": [lack.mean for lack in lacks],
            "error": [lack.error for lack in lacks],
        }
        table |= {name: list(map(float, self.published(name).ravel())) for name in Published._fields}
        return table | {"chosen": [float(i == self.chosen) for i in range(len(self.candidates))]}

    def __str__(self) -> str:
        table = self.columns()
        head, lines = [*list(table)[:-1], ""], []
        for one, (*row, chosen) in zip(self.candidates, zip(*table.values(), strict=True), strict=True):
            cells = [f"{x:.6g}" if name in EXACT else f"{x:.4g}" for name, x in zip(table, row, strict=False)]
            notes = ["<- chosen"] * bool(chosen) + ["not at rest"] * (not one.status.ok)
            lines.append([*cells, ", ".join(notes)])
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        return "\n".join(
            "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in [head, *lines]
        )

    def __repr__(self) -> str:
        scale = "" if self.scale is None else f", scale {self.scale:g}"
        judges = f"{len(self.candidates)} candidates, {len(self.ids):,} objects judge"
        return f"Selection({judges}: rank {self.rank}{scale})"

    def _place(self, name: tuple[int, float | None] | int) -> int:
        wanted = (name, None) if isinstance(name, int | np.integer) else tuple(name)
        names = [one[:2] for one in self.candidates]
        if wanted not in names:
            raise KeyError(f"there is no candidate (rank, scale) = {wanted}; there are {names}")
        return names.index(wanted)


def paired(
    gain: Float[np.ndarray, " objects"],
    count: Int[np.ndarray, " objects"],
    groups: Int[np.ndarray, " objects"],
) -> Difference:
    """Mean gain per cell, a ratio of sums, with its standard error over independent groups of objects."""
    gains, cells = (np.bincount(groups, x) for x in (gain, count))
    some = cells > 0
    gains, cells, n = gains[some], cells[some], int(some.sum())
    mean = gains.sum() / cells.sum()
    if n < 2:  # one group cannot tell how much others would differ
        return Difference(float(mean), math.inf)
    spread = ((gains - mean * cells) ** 2).sum() * n / (n - 1)
    return Difference(float(mean), float(math.sqrt(spread) / cells.sum()))


def choose(
    candidates: Sequence[Candidate], count: Int[np.ndarray, " objects"], groups: Int[np.ndarray, " objects"]
) -> int:
    """The smallest rank, at its best scale, to which no other, at its own, is clearly preferred."""
    total = [_total(one) for one in candidates]
    ranks = sorted({one.rank for one in candidates})
    best = [
        max((i for i, one in enumerate(candidates) if one.rank == rank), key=total.__getitem__)
        for rank in ranks
    ]

    def beaten(i: int) -> bool:
        others = (j for j in best if total[j] > total[i])
        gains = (candidates[j].density - candidates[i].density for j in others)
        return any(paired(gain, count, groups).is_clear for gain in gains)

    return next((i for i in best if total[i] > -math.inf and not beaten(i)), best[0])


def _total(candidate: Candidate) -> float:
    """What the hidden cells say together; of a fit that is not finite, the worst."""
    total = float(candidate.density.sum())
    return total if math.isfinite(total) else -math.inf


def write_selection(selection: Selection, path: str | PathLike[str]) -> None:
    """The table of `Selection.columns` as CSV, replaced as a whole.

    Raises
    ------
    OSError
        If the folder does not exist or cannot be written to.
    """
    table = selection.columns()
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(
            [int(x) if name in ("rank", "chosen") else x for name, x in zip(table, row, strict=True)]
            for row in zip(*table.values(), strict=True)
        )
