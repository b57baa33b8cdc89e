# %% [markdown]
# # The spectra of one bin, out of the big file
#
# Rows are read in the order of the file: all at once where they fit into the memory that is allowed, else
# block by block whenever they are wanted. The numbers are the same.

# %%
from __future__ import annotations

from typing import Any

import numpy as np

import robusta_prob as rp
from examples.gaia_rvs.bins import RECORD, members_of, signature
from examples.gaia_rvs.config import Config, Pixels
from examples.gaia_rvs.tables import read_record

FIXED = 1.0  # GiB that a fit takes whatever it fits, beside which the data have to find room
CELL = 8  # bytes of flux and inverse variance


def wavelengths(pixels: Pixels, number: int) -> np.ndarray:
    """Of the pixels that are left [nm, vacuum]."""
    return (pixels.first + pixels.step * np.arange(number))[kept(pixels)]


def kept(pixels: Pixels) -> slice:
    """Which pixels these are."""
    return slice(pixels.clip, -pixels.clip or None)


def spectra_of(config: Config, number: int) -> rp.Dataset | None:
    """Spectra of a bin with what is known of the stars; None where it has none.

    Raises
    ------
    ValueError
        If the file is not the one in which the stars were found.
    """
    members = members_of(config, number)
    if not len(members):
        return None
    known = read_record(config.files.output / RECORD)["settings"]["spectra"]
    if signature(config.files.spectra) != known:
        raise ValueError(
            f"{config.files.spectra} is not the file that `bins` has read: its stars or spectra are others; "
            "run `bins` into another output folder"
        )
    pixels = config.pixels.number
    size = len(members) * pixels * CELL / 2**30
    data = rp.read(
        config.files.spectra,
        rows=members["row"].to_numpy(),
        pixels=kept(config.pixels),
        ids="source_id",
        in_memory=2 * size + FIXED < config.search.memory,  # `rp.select` copies both halves
    )
    columns: dict[str, Any] = {
        str(name): column.to_numpy() for name, column in members.items() if name != "source_id"
    }
    return data.with_grid(wavelengths(config.pixels, pixels), "wavelength [nm]").with_meta(**columns)
