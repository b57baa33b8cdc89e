"""What is found, and is it what it is called? `python benchmarks/detection.py`.

The toy survey over several seeds, false-discovery rates of simulated surveys with 1 % outliers, and the names
of 500 objects of each kind, with and without correlated noise. Writes DETECTION.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings

import numpy as np
from contestant import HERE
from scipy import ndimage
from tqdm import tqdm

import robusta_prob as rp
from robusta_prob.simulate import low_rank

Q = 0.05
KERNELS = {"white": [1.0], "correlated": [0.3, 1.0, 0.3]}  # of the instrument, on the noise
KINDS = {"errors": "scaled noise", "foreign": "foreign spectrum", "lines": "line set"}


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the precision at every true object, the largest scores first."""
    hits = truth[np.argsort(-score, kind="stable")]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def with_basis(fit: rp.Fit, basis: np.ndarray) -> rp.Fit:
    """The fit with a basis that is known, turned to the gauge of its own."""
    left, _, right = np.linalg.svd(fit.basis.astype(float) @ basis.T)
    known = (left @ right @ basis).astype(fit.dtype)
    return dataclasses.replace(fit, basis=known, basis_covariance=np.zeros_like(fit.basis_covariance))


def surprise_rank(scores: rp.Surprise) -> np.ndarray:
    """A score that orders the objects as `ranking` does."""
    rank = np.empty(len(scores.ids))
    rank[scores.ranking] = np.arange(len(rank), 0, -1)
    return rank


def on_toy(seed: int, n: int, m: int) -> dict[str, float]:
    """What is flagged of one toy survey, fitted on one half; spectra with foreign lines count apart."""
    survey = rp.simulate.toy(n, m, seed=seed)
    data, kind = survey.data, survey.data.meta["kind"]
    fit = rp.fit(data.take(np.arange(0, n, 2)), 5)
    scores = rp.surprise(fit, data)
    o, judged, truth = scores.object, kind != "lines", kind == "outlier"
    flagged = o.q_value < Q
    hits, false = int((flagged & truth).sum()), int((flagged & (kind == "normal")).sum())
    known = rp.surprise(with_basis(fit, survey.truth.basis), data, in_training=False)
    size = np.where(data.observed, np.abs(rp.residuals(fit, data)) * np.sqrt(data.ivar) / data.unit, np.nan)
    lines = scores.flagged & (kind == "lines")
    return {
        "found": hits,
        "normal flagged": false,
        "F1": 2 * hits / (2 * hits + false + int((truth & ~flagged).sum())),
        "AP": average_precision(surprise_rank(scores)[judged], truth[judged]),
        "AP, true basis": average_precision(surprise_rank(known)[judged], truth[judged]),
        "AP, published": average_precision(np.nanmedian(size, axis=1)[judged], truth[judged]),
        "lines flagged": int(lines.sum()),
        "and named": int((lines & (o.kind == "lines")).sum()),
        "normal in flagged": int((scores.flagged & (kind == "normal")).sum()),
        "mean z": float(o.z[kind == "normal"].mean()),
        "sd z": float(o.z[kind == "normal"].std()),
    }


def false_discoveries(seed: int, n: int) -> dict[str, float]:
    """Realised rate of a survey with 1 % outliers of three kinds, near the limit of what can be found."""
    data, odd = low_rank(n, 300, 4, sigma=0.05, spread=0.3, missing=0.05, seed=seed).data, n // 100
    rows = np.random.default_rng(seed).permutation(n)[:odd]
    for part, (kind, amplitude) in zip(
        np.array_split(rows, 3),
        (("scaled noise", (1.1, 2.0)), ("foreign spectrum", (0.02, 0.5)), ("line set", (0.05, 1.0))),
        strict=True,
    ):
        data = rp.inject(data, kind, amplitude, rows=part, key=seed).data
    scores = rp.surprise(rp.fit(data, 4), data)
    true = np.isin(np.arange(n), rows)
    out = {}
    for name, flagged in (
        ("q_value", scores.object.q_value < Q),
        ("q_run", scores.object.q_run < Q),
        ("flagged", scores.flagged),
    ):
        out[name] = float((flagged & ~true).sum() / max(flagged.sum(), 1))
        out[f"{name}, found"] = float((flagged & true).sum() / odd)
    return out


