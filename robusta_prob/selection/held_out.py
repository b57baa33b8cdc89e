"""How well a fit predicts cells of new objects that their coefficients were not fitted to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from robusta_prob.data import Dataset, slices
from robusta_prob.inference.blocks import rows_per_batch
from robusta_prob.inference.digits import precision
from robusta_prob.inference.projection import projected
from robusta_prob.inference.results import Fit
from robusta_prob.models.noise import log_density
from robusta_prob.scoring.evidence import learn
from robusta_prob.scoring.predictive import Judged, cells, taken_by_basis
from robusta_prob.selection.segments import Segments

ROWS = 4096  # objects at hand at once
VOTERS = 300  # training objects that tell how far noise is correlated
FAR, BIN = 10.0, 0.01  # of the histogram of z


class Published(NamedTuple):
    """The scores of the paper, of z = residual sqrt(weight ivar), with the robust weight, of fitted cells.

    Only observed cells count. All but `rmse` are best where z is a standard normal; the weights pull them
    there, whatever the fit, the more the smaller the robustness scale.
    """

    kl: float  # Kullback-Leibler divergence of z from Normal(0, 1) [nats]
    std_z: float
    chi2: float  # sum of z^2 per degree of freedom
    rmse: float  # weighted root mean square residual, in the user's flux unit
    median_z: float  # median |z|; 0.674 for a standard normal


class Judgement(NamedTuple):
    """What hidden cells say of a fit."""

    density: Float[
        np.ndarray, " objects"
    ]  # log predictive density, summed over an object's judged cells [nats]
    n_judged: Int[np.ndarray, " objects"]  # how many these are
    n_shown: Int[np.ndarray, " objects"]  # cells that the coefficients were fitted to
    published: Published


def judge(fit: Fit, data: Dataset, hidden: Segments, stride: int | None = None) -> Judgement:
    """Project objects without their segments, and evaluate the predictive density in the segments.

    The density is the learned noise law about A G, widened by the uncertainty of coefficients and basis, in
    the user's unit: fits of other losses and ranks compare. `stride` as in `projected`.
    """
    law = fit.noise.in_unit(fit.unit)._replace(scale=1.0, floor=0.0)  # both are in the predictive deviation
    (n, _), sums, rows_at_once = data.shape, _Sums(fit.rank), rows_per_batch(data)
    density, count, shown = np.zeros(n), np.zeros(n, int), np.zeros(n, int)
    for rows in slices(n, ROWS):
        part = data.take(rows).load()
        judged, unseen = hidden.cells(rows)
        projection = projected(fit, part.hide(unseen), batch_rows=rows_at_once, stride=stride)
        whole = Judged(part.hide(unseen & ~judged), projection, np.zeros(len(judged), bool), judged)
        for here, block in cells(fit, whole, rows_at_once):
            there = slice(rows.start + here.start, rows.start + here.stop)
            residual = block.z * block.sd
            with precision(fit.dtype):
                information = np.where(block.held_out, block.sd**-2, 0).astype(fit.dtype)
                cell = np.asarray(log_density(residual**2, information, law))
            count[there], shown[there] = block.held_out.sum(1), block.seen.sum(1)
            density[there] = cell.sum(1, dtype=float) - count[there] * math.log(fit.unit)
            weight = np.where(block.seen, block.weight * part.ivar[here], 0.0)
            sums.add(residual * (fit.unit / part.unit), weight, block.seen)
    return Judgement(density, count, shown, sums.published(data.unit))


def reach(fit: Fit, train: Dataset, stride: int | None = None) -> int:
    """How many pixels apart the residuals of normal training objects are still correlated."""
    n, _ = train.shape
    some = train.take(np.unique(np.linspace(0, n - 1, min(n, VOTERS)).astype(int)))
    projection = projected(fit, some, batch_rows=rows_per_batch(train), stride=stride)
    judged = Judged(some, projection, np.ones(some.shape[0], bool))
    scored = judged.n_fitted(fit.trained) > fit.rank
    return len(learn(fit, judged, scored, taken_by_basis(fit, judged)).correlation) if scored.any() else 0


def comparable(told: Sequence[Judgement], rank: int) -> tuple[list[Judgement], Int[np.ndarray, " objects"]]:
    """The same with one set of objects for all, those that show more cells than the largest rank.

    Fewer do not determine coefficients, which under a flat prior would count as known.

    Raises
    ------
    ValueError
        If there is no such object with a hidden cell that is observed.
    """
    count = np.where(told[0].n_shown > rank, told[0].n_judged, 0)
    if not count.any():
        raise ValueError(
            f"none of the objects that judge has an observed cell that is hidden, and more than {rank} that "
            "are not: give more objects, or lower the rank"
        )
    return [
        one._replace(density=np.where(count > 0, one.density, 0.0), n_judged=count) for one in told
    ], count


class _Sums:
    """What the published scores need, block by block."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._edges = np.linspace(-FAR, FAR, round(2 * FAR / BIN) + 1)
        self._histogram = np.zeros(len(self._edges) - 1)
        self._moments = np.zeros(5)  # cells, fitted coefficients, sums of z, z^2 and weights

    def add(
        self,
        residual: Float[np.ndarray, "rows pixels"],
        weight: Float[np.ndarray, "rows pixels"],
        seen: Bool[np.ndarray, "rows pixels"],
    ) -> None:
        """Residuals and their weights in the unit of the data: in the user's float32 may not hold them."""
        z, number = (residual * np.sqrt(weight))[seen].astype(float), seen.sum(1)
        fitted = np.minimum(number, self._rank).sum()
        self._moments += len(z), fitted, z.sum(), (z**2).sum(), weight.sum(dtype=float)
        places = np.clip((z + FAR) / BIN, 0, len(self._histogram) - 1).astype(int)
        self._histogram += np.bincount(places, minlength=len(self._histogram))

    def published(self, unit: float) -> Published:
        """The scores; NaN where no cell was fitted."""
        cells_, fitted, first, second, weights = self._moments
        if cells_ == 0:
            return Published(*[math.nan] * len(Published._fields))
        share = self._histogram / cells_
        coarse = share.reshape(-1, 10).sum(1)
        below = np.diff(special.ndtr(self._edges[: len(share) // 2 + 1 : 10]))  # above, digits would cancel
        below[0] += special.ndtr(-FAR)
        normal = np.concatenate([below, below[::-1]])
        some = coarse > 0
        size = np.cumsum(share.reshape(2, -1)[0, ::-1] + share.reshape(2, -1)[1])
        return Published(
            kl=float((coarse[some] * np.log(coarse[some] / normal[some])).sum()),
            std_z=math.sqrt(max(second / cells_ - (first / cells_) ** 2, 0.0)),
            chi2=second / (cells_ - fitted) if cells_ > fitted else math.nan,
            rmse=unit * math.sqrt(second / weights) if weights > 0 else math.nan,
            median_z=BIN * float(np.interp(0.5, np.append(0.0, size), np.arange(len(size) + 1))),
        )
