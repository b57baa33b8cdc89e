# %% [markdown]
# # Step `compare`: would another metric have chosen other models, and found other stars?

# %%
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform

from examples.gaia_rvs import analyse, figures
from examples.gaia_rvs.config import Config
from examples.gaia_rvs.summarise import joined, per_bin, records
from examples.gaia_rvs.tables import save_picture, write_table


def agreement_of(listed: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Jaccard index of every two lists: shared entries over all; NaN where both are empty."""
    table = pd.crosstab([listed["bin"], listed["source_id"]], listed["metric"]).reindex(
        columns=metrics, fill_value=0
    )
    members = table.to_numpy(bool).T
    index = (
        1.0 - squareform(pdist(members, "jaccard")) if members.size else np.full(2 * (len(metrics),), np.nan)
    )
    empty = ~members.any(1)
    index[np.ix_(empty, empty)] = np.nan
    return pd.DataFrame(index, index=list(metrics), columns=list(metrics))


def run(config: Config) -> None:
    """Write what every metric chose, how many outliers follow, and how much their lists agree."""
    output = config.files.output
    rows = [
        {"bin": number, "metric": metric, "K": rank, "Q": scale, "outliers": count}
        for number, record in enumerate(records(config))
        for metric, (rank, scale, count) in record.get("choices", {}).items()
    ]
    metrics = pd.DataFrame(rows, columns=["bin", "metric", "K", "Q", "outliers"]).astype({"Q": float})
    listed = joined(per_bin(config, analyse.METRICS))
    agreement = agreement_of(listed, metrics["metric"].unique().tolist())
    write_table(metrics, output / "metrics")
    write_table(agreement.reset_index(names="metric"), output / "agreement")
    save_picture(
        figures.agreement(agreement, metrics), output / "pictures/agreement.png", config.pictures.dpi
    )
