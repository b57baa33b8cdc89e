"""Blocks side by side: a compiled pass over one of them keeps few cores busy, and lets go of the interpreter."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST = 4  # at once: each holds a block, and the rest of many cores is used within the passes

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers() -> int:
    """How many blocks are gone through at once."""
    return min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST
    )


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(work, items)`, some of them at once; no item is taken long before it is worked on.

    What is local to a thread, such as JAX's precision, is not that of the caller.
    """
    many = workers()
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(many) as pool:
        try:
            for item in items:
                if len(running) == many:
                    yield running.popleft().result()
                running.append(pool.submit(work, item))
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
