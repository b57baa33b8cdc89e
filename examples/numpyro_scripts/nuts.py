"""The full posterior of a small problem by NUTS, an ArviZ summary, and the closed form beside it.

`python examples/numpyro_scripts/nuts.py`
"""

# %%
from __future__ import annotations

from functools import partial

import arviz as az
import jax
import numpy as np
from numpyro.infer import MCMC, NUTS, init_to_value

import robusta_prob as rp

RANK = 2


def main(objects: int = 60, pixels: int = 40, warmup: int = 500, samples: int = 1000) -> dict[str, float]:
    survey = rp.simulate.low_rank(objects, pixels, RANK, sigma=0.2, nu=5.0, missing=0.1, seed=1)
    data = survey.data
    fit = rp.fit(data, RANK, noise=rp.Noise(contamination=0.0))

    # %% The same model, with the population that the fit has learned; it fixes most of the gauge
    population = rp.Prior(fit.population.mean / data.unit, fit.population.covariance / data.unit**2)
    model = partial(rp.models.rhmf, rank=RANK, noise=rp.Noise(contamination=0.0), prior=population)
    begin = init_to_value(values={"basis": fit.basis, "coefficients": fit.coefficients / data.unit})
    mcmc = MCMC(NUTS(model, init_strategy=begin), num_warmup=warmup, num_samples=samples, num_chains=2,
                chain_method="sequential", progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.key(0), data.flux, data.ivar)

    # %% Noise law and the model's flux in a few cells: both are free of the gauge
    draws = mcmc.get_samples(group_by_chain=True)
    flux = np.einsum("csnk,cskm->csnm", np.asarray(draws["coefficients"]), np.asarray(draws["basis"]))
    places = ((0, 0), (objects // 2, pixels // 2), (objects - 1, pixels - 1))
    posterior = {"nu": draws["nu"], "scale": draws["scale"]}
    posterior |= {f"flux[{i},{j}]": flux[:, :, i, j] for i, j in places}
    modern = int(az.__version__.split(".")[0]) >= 1  # ArviZ 1.x needs Python 3.12
    table = az.summary(az.from_dict({"posterior": posterior} if modern else posterior))
    print(table)

    # %% Against the closed form with its covariances
    mean = rp.reconstruct(fit) / data.unit
    variance = np.einsum("kj,ikl,lj->ij", fit.basis, fit.coefficient_covariance, fit.basis)
    variance += np.einsum("ik,jkl,il->ij", fit.coefficients, fit.basis_covariance, fit.coefficients)
    sd, posterior = flux.std((0, 1)), flux.mean((0, 1))
    numbers = {
        "offset": float(np.sqrt(np.mean(((mean - posterior) / sd) ** 2))),  # rms, in posterior sd
        "sd_ratio": float(np.median(np.sqrt(variance) / data.unit / sd)),
        "r_hat": float(np.max(np.asarray(table["r_hat"], float))),
    }
    print(", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    return numbers


if __name__ == "__main__":
    main()
