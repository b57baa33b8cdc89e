"""The comparison on ultracool dwarfs, tiny: its parts, that nothing is done twice, and what it refuses."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import robusta_prob as rp  # noqa: E402
from examples.ultracool import (  # noqa: E402
    judge,
    prepare,
    rivals,
    run,
    simulate,
    splits,
    store,
    strangers,
    survey,
    tables,
)
from examples.ultracool.__main__ import main  # noqa: E402
from examples.ultracool.config import (  # noqa: E402
    HMF,
    INJECTED,
    NATURAL,
    OURS,
    PCA,
    Config,
    Contamination,
    Simulation,
    Splits,
)

TOML = f"""
workers = 1
[fits]
methods = ["{PCA}", "{HMF}", "{OURS}"]
ranks = [3]
[splits]
number = 1
[strangers]
ranks = [3]
rank = 3
bootstrap = 10
leading = 10
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("survey") / "simulated.npz"
    simulate.simulate(path, Simulation(objects=200, strange=0.1))
    return path


@pytest.fixture(scope="module")
def data(file):
    return survey.read(file)


# The simulator and the labels ------------------------------------------------------------------------


def test_the_simulated_survey_has_the_columns_and_the_strangers(data):
    assert set(survey.kinds(data)) >= {"giants", "galaxies", "white dwarfs", "subdwarfs", "spectral binaries"}
    assert survey.clean(data).sum() > 150
    assert not (survey.clean(data) & survey.rare(data)).any()
    assert len(np.unique(data.meta["source_key"])) < data.shape[0]
    here = (data.grid > 1.0) & (data.grid < 1.75)
    np.testing.assert_allclose(np.median(data.flux[:, here], axis=1), 1.0, atol=0.2)


def test_the_same_seed_simulates_the_same_spectra(file, tmp_path):
    simulate.simulate(tmp_path / "again.npz", Simulation(objects=200, strange=0.1))
    with np.load(file) as one, np.load(tmp_path / "again.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in one.files)


# Splits and contamination ----------------------------------------------------------------------------


def test_a_source_is_in_one_half(data):
    first, second = splits.halves(data, Splits(), 0)
    assert sorted([*first, *second]) == list(range(data.shape[0]))
    keys = data.meta["source_key"]
    assert not set(keys[first]) & set(keys[second])
    assert not np.array_equal(first, splits.halves(data, Splits(), 1)[0])


def test_contamination_is_in_as_many_rows_as_stated(data):
    settings = Contamination(bad_pixels=0.1, foreign=0.1, errors=0.05)
    spoiled = splits.contaminated(data, data.take(survey.rare(data)), settings, [1])
    changed = (spoiled.flux != data.flux).any(1) | (spoiled.ivar != data.ivar).any(1)
    assert changed.sum() == pytest.approx(0.25 * data.shape[0], abs=3)
    few = (spoiled.flux != data.flux).mean(1)[changed] < 0.1  # cosmic rays leave most of a row as it was
    assert few.sum() == pytest.approx(0.1 * data.shape[0], abs=2)
    assert splits.training(data, splits.Half(0, 0, NATURAL), Splits(), settings).shape[1] == data.shape[1]


# The judge -------------------------------------------------------------------------------------------


def test_densities_are_those_of_scipy():
    residual, variance = np.linspace(-4, 4, 9), np.linspace(0.5, 2.0, 9)
    sd = np.sqrt(variance)
    for nu, law in ((math.inf, stats.norm), (4.0, stats.t(4.0))):
        expected = law.logpdf(residual / sd) - np.log(sd)
        np.testing.assert_allclose(judge.log_density(residual, variance, nu), expected)


def test_coefficients_are_those_of_maximum_likelihood():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(60, 3)))[0].T
    flux = rng.normal(size=(5, 3)) @ basis + 0.01 * rng.standard_t(3.0, (5, 60))
    ivar, seen = np.full((5, 60), 1e4), rng.random((5, 60)) < 0.8
    for law in (judge.Law("", math.inf, 0.01), judge.Law("", 4.0, 0.0)):
        A, covariance = judge.project(basis, flux, ivar, seen, law)
        variance = judge.variance(ivar, law)

        def total(A, law=law, variance=variance):
            return (seen * judge.log_density(flux - A @ basis, variance, law.nu)).sum(1)

        for step in 1e-3 * np.eye(3):
            assert (total(A) > np.maximum(total(A + step), total(A - step))).all()
        assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_the_truth_is_preferred_and_rms_z_is_one():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(200, 3)))[0].T
    flux = 10.0 * rng.normal(size=(100, 3)) @ basis + 0.02 * rng.normal(size=(100, 200))
    columns = {name: np.full(100, "M7.0") for name in ("spex_type",)}
    data = rp.dataset(flux, np.full(flux.shape, 1e8), meta=columns)
    settings = replace(Config().judging, guard=1)
    cells = judge.cells_of(data, settings, 0)
    assert not (cells.shown & cells.hidden).any()
    law = judge.laws(settings)[1]
    right = judge.judge(basis, cells, law)
    wrong = judge.judge(np.roll(basis, 1, axis=1), cells, law)
    assert right.rms_z == pytest.approx(1.0, abs=0.05)
    assert right.rms_z_fitted == pytest.approx(1.0, abs=0.02)
    assert right.density > wrong.density + 1.0
    assert right.by_class["M"] == pytest.approx(right.density)
    same = judge.agreement(basis, np.linalg.qr(rng.normal(size=(3, 3)))[0] @ basis, data, law)
    assert same.shared == pytest.approx(1.0)
    assert same.flux < 1e-8


