"""Plain draws from the model, without corruption, and the noise that all simulators draw."""

from __future__ import annotations

import math

import numpy as np

from robusta_prob.data import dataset
from robusta_prob.simulate.survey import (
    Basis,
    Masks,
    Matrix,
    Survey,
    Truth,
    checked_integer,
    stream,
    with_holes,
)


def low_rank(
    n_objects: int,
    n_pixels: int,
    rank: int,
    *,
    seed: int = 0,
    sigma: float = 0.03,
    spread: float = 0.5,
    nu: float = math.inf,
    scale: float = 1.0,
    floor: float = 0.0,
    smooth: bool = True,
    missing: float = 0.0,
    dtype: str = "float32",
) -> Survey:
    """Draw from the model itself: `y = a G + scale sqrt(sigma_ij^2 + floor^2) t_nu`, without corruption.

    `a_ik ~ Normal(mean_k, width_k^2)` with `sum_k mean_k^2 = sum_k width_k^2 = n_pixels / 2`: the flux has
    a root mean square of 1. The mean is along the first row of the basis, and the variance `width_k^2`
    halves from each row to the next.

    Parameters
    ----------
    n_objects, n_pixels, rank : int
        N, M, K with 1 <= K <= M.
    seed : int
        Non-negative. Basis, coefficients, sigma, noise and holes have independent streams.
    sigma, spread : float
        Median of the log-normal known noise [flux], and standard deviation of its logarithm over the cells.
    nu, scale, floor : float
        The noise law: degrees of freedom (`inf` is Gaussian), factor on, and floor [flux] under, sigma.
    smooth : bool
        A random basis of low spatial frequencies (below 2 K + 2 cycles), or a rough one: white noise.
    missing : float
        Share of cells missing, independently at random, below 1.
    dtype : {"float32", "float64"}
        Of the data and of `Truth.sigma`.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from robusta_prob import simulate
    >>> survey = simulate.low_rank(50, 40, 3, nu=4.0)
    >>> survey.data.shape, survey.truth.coefficients.shape
    ((50, 40), (50, 3))
    """
    n, m = checked_integer("n_objects", n_objects, 1), checked_integer("n_pixels", n_pixels, 1)
    k = checked_integer("rank", rank, 1, m)
    for name, value, valid in (
        ("sigma", sigma, 0 < sigma < math.inf),
        ("spread", spread, 0 <= spread < math.inf),
        ("nu", nu, nu > 0),
        ("scale", scale, 0 < scale < math.inf),
        ("floor", floor, 0 <= floor < math.inf),
        ("missing", missing, 0 <= missing < 1),
    ):
        if not valid:
            raise ValueError(f"{name}={value} is out of range; see the docstring of low_rank")

    mean = np.sqrt(m / 2) * np.eye(k)[0]
    variance = 0.5 ** np.arange(k)
    width = np.sqrt(m / 2 * variance / variance.sum())
    basis = _random_basis(stream(seed, "basis"), k, m, smooth)
    coefficients = mean + width * stream(seed, "coefficients").standard_normal((n, k))
    known = lognormal(stream(seed, "sigma"), spread, (n, m), dtype)
    known *= sigma
    flux = coefficients @ basis
    flux += draw_noise(stream(seed, "noise"), np.hypot(known, floor) if floor else known, dtype, nu, scale)
    holes = stream(seed, "holes").random((n, m)) < missing

    none = np.zeros((n, m), bool)
    data = dataset(*with_holes(flux, known, holes), meta={"kind": np.full(n, "normal")}, dtype=dtype)
    return Survey(data, Truth(basis, coefficients, known, Masks(none[:, 0], none, none, none, holes)))


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


def _random_basis(rng: np.random.Generator, k: int, m: int, smooth: bool) -> Basis:
    """K random orthonormal rows; smooth ones of the lowest cosines (an orthonormal DCT-II)."""
    if not smooth:
        return np.linalg.qr(rng.standard_normal((m, k)))[0].T
    order = np.arange(min(m, 4 * k + 4))[:, None]
    cosines = np.cos(np.pi * order * (np.arange(m) + 0.5) / m) * np.sqrt(np.where(order > 0, 2, 1) / m)
    return np.asarray(np.linalg.qr(rng.standard_normal((len(order), k)))[0].T @ cosines)
