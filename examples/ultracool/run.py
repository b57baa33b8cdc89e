"""Every method at every rank on every half, judged by the other half; what is done is not done twice."""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from examples.ultracool import judge, rivals, splits, strangers, survey
from examples.ultracool.config import INJECTED, NATURAL, PACKAGE, Config
from examples.ultracool.splits import Half
from examples.ultracool.store import agreement_path, basis_path, judged_path, load, write_array, write_json
from robusta_prob.cli.shared import keep_compiled

SETTINGS = "settings.json"


def check_settings(config: Config) -> None:
    """Note down what results are made of; more splits, ranks and methods may be added later.

    Raises
    ------
    ValueError
        If those that are there are of other spectra or settings.
    """
    data = load(config.files.data)
    fixed = {
        "spectra": zlib.crc32(np.asarray(data.flux).tobytes() + np.asarray(data.ivar).tobytes()),
        "seed of splits": config.splits.seed,
        "contamination": asdict(config.contamination),
        "judging": asdict(config.judging),
        "fits": {k: v for k, v in asdict(config.fits).items() if k not in ("methods", "ranks")},
    }
    now = json.loads(json.dumps(fixed))
    record = config.files.output / SETTINGS
    if record.exists():
        known = json.loads(record.read_text())
        if other := [name for name in now if known.get(name) != now[name]]:
            raise ValueError(
                f"{config.files.output} was made with other settings of {', '.join(other)}: take another "
                "output folder, or remove that one"
            )
    else:
        write_json(now, record)


@dataclass(frozen=True)
class Task:
    """One method on one half: the ranks that are missing."""

    which: Half
    method: str
    ranks: tuple[int, ...]


def tasks(config: Config) -> Iterator[Task]:
    """What is not there yet, split by split."""
    for split in range(config.splits.number):
        for contamination in (NATURAL, INJECTED):
            for half in (0, 1):
                which = Half(split, half, contamination)
                for method in config.fits.methods:
                    missing = [
                        rank
                        for rank in config.fits.ranks
                        if not judged_path(config, which, method, rank).exists()
                    ]
                    if missing:
                        yield Task(which, method, tuple(missing))


def do(config: Config, task: Task) -> int:
    """Fit, and judge by the clean dwarfs of the other half; returns how many bases were judged."""
    data, which = load(config.files.data), task.which
    paths = {rank: basis_path(config, which, task.method, rank) for rank in task.ranks}
    unknown = [rank for rank, path in paths.items() if not path.exists()]
    if unknown:
        train = splits.training(data, which, config.splits, config.contamination)
        # the package compiles for long: all ranks in one process; ours are kept one by one
        groups = [unknown] if task.method == PACKAGE else [[rank] for rank in unknown]
        for group in groups:
            for rank, basis in zip(group, rivals.learn(task.method, train, group, config.fits), strict=True):
                write_array(basis, paths[rank])
    held_out = splits.halves(data, config.splits, which.split)[1 - which.half]
    held_out = held_out[survey.clean(data)[held_out]]
    seed = 1000 * config.judging.seed + 2 * which.split + which.half
    cells = judge.cells_of(data.take(held_out), config.judging, seed)
    for rank, path in paths.items():
        basis = np.load(path)
        told = {law.name: judge.judge(basis, cells, law)._asdict() for law in judge.laws(config.judging)}
        write_json(told, judged_path(config, which, task.method, rank))
    return len(task.ranks)


def in_processes(work: Callable[[Any], int], items: list[Any], workers: int, total: int, label: str) -> None:
    """Do all of it, in several processes where that is asked for, with a progress bar."""
    with tqdm(total=total, desc=label, unit=" bases") as bar:
        if workers == 1:
            for item in items:
                bar.update(work(item))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=keep_compiled) as pool:
            waiting = [pool.submit(work, item) for item in items]
            try:
                for done in as_completed(waiting):
                    bar.update(done.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def agree(config: Config) -> None:
    """How alike the bases of two halves are."""
    data = load(config.files.data)
    some = data.take(survey.clean(data))
    law = judge.laws(config.judging)[1]
    for split in range(config.splits.number):
        for contamination in (NATURAL, INJECTED):
            for method in config.fits.methods:
                for rank in config.fits.ranks:
                    path = agreement_path(config, split, contamination, method, rank)
                    halves = [Half(split, half, contamination) for half in (0, 1)]
                    files = [basis_path(config, which, method, rank) for which in halves]
                    if path.exists() or not all(file.exists() for file in files):
                        continue
                    told = judge.agreement(*(np.load(file) for file in files), some, law)
                    write_json(told._asdict(), path)


def main(config: Config) -> None:
    """Fit, judge, compare; then the search for strangers."""
    check_settings(config)
    waiting = list(tasks(config))
    total = sum(len(task.ranks) for task in waiting)
    if waiting:
        in_processes(partial(do, config), waiting, config.workers, total, "fit and judge")
    agree(config)
    searches = strangers.missing(config)
    if searches:
        in_processes(partial(strangers.search, config), searches, config.workers, len(searches), "search")
