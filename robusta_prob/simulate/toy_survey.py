"""The toy survey of the paper: clean spectra, corruptions, noise and holes, put together."""

from __future__ import annotations

import numpy as np

from robusta_prob.data import dataset
from robusta_prob.simulate.checks import count, integer
from robusta_prob.simulate.corruptions import add_lines, hit_columns, hit_pixels, replace_spectra
from robusta_prob.simulate.holes import cut_holes, with_holes
from robusta_prob.simulate.noise import draw_noise, known_noise
from robusta_prob.simulate.published import N_OBJECTS, N_PIXELS
from robusta_prob.simulate.spectra import clean_spectra
from robusta_prob.simulate.streams import stream
from robusta_prob.simulate.survey import Masks, Survey, Truth


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
    n, m = integer("n_objects", n_objects, 1), integer("n_pixels", n_pixels, 60)
    outliers = count("n_outliers", n_outliers, 40 / N_OBJECTS * n, n)
    foreign = count("n_lines", n_lines, 10 / N_OBJECTS * n, n - outliers)
    bad = count("n_outlier_pixels", n_outlier_pixels, 0.004 * n * m, n * m)
    columns, holes = count("n_columns", n_columns, 3, m), count("n_holes", n_holes, 0.5 * n, n)

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
