"""The command line: `robusta-prob demo | fit | project | score`, a thin shell over the library's functions.

Only this module prints, and only it touches `jax.config`: it keeps what JAX compiles in a folder of the
user's, so that the second run starts at once.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import jax
import numpy as np

import robusta_prob as rp
from robusta_prob.cli_arguments import parser
from robusta_prob.cli_processes import join
from robusta_prob.inference.iterate import NON_FINITE
from robusta_prob.io import atomic_path
from robusta_prob.scoring.table import most_surprising

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLAG = 0.05  # q-value below which an object is flagged
TOO_MANY = 0.2  # share of flagged objects that says more about the model than about the objects
ROWS_PRINTED = 10
DPI = 200
DEMO_RANK = 5  # that of `simulate.toy`
ERRORS = (ValueError, TypeError, KeyError, OSError, FloatingPointError, ImportError, MemoryError)

WRITTEN = {
    "survey.h5": "the spectra, for `robusta-prob fit`",
    "fit.h5": "the fit, for `robusta-prob score` and `project`",
    "scores.csv": "all objects, the most surprising first",
    "basis.png": "picture of the basis",
    "history.png": "picture of how the fit came to rest",
    "windows.csv": "where flagged objects are off: centre, width, depth",
    "surprise.png": "picture of the scores of all objects",
    "outliers.png": "picture of the most surprising objects",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0: done (a fit that did not converge warns); 1: the fit met a non-finite number; 2: an error of the
    input or the settings, in one line on stderr; 130: interrupted.

    Examples
    --------
    >>> main(["demo", "--objects", "300", "--pixels", "120", "-o", "demo"])  # doctest: +SKIP
    0
    """
    options = parser(rp.__version__).parse_args(argv)
    run = {"demo": _demo, "fit": _fit, "project": _project, "score": _score}[options.command]
    _keep_compiled()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=rp.DataWarning)
        warnings.filterwarnings("ignore", message=".*persistent compilation cache")
        warnings.showwarning = lambda message, *_, **__: _warn(_one_line(message))
        try:
            return run(options)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            print("\nrobusta-prob: interrupted", file=sys.stderr)
            return 130
        except ERRORS as error:
            if options.debug:
                raise
            print(f"robusta-prob: error: {_one_line(error)}", file=sys.stderr)
            return 2


# The commands ---------------------------------------------------------------------------------------


def _fit(options: argparse.Namespace) -> int:
    settings, leads = _settings(options), join(options)
    data = _read(options, options.dtype)
    if not leads:
        return int(rp.fit(data, options.rank, key=options.seed, **settings).status.code == NON_FINITE)
    with _folder(options.output) as folder:
        fit = _fit_and_write(data, options.rank, options, folder, **settings)
        if (folder / "scores.csv").exists():
            _warn(f"scores.csv in {folder} is of an earlier fit; score again")
    _say_where(options, folder, "fit.h5", "basis.png", "history.png")
    _say(options, "Next: " + shlex.join(["robusta-prob", "score", str(folder), options.file]))
    return int(fit.status.code == NON_FINITE)


def _project(options: argparse.Namespace) -> int:
    folder, fit = _load(options.fit)
    data = _read(options, str(fit.dtype))
    target = Path(options.output) if options.output else folder / "projection.h5"
    with atomic_path(target) as temporary:
        with rp.Progress("project", disable=True if options.quiet else None) as bar:
            projection = rp.project(fit, data, callback=bar)
        with h5py.File(temporary, "w") as file:
            file.attrs["format"], file.attrs["version"] = "robusta_prob.Projection", 1
            file.attrs["flux_name"], file.attrs["rank"] = fit.flux_name, fit.rank
            file["coefficients"], file["covariance"] = projection.coefficients, projection.covariance
            text = projection.ids.dtype.kind in "US"
            file["ids"] = projection.ids.astype(h5py.string_dtype()) if text else projection.ids
    _say(options, f"Coefficients of {data.shape[0]:,} objects on {fit.rank} basis vectors are in {target}")
    return 0


