# %% [markdown]
# # Step `bins`: which star is in which bin
#
# The two files are joined, absolute magnitudes computed, and every star is given to the ellipses it lies in.

# %%
from __future__ import annotations

import zlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from examples.gaia_rvs.config import Bins, Config
from examples.gaia_rvs.tables import is_made, read_record, read_table, write_json, write_table
from robusta_prob.io import open_hdf5

RECORD = "bins.json"
LOOKED_AT = 64  # spectra by which a file is known
NEEDED = ("source_id", "parallax", "bp_rp", "phot_g_mean_mag")


# %% The main sequence.
def ridge(bins: Bins, bp_rp: np.ndarray) -> np.ndarray:
    """Absolute magnitude M_G of the main sequence at these colours, both in mag; the bins lie along it."""
    straight = np.interp(bp_rp, bins.bp_rp, bins.abs_mag)
    return straight + bins.bump * np.exp(-0.5 * ((bp_rp - bins.bump_at) / bins.bump_width) ** 2)


def centres(bins: Bins) -> pd.DataFrame:
    """Centres and full widths of the ellipses [mag]."""
    bp_rp, step = np.linspace(*bins.bp_rp, bins.number, retstep=True)
    return pd.DataFrame(
        {
            "bin": np.arange(bins.number),
            "bp_rp": bp_rp,
            "abs_mag": ridge(bins, bp_rp),
            "width_bp_rp": bins.width_bp_rp * step,
            "width_abs_mag": bins.width_abs_mag * np.ptp(bins.abs_mag) / (bins.number - 1),
        }
    )


def absolute_magnitude(g: np.ndarray, parallax: np.ndarray) -> np.ndarray:
    """M_G from the apparent magnitude [mag] and the parallax [mas]; extinction is not corrected for."""
    return g + 5.0 * np.log10(parallax / 1000.0) + 5.0


def inside(stars: pd.DataFrame, ellipse: pd.Series) -> np.ndarray:
    """Which stars lie within one ellipse."""
    x = (stars["bp_rp"] - ellipse["bp_rp"]) / (0.5 * ellipse["width_bp_rp"])
    y = (stars["abs_mag"] - ellipse["abs_mag"]) / (0.5 * ellipse["width_abs_mag"])
    return (x**2 + y**2 < 1.0).to_numpy()


# %% The two files.
def joined(config: Config) -> pd.DataFrame:
    """Stars with a spectrum, a colour, a magnitude and a distance, in the order of the file of spectra."""
    with open_hdf5(config.files.spectra) as file:
        for name in ("source_id", "flux", "flux_error"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise ValueError(f"{config.files.spectra} has no dataset {name!r}; it holds {sorted(file)}")
        _check_kinds(config, file)
        ids = pd.DataFrame({"source_id": file["source_id"][()], "row": np.arange(len(file["source_id"]))})
        if file["flux"].shape != file["flux_error"].shape or len(file["flux"]) != len(ids):
            raise ValueError(
                f"{config.files.spectra}: source_id, flux and flux_error must have one row per star, got "
                f"{file['source_id'].shape}, {file['flux'].shape} and {file['flux_error'].shape}"
            )
    try:
        stars = pd.read_csv(config.files.metadata, dtype={"source_id": np.int64})
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{config.files.metadata} is no table of stars by source_id: {error}") from error
    if lacking := [name for name in NEEDED if name not in stars]:
        raise ValueError(f"{config.files.metadata} lacks the columns {lacking}; it has {list(stars.columns)}")
    for name, table in ((config.files.spectra, ids), (config.files.metadata, stars)):
        if table["source_id"].duplicated().any():
            twice = table.loc[table["source_id"].duplicated(), "source_id"].iloc[0]
            raise ValueError(f"{name}: source_id {twice} is there twice; every star must have one row")
    both = ids.merge(stars, on="source_id", how="inner", validate="one_to_one").sort_values("row")
    known = np.isfinite(both[list(NEEDED[1:])].astype(float)).all(axis=1) & (both["parallax"] > 0)
    both = both[known].reset_index(drop=True)
    both["abs_mag"] = absolute_magnitude(both["phot_g_mean_mag"], both["parallax"])
    print(f"{len(ids):,} spectra, {len(stars):,} stars with metadata; {len(both):,} have both and a distance")
    if not len(both):
        raise ValueError(
            f"no star of {config.files.spectra} has a colour, a magnitude and a parallax in "
            f"{config.files.metadata}: are the source_id the same numbers (not 5.9e18, as spreadsheets "
            "write), and the parallaxes positive [mas]?"
        )
    return both


def _check_kinds(config: Config, file: h5py.File) -> None:
    path, pixels = config.files.spectra, config.pixels.number
    if file["source_id"].dtype.kind not in "iu":
        raise ValueError(
            f"{path}: source_id must be 64-bit integers, got {file['source_id'].dtype}: floats lose digits"
        )
    for name in ("flux", "flux_error"):
        if file[name].dtype.kind != "f" or file[name].ndim != 2 or file[name].shape[1] != pixels:
            raise ValueError(
                f"{path}: {name} must hold {pixels} numbers per star (pixels.number), got {file[name].dtype} "
                f"in {file[name].shape}"
            )


def signature(path: Path) -> list[int]:
    """Of a file of spectra: its size, and checksums of the ids and of some of the spectra."""
    with open_hdf5(path) as file:
        step = max(1, len(file["flux"]) // LOOKED_AT)
        some = [file[name][::step] for name in ("flux", "flux_error")]
        sums = [zlib.crc32(np.ascontiguousarray(x).tobytes()) for x in (file["source_id"][()], *some)]
    return [path.stat().st_size, *sums]


# %%
def run(config: Config) -> None:
    """Write `stars` (all that can be placed), `bins` (the ellipses) and `members` (who is where)."""
    output, ellipses = config.files.output, centres(config.bins)
    output.mkdir(parents=True, exist_ok=True)
    settings = {
        "bins": config.bins,
        "spectra": signature(config.files.spectra),
        "metadata": zlib.crc32(config.files.metadata.read_bytes()),
    }
    if is_made(output / RECORD, settings, *(output / f"{name}.h5" for name in ("stars", "members", "bins"))):
        return
    stars = joined(config)
    places = [np.flatnonzero(inside(stars, ellipse)) for _, ellipse in ellipses.iterrows()]
    ellipses["stars"] = [len(place) for place in places]
    if not ellipses["stars"].any():
        raise ValueError(
            f"none of {len(stars):,} stars is in a bin; their median M_G is "
            f"{stars['abs_mag'].median():.1f}: are parallaxes in mas, and magnitudes in mag?"
        )
    members = pd.DataFrame(
        {"bin": np.repeat(ellipses["bin"], ellipses["stars"]), "star": np.concatenate(places)}
    )
    write_table(stars, output / "stars", csv=[])
    write_table(members, output / "members", csv=[])
    write_table(ellipses, output / "bins")
    write_json({"settings": settings, "stars": len(stars)}, output / RECORD)
    print(ellipses.to_string(index=False, float_format="%.3f"))


def members_of(config: Config, number: int) -> pd.DataFrame:
    """Stars of one bin, in the order of the file of spectra."""
    read_record(config.files.output / RECORD)  # or say that `bins` has to come first
    members = read_table(config.files.output / "members")
    stars = read_table(config.files.output / "stars")
    return stars.iloc[members.loc[members["bin"] == number, "star"]].reset_index(drop=True)
