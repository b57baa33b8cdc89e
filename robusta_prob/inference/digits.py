"""In how many digits JAX computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import numpy as np


@contextlib.contextmanager
def precision(dtype: np.dtype) -> Iterator[None]:
    """Let JAX compute in `dtype` inside this block and this thread only."""
    with jax.enable_x64(np.dtype(dtype) == np.float64):
        yield
