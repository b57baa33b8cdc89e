"""How much memory a fit in memory takes: `python benchmarks/memory.py`.

Resident memory at its highest, less that after the import, over the size of the data: flux and ivar, float32.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from pathlib import Path

from spectra import PIXELS, write


def resident(*, highest: bool) -> float:
    """MiB, now or at most so far, of this process alone."""
    name = "VmHWM:" if highest else "VmRSS:"
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) / 2**10


def fitted(path: Path, rank: int, answer: multiprocessing.Queue) -> None:
    """Import, read and fit, and say what that took."""
    import robusta_prob as rp

    before = resident(highest=False)
    data = rp.read(path)
    of_data = resident(highest=True)
    rp.fit(data, rank)
    answer.put((before, of_data, resident(highest=True)))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=8000)
    parser.add_argument("--rank", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    n, rank = (300, 2) if options.smoke else (options.objects, options.rank)
    context = multiprocessing.get_context("spawn")  # a process that has nothing in memory
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectra.h5"
        write(path, n, rank)
        answer = context.Queue()
        process = context.Process(target=fitted, args=(path, rank, answer))
        process.start()
        before, of_data, highest = answer.get(timeout=3600)
        process.join()
    size = 8 * n * PIXELS / 2**20
    print(
        f"{n} x {PIXELS}, K = {rank}: data {size:.0f} MiB; after import {before:.0f}, at most {of_data:.0f} "
        f"when read, {highest:.0f} when fitted: {(highest - before) / size:.2f} times the data (target 1.5)"
    )


if __name__ == "__main__":
    main()
