"""What `fit` refuses, with advice: impossible settings, and data that cannot teach a basis."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from robusta_prob.data import Dataset
from robusta_prob.inference.anneal import FAR, Robustness, Schedule
from robusta_prob.inference.blocks import BATCH_ROWS
from robusta_prob.inference.guides import SHARED
from robusta_prob.inference.sweep import BLOCK
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

SPARE_CELLS = 20  # cells beyond the number of parameters that a noise law can be learned from
ENGINES = ("em", "svi")


def check_data(data: Any) -> None:
    """Refuse anything but a `Dataset`."""
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data must be a Dataset, got {type(data).__name__}; make one with rp.dataset(flux, ivar)"
        )


def check_types(noise: Any, prior: Any, schedule: Any, key: Any, **counts: Any) -> None:
    """Refuse settings of the wrong kind; `counts` are whole numbers or None."""
    for name, value, kind in (("noise", noise, Noise), ("prior", prior, Prior)):
        if value is not None and not isinstance(value, kind):
            hint = "rp.Noise(nu, scale, floor)" if kind is Noise else "rp.Prior() or rp.Prior.flat()"
            raise TypeError(f"{name} must be {hint}, got {value!r}")
    if schedule is not None and not callable(schedule):
        raise TypeError(
            f"schedule must be a function of the epoch, such as rp.anneal.tightening(), got {schedule!r}"
        )
    if isinstance(key, bool | float | str) or key is None or (isinstance(key, int) and key < 0):
        raise ValueError(f"key must be a JAX key or an integer of at least 0, got {key!r}")
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
            raise TypeError(f"{name} must be an integer, got {value!r}")


def seed_of(key: Array | int) -> int:
    """A host-side seed from a JAX key or an integer."""
    if isinstance(key, int | np.integer):
        return int(key)
    return int(np.asarray(jax.random.bits(key, dtype="uint32")))


def check_settings(
    prior: Prior, starts: int | None, most_starts: int, max_epochs: int, tol: float, batch_rows: int | None
) -> None:
    """Refuse impossible numbers."""
    if (
        prior.mean is not None
        or prior.basis_scale not in (None, math.inf)
        or not (prior.is_flat or prior.covariance is None)
    ):
        raise ValueError(
            "fit learns the population of the coefficients: prior must be Prior() (learned) "
            "or Prior.flat() (none). A given population is for the NumPyro programs in robusta_prob.models"
        )
    if starts is not None and not 1 <= starts <= most_starts:
        raise ValueError(f"starts must be between 1 and {most_starts}, got {starts}")
    if max_epochs < 1 or not 0 < tol < math.inf:
        raise ValueError(f"max_epochs must be at least 1 and tol positive, got {max_epochs} and {tol}")
    check_batch_rows(batch_rows)


def check_batch_rows(batch_rows: int | None) -> None:
    """Refuse what is no number of whole blocks."""
    if batch_rows is not None and (batch_rows < BLOCK or batch_rows % BLOCK):
        raise ValueError(f"batch_rows must be a positive multiple of {BLOCK}, got {batch_rows}")


def check_engine(engine: str, prior: Prior, model: Any, guide: Any, optimizer: Any) -> None:
    """Refuse unknown engines, and settings of the one for the other."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES}, got {engine!r}")
    if engine == "svi" and prior.is_flat:
        raise ValueError(
            "engine='svi' needs a proper population, prior=rp.Prior(): with a flat one the bound grows "
            "for ever as the basis shrinks; Prior.flat() belongs to engine='em'"
        )
    given = [
        name
        for name, value in (("model", model), ("guide", guide), ("optimizer", optimizer))
        if value is not None
    ]
    if engine == "em" and given:
        raise ValueError(
            f"{' and '.join(given)} belong{'s' * (len(given) == 1)} to engine='svi'; "
            "the closed-form engine fits models.rhmf"
        )
    if isinstance(guide, str) and guide not in SHARED:
        raise ValueError(f"guide must be one of {sorted(SHARED)}, or a NumPyro guide, got {guide!r}")
    for name, value in (("model", model), ("guide", guide)):
        if value is not None and not callable(value) and not (name == "guide" and isinstance(value, str)):
            raise TypeError(f"{name} must be a NumPyro program, got {value!r}")
    if optimizer is not None and not hasattr(optimizer, "update"):
        raise TypeError(
            f"optimizer must be one of optax's or NumPyro's, such as optax.adam(0.01), got {optimizer!r}"
        )


def check_learnable(data: Dataset, rank: Any, noise: Noise) -> None:
    """Refuse ranks and data whose residuals cannot tell a basis or how large the noise is."""
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer):
        raise TypeError(f"rank must be an integer, got {rank!r}")
    (n, m), census = data.shape, data.census
    objects, pixels = n - census.empty_objects, m - census.empty_pixels
    if census.observed == 0:
        raise ValueError("no cell of the data is observed: every ivar is 0, or every flux is NaN")
    if objects < 2:
        raise ValueError(
            f"a basis cannot be learned from {objects} object with data; fit several objects, "
            "or rp.project one object on an existing fit"
        )
    if not 1 <= rank <= min(objects - 1, pixels):
        raise ValueError(
            f"rank must be between 1 and {min(objects - 1, pixels)} for {objects} objects "
            f"and {pixels} pixels with data, got {rank}"
        )
    if not any(flux.any() for _, flux, _ in data.blocks(BATCH_ROWS)):
        raise ValueError("every observed flux is zero: there is nothing to learn")
    spare = census.observed - rank * (objects + pixels - rank) - (pixels if noise.floor == "pixel" else 0)
    if (noise.scale is None or noise.floor == "pixel") and spare < SPARE_CELLS:
        raise ValueError(
            f"rank {rank} leaves {max(spare, 0)} degrees of freedom in {census.observed} observed cells, "
            "too few to learn the noise: lower the rank, or trust the errors with "
            "noise=rp.Noise(scale=1.0, floor=0.0)"
        )


def checked(schedule: Schedule) -> Schedule:
    """The same schedule, whose every value is looked at when it is used; its first and its last one now."""

    def looked_at(epoch: int) -> Robustness:
        value = schedule(epoch)
        if not isinstance(value, Robustness) or not (
            0.0 <= value.object_scale <= 1.0 and 0.0 <= value.tail <= 2.0
        ):
            raise ValueError(
                "a schedule must map an epoch to rp.anneal.Robustness(object_scale, tail) with object_scale "
                f"in [0, 1] and tail in [0, 2]; at epoch {epoch} it gives {value!r}"
            )
        return value

    looked_at(0)
    looked_at(FAR)
    return looked_at
