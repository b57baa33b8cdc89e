# %% [markdown]
# # Step `analyse`: how strange every star of a bin is
#
# The chosen model is inferred on all spectra of the bin, in chunks that are kept; all are scored at once,
# since a false-discovery rate is that of a list. What pictures and later steps need of the strange ones, and
# of a random sample, is copied out, so that nobody has to open the big file again.

# %%
from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import robusta_prob as rp
from examples.gaia_rvs import train
from examples.gaia_rvs.bins import members_of
from examples.gaia_rvs.config import Config
from examples.gaia_rvs.survey import spectra_of, wavelengths
from examples.gaia_rvs.tables import folder_of, is_made, read_record, swept, write_json, write_table

RECORD, SCORES, RECOVERY = "analyse.json", "scores.h5", "recovery.h5"
ALL, OUTLIERS, METRICS = "stars", "outliers", "metrics"  # tables of a bin
STRANGE, SAMPLE = "strange", "sample"  # folders of spectra, scores and coefficients,
PARTS = ("spectra.h5", "scores.h5", "projection.h5")  # of some stars
BRIEF = [
    "source_id",
    "least_p",
    "q_any",
    "kind",
    "low_weight",
    "flagged",
    "published",
    "in_training",
    "reason",
]
Name = tuple[int, float | None]  # of a model: rank and scale
NOBODY = {
    **dict.fromkeys(("source_id", "bin", "K"), np.int64),
    **dict.fromkeys(("least_p", "q_any", "low_weight", "Q"), np.float64),
    **dict.fromkeys(("bp_rp", "abs_mag", "parallax", "phot_g_mean_mag"), np.float64),
    **dict.fromkeys(("flagged", "published", "in_training"), bool),
    "kind": str,
}  # columns of the tables of a bin without a model


# %% Coefficients of all spectra, chunk by chunk.
def inferred(fit: rp.Fit, data: rp.Dataset, folder: Path, chunk: int) -> rp.Projection:
    """The projection; chunks that are there are not made again."""
    folder.mkdir(exist_ok=True)
    parts = []
    with rp.Progress("infer") as bar:
        for start in range(0, data.shape[0], chunk):
            path = folder / f"from-{start:07d}.h5"
            try:
                parts.append(rp.load(path))
            except (FileNotFoundError, ValueError):  # not there, or damaged
                parts.append(rp.project(fit, data.take(slice(start, start + chunk)), callback=bar))
                rp.save(parts[-1], path)
    return rp.Projection.joined(parts)


# %% A part of a bin that later steps work with.
class Part(NamedTuple):
    """Some stars of a bin."""

    data: rp.Dataset
    scores: rp.Surprise
    projection: rp.Projection


