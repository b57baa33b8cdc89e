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
from functools import partial
from typing import Any

import numpy as np

ADAM_STEPS = 100

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


def ours_to_its_objective(
    flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float
) -> Callable[[], Fitted]:
    """The same for one pass, in whose updates the package's own objective is passed."""
    import robusta_prob as rp

    loss = rp.Noise(1.0, scale, 0.0)
    options = {"starts": 1, "max_epochs": 1, "schedule": rp.anneal.tightening(1, 1)}
    return ours(flux, ivar, rank, scale, noise=loss, prior=rp.Prior.flat(), **options)


def ours_one_pass(flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float) -> Callable[[], Fitted]:
    """One pass over everything and one update, all learned, of a fit that has begun."""
    import robusta_prob as rp
    from robusta_prob.inference import em
    from robusta_prob.inference.anneal import TARGET
    from robusta_prob.inference.blocks import Blocks
    from robusta_prob.inference.problem import Problem

    data = rp.dataset(flux, ivar)
    fit = rp.fit(data, rank, starts=1, max_epochs=3)
    problem = Problem.of(data, rank, rp.Noise(), rp.Prior())
    blocks = Blocks.of(data, data.unit, problem.rows)
    unit, law = data.unit, problem.law(fit.loss.in_unit(data.unit))
    population = problem.population(fit.population.mean / unit, fit.population.covariance / unit**2)
    shared = problem.shared(fit.basis, law, population)
    states = [em.init(shared, blocks.deal(fit.coefficients / unit, problem.dtype))]

    def run() -> Fitted:
        new, _, _ = problem.step(states[-1], blocks, TARGET, 0, "pass")
        states[-1] = new
        return blocks.gather([x.coefficients for x in new.local]), np.asarray(new.shared.basis)

    return run


def robusta_hmf(
    flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float, iterations: int = 0
) -> Callable[[], Fitted]:
    """The published package with its own start and stopping rule, or for so many iterations."""
    import jax.numpy as jnp
    from robusta_hmf import Robusta

    Y, W = jnp.asarray(np.where(ivar > 0, flux, 0.0)), jnp.asarray(ivar)
    limits = {"max_iter": iterations, "conv_check_cadence": 10 * iterations} if iterations else {}

    def run() -> Fitted:
        model = Robusta(rank=rank, robust=True, robust_nu=1.0, robust_scale=scale, conv_tol=1e-2)
        state, _ = model.fit(Y, W, **limits)
        return np.asarray(model.coefficients(state)), np.asarray(model.basis_vectors(state)).T

    return run


def numpyro_autodelta(flux: np.ndarray, ivar: np.ndarray, rank: int, scale: float) -> Callable[[], Fitted]:
    """The same loss as any NumPyro program: AutoDelta and Adam, full batches, from the published start."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO, autoguide, init_to_value

    seen = ivar > 0
    Y, sd = jnp.asarray(np.where(seen, flux, 0.0), jnp.float32), np.where(seen, ivar, 1.0) ** -0.5
    sd = jnp.asarray(sd, jnp.float32)
    left, size, right = np.linalg.svd(np.where(seen, flux, 0.0), full_matrices=False)

    def model() -> None:
        A = numpyro.sample("A", dist.Normal(0.0, 1e3).expand([len(flux), rank]).to_event(2))
        G = numpyro.sample("G", dist.Normal(0.0, 1e3).expand([rank, flux.shape[1]]).to_event(2))
        with numpyro.handlers.mask(mask=seen):
            numpyro.sample("flux", dist.StudentT(1.0, A @ G, scale * sd), obs=Y)

    root = np.sqrt(size[:rank])
    start = {"A": left[:, :rank] * root, "G": root[:, None] * right[:rank]}
    guide = autoguide.AutoDelta(model, init_loc_fn=init_to_value(values=start))
    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())

    begun = svi.init(jax.random.key(0))
    steps = jax.jit(lambda state: jax.lax.fori_loop(0, ADAM_STEPS, lambda _, x: svi.update(x)[0], state))

    def run() -> Fitted:
        found = svi.get_params(steps(begun))
        return np.asarray(found["A_auto_loc"]), np.asarray(found["G_auto_loc"])

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
    "ours_to_its_objective": ours_to_its_objective,
    "ours_one_pass": ours_one_pass,
    "robusta_hmf": robusta_hmf,
    "robusta_hmf_2": partial(robusta_hmf, iterations=2),
    "robusta_hmf_12": partial(robusta_hmf, iterations=12),
    "robusta_hmf_300": partial(robusta_hmf, iterations=300),
    "numpyro_autodelta": numpyro_autodelta,
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
