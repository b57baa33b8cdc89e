# %% [markdown]
# # A survey as the Gaia archive would hand it over, with a known truth
#
# Writes the two files that the search reads, in the archive's layout, and a third that the archive lacks:
# which spectra were tampered with, how, and how strongly. Spectra are drawn in blocks with a random stream
# each: a larger survey begins with the spectra of a smaller one, and memory holds a few blocks and the
# catalogue.

# %%
from __future__ import annotations

import operator
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from tqdm import tqdm

from examples.gaia_rvs import anomalies as anomaly
from examples.gaia_rvs.lines import PIXELS
from examples.gaia_rvs.population import (
    BLOCK,
    COLOURS,
    WITHOUT_SPECTRUM,
    Population,
    density,
    describe,
    draw_stars,
)
from examples.gaia_rvs.spectra import KM_S, clean
from robusta_prob.io import atomic_path

SPECTRA, CATALOGUE, TRUTH = "dr3-rvs-all.hdf5", "dr3-source-meta.csv", "truth.csv"
MOST = 2**25 // (BLOCK + WITHOUT_SPECTRUM) * BLOCK  # running numbers in a source_id
# Append only, or every number changes.
INGREDIENTS = ("population", "catalogue", "noise", "holes", "choice", "anomalies", "order")


def simulate(
    folder: Path | str,
    objects: int,
    *,
    seed: int = 0,
    anomalies: float = 0.02,
    colours: tuple[float, float] | None = None,
    flatness: float = 0.3,
    callback: Callable[[int], Any] | None = None,
) -> None:
    """Write `dr3-rvs-all.hdf5`, `dr3-source-meta.csv` and `truth.csv`.

    Parameters
    ----------
    folder : path
        Made where it does not exist; files of these names in it are replaced.
    objects : int
        Spectra. 1000 take 20 MB.
    seed : int
        Non-negative.
    anomalies : float
        Expected share of all spectra that get a labelled anomaly. Another share leaves the noise, and the
        other stars, as they were.
    colours : (float, float), optional
        Only stars with a BP-RP between these [mag], before its error.
    flatness : float
        Share of stars, from 0 to 1, that are spread evenly over BP-RP; the others crowd as in the archive,
        where some bins have 500 times as many stars as others.
    callback : function, optional
        Told the number of spectra written so far, after every block; without one there is a progress bar.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of range.

    Examples
    --------
    >>> simulate("survey", 20_000, seed=1)  # doctest: +SKIP
    """
    count, seed = _integer("objects", objects, 1, MOST), _integer("seed", seed, 0, 2**63)
    share, flatness = _share("anomalies", anomalies), _share("flatness", flatness)
    population = density(_range(colours), flatness)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    catalogue, truth = [], []
    with atomic_path(folder / SPECTRA) as path, h5py.File(path, "w") as file:
        ids = file.create_dataset("source_id", (count,), np.int64)
        flux, error = (file.create_dataset(x, (count, PIXELS), np.float32) for x in ("flux", "flux_error"))
        with tqdm(total=count, unit="spectra", disable=callback is not None) as bar:
            for number, block in enumerate(_blocks(population, seed, count, share)):
                start = number * BLOCK
                rows = min(BLOCK, count - start)
                ids[start : start + rows] = block.source_id[:rows]
                flux[start : start + rows] = block.flux[:rows]
                error[start : start + rows] = block.error[:rows]
                alone = BLOCK + np.arange(-(-rows * WITHOUT_SPECTRUM // BLOCK))
                catalogue.append(block.catalogue.iloc[np.r_[:rows, alone]])
                truth.extend(facts for row, facts in block.truth if row < rows)
                bar.update(rows)
                if callback is not None:
                    callback(start + rows)
    columns = ["source_id", "kind", "amplitude", "unit", "strength", *anomaly.COLUMNS]
    whole = {"first_pixel": "Int64", "n_pixels": "Int64"}
    _write_csv(folder / TRUTH, pd.DataFrame(truth, columns=columns).round(6).astype(whole))
    order = np.random.default_rng([seed, 0, INGREDIENTS.index("order")])
    table = pd.concat(catalogue, ignore_index=True)
    listed = order.permutation(np.flatnonzero(table.pop("listed").to_numpy()))
    _write_csv(folder / CATALOGUE, table, listed)


class Block(NamedTuple):
    """BLOCK stars with a spectrum, then those that the catalogue alone has."""

    source_id: np.ndarray
    flux: np.ndarray  # (BLOCK, 2401) float32, NaN where missing
    error: np.ndarray
    catalogue: pd.DataFrame
    truth: list[tuple[int, dict[str, Any]]]  # row, and what was done to it


def make_block(population: Population, seed: int, number: int, share: float) -> Block:
    """Everything about one block; every ingredient has a random stream of its own."""
    streams = {x: np.random.default_rng([seed, 1 + number, i]) for i, x in enumerate(INGREDIENTS)}
    stars = draw_stars(streams["population"], population, number)
    star = stars.atmosphere.take(np.arange(BLOCK))
    flux = clean(star)
    catalogue, quality = describe(streams["catalogue"], stars)
    error = errors(flux, quality[:BLOCK])
    missing = holes(streams["holes"], BLOCK)
    noise = streams["noise"].standard_normal(flux.shape, dtype=np.float32)
    names, truth = list(anomaly.KINDS), []
    picked = anomaly.choose(streams["choice"], star.temperature, share)
    changes = {}
    for row in np.flatnonzero(picked >= 0):
        one = anomaly.Star(star.take([row]), flux[row], error[row], noise[row], ~missing[row])
        changes[row], facts = anomaly.inject(streams["anomalies"], names[picked[row]], one)
        truth.append((int(row), {"source_id": stars.source_id[row], **facts}))
    noise *= error
    flux += noise
    for row, change in changes.items():
        flux[row] += change.astype(np.float32)
    flux[missing] = error[missing] = np.nan
    return Block(stars.source_id[:BLOCK], flux, error, catalogue, truth)


def errors(flux: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Standard deviation of every pixel, float32: of its photons, fewer at the filter's edges, and of the
    background; `quality` is the signal-to-noise of the continuum, (stars,).
    """
    x = np.linspace(-1.0, 1.0, PIXELS, dtype=np.float32)
    passed = 1.0 - 0.6 * x**8 * (1.0 + 0.2 * x)
    sigma = np.maximum(flux, np.float32(0.02)) / passed
    sigma += np.float32(0.1)  # of the background
    np.sqrt(sigma, out=sigma)
    sigma /= quality.astype(np.float32)[:, None]
    return sigma


def holes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Missing pixels, (n, 2401) bool: edges, which the radial velocity moves, segments, and single ones."""
    missing = np.zeros((n, PIXELS), bool)
    shift = rng.normal(0.0, 35.0, n) / KM_S
    left = np.clip(14.0 + shift + rng.integers(-3, 4, n), 2, 40).astype(int)
    right = np.clip(14.0 - shift + rng.integers(-3, 4, n), 2, 40).astype(int)
    pixel = np.arange(PIXELS)
    missing |= (pixel < left[:, None]) | (pixel >= PIXELS - right[:, None])
    for row in np.flatnonzero(rng.random(n) < 0.07):
        for _ in range(rng.integers(1, 4)):
            first, length = rng.integers(0, PIXELS), rng.integers(5, 151)
            missing[row, first : first + length] = True
    for row in np.flatnonzero(rng.random(n) < 0.05):
        missing[row, rng.integers(0, PIXELS, rng.integers(1, 4))] = True
    return missing


def _blocks(population: Population, seed: int, count: int, share: float) -> Iterator[Block]:
    """All blocks in order; as many at a time as there are cores, up to four."""
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        for number in range(-(-count // BLOCK)):
            waiting.append(pool.submit(make_block, population, seed, number, share))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_csv(path: Path, table: pd.DataFrame, rows: np.ndarray | None = None) -> None:
    """These rows of a table, in this order; a copy of a part of it at a time."""
    rows = np.arange(len(table)) if rows is None else rows
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        table.iloc[:0].to_csv(file, index=False)
        for start in range(0, len(rows), 50_000):
            table.iloc[rows[start : start + 50_000]].to_csv(file, index=False, header=False)


def _integer(name: str, value: int, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if not least <= number <= most:
        raise ValueError(f"{name} must lie between {least} and {most}, got {number}")
    return number


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is a share and must lie between 0 and 1, got {value!r}; 2 % is 0.02")
    return float(value)


def _range(colours: tuple[float, float] | None) -> tuple[float, float]:
    limits = COLOURS if colours is None else tuple(map(float, colours))
    if len(limits) != 2 or not COLOURS[0] <= limits[0] < limits[1] <= COLOURS[1]:
        raise ValueError(
            f"colours must be the lower and the upper limit of BP-RP between {COLOURS[0]} and {COLOURS[1]} "
            f"mag, got {colours!r}; leave it out for all"
        )
    return limits
