"""A ruler for bases: the largest angle between two row spaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from robusta_prob.simulate.survey import Basis


def largest_angle(basis: ArrayLike, truth: ArrayLike) -> float:
    """Sine of the largest principal angle between two row spaces: how far a basis is from the truth.

    It lives beside the simulators because only they know a truth to compare with. The rows, (K1, M) and
    (K2, M), need not be orthonormal: rotating or rescaling them changes nothing. If K1 != K2, the sine
    says how well the smaller space is contained in the larger: 0 where it is, 1 where a direction of it is
    orthogonal to all of the larger. Computed in float64 from what the projection leaves over, hence right
    to 1e-15 for tiny angles, where sqrt(1 - cos^2) is wrong by 1e-8.

    Raises
    ------
    ValueError
        On unequal M, or rows that are not finite or linearly dependent.

    References
    ----------
    Bjorck & Golub (1973), "Numerical methods for computing angles between linear subspaces".

    Examples
    --------
    >>> largest_angle([[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    0.0
    """
    small, large = sorted((_span("basis", basis), _span("truth", truth)), key=len)
    if small.shape[1] != large.shape[1]:
        raise ValueError(f"both bases must have the same pixels, got {small.shape[1]} and {large.shape[1]}")
    return min(float(np.linalg.norm(small - (small @ large.T) @ large, 2)), 1.0)


def _span(name: str, rows: ArrayLike) -> Basis:
    """Orthonormal rows with the same span."""
    matrix = np.asarray(rows, np.float64)
    if matrix.ndim != 2 or not 0 < len(matrix) <= matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be a finite matrix (rank, pixels), rank <= pixels; got {matrix.shape}")
    size = np.linalg.norm(matrix, axis=1, keepdims=True)
    q, r = np.linalg.qr((matrix / np.where(size > 0, size, 1)).T)
    if np.abs(np.diag(r)).min() < 1e-12:
        raise ValueError(f"the {len(matrix)} rows of {name} are linearly dependent; leave some out")
    return q.T
