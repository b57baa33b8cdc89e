"""Is the right rank chosen? `python benchmarks/selection.py [--seeds 10] [--smoke]`; writes SELECTION.md.

Per seed: the toy survey (rank 5, with all its corruption), and draws of rank 3 and 8 of which 1 % of the
rows are foreign, 0.4 % of the cells bad and 10 % missing. The rank is chosen by `rp.select`, noise learned,
among two below the truth to three above, and by `rp.relevance` from four components too many.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import robusta_prob as rp

HERE = Path(__file__).parent
SIZE, SMALL = (2000, 600), (400, 120)
BELOW, ABOVE, GENEROUS = 2, 3, 4
FOREIGN, BAD, MISSING = 0.01, 0.004, 0.1


def corrupted(rank: int) -> Callable[..., rp.Dataset]:
    """Draws of this rank with foreign spectra, bad cells and holes."""

    def draw(n: int, m: int, *, seed: int) -> rp.Dataset:
        data = rp.simulate.low_rank(n, m, rank, seed=seed, missing=MISSING).data
        rng, flux = np.random.default_rng(seed), np.array(data.flux * data.unit, float)
        rows = rng.permutation(n)[: round(FOREIGN * n)]
        phase, frequency = rng.random((2, len(rows), 1)) * [[[1.0]], [[30.0]]]
        flux[rows] = np.sin(2 * np.pi * (phase + frequency * np.arange(m) / m))
        cells = rng.random((n, m)) < BAD
        flux[cells] += rng.normal(0, 3, cells.sum())
        return rp.dataset(flux, data.ivar / data.unit**2)

    return draw


SURVEYS: dict[int, Callable[..., rp.Dataset]] = {
    3: corrupted(3),
    5: lambda n, m, *, seed: rp.simulate.toy(n, m, seed=seed).data,
    8: corrupted(8),
}


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="one seed, small, rank 3: does it run at all?")
    options = parser.parse_args()
    size, seeds = (SMALL, 1) if options.smoke else (SIZE, options.seeds)
    lines = [
        f"# Is the right rank chosen? {size[0]} x {size[1]}, {seeds} seeds, {os.cpu_count()} cores",
        "",
        "| true rank | chosen by `select` | right | the next lacks [errors] | by `relevance` | right "
        "| seconds: select | relevance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rank, draw in SURVEYS.items():
        if options.smoke and rank > 3:
            continue
        chosen, supported, lacks, times = [], [], [], []
        for seed in range(seeds):
            data, start = draw(*size, seed=seed), time.perf_counter()
            found = rp.select(data, range(rank - BELOW, rank + ABOVE + 1), key=seed)
            middle = time.perf_counter()
            supported.append(rp.relevance(data, rank + GENEROUS, key=seed).rank)
            times.append((middle - start, time.perf_counter() - middle))
            chosen.append(found.rank)
            gap = found.difference(rank, rank + 1)
            lacks.append(gap.mean / gap.error)
            print(
                rank, seed, chosen[-1], supported[-1], f"{lacks[-1]:.1f}", *np.round(times[-1], 1), flush=True
            )
        seconds = np.median(times, axis=0)
        lines.append(
            f"| {rank} | {', '.join(map(str, chosen))} | {chosen.count(rank)} of {seeds} "
            f"| {min(lacks):.1f} to {max(lacks):.1f} | {', '.join(map(str, supported))} "
            f"| {supported.count(rank)} of {seeds} | {seconds[0]:.1f} | {seconds[1]:.1f} |"
        )
    report = "\n".join(lines)
    print(report)
    if not options.smoke:
        (HERE / "SELECTION.md").write_text(report + "\n")


if __name__ == "__main__":
    main()