def names(kernel: list[float], each: int, seed: int) -> dict[str, float]:
    """Share of the flagged objects of each kind that bear its name."""
    n = 16 * each
    survey = low_rank(n, 400, 5, sigma=0.05, spread=0.1, seed=seed)
    rng = np.random.default_rng(seed)
    weights = np.array(kernel) / np.linalg.norm(kernel)
    sigma = survey.truth.sigma
    noise = ndimage.convolve1d(rng.standard_normal(sigma.shape), weights, axis=1, mode="wrap")
    flux = survey.truth.clean + sigma * noise
    rows = {name: np.arange(i * each, (i + 1) * each) for i, name in enumerate(KINDS)}
    flux[rows["errors"]] += (sigma * noise)[rows["errors"]]
    data = rp.dataset(flux, sigma.astype(float) ** -2)
    data = rp.inject(data, "foreign spectrum", (0.1, 1.0), rows=rows["foreign"], key=seed).data
    data = rp.inject(data, "line set", (0.3, 1.0), rows=rows["lines"], key=seed).data
    scores = rp.surprise(rp.fit(data, 5), data)
    out = {}
    for name, here in rows.items():
        flagged = scores.flagged[here]
        out[f"{name}, flagged"] = float(flagged.mean())
        out[f"{name}, named"] = float((scores.object.kind[here][flagged] == name).mean())
    out["normal, flagged"] = float(scores.flagged[3 * each :].mean())
    return out


def table(rows: list[dict[str, float]], labels: list[object], first: str) -> list[str]:
    """Markdown of these results, one a line, and their mean."""
    columns = list(rows[0])
    mean = {name: float(np.mean([row[name] for row in rows])) for name in columns}
    lines = [f"| {first} | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for label, row in zip([*labels, "mean"], [*rows, mean], strict=True):
        lines.append(f"| {label} | {' | '.join(f'{row[name]:.4g}' for name in columns)} |")
    return lines


def main() -> None:
    """Run and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="toy surveys")
    parser.add_argument("--surveys", type=int, default=20, help="surveys with 1 % outliers")
    parser.add_argument("--each", type=int, default=500, help="objects of each kind")
    parser.add_argument("--only", choices=("toy", "false-discoveries", "names"))
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rp.DataWarning)
    size = (400, 120) if options.smoke else (8000, 1200)
    seeds, surveys, each = (1, 1, 20) if options.smoke else (options.seeds, options.surveys, options.each)
    n = 500 if options.smoke else 4000
    report = ["# What is found", ""]
    if options.only in (None, "toy"):
        toys = [on_toy(seed, *size) for seed in tqdm(range(seeds), desc="toy surveys")]
        report += [f"Toy surveys, {size[0]} x {size[1]}, half of them fitted.", ""]
        report += [*table(toys, list(range(seeds)), "seed"), ""]
    if options.only in (None, "false-discoveries"):
        rates = [false_discoveries(seed, n) for seed in tqdm(range(surveys), desc="false discoveries")]
        report += [f"Realised false-discovery rates at q < {Q}, {n} x 300, K = 4, 1 % outliers.", ""]
        report += [*table(rates, list(range(surveys)), "survey"), ""]
    if options.only in (None, "names"):
        kinds = [names(kernel, each, seed=1) for kernel in tqdm(KERNELS.values(), desc="names")]
        report += [f"Names, {each} objects of each kind among {16 * each}.", ""]
        report += [*table(kinds, list(KERNELS), "noise"), ""]
    if options.smoke or options.only:
        print("\n".join(report))
    else:
        (HERE / "DETECTION.md").write_text("\n".join(report))


if __name__ == "__main__":
    main()
