"""What `robusta-prob` can be asked: its commands, their arguments and their help."""

from __future__ import annotations

import argparse

from robusta_prob.cli import processes, values

FIT_HELP = """\
Learn a robust low-rank basis from spectra with errors, holes and outliers.

In:   FILE, an .npz, .h5 or .fits file with flux (objects x pixels) and inverse variances or errors of the
      same shape; a grid (wavelengths), ids and further columns are found by their usual names.
Out:  RUN/fit.h5 (the fit), RUN/basis.png and RUN/history.png (pictures of it)."""
SELECT_HELP = """\
Choose the number of basis vectors by how well spectra are predicted that they were not learned from.

In:   FILE, spectra as for `robusta-prob fit`.
Out:  RUN/selection.csv (scores of all candidates), RUN/selection.png (a picture of them), RUN/fits (a fit to
      the training objects for each: the same command, again, does not repeat those that are done)."""
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
      surprising ones), in RUN unless -o says where; scores.h5 and scores.json for `robusta-prob report`."""
REPORT_HELP = """\
A page to explore a run with: every object and its spectrum, linked, in one HTML file that works offline.

In:   RUN, the folder that `robusta-prob score` (or `robusta-prob demo`) wrote to; and SPECTRA, where the file
      of spectra is no longer where it was.
Out:  RUN/report.html, and RUN/embedding.csv, where objects lie on its map. Needs: pip install
      'robusta-prob[report]', and for a map by UMAP 'robusta-prob[umap]'."""
DEMO_HELP = """\
Simulate a small survey with known outliers, fit it, score it, and say how much of the truth was found.

