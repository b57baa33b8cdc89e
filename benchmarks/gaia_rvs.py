"""The Gaia RVS search at its real size: `python benchmarks/gaia_rvs.py`.

One bin of 192,000 spectra, K = 10: wall time and memory of `train` and `analyse`, beside the time to just
read the file. Then 14 bins in sequence, 500,000 spectra in all, with the noise learned: what is found of what
was put in, kind by kind, and how many of each bin's list are stars with which nothing is wrong. Writes
GAIA_RVS.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import pandas as pd

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from examples.gaia_rvs import simulate  # noqa: E402  (examples are no package that is installed)
from examples.gaia_rvs.tables import read_table  # noqa: E402

ONE, ALL, BIN, COLOURS = 207_000, 500_000, 4, (0.78, 0.93)  # of which 192,000 have all that it takes
LEARNED = "[model]\nranks = [{rank}]\nscales = []\n"
ROWS = 1024
STEPS = [-1000, 3, 5, 6, 7, 8, 9, 10, 13, 20, 40, 1000]  # of the S/N of lines
CHILD = """
import json, resource, sys, time
from examples.gaia_rvs.__main__ import main
began = time.perf_counter()
code = main(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print("MEASURED", json.dumps({"code": code, "seconds": time.perf_counter() - began, "gib": peak}), flush=True)
"""


def read_once(path: Path) -> float:
    """Seconds that h5py alone needs for both arrays."""
    began = time.perf_counter()
    with h5py.File(path) as file:
        for start in range(0, len(file["flux"]), ROWS):
            for name in ("flux", "flux_error"):
                file[name][start : start + ROWS]
    return time.perf_counter() - began


def step(folder: Path, name: str, *options: str) -> dict:
    """One step in a process of its own, measured."""
    names = {"--spectra": simulate.SPECTRA, "--metadata": simulate.CATALOGUE}
    files = [part for option, file in names.items() for part in (option, str(folder / file))]
    command = [sys.executable, "-c", CHILD, name, "-o", str(folder / "run"), *files, *options]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("MEASURED")]
    if not lines or done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}\n{done.stderr[-4000:]}")
    print(done.stdout, flush=True)
    return json.loads(lines[0].removeprefix("MEASURED"))


def one_bin(folder: Path, objects: int, rank: int) -> list[str]:
    """The largest bin."""
    simulate.simulate(folder, objects, colours=COLOURS)
    config = folder / "config.toml"
    config.write_text(f"[model]\nranks = [{rank}]\n")
    settings = ["--config", str(config), "--bins", str(BIN)]
    step(folder, "bins", *settings)
    stars = read_table(folder / "run/bins")["stars"][BIN]
    read_once(folder / simulate.SPECTRA)
    alone = read_once(folder / simulate.SPECTRA)
    train, analyse = (step(folder, name, *settings) for name in ("train", "analyse"))
    size = (folder / simulate.SPECTRA).stat().st_size / 2**30
    return [
        f"## One bin: {stars:,} spectra of a file of {size:.1f} GiB, K = {rank}, the published loss",
        "",
        "| | seconds | GiB at most (target 3) |",
        "|---|---|---|",
        f"| just read the file once, from the cache of the system | {alone:.1f} | |",
        f"| `train` (half of them) | {train['seconds']:.0f} | {train['gib']:.2f} |",
        f"| `analyse` (all, with injections) | {analyse['seconds']:.0f} | {analyse['gib']:.2f} |",
        "",
    ]


def all_bins(folder: Path, objects: int, rank: int) -> list[str]:
    """14 bins in sequence."""
    if not (folder / simulate.TRUTH).exists():  # kept from an earlier run
        simulate.simulate(folder, objects)
    config = folder / "config.toml"
    config.write_text(LEARNED.format(rank=rank) + f'[files]\ntruth = "{folder / simulate.TRUTH}"\n')
    steps = ("bins", "train", "analyse", "summarise")
    measured = {name: step(folder, name, "--config", str(config)) for name in steps}
    seconds = " + ".join(f"{one['seconds']:.0f} ({name})" for name, one in measured.items())
    peak = max(one["gib"] for one in measured.values())
    false, found = (read_table(folder / "run" / name) for name in ("false-discoveries", "recovered"))
    half = read_table(folder / "run/completeness").drop_duplicates(["bin", "kind"])
    return [
        f"## 14 bins in sequence, {objects:,} spectra in all, K = {rank}, the noise learned",
        "",
        f"{seconds} seconds, at most {peak:.2f} GiB.",
        "",
        "**False discoveries** at q < 0.05 (target: under 0.1 in every bin of more than 1000 spectra), and "
        "by the published criterion.",
        "",
        *table_of(rates(false)),
        "",
        "**What was put in**, by kind and strength [sigma] of the change in all pixels together: found, of "
        "these named as they should be, and found by the published criterion.",
        "",
        *table_of(found.drop(columns="amplitude").assign(amplitude=found["amplitude"].map("{:.3g}".format))),
        "",
        "**Ca II emission** by its matched-filter S/N, amplitude over its error as measured (target: "
        "all of 8 or more found, and named lines).",
        "",
        *table_of(calcium(folder / "run")),
        "",
        "**Completeness**: strength at which half of what is injected into normal spectra of a bin is found.",
        "",
        *table_of(half.pivot(index="bin", columns="kind", values="half").round(1).reset_index()),
        "",
    ]


def calcium(run: Path) -> pd.DataFrame:
    """Stars with emission in the calcium triplet, found and named, in steps of the measured S/N."""
    stars = pd.concat([read_table(path.with_suffix("")) for path in sorted(run.glob("bin-*/stars.h5"))])
    own = stars.merge(pd.read_csv(run.parent / simulate.TRUTH), on="source_id", suffixes=("", "_true"))
    own = own[own["kind_true"] == "Ca II emission"]
    step = pd.cut(own["Ca II_amplitude"] / own["Ca II_amplitude_sd"], STEPS, right=False)
    named = own["flagged"] & (own["kind"] == "lines")
    table = (
        own.assign(named=named)
        .groupby(step, observed=True)
        .agg(number=("flagged", "size"), found=("flagged", "sum"), named=("named", "sum"))
    )
    return table.rename_axis("S/N").reset_index()


def rates(false: pd.DataFrame) -> pd.DataFrame:
    """With the realised rates."""
    return false.assign(
        rate=(false["false"] / false["flagged"]).round(3),
        published_rate=(false["published_false"] / false["published"]).round(3),
    )


def table_of(table: pd.DataFrame) -> list[str]:
    """As Markdown."""
    rows = [[str(x) for x in row] for row in table.astype(object).itertuples(index=False)]
    return ["| " + " | ".join(map(str, table.columns)) + " |", "|---" * len(table.columns) + "|"] + [
        "| " + " | ".join(row) + " |" for row in rows
    ]


def main() -> None:
    """Run and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    parser.add_argument("--only", choices=["one", "all"])
    parser.add_argument("--rank", type=int, default=20, help="of the 14 bins")
    parser.add_argument("--folder", type=Path, help="where to keep the surveys and the results")
    options = parser.parse_args()
    one, every, ranks = (300, 1200, (2, 2)) if options.smoke else (ONE, ALL, (10, options.rank))
    folder = options.folder or Path(tempfile.mkdtemp())
    try:
        parts = ["# The Gaia RVS search at size", ""]
        for name, work, size, rank in (("one", one_bin, one, ranks[0]), ("all", all_bins, every, ranks[1])):
            if options.only in (None, name):
                (folder / name).mkdir(parents=True, exist_ok=True)
                parts += work(folder / name, size, rank)
                print("\n".join(parts), flush=True)
                if not options.smoke:
                    (HERE / "GAIA_RVS.md").write_text("\n".join(parts))
    finally:
        if options.folder is None:
            shutil.rmtree(folder)
    print(f"peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
