"""What a simulator returns, and what all simulators share: streams, checks, holes, and a ruler for bases."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from robusta_prob.data import Dataset

Matrix = Float[np.ndarray, "objects pixels"]
Cells = Bool[np.ndarray, "objects pixels"]
Objects = Bool[np.ndarray, " objects"]
Basis = Float[np.ndarray, "rank pixels"]
Coefficients = Float[np.ndarray, "objects rank"]

# Every ingredient draws from its own stream, default_rng([seed, place in this tuple]): changing one
# leaves the others as they were. Append only, or every published number changes.
INGREDIENTS = ("basis", "coefficients", "sigma", "noise", "spectra", "columns", "pixels", "lines", "holes")


class Masks(NamedTuple):
    """What was done to which object or cell; masks may overlap."""

    outlier_spectra: Objects  # replaced by a sine
    outlier_columns: Cells  # hit cells of bad detector columns
    outlier_pixels: Cells  # isolated bad pixels
    foreign_lines: Cells  # extra absorption lines, out to 4 sigma
    missing: Cells  # zero inverse variance

    @property
    def foreign_spectra(self) -> Objects:
        """Objects with foreign lines."""
        return np.asarray(self.foreign_lines.any(axis=1))

    @property
    def corrupted(self) -> Cells:
        """Cells whose expected flux is not the clean one, missing or not."""
        cells = self.outlier_columns | self.outlier_pixels | self.foreign_lines
        return np.asarray(cells | self.outlier_spectra[:, None])


class Truth(NamedTuple):
    """What an inference should find. Basis and coefficients are float64 whatever the dtype of the data."""

    basis: Basis  # orthonormal rows, spanning the clean spectra
    coefficients: Coefficients  # of the clean spectra, before any corruption
    sigma: Matrix  # known noise [flux], also where data are missing
    masks: Masks

    @property
    def clean(self) -> Matrix:
        """Flux before corruption and noise, `coefficients @ basis`; computed anew at every access."""
        return np.asarray(self.coefficients @ self.basis)


class Survey(NamedTuple):
    """Simulated data, and what they were made of."""

    data: Dataset
    truth: Truth


def stream(seed: int, ingredient: str) -> np.random.Generator:
    """Generator of one ingredient."""
    return np.random.default_rng([seed, INGREDIENTS.index(ingredient)])


def checked_integer(name: str, value: int, least: int, most: float = math.inf) -> int:
    """`value` as an int, or an error that names it if it is none or out of range."""
    number = operator.index(value)
    if not least <= number <= most:
        raise ValueError(f"{name} must lie between {least} and {most} at this size, got {number}")
    return number


def checked_count(name: str, given: int | None, default: float, most: int) -> int:
    """`given`, or else the default, rounded to at least one where there is room for one."""
    return min(max(1, round(default)), most) if given is None else checked_integer(name, given, 0, most)


def with_holes(flux: Matrix, sigma: Matrix, missing: Cells) -> tuple[Matrix, Matrix]:
    """Flux with NaN, written into `flux`, and inverse variance with 0 where data are missing."""
    flux[missing] = np.nan
    ivar = 1 / (sigma * sigma)
    ivar[missing] = 0
    return flux, ivar


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
    >>> import robusta_prob as rp
    >>> rp.simulate.largest_angle([[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
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
