"""Columns of the page: the score table, and what is easier to read or to draw than its entries."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Shaped

from robusta_prob.data import Dataset
from robusta_prob.scoring.results import Surprise
from robusta_prob.scoring.table import score_columns

LOGARITHMS = ("log10_p", "log10_p_run", "log10_least_p")  # shown with the other sign: larger is stranger
LEAST_SN = 0.01  # an object of no flux would stretch the axis over ten decades
FIRST = (
    "rank",
    "id",
    "flagged_as",
    "minus_log10_p",
    "minus_log10_least_p",
    "q_any",
    "z",
    "sn",
    "kind",
    "flagged",
)
LABELS = {
    "sn": "median S/N",
    "flagged_as": "flagged as",
    "log10_sn": "log₁₀ S/N",
    "minus_log10_p": "−log₁₀ p",
    "minus_log10_p_run": "−log₁₀ p of runs",
    "minus_log10_least_p": "−log₁₀ least p",
    "score": "score [nats]",
    "z": "surprise z [σ]",
    "q_value": "q",
    "q_run": "q of runs",
    "q_any": "q of any test",
    "mahalanobis": "Mahalanobis²",
    "scale": "robust scale of z",
    "structure": "structure [σ]",
    "n_observed": "pixels",
    "low_weight": "1 % weight",
    "median_weight": "median weight",
}


def columns_of(
    scores: Surprise,
    data: Dataset,
    sn: Float[np.ndarray, " objects"],
    more: Mapping[str, Float[np.ndarray, " objects"]] = MappingProxyType({}),
) -> dict[str, Shaped[np.ndarray, " objects"]]:
    """One-dimensional columns of the objects: scores, metadata, and what is derived from them.

    `more` are put beside them. A metadata column that bears the name of another one is called
    `meta_<name>`, as in the score table.
    """
    table = score_columns(scores, data)
    own = {name: values for name, values in table.items() if name not in _named(table, data)}
    derived = {
        "flagged": scores.flagged,
        "flagged_as": np.where(scores.flagged, own["kind"], ""),
        "sn": sn,
        "log10_sn": np.log10(np.where(sn > LEAST_SN, sn, np.nan)),
        **{f"minus_{name}": -own[name] for name in LOGARITHMS},
        **more,
    }
    shown = {name: values for name, values in (own | derived).items() if name not in LOGARITHMS}
    columns = {name: values for name, values in shown.items() if np.ndim(values) == 1}
    for name, values in table.items():
        if name not in own and np.ndim(values) == 1:
            while name in columns:
                name = f"meta_{name}"
            columns[name] = values
    return {name: columns[name] for name in dict.fromkeys([*FIRST, *columns])}


def _named(table: Mapping[str, np.ndarray], data: Dataset) -> set[str]:
    """Names of the metadata columns in the score table: the last ones."""
    return set(list(table)[len(table) - len(data.meta) :])
