"""One gauge for every fit: A G = (A R^-1)(R G), and R is chosen so that answers can be compared.

The rows of G are orthonormal, ordered by the second moment of their coefficients, and signed so that
the entry of largest size is positive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Gauge(NamedTuple):
    """Result of `fix_gauge`."""

    basis: Float[np.ndarray, "rank pixels"]  # orthonormal rows, R G
    to_coefficients: Float[np.ndarray, "rank rank"]  # a in the new gauge = to_coefficients @ a
    moments: Float[np.ndarray, " rank"]  # second moment of each new coefficient, descending


def fix_gauge(
    basis: Float[np.ndarray, "rank pixels"], second_moment: Float[np.ndarray, "rank rank"]
) -> Gauge:
    """Rotate and stretch (A, G) into the common gauge without touching A G.

    Parameters
    ----------
    basis : (K, M) array
        Rows of any length and angle; must be linearly independent for a meaningful order.
    second_moment : (K, K) array
        Mean of a a^T over the population, about zero (as in an uncentred singular value decomposition).

    Returns
    -------
    Gauge
        In float64. With A^T A / N as the second moment this is the singular value decomposition of A G.
    """
    G = np.asarray(basis, np.float64)
    moment = np.asarray(second_moment, np.float64)
    Q, T = np.linalg.qr(G.T)  # G = T^T Q^T, hence a in the orthonormal gauge is T a
    values, vectors = np.linalg.eigh(T @ (moment + moment.T) @ T.T / 2)
    vectors = vectors[:, ::-1]
    rotated = vectors.T @ Q.T
    peaks = rotated[np.arange(len(rotated)), np.abs(rotated).argmax(1)]
    signs = np.where(peaks < 0, -1.0, 1.0)
    return Gauge(signs[:, None] * rotated, signs[:, None] * (vectors.T @ T), np.maximum(values[::-1], 0.0))


def near_equal(moments: Float[np.ndarray, " rank"], relative: float) -> list[int]:
    """Components k whose second moment is within `relative` of that of k + 1: their order is arbitrary."""
    moments = np.asarray(moments)
    return [k for k in range(len(moments) - 1) if moments[k] - moments[k + 1] <= relative * moments[k]]
