"""What a simulator returns: the data, and the truth they were made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from robusta_prob.data import Dataset

Matrix = Float[np.ndarray, "objects pixels"]
Cells = Bool[np.ndarray, "objects pixels"]
Objects = Bool[np.ndarray, " objects"]
Basis = Float[np.ndarray, "rank pixels"]
Coefficients = Float[np.ndarray, "objects rank"]


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
