"""In how many digits JAX computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import numpy as np


@contextlib.contextmanager
def precision(dtype: np.dtype) -> Iterator[None]:
    """Let JAX compute in `dtype` inside this block and this thread only.

    A GPU would multiply matrices of float32 with the ten bits of TF32, and find another basis.
    """
    with jax.enable_x64(np.dtype(dtype) == np.float64), jax.default_matmul_precision("highest"):
        yield