def _score(options: argparse.Namespace) -> int:
    run, fit = _load(options.fit)
    data = _read(options, str(fit.dtype))
    with _folder(options.output or run) as folder:
        _score_and_write(fit, data, options, folder)
    _say_where(options, folder, "scores.csv", "windows.csv", "surprise.png", "outliers.png")
    return 0


def _demo(options: argparse.Namespace) -> int:
    survey = rp.simulate.toy(options.objects, options.pixels, seed=options.seed)
    data = survey.data
    n, m = data.shape
    with _folder(options.output) as folder:
        rp.write(data, folder / "survey.h5")
        _say(options, f"Toy survey: {n:,} spectra x {m:,} pixels, of rank {DEMO_RANK}; {data.census}")
        fit = _fit_and_write(data, DEMO_RANK, options, folder)
        scores = _score_and_write(fit, data, options, folder)
    sine = rp.simulate.largest_angle(fit.basis, survey.truth.basis)
    _say(options, f"\nAgainst the truth, at q < {FLAG}:")
    _say(options, f"  sine of the largest angle between the basis and the true one: {sine:.4f}")
    for kind, text in (
        ("outlier", "outlier spectra found"),
        ("lines", "spectra with foreign lines found"),
        ("normal", "normal spectra flagged"),
    ):
        found = scores.flagged[data.meta["kind"] == kind]
        _say(options, f"  {text}: {found.sum():,} of {len(found):,}")
    _say_where(options, folder, *WRITTEN)
    spectra, run = str(folder / "survey.h5"), str(folder / "run")
    again = ["robusta-prob", "fit", spectra, "--rank", str(DEMO_RANK), "-o", run]
    _say(options, "Next: " + shlex.join(again))
    return int(fit.status.code == NON_FINITE)


# What they share ------------------------------------------------------------------------------------


def _fit_and_write(
    data: rp.Dataset, rank: int, options: argparse.Namespace, folder: Path, **settings: Any
) -> rp.Fit:
    from robusta_prob import plots

    began = time.perf_counter()
    with rp.Progress(tol=settings.get("tol", 0.01), disable=True if options.quiet else None) as bar:
        fit = rp.fit(data, rank, key=options.seed, callback=bar, **settings)
    rp.save(fit, folder / "fit.h5")
    _save(plots.basis(fit), folder / "basis.png")
    _save(plots.history(fit), folder / "history.png")
    message = fit.status.message
    if fit.status.ok:
        _say(options, f"Fit of rank {fit.rank}: {message} ({time.perf_counter() - began:.1f} s)")
    else:
        _warn(message)
    if str(fit.loss) != str(fit.noise):
        _say(options, f"Loss, fitted as given:         {fit.loss} [{fit.flux_name}]")
    _say(options, f"Noise, learned from residuals: {fit.noise} [{fit.flux_name}]")
    return fit


