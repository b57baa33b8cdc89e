# %% [markdown]
# # Step `umap`: which outliers look alike
#
# UMAP puts stars with similar residuals side by side. The places are kept with the list: another run, or
# other software, would put them elsewhere, and they are never a score.

# %%
from __future__ import annotations

import zlib

import numpy as np
import pandas as pd

import robusta_prob as rp
from examples.gaia_rvs import analyse, figures, train
from examples.gaia_rvs.config import Config, Embedding
from examples.gaia_rvs.tables import folder_of, is_current, read_table, save_picture, write_json, write_table

RECORD, TABLE = "umap.json", "embedding"
COLOURS = {
    "bin": "bin",
    "bp_rp": "BP − RP [mag]",
    "abs_mag": "absolute magnitude M_G [mag]",
    "parallax": "parallax [mas]",
    "phot_g_mean_mag": "apparent magnitude G [mag]",
    "least_p": "−log₁₀ of the least p-value",
}


def residuals_of(config: Config, wanted: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Outliers and their residuals [flux], missing ones 0, bin by bin."""
    tables, parts = [wanted.iloc[:0]], []
    for number, here in wanted.groupby("bin"):
        folder = folder_of(config, int(number))
        part = analyse.kept(folder / analyse.STRANGE)
        if part is None:
            continue
        data, _, projection = part
        residual = rp.residuals(rp.load(folder / train.SELECTION).fit(), data, projection)
        row = pd.Series(range(len(data.ids)), index=data.ids)
        tables.append(here)
        parts.append(np.nan_to_num(residual[row[here["source_id"]]]))
    residual = np.concatenate(parts) if parts else np.empty((0, 0))
    return pd.concat(tables, ignore_index=True), residual


def places(residual: np.ndarray, settings: Embedding) -> np.ndarray:
    """Two coordinates for every row, by the angle between residuals.

    Raises
    ------
    ImportError
        Without umap-learn.
    """
    try:
        import umap
    except ImportError as error:
        raise ImportError("the map needs umap-learn: pip install 'robusta-prob[gaia]'") from error
    neighbours = min(settings.neighbours, len(residual) - 1)
    mapper = umap.UMAP(
        n_neighbors=neighbours,
        min_dist=settings.min_dist,
        metric="cosine",
        random_state=settings.seed,
        n_jobs=1,
    )
    return np.asarray(mapper.fit_transform(residual), float)


def run(config: Config) -> None:
    """Write the map, unless that of this list is there, and its pictures."""
    output, settings = config.files.output, config.embedding
    outliers = read_table(output / "outliers")
    wanted = outliers[outliers["flagged"] & (outliers["in_all_bins"] | (not settings.only_in_all_bins))]
    listed = zlib.crc32(wanted[["bin", "source_id"]].to_numpy(np.int64).tobytes())
    made_of = {"embedding": settings, "outliers": listed}
    if not is_current(output / RECORD, made_of):
        if len(wanted) < settings.least:
            print(f"{len(wanted)} outliers are too few for a map")
            points = wanted.assign(x=np.nan, y=np.nan).iloc[:0]
        else:
            points, residual = residuals_of(config, wanted)
            points[["x", "y"]] = places(residual, settings)
        write_table(points, output / TABLE)
        write_json({"settings": made_of, "points": len(points)}, output / RECORD)
    points = read_table(output / TABLE)
    for column, label in COLOURS.items():
        figure = figures.embedding(points, column, label)
        save_picture(figure, output / "pictures" / f"umap-by-{column}.png", config.pictures.dpi)
