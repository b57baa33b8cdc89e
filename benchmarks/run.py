"""Ours against the others, interleaved in one run: `make bench`, or `python benchmarks/run.py --smoke`.

Prints ratios and writes `benchmarks/results.json`. The robust objective is the published one,
sum Q^2 log(1 + z^2/Q^2) over observed cells, in float64; the angle is the sine of the largest angle
between the true subspace and the fitted one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contestant import HERE, PACKAGE_PYTHON, Contestant

from robusta_prob.simulate import largest_angle, toy

RANK, Q = 5, 5.0


def judge(contestant: Contestant, survey: Any) -> dict[str, float]:
    """Objective and angle of the last result."""
    A, G = contestant.result()
    data = survey.data
    flux, ivar = data.flux.astype(float) * data.unit, data.ivar.astype(float) / data.unit**2
    z2 = ivar * (flux - A @ G) ** 2
    return {
        "objective": float((Q**2 * np.log1p(z2 / Q**2)).sum()),
        "angle": largest_angle(G, survey.truth.basis),
    }


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repeat: does it run at all?")
    parser.add_argument("--no-package", action="store_true", help="without robusta-hmf and scikit-learn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size, repeats = ((600, 150), 1) if options.smoke else ((4000, 1200), options.repeats)
    survey = toy(*size, seed=options.seed)

    pythons = {"ours": sys.executable, "ours_published": sys.executable}
    if not options.no_package:
        if not PACKAGE_PYTHON.exists():
            parser.error(
                f"{PACKAGE_PYTHON} does not exist: run `make bench`, which installs robusta-hmf there"
            )
        pythons |= {"randomized_pca": sys.executable, "robusta_hmf": str(PACKAGE_PYTHON)}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "survey.npz"
        data = survey.data
        np.savez(file, flux=data.flux * data.unit, ivar=data.ivar / data.unit**2)
        field = [
            stack.enter_context(contextlib.closing(Contestant(name, python, RANK, Q, file.with_name(name))))
            for name, python in pythons.items()
        ]
        cold = {contestant.name: contestant.run(file)["since_start"] for contestant in field}
        seconds: dict[str, list[float]] = {contestant.name: [] for contestant in field}
        for _ in range(repeats):
            for contestant in field:
                seconds[contestant.name].append(contestant.run(file)["seconds"])
        table = {
            contestant.name: judge(contestant, survey)
            | {
                "seconds": float(np.median(seconds[contestant.name])),
                "cold_seconds": cold[contestant.name],
            }
            for contestant in field
        }

    print(f"toy survey {size[0]} x {size[1]}, K = 5, seed {options.seed}; warm seconds: median of {repeats}")
    heads = f"{'':16} {'warm s':>8} {'cold s':>8} {'objective':>14} {'angle':>9}"
    print(f"{heads} {'x robusta_hmf':>14} {'x PCA':>7}")
    for name, row in table.items():
        package = table.get("robusta_hmf", {}).get("seconds", float("nan")) / row["seconds"]
        pca = row["seconds"] / table.get("randomized_pca", {}).get("seconds", float("nan"))
        print(
            f"{name:16} {row['seconds']:8.3f} {row['cold_seconds']:8.2f} {row['objective']:14,.0f} "
            f"{row['angle']:9.5f} {package:13.1f}x {pca:6.1f}x"
        )
    if options.smoke:
        return
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("jax", "numpy", "scikit-learn")},
    }
    results = {"size": size, "seed": options.seed, "repeats": repeats, "machine": machine, "table": table}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
