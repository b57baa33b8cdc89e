"""Killed and resumed: `python benchmarks/resume.py`.

A fit of a file that is read block by block, with a checkpoint, is killed (SIGKILL) at a random moment and
begun again; the basis and the coefficients that come out at last must be those of a fit that was left alone,
bit for bit.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from spectra import write

FIT = """
import hashlib, json, sys, time, warnings
import robusta_prob as rp
path, rank, checkpoint = sys.argv[1], int(sys.argv[2]), sys.argv[3]
warnings.simplefilter("ignore")
data = rp.read(path, in_memory=False)
save = rp.Checkpoint(checkpoint, seconds=0.0)
fit = rp.fit(data, rank, checkpoint=save, tol=1e-3)
bits = hashlib.sha256(fit.basis.tobytes() + fit.coefficients.tobytes() + fit.basis_covariance.tobytes())
print(json.dumps({"bits": bits.hexdigest(), "epochs": len(fit.history)}))
"""


def fit(path: Path, rank: int, checkpoint: Path, seconds: float | None = None) -> dict[str, object] | None:
    """What came out, or None where it was killed after so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", FIT, str(path), str(rank), str(checkpoint)], stdout=subprocess.PIPE, text=True
    )
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        raise RuntimeError(f"a fit failed with code {process.returncode}")
    return json.loads(out)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=6000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    n, rank, kills = (700, 2, 1) if options.smoke else (options.objects, 5, options.kills)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spectra.h5"
        write(path, n, rank)
        began = time.perf_counter()
        alone = fit(path, rank, Path(folder) / "alone")
        whole = time.perf_counter() - began
        same = 0
        for number in range(kills):
            checkpoint, moment = Path(folder) / f"{number}", float(rng.uniform(0.1, 0.95)) * whole
            while fit(path, rank, checkpoint, moment) is not None:  # it had ended before
                checkpoint.unlink()
                moment *= 0.5
            result = fit(path, rank, checkpoint)
            same += result == alone
            print(f"killed after {moment:.1f} of {whole:.1f} s: {result == alone}")
    print(f"{same} of {kills} ended with the same bits as the fit that was left alone, {alone}")
    sys.exit(same < kills)


if __name__ == "__main__":
    main()
