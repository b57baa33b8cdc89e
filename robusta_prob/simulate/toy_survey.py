"""The toy survey of the paper: clean spectra, corruptions, noise and holes, put together."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from robusta_prob.data import dataset
from robusta_prob.simulate.model_draws import draw_noise, lognormal
from robusta_prob.simulate.survey import (
    Basis,
    Cells,
    Coefficients,
    Masks,
    Matrix,
    Objects,
    Survey,
    Truth,
    checked_count,
    checked_integer,
    stream,
    with_holes,
)

N_OBJECTS, N_PIXELS = 8000, 1200  # of the survey in the paper, from which toys of other sizes are scaled
LINES = (410.17, 434.05, 486.13, 516.73, 517.27, 518.36, 589.00, 589.60)  # [nm]
LINE_WIDTH, LINE_DEPTH = 0.14, 0.45  # [nm] sigma, before smoothing
FOREIGN_WIDTH, FOREIGN_REACH = 2.0, 8  # [pixels] sigma of a foreign line, and where its profile ends


def toy(
    n_objects: int = N_OBJECTS,
    n_pixels: int = N_PIXELS,
    *,
    seed: int = 0,
    n_outliers: int | None = None,
    n_lines: int | None = None,
    n_columns: int = 3,
    n_outlier_pixels: int | None = None,
    n_holes: int | None = None,
    dtype: str = "float32",
) -> Survey:
    """Simulate the toy survey of the paper: rank 5, extreme heteroskedasticity, and five corruptions.

    A draw `a_i G + sigma_ij Normal(0, 1)` from our model, corrupted before the noise is added. At other
    sizes the counts keep their shares (at least one each) and the holes of 50-200 pixels scale by
    `n_pixels / 1200`. Below 1200 pixels the lines of the basis widen by `1200 / n_pixels` at constant
    depth (close ones blend), or they would fall between the pixels. All else is as published.

    Parameters
    ----------
    n_objects, n_pixels : int
        At least 1 and 60.
    seed : int
        Non-negative. Another count of outliers, say, leaves coefficients and noise as they were.
    n_outliers : int, optional
        Spectra replaced by a sine of amplitude 0.1-0.3; by default 40 of 8000.
    n_lines : int, optional
        Normal spectra that get three foreign absorption lines; by default 10 of 8000.
    n_columns : int
        Bad columns; in each, 30 % of the spectra are off by 0.25-0.45.
    n_outlier_pixels : int, optional
        Cells off by 0.25-0.75; by default 0.4 % of all.
    n_holes : int, optional
        Spectra with one missing segment, by default half of all. It avoids outlier pixels and foreign
        lines, and is cut to the longest stretch between them where it does not fit.
    dtype : {"float32", "float64"}
        Of the data and of `Truth.sigma`.

    Returns
    -------
    Survey
        Its data have the grid in nm, and a column `meta["kind"]`: "normal", "outlier" or "lines".

    Raises
    ------
    ValueError
        If a size or a count is out of range.

    References
    ----------
    Hilder, Hogg, Casey & Rix, "Robust Heteroskedastic Matrix Factorization", section 3.1 and appendix B.

    Examples
    --------
    >>> from robusta_prob import simulate
    >>> survey = simulate.toy(80, 240, n_outliers=2)
    >>> survey.data.shape, survey.truth.basis.shape, int(survey.truth.masks.outlier_spectra.sum())
    ((80, 240), (5, 240), 2)
    """
    n, m = checked_integer("n_objects", n_objects, 1), checked_integer("n_pixels", n_pixels, 60)
    outliers = checked_count("n_outliers", n_outliers, 40 / N_OBJECTS * n, n)
    foreign = checked_count("n_lines", n_lines, 10 / N_OBJECTS * n, n - outliers)
    bad = checked_count("n_outlier_pixels", n_outlier_pixels, 0.004 * n * m, n * m)
    columns = checked_count("n_columns", n_columns, 3, m)
    holes = checked_count("n_holes", n_holes, 0.5 * n, n)

    wavelength = np.geomspace(400, 600, m)
    basis, coefficients = clean_spectra(stream(seed, "coefficients"), wavelength, n)
    sigma = known_noise(stream(seed, "sigma"), wavelength, n, dtype)

    flux = coefficients @ basis
    is_outlier = replace_spectra(stream(seed, "spectra"), flux, outliers)
    in_column = hit_columns(stream(seed, "columns"), flux, columns)
    is_bad = hit_pixels(stream(seed, "pixels"), flux, bad)
    in_line = add_lines(stream(seed, "lines"), flux, foreign, ~is_outlier)
    flux += draw_noise(stream(seed, "noise"), sigma, dtype)
    missing = cut_holes(stream(seed, "holes"), is_bad | in_line, holes)

    masks = Masks(is_outlier, in_column, is_bad, in_line, missing)
    data = dataset(
        *with_holes(flux, sigma, missing),
        grid=wavelength,
        meta={"kind": np.select([is_outlier, masks.foreign_spectra], ["outlier", "lines"], "normal")},
        dtype=dtype,
        grid_name="wavelength [nm]",
        flux_name="normalised flux",
    )
    return Survey(data, Truth(basis, coefficients, sigma, masks))


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


# The next four corrupt: each writes into the caller's `flux`, and returns what it changed.


def replace_spectra(rng: np.random.Generator, flux: Matrix, count: int) -> Objects:
    """Whole spectra become 1 + A sin(2 pi f j / (M - 1)), with A ~ U(0.1, 0.3) and f ~ U(10, 30)."""
    changed = np.zeros(len(flux), bool)
    rows = rng.permutation(len(flux))[:count]
    amplitude, frequency = rng.uniform([0.1, 10], [0.3, 30], (count, 2)).T[:, :, None]
    flux[rows] = 1 + amplitude * np.sin(2 * np.pi * frequency * np.linspace(0, 1, flux.shape[1]))
    changed[rows] = True
    return changed


def hit_columns(rng: np.random.Generator, flux: Matrix, count: int) -> Cells:
    """In each bad column 30 % of the spectra are off by +-U(0.25, 0.45)."""
    changed = np.zeros(flux.shape, bool)
    for column in rng.permutation(flux.shape[1])[:count]:
        rows = rng.permutation(len(flux))[: max(1, round(0.3 * len(flux)))]
        flux[rows, column] += rng.choice([-1, 1], len(rows)) * rng.uniform(0.25, 0.45, len(rows))
        changed[rows, column] = True
    return changed


def hit_pixels(rng: np.random.Generator, flux: Matrix, count: int) -> Cells:
    """Single cells anywhere are off by +-U(0.25, 0.75)."""
    changed = np.zeros(flux.shape, bool)
    cells = rng.choice(flux.size, count, replace=False)
    flux.reshape(-1)[cells] += rng.choice([-1, 1], count) * rng.uniform(0.25, 0.75, count)
    changed.reshape(-1)[cells] = True
    return changed


def add_lines(rng: np.random.Generator, flux: Matrix, count: int, eligible: Objects) -> Cells:
    """Three more Gaussian absorption lines each, of depth U(0.3, 0.6), in `count` eligible spectra."""
    changed = np.zeros(flux.shape, bool)
    pixel = np.arange(flux.shape[1])
    rows = rng.permutation(len(flux))
    for row in rows[eligible[rows]][:count]:
        for centre, depth in rng.uniform([FOREIGN_REACH, 0.3], [pixel[-1] - FOREIGN_REACH, 0.6], (3, 2)):
            # Cut at 4 sigma: what is called unchanged is exactly so, at errors of 1e-5 too.
            near = np.abs(pixel - centre) <= FOREIGN_REACH
            flux[row, near] -= depth * np.exp(-(((pixel[near] - centre) / FOREIGN_WIDTH) ** 2) / 2)
            changed[row] |= near
    return changed


def cut_holes(rng: np.random.Generator, keep: Cells, count: int) -> Cells:
    """One contiguous missing segment in each of `count` spectra, sparing the cells in `keep`."""
    n, m = keep.shape
    missing = np.zeros((n, m), bool)
    rows = rng.permutation(n)[:count]
    lengths = np.rint(rng.integers(50, 200, count, endpoint=True) * m / N_PIXELS).astype(int)
    for row, length, u in zip(rows, lengths, rng.random(count), strict=True):
        walls = np.concatenate([[-1], np.flatnonzero(keep[row]), [m]])
        room = np.diff(walls) - 1
        fits = min(length, room.max())
        places = np.cumsum(np.maximum(room - fits + 1, 0))  # admissible ones, up to and with each gap
        place = int(u * places[-1])
        gap = np.searchsorted(places, place, side="right")
        end = walls[gap + 1] - (places[gap] - 1 - place)
        missing[row, end - fits : end] = True
    return missing
