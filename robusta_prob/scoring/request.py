"""What `surprise` is asked for: settings, whom to judge by what, and where the cells go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Bool

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_objects
from robusta_prob.inference.checks import check_types
from robusta_prob.inference.progress import Rows
from robusta_prob.inference.projection import project
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.inference.results import in_training as known_to
from robusta_prob.scoring.calibration import Null
from robusta_prob.scoring.empirical import EmpiricalNull
from robusta_prob.scoring.evidence import NULL_OBJECTS
from robusta_prob.scoring.predictive import Cells, Judged
from robusta_prob.scoring.replicates import LEAST
from robusta_prob.scoring.results import BY_ERROR, PixelSurprise
from robusta_prob.scoring.search import Search


def check_settings(
    data: Dataset,
    key: Any,
    replicates: Any,
    null: Any,
    empirical_null: Any,
    pixel: Any,
    flag_lines: Any,
    robustness: Any,
) -> None:
    """Refuse settings that are impossible, before anything is computed."""
    check_types(None, None, None, key, **({} if replicates is None else {"replicates": replicates}))
    if replicates is not None and not (replicates == 0 or replicates >= LEAST):
        raise ValueError(f"replicates must be 0, or at least {LEAST} of each object, got {replicates}")
    if robustness is not None and (
        isinstance(robustness, bool) or not isinstance(robustness, Real) or not 0 < float(robustness) < np.inf
    ):
        raise ValueError(f"robustness must be a positive number, got {robustness!r}")
    for name, value in (("pixel", pixel), ("flag_lines", flag_lines)):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}")
    if isinstance(empirical_null, EmpiricalNull):
        bulks = [(empirical_null.centre, empirical_null.width)]
        bulks += [pair for groups in empirical_null.by_error.values() for pair in groups]
        if not all(np.isfinite(centre) and 0 < width < np.inf for centre, width in bulks):
            raise ValueError(f"bulks of other objects must have a centre and a width, got {empirical_null}")
    elif empirical_null != BY_ERROR and not isinstance(empirical_null, bool | np.bool_):
        raise TypeError(
            f"empirical_null must be True, False, {BY_ERROR!r} or the .empirical of another call, "
            f"got {empirical_null!r}"
        )
    elif empirical_null and data.shape[0] < NULL_OBJECTS:
        raise ValueError(f"an empirical null needs at least {NULL_OBJECTS} objects, got {data.shape[0]}")
    if null is not None:
        if not isinstance(null, Null):
            raise TypeError(
                f"null must be the .null of another call of rp.surprise, got {type(null).__name__}"
            )
        null.validated()


def check_search(search: Any, null: Null, widths: tuple[int, ...]) -> None:
    """Refuse a calibration of runs under another law, or of other runs."""
    if not isinstance(search, Search):
        raise TypeError(
            f"search must be the .search of another call of rp.surprise, got {type(search).__name__}"
        )
    if search.null != null or search.widths != widths:
        raise ValueError(
            "search was calibrated under another null law, or for other windows: give both of one call"
        )


def checked_held_out(data: Dataset, given: Any, *, asked: bool) -> Bool[np.ndarray, "objects pixels"] | None:
    """The mask, if it is one, and if anybody asks for these cells."""
    if given is None:
        return None
    held_out = np.asarray(given)
    if held_out.dtype != bool:
        raise TypeError(f"held_out must be boolean, True for cells that were hidden; got {held_out.dtype}")
    if held_out.shape != data.shape:
        raise ValueError(f"held_out must have the shape of the data {data.shape}, got {held_out.shape}")
    if not asked:
        raise ValueError("cells that were held out are judged one by one: ask for them, pixel=True or out=")
    return held_out


def judged_of(
    fit: Fit,
    data: Dataset,
    projection: Projection | None,
    in_training: Any,
    held_out: Bool[np.ndarray, "objects pixels"] | None,
    callback: Callable[[Rows], None] | None,
) -> Judged:
    """The objects with what was fitted to them."""
    fitted = data if held_out is None else data.hide(held_out)
    trained = known_to(fit, fitted) if in_training is None else np.asarray(in_training)
    if trained.dtype != bool:
        raise TypeError(f"in_training must be boolean, one or one per object; got dtype {trained.dtype}")
    if trained.shape not in ((), data.shape[:1]):
        raise ValueError(f"in_training must have shape ({data.shape[0]},), got {trained.shape}")
    if held_out is not None and in_training is None and known_to(fit, data)[held_out.any(1)].any():
        raise ValueError(
            "the fit was trained on cells that are said to be held out: fit data.hide(held_out), "
            "or say who was in_training"
        )
    if projection is None:
        projection = project(fit, fitted, callback=callback)
    check_same_objects(projection, fitted, fit=fit)
    return Judged(data, projection, np.broadcast_to(trained, data.shape[:1]), held_out)


def pixel_target(
    shape: tuple[int, int], dtype: np.dtype, wanted: bool, out: Mapping[str, Any] | None
) -> PixelSurprise:
    """Where the entries of cells are to be written; None for those that are not."""
    if out is not None and wanted:
        raise ValueError("pixel=True keeps cells in memory and out= writes them elsewhere: give one of them")
    if out is None:
        return PixelSurprise(*(np.empty(shape, dtype) if wanted else None for _ in PixelSurprise._fields))
    if not hasattr(out, "keys"):
        raise TypeError(f"out must map 'z', 'p' or 'weight' to arrays, got {type(out).__name__}")
    given = {name: out[name] for name in PixelSurprise._fields if name in out}
    if not given or len(given) < len(out):
        raise ValueError(f"out must have some of 'z', 'p' and 'weight' and nothing else, got {sorted(out)}")
    for name, target in given.items():
        if tuple(target.shape) != shape or np.dtype(target.dtype).kind != "f":
            raise ValueError(
                f"out[{name!r}] must hold floats in shape {shape}, "
                f"got {target.dtype} in {tuple(target.shape)}"
            )
    return PixelSurprise(*(given.get(name) for name in PixelSurprise._fields))


def write_cells(target: PixelSurprise, here: slice, block: Cells, null: Null) -> None:
    """What is wanted of a block of objects."""
    for into, values in (
        (target.z, lambda: block.z),
        (target.p, lambda: null.core.two_sided(block.z)),
        (target.weight, lambda: block.weight),
    ):
        if into is not None:
            into[here] = np.where(block.seen | block.held_out, values(), np.nan)