def test_a_basis_that_is_not_finite_is_judged_as_such(data):
    cells = judge.cells_of(data, Config().judging, 0)
    assert math.isnan(
        judge.judge(np.full((2, data.shape[1]), np.nan), cells, judge.laws(Config().judging)[0]).rms_z
    )


def test_pca_imputes_what_is_missing():
    """Of rank 3 without noise, holes do not matter."""
    rng = np.random.default_rng(2)
    flux = 1.0 + rng.normal(size=(80, 2)) @ rng.normal(size=(2, 40))
    whole = rp.dataset(flux, np.ones_like(flux))
    holed = whole.hide(rng.random(flux.shape) < 0.01)
    one, other = (rivals.learn(PCA, x, 3, Config().fits) for x in (whole, holed))
    assert np.linalg.svd(one @ other.T, compute_uv=False).min() > 1.0 - 1e-4


# Scores and tables -----------------------------------------------------------------------------------


def test_auc_and_precision_by_hand():
    score, strange = np.array([4.0, 3.0, 2.0, 1.0, np.nan]), np.array([True, False, True, False, False])
    assert strangers.auc(score, strange, ~strange) == pytest.approx(5 / 6)
    assert strangers.precision(score, strange, 2) == 0.5
    places = strangers.either(np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    assert np.argmin(places) == 1  # second in both: others lead one ranking each


def test_components_are_interpolated():
    ranks, values = np.array([2, 4, 8]), np.array([3.0, 2.0, 1.0])
    assert tables.needed(ranks, values, 2.5) == 3.0
    assert tables.needed(ranks, values, 5.0) == 0.0, "fewer may do"
    assert math.isnan(tables.needed(ranks, values, 0.5))


def test_scores_and_kinds_by_hand():
    """Six objects: two giants, a galaxy, a star, two dwarfs; the second giant cannot be scored."""
    kinds = np.array(["GIANT", "GIANT", "GALAXY", "STAR", "VLM", "VLM"])
    meta = {"object_type": kinds, "metallicity_class": 6 * [""], "sbinary": 6 * [""]}
    meta |= {"quality": 6 * ["OK"], "spex_type": 6 * ["M8"], "source_key": list("aabcde")}
    data = rp.dataset(np.ones((6, 3)), np.ones((6, 3)), meta=meta)
    score = np.array([5.0, np.nan, 2.0, 4.0, 3.0, 1.0])
    told = strangers.by_kind(score, data, 3)
    assert told["giants"] == (0.5, 1) and told["galaxies"] == (0.5, 0)
    assert [mask.sum() for mask in strangers.targets(data).values()] == [3, 4]
    samples = strangers.resamples(data, 50, 0)
    assert all(np.isin(0, rows) == np.isin(1, rows) for rows in samples), "spectra of a source stay together"
    one = strangers.judged(score, kinds != "VLM", samples, 2)
    assert one.auc == pytest.approx(5 / 8) and one.precision == 1.0
    assert tables._less(one, one) == {"auc": [0.0, 0.0], "precision": [0.0, 0.0]}


# All of it -------------------------------------------------------------------------------------------


def test_a_run_is_written_kept_and_guarded(file, tmp_path, monkeypatch, capsys):
    """One test, so that only one of pytest's processes has to make the run."""
    (tmp_path / "some.toml").write_text(TOML)
    command = ["run", "--data", str(file), "-o", str(tmp_path / "out"), "--config"]
    assert main([*command, str(tmp_path / "some.toml")]) == 0
    _everything_is_written(tmp_path / "out")
    config = Config.read(tmp_path / "some.toml").located(output=tmp_path / "out", data=file)
    _what_is_removed_comes_back_the_same(config, monkeypatch)
    (tmp_path / "other.toml").write_text(TOML + "[judging]\nshare = 0.3\n")
    assert main([*command, str(tmp_path / "other.toml")]) == 2
    assert "other settings of judging" in capsys.readouterr().err


def _everything_is_written(out):
    assert {path.name for path in out.glob("*.png")} == {
        "accuracy.png",
        "needed.png",
        "basis-natural.png",
        "basis-injected.png",
        "strangers.png",
        "spectra.png",
    }
    results = json.loads((out / "results.json").read_text())
    for contamination in (NATURAL, INJECTED):
        for method in (PCA, HMF, OURS):
            row = results["splits"][contamination][method]["3"]
            assert row["splits"] == [0]
            assert np.isfinite([row[f"density, {tables.COMMON}"], row["shared"]]).all()
    found = results["search"]["3"][OURS][strangers.OURS_SCORE]
    assert 0.5 < found[strangers.NO_DWARF]["auc"] <= 1.0
    assert found[strangers.NO_ULTRACOOL_DWARF]["ours minus this"]["auc"] == [0.0, 0.0]
    text = (out / "tables.md").read_text()
    assert all(
        words in text for words in ("ours minus the other", "dwarf by dwarf", "natural minus injected")
    )
    for told in results["dwarfs"][NATURAL][OURS].values():
        assert 0.0 < told["share"][0] < 1.0 and told["share"][1] > 0.0


def _what_is_removed_comes_back_the_same(config, monkeypatch):
    which = splits.Half(0, 0, NATURAL)
    judged, basis = (path(config, which, PCA, 3) for path in (store.judged_path, store.basis_path))
    before = judged.read_text()
    judged.unlink()
    basis.unlink()
    learned, learn = [], rivals.learn
    monkeypatch.setattr(rivals, "learn", lambda *a: learned.append(a[0]) or learn(*a))
    run.main(config)
    assert learned == [PCA]
    assert judged.read_text() == before
    assert list(run.tasks(config)) == []


def test_means_have_standard_errors():
    assert tables.mean_and_error(np.array([1.0, 2.0, 3.0])) == pytest.approx((2.0, 1.0 / math.sqrt(3.0)))
    assert math.isnan(tables.mean_and_error(np.array([1.0]))[1])
    rows = {"a": [1.0, 2.0, 4.0], "b": [0.5, 1.0]}
    found = {NATURAL: {m: {"3": {"splits": list(range(len(x))), "size": x}} for m, x in rows.items()}}
    assert tables.paired(found, NATURAL, 3, "size", "a", "b") == pytest.approx((0.75, 0.25))
    assert math.isnan(tables.paired(found, NATURAL, 4, "size", "a", "b")[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fits]\nranks = [1]", "fits.ranks must be 2 or more"),
        ("[fits]\nmethods = ['magic']", "fits.methods must be among"),
        ("[fits]\nrank = [3]", "did you mean fits.ranks"),
        ("[contamination]\nforeign = 0.6", "below 0.5"),
        ("[splits]\nnumber = 0", "at least 1"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, text, message):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Config.read(tmp_path / "wrong.toml")


def test_wrong_files_are_refused(tmp_path, capsys):
    assert main(["fit", "--data", str(tmp_path / "none.npz"), "-o", str(tmp_path / "out")]) == 2
    assert "prepare" in capsys.readouterr().err
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(ValueError, match="npz format"):
        survey.read(tmp_path / "text.npz")
    np.savez(tmp_path / "less.npz", flux=np.ones((2, 3)))
    with pytest.raises(ValueError, match="lacks wave_um, ivar"):
        survey.read(tmp_path / "less.npz")


# From a copy of SPLAT --------------------------------------------------------------------------------


@pytest.fixture
def splat(tmp_path):
    """The layout of a copy, with spectra of our own: one FITS, one text, one lost, one without noise."""
    from astropy.io import fits

    folder = tmp_path / "splat-main"
    places = folder / "resources" / "Spectra" / "SPEX-PRISM"
    places.mkdir(parents=True)
    (folder / "db").mkdir()
    spectrum = ("DATA_KEY", "SOURCE_KEY", "DATA_FILE", "RESOLUTION", "AIRMASS", "QUALITY_FLAG", "MEDIAN_SNR")
    spectrum += ("SPEX_TYPE", "SPEX_GRAVITY_CLASSIFICATION", "PUBLISHED", "DATA_REFERENCE", "NOTE")
    lines = [
        ("1", "7", "1_7.fits", "120", "1.05", "OK", "50", "L5.0", "FLD-G", "Y", "x", ""),
        ("2", "8", "2_8.fits", "120", "", "OK", "100", "", "", "Y", "x", ""),
        ("3", "8", "3_8.fits", "75", "", "BG", "20", "", "", "N", "x", ""),
        ("4", "8", "4_8.fits", "75", "", "OK", "", "", "", "N", "x", ""),
    ]
    source = ("SOURCE_KEY", "NAME", "OPT_TYPE", "LIT_TYPE", "OBJECT_TYPE", "METALLICITY_CLASS", "LIBRARY")
    source += ("BINARY", "SBINARY", "NOTE")
    sources = [
        ("7", "one", "L5", "L5", "VLM", "", "", "", "Y", ""),
        ("8", "two", "", "galaxy", "GAL", "", "", "", "", ""),
    ]
    for name, header, rows in (("spectral", spectrum, lines), ("source", source, sources)):
        text = "\r".join("\t".join(row) for row in (header, *rows)) + "\r"
        (folder / "db" / f"{name}_data.txt").write_bytes(text.encode())
    wave = np.linspace(0.65, 2.55, 560)
    flux = 3e-14 * (1.0 + 0.3 * np.sin(5.0 * wave))
    fits.PrimaryHDU(np.array([wave, flux, flux / 50.0])).writeto(places / "1_7.fits")
    shifted = wave + 0.002
    flux = 1.0 + 0.3 * np.sin(5.0 * shifted)
    ratio = np.full(560, 100.0)
    ratio[200] = 0.0
    np.savetxt(
        places / "2_8.txt", np.array([shifted, flux, ratio]).T, header="; Wavelength Flux S/N", comments=""
    )
    fits.PrimaryHDU(np.array([wave, flux])).writeto(places / "4_8.fits")
    return folder


def test_prepare_reads_a_copy_of_splat(splat, tmp_path):
    said = prepare.prepare(splat, tmp_path / "made.npz")
    assert "2 spectra" in said
    assert "1 without a file" in said
    assert "1 without noise" in said
    data = survey.read(tmp_path / "made.npz")
    assert data.ids.tolist() == ["1_7.fits", "2_8.fits"]
    assert data.meta["object_type"].tolist() == ["VLM", "GALAXY"]
    assert data.meta["sbinary"].tolist() == ["Y", ""]
    truth = 1.0 + 0.3 * np.sin(5.0 * data.grid)
    here = (data.grid > 1.0) & (data.grid < 1.75)
    for row, snr in ((0, 50.0), (1, 100.0)):
        seen = data.observed[row]
        np.testing.assert_allclose(data.flux[row][seen], (truth / np.median(truth[here]))[seen], rtol=0.01)
        np.testing.assert_allclose((data.flux[row] * np.sqrt(data.ivar[row]))[seen], snr, rtol=0.01)
    assert 1 <= (~data.observed[1]).sum() <= 2  # beside the pixel without a measurement
    with np.load(tmp_path / "made.npz") as file:
        assert file["noise_was_snr"].tolist() == [False, True]


def test_prepare_says_what_is_missing(splat, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="no folder"):
        prepare.prepare(tmp_path / "nowhere", tmp_path / "made.npz")
    table = splat / "db" / "source_data.txt"
    table.write_text(table.read_text().replace("OBJECT_TYPE", "TYPE"))
    assert main(["prepare", str(splat), "--data", str(tmp_path / "made.npz")]) == 2
    assert "lacks the columns OBJECT_TYPE" in capsys.readouterr().err
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"source_data\.txt"):
        prepare.prepare(splat, tmp_path / "made.npz")
    assert main(["prepare"]) == 2


# The real spectra ------------------------------------------------------------------------------------


def test_the_real_spectra_have_their_strangers(shared_data):
    data = survey.read(shared_data / "spex_prism.npz")
    assert data.shape == (1776, 448)
    assert survey.rare(data).sum() == 45
    assert {name: int(mask.sum()) for name, mask in survey.kinds(data).items()} == {
        "all that is no dwarf": 45,
        "giants": 22,
        "galaxies": 12,
        "white dwarfs": 8,
        "planets, supernova": 3,
        "subdwarfs": 66,
        "spectral binaries": 45,
        "warmer stars": 160,
    }
    first, second = splits.halves(data, Splits(), 0)
    basis = rivals.learn(PCA, data.take(first), 8, Config().fits)
    held_out = second[survey.clean(data)[second]]
    cells = judge.cells_of(data.take(held_out), Config().judging, 0)
    assert 1.0 < judge.judge(basis, cells, judge.laws(Config().judging)[1]).rms_z < 2.0
