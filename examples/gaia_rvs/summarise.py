# %% [markdown]
# # Step `summarise`: the list of strange stars, and what the bins have in common
#
# Reads the tables of the bins, never the spectra.

# %%
from __future__ import annotations

from typing import Any

import pandas as pd

import robusta_prob as rp
from examples.gaia_rvs import analyse, figures, truth
from examples.gaia_rvs.bins import centres
from examples.gaia_rvs.config import Config
from examples.gaia_rvs.drawing import surprise_of
from examples.gaia_rvs.tables import folder_of, read_record, read_table, save_picture, write_table

SURPRISE = "−log₁₀ of the least p-value"


def records(config: Config) -> list[dict[str, Any]]:
    """What `analyse` said of every bin; nothing of those that it has not seen."""
    paths = [folder_of(config, number) / analyse.RECORD for number in range(config.bins.number)]
    if not any(path.exists() for path in paths):
        raise FileNotFoundError(f"no bin in {config.files.output} has been analysed: run `analyse` first")
    unseen = {"rank": None, "spectra": 0, "flagged": 0, "published": 0}
    return [read_record(path) if path.exists() else unseen for path in paths]


def per_bin(config: Config, name: str) -> list[pd.DataFrame]:
    """A table of every bin; empty ones where there is no model."""
    paths = [folder_of(config, number) / name for number in range(config.bins.number)]
    return [read_table(path) if path.with_suffix(".h5").exists() else analyse.nobody(name) for path in paths]


def joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """All bins in one table."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled or parts[:1], ignore_index=True)


# %% Stars in two bins.
def pairs_of(stars: pd.DataFrame) -> pd.DataFrame:
    """Stars in two bins that are outliers in one of them at least, the most different scores first."""
    both = stars[stars.duplicated("source_id", keep=False)].sort_values(["source_id", "bin"])
    columns = both.groupby("source_id").agg(
        bin_first=("bin", "first"),
        bin_second=("bin", "last"),
        p_first=("least_p", "first"),
        p_second=("least_p", "last"),
        in_all=("flagged", "all"),
        in_some=("flagged", "any"),
    )
    for which in ("first", "second"):
        columns[f"score_{which}"] = surprise_of(columns.pop(f"p_{which}"))
    columns["difference"] = (columns["score_first"] - columns["score_second"]).abs()
    columns = columns[columns.pop("in_some").astype(bool)]
    return columns.sort_values("difference", ascending=False).reset_index()


def completeness_of(config: Config) -> pd.DataFrame:
    """Per bin, kind and amplitude: the share of injected anomalies found, and the S/N at which half are."""
    rows = []
    for number, record in enumerate(records(config)):
        if record["rank"] is None:
            continue
        recovery = rp.load(folder_of(config, number) / analyse.RECOVERY)
        groups, list_of = recovery.by_amplitude, recovery.lists.index("p_flag")
        for i, kind in enumerate(groups.kind):
            found = [side[i, list_of] for side in groups.found]
            names = ("found", "number", "share", "low", "high")
            row = {
                "bin": number,
                "kind": kind,
                "amplitude": groups.amplitude[i],
                "strength": groups.strength[i],
            }
            rows.append(row | dict(zip(names, found, strict=True)) | {"half": record["half"][kind]})
    columns = ["bin", "kind", "amplitude", "strength", "found", "number", "share", "low", "high", "half"]
    return pd.DataFrame(rows, columns=columns).astype({"half": float})


# %%
def run(config: Config) -> None:
    """Write the combined list, the summaries and their pictures."""
    output, search, dpi = config.files.output, config.search, config.pictures.dpi
    summary = pd.DataFrame(records(config)).reindex(
        columns=["spectra", "rank", "scale", "flagged", "published"]
    )
    summary.insert(0, "bin", range(len(summary)))
    write_table(summary.astype({"rank": float, "scale": float}), output / "summary")

    parts = per_bin(config, analyse.ALL)
    stars = joined(parts)
    outliers = joined(per_bin(config, analyse.OUTLIERS))
    of_star = stars.groupby("source_id")["flagged"].all()
    outliers["in_all_bins"] = of_star.reindex(outliers["source_id"]).to_numpy(bool)
    outliers = outliers.sort_values(["least_p", "low_weight"], ignore_index=True)
    pairs, completeness = pairs_of(stars), completeness_of(config)
    write_table(outliers, output / "outliers")
    write_table(pairs, output / "pairs")
    write_table(completeness, output / "completeness")

    everybody, ellipses = read_table(output / "stars"), centres(config.bins)
    flagged = outliers[outliers["flagged"]]
    pictures = {
        "hr-by-score": figures.hr_diagram(everybody, ellipses, flagged, "least_p", SURPRISE),
        "hr-by-bin": figures.hr_diagram(everybody, ellipses, flagged, "bin", "bin"),
        "published-scores": figures.stacked_histograms(
            parts, "low_weight", search.published, "1 % quantile of the robust weights"
        ),
        "p-values": figures.stacked_histograms(parts, "least_p", None, SURPRISE),
        "fraction": figures.outlier_fraction(summary),
        "pairs": figures.pairs(pairs),
        "completeness": figures.completeness(completeness.drop_duplicates(["bin", "kind"])),
    }
    known = truth.labels(config)
    if known is not None:
        stars = truth.with_labels(stars, known)
        found = truth.recovered(stars, config.pictures.strengths)
        false = truth.false_discoveries(stars, config.bins.number)
        write_table(found, output / "recovered")
        write_table(false, output / "false-discoveries")
        pictures |= {
            "recovered": figures.recovered(found),
            "false-discoveries": figures.false_discoveries(false, config.pictures.least),
        }
    pictures["side-by-side"] = figures.side_by_side(stars, search.published)
    for name, figure in pictures.items():
        save_picture(figure, output / "pictures" / f"{name}.png", dpi)
    both, one = pairs["in_all"].sum(), (~pairs["in_all"]).sum()
    in_two = f"of the stars in two bins {both} are outliers in both, {one} in one alone"
    print(f"{len(flagged)} on our list, {len(outliers)} on that or the published one; {in_two}")
