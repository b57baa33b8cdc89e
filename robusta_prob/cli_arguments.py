"""What `robusta-prob` can be asked: its commands, their arguments and their help."""

from __future__ import annotations

import argparse
from typing import Any

from robusta_prob import cli_processes

FIT_HELP = """\
Learn a robust low-rank basis from spectra with errors, holes and outliers.

In:   FILE, an .npz, .h5 or .fits file with flux (objects x pixels) and inverse variances or errors of the
      same shape; a grid (wavelengths), ids and further columns are found by their usual names.
Out:  RUN/fit.h5 (the fit), RUN/basis.png and RUN/history.png (pictures of it)."""
PROJECT_HELP = """\
Coefficients, with covariances, of spectra on the basis of an earlier fit.

In:   RUN, the folder of `robusta-prob fit` (or its fit.h5), and FILE, spectra on the same pixels.
Out:  an HDF5 file with coefficients (objects x rank), covariance (objects x rank x rank) and ids."""
SCORE_HELP = """\
How unexpected every object is under an earlier fit, as a calibrated probability.

In:   RUN, the folder of `robusta-prob fit` (or its fit.h5), and FILE, spectra on the same pixels: those of
      the fit or new ones.
Out:  scores.csv (one line per object, the most surprising first, with all metadata columns of FILE),
      windows.csv (where flagged objects are off), surprise.png (all objects) and outliers.png (the most
      surprising ones), in RUN unless -o says where."""
DEMO_HELP = """\
Simulate a small survey with known outliers, fit it, score it, and say how much of the truth was found.

In:   nothing.
Out:  in the folder DEMO: survey.h5 (the spectra, for `robusta-prob fit`), and what fit and score write."""


