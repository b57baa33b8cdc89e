"""Are p-values of normal objects uniform? `python benchmarks/calibration.py`.

Surveys of normal objects, half of them fitted and half held out: Kolmogorov-Smirnov tests of the p-values of
either half, and shares of p and of p of runs below 1e-2 and 1e-3; the same with bad pixels of fixed amplitude
in every object, by the objects' errors; and real spectra. Writes CALIBRATION.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from contestant import HERE
from scipy import stats
from tqdm import tqdm

import robusta_prob as rp
from robusta_prob.simulate import low_rank

OBJECTS = 2000  # in either half
NUS = (math.inf, 4.0)
SIZES = tuple(itertools.product((50, 400, 1200), (2, 5, 10)))
HOLES = (0.0, 0.3, 0.6)
SIGNALS = (0.5, 5.0, 50.0, 1000.0)  # S/N per pixel
LEVELS = (1e-2, 1e-3)
COLUMNS = ("KS p", "p < 1e-2", "p < 1e-3")
THIRDS = ("smallest third", "middle third", "largest third")  # of the errors
REAL = "rm017_B_exposures.npz"


class Shares(NamedTuple):
    """How the p-values of some objects are distributed."""

    ks: float  # p-value of the Kolmogorov-Smirnov test
    below: tuple[float, ...]  # shares, per level
    usual: bool  # whether all shares are within the binomial 99 % interval
    n: int


def shares(p: np.ndarray) -> Shares:
    """Of p-values that should be uniform."""
    p = p[~np.isnan(p)]
    counts = [int((p < level).sum()) for level in LEVELS]
    usual = all(
        stats.binomtest(count, len(p), level).pvalue > 0.01
        for count, level in zip(counts, LEVELS, strict=True)
    )
    return Shares(float(stats.kstest(p, "uniform").pvalue), tuple(c / len(p) for c in counts), usual, len(p))


def halves(survey: rp.simulate.Survey, rank: int, each: int) -> dict[str, rp.Surprise]:
    """Scores of the fitted half of a survey and of the held-out one."""
    fitted, held_out = survey.data.take(np.arange(each)), survey.data.take(np.arange(each, 2 * each))
    fit = rp.fit(fitted, rank)
    return {"fitted": rp.surprise(fit, fitted), "held-out": rp.surprise(fit, held_out)}


def row(cells: list[object]) -> str:
    """Of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def grid(each: int, draws: int) -> list[str]:
    """Normal objects alone, over sizes, ranks, noise, holes and S/N."""
    lines = [
        row(["M", "K", "nu", "holes", "S/N", "objects", *COLUMNS, *(f"runs: {name}" for name in COLUMNS)]),
        row(["---"] * 12),
    ]
    settings = [(*size, nu) for size, nu in itertools.product(SIZES, NUS)]
    tests: list[Shares] = []
    runs: list[Shares] = []
    for turn in tqdm(range(draws * len(settings)), desc="calibration"):
        m, rank, nu = settings[turn % len(settings)]
        draw = turn // len(settings)
        holes, signal = HOLES[(turn + draw) % 3], SIGNALS[(turn // 2 + draw) % 4]
        survey = low_rank(2 * each, m, rank, sigma=1.0 / signal, nu=nu, missing=holes, seed=100 + turn)
        for name, scores in halves(survey, rank, each).items():
            found, run = shares(scores.object.p_value), shares(scores.object.p_run)
            tests.append(found)
            runs.append(run)
            cells = [
                m,
                rank,
                f"{nu:g}",
                f"{holes:.0%}",
                f"{signal:g}",
                name,
                *cells_of(found),
                *cells_of(run),
            ]
            lines.append(row(cells))
            print(lines[-1], flush=True)
    return [
        f"Normal objects, {each} in either half. {summary(tests, 'p')} {summary(runs, 'p of runs')} "
        "The target is 19 of 20 halves.",
        "",
        *lines,
    ]


def cells_of(found: Shares) -> list[str]:
    """Those of `COLUMNS`."""
    return [f"{found.ks:.2g}", *(f"{share:.4f}" for share in found.below)]


def summary(tests: list[Shares], name: str) -> str:
    """Of the halves of a grid."""
    uniform, usual = sum(t.ks > 0.01 for t in tests), sum(t.usual for t in tests)
    total = np.average([t.below for t in tests], axis=0, weights=[t.n for t in tests])
    return (
        f"For {name}, KS p > 0.01 in {uniform} of {len(tests)} halves, and shares within the 99 % binomial "
        f"interval in {usual}; over all of them {total[0]:.5f} are below 1e-2 and {total[1]:.5f} below 1e-3."
    )


def bad_pixels(each: int, draws: int) -> list[str]:
    """0.5 % of the pixels of every object off by a fixed amplitude, noise over two decades."""
    heads = [*COLUMNS[1:], *(f"runs: {name}" for name in COLUMNS[1:])]
    lines = [row(["draw", "objects", "errors", *heads]), row(["---"] * 7)]
    counts: dict[str, list[float]] = {"fitted": [], "held-out": []}
    for draw in tqdm(range(draws), desc="bad pixels"):
        survey = low_rank(2 * each, 400, 5, sigma=0.03, spread=0.05, seed=300 + draw)
        rng = np.random.default_rng(draw)
        louder = 10.0 ** rng.uniform(-1.0, 1.0, (2 * each, 1))
        clean = survey.truth.clean
        sigma = 0.03 * louder * np.exp(0.05 * rng.standard_normal(clean.shape))
        flux = clean + sigma * rng.standard_normal(clean.shape)
        bad = rng.random(flux.shape) < 0.005
        flux[bad] += rng.choice([-0.5, 0.5], int(bad.sum()))
        hit = survey._replace(data=rp.dataset(flux, sigma**-2.0))
        for name, scores in halves(hit, 5, each).items():
            counts[name].append(shares(scores.object.p_value).below[1])
            own = louder[:each, 0] if name == "fitted" else louder[each:, 0]
            thirds = np.array_split(np.argsort(own), 3)
            for which, rows in [("all", np.arange(each)), *zip(THIRDS, thirds, strict=True)]:
                tests = (shares(x[rows]) for x in (scores.object.p_value, scores.object.p_run))
                lines.append(row([draw, name, which, *(f"{b:.4f}" for test in tests for b in test.below)]))
                print(lines[-1], flush=True)
    means = {name: float(np.mean(x)) for name, x in counts.items()}
    return [
        f"0.5 % of the pixels of every object off by 0.5 (the flux's rms is 1), noise of 0.003 to 0.3: "
        f"{means['fitted']:.4f} of the fitted and {means['held-out']:.4f} of the held-out are below 1e-3 "
        "(target 0.0003 to 0.003).",
        "",
        *lines,
    ]


def real(folder: Path, rank: int = 3) -> list[str]:
    """Repeated real spectra, whose noise is not simulated, and what might mend their p-values."""
    data = rp.read(folder / REAL)
    with np.load(folder / REAL) as file:
        flagged = file["mask_or"] != 0
    unmasked = rp.dataset(data.flux * data.unit, np.where(flagged, 0.0, data.ivar) / data.unit**2)
    settings = {
        "as it is": (data, rank, False),
        "empirical null": (data, rank, True),
        f"K = {rank + 1}": (data, rank + 1, False),
        f"K = {rank + 1}, empirical null": (data, rank + 1, True),
        "pixels with any mask bit left out": (unmasked, rank, False),
        "and empirical null": (unmasked, rank, True),
    }
    lines = [
        f"{REAL}, {data.shape[0]} x {data.shape[1]}, K = {rank} (target: 0.005 to 0.02 below 1e-2):",
        "",
        row(["remedy", "p < 1e-2", "p < 1e-3", "bulk of z", "runs: p < 1e-2", "bulk of runs", "flagged"]),
        row(["---"] * 7),
    ]
    for name, (spectra, k, applied) in settings.items():
        scores = rp.surprise(rp.fit(spectra, k), spectra, empirical_null=applied)
        bulk, runs = scores.empirical, shares(scores.object.p_run)
        below = [f"{share:.4f}" for share in shares(scores.object.p_value).below]
        own = f"{bulk.centre:.2f} +- {bulk.width:.2f}"
        of_runs = f"{bulk.run_centre:.2f} +- {bulk.run_width:.2f}"
        lines.append(row([name, *below, own, f"{runs.below[0]:.4f}", of_runs, int(scores.flagged.sum())]))
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2, help="surveys per setting")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("ROBUSTA_DATA"), help="folder of real spectra"
    )
    parser.add_argument("--only", choices=("grid", "bad-pixels", "real"))
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rp.DataWarning)
    each, draws = (60, 1) if options.smoke else (OBJECTS, options.draws)
    if options.only == "real" and options.data is None:
        parser.error("--only real needs --data FOLDER, or ROBUSTA_DATA, with the real spectra")
    parts = {
        "bad-pixels": lambda: bad_pixels(each, draws),
        "grid": lambda: grid(each, draws),
        "real": lambda: real(options.data),
    }
    usual = ["bad-pixels", "grid", "real"] if options.data else ["bad-pixels", "grid"]
    report = ["# Calibration of p-values", ""]
    for name in [options.only] if options.only else usual:
        report += [*parts[name](), ""]
    if not options.smoke and not options.only:
        (HERE / "CALIBRATION.md").write_text("\n".join(report))


if __name__ == "__main__":
    main()
