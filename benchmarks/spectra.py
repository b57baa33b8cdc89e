"""Files of simulated spectra, written block by block."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from robusta_prob.simulate import low_rank

PIXELS, BLOCK = 2321, 2000


def write(path: Path, n: int, rank: int, *, seed: int = 0) -> None:
    """`n` spectra of one basis, whatever the seed; 3 % noise, other errors in every cell, 2 % missing."""
    rng = np.random.default_rng(seed)
    truth = low_rank(BLOCK, PIXELS, rank, seed=0).truth
    with h5py.File(path, "w") as file:
        flux, ivar = (file.create_dataset(name, (n, PIXELS), np.float32) for name in ("flux", "ivar"))
        for start in tqdm(range(0, n, BLOCK), desc="simulating"):
            rows = min(BLOCK, n - start)
            coefficients = truth.coefficients[rng.permutation(BLOCK)[:rows]]
            sigma = 0.03 * np.exp(0.3 * rng.standard_normal((rows, PIXELS), np.float32))
            noise = rng.standard_normal((rows, PIXELS), np.float32)
            flux[start : start + rows] = coefficients @ truth.basis + sigma * noise
            ivar[start : start + rows] = np.where(rng.random((rows, PIXELS)) < 0.02, 0.0, sigma**-2.0)