def parser(version: str) -> argparse.ArgumentParser:
    """The parser of the command line; what it returns names the command in `.command`.

    Examples
    --------
    >>> parser("1.0").parse_args(["fit", "stars.h5", "--rank", "8", "-o", "run"]).rank
    8
    """
    top = argparse.ArgumentParser(
        "robusta-prob",
        description="Robust low-rank models of spectra with errors, holes and outliers: "
        "fit one, then rank the spectra that it cannot explain.",
        epilog="first steps: robusta-prob demo; help on a command: robusta-prob fit --help",
    )
    top.add_argument("--version", action="version", version=f"robusta-prob {version}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)

    def command(name: str, summary: str, text: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=text,
            epilog=f"example:\n  robusta-prob {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("-q", "--quiet", action="store_true", help="print warnings and errors only")
        added.add_argument("--debug", action="store_true", help="show where an error came from")
        return added

    _demo_arguments(command("demo", "simulate a survey, fit it, score it", DEMO_HELP, "-o demo"))
    _fit_arguments(
        command("fit", "learn a robust basis from spectra", FIT_HELP, "spectra.h5 --rank 8 -o run")
    )
    _project_arguments(
        command("project", "coefficients of spectra on an earlier fit", PROJECT_HELP, "run new.h5")
    )
    _score_arguments(
        command("score", "rank spectra by how unexpected they are", SCORE_HELP, "run spectra.h5")
    )
    return top


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", metavar="DEMO", default="demo", help="folder to write to (default: demo)")
    add("--objects", type=int, default=2000, metavar="N", help="how many spectra (default: 2000)")
    add("--pixels", type=int, default=600, metavar="M", help="of how many pixels (default: 600)")
    add("--seed", type=int, default=0, help="another seed, another survey (default: 0)")
    _top(parser)


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="spectra: .npz, .h5, .hdf5, .fits")
    add("-k", "--rank", type=int, required=True, metavar="K", help="number of basis vectors")
    add("-o", "--output", required=True, metavar="RUN", help="folder to write to, made where needed")
    add = parser.add_argument_group("the model (what is left out is learned)").add_argument
    add("--nu", type=float, help="degrees of freedom of the Student t noise; inf is Gaussian")
    add("--scale", type=float, help="factor on the given errors")
    add(
        "--floor", type=_floor, help="error added in quadrature, in the unit of the flux; pixel: one for each"
    )
    add("--contamination", type=float, metavar="SHARE", help="share of bad cells; 0 where --nu is given")
    add("--flat-prior", action="store_true", help="no population behind the coefficients: maximum likelihood")
    add(
        "--published",
        type=float,
        metavar="Q",
        help="as in the paper: --nu 1 --scale Q --floor 0 --contamination 0 --flat-prior",
    )
    add = parser.add_argument_group("the run").add_argument
    add("--seed", type=int, default=0, help="the same seed gives the same fit (default: 0)")
    add(
        "--max-epochs", type=int, default=500, metavar="N", help="passes over the data at most (default: 500)"
    )
    add("--tol", type=float, default=0.01, help="end this close to rest, in posterior sd (default: 0.01)")
    add(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of the computation (default: float32)",
    )
    add(
        "--checkpoint",
        metavar="FILE",
        help="save what is done here, every half minute at most: the same command, again, goes on from it",
    )
    cli_processes.add_arguments(parser)
    _names(parser)


def _project_arguments(parser: argparse.ArgumentParser) -> None:
    _run_and_file(parser)
    parser.add_argument("-o", "--output", metavar="OUT.h5", help="file to write (default: RUN/projection.h5)")
    _names(parser)


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    _run_and_file(parser)
    parser.add_argument("-o", "--output", metavar="DIR", help="folder to write to (default: RUN)")
    _top(parser)
    group = parser.add_argument_group("what to look for")
    group.add_argument(
        "--lines",
        type=_lines,
        action=_Named,
        metavar="NAME=X,X,...",
        help="positions that are looked at together, in units of the grid; may be repeated",
    )
    group.add_argument("--windows", type=_widths, metavar="W,W,...", help="widths of runs [pixels]")
    group.add_argument(
        "--empirical-null",
        action="store_true",
        help="judge objects against the bulk of them: for surveys whose errors are wrong for everyone",
    )
    _names(parser)


class _Named(argparse.Action):
    """Collect (name, positions) in a mapping."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        (name, positions), known = values, getattr(namespace, self.dest) or {}
        if name in known:
            raise argparse.ArgumentError(self, f"two sets are called {name}; give each a name of its own")
        setattr(namespace, self.dest, {**known, name: positions})


def _lines(text: str) -> tuple[str, list[float]]:
    name, _, positions = text.rpartition("=")
    try:
        return name or "lines", [float(x) for x in positions.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like CaII=8498,8542,8662; got {text!r}") from None


def _widths(text: str) -> list[int]:
    try:
        return [int(x) for x in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 2,4,8; got {text!r}") from None


def _run_and_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fit", metavar="RUN", help="folder of an earlier `robusta-prob fit`, or its fit.h5")
    parser.add_argument("file", metavar="FILE", help="spectra: .npz, .h5, .hdf5, .fits")


def _names(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("names of the arrays in FILE, where they are not the usual ones")
    group.add_argument("--flux", metavar="NAME", help="(objects x pixels) measurements")
    group.add_argument("--ivar", metavar="NAME", help="(objects x pixels) inverse variances; 0 is missing")
    group.add_argument("--grid", metavar="NAME", help="(pixels) coordinates, such as wavelengths")
    group.add_argument("--ids", metavar="NAME", help="(objects) unique integers or strings")
    group.add_argument("--mask", metavar="NAME", help="(objects x pixels) where not 0, the cell is missing")
    group.add_argument(
        "--mask-bits",
        type=_bits,
        metavar="B,B,...",
        help="numbers of the bits of the mask that mean bad, such as 1,5,12 (default: all)",
    )
    parser.add_argument(
        "--on-disk",
        action="store_true",
        help="leave the spectra in FILE (HDF5) and read them block by block: for more than fits into memory",
    )


def _top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--top", type=_positive, default=6, metavar="N", help="objects in outliers.png (default: 6)"
    )


def _bits(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"must be numbers of bits, such as 1,5,12, got {text!r}")
    return [int(number) for number in numbers]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _floor(text: str) -> float | str:
    """A number, or the word for one floor per pixel."""
    try:
        return text if text == "pixel" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number or the word pixel, got {text!r}") from None
