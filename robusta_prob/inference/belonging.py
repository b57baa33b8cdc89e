"""Does a result belong to these data, and to this fit?"""

from __future__ import annotations

from typing import Any

import numpy as np

from robusta_prob.data import Dataset
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.digits import precision
from robusta_prob.inference.results import Fit, Projection, fingerprints_of, mark_of

SAMPLE = 64  # objects whose fluxes are looked at


def check_same_objects(
    given: Any,
    data: Dataset,
    name: str = "projection",
    maker: str = "project",
    fit: Fit | None = None,
    hidden: bool = False,
) -> None:
    """Refuse what belongs to other objects, to these in another order, to other fluxes, or to another fit.

    Where cells may be `hidden` from it that are not from the data, fluxes are not compared.
    """
    wanted = f"pass what rp.{maker}(fit, data) returns"
    if fit is not None:
        check_rank(given, fit.rank, name, wanted)
    if not hasattr(given, "ids"):
        raise TypeError(f"{name} is a {type(given).__name__}; {wanted}")
    if not np.array_equal(given.ids, data.ids):
        raise ValueError(f"{name} and data must be of the same objects in the same order; {wanted}")
    origin = getattr(given, "origin", None)
    if origin is None:
        return
    if fit is not None and origin.fit != mark_of(fit):
        raise ValueError(f"{name} is of another fit; {wanted}")
    if hidden:
        return
    some = np.unique(np.linspace(0, len(given.ids) - 1, SAMPLE).astype(int))
    dtype = np.dtype(origin.dtype)
    with precision(dtype):
        (block,) = Blocks.of(data.take(some), origin.unit, len(some), dtype)
    if not np.array_equal(fingerprints_of(block.flux, block.rows), origin.fingerprints[some]):
        raise ValueError(
            f"{name} is of objects of the same ids but of other fluxes, or of the same with other cells "
            f"hidden; {wanted}, with the same data"
        )


def check_rank(given: Any, rank: int, name: str, wanted: str) -> None:
    """Refuse what has no coefficients, or those of another number of components."""
    if not isinstance(given, Projection):
        raise TypeError(f"{name} is a {type(given).__name__}; {wanted}")
    if (got := given.coefficients.shape[1:]) != (rank,):
        raise ValueError(f"{name} is of a fit of rank {got[0] if got else 'none'}, not {rank}; {wanted}")


def check_same_pixels(fit: Fit, data: Dataset) -> None:
    """Refuse data on other pixels than the fit's."""
    if not isinstance(fit, Fit):
        raise TypeError(f"fit must be what rp.fit returns, got {type(fit).__name__}")
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data must be a Dataset, got {type(data).__name__}; make one with rp.dataset(flux, ivar)"
        )
    m = fit.basis.shape[1]
    if data.shape[1] != m:
        raise ValueError(
            f"data has {data.shape[1]} pixels, the fit has {m}; resample the data to the grid of the fit"
        )
    if not np.allclose(data.grid, fit.grid, rtol=1e-6, atol=0):
        worst = int(np.argmax(np.abs(data.grid - fit.grid)))
        raise ValueError(
            f"the grids differ, at pixel {worst}: {data.grid[worst]:g}, and {fit.grid[worst]:g} in the fit; "
            "resample the data to the grid of the fit"
        )
