"""One candidate of a grid: fitted, from its neighbour where there is one, or taken from its file."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from robusta_prob.data import Dataset
from robusta_prob.inference.fitting import fit
from robusta_prob.inference.initialise import STARTS, Start, majority
from robusta_prob.inference.journal import digest
from robusta_prob.inference.results import Fit
from robusta_prob.inference.storage import load, save
from robusta_prob.io import check_writable
from robusta_prob.models.noise import Noise
from robusta_prob.models.priors import Prior

VOTES = 2000  # objects that tell along which directions a smaller rank begins


class Settings(NamedTuple):
    """What all fits of a grid have in common."""

    noise: Noise
    prior: Prior | None  # None: flat for the published loss, else learned
    seed: int
    tol: float
    max_epochs: int
    folder: Path | None
    marks: Mapping[str, Any]  # of the training objects

    def law(self, scale: float | None) -> tuple[Noise, Prior]:
        """The noise and the prior of one fit."""
        if scale is None:
            return self.noise, self.prior or Prior()
        return Noise(1.0, scale, 0.0), self.prior or Prior.flat()


def fitted(
    train: Dataset,
    rank: int,
    scale: float | None,
    settings: Settings,
    near: Fit | Start | None,
    halt: threading.Event | None = None,
) -> Fit:
    """The fit of one candidate: from its file, from a fit of the same rank, or from a larger start."""
    noise, prior = settings.law(scale)
    path = None if settings.folder is None else file_of(settings.folder, rank, scale)
    epochs = settings.max_epochs
    if isinstance(near, Fit):
        epochs = max(1, epochs // 2)  # it has those of its neighbour behind it
    if path is not None and path.exists():
        kept = checked(load(path), path, rank, noise, prior, settings)
        if kept.status.ok or kept.config["max_epochs"] >= epochs:
            return kept
    begin: dict[str, Any] = {}
    if isinstance(near, Fit):
        begin = {"init": near}
    elif near is not None:
        fewer = majority(near, rank, settings.seed)
        begin = {"init": fewer.basis, "starts": len(STARTS)}

    def look(_: Any) -> None:
        if halt is not None and halt.is_set():
            raise InterruptedError("another fit of the grid failed")

    new = fit(
        train,
        rank,
        noise=noise,
        prior=prior,
        key=settings.seed,
        tol=settings.tol,
        max_epochs=epochs,
        callback=look,
        checkpoint=None if path is None else unfinished(path, begin),
        **begin,
    )
    if path is not None:
        new = replace(new, config=dict(new.config) | dict(settings.marks))
        save(new, path)
        for one in path.parent.glob(f"{path.stem}-from-*.checkpoint"):  # a short fit has none
            one.unlink(missing_ok=True)
    return new


def checked(one: Fit, path: Path, rank: int, noise: Noise, prior: Prior, settings: Settings) -> Fit:
    """A fit that was kept, if it is of these objects and settings."""
    wanted = {
        "rank": rank,
        "noise": noise,
        "prior": "flat" if prior.is_flat else "population",
        "seed": settings.seed,
        "tol": settings.tol,
        **settings.marks,
    }
    other = [
        name if name in settings.marks else f"{name} {one.config.get(name)!r} (now {x!r})"
        for name, x in wanted.items()
        if one.config.get(name) != x
    ]
    if other:
        raise ValueError(f"{path} is of other {', '.join(other)}; choose another folder, or remove the file")
    return one


def thinned(one: Fit) -> Start:
    """What a smaller rank begins at: a basis, and enough coefficients to tell what the majority does."""
    return Start(one.basis, one.coefficients[:: max(1, len(one.coefficients) // VOTES)])


def unfinished(path: Path, begin: Mapping[str, Any]) -> Path:
    """Where a fit that was killed goes on; one that begins elsewhere, in another grid, is another."""
    init = begin.get("init")
    name = "starts" if init is None else digest(getattr(init, "basis", init))
    return path.with_name(f"{path.stem}-from-{name}.checkpoint")


def file_of(folder: Path, rank: int, scale: float | None) -> Path:
    """Where a candidate is kept."""
    return folder / (f"rank-{rank:03d}.h5" if scale is None else f"rank-{rank:03d}-scale-{scale!r}.h5")


def made(folder: str | PathLike[str] | None) -> Path | None:
    """The folder, where one is wanted; a file of its name, or one that cannot be written to, raises now."""
    if folder is None:
        return None
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    check_writable(path / "rank.h5")
    return path
