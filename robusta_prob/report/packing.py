"""Arrays as text that a page can carry and decode, and that cannot end a script or an attribute."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Shaped

from robusta_prob.report.explorer import Explorer, Run

EXACT = 2.0**53  # integers beyond are not numbers in a browser
AT_ONCE = 256  # spectra


def packed(values: Shaped[np.ndarray, "..."], dtype: str) -> str:
    """Base64 of the little-endian bytes."""
    return base64.b64encode(
        np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()
    ).decode()


def as_json(content: Any) -> str:
    """JSON that may stand in a script element, whatever is in its strings."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed_page(explorer: Explorer, **more: Any) -> dict[str, Any]:
    """All of the page but the cells."""
    return {
        **more,
        "columns": [_column(name, values, explorer.labels) for name, values in explorer.columns.items()],
        "run": packed(explorer.run, "i4"),
        "place": packed(explorer.place, "i4"),
        "runs": [_run(run) for run in explorer.runs],
        "lines": {name: [list(pair) for pair in pairs] for name, pairs in explorer.lines.items()},
        "maps": [
            {"name": name, "x": packed(points[:, 0], "f8"), "y": packed(points[:, 1], "f8")}
            for name, points in explorer.maps.items()
        ],
        "facet": explorer.facet,
        "axes": list(explorer.axes),
        "only": explorer.only and list(explorer.only),
        "total": explorer.total,
    }


def packed_cells(run: Run) -> Iterator[str]:
    """The cells of every spectrum: 4 M characters each, one after the other, nothing between them."""
    for start in range(0, len(run.coefficients), AT_ONCE):
        here = run.codes.take(slice(start, start + AT_ONCE))
        yield packed(np.concatenate([here.z, here.sd, here.weight], 1), "u1")


def _column(name: str, values: np.ndarray, labels: Any) -> dict[str, Any]:
    about = {"name": name, "label": labels.get(name, name)}
    kind = values.dtype.kind
    if kind == "b":
        return {**about, "kind": "flag", "data": packed(values, "u1")}
    if kind == "f" or (kind in "iu" and (np.abs(values.astype(float)) < EXACT).all()):
        return {**about, "kind": "number", "whole": kind in "iu", "data": packed(values, "f8")}
    levels, codes = np.unique(values.astype(str), return_inverse=True)
    return {**about, "kind": "text", "levels": levels.tolist(), "data": packed(codes, "u4")}


def _run(run: Run) -> dict[str, Any]:
    codes = run.codes
    return {
        "name": run.name,
        "grid": packed(run.grid, "f8"),
        "gridName": run.grid_name,
        "fluxName": run.flux_name,
        "rank": len(run.basis),
        "basis": packed(run.basis, "f4"),
        "reach": list(run.reach),
        "coefficients": packed(run.coefficients, "f8"),
        "zEnd": packed(codes.z_end, "f8"),
        "sdLow": packed(codes.sd_low, "f8"),
        "sdHigh": packed(codes.sd_high, "f8"),
        "weightEnd": packed(codes.weight_end, "f8"),
        "windows": [[[_finite(x) for x in window] for window in own] for own in run.windows],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
