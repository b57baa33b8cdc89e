# %% [markdown]
# # What a simulated survey knows: which stars are strange, and how much
#
# Where the file of labels is not there, as with the sky itself, nothing of this is made.

# %%
from __future__ import annotations

import numpy as np
import pandas as pd

from examples.gaia_rvs.config import Config

# what `rp.surprise` should call each kind; cosmic rays are bad pixels, which alone make no star strange
NAMES = {
    "Ca II emission": ("lines",),
    "broad Paschen": ("foreign", "lines"),
    "double-lined binary": ("foreign", "lines"),
    "velocity error": ("foreign", "lines"),
    "fast rotation": ("foreign", "lines"),
    "underestimated errors": ("errors",),
    "cosmic rays": ("isolated pixels", "lines"),
    "detector segment": ("foreign", "lines"),
    "continuum slope": ("foreign",),
}


def labels(config: Config) -> pd.DataFrame | None:
    """Labelled stars with kind, amplitude and strength [sigma]; None where nothing is known."""
    if config.files.truth is None:
        return None
    table = pd.read_csv(config.files.truth, dtype={"source_id": np.int64})
    return table.rename(columns={"kind": "true"})[["source_id", "true", "amplitude", "strength"]]


def with_labels(stars: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Every star with what is wrong with it, "" for nothing."""
    both = stars.merge(known, on="source_id", how="left", validate="many_to_one")
    return both.assign(true=both["true"].fillna(""))


def recovered(stars: pd.DataFrame, edges: tuple[float, ...]) -> pd.DataFrame:
    """How many of the labelled are on the lists, and named rightly, by kind and strength."""
    own = stars[stars["true"] != ""]
    right = np.array(
        [kind in NAMES.get(true, ()) for true, kind in zip(own["true"], own["kind"], strict=True)], bool
    )
    own = own.assign(
        named=right & own["flagged"], step=pd.cut(own["strength"], [*edges, np.inf], right=False)
    )
    table = own.groupby(["true", "step"], observed=True).agg(
        number=("flagged", "size"),
        amplitude=("amplitude", "median"),
        found=("flagged", "sum"),
        named=("named", "sum"),
        published=("published", "sum"),
    )
    table = table.reset_index().rename(columns={"true": "kind"})
    table.insert(1, "strength_low", [step.left for step in table["step"]])
    table.insert(2, "strength_high", [step.right for step in table["step"]])
    return table.drop(columns="step")


def false_discoveries(stars: pd.DataFrame, bins: int) -> pd.DataFrame:
    """How many of each bin's list, ours and the published one, are stars with which nothing is wrong."""
    rows = []
    for number in range(bins):
        here = stars[stars["bin"] == number]
        normal = here["true"] == ""
        row = {"bin": number, "spectra": len(here), "flagged": here["flagged"].sum()}
        row |= {"false": (here["flagged"] & normal).sum(), "published": here["published"].sum()}
        rows.append(row | {"published_false": (here["published"] & normal).sum()})
    return pd.DataFrame(rows)