def keep(
    folder: Path, data: rp.Dataset, scores: rp.Surprise, projection: rp.Projection, rows: np.ndarray
) -> None:
    """Copy some stars out; an empty folder where there are none."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.h5"):
        old.unlink()
    if len(rows):
        rp.write(data.take(rows).load(), folder / PARTS[0])
        rp.save(scores.take(rows), folder / PARTS[1])
        rp.save(projection.take(rows), folder / PARTS[2])


def kept_of(folder: Path) -> list[Path]:
    """Files of the parts of a bin that `analyse` has kept, by its record."""
    told = read_record(folder / RECORD) if (folder / RECORD).exists() else {}
    return [folder / part / name for part in told.get("kept", []) for name in PARTS]


def kept(folder: Path) -> Part | None:
    """What `keep` has kept; None where that is nothing."""
    spectra, scores, projection = (folder / name for name in PARTS)
    if not spectra.exists():
        return None
    return Part(rp.read(spectra), rp.load(scores), rp.load(projection))


# %% The table of all stars of a bin.
def table_of(config: Config, number: int, name: Name, data: rp.Dataset, scores: rp.Surprise) -> pd.DataFrame:
    """Scores and what is known of the stars; `flagged` is our list, `published` the published one."""
    columns = {key: column for key, column in rp.score_columns(scores, data).items() if np.ndim(column) == 1}
    own = {
        "least_p": scores.least_p,
        "flagged": scores.flagged,
        "published": scores.object.low_weight < config.search.published,
        "bin": number,
        "K": name[0],
        "Q": np.nan if name[1] is None else name[1],
    }
    del columns["rank"]  # in the bin; in the list of all bins it would mislead
    return pd.DataFrame(columns | own).rename(columns={"id": "source_id"})


def nobody(name: str) -> pd.DataFrame:
    """One of the tables of a bin that has no model."""
    kinds = {"bin": np.int64, "metric": str, "source_id": np.int64} if name == METRICS else NOBODY
    return pd.DataFrame({column: np.empty(0, kind) for column, kind in kinds.items()})


def listed(table: pd.DataFrame) -> pd.DataFrame:
    """Who is in one of the lists, the least probable first."""
    return table[table["flagged"] | table["published"]].sort_values(["least_p", "low_weight"])


# %% What each of the metrics would have chosen.
def choices(selection: rp.Selection) -> dict[str, Name]:
    """Models by held-out density, and by the metrics of the published pipeline."""
    others = {name: selection.by_published(name)[:2] for name in selection.best.published._fields}
    return {"density": (selection.rank, selection.scale), **others}


def metrics_of(number: int, chosen: dict[str, Name], lists: dict[Name, pd.Series]) -> pd.DataFrame:
    """Who is on the list by the model that a metric would have chosen, metric by metric."""
    rows = [(number, metric, int(star)) for metric, name in chosen.items() for star in lists[name]]
    return pd.DataFrame(rows, columns=["bin", "metric", "source_id"]).astype({"source_id": np.int64})


def scored(
    config: Config, fit: rp.Fit, name: Name, data: rp.Dataset, folder: Path
) -> tuple[rp.Projection, rp.Surprise]:
    """Coefficients and scores of all stars under one model."""
    scale = "" if name[1] is None else f"-{name[1]:g}"
    mark = zlib.crc32(np.ascontiguousarray(fit.basis).tobytes())
    chunks = folder / f"inferred-{name[0]}{scale}-{mark:08x}-{config.search.chunk}"
    projection = inferred(fit, data, chunks, config.search.chunk)
    lines = config.search.lines or None
    with rp.Progress("score") as bar:
        scores = rp.surprise(
            fit,
            data,
            projection,
            lines=lines,
            flag_lines=lines is not None,
            robustness=config.search.robustness,
            empirical_null="by error" if config.search.by_error else False,
            callback=bar,
        )
    return projection, scores


# %%
def rehearse(config: Config) -> None:
    """Inject into flat spectra what is to be injected into each bin: mistakes show before hours of work.

    Raises
    ------
    ValueError
        If there is no such kind, or it cannot have such an amplitude or option.
    """
    grid = wavelengths(config.pixels, config.pixels.number)
    flat = rp.dataset(np.ones((2, len(grid))), np.ones((2, len(grid))), grid=grid)
    for kind, amplitudes in config.injection.amplitudes.items():
        for amplitude in amplitudes:
            options = config.injection.options.get(kind, {})
            try:
                rp.inject(flat, kind, amplitude, key=config.injection.seed, **options)
            except (TypeError, ValueError) as error:
                raise ValueError(f"injection of {kind!r}, {amplitude}, {options}: {error}") from error


def run(config: Config, number: int) -> None:
    """Score one bin, if that has not been done."""
    folder = swept(folder_of(config, number))
    made_of = train.made_of(config, members_of(config, number)["source_id"])
    model, search, pictures = read_record(folder / train.RECORD), config.search, config.pictures
    is_made(folder / train.RECORD, made_of)
    settings: dict[str, Any] = {
        **made_of,
        "search": [search.lines, search.published, search.by_error, search.robustness],
        "injection": config.injection,
        "pictures": [pictures.sample, pictures.seed],
    }
    products = [folder / f"{name}.h5" for name in (ALL, OUTLIERS, METRICS)]
    if model["rank"] is not None:
        products += [folder / SCORES, folder / RECOVERY, *kept_of(folder)]
    if is_made(folder / RECORD, settings, *products):
        return
    told: dict[str, Any] = {key: model[key] for key in ("spectra", "rank")}
    if model["rank"] is None:
        for name in (ALL, OUTLIERS, METRICS):
            write_table(nobody(name), folder / name)
        write_json({"settings": settings, **told, "flagged": 0, "published": 0}, folder / RECORD)
        return

    selection, data = rp.load(folder / train.SELECTION), spectra_of(config, number)
    chosen = choices(selection)
    best = chosen["density"]
    fit = selection.fit(*best)
    projection, scores = scored(config, fit, best, data, folder)
    table = table_of(config, number, best, data, scores)
    lists = {best: table.loc[table["flagged"], "source_id"]}
    for name in set(chosen.values()) - {best}:  # for the comparison of the metrics alone
        _, other = scored(config, selection.fit(*name), name, data, folder)
        of_other = table_of(config, number, name, data, other)
        lists[name] = of_other.loc[of_other["flagged"], "source_id"]

    # %% Completeness, by anomalies that are put into normal spectra of this bin.
    wanted = config.injection.amplitudes
    recovery = rp.recovery(
        fit,
        data,
        wanted,
        key=config.injection.seed,
        level=scores.level,
        per_amplitude=config.injection.per_amplitude,
        options={kind: options for kind, options in config.injection.options.items() if kind in wanted},
        scores=scores,
        projection=projection,
    )

    # %% Everything on disk, the record last.
    rp.save(scores, folder / SCORES)
    rp.save(recovery, folder / RECOVERY)
    write_table(table, folder / ALL, csv=BRIEF)
    write_table(listed(table), folder / OUTLIERS)
    write_table(metrics_of(number, chosen, lists), folder / METRICS, csv=[])
    strange = listed(table).index.to_numpy()
    normal = table.index[~table["flagged"]].to_numpy()
    sample = np.random.default_rng(pictures.seed).permutation(normal)[: pictures.sample]
    keep(folder / STRANGE, data, scores, projection, strange)
    keep(folder / SAMPLE, data, scores, projection, sample)
    told |= {
        "scale": best[1],
        "flagged": int(table["flagged"].sum()),
        "published": int(table["published"].sum()),
        "level": scores.level,
        "kept": [name for name, rows in ((STRANGE, strange), (SAMPLE, sample)) if len(rows)],
        "choices": {metric: [*name, len(lists[name])] for metric, name in chosen.items()},
        "half": {kind: recovery.half(kind) for kind in wanted},
    }
    write_json({"settings": settings, **told}, folder / RECORD)
    print(
        f"bin {number}: {told['flagged']} of {len(table)} flagged, {told['published']} by the published score"
    )
