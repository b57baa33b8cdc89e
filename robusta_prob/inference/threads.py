"""Blocks side by side: a compiled pass over one of them keeps few cores busy, and lets the interpreter go."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

MOST = 4  # at once: each holds a block, and the rest of many cores is used within the passes

# of JAX, which belong to a thread
SETTINGS: tuple[Any, ...] = (
    jax.enable_x64,
    jax.default_device,
    jax.default_matmul_precision,
    jax.debug_nans,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers() -> int:
    """How many blocks are gone through at once."""
    return min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST
    )


def inherited(work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """The same for another thread, with JAX's settings as here."""
    settings = [(setting, setting.value) for setting in SETTINGS]

    def work_there(item: Item) -> Result:
        with contextlib.ExitStack() as stack:
            for setting, value in settings:
                stack.enter_context(setting(value))
            return work(item)

    return work_there


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(work, items)`, some of them at once, with JAX's settings as here; no item is taken long before."""
    many, work_there = workers(), inherited(work)
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(many) as pool:
        try:
            for item in items:
                if len(running) == many:
                    yield running.popleft().result()
                running.append(pool.submit(work_there, item))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
