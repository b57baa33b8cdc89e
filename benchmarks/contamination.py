"""The right basis on hard data: `python benchmarks/contamination.py`, every case of `cases.py`.

The sine of the largest angle to the true subspace, for our default, our fit of the published loss at the
robustness scale Q, `robusta-hmf` at the same Q, iterated sigma clipping, and the Gaussian model, against the
attainable bound: bad cells masked, started at the truth. Writes CONTAMINATION-*.md and .json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from cases import CASES, RANK, Contaminated, survey
from contestant import HERE, PACKAGE_PYTHON, Contestant
from tqdm import tqdm

import robusta_prob as rp
from robusta_prob.simulate import largest_angle

PACKAGE = "robusta-hmf"
COLUMNS = ("ours", "ours at Q", PACKAGE, "sigma clipping", "HMF")
GAUSSIAN = {"noise": rp.Noise(math.inf, 1.0, 0.0), "prior": rp.Prior.flat()}
CLIP, ROUNDS = 5.0, 5  # sigma; rounds at most
PATIENCE = 40  # epochs: a Gaussian model that outliers pull about comes to no rest


def bound(data: Contaminated) -> float:
    """What a fit attains that knows the bad cells, the noise, and where to start."""
    masked = rp.dataset(data.flux, np.where(data.bad, 0.0, data.ivar))
    return angle(rp.fit(masked, RANK, init=data.basis, **GAUSSIAN), data)


def sigma_clipped(data: rp.Dataset, rank: int) -> rp.Fit:
    """Fit the Gaussian model, drop cells beyond `CLIP` sigma, and again until no cell comes or goes."""
    flux, ivar = data.flux * data.unit, data.ivar / data.unit**2
    kept, fit = ivar > 0, None
    for _ in range(ROUNDS):
        clean = rp.dataset(flux, np.where(kept, ivar, 0.0))
        fit = rp.fit(clean, rank, max_epochs=PATIENCE, init=fit, **GAUSSIAN)
        z2 = ivar * (flux - rp.reconstruct(fit)) ** 2
        now = (ivar > 0) & (z2 < CLIP**2)
        # an object or pixel without any cell left could never come back
        now |= (ivar > 0) & ~(now.sum(1, keepdims=True) > rank) | (ivar > 0) & ~(now.sum(0) > rank)
        if (now == kept).all():
            break
        kept = now
    return fit


def hmf(data: rp.Dataset, rank: int) -> rp.Fit:
    """The Gaussian model as it stands."""
    return rp.fit(data, rank, schedule=rp.anneal.constant(), max_epochs=PATIENCE, **GAUSSIAN)


def angle(fit: rp.Fit, data: Contaminated) -> float:
    """Sine of the largest angle to the truth."""
    return largest_angle(fit.basis, data.basis)


Row = dict[str, float | str | int]
Place = tuple[str, str, int]


def place(row: Row) -> Place:
    """Case, kind of basis and seed."""
    return str(row["case"]), str(row["basis"]), int(row["seed"])


def compare(
    names: list[str], seeds: list[int], rank: int, scale: float, size: tuple[int, int], columns: list[str]
) -> Iterator[Row]:
    """One row of angles per case, kind of basis and seed."""
    methods: dict[str, Callable[[rp.Dataset], rp.Fit]] = {
        "ours": lambda data: rp.fit(data, rank),
        "ours at Q": lambda data: rp.fit(data, rank, noise=rp.Noise(1.0, scale, 0.0)),
        "sigma clipping": lambda data: sigma_clipped(data, rank),
        "HMF": lambda data: hmf(data, rank),
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        other = None
        todo = [(name, smooth, seed) for name in names for smooth in (True, False) for seed in seeds]
        for number, (name, smooth, seed) in enumerate(tqdm(todo, desc="contamination")):
            data = survey(CASES[name], seed, smooth=smooth, size=size)
            if PACKAGE in columns:  # works while we do
                if other is None:
                    other = Contestant("robusta_hmf", PACKAGE_PYTHON, rank, scale, Path(folder) / "out")
                    stack.enter_context(contextlib.closing(other))
                file = Path(folder) / f"data-{number}.npz"
                np.savez(file, flux=data.flux, ivar=data.ivar)
                other.begin(file)
            given = rp.dataset(data.flux, data.ivar)
            row: Row = {"case": name, "basis": "smooth" if smooth else "rough", "seed": seed}
            row["bound"] = bound(data)
            row |= {column: angle(fit(given), data) for column, fit in methods.items() if column in columns}
            if other is not None:
                try:
                    other.finish()
                    _, basis = other.result()
                    row[PACKAGE] = largest_angle(basis, data.basis) if np.isfinite(basis).all() else 1.0
                except RuntimeError as error:  # the process died
                    tqdm.write(f"{name}, {row['basis']}, seed {seed}: {error}")
                    row[PACKAGE], other = 1.0, None
            yield row


def table(rows: list[Row], title: str) -> str:
    """Medians over the seeds as multiples of the bound; the worst seed in brackets."""
    columns = [name for name in COLUMNS if any(name in row for row in rows)]
    rows = sorted(rows, key=lambda row: list(CASES).index(str(row["case"])))
    lines = [
        title,
        "",
        f"| case | basis | bound | {' | '.join(columns)} |",
        "|---" * (3 + len(columns)) + "|",
    ]
    for case, basis in dict.fromkeys((row["case"], row["basis"]) for row in rows):
        here = [row for row in rows if (row["case"], row["basis"]) == (case, basis)]
        ratios = ([row[name] / row["bound"] for row in here if name in row] for name in columns)
        cells = [f"{np.median(ratio):.3g} ({max(ratio):.3g})" if ratio else "" for ratio in ratios]
        lines.append(
            f"| {case} | {basis} | {np.median([row['bound'] for row in here]):.2g} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rank", type=int, default=RANK, help="of the fit; the truth has 5")
    parser.add_argument("--scale", type=float, default=3.0, help="robustness scale Q of the published loss")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--columns", nargs="*", default=list(COLUMNS), choices=COLUMNS, metavar="METHOD")
    parser.add_argument("--smoke", action="store_true", help="two tiny cases: does it run at all?")
    options = parser.parse_args()
    if PACKAGE in options.columns and not PACKAGE_PYTHON.exists():
        parser.error(f"{PACKAGE_PYTHON} does not exist: run `make bench`, which installs robusta-hmf there")
    names, size = (list(CASES)[:2], (300, 120)) if options.smoke else (options.cases, (1000, 400))
    seeds = [0] if options.smoke else list(range(options.seeds))
    warnings.simplefilter("ignore", rp.DataWarning)
    name = f"CONTAMINATION-K{options.rank}-Q{options.scale:g}"
    title = (
        f"# Contaminated surveys, K = {options.rank} for a truth of {RANK}, Q = {options.scale:g}\n\n"
        f"{size[0]} x {size[1]}, {len(seeds)} seeds. The bound is the sine of the largest angle to the truth "
        "that is attained with the\nbad cells masked; the others are multiples of it, median over the seeds, "
        "the worst in brackets.\nA method that does not end with a finite basis counts as a sine of 1."
    )
    markdown, record = (HERE / f"{name}.{kind}" for kind in ("md", "json"))
    old = json.loads(record.read_text()) if record.exists() and not options.smoke else []
    rows: dict[Place, Row] = {place(row): row for row in old}
    for row in compare(names, seeds, options.rank, options.scale, size, options.columns):
        rows[place(row)] = rows.get(place(row), {}) | row  # what is run again replaces what was there
        if not options.smoke:  # an hour's work is kept if the rest of it fails
            markdown.write_text(table(list(rows.values()), title))
            record.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
    print(table(list(rows.values()), title))


if __name__ == "__main__":
    main()
