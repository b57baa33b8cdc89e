"""The Gaia archive, as far as it can be known without a network, and what goes wrong on the way."""

import re
import sys
import types

import numpy as np
import pandas as pd
import pytest
from gaia_samples import IDS, Archive, answer_of, assert_same, expected, read_all

from examples.gaia_rvs import download, products


def _run(folder, gaia, **options):
    download.download(folder, gaia=gaia, **{"batch": 2, "pause": 0.0, "tries": 2} | options)


# the two products
@pytest.mark.parametrize("structure", ["INDIVIDUAL", "RAW"])
def test_both_files_are_made(tmp_path, structure):
    gaia = Archive()
    _run(tmp_path / "new", gaia, structure=structure)
    assert_same(read_all(tmp_path / "new"), expected(IDS))
    meta = pd.read_csv(tmp_path / "new" / download.META)
    assert meta["source_id"].tolist() == IDS.tolist()
    assert list(meta) == download.COLUMNS.split(", ") and meta["bp_rp"].isna().any()
    assert [len(ids) for ids in gaia.asked] == [2, 2, 2, 1]


def test_the_queries_cover_every_source_once(tmp_path):
    gaia = Archive()
    download.query_metadata(tmp_path, gaia, pieces=7)
    ranges = [
        tuple(map(int, re.findall(r"\d{4,}|\b0\b", query.split("source_id >=")[1]))) for query in gaia.queries
    ]
    assert ranges[0][0] == 0 and ranges[-1][1] == 12 * 4**12 * 2**35 and len(ranges) == 7
    assert [high for _, high in ranges[:-1]] == [low for low, _ in ranges[1:]]
    assert all("has_rvs = 'true'" in query and "gaiadr3.gaia_source" in query for query in gaia.queries)


def test_a_limit_asks_for_no_more_than_it_needs_and_is_lifted_later(tmp_path):
    gaia = Archive()
    _run(tmp_path, gaia, limit=2)
    assert len(gaia.queries) == 1 and np.concatenate(gaia.asked).tolist() == IDS[:2].tolist()
    _run(tmp_path, gaia, batch=3)
    assert len(gaia.queries) == 48
    assert np.concatenate(gaia.asked).tolist() == IDS.tolist()
    assert_same(read_all(tmp_path), expected(IDS))


# interruptions
def test_after_a_failure_nothing_is_asked_for_twice(tmp_path):
    gaia = Archive(fail=[None, None, ConnectionError("gone"), TimeoutError("gone again")])
    with pytest.raises(
        RuntimeError, match=f"2 spectra from {IDS[4]} to {IDS[5]} failed 2 times.*gone again.*start"
    ):
        _run(tmp_path, gaia)
    assert not (tmp_path / download.SPECTRA).exists() and len(gaia.asked) == 2
    queries = len(gaia.queries)
    (tmp_path / "batches" / f".0123456789ab.{IDS[0]:019d}.h5").write_bytes(b"half of a batch, and killed")
    _run(tmp_path, gaia, batch=5)
    assert len(gaia.queries) == queries
    assert np.concatenate(gaia.asked).tolist() == IDS.tolist()
    assert_same(read_all(tmp_path), expected(IDS))
    before = len(gaia.asked)
    _run(tmp_path, gaia)
    assert len(gaia.asked) == before


def test_a_failure_of_the_network_is_tried_again_a_few_times(tmp_path, monkeypatch):
    waited = []
    monkeypatch.setattr(download.time, "sleep", waited.append)
    _run(tmp_path, Archive(fail=[OSError("busy"), OSError("busy")]), tries=3, pause=10.0)
    assert waited == [10.0, 20.0]
    assert_same(read_all(tmp_path), expected(IDS))


def test_a_mistake_is_not_tried_again(tmp_path):
    gaia = Archive(fail=[TypeError("no such argument")])
    with pytest.raises(TypeError, match="no such argument"):
        _run(tmp_path, gaia)
    assert not gaia.asked


def test_sources_that_the_archive_lacks_are_not_asked_for_again(tmp_path):
    gaia = Archive(lacks=(int(IDS[1]),))
    _run(tmp_path, gaia)
    _run(tmp_path, gaia)
    assert len(gaia.asked) == 4
    assert_same(read_all(tmp_path), expected(np.delete(IDS, 1)))


# answers that are not what was expected
def _other_grid(answer):
    table = next(iter(answer.values()))[0]
    table["wavelength"] = table["wavelength"] - 0.234
    return answer


def _without(column):
    def spoil(answer):
        next(iter(answer.values()))[0].remove_column(column)
        return answer

    return spoil


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda answer: {name: [tables[0][:-1]] for name, tables in answer.items()}, "has 2400 pixels.*2401"),
        (_other_grid, r"expected wavelengths 846, 846\.01.*got 845\.766"),
        (_without("flux_error"), "no column flux_error; there are wavelength, flux"),
        (_without("wavelength"), "no column wavelength"),
        (
            lambda answer: {name: tables * 2 for name, tables in answer.items()},
            f"source {IDS[0]} is there twice",
        ),
        (lambda answer: {"result.xml": next(iter(answer.values()))}, "result.xml: expected a name like"),
        (lambda answer: answer_of([4]), "source 4 was not asked for"),
        (lambda answer: {}, "is empty"),
    ],
)
def test_a_bad_batch_is_named_and_not_kept(tmp_path, spoil, match):
    with pytest.raises(ValueError, match=rf"batch of 2 spectra from {IDS[0]} to {IDS[1]} is not.*{match}"):
        _run(tmp_path, Archive(spoil=spoil))
    assert not list((tmp_path / "batches").iterdir())
    assert not (tmp_path / download.SPECTRA).exists()


def test_an_answer_that_was_cut_off_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CUT", (3,))
    with pytest.raises(ValueError, match="gave 3 rows: probably cut off; use more than 48"):
        download.query_metadata(tmp_path, Archive(ids=[1, 2, 3]))
    assert not list((tmp_path / "parts").iterdir())


@pytest.mark.parametrize(
    ("options", "match"),
    [({"batch": 5001}, "1 to 5000"), ({"batch": 0}, "got 0"), ({"tries": 0}, "at least 1")],
)
def test_bad_arguments_are_refused_before_anything_is_asked(tmp_path, options, match):
    gaia = Archive()
    with pytest.raises(ValueError, match=match):
        _run(tmp_path, gaia, **options)
    assert not gaia.queries


def test_a_full_disk_is_noticed_before_the_first_batch(tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=100_000)
    monkeypatch.setattr(products.shutil, "disk_usage", lambda folder: usage)
    gaia = Archive()
    with pytest.raises(OSError, match=r"14 spectra need 0\.0 GB, 0\.0 GB are free"):
        _run(tmp_path, gaia)
    assert not gaia.asked


def test_without_astroquery_one_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "astroquery.gaia", None)
    with pytest.raises(ImportError, match=r"pip install 'robusta-prob\[gaia\]'"):
        download.download(tmp_path)
