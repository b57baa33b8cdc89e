"""One contestant in a process of its own: `worker.py NAME RANK Q OUT.npz`, one data file per line on stdin.

robusta-hmf switches JAX to 64 bits for its whole process, so no two contestants share one.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Fitted = tuple[np.ndarray, np.ndarray]  # coefficients (N, K), basis (K, M)
Method = Callable[[np.ndarray, np.ndarray, int, float], Callable[[], Fitted]]  # flux, ivar, rank, Q


def ours(flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float, **options: Any) -> Callable[[], Fitted]:
    """robusta_prob, on a validated data set."""
    import robusta_prob as rp

    data = rp.dataset(flux, ivar)

    def run() -> Fitted:
        fit = rp.fit(data, rank, **options)
        return fit.coefficients, fit.basis

    return run


def ours_published(flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float) -> Callable[[], Fitted]:
    """robusta_prob with the published loss, one start."""
    import robusta_prob as rp

    loss = rp.Noise(1.0, scale, 0.0)
    return ours(flux, ivar, rank, scale, noise=loss, prior=rp.Prior.flat(), starts=1)


def robusta_hmf(flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float) -> Callable[[], Fitted]:
    """The published package with its own start and stopping rule."""
    import jax.numpy as jnp
    from robusta_hmf import Robusta

    Y, W = jnp.asarray(np.where(ivar > 0, flux, 0.0)), jnp.asarray(ivar)

    def run() -> Fitted:
        model = Robusta(rank=rank, robust=True, robust_nu=1.0, robust_scale=scale, conv_tol=1e-2)
        state, _ = model.fit(Y, W)
        return np.asarray(model.coefficients(state)), np.asarray(model.basis_vectors(state)).T

    return run


def randomized_pca(flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float) -> Callable[[], Fitted]:
    """scikit-learn's randomized PCA, holes filled with the pixel's mean."""
    from sklearn.decomposition import PCA

    seen = ivar > 0
    mean = np.where(seen, flux, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
    filled = np.where(seen, flux, mean).astype(np.float32)

    def run() -> Fitted:
        pca = PCA(rank, svd_solver="randomized", random_state=0).fit(filled)
        basis = np.concatenate([pca.components_, pca.mean_[None]])
        return np.concatenate([pca.transform(filled), np.ones((len(filled), 1))], 1), basis

    return run


CONTESTANTS: dict[str, Method] = {
    "ours": ours,
    "ours_published": ours_published,
    "robusta_hmf": robusta_hmf,
    "randomized_pca": randomized_pca,
}


def main() -> None:
    """Answer every line on stdin with one timed fit."""
    name, rank, scale, out = sys.argv[1:]
    began, loaded = time.perf_counter(), ""
    for line in sys.stdin:
        if line != loaded:
            with np.load(line.strip()) as arrays:
                run = CONTESTANTS[name](arrays["flux"], arrays["ivar"], int(rank), float(scale))
            loaded = line
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # stdout is for the timings alone
            A, G = run()
        now = time.perf_counter()
        np.savez(out, coefficients=np.asarray(A, float), basis=np.asarray(G, float))
        print(json.dumps({"seconds": now - start, "since_start": now - began}), flush=True)


if __name__ == "__main__":
    main()
