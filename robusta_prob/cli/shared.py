"""What the commands share: reading, folders, pictures, and words.

Only this module prints, and only it touches `jax.config`: it keeps what JAX compiles in a folder of the
user's, so that the second run starts at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jax

import robusta_prob as rp
from robusta_prob.io import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
NO_OPTIONS = {"command", "file", "fit", "run"}  # what the parser knows beside options
ROLES = ("flux", "ivar", "error", "grid", "ids", "mask")  # of arrays in a file

WRITTEN = {
    "survey.h5": "the spectra, for `robusta-prob fit`",
    "selection.csv": "scores of all candidates",
    "selection.png": "picture of the scores of all candidates",
    "relevance.csv": "scores of the first 1, 2, ... components of the one fit",
    "relevance.png": "picture of these scores",
    "fits": "a fit to the training objects for each candidate, used again by the same command",
    "fit.h5": "the fit, for `robusta-prob score` and `project`",
    "scores.csv": "all objects, the most surprising first",
    "basis.png": "picture of the basis",
    "history.png": "picture of how the fit came to rest",
    "scores.h5": "the scores as they are in Python, for `robusta-prob report`",
    "scores.json": "of which fit and which spectra they are",
    "windows.csv": "where flagged objects are off: centre, width, depth",
    "surprise.png": "picture of the scores of all objects",
    "outliers.png": "picture of the most surprising objects",
}


# Data and settings ----------------------------------------------------------------------------------


def read(options: argparse.Namespace, dtype: str) -> rp.Dataset:
    """The spectra in FILE."""
    names = {role: getattr(options, role) for role in ROLES if getattr(options, role)}
    data = rp.read(
        options.file, dtype=dtype, mask_bits=options.mask_bits, in_memory=not options.on_disk, **names
    )
    n, m = data.shape
    say(options, f"{options.file}: {n:,} objects x {m:,} pixels; {data.census}")
    return data


def names_of(options: argparse.Namespace) -> list[str]:
    """The arguments that say how a file is read."""
    named = [word for role in ROLES if (name := getattr(options, role)) for word in (f"--{role}", name)]
    bits = ["--mask-bits", ",".join(map(str, options.mask_bits))] if options.mask_bits else []
    return named + bits + (["--on-disk"] if options.on_disk else [])


def fit_file(run: str) -> Path:
    """The file of an earlier fit, by its own name or by that of its folder."""
    path = Path(run)
    return path if path.is_file() else path / "fit.h5"


def load(run: str) -> tuple[Path, rp.Fit]:
    """The folder of an earlier fit, and the fit."""
    path = fit_file(run)
    return path.parent, rp.load(path)


def law(options: argparse.Namespace) -> tuple[rp.Noise, list[str]]:
    """The noise law asked for, and the arguments that say so."""
    given = [f"--{name}" for name in rp.Noise._fields if getattr(options, name) is not None]
    return rp.Noise(*(getattr(options, name) for name in rp.Noise._fields)), given


# Files ----------------------------------------------------------------------------------------------


@contextmanager
def writable(name: str | Path) -> Iterator[Path]:
    """A folder that can be written to; made where needed, and unmade if it is still empty after an error."""
    path = Path(name)
    made = [one for one in (path, *path.parents) if not one.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(
            f"cannot write to the folder {path}: there is a file of that name"
        ) from error
    except OSError as error:
        raise OSError(f"cannot write to the folder {path}: {error.strerror}") from error
    try:
        yield path
    except BaseException:
        for one in made:
            if one.is_dir() and not any(one.iterdir()):
                one.rmdir()
        raise


def save(figure: Figure, path: Path) -> None:
    """A picture, written as a whole."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def keep_compiled() -> None:
    """Keep what JAX compiles in a folder of the user's, if one can be written: the next run starts sooner."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "robusta-prob", "jax"))
    if not name:
        return
    try:
        path = Path(name).expanduser()
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except (OSError, RuntimeError):  # no such home, or not ours
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


# Words ----------------------------------------------------------------------------------------------


def say(options: argparse.Namespace, text: str) -> None:
    """A line on stdout, unless --quiet."""
    if not options.quiet:
        print(text, flush=True)


def say_where(options: argparse.Namespace, folder: Path, *names: str) -> None:
    """What was written, and what it is."""
    width = max(len(str(folder / name)) for name in names)
    say(options, f"Results are in {folder}:")
    say(options, "\n".join(f"  {folder / name!s:<{width}}  {WRITTEN[name]}" for name in names))


def warn(text: str) -> None:
    """A warning on stderr."""
    complain(f"warning: {text}")


def complain(text: str, begin: str = "") -> None:
    """A line on stderr."""
    print(f"{begin}robusta-prob: {text}", file=sys.stderr)


def one_line(error: object) -> str:
    """An error or a warning without line breaks."""
    if isinstance(error, KeyError) and error.args:
        error = error.args[0]
    return " ".join(str(error).split()) or type(error).__name__


def as_options(text: str, options: argparse.Namespace) -> str:
    """The text with this command's options in place of arguments in Python: --ivar for ivar= or `ivar`."""
    names = "|".join(sorted(set(vars(options)) - NO_OPTIONS, key=len, reverse=True))
    argument = (
        rf"`({names})`|(?<![\w/'\"])({names})=(?=[ ,.;:)]|$)"  # in a path or in quotes it is the user's
    )
    return re.sub(argument, lambda m: f"--{(m[1] or m[2]).replace('_', '-')}", text)
