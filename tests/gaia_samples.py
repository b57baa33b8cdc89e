"""What the Gaia archive sends, in its own shapes, and an archive to ask: for the tests of the download."""

import gzip
import io
import json
import re
import sys
import types
from pathlib import Path

import h5py
import numpy as np
from astropy.io import votable
from astropy.table import MaskedColumn, Table

sys.path.insert(0, str(Path(__file__).parent.parent))
from examples.gaia_rvs import download
from examples.gaia_rvs.products import GRID, Spectra

IDS = np.array([7, 11, 2**40, 3 * 2**59, 3 * 2**59 + 5, 5 * 2**60, 12 * 2**59 - 1])  # over the whole sky


def spectrum(source):
    """Flux and error of a source, a function of its name; some pixels are missing."""
    rng = np.random.default_rng(source % 2**32)
    flux, error = (1 + 0.1 * rng.standard_normal((2, GRID.size))).astype(np.float32)
    flux[:5], error[:5], flux[100] = np.nan, np.nan, np.nan
    return flux, np.abs(error)


def expected(ids):
    flux, error = zip(*map(spectrum, ids), strict=True)
    return Spectra(np.array(ids), np.array(flux), np.array(error))


def _masked(values):
    """Missing entries masked, with a number below the mask."""
    return MaskedColumn(np.nan_to_num(values, nan=-99.0), mask=np.isnan(values))


def individual_table(source):
    flux, error = spectrum(source)
    columns = {"wavelength": GRID, "flux": flux, "flux_error": error}
    return Table({name: _masked(value) for name, value in columns.items()})


def raw_table(ids):
    spectra = expected(ids)
    return Table(
        {
            "source_id": ids,
            "flux": _masked(spectra.flux),
            "flux_error": spectra.flux_error,
        }
    )


def as_votable(table):
    """As DataLink sends it: written as XML and parsed, a `TableElement`."""
    file = io.BytesIO()
    votable.from_table(table).to_xml(file)
    return votable.parse(file).get_first_table()


def answer_of(ids, structure="INDIVIDUAL"):
    if structure == "RAW":
        return {"RVS_RAW.xml": [as_votable(raw_table(ids))]}
    return {f"RVS-Gaia DR3 {source}.xml": [individual_table(source)] for source in ids}


class Archive:
    """What `astroquery.gaia.Gaia` is to us, with a memory of what it was asked, and failures when wanted."""

    def __init__(self, ids=IDS, fail=(), spoil=None, lacks=()):
        self.ids, self.fail, self.spoil, self.lacks = np.array(ids), list(fail), spoil, lacks
        self.queries, self.asked = [], []

    def launch_job_async(self, query):
        self.queries.append(query)
        low, high = map(int, re.search(r">= (\d+) AND source_id < (\d+)", query).groups())
        ids = self.ids[(self.ids >= low) & (self.ids < high)]
        names = [name.strip() for name in re.search("SELECT (.*) FROM", query)[1].split(",")]
        table = Table({name: np.arange(len(ids)) + 0.5 for name in names})
        table["source_id"] = ids
        table["bp_rp"] = MaskedColumn(table["bp_rp"], mask=np.arange(len(ids)) == 1)
        table.rename_column("source_id", "SOURCE_ID")  # as some versions of the archive have it
        return types.SimpleNamespace(get_results=lambda: table)

    def load_data(self, ids, *, data_release, retrieval_type, data_structure, format):
        assert (data_release, retrieval_type, format) == ("Gaia DR3", "RVS", "votable")
        if self.fail and (error := self.fail.pop(0)):
            raise error
        self.asked.append(ids)
        answer = answer_of([source for source in ids if source not in self.lacks], data_structure)
        return self.spoil(answer) if self.spoil else answer


def write_bulk(path, rows, columns=("source_id", "ra", "flux", "flux_error")):
    """A bulk file: the header of ECSV, names, and arrays as text."""
    header = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    header += [f"# - {{name: {name}, datatype: string, subtype: 'float64[null]'}}" for name in columns]
    lines = [",".join(columns)]
    for row in rows:
        lines.append(",".join(f'"{value}"' if "," in value else value for value in row))
    with gzip.open(path, "wt") as file:
        file.write("\n".join(header + lines) + "\n")
    return path


def as_text(values, missing="null"):
    return json.dumps([float(value) for value in values]).replace("NaN", missing)


def bulk_row(source, missing="null"):
    return [str(source), "1.5", *(as_text(values, missing) for values in spectrum(source))]


def read_all(folder):
    with h5py.File(folder / download.SPECTRA) as file:
        assert set(file) == set(Spectra._fields)
        return Spectra(*(file[name][:] for name in Spectra._fields))


def assert_same(found, expected):
    assert found.source_id.dtype == np.int64 and found.flux.dtype == found.flux_error.dtype == np.float32
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
