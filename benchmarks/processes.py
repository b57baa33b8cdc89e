"""Two processes against one: `python benchmarks/processes.py`.

One thread each, every process on a core of its own; the same file, the same number of passes, the same basis.
"""

from __future__ import annotations

import argparse
import itertools
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from spectra import write

FIT = """
import os, sys, time, warnings
core, path, rank, count, number, port, out = sys.argv[1:]
os.sched_setaffinity(0, {int(core)})
warnings.simplefilter("ignore")
import jax
if int(count) > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", int(count), int(number))
import numpy as np
import robusta_prob as rp
data = rp.read(path)
at = []
rp.fit(data, int(rank), max_epochs=6)
rp.fit(data, int(rank), max_epochs=6, callback=lambda line: at.append(time.perf_counter()))
fit = rp.fit(data, int(rank), tol=1e-3)
np.savez(out, basis=fit.basis, epoch=np.median(np.diff(at)[1:]))
"""


def run(path: Path, rank: int, count: int, folder: Path) -> tuple[float, np.ndarray]:
    """Seconds of an epoch, and the basis."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))
    arguments = [str(path), str(rank), str(count)]
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                FIT,
                str(core),
                *arguments,
                str(i),
                str(port),
                f"{folder}/{i}",
            ],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        for i, core in zip(range(count), itertools.cycle(cores), strict=False)
    ]
    if any(process.wait() for process in running):
        raise RuntimeError("a process failed")
    with np.load(folder / "0.npz") as found:
        return float(found["epoch"]), found["basis"]


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=32_000)
    parser.add_argument("--rank", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    n, rank = (1100, 2) if options.smoke else (options.objects, options.rank)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectra.h5"
        write(path, n, rank)
        (one, basis), (two, other) = (run(path, rank, count, Path(folder)) for count in (1, 2))
    q, p = (np.linalg.qr(x.T.astype(float))[0] for x in (basis, other))
    angle = float(np.linalg.norm(p - q @ (q.T @ p), 2))
    print(
        f"{n} objects: an epoch in {one:.2f} s alone and {two:.2f} s by two, {one / two:.2f} x (target 1.6); "
        f"sine of the largest angle between their bases {angle:.1e} (target 1e-5)"
    )


if __name__ == "__main__":
    main()
