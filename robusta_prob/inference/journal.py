"""What a long fit has done so far, so that it need not be done again after it was killed.

A fit is a sequence of deterministic steps. The journal has what each of them came to, and the state after the
last one: begun again, the same code runs through the same steps, and those that are in the journal give what
they gave, without being done.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import numpy as np

from robusta_prob import io
from robusta_prob.data import Dataset, DataWarning
from robusta_prob.inference import accelerate, em, iterate, m_step, noise_step, parts, processes, quantities
from robusta_prob.inference.sweep import BLOCK
from robusta_prob.models.noise import NoiseLaw
from robusta_prob.models.priors import Prior

FORMAT, VERSION = "robusta_prob.checkpoint", 3
SAMPLE = 256  # objects whose every number tells the data from other data
COST = 20.0  # times as long as a save took, nothing is saved again
KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        accelerate.Leaps,
        em.Past,
        em.State,
        iterate.Epoch,
        iterate.Status,
        m_step.Memory,
        m_step.Moves,
        noise_step.NoiseSums,
        noise_step.Pace,
        parts.Part,
        parts.Parts,
        quantities.Globals,
        quantities.Local,
        quantities.Population,
        quantities.Statistics,
        NoiseLaw,
    )
}


class Checkpoint(NamedTuple):
    """Where a long fit saves what it has done, and how often.

    A fit that was killed is begun again by the same call, and ends as if it had not been: bit for bit on the
    same machine with the same versions, to rounding otherwise. The file remains; of a fit that has ended it
    gives the result again in a few passes.

    Of several processes each has a file of its own, `path` with its number at the end, and the one before it.
    After one was lost all are started again, as many as there were.
    """

    path: str | PathLike[str]
    seconds: float = 30.0  # between two saves at least; 0: after every pass, whatever it costs

    def validated(self) -> Checkpoint:
        """`self`, or an error that says what is wrong: now, not after an hour."""
        if not (isinstance(self.seconds, int | float) and self.seconds >= 0):
            raise ValueError(f"a checkpoint's seconds must be at least 0, got {self.seconds!r}")
        io.check_writable(self.path)
        return self._replace(path=Path(self.path))


class Journal:
    """Steps done, in their order; without a `checkpoint` nothing is kept."""

    def __init__(self, checkpoint: Checkpoint | None, facts: Mapping[str, Any]) -> None:
        self._checkpoint, self._facts = checkpoint, dict(facts)
        self._steps: list[tuple[str, Any]] = []
        self._states: dict[str, tuple[int, Any]] = {}  # by slot: after which step, and the state
        self._next, self._saved, self._pause = 0, time.monotonic(), 0.0
        self._path = Path() if checkpoint is None else _own(Path(checkpoint.path))
        if checkpoint is not None:
            io.remove_temporaries(self._path)
            self._go_on_from(self._path)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint | str | PathLike[str] | None,
        data: Dataset,
        settings: Mapping[str, Any],
        prior: Prior,
        init: Any,
    ) -> Journal:
        """That of a fit, with what it was done before; `init` is a fit, a basis or None."""
        if checkpoint is None:
            return cls(None, {})
        given = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        begun = "" if init is None else digest(getattr(init, "basis", init))
        facts = {name: str(value) for name, value in settings.items()}
        facts |= {"prior": digest(*(np.asarray(x, float) for x in prior if x is not None)), "init": begun}
        facts["processes"] = str(processes.count())
        return cls(given.validated(), facts | marks(data))

    def value(self, name: str, compute: Callable[..., Any], *given: Any) -> Any:
        """What a step comes to: something small."""
        return self._step(name, lambda: (None, compute(*given)), "")[1]

    def state(
        self, name: str, compute: Callable[..., tuple[Any, Any]], *given: Any, slot: str = "now"
    ) -> tuple[Any, Any]:
        """A state, and something small; of steps that are known, only the last state of a slot still is."""
        return self._step(name, lambda: compute(*given), slot)

    def _step(self, name: str, compute: Callable[[], tuple[Any, Any]], slot: str) -> tuple[Any, Any]:
        if self._checkpoint is None:
            return compute()
        number, self._next = self._next, self._next + 1
        if number < len(self._steps):
            known, value = self._steps[number]
            if known != name:
                raise ValueError(
                    f"{self._path} was written by another version: step {number} was {known!r} "
                    f"and is {name!r}; remove it and fit anew"
                )
            after, state = self._states.get(slot, (-1, None))
            return state if after == number else None, value
        state, value = compute()
        self._steps.append((name, value))
        if slot:
            self._states[slot] = number, state
            every = self._checkpoint.seconds and max(self._checkpoint.seconds, self._pause)
            # all at once, when the first says so
            if processes.agreed(time.monotonic() - self._saved >= every):
                self.save()
        return state, value

    def save(self) -> None:
        """Write everything; a file that is there stays until the new one is whole."""
        if self._checkpoint is None or self._next < len(self._steps):
            return
        began = time.monotonic()
        if processes.count() > 1 and self._path.exists():  # others may not come to write theirs
            self._path.replace(_before(self._path))
        with io.atomic_path(self._path) as temporary, h5py.File(temporary, "w") as file:
            file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
            file.attrs["facts"], file.attrs["machine"] = json.dumps(self._facts), json.dumps(machine())
            io.write_tree(file, "steps", self._steps)
            for slot, entry in self._states.items():
                io.write_tree(file, f"states/{slot}", entry)
        self._saved = time.monotonic()
        self._pause = COST * (self._saved - began)

    def _go_on_from(self, path: Path) -> None:
        """From the latest state that every process has saved, if there is one."""
        if processes.count() == 1:
            if path.exists():
                self._read(path)
            return
        found = {}
        for one in (_before(path), path):
            if one.exists():
                self._read(one)
                found[len(self._steps)] = one
        mine = np.zeros((1, 2))
        mine[0, : len(found)] = list(found)
        every = processes.joined(mine)
        common = max((x for x in found if (every == x).any(1).all()), default=0)
        self._steps, self._states = [], {}
        if common:
            self._read(found[common])

    def _read(self, path: Path) -> None:
        with io.open_hdf5(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise ValueError(f"{path} is an HDF5 file, but no checkpoint; take another name")
            if file.attrs["version"] != VERSION:
                raise ValueError(f"{path} was written by another version; remove it and fit anew")
            _compare(json.loads(file.attrs["facts"]), json.loads(json.dumps(self._facts)), path)
            there, here = json.loads(file.attrs["machine"]), machine()
            if there != here:
                warnings.warn(
                    f"{path} was begun with {_told(there, here)}: the fit goes on, but its result will be "
                    "the same to rounding only",
                    DataWarning,
                    stacklevel=3,
                )
            self._steps = io.read_tree(file["steps"], KINDS)
            self._states = {slot: io.read_tree(file["states"][slot], KINDS) for slot in file["states"]}


def _own(path: Path) -> Path:
    """The file of this process."""
    number, count = jax.process_index(), processes.count()
    return path if count == 1 else path.with_name(f"{path.name}.{number}-of-{count}")


def _before(path: Path) -> Path:
    """The file before this one."""
    return path.with_name(f"{path.name}.before")


def machine() -> dict[str, str]:
    """What the last bits of a result depend on."""
    return {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "threads": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "objects in an inner block": str(BLOCK),
    }


def marks(data: Dataset) -> dict[str, Any]:
    """What tells a data set from others: its shape, census, ids and grid, and all of some of its objects."""
    n, m = data.shape
    some = data.take(np.unique(np.linspace(0, n - 1, SAMPLE).astype(int))).load()
    return {
        "data: objects": n,
        "data: pixels": m,
        "data: dtype": str(data.dtype),
        "data: unit": data.unit,
        "data: observed cells": int(data.census.observed),
        "data: ids": digest(data.ids.astype(str) if data.ids.dtype.kind in "OU" else data.ids),
        "data: grid": digest(data.grid),
        "data: cells": digest(np.asarray(some.flux), np.asarray(some.ivar)),
    }


def digest(*arrays: Any) -> str:
    """A fingerprint of arrays."""
    total = hashlib.sha256()
    for array in map(np.asarray, arrays):
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def _compare(there: Mapping[str, Any], here: Mapping[str, Any], path: Path) -> None:
    if there != here:
        raise ValueError(
            f"{path} is of another fit: it was begun with {_told(there, here)}. Give it the same data and "
            "settings, or another checkpoint"
        )


def _told(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return "; ".join(f"{name} {there.get(name)!r}, now {here.get(name)!r}" for name in names)
