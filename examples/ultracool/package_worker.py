"""robusta-hmf 0.0.2 in an environment of its own, since importing it switches JAX to 64 bits for good.

`package_worker.py FOLDER [RANK, Q, STEPS]`: fits `FOLDER/data.npz`, writes `FOLDER/basis.npy`.
"""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from robusta_hmf import Robusta

TOLERANCE = 1e-2  # largest relative change of a basis vector

folder, (rank, scale, steps) = Path(sys.argv[1]), json.loads(sys.argv[2])
with np.load(folder / "data.npz") as data:
    Y, W = jnp.asarray(data["flux"]), jnp.asarray(data["ivar"])
model = Robusta(rank=rank, robust=True, robust_nu=1.0, robust_scale=scale, conv_tol=TOLERANCE)
state, _ = model.fit(Y, W, max_iter=steps)
np.save(folder / "basis.npy", np.asarray(model.basis_vectors(state)).T)
