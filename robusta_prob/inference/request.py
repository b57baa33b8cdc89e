"""What a user wants of a fit, resolved: where it begins, how it goes on, when it ends, who is told."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Array, Float

from robusta_prob.inference.anneal import Schedule
from robusta_prob.inference.guides import Program
from robusta_prob.inference.iterate import Callback
from robusta_prob.inference.results import Fit


class Plan(NamedTuple):
    """What belongs to the variational engine alone."""

    model: Program
    guide: Program | str
    optimizer: Any


class Request(NamedTuple):
    """The settings of `fit` that are not of the model."""

    schedule: Schedule
    starts: int
    init: Fit | Float[Array, "rank pixels"] | None
    seed: int
    max_epochs: int
    tol: float
    batch_rows: int | None
    callback: Callback | None
    plan: Plan | None  # None: the closed-form engine
