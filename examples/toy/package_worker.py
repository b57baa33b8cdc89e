"""robusta-hmf 0.0.2 in an environment of its own, since importing it switches JAX to 64 bits for good.

`package_worker.py FOLDER POINTS`: fits `FOLDER/data.npz` at each (rank, scale), describes the test half, and
writes `FOLDER/0.npz`, `1.npz`, ...
"""

import json
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from robusta_hmf import Robusta

TOLERANCE = 1e-2  # its fits of the toy survey then take 20 to 90 iterations
MOST = 200  # iterations: where it meets NaN it would go on to 1000

folder, points = Path(sys.argv[1]), json.loads(sys.argv[2])
with np.load(folder / "data.npz") as data:
    Y, W, Y_test, W_test = (
        jnp.asarray(data[f"{half}_{name}"]) for half in ("train", "test") for name in ("flux", "ivar")
    )
for i, (rank, scale) in enumerate(points):
    start = time.perf_counter()
    model = Robusta(rank=rank, robust=True, robust_nu=1.0, robust_scale=scale, conv_tol=TOLERANCE)
    state, _ = model.fit(Y, W, max_iter=MOST)
    state, *_ = model.infer(Y_test, W_test, state=state, max_iter=MOST, conv_tol=TOLERANCE)
    A, G = np.asarray(model.coefficients(state)), np.asarray(model.basis_vectors(state)).T
    np.savez(folder / f"{i}.npz", coefficients=A, basis=G, seconds=time.perf_counter() - start)
