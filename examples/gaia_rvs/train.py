# %% [markdown]
# # Step `train`: a model of every bin
#
# Half of a bin's spectra are fitted, for every rank and scale of the configuration; the others judge by their
# hidden segments. Fits are kept one by one, and one that was killed goes on where it was.

# %%
from __future__ import annotations

import zlib
from typing import Any

import numpy as np

import robusta_prob as rp
from examples.gaia_rvs.bins import members_of
from examples.gaia_rvs.config import Config, Model
from examples.gaia_rvs.survey import spectra_of
from examples.gaia_rvs.tables import folder_of, is_made, swept, write_json

RECORD, SELECTION = "train.json", "selection.h5"


def made_of(config: Config, ids: Any) -> dict[str, Any]:
    """What the models of a bin depend on."""
    stars = zlib.crc32(np.ascontiguousarray(ids, np.int64).tobytes())
    return {"pixels": config.pixels, "model": config.model, "stars": stars}


def ranks_for(model: Model, spectra: int) -> list[int]:
    """Ranks that so many spectra can support; none where they are too few for any model."""
    if spectra < model.least:
        return []
    return [rank for rank in model.ranks if spectra >= rank * model.least_per_component]


def run(config: Config, number: int) -> None:
    """Fit one bin, if that has not been done."""
    folder = swept(folder_of(config, number))
    members = members_of(config, number)
    settings, model = made_of(config, members["source_id"]), config.model
    ranks = ranks_for(model, len(members))
    fits = [folder / "fits" / f"rank-{rank:03d}*.h5" for rank in ranks]
    products = (
        [folder / SELECTION, *(next(folder.glob(f"fits/{at.name}"), at) for at in fits)] if ranks else []
    )
    if is_made(folder / RECORD, settings, *products):
        return
    if not ranks:
        print(f"bin {number}: {len(members)} spectra are too few for a model (model.least = {model.least})")
        write_json({"settings": settings, "spectra": len(members), "rank": None}, folder / RECORD)
        return
    with rp.Progress(f"bin {number}") as bar:
        selection = rp.select(
            spectra_of(config, number),
            ranks,
            model.scales or None,
            train=model.train,
            key=model.seed,
            tol=model.tol,
            max_epochs=model.max_epochs,
            folder=folder / "fits",
            callback=bar,
        )
    rp.save(selection, folder / SELECTION)
    rp.write_selection(selection, folder / "selection.csv")
    fit = selection.fit()
    told = {
        "spectra": len(members),
        "rank": selection.rank,
        "scale": selection.scale,
        "density": float(selection.scores.max()),
        "status": fit.status.message,
        "noise": str(fit.noise),
    }
    write_json({"settings": settings, **told}, folder / RECORD)
    print(f"bin {number}: K = {selection.rank} of {ranks}, {fit.status.code}")
