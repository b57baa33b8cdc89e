"""Ours against the others, interleaved in one run: `make bench`, or `python benchmarks/run.py --smoke`.

Prints ratios and writes `results.json` and RESULTS.md. The objective is the published one, sum
Q^2 log(1 + z^2/Q^2) over the cells that are fitted, in float64; the angle is the sine of the largest between
the true subspace and the fitted one; the held-out density is the mean log density, under Student's t of four
degrees of freedom and the errors as given, of 1 % of the cells, which nobody is shown.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contestant import HERE, PACKAGE_PYTHON, Contestant
from scipy import stats

from robusta_prob.simulate import largest_angle, toy

RANK, Q = 5, 5.0
HIDDEN = 0.01
SMALL, SIZE, LARGE = (600, 150), (4000, 1200), (8000, 2321)
PACKAGE, PCA, ONCE = "robusta_hmf", "randomized_pca", "robusta_hmf_300"
FIELD = ("ours", "ours_published", "ours_to_its_objective", PCA, "numpyro_autodelta", PACKAGE)
PASS, PASS_RANK, FEW, MORE = "ours_one_pass", 10, "robusta_hmf_2", "robusta_hmf_12"
NAMES = {
    "ours": "ours, defaults (all learned, starts compete)",
    "ours_published": "ours, published loss, one start, to rest",
    "ours_to_its_objective": "ours, the same, to the package's objective",
    PCA: "scikit-learn randomized PCA",
    "numpyro_autodelta": "NumPyro AutoDelta and Adam, 100 steps",
    PACKAGE: "robusta-hmf 0.0.2, own start and stop",
    ONCE: "robusta-hmf 0.0.2, 300 iterations (once)",
}


class Survey:
    """A toy survey on file with some cells hidden, and how well a fit of the rest does."""

    def __init__(self, size: tuple[int, int], seed: int, file: Path) -> None:
        self.file, survey = file, toy(*size, seed=seed)
        data, rng = survey.data, np.random.default_rng(seed)
        self.basis = survey.truth.basis
        self.flux, self.ivar = data.flux * data.unit, data.ivar / data.unit**2
        hidden = (rng.random(self.ivar.shape) < HIDDEN) & (self.ivar > 0)
        self.hidden, self.shown = np.where(hidden, self.ivar, 0.0), np.where(hidden, 0.0, self.ivar)
        np.savez(file, flux=self.flux, ivar=self.shown.astype(self.ivar.dtype))

    def judge(self, A: np.ndarray, G: np.ndarray) -> dict[str, float]:
        """Objective, angle and held-out density."""
        residual2 = (self.flux.astype(float) - A @ G) ** 2
        seen = self.hidden > 0
        z = np.sqrt(self.hidden[seen] * residual2[seen])
        density = stats.t(4).logpdf(z) + 0.5 * np.log(self.hidden[seen].astype(float))
        return {
            "objective": float((Q**2 * np.log1p(self.shown * residual2 / Q**2)).sum()),
            "angle": largest_angle(G, self.basis),
            "density": float(density.mean()),
        }


@contextlib.contextmanager
def field_of(
    names: Sequence[str], rank: int, folder: Path, cache: Path | None = None
) -> Iterator[list[Contestant]]:
    """These contestants, each in a process of its own."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                contextlib.closing(
                    Contestant(
                        name,
                        PACKAGE_PYTHON if name.startswith(PACKAGE) else sys.executable,
                        rank,
                        Q,
                        folder / name,
                        cache,
                    )
                )
            )
            for name in names
        ]


