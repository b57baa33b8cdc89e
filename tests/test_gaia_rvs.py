"""The Gaia RVS search end to end, tiny: what it writes, what it does not do twice, and what it refuses."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import robusta_prob as rp  # noqa: E402
from examples.gaia_rvs import (  # noqa: E402
    analyse,
    bins,
    compare,
    embed,
    explore,
    replot,
    simulate,
    summarise,
    survey,
    train,
    truth,
)
from examples.gaia_rvs.__main__ import chosen_bins, main  # noqa: E402
from examples.gaia_rvs.config import Bins, Config, Pixels  # noqa: E402
from examples.gaia_rvs.tables import is_made, read_table, write_json, write_table  # noqa: E402

TOML = """
[pixels]
clip = 300
[model]
ranks = [2, 3]
scales = []
tol = 0.3
[search]
chunk = 64
[injection]
per_amplitude = 5
[injection.amplitudes]
"line set" = [0.05, 0.5]
[pictures]
pages = 1
variants = ["strong", "CN"]
sample = 20
shown = 2
[embedding]
least = 4
"""


def made_once(tmp_path_factory, name, make):
    """A folder that the first of pytest's processes makes, for all of them."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared) / f"gaia-{name}"
    try:
        folder.mkdir()
    except FileExistsError:
        while not (folder / "ready").exists():
            assert not (folder / "failed").exists(), "it could not be made, see the other process"
            time.sleep(0.2)
        return folder
    try:
        make(folder)
    except BaseException:
        (folder / "failed").touch()
        raise
    (folder / "ready").touch()
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """260 spectra in two and a half bins; the other bins are empty or nearly so."""

    def make(folder):
        simulate.simulate(folder, 260, colours=(0.8, 1.15), anomalies=0.06, seed=2, callback=lambda _: None)
        truth_file = f'[files]\ntruth = "{folder / simulate.TRUTH}"\n'
        (folder / "config.toml").write_text(TOML + truth_file)

    return made_once(tmp_path_factory, "inputs", make)


def arguments(inputs, output, step="run", config=None):
    return [
        step, "--config", str(config or inputs / "config.toml"), "--spectra", str(inputs / simulate.SPECTRA),
        "--metadata", str(inputs / simulate.CATALOGUE), "-o", str(output),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory):
    """A whole run."""

    def make(folder):
        assert main(arguments(inputs, folder)) == 0

    return made_once(tmp_path_factory, "whole", make)


def contents(folder):
    """Every number of every table and result, by file and name."""
    found = {}
    for path in sorted(folder.rglob("*.h5")):
        with h5py.File(path) as file:
            names = []
            file.visit(names.append)
            for name in names:
                if isinstance(file[name], h5py.Dataset):
                    found[path.relative_to(folder), name] = file[name][()]
    return found


def test_every_product_is_there_and_the_bins_without_a_model_pass_through(done):
    summary = read_table(done / "summary")
    assert len(summary) == 14 and (summary["spectra"] == 0).any()
    with_model = summary.loc[np.isfinite(summary["rank"]), "bin"].tolist()
    assert with_model and len(with_model) < 5
    for number in with_model:
        folder = done / f"bin-{number:02d}"
        drawn = {path.stem for path in (folder / "pictures").glob("*.png")}
        assert {"hr", "basis", "residuals", "spectra", "completeness", "selection", "p-values"} <= drawn
        table = read_table(folder / analyse.ALL)
        csv = pd.read_csv(folder / f"{analyse.ALL}.csv")
        assert len(table) == len(csv) == summary.loc[number, "spectra"]
        assert csv["source_id"].tolist() == table["source_id"].tolist()
        assert table["flagged"].sum() == summary.loc[number, "flagged"]
        scores = rp.load(folder / analyse.SCORES)
        assert np.array_equal(scores.ids, table["source_id"])
        assert ((table["low_weight"] < 0.5) == table["published"]).all()
    for number in set(range(14)) - set(with_model):
        folder = done / f"bin-{number:02d}"
        assert len(read_table(folder / analyse.OUTLIERS)) == 0
        assert not (folder / "pictures").exists()
    assert (done / "report.html").stat().st_size > 1e6
    outliers = read_table(done / "outliers")
    assert len(outliers) and outliers["least_p"].is_monotonic_increasing
    pages = list(done.glob("bin-*/outliers/001-*-strong.png"))
    assert len(pages) == outliers.loc[outliers["flagged"] | outliers["published"], "bin"].nunique()


