"""robusta-hmf 0.0.2 in an environment of its own, since importing it switches JAX to 64 bits for good.

`package_worker.py FOLDER [RANKS, Q, STEPS]`: fits `FOLDER/data.npz`, writes `FOLDER/RANK.npy`.
"""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from robusta_hmf import Robusta

TOLERANCE = 1e-2  # largest relative change of a basis vector

folder, (ranks, scale, steps) = Path(sys.argv[1]), json.loads(sys.argv[2])
with np.load(folder / "data.npz") as data:
    Y, W = jnp.asarray(data["flux"]), jnp.asarray(data["ivar"])
for rank in ranks:
    model = Robusta(rank=rank, robust=True, robust_nu=1.0, robust_scale=scale, conv_tol=TOLERANCE)
    state, history = model.fit(Y, W, max_iter=steps)
    np.save(folder / f"{rank}.npy", np.asarray(model.basis_vectors(state)).T)
    print(rank, len(history), file=sys.stderr)
