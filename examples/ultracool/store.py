"""Where results are kept: a file each, written as a whole or not at all."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import robusta_prob as rp
from examples.ultracool import survey
from examples.ultracool.config import Config
from examples.ultracool.splits import Half
from robusta_prob.io import atomic_path


@lru_cache(maxsize=1)
def load(path: Path) -> rp.Dataset:
    """The spectra, once per process."""
    return survey.read(path)


def slug(method: str) -> str:
    """A method's name in file names."""
    return method.replace(", ", "-").replace(" % ", "-percent-").replace(" ", "-").lower()


def basis_path(config: Config, which: Half, method: str, rank: int) -> Path:
    """Where a basis is kept."""
    return config.files.output / "bases" / which.folder / f"{slug(method)}-K{rank}.npy"


def judged_path(config: Config, which: Half, method: str, rank: int) -> Path:
    """Where is kept what the other half says of it."""
    return config.files.output / "judged" / which.folder / f"{slug(method)}-K{rank}.json"


def write_json(content: Any, path: Path) -> None:
    """As a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def write_array(values: np.ndarray, path: Path) -> None:
    """As a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)


def agreement_path(config: Config, split: int, contamination: str, method: str, rank: int) -> Path:
    """Where is kept how alike the bases of the two halves are."""
    return (
        config.files.output / "agreement" / contamination / f"split{split}" / f"{slug(method)}-K{rank}.json"
    )


def scores_path(config: Config, method: str, rank: int) -> Path:
    """Where the scores of all objects are."""
    return config.files.output / "search" / f"{slug(method)}-K{rank}.npz"
