"""Priors of one's own, a few lines each, without a change in the package.

`python examples/numpyro_scripts/own_prior.py`
"""

# %%
from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO

import robusta_prob as rp

# %% Smooth basis vectors: a Gaussian process along the pixels instead of independent entries
LENGTH = 0.05  # of its squared-exponential kernel, in units of the whole range


def smooth(
    flux: Any, ivar: Any, *, rank: int, noise: Any = None, prior: Any = None, size: int | None = None
) -> Any:
    objects, pixels = ivar.shape
    x = jnp.arange(pixels) / pixels
    kernel = jnp.exp(-0.5 * ((x[:, None] - x) / LENGTH) ** 2) + 1e-4 * jnp.eye(pixels)
    process = dist.MultivariateNormal(jnp.zeros(pixels), kernel / pixels)
    basis = numpyro.sample("basis", process.expand([rank]).to_event(1))
    law = rp.models.sample_noise(noise or rp.Noise(), pixels)
    with rp.models.standing_for(objects, size):
        coefficients = rp.models.sample_coefficients(objects, rank, pixels, prior or rp.Prior())
    return rp.models.observe(flux, ivar, rp.models.noise_at(coefficients @ basis, ivar, law), size)


def compare_smooth(objects: int, pixels: int) -> dict[str, float]:
    """At S/N 1 per pixel, the angle to the truth with and without the smoothness."""
    survey = rp.simulate.low_rank(objects, pixels, 2, sigma=1.0, spread=0.2, seed=3)
    known = rp.Noise(math.inf, 1.0, 0.0)
    fits = {
        name: rp.fit(survey.data, 2, engine="svi", model=model, noise=known)
        for name, model in (("independent", rp.models.rhmf), ("smooth", smooth))
    }
    return {name: rp.simulate.largest_angle(fit.basis, survey.truth.basis) for name, fit in fits.items()}


# %% Non-negative factors: both sites have positive support, and the guide follows by itself
def non_negative(flux: Any, ivar: Any, *, size: int | None = None) -> Any:
    objects, pixels = ivar.shape
    basis = numpyro.sample("basis", dist.HalfNormal(1.0).expand([2, pixels]).to_event(2))
    with rp.models.standing_for(objects, size):
        shares = dist.HalfNormal(3.0).expand([objects, 2]).to_event(2)
        coefficients = numpyro.sample("coefficients", shares)
    sigma = 1.0 / jnp.sqrt(
        jnp.where(ivar > 0, ivar, 1.0)
    )  # finite at missing cells too, or gradients are NaN
    law = dist.Normal(coefficients @ basis, sigma)
    return rp.models.observe(flux, ivar, law, size)


def unmix(objects: int, pixels: int, steps: int) -> float:
    """Two bumps in random shares: the angle between what was mixed and what is found.

    The basis has a meaning of its own here, so it is kept as it is, and not put into the gauge of `rp.fit`.
    """
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 1.0, pixels)
    parts = np.stack([np.exp(-0.5 * ((x - centre) / 0.1) ** 2) for centre in (0.3, 0.65)])
    flux = rng.gamma(2.0, 1.0, (objects, 2)) @ parts + 0.05 * rng.normal(size=(objects, pixels))
    flux, ivar = flux.astype(np.float32), np.full((objects, pixels), 400.0, np.float32)
    guide = rp.guide_for(non_negative, init={"basis": parts + 0.3})
    svi = SVI(non_negative, guide, optax.adam(0.03), Trace_ELBO())
    state = jax.jit(svi.init)(jax.random.key(0), flux, ivar)  # op by op it takes much longer
    state, _ = jax.lax.scan(lambda now, _: svi.update(now, flux, ivar), state, length=steps)
    basis = np.asarray(guide.shared.median(svi.get_params(state))["basis"])
    assert (basis >= 0).all()
    found, true = (np.linalg.qr(rows.T)[0].T for rows in (basis, parts))
    return rp.simulate.largest_angle(found, true)


def main(objects: int = 1000, pixels: int = 200, steps: int = 800) -> dict[str, float]:
    angles = compare_smooth(objects, pixels)
    angles["non_negative"] = unmix(min(objects, 400), 60, steps)
    for name, angle in angles.items():
        print(f"{name:12}: sine of the angle to the truth {angle:.4f}")
    return angles


if __name__ == "__main__":
    main()
