"""`robusta-prob demo | fit | project | score`."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import robusta_prob as rp
from robusta_prob.cli.processes import join
from robusta_prob.cli.reporting import keep_scores
from robusta_prob.cli.shared import (
    as_options,
    fit_file,
    law,
    load,
    names_of,
    read,
    save,
    say,
    say_where,
    warn,
    writable,
)
from robusta_prob.inference.iterate import NON_FINITE
from robusta_prob.io import atomic_path
from robusta_prob.scoring.results import FLAG
from robusta_prob.scoring.table import most_surprising

ROWS_PRINTED = 10
DEMO_RANK = 5  # that of `simulate.toy`
OF_FIT = ("fit.h5", "basis.png", "history.png")
OF_SCORES = ("scores.csv", "windows.csv", "surprise.png", "outliers.png", "scores.h5", "scores.json")


def run_fit(options: argparse.Namespace) -> int:
    """Fit, and write the fit and its pictures."""
    settings, leads = _settings(options), join(options)
    data = read(options, options.dtype)
    if not leads:
        return int(rp.fit(data, options.rank, key=options.seed, **settings).status.code == NON_FINITE)
    with writable(options.output) as folder:
        fit = _fit_and_write(data, options.rank, options, folder, **settings)
        if (folder / "scores.csv").exists():
            warn(f"scores.csv in {folder} is of an earlier fit; score again")
    say_where(options, folder, *OF_FIT)
    say(
        options,
        "Next: " + shlex.join(["robusta-prob", "score", str(folder), options.file, *names_of(options)]),
    )
    return int(fit.status.code == NON_FINITE)


def run_project(options: argparse.Namespace) -> int:
    """Write the coefficients of spectra on an earlier fit."""
    folder, fit = load(options.fit)
    data = read(options, str(fit.dtype))
    target = Path(options.output) if options.output else folder / "projection.h5"
    with atomic_path(target) as temporary:
        with rp.Progress("project", disable=options.quiet) as bar:
            projection = rp.project(fit, data, callback=bar)
        with h5py.File(temporary, "w") as file:
            file.attrs["format"], file.attrs["version"] = "robusta_prob.Projection", 1
            file.attrs["flux_name"], file.attrs["rank"] = fit.flux_name, fit.rank
            file["coefficients"], file["covariance"] = projection.coefficients, projection.covariance
            text = projection.ids.dtype.kind in "US"
            file["ids"] = projection.ids.astype(h5py.string_dtype()) if text else projection.ids
    say(options, f"Coefficients of {data.shape[0]:,} objects on {fit.rank} basis vectors are in {target}")
    return 0


def run_score(options: argparse.Namespace) -> int:
    """Score spectra by an earlier fit, and write tables and pictures."""
    run, fit = load(options.fit)
    data = read(options, str(fit.dtype))
    with writable(options.output or run) as folder:
        scores = _score_and_write(fit, data, options, folder)
        keep_scores(scores, folder, fit_file(options.fit), Path(options.file), options)
    say_where(options, folder, *OF_SCORES)
    say(options, "Next: " + shlex.join(["robusta-prob", "report", str(folder)]))
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """Fit and score a simulated survey, and compare with its truth."""
    survey = rp.simulate.toy(options.objects, options.pixels, seed=options.seed)
    data = survey.data
    n, m = data.shape
    with writable(options.output) as folder:
        rp.write(data, folder / "survey.h5")
        say(options, f"Toy survey: {n:,} spectra x {m:,} pixels, of rank {DEMO_RANK}; {data.census}")
        fit = _fit_and_write(data, DEMO_RANK, options, folder)
        scores = _score_and_write(fit, data, options, folder)
        keep_scores(scores, folder, folder / "fit.h5", folder / "survey.h5", options)
    sine = rp.simulate.largest_angle(fit.basis, survey.truth.basis)
    say(options, f"\nAgainst the truth, at q < {FLAG}:")
    say(options, f"  sine of the largest angle between the basis and the true one: {sine:.4f}")
    for kind, text in (
        ("outlier", "outlier spectra found"),
        ("lines", "spectra with foreign lines found"),
        ("normal", "normal spectra flagged"),
    ):
        found = scores.flagged[data.meta["kind"] == kind]
        say(options, f"  {text}: {found.sum():,} of {len(found):,}")
    say_where(options, folder, "survey.h5", *OF_FIT, *OF_SCORES)
    spectra, run = str(folder / "survey.h5"), str(folder / "run")
    again = ["robusta-prob", "fit", spectra, "--rank", str(DEMO_RANK), "-o", run]
    say(options, "Next: " + shlex.join(["robusta-prob", "report", str(folder)]) + "; " + shlex.join(again))
    return int(fit.status.code == NON_FINITE)


# What they share ------------------------------------------------------------------------------------


def _fit_and_write(
    data: rp.Dataset, rank: int, options: argparse.Namespace, folder: Path, **settings: Any
) -> rp.Fit:
    from robusta_prob import plots

    began = time.perf_counter()
    with rp.Progress(tol=settings.get("tol", 0.01), disable=options.quiet) as bar:
        fit = rp.fit(data, rank, key=options.seed, callback=bar, **settings)
    rp.save(fit, folder / "fit.h5")
    save(plots.basis(fit), folder / "basis.png")
    save(plots.history(fit), folder / "history.png")
    message = fit.status.message
    if fit.status.ok:
        say(options, f"Fit of rank {fit.rank}: {message} ({time.perf_counter() - began:.1f} s)")
    else:
        warn(as_options(message, options))
    if str(fit.loss) != str(fit.noise):
        say(options, f"Loss, fitted as given:         {fit.loss} [{fit.flux_name}]")
    say(options, f"Noise, learned from residuals: {fit.noise} [{fit.flux_name}]")
    return fit


def _score_and_write(fit: rp.Fit, data: rp.Dataset, options: argparse.Namespace, folder: Path) -> rp.Surprise:
    from robusta_prob import plots

    chosen: dict[str, Any] = {
        name: getattr(options, name) for name in ("lines", "windows", "empirical_null") if name in options
    }
    with rp.Progress("score", disable=options.quiet) as bar:
        projection = rp.project(fit, data, callback=bar)
        scores = rp.surprise(fit, data, projection, callback=bar, **chosen)
    rp.write_scores(scores, data, folder / "scores.csv")
    rp.write_windows(scores, folder / "windows.csv")
    save(plots.overview(scores, data), folder / "surprise.png")
    save(plots.outliers(fit, data, scores, options.top, projection), folder / "outliers.png")
    say(options, f"Null law of a normal pixel: {scores.null}")
    say(options, f"Bulk of the objects: {scores.empirical}")
    n, flagged = data.shape[0], int(scores.flagged.sum())
    say(options, f"\nThe most surprising of {n:,} objects:\n{most_surprising(scores, ROWS_PRINTED)}")
    kinds, counts = np.unique(scores.object.kind[scores.flagged], return_counts=True)
    what = "; ".join(f"{kind}: {count:,}" for kind, count in zip(kinds, counts, strict=True))
    say(options, f"{flagged:,} of {n:,} objects are flagged, q < {FLAG}{f' ({what})' if what else ''}.")
    if scores.warning:
        warn(as_options(scores.warning, options))
    return scores


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    noise, given = law(options)
    if options.published is not None:
        if given:
            raise ValueError(f"--published fixes the whole noise law: leave out {' and '.join(given)}")
        noise = rp.Noise(1.0, options.published, 0.0)
    return {
        "noise": noise,
        "prior": rp.Prior.flat() if options.flat_prior or options.published is not None else rp.Prior(),
        "max_epochs": options.max_epochs,
        "checkpoint": options.checkpoint,
        "tol": options.tol,
    }
