"""The known noise, and the noise itself."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from robusta_prob.simulate.survey import Matrix


def known_noise(
    rng: np.random.Generator, wavelength: Float[np.ndarray, " pixels"], n: int, dtype: str
) -> Matrix:
    """sigma_ij = 0.2 alpha_i beta_j gamma_ij: quality of the object, of the pixel, and its fluctuation."""
    alpha = rng.lognormal(1, 2, (n, 1))
    beta = np.exp(-(((wavelength - wavelength.mean()) / 100) ** 2) / 2)
    sigma = lognormal(rng, 0.06, (n, len(wavelength)), dtype)
    sigma *= 0.2 * alpha / alpha.mean() / sigma.mean(dtype=np.float64)
    sigma *= beta
    return sigma


def draw_noise(
    rng: np.random.Generator, sigma: Matrix, dtype: str, nu: float = math.inf, scale: float = 1.0
) -> Matrix:
    """scale sigma t_nu."""
    normal = math.isinf(nu)
    draw: Matrix = _normal(rng, sigma.shape, dtype) if normal else rng.standard_t(nu, sigma.shape)
    draw *= sigma
    draw *= scale
    return draw


def lognormal(rng: np.random.Generator, spread: float, shape: tuple[int, ...], dtype: str) -> Matrix:
    """Of median 1."""
    draw = _normal(rng, shape, dtype)
    draw *= spread
    return np.asarray(np.exp(draw, out=draw))


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Matrix:
    """Standard normal, drawn in the precision of the data."""
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return rng.standard_normal(shape, np.float32 if dtype == "float32" else np.float64)
