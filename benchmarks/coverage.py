"""Do the intervals cover? `python benchmarks/coverage.py --surveys 200`.

Simulated surveys of 300 x 120, K = 3: the share of true values within one and two deviations, for the entries
of A G (all cells, and missing ones) and for single coefficients, with the truth projected into the fitted
gauge. Writes COVERAGE.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings

import numpy as np
from contestant import HERE
from tqdm import tqdm

import robusta_prob as rp
from robusta_prob.simulate import low_rank

RANK, SIZE = 3, (300, 120)
LEARNED, THRESHOLD = rp.Noise(), rp.Noise(1.0, 5.0, 0.0)
# S/N per pixel, nu, share missing, what is fitted
SETTINGS = [
    *((*case, LEARNED, rp.Prior()) for case in itertools.product((2.0, 50.0), (math.inf, 3.0), (0.0, 0.3))),
    *(
        (*case, THRESHOLD, rp.Prior.flat())
        for case in itertools.product((2.0, 50.0), (math.inf,), (0.0, 0.3))
    ),
]


def covered(
    signal: float, nu: float, missing: float, noise: rp.Noise, prior: rp.Prior, seed: int
) -> dict[str, tuple[float, float]]:
    """Shares within one and two standard deviations, by kind of number."""
    survey = low_rank(*SIZE, RANK, sigma=1.0 / signal, nu=nu, missing=missing, seed=seed)
    fit = rp.fit(survey.data, RANK, noise=noise, prior=prior)
    z = (rp.reconstruct(fit) - survey.truth.clean) / rp.reconstruct_sd(fit)
    holes = ~survey.data.observed
    truth = survey.truth.clean @ fit.basis.T.astype(float)
    sd = np.sqrt(np.diagonal(fit.coefficient_covariance, axis1=1, axis2=2))
    parts = {"A G": z, "coefficients": (fit.coefficients - truth) / sd}
    if missing:
        parts["A G, missing"] = z[holes]
    return {name: tuple(float((np.abs(x) < n).mean()) for n in (1.0, 2.0)) for name, x in parts.items()}


def main() -> None:
    """Run and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--surveys", type=int, default=200)
    parser.add_argument("--smoke", action="store_true", help="one survey a setting: does it run at all?")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rp.DataWarning)
    surveys, settings = (1, SETTINGS[:1]) if options.smoke else (options.surveys, SETTINGS)
    kinds = ("A G", "A G, missing", "coefficients")
    lines = [
        "# Coverage",
        "",
        f"{surveys} surveys of {SIZE[0]} x {SIZE[1]}, K = {RANK}: per cent within one and two standard "
        "deviations (68.3 and 95.4 are right).",
        "",
        f"| S/N | noise | missing | fitted | {' | '.join(kinds)} |",
        "|---" * (4 + len(kinds)) + "|",
    ]
    for signal, nu, missing, noise, prior in tqdm(settings, desc="coverage"):
        found = [covered(signal, nu, missing, noise, prior, seed) for seed in range(surveys)]
        cells = []
        for kind in kinds:
            shares = np.array([x[kind] for x in found if kind in x])
            cells.append(" / ".join(f"{100 * x:.1f}" for x in shares.mean(0)) if len(shares) else "")
        law = "Gaussian" if math.isinf(nu) else f"nu = {nu:g}"
        fitted = "learned" if noise == LEARNED else "nu = 1, s = 5, flat"
        lines.append(f"| {signal:g} | {law} | {missing:.0%} | {fitted} | {' | '.join(cells)} |")
        if not options.smoke:
            (HERE / "COVERAGE.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
