# %% [markdown]
# # Step `compare`: would another metric have chosen other models, and found other stars?

# %%
from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from examples.gaia_rvs import analyse, figures
from examples.gaia_rvs.config import Config
from examples.gaia_rvs.summarise import joined, per_bin, records
from examples.gaia_rvs.tables import save_picture, write_table


def agreement_of(lists: dict[str, set[tuple[int, int]]]) -> pd.DataFrame:
    """Jaccard index of every two lists: shared entries over all; NaN where both are empty."""
    table = pd.DataFrame(np.nan, index=list(lists), columns=list(lists))
    for first, second in product(lists, lists):
        either = lists[first] | lists[second]
        if either:
            table.loc[first, second] = len(lists[first] & lists[second]) / len(either)
    return table


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
    lists = {
        metric: set(
            listed.loc[listed["metric"] == metric, ["bin", "source_id"]].itertuples(index=False, name=None)
        )
        for metric in metrics["metric"].unique()
    }
    agreement = agreement_of(lists)
    write_table(metrics, output / "metrics")
    write_table(agreement.reset_index(names="metric"), output / "agreement")
    save_picture(
        figures.agreement(agreement, metrics), output / "pictures/agreement.png", config.pictures.dpi
    )
