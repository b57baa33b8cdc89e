"""One contestant in a process of its own: `worker.py NAME DATA.npz OUT.npz`, one fit per line on stdin.

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

RANK, Q = 5, 5.0
Fitted = tuple[np.ndarray, np.ndarray]  # coefficients (N, K), basis (K, M)


def ours(flux: np.ndarray, ivar: np.ndarray, **options: Any) -> Callable[[], Fitted]:
    """robusta_prob, on a validated data set."""
    import robusta_prob as rp

    data = rp.dataset(flux, ivar)

    def run() -> Fitted:
        fit = rp.fit(data, RANK, **options)
        return fit.coefficients, fit.basis

    return run


def ours_published(flux: np.ndarray, ivar: np.ndarray) -> Callable[[], Fitted]:
    """robusta_prob with the published loss, one start."""
    import robusta_prob as rp

    return ours(flux, ivar, noise=rp.Noise(1.0, Q, 0.0), prior=rp.Prior.flat(), starts=1)


def robusta_hmf(flux: np.ndarray, ivar: np.ndarray) -> Callable[[], Fitted]:
    """The published package with its own start and stopping rule."""
    import jax.numpy as jnp
    from robusta_hmf import Robusta

    Y, W = jnp.asarray(np.where(ivar > 0, flux, 0.0)), jnp.asarray(ivar)

    def run() -> Fitted:
        model = Robusta(rank=RANK, robust=True, robust_nu=1.0, robust_scale=Q, conv_tol=1e-2)
        state, _ = model.fit(Y, W)
        return np.asarray(model.coefficients(state)), np.asarray(model.basis_vectors(state)).T

    return run


def randomized_pca(flux: np.ndarray, ivar: np.ndarray) -> Callable[[], Fitted]:
    """scikit-learn's randomized PCA, holes filled with the pixel's mean."""
    from sklearn.decomposition import PCA

    seen = ivar > 0
    mean = np.where(seen, flux, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
    filled = np.where(seen, flux, mean).astype(np.float32)

    def run() -> Fitted:
        pca = PCA(RANK, svd_solver="randomized", random_state=0).fit(filled)
        basis = np.concatenate([pca.components_, pca.mean_[None]])
        return np.concatenate([pca.transform(filled), np.ones((len(filled), 1))], 1), basis

    return run


CONTESTANTS = {
    "ours": ours,
    "ours_published": ours_published,
    "robusta_hmf": robusta_hmf,
    "randomized_pca": randomized_pca,
}


def main() -> None:
    """Answer every line on stdin with one timed fit."""
    name, data, out = sys.argv[1:]
    began = time.perf_counter()
    with np.load(data) as arrays:
        run = CONTESTANTS[name](arrays["flux"], arrays["ivar"])
    for _ in sys.stdin:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # stdout is for the timings alone
            A, G = run()
        now = time.perf_counter()
        np.savez(out, coefficients=np.asarray(A, float), basis=np.asarray(G, float))
        print(json.dumps({"seconds": now - start, "since_start": now - began}), flush=True)


if __name__ == "__main__":
    main()