def test_stars_keep_their_ids_and_their_neighbours(done, inputs):
    """Every number of the list belongs to the star that it is said to belong to."""
    meta = pd.read_csv(inputs / simulate.CATALOGUE).set_index("source_id")
    with h5py.File(inputs / simulate.SPECTRA) as file:
        ids, flux = file["source_id"][()], file["flux"][()]
    for number in (4, 5):
        data, scores, projection = analyse.kept(done / f"bin-{number:02d}" / analyse.SAMPLE)
        assert np.array_equal(data.ids, scores.ids) and np.array_equal(data.ids, projection.ids)
        for place, star in enumerate(data.ids):
            row = int(np.flatnonzero(ids == star)[0])
            assert data.meta["row"][place] == row
            seen = np.isfinite(flux[row, 300:-300])
            assert np.array_equal(seen, data.observed[place])
            assert data.flux[place][seen] * data.unit == pytest.approx(flux[row, 300:-300][seen], rel=1e-6)
            assert data.meta["bp_rp"][place] == meta.loc[star, "bp_rp"]
            absolute = meta.loc[star, "phot_g_mean_mag"] + 5 * np.log10(meta.loc[star, "parallax"] / 1000) + 5
            assert data.meta["abs_mag"][place] == pytest.approx(absolute)
        assert data.grid[0] == pytest.approx(849.0) and data.labels.grid_name == "wavelength [nm]"


