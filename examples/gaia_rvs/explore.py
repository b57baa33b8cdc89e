# %% [markdown]
# # Step `report`: one page to look at all of it
#
# The strange stars and the samples of all bins, with their spectra, on one HTML page that can be restricted
# to a bin, and to stars that are outliers in all their bins. The big file is not opened.

# %%
from __future__ import annotations

import numpy as np
import pandas as pd

import robusta_prob as rp
from examples.gaia_rvs import analyse, embed, train
from examples.gaia_rvs.config import Config
from examples.gaia_rvs.lines import MARKERS
from examples.gaia_rvs.tables import folder_of, read_record, read_table
from robusta_prob import report

PAGE = "report.html"
AXES = ("bp_rp", "-abs_mag")  # a Hertzsprung-Russell diagram
ONLY = ("in_all_bins", "flagged in all their bins")
LABELS = {
    "bp_rp": "BP − RP [mag]",
    "abs_mag": "M_G [mag]",
    "phot_g_mean_mag": "G [mag]",
    "parallax": "parallax [mas]",
    "parallax_error": "parallax error [mas]",
    "radial_velocity": "RV [km/s]",
    "teff_gspphot": "T_eff [K]",
    "ra": "RA [deg]",
    "dec": "Dec [deg]",
    "in_all_bins": "in all bins",
}


# %% A bin: its strange stars, and of the sample those that are not among them.
def parts_of(config: Config, number: int, outliers: pd.DataFrame) -> list[report.Explorer]:
    """One part for each; none where the bin has no model."""
    folder = folder_of(config, number)
    if not (folder / analyse.RECORD).exists() or read_record(folder / analyse.RECORD)["rank"] is None:
        return []
    fit, survey = rp.load(folder / train.SELECTION).fit(), rp.load(folder / analyse.SCORES)
    here = outliers[outliers["bin"] == number]
    settled = here.loc[here["in_all_bins"].to_numpy(bool), "source_id"].to_numpy()
    published = here.loc[here["published"].to_numpy(bool), "source_id"].to_numpy()
    found, seen = [], np.empty(0, np.int64)
    for name in (analyse.STRANGE, analyse.SAMPLE):
        part = analyse.kept(folder / name)
        if part is None or not (new := ~np.isin(part.data.ids, seen)).any():
            continue
        data, scores, projection = part.data.take(new), part.scores.take(new), part.projection.take(new)
        seen = np.append(seen, data.ids)
        data = data.with_meta(in_all_bins=np.isin(data.ids, settled), published=np.isin(data.ids, published))
        one = report.explore(
            fit, data, scores, projection, embedding=False, lines=MARKERS, labels=LABELS, survey=survey
        )
        found.append(one)
    return found


# %% The map of step `umap`, star by star.
def places(config: Config, parts: list[report.Explorer], bins: list[int]) -> tuple[str, np.ndarray]:
    """Its name, and where the stars of the parts are on it; NaN for those that are not."""
    table = pd.DataFrame(
        {
            "source_id": np.concatenate([part.columns["id"] for part in parts]),
            "bin": np.repeat(bins, [len(part.columns["id"]) for part in parts]),
        }
    )
    points = read_table(config.files.output / embed.TABLE)[["source_id", "bin", "x", "y"]]
    placed = table.merge(points, "left", ["source_id", "bin"])
    return "UMAP of the outliers", placed[["x", "y"]].to_numpy(float)


# %%
def run(config: Config) -> None:
    """Write the page."""
    output, parts, bins = config.files.output, [], []
    outliers = read_table(output / "outliers")
    for number in range(config.bins.number):
        new = parts_of(config, number, outliers)
        parts += new
        bins += len(new) * [number]
    if not parts:
        print("no bin has a model: there is nothing to report")
        return
    embedding = places(config, parts, bins) if (output / f"{embed.TABLE}.h5").exists() else False
    page = report.joined(parts, bins, facet="bin", embedding=embedding, axes=AXES, only=ONLY)
    kind = "a simulated Gaia RVS survey" if config.simulation.objects else "the Gaia RVS spectra"
    report.write_page(page, output / PAGE, title=f"Strange stars of {kind}")
    print(f"{output / PAGE}: {page}")
