"""The clean spectra of the toy survey: five templates, and the laws of their coefficients."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from robusta_prob.simulate.published import N_PIXELS
from robusta_prob.simulate.survey import Basis, Coefficients

LINES = (410.17, 434.05, 486.13, 516.73, 517.27, 518.36, 589.00, 589.60)  # [nm]
LINE_WIDTH, LINE_DEPTH = 0.14, 0.45  # [nm] sigma, before smoothing


def clean_spectra(
    rng: np.random.Generator, wavelength: Float[np.ndarray, " pixels"], n: int
) -> tuple[Basis, Coefficients]:
    """The templates times their coefficients, x T, as (x R^T) Q^T with orthonormal rows Q^T, T^T = Q R."""
    x = np.empty((n, 5))
    x[:, 0], x[:, 1], x[:, 2] = rng.normal(1, 0.1, n), rng.exponential(0.2, n), rng.normal(0, 0.1, n)
    x[:, 3], x[:, 4] = rng.lognormal(0, 0.1, n), rng.normal(0.1, 0.1, n)
    q, r = np.linalg.qr(_templates(wavelength).T)
    sign = np.sign(np.diag(r))
    return (q * sign).T, x @ (r.T * sign)


def _templates(wavelength: Float[np.ndarray, " pixels"]) -> Basis:
    """Constant, slope, curvature, absorption lines and sine; not orthogonal."""
    z = np.linspace(-1, 1, len(wavelength))  # log-wavelength, as the grid is geometric
    # A Gaussian smoothed by a Gaussian (R = 5000 / 2.355 = 2123), in closed form: the kernel is narrower
    # than a pixel.
    smoothed = math.hypot(LINE_WIDTH, wavelength.mean() / 5000)
    width = smoothed * max(1.0, N_PIXELS / len(wavelength))
    profiles = np.exp(-(((wavelength - np.array(LINES)[:, None]) / width) ** 2) / 2)
    lines = -LINE_DEPTH * LINE_WIDTH / smoothed * profiles.sum(axis=0)
    return np.stack([np.ones_like(z), z, (3 * z**2 - 1) / 2, lines, np.sin(2 * np.pi * (z + 1))])