In:   nothing.
Out:  in the folder DEMO: survey.h5 (the spectra, for `robusta-prob fit`), and what fit and score write."""

SPECTRA = "spectra: .npz, .h5, .hdf5, .fits"


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
    _select_arguments(
        command("select", "choose the rank of a fit", SELECT_HELP, "spectra.h5 --ranks 1-8 -o run")
    )
    _fit_arguments(
        command("fit", "learn a robust basis from spectra", FIT_HELP, "spectra.h5 --rank 8 -o run")
    )
    _project_arguments(
        command("project", "coefficients of spectra on an earlier fit", PROJECT_HELP, "run new.h5")
    )
    _score_arguments(
        command("score", "rank spectra by how unexpected they are", SCORE_HELP, "run spectra.h5")
    )
    _report_arguments(command("report", "a page to explore a run with", REPORT_HELP, "run"))
    return top


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", metavar="DEMO", default="demo", help="folder to write to (default: demo)")
    add("--objects", type=int, default=2000, metavar="N", help="how many spectra (default: 2000)")
    add("--pixels", type=int, default=600, metavar="M", help="of how many pixels (default: 600)")
    add("--seed", type=int, default=0, help="another seed, another survey (default: 0)")
    _top(parser)


def _select_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help=SPECTRA)
    add(
        "-k",
        "--ranks",
        type=values.ranks,
        required=True,
        metavar="K-K",
        help="numbers of basis vectors that compete, such as 1-8 or 2,4,8",
    )
    add("-o", "--output", required=True, metavar="RUN", help="folder to write to, made where needed")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--scales",
        type=values.scales,
        metavar="Q,Q,...",
        help="for each rank fit the published loss with these scales, as `fit --published Q` does",
    )
    ways.add_argument(
        "--one-fit",
        action="store_true",
        help="a quick look: fit the largest rank only, and see how many of its vectors are of use",
    )
    add = parser.add_argument_group("how candidates are judged").add_argument
    add("--train", type=float, default=0.5, metavar="SHARE", help="of the objects, to fit (default: 0.5)")
    add(
        "--hidden",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="of the pixels of all others, to be predicted, up to 0.5 (default: 0.2)",
    )
    add(
        "--guard",
        type=int,
        metavar="N",
        help="pixels on either side that are hidden too (default: as far as noise is correlated)",
    )
    add("--group", metavar="COLUMN", help="of FILE: objects that agree in it stay together, and count as one")
    _model(parser)
    _run(parser, max_epochs=60, tol=0.1)
    _names(parser)


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help=SPECTRA)
    add("-k", "--rank", type=int, required=True, metavar="K", help="number of basis vectors")
    add("-o", "--output", required=True, metavar="RUN", help="folder to write to, made where needed")
    _model(parser).add_argument(
        "--published",
        type=float,
        metavar="Q",
        help="as in the paper: --nu 1 --scale Q --floor 0 --contamination 0 --flat-prior",
    )
    _run(parser, max_epochs=500, tol=0.01).add_argument(
        "--checkpoint",
        metavar="FILE",
        help="save what is done here, every half minute at most: the same command, again, goes on from it",
    )
    processes.add_arguments(parser)
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
        type=values.lines,
        action=values.Named,
        metavar="NAME=X,X,...",
        help="positions that are looked at together, in units of the grid; may be repeated",
    )
    group.add_argument("--windows", type=values.widths, metavar="W,W,...", help="widths of runs [pixels]")
    group.add_argument(
        "--empirical-null",
        action="store_true",
        help="judge objects against the bulk of them: for surveys whose errors are wrong for everyone",
    )
    _names(parser)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="folder that `robusta-prob score` wrote to")
    add(
        "file",
        metavar="SPECTRA",
        nargs="?",
        help="default: the spectra that were scored, where they were",
    )
    add("-o", "--output", metavar="PAGE.html", help="file to write (default: RUN/report.html)")
    add("--title", help="of the page (default: the name of the folder)")
    add(
        "--spectra",
        choices=("all", "flagged"),
        default="all",
        help="which objects bring their spectra: all that there is room for, flagged ones first (default), "
        "or flagged ones alone",
    )
    add(
        "--limit",
        type=float,
        default=55.0,
        metavar="MB",
        help="size of the page; what has no room brings no spectrum (default: 55)",
    )
    add(
        "--lines",
        type=values.lines,
        action=values.Named,
        metavar="NAME=X,X,...",
        help="positions to mark, in units of the grid; may be repeated (default: those that were scored)",
    )


def _model(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("the model (what is left out is learned)")
    add = group.add_argument
    add("--nu", type=float, help="degrees of freedom of the Student t noise; inf is Gaussian")
    add("--scale", type=float, help="factor on the given errors")
    add(
        "--floor",
        type=values.floor,
        help="error added in quadrature, in the unit of the flux; pixel: one for each",
    )
    add("--contamination", type=float, metavar="SHARE", help="share of bad cells; 0 where --nu is given")
    add("--flat-prior", action="store_true", help="no population behind the coefficients: maximum likelihood")
    return group


def _run(parser: argparse.ArgumentParser, max_epochs: int, tol: float) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("the run")
    add = group.add_argument
    add("--seed", type=int, default=0, help="the same seed gives the same fit (default: 0)")
    add(
        "--max-epochs",
        type=int,
        default=max_epochs,
        metavar="N",
        help=f"passes over the data at most (default: {max_epochs})",
    )
    add("--tol", type=float, default=tol, help=f"end this close to rest, in posterior sd (default: {tol:g})")
    add(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of the computation (default: float32)",
    )
    return group


def _run_and_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("fit", metavar="RUN", help="folder of an earlier `robusta-prob fit`, or its fit.h5")
    parser.add_argument("file", metavar="FILE", help=SPECTRA)


def _names(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("names of the arrays in FILE, where they are not the usual ones")
    group.add_argument("--flux", metavar="NAME", help="(objects x pixels) measurements")
    group.add_argument("--ivar", metavar="NAME", help="(objects x pixels) inverse variances; 0 is missing")
    group.add_argument("--grid", metavar="NAME", help="(pixels) coordinates, such as wavelengths")
    group.add_argument("--ids", metavar="NAME", help="(objects) unique integers or strings")
    group.add_argument("--error", metavar="NAME", help="(objects x pixels) errors, in place of --ivar")
    group.add_argument("--mask", metavar="NAME", help="(objects x pixels) where not 0, the cell is missing")
    group.add_argument(
        "--mask-bits",
        type=values.bits,
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
        "--top", type=values.positive, default=6, metavar="N", help="objects in outliers.png (default: 6)"
    )