def test_a_second_run_does_nothing_and_other_settings_are_refused(done, inputs, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*.h5") if "fits" in str(path)}
    scores = {path: path.stat().st_mtime_ns for path in done.glob("bin-*/scores.h5")}
    for step in ("bins", "train", "analyse", "umap"):
        assert main(arguments(inputs, done, step)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert scores == {path: path.stat().st_mtime_ns for path in scores}
    other = tmp_path / "other.toml"
    other.write_text((inputs / "config.toml").read_text().replace("tol = 0.3", "tol = 0.2"))
    assert main(arguments(inputs, done, "train", other)) == 2
    assert "was made with other settings of model" in capsys.readouterr().err


def test_what_was_lost_or_damaged_is_made_again(done, inputs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    folder = copy / "bin-04"
    (folder / analyse.RECOVERY).unlink()
    chunk = next(folder.glob("inferred-*/from-*.h5"))
    chunk.write_bytes(chunk.read_bytes()[:3000])
    before = contents(done)
    assert main([*arguments(inputs, copy, "analyse"), "--bins", "4"]) == 0
    after = contents(copy)
    for name in (n for n in before if n[0].parts[0] == "bin-04"):
        assert np.array_equal(
            before[name], after[name], equal_nan=np.asarray(before[name]).dtype.kind == "f"
        ), name
    (copy / "bin-04" / train.RECORD).write_text("{")
    assert main(arguments(inputs, copy, "train")) == 2


def test_later_steps_never_open_the_file_of_spectra(done, inputs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    config = Config.read(inputs / "config.toml").located(output=copy, spectra=tmp_path / "gone.hdf5")
    summarise.run(config)
    embed.run(config)
    compare.run(config)
    explore.run(config)
    for number in (4, 5):
        replot.run(config, number)
    assert (copy / "pictures/agreement.png").exists()


def test_nobody_on_any_list_is_a_result(done, inputs, tmp_path, monkeypatch):
    """The same models, and nobody strange: empty lists are written, read and drawn."""
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    for record in copy.glob("bin-*/analyse.json"):
        record.unlink()
    (copy / "umap.json").unlink()
    table_of = analyse.table_of
    monkeypatch.setattr(analyse, "table_of", lambda *a: table_of(*a).assign(flagged=False, published=False))
    for step in ("analyse", "summarise", "umap", "compare", "report"):
        assert main(arguments(inputs, copy, step)) == 0
    replot.run(Config.read(inputs / "config.toml").located(output=copy), 4)
    assert len(read_table(copy / "outliers")) == len(read_table(copy / "embedding")) == 0
    assert read_table(copy / "summary")["flagged"].sum() == 0
    assert np.isnan(read_table(copy / "agreement").drop(columns="metric").to_numpy()).all()


def killed_when(command, output, pattern, least=1):
    """Start it, and kill it without warning once so many files of this pattern are there."""
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(list(output.glob(pattern))) < least and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it had ended before"


def test_a_killed_search_goes_on_to_the_same_bits(done, inputs, tmp_path):
    """kill -9 in the middle of `train`, and again in the middle of `analyse`."""
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "examples.gaia_rvs", *arguments(inputs, output)]
    killed_when(command, output, "bin-*/fits/[!.]*.h5")
    assert not list(output.glob("bin-0[45]/analyse.json"))
    fits = {path: path.stat().st_mtime_ns for path in output.glob("bin-*/fits/[!.]*.h5")}
    killed_when(command, output, "bin-*/inferred-*/[!.]*.h5", 2)
    inferred = {path: path.stat().st_mtime_ns for path in output.glob("bin-*/inferred-*/[!.]*.h5")}
    assert main(arguments(inputs, output)) == 0
    for path, when in {**fits, **inferred}.items():
        assert path.stat().st_mtime_ns == when, f"{path} was made twice"
    whole, again = contents(done), contents(output)
    assert whole.keys() == again.keys()
    for name, values in whole.items():
        same = np.array_equal(values, again[name], equal_nan=np.asarray(values).dtype.kind == "f")
        assert same, f"{name} differs"


# bins
def test_the_ellipses_are_the_published_ones():
    ellipses = bins.centres(Bins())
    assert ellipses["bp_rp"].to_numpy() == pytest.approx(np.linspace(-0.1, 3.0, 14))
    at = ellipses["bp_rp"].to_numpy()
    bump = 1.5 * np.exp(-(((at - 1.5) / 0.6) ** 2) / 2)
    assert ellipses["abs_mag"].to_numpy() == pytest.approx(np.linspace(0, 11, 14) + bump)
    assert ellipses["width_bp_rp"].to_numpy() == pytest.approx(1.5 * 3.1 / 13)
    assert ellipses["width_abs_mag"].to_numpy() == pytest.approx(2.8 * 11 / 13)
    one = ellipses.iloc[4]
    edge = pd.DataFrame(
        {
            "bp_rp": one["bp_rp"] + np.array([0.0, 0.49, 0.51, 0.36]) * one["width_bp_rp"],
            "abs_mag": one["abs_mag"] + np.array([0.49, 0.0, 0.0, 0.36]) * one["width_abs_mag"],
        }
    )
    assert bins.inside(edge, one).tolist() == [True, True, False, False]
    assert bins.absolute_magnitude(np.array([10.0]), np.array([100.0])) == pytest.approx(10.0)


def test_the_join_keeps_whom_it_can_place_and_says_what_is_wrong(tmp_path):
    ids = np.array([30, 10, 20, 40, 50], np.int64) + 4_000_000_000_000_000_000
    with h5py.File(tmp_path / "spectra.hdf5", "w") as file:
        file["source_id"] = ids
        for name in ("flux", "flux_error"):
            file[name] = np.ones((5, 7), np.float32)
    meta = pd.DataFrame(
        {
            "source_id": ids[[2, 0, 3, 4, 1]],
            "parallax": [10.0, 5.0, -1.0, 2.0, np.nan],
            "bp_rp": [1.0, 1.1, 1.2, np.nan, 1.3],
            "phot_g_mean_mag": [10.0, 11.0, 12.0, 13.0, 14.0],
        }
    )
    path = tmp_path / "meta.csv"
    meta.to_csv(path, index=False)
    config = replace(Config(), pixels=Pixels(number=7, clip=1))
    config = config.located(spectra=tmp_path / "spectra.hdf5", metadata=path, output=tmp_path)
    stars = bins.joined(config)
    assert stars["source_id"].tolist() == [ids[0], ids[2]] and stars["row"].tolist() == [0, 2]
    pd.concat([meta, meta.iloc[:1]]).to_csv(path, index=False)
    with pytest.raises(ValueError, match="is there twice"):
        bins.joined(config)
    meta.drop(columns="bp_rp").to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"lacks the columns \['bp_rp'\]"):
        bins.joined(config)
    meta.assign(source_id=meta["source_id"] + 7).to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"no star of .* are the source_id the same numbers"):
        bins.joined(config)
    with pytest.raises(ValueError, match="flux must hold 2401 numbers per star"):
        bins.joined(replace(config, pixels=Pixels()))
    with h5py.File(tmp_path / "spectra.hdf5", "a") as file:
        del file["flux_error"]
    with pytest.raises(ValueError, match="has no dataset 'flux_error'"):
        bins.joined(config)


def test_wavelengths_are_those_of_the_archive():
    grid = survey.wavelengths(Pixels(), 2401)
    assert len(grid) == 2321 and grid[0] == pytest.approx(846.4) and grid[-1] == pytest.approx(869.6)
    assert len(survey.wavelengths(Pixels(clip=0), 2401)) == 2401


def test_a_file_that_was_exchanged_is_noticed(done, inputs, tmp_path):
    other = tmp_path / "other.hdf5"
    shutil.copy(inputs / simulate.SPECTRA, other)
    with h5py.File(other, "a") as file:
        file["source_id"][...] = file["source_id"][()][::-1]
    config = Config.read(inputs / "config.toml").located(output=done, spectra=other)
    with pytest.raises(ValueError, match="is not the file that `bins` has read"):
        survey.spectra_of(config, 4)
    shutil.copy(inputs / simulate.SPECTRA, other)
    with h5py.File(other, "a") as file:  # the same stars, reduced anew
        file["flux"][...] = 1.01 * file["flux"][()]
    with pytest.raises(ValueError, match="its stars or spectra are others"):
        survey.spectra_of(config, 4)


def test_a_bin_that_fits_into_memory_and_one_that_does_not_have_the_same_numbers(done, inputs):
    config = Config.read(inputs / "config.toml").located(output=done, spectra=inputs / simulate.SPECTRA)
    whole = survey.spectra_of(config, 4)
    small = replace(config, search=replace(config.search, memory=0.0))
    stored = survey.spectra_of(small, 4)
    assert type(stored).__name__ == "StoredDataset" and type(whole).__name__ == "Dataset"
    assert np.array_equal(whole.flux, stored.flux[:]) and np.array_equal(whole.ivar, stored.ivar[:])


# across bins
def test_pairs_are_stars_in_two_bins():
    stars = pd.DataFrame(
        {
            "source_id": [1, 2, 3, 1, 2, 4],
            "bin": [3, 3, 3, 4, 4, 4],
            "least_p": [1e-8, 0.2, 1e-9, 1e-3, 1e-12, 1e-10],
            "flagged": [True, False, True, False, True, True],
        }
    )
    pairs = summarise.pairs_of(stars)
    assert pairs["source_id"].tolist() == [2, 1]
    assert pairs["difference"].to_numpy() == pytest.approx([12 + np.log10(0.2), 5.0])
    assert (
        not pairs["in_all"].any() and pairs[["bin_first", "bin_second"]].to_numpy().tolist() == [[3, 4]] * 2
    )
    assert len(summarise.pairs_of(stars.iloc[:3])) == 0


def test_agreement_is_what_two_lists_share():
    lists = {"density": [(1, 5), (1, 6)], "kl": [(1, 6), (2, 6), (1, 7)]}
    rows = [(*star, metric) for metric, stars in lists.items() for star in stars]
    listed = pd.DataFrame(rows, columns=["bin", "source_id", "metric"])
    table = compare.agreement_of(listed, ["density", "kl", "chi2", "rmse"])
    assert np.isnan(table.loc["rmse", "chi2"]) and list(table) == list(table.index)
    nobody = compare.agreement_of(listed[:0], ["density", "kl"])
    assert nobody.shape == (2, 2) and nobody.isna().all(axis=None)
    assert table.loc["density", "kl"] == pytest.approx(1 / 4) and table.loc["kl", "kl"] == 1.0
    assert table.loc["density", "chi2"] == 0.0 and np.isnan(table.loc["chi2", "chi2"])


def test_what_was_put_in_is_counted_by_kind_and_strength():
    stars = pd.DataFrame(
        {
            "source_id": [1, 2, 3, 4, 5],
            "bin": [0, 0, 0, 1, 1],
            "flagged": [True, False, True, True, False],
            "published": [False, False, True, False, True],
            "kind": ["lines", "", "lines", "foreign", ""],
        }
    )
    known = pd.DataFrame(
        {
            "source_id": [1, 2, 4],
            "true": ["Ca II emission", "Ca II emission", "underestimated errors"],
            "amplitude": [0.1, 0.02, 2.0],
            "strength": [12.0, 3.0, 30.0],
        }
    )
    labelled = truth.with_labels(stars, known)
    found = truth.recovered(labelled, (0.0, 5.0, 20.0)).set_index(["kind", "strength_low"])
    assert found.loc[("Ca II emission", 5.0), ["number", "found", "named"]].tolist() == [1, 1, 1]
    assert found.loc[("Ca II emission", 0.0), ["number", "found"]].tolist() == [1, 0]
    assert found.loc[("underestimated errors", 20.0), ["found", "named"]].tolist() == [1, 0]
    false = truth.false_discoveries(labelled, 2)
    assert false["false"].tolist() == [1, 0] and false["published_false"].tolist() == [1, 1]


# configuration and tables
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nrank = [3]", "there is no model.rank; did you mean model.ranks"),
        ("[models]\nranks = [3]", "there is no models; did you mean model"),
        ("[model]\nranks = 3", "model.ranks must be a list"),
        ("[model]\ntrain = 1.5", "model.train must be between 0 and 1"),
        ("[pixels]\nclip = 2000", "pixels.clip must be 0 or more, and leave some"),
        ("[model]\nranks = [2.5]", "model.ranks must be"),
        ("[model]\nranks = []", "model.ranks must be positive integers"),
        ("model = 3", "model must be a section"),
        ("[search]\nq = 0.2", "there is no search.q; there are"),
        ("[search]\nmemory = 0.5", "search.memory must be at least 1.5"),
        ("[pictures]\nvariants = ['weak']", "pictures.variants must be among"),
        ("[bins]\nbp_rp = [1.0]", "bins.bp_rp must have 2 entries"),
        ("model ranks", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Config.read(path)


def test_the_published_values_are_the_defaults(tmp_path):
    config = Config.read()
    assert config.model.ranks == (10,) and config.model.scales == (5.0,)
    assert config.search.chunk == 50_000 and config.pixels.clip == 40 and config.bins.number == 14
    path = tmp_path / "config.toml"
    path.write_text('[model]\nranks = [4]\n[search.lines]\n"Ca II" = [850.0]\n')
    changed = Config.read(path, "small")
    assert (
        changed.model.ranks == (4,)
        and changed.model.scales == ()
        and changed.search.lines == {"Ca II": (850.0,)}
    )


def test_numbers_of_bins():
    assert chosen_bins(None, 3) == [0, 1, 2] and chosen_bins("0,2-3,2", 4) == [0, 2, 3]
    for wrong in ("4", "a", "1-9", "-1", ""):
        with pytest.raises(ValueError, match="--bins must be numbers from 0 to 3"):
            chosen_bins(wrong, 4)


def test_a_missing_file_is_one_line(tmp_path, capsys):
    assert main(["bins", "-o", str(tmp_path), "--spectra", str(tmp_path / "none.hdf5")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["analyse", "-o", str(tmp_path)]) == 2
    assert "run the step" in capsys.readouterr().err


def test_tables_and_records_come_back(tmp_path):
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "yé"], "c": [True, False], "d": [0.1, np.nan]})
    for one in (table, table.iloc[:0]):
        write_table(one, tmp_path / "table")
        again = read_table(tmp_path / "table")
        pd.testing.assert_frame_equal(again, one, check_dtype=False)
        assert [kind.kind for kind in again.dtypes.iloc[[0, 2, 3]]] == ["i", "b", "f"]
    assert not is_made(tmp_path / "none.json", {})
    write_json({"settings": {"a": (1, 2), "b": Path("x")}}, tmp_path / "one.json")
    assert is_made(tmp_path / "one.json", {"a": [1, 2], "b": "x"})
    with pytest.raises(ValueError, match="other settings of b"):
        is_made(tmp_path / "one.json", {"a": [1, 2], "b": "y"})


def test_a_rank_needs_spectra():
    model = Config().model
    assert train.ranks_for(model, 59) == [] and train.ranks_for(model, 79) == []
    assert train.ranks_for(model, 80) == [10]
