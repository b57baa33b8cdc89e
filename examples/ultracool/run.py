"""Every method at every rank on every half, judged by the other half; what is done is not done twice."""

from __future__ import annotations

import itertools
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
from examples.ultracool.config import INJECTED, NATURAL, Config
from examples.ultracool.dwarfs import held_out
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
    """One basis: what is learned from one half."""

    which: Half
    method: str
    rank: int


def tasks(config: Config) -> Iterator[Task]:
    """What is not there yet: the first rank that is named on all splits, then the next."""
    halves = itertools.product(range(config.splits.number), (NATURAL, INJECTED), (0, 1))
    where = [Half(split, half, contamination) for split, contamination, half in halves]
    for rank, which, method in itertools.product(config.fits.ranks, where, config.fits.methods):
        if not judged_path(config, which, method, rank).exists():
            yield Task(which, method, rank)


def do(config: Config, task: Task) -> int:
    """Learn a basis, and have it judged by the clean dwarfs of the other half; returns 1, for the bar."""
    data, which = load(config.files.data), task.which
    path = basis_path(config, which, task.method, task.rank)
    if not path.exists():
        train = splits.training(data, which, config.splits, config.contamination)
        write_array(rivals.learn(task.method, train, task.rank, config.fits), path)
    basis = np.load(path)
    _, cells = held_out(config, which.split, which.half)
    told = {law.name: judge.judge(basis, cells, law)._asdict() for law in judge.laws(config.judging)}
    write_json(told, judged_path(config, which, task.method, task.rank))
    return 1


def in_processes(work: Callable[[Any], int], items: list[Any], workers: int, label: str) -> None:
    """Do all of it, in several processes where that is asked for, with a progress bar."""
    with tqdm(total=len(items), desc=label, unit=" bases") as bar:
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
    if waiting := list(tasks(config)):
        in_processes(partial(do, config), waiting, config.workers, "fit and judge")
    agree(config)
    if searches := strangers.missing(config):
        in_processes(partial(strangers.search, config), searches, config.workers, "search")