def _score_and_write(fit: rp.Fit, data: rp.Dataset, options: argparse.Namespace, folder: Path) -> rp.Surprise:
    from robusta_prob import plots

    chosen: dict[str, Any] = {
        name: getattr(options, name) for name in ("lines", "windows", "empirical_null") if name in options
    }
    with rp.Progress("score", disable=True if options.quiet else None) as bar:
        projection = rp.project(fit, data, callback=bar)
        scores = rp.surprise(fit, data, projection, callback=bar, **chosen)
    rp.write_scores(scores, data, folder / "scores.csv")
    rp.write_windows(scores, folder / "windows.csv")
    _save(plots.overview(scores, data), folder / "surprise.png")
    _save(plots.outliers(fit, data, scores, options.top, projection), folder / "outliers.png")
    null = scores.null
    nu = 1.0 / null.inverse_df if null.inverse_df > 0.0 else math.inf
    law = f"core Student t, nu = {nu:.3g}, scale {null.scale:.3g}; contamination {null.contamination:.2g}"
    _say(options, f"Null law of a normal pixel: {law}")
    bulk, beyond = scores.empirical, len(null.correlation)
    if beyond:
        _say(
            options,
            f"Residuals are correlated over {beyond} pixels, {null.correlation[0]:.2g} from one to the next",
        )
    applied = "p-values are taken against it" if bulk.applied else "0 and 1 where the null law holds"
    runs = f", of runs {bulk.run_centre:.2f} +- {bulk.run_width:.2f}" if bulk.run_width > 0 else ""
    _say(options, f"Bulk of the objects: z = {bulk.centre:.2f} +- {bulk.width:.2f}{runs} ({applied})")
    n, flagged = data.shape[0], int(scores.flagged.sum())
    _say(options, f"\nThe most surprising of {n:,} objects:\n{most_surprising(scores, ROWS_PRINTED)}")
    kinds, counts = np.unique(scores.object.kind[scores.flagged], return_counts=True)
    what = "; ".join(f"{kind}: {count:,}" for kind, count in zip(kinds, counts, strict=True))
    _say(options, f"{flagged:,} of {n:,} objects are flagged, q < {FLAG}{f' ({what})' if what else ''}.")
    if flagged > TOO_MANY * n:
        _warn(
            f"{100 * flagged / n:.0f} % of the objects are flagged: that says more about the model "
            "than about them. Try a higher rank; until then trust the ranking, not the p-values"
        )
    return scores


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    given = [f"--{name}" for name in rp.Noise._fields if getattr(options, name) is not None]
    if options.published is not None and given:
        raise ValueError(f"--published fixes the whole noise law: leave out {' and '.join(given)}")
    given_law = rp.Noise(*(getattr(options, name) for name in rp.Noise._fields))
    law = given_law if options.published is None else rp.Noise(1.0, options.published, 0.0)
    return {
        "noise": law,
        "prior": rp.Prior.flat() if options.flat_prior or options.published is not None else rp.Prior(),
        "max_epochs": options.max_epochs,
        "checkpoint": options.checkpoint,
        "tol": options.tol,
    }


def _read(options: argparse.Namespace, dtype: str) -> rp.Dataset:
    roles = ("flux", "ivar", "grid", "ids", "mask")
    names = {role: getattr(options, role) for role in roles if getattr(options, role)}
    data = rp.read(
        options.file, dtype=dtype, mask_bits=options.mask_bits, in_memory=not options.on_disk, **names
    )
    n, m = data.shape
    _say(options, f"{options.file}: {n:,} objects x {m:,} pixels; {data.census}")
    return data


def _load(run: str) -> tuple[Path, rp.Fit]:
    path = Path(run)
    path = path if path.is_file() else path / "fit.h5"
    return path.parent, rp.load(path)


@contextmanager
def _folder(name: str | Path) -> Iterator[Path]:
    """A folder that can be written to; made where needed, and unmade if it is still empty after an error."""
    folder = Path(name)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"cannot write to the folder {folder}: there is a file of that name"
        ) from error
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder}: {error.strerror}") from error
    try:
        yield folder
    except BaseException:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        raise


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def _keep_compiled() -> None:
    """Keep what JAX compiles in a folder of the user's, if one can be written: the next run starts sooner."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "robusta-prob", "jax"))
    if not name:
        return
    try:
        folder = Path(name).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # no such home, or not ours
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(text, flush=True)


def _say_where(options: argparse.Namespace, folder: Path, *names: str) -> None:
    width = max(len(str(folder / name)) for name in names)
    _say(options, f"Results are in {folder}:")
    _say(options, "\n".join(f"  {folder / name!s:<{width}}  {WRITTEN[name]}" for name in names))


def _warn(text: str) -> None:
    print(f"robusta-prob: warning: {text}", file=sys.stderr)


def _one_line(error: object) -> str:
    if isinstance(error, KeyError) and error.args:
        error = error.args[0]
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
