"""How fast are objects scored? `python benchmarks/scoring.py --objects 200000`.

Normal spectra of 2321 pixels in an HDF5 file, which stay there: seconds to validate them, to project them on
a basis of rank 8, and to score them, projection included; and the memory it took. Writes SCORING.md.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from contestant import HERE
from spectra import PIXELS, write

import robusta_prob as rp

RANK, TRAINING = 8, 2000


def main() -> None:
    """Run and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=200_000)
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rp.DataWarning)
    n = 200 if options.smoke else options.objects
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectra.h5"
        write(path, n, RANK)
        began = time.perf_counter()
        data = rp.read(path, in_memory=False)
        validating = time.perf_counter() - began
        fit = rp.fit(data.take(np.arange(min(TRAINING, n))).load(), RANK)
        some = data.take(np.arange(min(3 * TRAINING, n)))
        rp.surprise(fit, some)  # compiles
        began = time.perf_counter()
        rp.project(fit, data)
        projecting = time.perf_counter() - began
        began = time.perf_counter()
        rp.surprise(fit, data)
        scoring = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report = [
        "# Scoring",
        "",
        f"{n:,} x {PIXELS} in an HDF5 file, K = {RANK}: validated in {validating:.1f} s, projected in "
        f"{projecting:.1f} s, scored in {scoring:.1f} s, projection included ({n / scoring:,.0f} objects a "
        f"second). Memory: at most {peak:.1f} GiB in all, for {8 * n * PIXELS / 2**30:.1f} GiB of spectra.",
        "",
        f"Speed of scoring over that of projecting: {projecting / scoring:.2f} (target 0.5).",
    ]
    print("\n".join(report))
    if not options.smoke:
        (HERE / "SCORING.md").write_text("\n".join(report) + "\n")


if __name__ == "__main__":
    main()
