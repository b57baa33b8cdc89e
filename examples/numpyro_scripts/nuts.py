"""The full posterior of a small problem by NUTS, an ArviZ summary, and the closed form beside it.

`python examples/numpyro_scripts/nuts.py`
"""

# %%
from __future__ import annotations

import arviz as az
import numpy as np

import robusta_prob as rp

RANK = 2


def main(objects: int = 120, pixels: int = 80, warmup: int = 500, samples: int = 1000) -> dict[str, float]:
    noise = rp.Noise(contamination=0.0)  # the Student-t alone
    survey = rp.simulate.low_rank(objects, pixels, RANK, sigma=0.1, nu=5.0, missing=0.1, seed=1)
    fit = rp.fit(survey.data, RANK, noise=noise)

    # %% The same program, sampled; draws come in the gauge of the fit, so that entries can be compared
    chains = rp.nuts(fit, survey.data, noise=noise, warmup=warmup, samples=samples)
    flux = np.einsum("csnk,cskm->csnm", chains.coefficients, chains.basis)

    # %% An ArviZ summary of the noise law, and of the model's flux in a few cells
    places = ((0, 0), (objects // 2, pixels // 2), (objects - 1, pixels - 1))
    posterior = chains.noise | {f"flux[{i},{j}]": flux[:, :, i, j] for i, j in places}
    modern = int(az.__version__.split(".")[0]) >= 1  # ArviZ 1.x needs Python 3.12
    print(az.summary(az.from_dict({"posterior": posterior} if modern else posterior)))

    # %% Against the closed form with its covariances: offsets (rms) and sizes in posterior deviations
    sd = {
        "A": np.sqrt(np.diagonal(fit.coefficient_covariance, axis1=1, axis2=2)),
        "G": np.sqrt(np.diagonal(fit.basis_covariance, axis1=1, axis2=2)).T,
        "A G": rp.reconstruct_sd(fit),
    }
    mean = {"A": fit.coefficients, "G": fit.basis, "A G": rp.reconstruct(fit)}
    draws = {"A": chains.coefficients, "G": chains.basis, "A G": flux}
    numbers = {"r_hat": chains.r_hat, "divergences": float(chains.divergences)}
    for name, x in draws.items():
        offset = (mean[name] - x.mean((0, 1))) / x.std((0, 1))
        numbers[f"offset of {name}"] = float(np.sqrt(np.mean(offset**2)))
        numbers[f"sd ratio of {name}"] = float(np.median(sd[name] / x.std((0, 1))))
    print(", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    return numbers


if __name__ == "__main__":
    main()
