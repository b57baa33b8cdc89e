# %% [markdown]
# # The toy survey: what is learned, and what is found
#
# 2000 simulated spectra of rank 5 with errors that range over four decades, holes, bad pixels, bad columns,
# ten spectra that are something else, and two with foreign absorption lines. We know the truth, so that every
# step can be held against it. Run it as a script (`python examples/toy/first_fit.py OUTPUT`) or cell by cell.

# %%
import sys
from pathlib import Path

import numpy as np

import robusta_prob as rp
from robusta_prob import plots


def main(output: Path, objects: int = 2000, pixels: int = 600) -> dict[str, float]:
    """Simulate, fit, score; pictures into `output`; returns the numbers that matter."""
    output.mkdir(parents=True, exist_ok=True)

    # %% The data: a flux and an inverse variance per cell, 0 where there is none.
    survey = rp.simulate.toy(objects, pixels, seed=0)
    data = survey.data
    print(data.census)

    # %% Half of the objects teach the basis. Nothing about the noise is told: it is learned.
    train, test = rp.split(data, 0.5, seed=1)
    fit = rp.fit(train, rank=5)
    print(fit)
    print(fit.status.message)

    # %% Against the truth: the sine of the largest angle between the fitted and the true subspace.
    angle = rp.simulate.largest_angle(fit.basis, survey.truth.basis)
    print(f"sine of the largest angle to the true basis: {angle:.4f}")

    # %% Objects never seen are projected onto the basis, with covariances.
    new = rp.project(fit, test)
    print(f"first coefficient of the first test object: {new.coefficients[0, 0]:.3f}", end=" ")
    print(f"+- {np.sqrt(new.covariance[0, 0, 0]):.3f}")

    # %% How surprising is every object? Those of the training half are recognised by id and flux.
    scores = rp.surprise(fit, data)
    flagged = scores.object.q_value < 0.05
    shares = {kind: flagged[data.meta["kind"] == kind].mean() for kind in ("outlier", "lines", "normal")}
    for kind, share in shares.items():
        print(f"flagged among {kind:8}: {100 * share:.1f} %")

    # %% Pictures: what was learned, how the fit went, who stands out, and why.
    for name, figure in {
        "basis": plots.basis(fit),
        "history": plots.history(fit),
        "surprise": plots.surprise_histogram(scores),
        "outliers": plots.outliers(fit, data, scores, top=6),
    }.items():
        figure.savefig(output / f"{name}.png", dpi=150)
    print(f"pictures are in {output}")
    return {"angle": angle, **shares}


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "toy_run"))
