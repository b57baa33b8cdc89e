"""A fit of a file larger than memory: `python benchmarks/streaming.py`.

200,000 spectra of 2321 pixels, K = 10, three epochs from disk: how fast, beside h5py alone and beside the
same passes over data in memory; how much memory; and how well held-out cells of other objects are predicted,
beside a fit to the end. Writes STREAMING.md.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
from contestant import HERE
from spectra import PIXELS, write

import robusta_prob as rp
from robusta_prob.models.noise import log_density

RANK, TEST, FEW, HIDDEN, ROWS = 10, 2000, 20_000, 0.1, 1024


class Clock:
    """Seconds of every epoch but the first, which compiles."""

    def __init__(self) -> None:
        self._at: list[float] = []

    def __call__(self, line: rp.Epoch) -> None:
        """An epoch has ended."""
        self._at.append(time.perf_counter())

    @property
    def epoch(self) -> float:
        """The median."""
        return float(np.median(np.diff(self._at)))


def read_by_h5py(path: Path) -> float:
    """Seconds that h5py alone needs for both arrays."""
    began = time.perf_counter()
    with h5py.File(path) as file:
        for start in range(0, len(file["flux"]), ROWS):
            for name in ("flux", "ivar"):
                file[name][start : start + ROWS]
    return time.perf_counter() - began


def density(fit: rp.Fit, test: rp.Dataset) -> float:
    """Mean log density of hidden cells, predicted by the others of the same objects [nats]."""
    hidden = (np.random.default_rng(1).random(test.shape) < HIDDEN) & test.observed
    residual = rp.residuals(fit, test, rp.project(fit, test.hide(hidden)))
    ivar = np.where(hidden, test.ivar / test.unit**2, 0.0)
    return float(np.asarray(log_density(residual**2, ivar, fit.noise), float).sum() / hidden.sum())


def peak() -> float:
    """GiB of memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Run and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rp.DataWarning)
    n, few, test_size = (1500, 1100, 200) if options.smoke else (options.objects, FEW, TEST)
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder) / "spectra.h5", Path(folder) / "test.h5"
        write(path, n, RANK)
        write(other, test_size, RANK, seed=1)
        read_by_h5py(path)  # now it is in the cache of the system, as far as that goes
        alone, before = read_by_h5py(path), peak()
        data, test = rp.read(path, in_memory=False), rp.read(other)
        clock, began = Clock(), time.perf_counter()
        fit = rp.fit(data, RANK, max_epochs=3, callback=clock)
        whole, memory = time.perf_counter() - began, peak()
        small, in_memory = Clock(), Clock()
        rp.fit(data.take(np.arange(few)), RANK, max_epochs=3, callback=small)
        rp.fit(data.take(np.arange(few)).load(), RANK, max_epochs=3, callback=in_memory)
        end = rp.fit(data, RANK)
        after_three, at_rest = density(fit, test), density(end, test)
    epochs = sum(not line.stage.startswith("start") for line in end.history)
    per_row = [1e6 * seconds / rows for seconds, rows in ((clock.epoch, n), (small.epoch, few))]
    report = [
        "# A fit from disk",
        "",
        f"{n:,} x {PIXELS} in an HDF5 file of {8 * n * PIXELS / 2**30:.1f} GiB, K = {RANK}, three epochs "
        f"with all that is before and after: {whole:.1f} s. Memory: at most {memory:.2f} GiB in all (target "
        f"2), {before:.2f} before the fit.",
        "",
        "| | |",
        "|---|---|",
        f"| h5py alone reads the file in | {alone:.1f} s |",
        f"| an epoch | {clock.epoch:.1f} s |",
        f"| an epoch over {few:,} of them in memory, per so many | {in_memory.epoch * n / few:.1f} s |",
        f"| rate over that of the slower of the two (target 0.6) | "
        f"{max(alone, in_memory.epoch * n / few) / clock.epoch:.2f} |",
        f"| microseconds per object: {n:,} / {few:,} (target within 20 %) | "
        f"{per_row[0]:.1f} / {per_row[1]:.1f} |",
        f"| held-out log density per cell after 3 epochs | {after_three:.5f} |",
        f"| at rest, after {epochs} | {at_rest:.5f} |",
        f"| difference (target 0.1 %) | {100 * abs(after_three - at_rest) / abs(at_rest):.4f} % |",
    ]
    print("\n".join(report))
    if not options.smoke:
        (HERE / "STREAMING.md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
