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
from examples.gaia_rvs.bins import members_of
from examples.gaia_rvs.config import Config, Pixels
from robusta_prob.io import open_hdf5

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
    with open_hdf5(config.files.spectra) as file:
        pixels = file["flux"].shape[1]
        ids = file["source_id"][()][members["row"]]
    if not np.array_equal(ids, members["source_id"]):
        raise ValueError(
            f"{config.files.spectra} is not the file that `bins` has read: other stars are in the same rows; "
            "run `bins` into another output folder"
        )
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
