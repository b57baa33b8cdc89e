# %% [markdown]
# # The two input files, from the Gaia archive
#
# `dr3-source-meta.csv` comes from a TAP query, `dr3-rvs-all.hdf5` from DataLink in batches. What has arrived
# is kept in `parts` and `batches`: after any interruption, start again. For all million spectra, the bulk
# files `RvsMeanSpectrum_*.csv.gz` of the archive's download area are the better way (they are in
# `Gaia/gdr3/Spectroscopy/rvs_mean_spectrum`): get them with any program, then
# `assemble(sorted(there.glob("*.csv.gz")), folder / SPECTRA)`.
#
# What was tried, and what was not: there was no network where this was written, and the queries have never
# been sent. The calls follow the source of astroquery 0.4. All but the archive is tested, with a stand-in
# that has its two methods. So begin with `limit=100`, and look at what arrives.

# %%
from __future__ import annotations

import http.client
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from examples.gaia_rvs.products import (
    assemble,
    check_space,
    parse_products,
    read_asked,
    read_bulk,
    require,
    write_batch,
)
from robusta_prob.io import atomic_path, remove_temporaries

__all__ = [
    "archive",
    "assemble",
    "download",
    "fetch_spectra",
    "parse_products",
    "query_metadata",
    "read_bulk",
]

META, SPECTRA = "dr3-source-meta.csv", "dr3-rvs-all.hdf5"
COLUMNS = (
    "source_id, ra, dec, parallax, parallax_error, bp_rp, phot_g_mean_mag, grvs_mag, ruwe, radial_velocity, "
    "radial_velocity_error, rv_template_teff, rv_expected_sig_to_noise, rvs_spec_sig_to_noise, vbroad"
)
NEEDED = ("source_id", "parallax", "bp_rp", "phot_g_mean_mag")
SKY = 12 << 59  # source_id = 2^35 x HEALPix of level 12 (12 x 4^12 of them) + a running number
CUT = (2000, 3_000_000)  # rows at which the archive cuts a synchronous and an anonymous asynchronous answer
MOST = 5000  # sources in one call of DataLink
KEPT = "[0-9]*.h5"  # of the batches: what a killed process left has a name with a dot in front
TRANSIENT = (OSError, http.client.HTTPException, zipfile.BadZipFile)  # requests' own errors are OSError
T = TypeVar("T")


# %% The archive.
def archive() -> Any:
    """`astroquery.gaia.Gaia`, or an ImportError that says how to get it."""
    try:
        from astroquery.gaia import Gaia
    except ImportError as error:
        raise ImportError("the Gaia archive needs astroquery: pip install 'robusta-prob[gaia]'") from error
    return Gaia


