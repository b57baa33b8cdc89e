"""Spectra in three bytes a cell: z, predictive standard deviation and robust weight, quantised.

    z      = sinh(step (code - 128)),           step = asinh(max |z|) / 127
    sd     = exp(low + (code - 1) / 254 (high - low)),   low and high the ends of log sd
    weight = (code - 1) / 254 max weight

with the ends of every object its own, and code 0 where the cell is missing. The flux is not kept: it is the
model plus z sd. `page/cells.js` decodes the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

TOP = 255  # the largest code; 0 is a missing cell
MIDDLE, SIDE = 128, 127  # code of z = 0, and codes on either side of it
LEAST_Z = 3.0  # an end of z that is always there: objects without any outlying cell have the same precision
FARTHEST_Z = 1e9  # what is beyond counts as this
SMALLEST_SD = 1e-300


class Codes(NamedTuple):
    """Cells of S objects on M pixels."""

    z: UInt8[np.ndarray, "objects pixels"]
    sd: UInt8[np.ndarray, "objects pixels"]
    weight: UInt8[np.ndarray, "objects pixels"]
    z_end: Float[np.ndarray, " objects"]  # the largest |z|
    sd_low: Float[np.ndarray, " objects"]  # natural logarithms [log flux]
    sd_high: Float[np.ndarray, " objects"]
    weight_end: Float[np.ndarray, " objects"]

    def take(self, rows: np.ndarray | slice) -> Codes:
        """Those of some objects."""
        return Codes(*(values[rows] for values in self))


def quantised(
    z: Float[np.ndarray, "objects pixels"],
    sd: Float[np.ndarray, "objects pixels"],
    weight: Float[np.ndarray, "objects pixels"],
) -> Codes:
    """Three bytes for every cell.

    Parameters
    ----------
    z : (S, M) array
        Residual over its predictive standard deviation; NaN where missing.
    sd : (S, M) array
        Predictive standard deviation [flux], above 0.
    weight : (S, M) array
        Robust weight, 0 or more.

    Returns
    -------
    Codes
        With step = asinh(max |z|) / 127, max |z| being at least 3: z is off by at most step / 2 sqrt(1 + z^2)
        to first order in step (0.007 at z = 0 of an object whose largest |z| is 3, 0.03 where it is 1000),
        sd by a factor of at most exp((high - low) / 508), weight by at most max weight / 508.

    Examples
    --------
    >>> import numpy as np
    >>> z = np.array([[0.0, -3.0, np.nan]])
    >>> decoded(quantised(z, np.ones((1, 3)), np.ones((1, 3))))[0].round(2)
    array([[ 0., -3., nan]])
    """
    seen = np.isfinite(z) & np.isfinite(sd) & np.isfinite(weight)
    z = np.where(seen, np.clip(z, -FARTHEST_Z, FARTHEST_Z), 0.0)
    log_sd = np.log(np.where(seen, np.maximum(sd, SMALLEST_SD), 1.0))
    weight = np.where(seen, np.maximum(weight, 0.0), 0.0)
    some = seen.any(1)
    z_end = np.maximum(np.abs(z).max(1, initial=0.0), LEAST_Z)
    low, high = (
        np.where(some, ends, 0.0)
        for ends in (
            np.min(log_sd, 1, initial=math.inf, where=seen),
            np.max(log_sd, 1, initial=-math.inf, where=seen),
        )
    )
    weight_end = weight.max(1, initial=0.0)
    codes = (
        MIDDLE + SIDE * np.arcsinh(z) / np.arcsinh(z_end)[:, None],
        1.0 + (TOP - 1) * _share(log_sd - low[:, None], high - low),
        1.0 + (TOP - 1) * _share(weight, weight_end),
    )
    z_code, sd_code, weight_code = (np.where(seen, np.rint(code), 0.0).astype(np.uint8) for code in codes)
    return Codes(z_code, sd_code, weight_code, z_end, low, high, weight_end)


def decoded(codes: Codes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z, sd, weight) of every cell, each (S, M); NaN where missing."""
    z = np.sinh((codes.z.astype(float) - MIDDLE) / SIDE * np.arcsinh(codes.z_end)[:, None])
    share = (codes.sd.astype(float) - 1.0) / (TOP - 1)
    sd = np.exp(codes.sd_low[:, None] + share * (codes.sd_high - codes.sd_low)[:, None])
    weight = (codes.weight.astype(float) - 1.0) / (TOP - 1) * codes.weight_end[:, None]
    z, sd, weight = (np.where(codes.z > 0, values, np.nan) for values in (z, sd, weight))
    return z, sd, weight


def _share(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.clip(values / np.where(ends > 0, ends, 1.0)[:, None], 0.0, 1.0)
