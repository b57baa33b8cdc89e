"""The variational engine against the closed form: `python benchmarks/variational.py`.

Held-out log predictive density per cell on the toy survey, for the closed form, our SVI and the generic
AutoDelta + Adam; and the time of an SVI step against the number of objects. Writes VARIATIONAL.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax
from contestant import HERE
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDelta
from numpyro.infer.initialization import init_to_value

import robusta_prob as rp
from robusta_prob.inference import svi
from robusta_prob.inference.anneal import TARGET
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.results import PopulationLaw
from robusta_prob.inference.start import warm
from robusta_prob.inference.variational import warm_up
from robusta_prob.models.noise import NoiseLaw, log_density
from robusta_prob.simulate import largest_angle, toy

RANK = 5


def held_out(fit: rp.Fit, data: rp.Dataset) -> float:
    """Mean log density [nats] of a tenth of the cells of new objects, hidden from their coefficients."""
    hidden = data.observed & (np.random.default_rng(0).random(data.shape) < 0.1)
    flux, ivar = data.flux.astype(float) * data.unit, data.ivar.astype(float) / data.unit**2
    shown = rp.project(fit, rp.dataset(flux, np.where(hidden, 0.0, ivar), grid=data.grid))
    sd = rp.reconstruct_sd(fit, shown)
    residual = flux - rp.reconstruct(fit, shown)
    wider = 1.0 / (1.0 / np.where(hidden, ivar, 1.0) + (sd / fit.noise.scale) ** 2)
    density = np.asarray(log_density(residual**2, np.where(hidden, wider, 0.0), fit.noise), float)
    return float(density[hidden].mean())


def generic(data: rp.Dataset, like: rp.Fit, steps: int) -> rp.Fit:
    """AutoDelta over everything, Adam, full batches, from the singular value decomposition."""
    start = np.linalg.svd(data.flux, full_matrices=False)[2][:RANK]
    values = {"basis": start, "coefficients": data.flux @ start.T, "nu": 5.0, "scale": 1.0, "floor": 0.01,
              "contamination": 0.05, "width": 1.0}  # fmt: skip
    model = partial(rp.models.rhmf, rank=RANK)
    guide = AutoDelta(model, init_loc_fn=init_to_value(values=values))
    loop = SVI(model, guide, optax.adam(1e-2), Trace_ELBO())
    state = loop.init(jax.random.key(0), data.flux, data.ivar)
    update = jax.jit(loop.update)
    for _ in range(steps):
        state, _ = update(state, data.flux, data.ivar)
    median = guide.median(loop.get_params(state))
    Q, T = np.linalg.qr(np.asarray(median["basis"], float).T)
    A = np.asarray(median["coefficients"], float) @ T.T * data.unit
    law = NoiseLaw(
        1.0 / float(median["nu"]), *(float(median[x]) for x in ("scale", "floor", "contamination", "width"))
    )
    law = law.in_unit(1.0 / data.unit)
    return replace(
        like,
        basis=Q.T.astype(like.dtype),
        basis_covariance=np.zeros_like(like.basis_covariance),  # a point estimate
        population=PopulationLaw(A.mean(0), np.cov(A.T).reshape(RANK, RANK)),
        loss=law,
        noise=law,
        information=(1.0 + law.inverse_df) / (1.0 + 3.0 * law.inverse_df),
    )


class Steps(NamedTuple):
    """An engine with so many objects in memory, ready to go on."""

    engine: svi.Engine
    state: svi.State
    batches: Iterator[svi.Batch]


def prepared(objects: int, pixels: int, rows: int) -> Steps:
    """After one step, so that everything is compiled."""
    rng = np.random.default_rng(0)
    flux = rng.standard_normal((objects, pixels), np.float32)
    ivar = np.ones_like(flux)
    few = rp.dataset(flux[:2000], ivar[:2000])
    problem = Problem.of(few, RANK, rp.Noise(), rp.Prior())
    fit = rp.fit(few, RANK, noise=rp.Noise(scale=1.0, floor=0.0), max_epochs=10)
    first, root, _ = warm_up(problem, warm(problem, fit, 0), rp.anneal.constant(), 0)
    engine = svi.engine(rp.models.rhmf, first, root, size=objects, steps_per_epoch=objects // rows,
                        noise=rp.Noise(), prior=rp.Prior())  # fmt: skip
    batches = svi.minibatches(flux, ivar, rows, 0, 0)
    batch = next(batches)  # draws the order of the epoch
    state, _ = engine.step(engine.init(jax.random.key(0), batch), batch, TARGET)
    return Steps(engine, state, batches)


def step_seconds(counts: Sequence[int], pixels: int, rows: int, repeats: int) -> list[float]:
    """Median time of gathering a minibatch and of one step with it, interleaved over numbers of objects."""
    cases = [prepared(count, pixels, rows) for count in counts]
    seconds: list[list[float]] = [[] for _ in counts]
    for _ in range(repeats):
        for number, (engine, state, batches) in enumerate(cases):
            began = time.perf_counter()
            _, loss = engine.step(state, next(batches), TARGET)
            loss.block_until_ready()
            seconds[number].append(time.perf_counter() - began)
    return [float(np.median(x)) for x in seconds]


def main() -> None:
    """Run and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    size, counts, steps = (
        ((600, 150), (2048, 4096), 20) if options.smoke else ((4000, 1200), (10**4, 10**6), 650)
    )
    survey = toy(*size, seed=0)
    train, test = rp.split(survey.data, 0.5, seed=1)
    closed = rp.fit(train, RANK)
    fits = {"closed form": closed} | {
        f"SVI, {guide}": rp.fit(train, RANK, engine="svi", guide=guide) for guide in ("map", "normal")
    }
    lines = [
        "# The variational engine",
        "",
        f"Toy survey, {train.shape[0]} x {train.shape[1]} to learn from, K = 5; density on other objects.",
        "",
        "| | epochs | held-out density [nats per cell] | less the closed form's | angle to the truth |",
        "|---|---|---|---|---|",
    ]
    best = held_out(closed, test)
    rows = [(name, len([x for x in fit.history if not x.stage.startswith("start")]), fit)
            for name, fit in fits.items()]  # fmt: skip
    rows.append((f"AutoDelta + Adam, {steps} full batches", steps, generic(train, closed, steps)))
    for name, epochs, fit in rows:
        density, angle = held_out(fit, test), largest_angle(fit.basis, survey.truth.basis)
        lines.append(f"| {name} | {epochs} | {density:.4f} | {density - best:+.4f} | {angle:.4f} |")
    seconds = step_seconds(counts, 100, 256, 5 if options.smoke else 30)
    lines += [
        "",
        "One step, 256 x 100, with the gathering of its minibatch: "
        f"{1e3 * seconds[0]:.1f} ms with {counts[0]:,} objects, "
        f"{1e3 * seconds[1]:.1f} ms with {counts[1]:,}: ratio {seconds[1] / seconds[0]:.2f}.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not options.smoke:
        (HERE / "VARIATIONAL.md").write_text(text)


if __name__ == "__main__":
    main()