def timed(field: Sequence[Contestant], file: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds from the start of the process to the end of a first run; median of others, interleaved."""
    cold = {one.name: one.run(file)["since_start"] for one in field}
    seconds: dict[str, list[float]] = {one.name: [] for one in field}
    for _ in range(repeats):
        for one in field:
            seconds[one.name].append(one.run(file)["seconds"])
    return {
        name: {"seconds": float(np.median(times)), "cold_seconds": cold[name]}
        for name, times in seconds.items()
    }


def whole_fits(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """The table of fits."""
    size = SMALL if options.smoke else SIZE
    survey = Survey(size, options.seed, folder / "survey.npz")
    cached: list[float] = []
    names = [name for name in FIELD if not (options.no_package and name in (PACKAGE, PCA))]
    with field_of(names, RANK, folder) as field:
        table = timed(field, survey.file, options.repeats)
        for one in field:
            table[one.name] |= survey.judge(*one.result())
    for _ in range(1 + options.repeats):  # the first fills the cache
        with field_of(names[:1], RANK, folder, folder / "cache") as (one,):
            cached.append(one.run(survey.file)["since_start"])
    table[names[0]]["cached_seconds"] = float(np.median(cached[1:]))
    if not (options.no_package or options.smoke):
        with field_of([ONCE], RANK, folder) as (one,):
            table[ONCE] = {"seconds": one.run(survey.file)["seconds"], "cold_seconds": float("nan")}
            table[ONCE] |= survey.judge(*one.result())
    return table


def one_pass(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Seconds of one full pass, of one iteration of the package, and of a PCA."""
    size = SMALL if options.smoke else LARGE
    survey = Survey(size, options.seed, folder / "large.npz")
    names = [PASS] if options.no_package else [PASS, PCA, FEW, MORE]
    with field_of(names, PASS_RANK, folder) as field:
        seconds = {name: row["seconds"] for name, row in timed(field, survey.file, options.repeats).items()}
    if MORE in seconds:
        seconds["robusta_hmf iteration"] = 0.1 * (seconds.pop(MORE) - seconds.pop(FEW))
    return seconds


def report_of(table: dict[str, dict[str, float]], passes: dict[str, float], head: str, *, smoke: bool) -> str:
    """Both tables in Markdown."""
    nothing = {"seconds": float("nan")}
    package, pca = (table.get(name, nothing)["seconds"] for name in (PACKAGE, PCA))
    lines = [
        "# Results of `make bench`",
        "",
        head,
        "",
        "| | warm [s] | cold [s] | same, programs cached [s] | objective | angle | held-out density "
        "| robusta-hmf / this | this / PCA |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        cached = f"{row['cached_seconds']:.3g}" if "cached_seconds" in row else ""
        lines.append(
            f"| {NAMES[name]} | {row['seconds']:.3g} | {row['cold_seconds']:.3g} | {cached} | "
            f"{row['objective']:,.0f} | {row['angle']:.5f} | {row['density']:.4f} | "
            f"{package / row['seconds']:.1f} x | {row['seconds'] / pca:.1f} |"
        )
    lines += [
        "",
        f"One pass over {SMALL if smoke else LARGE} at K = {PASS_RANK}, everything learned:",
        "",
        "| | [s] |",
        "|---|---|",
    ]
    lines += [f"| {name} | {seconds:.3g} |" for name, seconds in passes.items()]
    return "\n".join(lines)


def main() -> None:
    """Run the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one repeat: does it run at all?")
    parser.add_argument("--no-package", action="store_true", help="without robusta-hmf and scikit-learn")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.repeats = 1 if options.smoke else options.repeats
    if not (options.no_package or PACKAGE_PYTHON.exists()):
        parser.error(f"{PACKAGE_PYTHON} does not exist: run `make bench`, which installs robusta-hmf there")
    with tempfile.TemporaryDirectory() as name:
        table, passes = whole_fits(options, Path(name)), one_pass(options, Path(name))
    libraries = ("jax", "numpy", "numpyro", *([] if options.no_package else ["scikit-learn"]))
    machine: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{library: importlib.metadata.version(library) for library in libraries},
    }
    size = SMALL if options.smoke else SIZE
    head = (
        f"Toy survey {size}, K = {RANK}, seed {options.seed}, on {machine['cores']} cores; warm seconds are "
        f"medians of {options.repeats} interleaved runs, each contestant in a process of its own; cold ones "
        "are from the start of the process to the end of the first fit."
    )
    report = report_of(table, passes, head, smoke=options.smoke)
    print(report)
    if options.smoke:
        return
    results = {
        "seed": options.seed,
        "repeats": options.repeats,
        "machine": machine,
        "fits": table,
        "pass": passes,
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "RESULTS.md").write_text(report + "\n")


if __name__ == "__main__":
    main()
