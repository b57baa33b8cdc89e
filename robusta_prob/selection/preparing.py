"""What is settled before anything is fitted: who teaches, who judges, and that all settings are possible."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Int

from robusta_prob.data import Dataset, warn_user
from robusta_prob.inference import checks, processes
from robusta_prob.inference.fitting import MOST_STARTS
from robusta_prob.inference.journal import marks
from robusta_prob.inference.problem import stride_of
from robusta_prob.inference.results import Fit
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior
from robusta_prob.partition import drawn
from robusta_prob.selection.candidates import Settings, made
from robusta_prob.selection.held_out import reach
from robusta_prob.selection.segments import Segments, segments


class Prepared(NamedTuple):
    """Objects that teach, objects that judge, and what all fits have in common."""

    learn: Dataset
    rest: Dataset
    groups: Int[np.ndarray, " rest"]
    settings: Settings
    stride: int  # of the compiled programs, that of the fits
    share: float  # of the pixels, hidden
    guard: int | None

    @classmethod
    def of(
        cls,
        data: Dataset,
        ranks: Sequence[int],
        scales: Sequence[float | None],
        *,
        noise: Noise | None,
        prior: Prior | None,
        train: float,
        group: str | Any,
        hidden: float,
        guard: int | None,
        key: Array | int,
        tol: float,
        max_epochs: int,
        folder: str | PathLike[str] | None,
    ) -> Prepared:
        """Checked, split, and with a folder that can be written to."""
        checks.check_data(data)
        checks.check_types(noise, prior, None, key, max_epochs=max_epochs)
        checks.check_settings(prior or Prior(), None, MOST_STARTS, max_epochs, tol, None)
        noise = (noise or Noise()).validated()
        _check_shares(train, hidden, guard)
        if processes.count() > 1:
            raise ValueError(
                "a rank is chosen in one process: fit the candidates with rp.fit, or run it alone"
            )
        seed = checks.seed_of(key)
        first, member = drawn(data, train, seed, group)
        learn, rest, groups = data.take(first), data.take(~first), member[~first]
        if len(np.unique(groups[rest.n_observed > 0])) < 2:  # now, not once all is fitted
            raise ValueError("fewer than two groups of objects with data are left to judge: lower train")
        for scale in scales[:1]:
            checks.check_learnable(learn, ranks[-1], noise if scale is None else Noise(1.0, scale, 0.0))
        settings = Settings(noise, prior, seed, tol, max_epochs, made(folder), marks(learn))
        return cls(learn, rest, groups, settings, stride_of(learn), hidden, guard)

    def hide(self, largest: Fit) -> Segments:
        """The segments, with a guard as wide as the residuals of the largest rank are correlated."""
        wanted = max(1, reach(largest, self.learn, self.stride)) if self.guard is None else self.guard
        n, m = self.rest.shape
        return segments(n, m, self.share, wanted, self.settings.seed)


def warn_of_guard(cells: Segments) -> None:
    """Say so, where it is narrower than it should be."""
    if cells.guard < cells.wanted:
        warn_user(
            f"a guard of {cells.wanted} pixels has no room beside hidden segments of {cells.width}: "
            f"{cells.guard} on either side are neither fitted nor judged"
        )


def checked_ranks(ranks: Any) -> list[int]:
    """Distinct ranks, ascending."""
    try:
        given = [ranks] if isinstance(ranks, int | np.integer) else list(ranks)
    except TypeError:
        raise TypeError(f"ranks must be integers, such as range(1, 9), got {ranks!r}") from None
    for rank in given:
        if isinstance(rank, bool) or not isinstance(rank, int | np.integer):
            raise TypeError(f"ranks must be integers, got {rank!r}")
    if not given or min(given) < 1:
        raise ValueError(f"ranks must be at least one positive integer, got {given}")
    return sorted({int(rank) for rank in given})


def _check_shares(train: Any, hidden: Any, guard: Any) -> None:
    for name, value, most in (("train", train, 1.0), ("hidden", hidden, 0.5)):
        if (
            isinstance(value, bool)
            or not isinstance(value, Real)
            or not 0 < float(value) <= most
            or value == 1
        ):
            upto = "below 1" if most == 1.0 else f"up to {most:g}"
            raise ValueError(f"{name} must be a share above 0 and {upto}, got {value!r}")
    if guard is not None and (
        isinstance(guard, bool) or not isinstance(guard, int | np.integer) or guard < 0
    ):
        raise ValueError(f"guard must be a number of pixels, 0 or more, got {guard!r}")
