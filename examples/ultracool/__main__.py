"""`python -m examples.ultracool STEP`: does robustness give a better basis on real spectra?

    python -m examples.ultracool run --data spex_prism.npz -o out     everything, on the real spectra
    python -m examples.ultracool run --simulate small -o out          everything, on simulated ones
    python -m examples.ultracool prepare SPLAT_FOLDER --data FILE     make that file from a copy of SPLAT

Begun again, it goes on: every fit is kept, and none is made twice.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import robusta_prob as rp
from examples.ultracool import figures, prepare, rivals, run, simulate, tables
from examples.ultracool.config import PACKAGE, PRESETS, Config

SIMULATED = "simulated.npz"


def write_tables(config: Config) -> None:
    """Of what there is: a run that was stopped has not compared its halves yet."""
    run.agree(config)
    tables.main(config)


STEPS = {"fit": run.main, "tables": write_tables, "figures": figures.main}


def parser() -> argparse.ArgumentParser:
    """What can be asked for."""
    one = argparse.ArgumentParser(
        "python -m examples.ultracool",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("step", choices=["prepare", "simulate", "fit", "tables", "figures", "run"])
    one.add_argument("splat", nargs="?", type=Path, help="of prepare: folder with a copy of SPLAT")
    one.add_argument("--data", type=Path, help="the file of spectra (default: spex_prism.npz)")
    one.add_argument("--config", type=Path, help="TOML file with what differs from the defaults")
    one.add_argument(
        "--simulate", choices=[*PRESETS], metavar="SIZE", help=f"simulated: {', '.join(PRESETS)}"
    )
    one.add_argument("--splits", type=int, help="how many")
    one.add_argument("-o", "--output", type=Path, help="folder for the results (default: ultracool_run)")
    return one


def located(options: argparse.Namespace) -> Config:
    """The configuration, with what the command line changes."""
    config = Config.read(options.config, options.simulate).located(output=options.output)
    if config.simulation.objects:
        config = config.located(data=config.files.output / SIMULATED)
    if options.splits is not None:
        config = replace(config, splits=replace(config.splits, number=options.splits))
    return config.located(data=options.data).checked()


def main(arguments: list[str] | None = None) -> int:
    """Do one step, or all."""
    options = parser().parse_args(arguments)
    try:
        config = located(options)
        if options.step == "prepare":
            if options.splat is None:
                raise ValueError("which copy of SPLAT? python -m examples.ultracool prepare SPLAT_FOLDER")
            print(prepare.prepare(options.splat, config.files.data))
            return 0
        if options.step == "simulate" and not config.simulation.objects:
            raise ValueError("how large? Say --simulate small")
        config.files.output.mkdir(parents=True, exist_ok=True)
        if config.simulation.objects and not config.files.data.exists():
            simulate.simulate(config.files.data, config.simulation)
        if PACKAGE in config.fits.methods and rivals.package_python() is None:
            print(f"{PACKAGE} is left out: it is not installed (make ultracool does it)")
        config = replace(config, fits=rivals.without_package(config.fits))
        for name, step in STEPS.items():
            if options.step in (name, "run"):
                begun = time.perf_counter()
                step(config)
                print(f"{name}: {time.perf_counter() - begun:.1f} s", flush=True)
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
