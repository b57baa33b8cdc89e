"""What `surprise` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from robusta_prob.inference.results import Origin
from robusta_prob.scoring.calibration import Null
from robusta_prob.scoring.empirical import EmpiricalNull
from robusta_prob.scoring.kinds import Windows
from robusta_prob.scoring.lines import Line
from robusta_prob.scoring.search import Search

FLAG = 0.05  # q-value below which an object is flagged
TOO_MANY = 0.2  # share of flagged objects that says more about the model than about the objects
BY_ERROR = "by error"  # the empirical null of objects with similar errors


class ObjectSurprise(NamedTuple):
    """One entry per object."""

    score: Float[np.ndarray, " objects"]  # surprise in excess of a normal object's, bounded per pixel [nats]
    z: Float[np.ndarray, " objects"]  # the standard normal deviate with the same p-value
    p_value: Float[np.ndarray, " objects"]  # P(as much surprise | normal object)
    log_p: Float[np.ndarray, " objects"]  # its logarithm, where p_value underflows
    q_value: Float[np.ndarray, " objects"]  # false-discovery rate if all objects up to this one are flagged
    kind: Shaped[np.ndarray, " objects"]  # of what is flagged, see `rp.surprise`; "" where nothing is
    p_run: Float[np.ndarray, " objects"]  # P(as strange a run of pixels anywhere | normal object),
    log_p_run: Float[np.ndarray, " objects"]  # its logarithm [nats], and
    q_run: Float[np.ndarray, " objects"]  # its false-discovery rate
    # false-discovery rate by 2 min(p_value, p_run), or 3 and more with sets of lines that flag
    q_any: Float[np.ndarray, " objects"]
    p_pixel: Float[np.ndarray, " objects"]  # P(as large a |z| anywhere | no bad pixels), and
    q_pixel: Float[np.ndarray, " objects"]  # its false-discovery rate
    # squared distance of the coefficients from the population; NaN where the data say nothing about them
    mahalanobis: Float[np.ndarray, " objects"]
    p_mahalanobis: Float[np.ndarray, " objects"]  # P(as far | Normal population): odd, but on the manifold
    q_mahalanobis: Float[np.ndarray, " objects"]
    # robust scale of z over the null's; above 1: errors underestimated, or a model that does not fit
    scale: Float[np.ndarray, " objects"]
    # lag-1 autocorrelation of z in excess of the survey's, in standard deviations: structure along the pixels
    structure: Float[np.ndarray, " objects"]
    median_weight: Float[np.ndarray, " objects"]  # published scores: median and
    low_weight: Float[np.ndarray, " objects"]  # 1 % quantile of the robust weights
    n_observed: Shaped[np.ndarray, " objects"]  # pixels by which the object was judged
    in_training: Bool[np.ndarray, " objects"]
    reason: Shaped[np.ndarray, " objects"]  # why there is no score; "" where there is one


class PixelSurprise(NamedTuple):
    """One entry per cell; NaN where missing. None for what was not asked for."""

    z: Any  # (N, M) residual over its predictive standard deviation
    p: Any  # (N, M) two-sided, under the core of the null law
    weight: Any  # (N, M) robust weight under the fitted loss


class Settings(NamedTuple):
    """What `surprise` was asked for, so that other objects can be scored in the same way."""

    windows: tuple[int, ...] | None = None  # widths of the runs [pixels]; None: the default
    replicates: int | None = None  # of every object; None: the default
    lines: Mapping[str, Float[np.ndarray, " lines"]] = MappingProxyType(
        {}
    )  # sets of positions by name [grid]
    flag_lines: bool = False  # whether these flag objects, too
    robustness: float | None = None  # scale of the published scores; None: the loss that was fitted


@dataclass(frozen=True, eq=False, repr=False)
class Surprise:
    """Outlier scores: `flagged` says which objects, `ranking` lists them, the most surprising first."""

    object: ObjectSurprise
    ids: Shaped[np.ndarray, " objects"]
    null: Null
    empirical: EmpiricalNull
    windows: Windows  # strange runs of pixels, in objects with q_value, q_run or q_any below 0.05
    lines: Mapping[str, Line] = field(
        default_factory=lambda: MappingProxyType({})
    )  # the sets that were asked for
    pixel: PixelSurprise | None = None
    settings: Settings = field(default_factory=Settings)
    origin: Origin | None = None  # of the projection; None where cells were held out, or it was made by hand
    search: Search | None = None  # how runs were calibrated
    level: float = float("nan")  # `least_p` up to which objects are flagged, or one alone would be

    def __repr__(self) -> str:
        kinds, counts = np.unique(self.object.kind[self.flagged], return_counts=True)
        what = "".join(f", {count:,} {kind}" for kind, count in zip(kinds, counts, strict=True))
        return f"Surprise({len(self.ids):,} objects, {int(self.flagged.sum()):,} flagged{what})"

    @property
    def flagged(self) -> Bool[np.ndarray, " objects"]:
        """Objects surprising as a whole or by a run of pixels, at a false-discovery rate of 5 %."""
        return self.object.q_any < FLAG

    @property
    def least_p(self) -> Float[np.ndarray, " objects"]:
        """The least of the p-values that flag (p_value, p_run, lines that do), as if it were the only one."""
        lines = (one.p_value for one in self.lines.values()) if self.settings.flag_lines else ()
        return np.fmin.reduce([self.object.p_value, self.object.p_run, *lines])

    @property
    def log_least_p(self) -> Float[np.ndarray, " objects"]:
        """Its natural logarithm [nats], where it underflows."""
        lines = (one.log_p for one in self.lines.values()) if self.settings.flag_lines else ()
        return np.fmin.reduce([self.object.log_p, self.object.log_p_run, *lines])

    @property
    def warning(self) -> str:
        """What to know before the list is believed; "" where there is nothing."""
        share = float(self.flagged.mean()) if len(self.ids) else 0.0
        if share <= TOO_MANY:
            return ""
        return (
            f"{100 * share:.0f} % of the objects are flagged: that says more about the model than about "
            "them. Try a higher rank, or `empirical_null`; until then trust the ranking, not the p-values"
        )

    @property
    def cells_in_memory(self) -> bool:
        """Whether `pixel` holds arrays, and not datasets of a file that they were written to."""
        return self.pixel is None or all(x is None or isinstance(x, np.ndarray) for x in self.pixel)

    def take(self, rows: Shaped[np.ndarray, " some"]) -> Surprise:
        """The scores of some objects, as they were among all: null law and false-discovery rates stay.

        Scores of cells that were written elsewhere (`out=`) are left out.

        Raises
        ------
        ValueError
            If an object is taken twice.
        """
        index = np.arange(len(self.ids))[rows]
        if len(np.unique(index)) < len(index):
            raise ValueError("rows has an object twice: its windows can belong to one of them only")
        place = np.full(len(self.ids), -1)
        place[index] = np.arange(len(index))
        kept = place[self.windows.row] >= 0
        windows = self.windows._replace(row=place[self.windows.row])
        cells = None
        if self.pixel is not None and self.cells_in_memory:
            cells = PixelSurprise(*(None if x is None else x[index] for x in self.pixel))
        return replace(
            self,
            object=ObjectSurprise(*(x[index] for x in self.object)),
            ids=self.ids[index],
            windows=type(windows)(*(x[kept] for x in windows)),
            lines=MappingProxyType({k: type(v)(*(x[index] for x in v)) for k, v in self.lines.items()}),
            pixel=cells,
            origin=self.origin and self.origin.take(index),
        )

    @property
    def ranking(self) -> Shaped[np.ndarray, " objects"]:
        """Indices of the objects by rising `least_p`; those without a score come last.

        Flagged objects come first, but for those of which a test is unknown: q_any counts the tests.
        """
        score, surprise = (np.nan_to_num(x, nan=-np.inf) for x in (self.object.score, -self.log_least_p))
        return np.lexsort((-score, -surprise))
