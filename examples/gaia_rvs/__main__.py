"""`python -m examples.gaia_rvs STEP`: the search for strange stars among the Gaia RVS spectra, step by step.

    python -m examples.gaia_rvs run --simulate small -o demo_gaia   everything, on a simulated survey
    python -m examples.gaia_rvs run -o search                       everything, on the archive's two files

Every step can be begun again: what is done is not done twice.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import robusta_prob as rp
from examples.gaia_rvs import analyse, bins, compare, embed, explore, replot, simulate, summarise, train
from examples.gaia_rvs.config import PRESETS, Config
from examples.gaia_rvs.tables import is_made, swept, write_json

PER_BIN = {"train": train, "analyse": analyse, "replot": replot}
ACROSS = {"bins": bins, "summarise": summarise, "umap": embed, "compare": compare, "report": explore}
ORDER = ("bins", "train", "analyse", "summarise", "replot", "umap", "compare", "report")


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    one = argparse.ArgumentParser(
        "python -m examples.gaia_rvs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument(
        "step", choices=["simulate", *ORDER, "run"], help="which step; run: all, one after the other"
    )
    one.add_argument("--config", type=Path, help="TOML file with what differs from the published values")
    one.add_argument(
        "--simulate", choices=[*PRESETS], metavar="SIZE", help=f"survey to simulate: {', '.join(PRESETS)}"
    )
    one.add_argument("--spectra", type=Path, help="the file of spectra (default: dr3-rvs-all.hdf5)")
    one.add_argument("--metadata", type=Path, help="the file of stars (default: dr3-source-meta.csv)")
    one.add_argument("-o", "--output", type=Path, help="folder for the results (default: gaia_rvs_run)")
    one.add_argument("--bins", help="numbers of the bins, as in 0,4,7-9 (default: all)")
    return one


def chosen_bins(text: str | None, number: int) -> list[int]:
    """ "0,4,7-9" as numbers."""
    if text is None:
        return list(range(number))
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers = [*map(int, filter(str.isdigit, (first, last or first)))]
        if len(numbers) < 2 or not numbers[0] <= numbers[1] < number:
            raise ValueError(f"--bins must be numbers from 0 to {number - 1}, as in 0,4,7-9; got {text!r}")
        found += range(numbers[0], numbers[1] + 1)
    return sorted(set(found))


def located(options: argparse.Namespace) -> Config:
    """The configuration, with the files of a simulated survey in its output folder."""
    config = Config.read(options.config, options.simulate).located(output=options.output)
    output = config.files.output
    if config.simulation.objects and (options.spectra or options.metadata):
        raise ValueError("--spectra and --metadata name files that are there; leave them out, or --simulate")
    if config.simulation.objects:
        config = config.located(
            spectra=output / simulate.SPECTRA,
            metadata=output / simulate.CATALOGUE,
            truth=output / simulate.TRUTH,
        )
    return config.located(spectra=options.spectra, metadata=options.metadata)


def write_survey(config: Config) -> None:
    """The simulated survey, if it is not there.

    Raises
    ------
    ValueError
        If another one is there.
    """
    files, survey, record = config.files, config.simulation, config.files.output / "simulation.json"
    if not survey.objects or is_made(record, {"simulation": survey}):
        return
    simulate.simulate(
        files.output, survey.objects, seed=survey.seed, anomalies=survey.anomalies, flatness=survey.flatness
    )
    write_json({"settings": {"simulation": survey}}, record)


def main(arguments: list[str] | None = None) -> int:
    """Do one step, or all."""
    options = parser().parse_args(arguments)
    try:
        config = located(options)
        numbers = chosen_bins(options.bins, config.bins.number)
        if options.step == "simulate" and not config.simulation.objects:
            raise ValueError("which survey? Say --simulate small, or how many objects under [simulation]")
        if options.step in ("run", "train", "analyse"):
            analyse.rehearse(config)
        swept(config.files.output)
        write_survey(config)
        for step in ORDER if options.step == "run" else (options.step,):
            begun = time.perf_counter()
            if step == "replot":  # matplotlib draws in one thread only
                with ProcessPoolExecutor(
                    config.pictures.workers, multiprocessing.get_context("spawn")
                ) as pool:
                    list(pool.map(partial(replot.run, config), numbers))
            elif step in PER_BIN:
                for number in numbers:
                    PER_BIN[step].run(config, number)
            elif step in ACROSS:
                ACROSS[step].run(config)
            print(f"{step}: {time.perf_counter() - begun:.1f} s", flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"results are in {config.files.output}")
    return 0


if __name__ == "__main__":
    warnings.simplefilter("default", rp.DataWarning)
    sys.exit(main())
