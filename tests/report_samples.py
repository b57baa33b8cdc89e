"""A small survey with a few strange objects, fitted and scored: for the tests of the page."""

from typing import NamedTuple

import numpy as np

import robusta_prob as rp

N, M, RANK = 90, 80, 2
EVIL = "</script><b id='evil'>\"x\" & y,\n"  # as an id, a kind of metadata, and a title
STRANGE = (3, 40, 77)  # a foreign spectrum each
EMPTY = 11  # has no pixel
LINES = {"set": [402.0, 450.0], "named": [("Ca II", 410.0), ("Fe I", 410.5), ("P17", 470.0)]}


class Sample(NamedTuple):
    fit: rp.Fit
    data: rp.Dataset
    scores: rp.Surprise


def survey() -> rp.Dataset:
    rng = np.random.default_rng(5)
    grid = np.linspace(480.0, 400.0, M)  # falls: the page has it rising
    basis = np.stack([np.ones(M), np.sin(grid / 9.0)])
    flux = np.stack([1.0 + 0.2 * rng.standard_normal(N), 0.3 * rng.standard_normal(N)], 1) @ basis
    error = np.broadcast_to(0.02 * (1.0 + rng.random((N, 1))), (N, M))
    flux = flux + error * rng.standard_normal((N, M))
    flux[list(STRANGE)] += 0.5 * np.sign(np.sin(grid / 2.0))
    flux[5, 30] += 40.0
    ivar = error**-2.0
    ivar = np.where(rng.random((N, M)) < 0.05, 0.0, ivar)
    ivar[EMPTY] = 0.0
    ids = np.array([EVIL if i == STRANGE[0] else f"star {i}" for i in range(N)])
    meta = {
        "field": np.array(["north", "south", EVIL])[np.arange(N) % 3],
        "colour": np.where(np.arange(N) % 7 == 0, np.nan, rng.standard_normal(N)),
        "big": 2**60 + np.arange(N),
        "pair": np.zeros((N, 2)),
        "sn": np.arange(N),
    }
    return rp.dataset(
        flux, ivar, grid=grid, ids=ids, meta=meta, grid_name="wavelength [nm]", flux_name="flux [Jy]"
    )


def sample() -> Sample:
    data = survey()
    fit = rp.fit(data, RANK)
    return Sample(fit, data, rp.surprise(fit, data))
