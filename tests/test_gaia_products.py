"""RVS spectra in the shapes of the Gaia archive, sound and malformed, and the one file of them all."""

import numpy as np
import pytest
from astropy.table import MaskedColumn
from gaia_samples import (
    IDS,
    as_text,
    as_votable,
    assert_same,
    bulk_row,
    expected,
    individual_table,
    raw_table,
    read_all,
    spectrum,
    write_bulk,
)

from examples.gaia_rvs import download, products


def test_a_bad_row_of_raw_products_names_its_source():
    table = raw_table(IDS[:2])
    table.replace_column("flux", MaskedColumn(table["flux"][:, :-1]))
    with pytest.raises(ValueError, match="source 7 has 2400 pixels"):
        products.parse_products({"RVS_RAW.xml": [table]})


def test_individual_products_as_votable():
    answer = {f"RVS-Gaia DR3 {IDS[3]}.xml": [as_votable(individual_table(IDS[3]))]}
    assert_same(products.parse_products(answer), expected(IDS[3:4]))


# bulk files
def test_bulk_files_are_read_with_every_kind_of_missing_entry(tmp_path):
    rows = [
        bulk_row(source, missing) for source, missing in zip(IDS, ["null", "NaN", "nan", "--"], strict=False)
    ]
    rows[1][2:] = [text.replace("[", "(").replace("]", ")") for text in rows[1][2:]]
    path = write_bulk(tmp_path / "RvsMeanSpectrum_000000-003111.csv.gz", rows)
    assert_same(products.read_bulk(path), expected(IDS[:4]))


def test_a_spectrum_that_is_null_is_missing_everywhere(tmp_path):
    path = write_bulk(tmp_path / "a.csv.gz", [["9", "1.5", "null", "null"], bulk_row(7)])
    spectra = products.read_bulk(path)
    assert np.isnan(spectra.flux[0]).all() and np.isnan(spectra.flux_error[0]).all()
    np.testing.assert_array_equal(spectra.flux[1], spectrum(7)[0])


def test_a_bulk_file_may_have_no_spectra(tmp_path):
    spectra = products.read_bulk(write_bulk(tmp_path / "a.csv.gz", []))
    assert [values.shape for values in spectra] == [(0,), (0, 2401), (0, 2401)]


@pytest.mark.parametrize(
    ("rows", "options", "match"),
    [
        ([["7", "1.5", "[1.0,2.0]", "[1.0,2.0]"]], {}, "flux of 7.*has 2 pixels"),
        (
            [["7", "1.5", as_text([1.0] * 2400 + [2.0]), as_text([1.0] * 2402)]],
            {},
            "error of 7.*has 2402 pixels",
        ),
        ([["7", "1.5", "[1.0,oops]", "[1.0]"]], {}, "flux of 7.*oops"),
        ([["7", "1.5", "[1.0]"]], {"columns": ("source_id", "ra", "flux")}, "no column flux_error"),
        ([bulk_row(7), bulk_row(11), bulk_row(7)], {}, "source 7 is there twice"),
        ([["seven", "1.5", "null", "null"]], {}, "cannot be read.*seven"),
    ],
)
def test_malformed_bulk_files_are_named(tmp_path, rows, options, match):
    path = write_bulk(tmp_path / "bulk.csv.gz", rows, **options)
    with pytest.raises(ValueError, match=rf"bulk\.csv\.gz.*{match}"):
        products.read_bulk(path)


def test_damaged_bulk_files_are_named(tmp_path):
    path = write_bulk(tmp_path / "bulk.csv.gz", [bulk_row(7)])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"bulk\.csv\.gz cannot be read, remove it"):
        products.read_bulk(path)
    with pytest.raises(FileNotFoundError):
        products.read_bulk(tmp_path / "nowhere.csv.gz")


# one file of all
def test_bulk_files_and_batches_are_assembled_in_order(tmp_path):
    products.write_batch(expected(IDS[:2]), IDS[:3], tmp_path / "0.h5")
    bulk = [
        write_bulk(tmp_path / f"{i}.csv.gz", map(bulk_row, ids))
        for i, ids in enumerate([IDS[2:5], [], IDS[5:]])
    ]
    assert download.assemble([tmp_path / "0.h5", *bulk], tmp_path / download.SPECTRA) == len(IDS)
    assert_same(read_all(tmp_path), expected(IDS))


def test_a_source_in_two_files_leaves_the_old_output_alone(tmp_path):
    one, two = (
        write_bulk(tmp_path / "1.csv.gz", [bulk_row(7)]),
        write_bulk(tmp_path / "2.csv.gz", [bulk_row(11), bulk_row(7)]),
    )
    output = tmp_path / download.SPECTRA
    output.write_text("old")
    with pytest.raises(ValueError, match=r"2\.csv\.gz: source 7 is already in a file before it"):
        download.assemble([one, two], output)
    assert output.read_text() == "old" and len(list(tmp_path.iterdir())) == 3


def test_a_damaged_batch_is_named(tmp_path):
    (tmp_path / "1.h5").write_text("not HDF5")
    with pytest.raises((OSError, ValueError), match=r"1\.h5"):
        download.assemble([tmp_path / "1.h5"], tmp_path / download.SPECTRA)