def _patiently(call: Callable[[], T], what: str, tries: int, pause: float) -> T:
    """The result, waiting `pause` seconds and then twice as long each time after a failure of the network."""
    for attempt in range(tries):
        try:
            return call()
        except TRANSIENT as error:
            if attempt + 1 == tries:
                raise RuntimeError(
                    f"{what} failed {tries} times, at last with {type(error).__name__}: {error}. "
                    "What had arrived before is kept: start again to go on"
                ) from error
            time.sleep(pause * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def query_metadata(
    folder: Path,
    gaia: Any,
    *,
    limit: int | None = None,
    pieces: int = 48,
    tries: int = 5,
    pause: float = 10.0,
) -> pd.DataFrame:
    """Ask for the sources with a spectrum, one of `pieces` equal ranges of HEALPix at a time.

    Arguments are those of `download`. Pieces are kept in `folder / "parts"`; with a `limit`, no more of
    them are asked for than it takes, so that its sources are neighbours on the sky.

    Raises
    ------
    ValueError
        If an answer lacks a column, or has just as many rows as the archive would cut it to.
    """
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    tables: list[pd.DataFrame] = []
    edges = [SKY * i // pieces for i in range(pieces + 1)]
    for low, high in tqdm(list(pairwise(edges)), desc=META, disable=None):
        path = folder / "parts" / f"{low:019d}_{high:019d}.csv"
        if not path.exists():
            query = (
                f"SELECT {COLUMNS} FROM gaiadr3.gaia_source "
                f"WHERE has_rvs = 'true' AND source_id >= {low} AND source_id < {high}"
            )
            what = f"the query of sources {low} to {high}"
            job = partial(gaia.launch_job_async, query)
            table = _patiently(lambda job=job: job().get_results(), what, tries, pause)
            table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
            require(table.colnames, NEEDED, what)
            if len(table) in CUT:
                raise ValueError(
                    f"{what} gave {len(table)} rows: probably cut off; use more than {pieces} pieces"
                )
            remove_temporaries(path)
            with atomic_path(path) as temporary:
                table.to_pandas().to_csv(temporary, index=False)
        tables.append(pd.read_csv(path, dtype={"source_id": "int64"}))
        if limit is not None and sum(map(len, tables)) >= limit:
            break
    meta = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    meta = meta.sort_values("source_id", ignore_index=True)[:limit]
    with atomic_path(folder / META) as temporary:
        meta.to_csv(temporary, index=False)
    return meta


def fetch_spectra(
    source_ids: np.ndarray,
    folder: Path,
    gaia: Any,
    *,
    batch: int = 2000,
    structure: str = "INDIVIDUAL",
    tries: int = 5,
    pause: float = 10.0,
) -> list[Path]:
    """Ask DataLink for the spectra that are not in `folder / "batches"` yet; the paths of all batches.

    Arguments are those of `download`; those of another `batch` size are not asked for again either.
    """
    batches = folder / "batches"
    batches.mkdir(parents=True, exist_ok=True)
    held = [read_asked(path) for path in batches.glob(KEPT)]
    wanted = np.setdiff1d(source_ids, np.concatenate([np.empty(0, np.int64), *held]))
    check_space(folder, 2 * len(wanted))  # the batches, and the file they become
    with tqdm(
        total=len(source_ids), initial=len(source_ids) - len(wanted), desc=SPECTRA, disable=None
    ) as bar:
        for start in range(0, len(wanted), batch):
            asked = wanted[start : start + batch]
            what = f"the batch of {len(asked)} spectra from {asked[0]} to {asked[-1]}"
            load = partial(
                gaia.load_data,
                ids=asked.tolist(),
                data_release="Gaia DR3",
                retrieval_type="RVS",
                data_structure=structure,
                format="votable",
            )
            products = _patiently(load, what, tries, pause)
            try:
                spectra = parse_products(products)
                if not spectra.source_id.size:
                    raise ValueError("it is empty")
                if (stranger := np.setdiff1d(spectra.source_id, asked)).size:
                    raise ValueError(f"source {stranger[0]} was not asked for")
            except ValueError as error:
                raise ValueError(f"{what} is not what was expected: {error}") from error
            write_batch(spectra, asked, batches / f"{asked[0]:019d}_{asked[-1]:019d}.h5")
            bar.update(len(asked))
    return sorted(batches.glob(KEPT))


def download(
    folder: Path,
    *,
    batch: int = 2000,
    limit: int | None = None,
    structure: str = "INDIVIDUAL",
    tries: int = 5,
    pause: float = 10.0,
    gaia: Any = None,
) -> None:
    """Make `dr3-source-meta.csv` and `dr3-rvs-all.hdf5` in `folder`, or go on with it after an interruption.

    Parameters
    ----------
    folder : Path
        Where the two files go, and `parts` and `batches`, which may be removed afterwards. All spectra
        need 19 GB, and as much again for their batches.
    batch : int
        Spectra in one call of DataLink, at most 5000.
    limit : int, optional
        Only so many sources, of the first HEALPix pixels: for a trial.
    structure : str
        "INDIVIDUAL", which has the wavelengths and they are checked, or "RAW", in which files are smaller.
    tries : int
        Attempts at each call, as long as the network is what fails.
    pause : float
        Seconds between the first two of them; doubled each time.
    gaia : object, optional
        Instead of `astroquery.gaia.Gaia`, which is imported only here: what has its `launch_job_async` and
        `load_data`. Log in to yours first if anonymous access is too little.

    Raises
    ------
    ImportError
        If astroquery is not installed.
    RuntimeError
        If the archive does not answer; it says at which query or batch.
    ValueError
        If it answers something else than was expected; nothing of that batch is kept.
    OSError
        If the disk is too small.
    """
    if not 1 <= batch <= MOST:
        raise ValueError(f"batch must be from 1 to {MOST}, the most that DataLink gives at once; got {batch}")
    if tries < 1 or (limit is not None and limit < 1):
        raise ValueError(f"tries and limit must be at least 1, got {tries} and {limit}")
    gaia = archive() if gaia is None else gaia
    folder.mkdir(parents=True, exist_ok=True)
    meta = query_metadata(folder, gaia, limit=limit, tries=tries, pause=pause)
    ids = meta["source_id"].to_numpy()
    options = {"batch": batch, "structure": structure, "tries": tries, "pause": pause}
    paths = fetch_spectra(ids, folder, gaia, **options)
    number = assemble(paths, folder / SPECTRA)
    print(f"{folder}: {len(ids)} sources, {number} spectra; the archive may lack some that it announces")


if __name__ == "__main__":
    download(Path(sys.argv[1]), limit=int(sys.argv[2]) if len(sys.argv) > 2 else None)
