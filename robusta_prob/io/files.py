"""Files as a whole: one is replaced at once or not at all, one is opened only if it is sound."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file beside `path`; move it onto `path` at the end, or remove it on any failure.

    Nobody ever sees half a file, and a failure leaves an existing one untouched. Links are followed.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If the folder does not exist or is a file, if `path` is a folder, or if nothing may be made there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    temporary, target = _temporary(path)
    try:
        yield temporary
        if target.exists():
            shutil.copymode(target, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now what `atomic_path` would raise when there is something to lose."""
    temporary, _ = _temporary(path)
    temporary.unlink()


def remove_temporaries(path: str | os.PathLike[str]) -> None:
    """What a process left that was killed while it wrote `path`; only where no other process writes it."""
    target = Path(os.path.realpath(path))
    for left in target.parent.glob(f".{'[0-9a-f]' * 12}.{target.name}"):
        left.unlink(missing_ok=True)


def _temporary(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """A new empty file beside the target, and the target."""
    target = Path(os.path.realpath(path))
    folder = target.parent
    if not folder.exists():
        raise FileNotFoundError(f"cannot write {path}: the folder {folder} does not exist; make it first")
    if not folder.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {folder} is a file, not a folder")
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; give the name of a file in it")
    temporary = folder / f".{uuid.uuid4().hex[:12]}.{target.name}"
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except PermissionError as error:
        raise PermissionError(f"cannot write {path}: no permission to make files in {folder}") from error
    return temporary, target


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Open an HDF5 file for reading, as `h5py.File` does, with errors that say what is wrong.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a folder, empty, of another format, or cut short.
    """
    check_file(Path(path))
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file, it begins with {beginning(path)}")
    try:
        return h5py.File(path, "r")
    except (PermissionError, BlockingIOError):
        raise
    except OSError as error:
        raise ValueError(f"{path} is a damaged HDF5 file ({error}); copy or make it again") from error


def check_file(path: Path) -> None:
    """Refuse what is no file, or is empty."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path} (looked from {Path.cwd()})")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file in it")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); was it cut short? Copy or make it again")


def beginning(path: str | os.PathLike[str]) -> str:
    """The first bytes and what to do about them: the end of a message on a file of another format."""
    with open(path, "rb") as file:
        return f"{file.read(16)!r}; if its suffix is wrong, rename it; if it was cut short, copy it again"
