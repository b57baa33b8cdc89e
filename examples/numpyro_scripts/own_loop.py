"""Our model in a hand-written SVI loop with optax: `python examples/numpyro_scripts/own_loop.py`."""

# %% The survey: flux and inverse variances as plain arrays
from __future__ import annotations

from functools import partial

import jax
import numpy as np
import optax
from numpyro.infer import SVI, Trace_ELBO

import robusta_prob as rp

RANK = 3


def main(objects: int = 2000, pixels: int = 200, steps: int = 1500, batch: int = 256) -> dict[str, float]:
    survey = rp.simulate.low_rank(objects, pixels, RANK, nu=4.0, missing=0.1, seed=0)
    flux, ivar = survey.data.flux, survey.data.ivar

    # %% Program and guide. `size` is the survey's: a minibatch then counts for all of it
    model = partial(rp.models.rhmf, rank=RANK, size=objects, noise=rp.Noise(contamination=0.0))
    start = np.linalg.svd(flux[:500], full_matrices=False)[2][:RANK]
    guide = rp.guide_for(model, "normal", init={"basis": start, "nu": 5.0, "scale": 1.0, "floor": 0.001})

    # %% The loop is yours: any optax optimiser, any schedule, any callback
    svi = SVI(model, guide, optax.adam(optax.cosine_decay_schedule(0.02, steps)), Trace_ELBO())
    rng = np.random.default_rng(0)
    rows = rng.choice(objects, batch, replace=False)
    state = jax.jit(svi.init)(jax.random.key(0), flux[rows], ivar[rows])  # op by op it takes much longer
    update = jax.jit(svi.update)
    for step in range(steps):
        rows = rng.choice(objects, batch, replace=False)
        state, loss = update(state, flux[rows], ivar[rows])
        if step % 300 == 0:
            print(f"step {step:5}: -ELBO = {float(loss):,.0f} nats")

    # %% What was learned, and how far it is from the truth and from the closed form
    median = guide.shared.median(svi.get_params(state))
    basis = np.linalg.qr(np.asarray(median["basis"]).T)[0].T
    closed = rp.fit(survey.data, RANK)
    numbers = {
        "angle": rp.simulate.largest_angle(basis, survey.truth.basis),
        "closed_form_angle": rp.simulate.largest_angle(closed.basis, survey.truth.basis),
        "nu": float(median["nu"]),
        "scale": float(median["scale"]),
    }
    print(", ".join(f"{name} {value:.3g}" for name, value in numbers.items()), "(drawn with nu 4, scale 1)")
    return numbers


if __name__ == "__main__":
    main()
