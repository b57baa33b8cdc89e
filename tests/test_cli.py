"""The command line: what it writes, what it says, and how it fails."""

import contextlib
import csv
import inspect
import io
import math
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob import cli
from robusta_prob.cli import shared
from robusta_prob.cli.arguments import parser
from robusta_prob.scoring import table as score_table
from robusta_prob.selection.held_out import Published
from robusta_prob.selection.results import Candidate
from robusta_prob.selection.segments import Segments

N, M = 128, 120  # one block of objects, as in test_plots.py
SELECT = ("--group", "source", "--hidden", "0.3", "--guard", "1", "--seed", "4", "--dtype", "float64")
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True, scope="module")
def _no_cache() -> Iterator[None]:
    """Tests neither read nor fill the user's cache of compiled programs, and leave JAX as it was."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        patch.setattr(shared, "DPI", 50)
        yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def spectra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy survey in a file, with two columns whose names the score table takes itself."""
    data = rp.simulate.toy(N, M, seed=1).data
    meta = {**data.meta, "z": np.arange(N) / N, "rank": np.arange(N), "pair": np.ones((N, 2))}
    seen = data.observed
    flux = np.where(seen, data.flux.astype(float) * data.unit, np.nan)
    ivar = data.ivar.astype(float) / data.unit**2
    ids = np.array([f"star {i}, the {i}th" for i in range(N)])
    labels = {"grid_name": data.labels.grid_name, "flux_name": data.labels.flux_name}
    path = tmp_path_factory.mktemp("spectra") / "stars.h5"
    rp.write(rp.dataset(flux, ivar, grid=data.grid, ids=ids, meta=meta, **labels), path)
    return path


@pytest.fixture(scope="module")
def run(spectra: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fit."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    assert cli.main(["fit", str(spectra), "--rank", "5", "-o", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def scored(run: Path, spectra: Path) -> tuple[Path, str, str]:
    """A folder of scores other than the run's, and what was printed on the way."""
    folder = run.parent / "scores"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.main(["score", str(run), str(spectra), "--top", "3", "-o", str(folder)]) == 0
    return folder, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra of rank 2, of pairs of observations."""
    made = rp.simulate.low_rank(160, 60, 2, seed=1).data
    path = tmp_path_factory.mktemp("stars") / "stars.npz"
    np.savez(path, flux=made.flux * made.unit, ivar=made.ivar / made.unit**2, source=np.arange(160) // 2)
    return path


@pytest.fixture(scope="module")
def selected(stars: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of a choice among ranks, and what was printed on the way."""
    folder = tmp_path_factory.mktemp("selected") / "a run"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.main(["select", str(stars), "--ranks", "1-3", "-o", str(folder), *SELECT]) == 0
    return folder, out.getvalue(), err.getvalue()


def a_selection(
    scores: dict[tuple[int, float | None], float], chosen: int = 0, restless: int | None = None
) -> rp.Selection:
    """Candidates with these scores, exactly: no difference has an error."""
    n, cells = 6, 4
    ending = rp.Status("converged", ""), rp.Status("out_of_steps", "")
    candidates = tuple(
        Candidate(rank, scale, np.full(n, cells * score), Published(*np.ones(5)), ending[place == restless])
        for place, ((rank, scale), score) in enumerate(scores.items())
    )
    where = Segments(np.zeros((n, 1), int), 1, 0, M)
    return rp.Selection(candidates, chosen, np.full(n, cells), np.arange(n), np.arange(n), where, {})


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that must exit with 2."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("robusta-prob: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    return err


# What is written ------------------------------------------------------------------------------------


def test_fit_writes_a_fit_and_its_pictures(run: Path) -> None:
    fit = rp.load(run / "fit.h5")
    assert fit.status.ok
    assert fit.basis.shape == (5, M)
    assert sorted(path.name for path in run.iterdir() if path.name in ("basis.png", "fit.h5", "history.png"))
    assert is_png(run / "basis.png")
    assert is_png(run / "history.png")


def test_fit_is_the_librarys(run: Path, spectra: Path) -> None:
    fit = rp.fit(rp.read(spectra), 5)
    np.testing.assert_array_equal(rp.load(run / "fit.h5").basis, fit.basis)


def test_score_ranks_all_objects_and_joins_their_metadata(
    scored: tuple[Path, str, str], spectra: Path
) -> None:
    folder, out, err = scored
    assert "objects are flagged, q < 0.05" in out
    assert f"Results are in {folder}" in out
    law = next(line for line in out.splitlines() if line.startswith("Null law"))
    assert all(word in law for word in ("nu = ", "scale ", "contamination "))
    assert err == ""
    rows = table(folder / "scores.csv")
    begin = "rank id score z p_value log10_p q_value kind"
    assert list(rows[0])[:8] == begin.split()
    assert {"mahalanobis", "scale", "median_weight", "low_weight", "in_training", "reason"} <= set(rows[0])
    assert [int(row["rank"]) for row in rows] == list(range(1, N + 1))
    least = [float(row["log10_least_p"]) for row in rows]
    assert least == sorted(least)
    assert all(x <= float(row["log10_p"]) for x, row in zip(least, rows, strict=True))
    data = rp.read(spectra)
    assert sorted(row["id"] for row in rows) == sorted(data.ids)
    place = {name: i for i, name in enumerate(data.ids)}
    for row in rows:
        i = place[row["id"]]
        assert row["meta_kind"] == data.meta["kind"][i]
        assert float(row["meta_z"]) == pytest.approx(i / N, abs=1e-6)
        assert int(row["meta_rank"]) == i
        assert row["pair"] == "[1.0, 1.0]"
        assert row["in_training"] == "True"
        assert int(row["n_observed"]) == data.observed[i].sum()
        p, log10 = float(row["p_value"]), float(row["log10_p"])
        # seven digits are written: below 5e-5 of a logarithm down to -308, where p itself underflows
        assert p == 0.0 if log10 < -308 else math.log10(p) == pytest.approx(log10, abs=6e-5)
    assert is_png(folder / "surprise.png")
    assert is_png(folder / "outliers.png")
    printed = [line.split() for line in out.splitlines()]
    first = next(words for words in printed if words[:1] == ["1"])
    assert " ".join(first).startswith(f"1 {rows[0]['id']}")


def test_score_elsewhere_leaves_the_run_alone(run: Path, scored: tuple[Path, str, str]) -> None:
    assert {path.name for path in scored[0].iterdir()} == {
        "outliers.png",
        "scores.csv",
        "scores.h5",
        "scores.json",
        "surprise.png",
        "windows.csv",
    }
    assert not {path.name for path in run.iterdir()} & {
        "outliers.png",
        "scores.csv",
        "scores.h5",
        "scores.json",
        "surprise.png",
        "windows.csv",
    }


def test_scores_of_spectra_on_disk_are_the_same(
    run: Path, spectra: Path, scored: tuple[Path, str, str], tmp_path: Path
) -> None:
    assert cli.main(["score", str(run), str(spectra), "--on-disk", "-o", str(tmp_path), "--quiet"]) == 0
    assert (tmp_path / "scores.csv").read_text() == (scored[0] / "scores.csv").read_text()


def test_project_writes_coefficients(run: Path, spectra: Path, tmp_path: Path) -> None:
    out = tmp_path / "stars.h5"
    assert cli.main(["project", str(run), str(spectra), "-q", "-o", str(out)]) == 0
    expected = rp.project(rp.load(run / "fit.h5"), rp.read(spectra))
    with h5py.File(out) as file:
        np.testing.assert_array_equal(file["coefficients"][()], expected.coefficients)
        np.testing.assert_array_equal(file["covariance"][()], expected.covariance)
        np.testing.assert_array_equal(file["ids"].asstr()[()].astype(str), expected.ids)
    assert cli.main(["project", str(run), str(spectra), "-q"]) == 0
    assert (run / "projection.h5").exists()


def test_demo_finds_what_it_hid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--objects", str(N), "--pixels", str(M), "--seed", "1"]
    assert cli.main(["demo", *size, "-o", str(tmp_path / "demo")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    angle = next(line for line in out.splitlines() if "sine of the largest angle" in line)
    assert float(angle.split()[-1]) < 0.02
    for text in ("outlier spectra found", "spectra with foreign lines found", "normal spectra flagged"):
        assert text in out
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    pictures = {"basis.png", "history.png", "outliers.png", "surprise.png"}
    assert made == {
        "survey.h5",
        "fit.h5",
        "scores.csv",
        "scores.h5",
        "scores.json",
        "windows.csv",
        *pictures,
    }
    assert all(str(tmp_path / "demo" / name) in out for name in made)
    survey = rp.read(tmp_path / "demo" / "survey.h5")
    np.testing.assert_array_equal(survey.flux, rp.simulate.toy(N, M, seed=1).data.flux)


def test_select_is_the_librarys(stars: Path, selected: tuple[Path, str, str]) -> None:
    folder, out, err = selected
    expected = rp.select(
        rp.read(stars, dtype="float64"), [1, 2, 3], group="source", hidden=0.3, guard=1, key=4
    )
    assert str(expected) in out
    rp.write_selection(expected, folder.parent / "expected.csv")
    assert (folder / "selection.csv").read_text() == (folder.parent / "expected.csv").read_text()
    assert expected.rank == 2
    assert "Rank 2 is chosen: it scores best, and all of smaller rank are clearly worse" in out
    assert err == ""


def test_select_writes_a_picture_and_fits_and_says_how_to_go_on(
    stars: Path, selected: tuple[Path, str, str]
) -> None:
    folder, out, _ = selected
    assert {path.name for path in folder.iterdir()} == {"fits", "selection.csv", "selection.png"}
    assert all(str(path) in out for path in folder.iterdir())
    assert is_png(folder / "selection.png")
    assert [rp.load(path).rank for path in sorted((folder / "fits").iterdir())] == [1, 2, 3]
    last = shlex.split(out.splitlines()[-1])
    same = ["--seed", "4", "--dtype", "float64"]
    assert last == ["Next:", "robusta-prob", "fit", str(stars), "--rank", "2", "-o", str(folder), *same]


def test_select_fits_nothing_twice(stars: Path, selected: tuple[Path, str, str]) -> None:
    folder, _, _ = selected
    table_before = (folder / "selection.csv").read_text()
    before = {path: path.stat().st_mtime_ns for path in (folder / "fits").iterdir()}
    assert cli.main(["select", str(stars), "--ranks", "1,2,3", "-o", str(folder), *SELECT, "-q"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "fits").iterdir()} == before
    assert (folder / "selection.csv").read_text() == table_before


# What is said ---------------------------------------------------------------------------------------


def test_fit_that_runs_out_of_epochs_warns_and_writes(
    spectra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "fit",
        str(spectra),
        "-k",
        "5",
        "-o",
        str(tmp_path / "run"),
        "--max-epochs",
        "2",
        "--seed",
        "3",
    ]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "robusta-prob: warning: not converged after 2 epochs" in err
    assert "raise --max-epochs" in err
    assert f"{N} objects x {M} pixels" in out
    assert "missing" in out
    assert "Noise, learned from residuals: Student t" in out
    fit = rp.load(tmp_path / "run" / "fit.h5")
    assert fit.status.code == "out_of_steps"
    assert fit.config["seed"] == 3
    (tmp_path / "run" / "scores.csv").touch()
    assert cli.main([*arguments, "-q"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "is of an earlier fit" in err


def test_published_is_a_shorthand(
    run: Path, spectra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def recorded(*arguments: object, **settings: object) -> rp.Fit:
        asked.append((settings["noise"], settings["prior"]))
        return rp.load(run / "fit.h5")

    monkeypatch.setattr(rp, "fit", recorded)
    law = ["--nu", "1", "--scale", "5", "--floor", "0", "--flat-prior"]
    for settings in (["--published", "5"], law, []):
        assert cli.main(["fit", str(spectra), "-k", "5", "-q", "-o", str(tmp_path / "run"), *settings]) == 0
    published = (rp.Noise(1.0, 5.0, 0.0), rp.Prior.flat())
    assert asked == [published, published, (rp.Noise(), rp.Prior())]


def test_select_passes_on_what_is_asked(
    stars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[object, dict[str, object]]] = []

    def chosen(data: object, ranks: object, scales: object = None, **settings: object) -> rp.Selection:
        asked.append(((ranks, scales), settings))
        return a_selection({(4, None if scales is None else 2.5): 1.0})

    monkeypatch.setattr(rp, "select", chosen)
    monkeypatch.setattr(rp, "relevance", chosen)

    def again(*arguments: str) -> object:
        """The fit that is told to come next, as it would be understood."""
        assert cli.main(["select", str(stars), "-o", str(tmp_path / "run"), *arguments]) == 0
        return parser("").parse_args(shlex.split(capsys.readouterr().out.splitlines()[-1])[2:])

    next_fit = again(
        "--ranks", "1-3,5", "--nu", "inf", "--floor", "0", "--flat-prior", "--flux", "flux", "--tol", "1"
    )
    (what, settings), law = asked.pop(), rp.Noise(nu=math.inf, floor=0.0)
    assert what == ([1, 2, 3, 5], None)
    assert (settings["noise"], settings["prior"], settings["tol"]) == (law, rp.Prior.flat(), 1.0)
    assert settings["folder"] == tmp_path / "run" / "fits"
    assert (next_fit.rank, next_fit.nu, next_fit.floor, next_fit.flux) == (4, math.inf, 0.0, "flux")
    assert next_fit.flat_prior
    assert (next_fit.published, next_fit.tol) == (None, 0.01)

    next_fit = again("--ranks", "4", "--scales", "2.5,3", "--train", "0.4", "--max-epochs", "7")
    what, settings = asked.pop()
    assert what == ([4], [2.5, 3.0])
    assert (settings["noise"], settings["train"], settings["max_epochs"]) == (None, 0.4, 7)
    assert (next_fit.published, next_fit.max_epochs) == (2.5, 500)

    again("--ranks", "2-4", "--one-fit", "--scale", "1.5")
    what, settings = asked.pop()
    assert what == (4, None)
    assert settings["noise"] == rp.Noise(scale=1.5)


def test_select_tells_why_and_what_to_doubt(
    stars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(selection: rp.Selection) -> tuple[str, str]:
        monkeypatch.setattr(rp, "select", lambda *_, **__: selection)
        assert cli.main(["select", str(stars), "--ranks", "3", "-o", str(tmp_path)]) == 0
        return capsys.readouterr()

    out, err = told(a_selection({(3, None): 1.0}))
    assert "Rank 3 is chosen: there is no other candidate; all candidates came to rest." in out
    assert err == ""
    out, err = told(a_selection({(3, None): 1.0, (4, None): 1.25, (5, None): 1.0}, restless=1))
    assert "(rank 4 scores higher by 0.25 +- 0 nats per pixel)" in out
    assert "1 of 3 candidates did not come to rest (rank 4)." in out
    assert "raise --max-epochs" in err
    assert "let smaller ones compete too" in err
    out, err = told(a_selection({(1, None): 0.5, (2, None): 0.75}, 1, restless=0))
    assert "let larger ones compete too" in err
    assert "--max-epochs" not in err  # a rank that is too small may never rest
    out, err = told(a_selection({(1, 2.0): 1.0, (1, 3.0): 0.5, (2, 2.0): 0.5, (2, 3.0): 0.5}, 0))
    assert "Rank 1 with scale 2 is chosen: it scores best; all candidates came to rest." in out
    assert err == "robusta-prob: warning: scale 2 is the last in its direction: let others compete too\n"


def test_non_finite_fit_exits_with_1(
    run: Path,
    spectra: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit = rp.load(run / "fit.h5")
    object.__setattr__(fit, "status", rp.Status("non_finite", "a number stopped being finite in epoch 3"))
    monkeypatch.setattr(rp, "fit", lambda *_, **__: fit)
    assert cli.main(["fit", str(spectra), "-k", "5", "-o", str(tmp_path / "run"), "-q"]) == 1
    assert "warning: a number stopped being finite" in capsys.readouterr().err
    assert (tmp_path / "run" / "fit.h5").exists()


def test_data_warning_is_one_line(spectra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_: object) -> int:
        warnings.warn("3 cells\n are odd", rp.DataWarning, stacklevel=1)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "run_fit", stop)
        assert cli.main(["fit", str(spectra), "-k", "5", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().err == "robusta-prob: warning: 3 cells are odd\n"


def test_interrupt_exits_with_130(
    spectra: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rp, "fit", interrupted)
    assert cli.main(["fit", str(spectra), "-k", "5", "-o", str(tmp_path / "run")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("module", ["robusta_prob", "robusta_prob.cli"])
def test_help_as_a_program(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "score", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert "robusta-prob score run spectra.h5" in done.stdout


@pytest.mark.parametrize("command", ["demo", "select", "fit", "project", "score", "report"])
def test_every_help_says_what_goes_in_and_comes_out(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for word in ("In: ", "Out: ", "example:", f"robusta-prob {command} "):
        assert word in text


def test_defaults_are_the_librarys() -> None:
    """They stand in the help, so they are written twice."""
    asked = vars(parser("").parse_args(["fit", "FILE", "-k", "1", "-o", "RUN"]))
    own = inspect.signature(rp.fit).parameters
    for ours, theirs in (("max_epochs", "max_epochs"), ("tol", "tol"), ("seed", "key")):
        assert asked[ours] == own[theirs].default
    asked = vars(parser("").parse_args(["select", "FILE", "-k", "1", "-o", "RUN"]))
    for function in (rp.select, rp.relevance):
        own = inspect.signature(function).parameters
        assert asked["seed"] == own["key"].default
        for name in ("train", "group", "hidden", "guard", "tol", "max_epochs"):
            assert asked[name] == own[name].default


# How it fails ---------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(capsys, "fit", tmp_path / "none.h5", "-k", "2", "-o", tmp_path / "run")
    assert "none.h5" in error
    assert not (tmp_path / "run").exists()


def test_text_file_named_h5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "text.h5"
    path.write_text("wavelength flux\n")
    assert "text.h5 is not an HDF5 file" in fails(capsys, "fit", path, "-k", "2", "-o", tmp_path / "run")
    assert list(tmp_path.iterdir()) == [path]


def test_output_folder_that_is_a_file(
    spectra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    path.write_text("mine")
    for output in (path, path / "below"):
        assert "there is a file of that name" in fails(capsys, "fit", spectra, "-k", "2", "-o", output)
    assert path.read_text() == "mine"


def test_rank_too_high_leaves_nothing_behind(
    spectra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(capsys, "fit", spectra, "-k", "500", "-o", tmp_path / "a" / "run")
    assert "rank must be between 1 and" in error
    assert list(tmp_path.iterdir()) == []


def test_failure_while_writing_leaves_nothing_half_written(
    run: Path,
    spectra: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_table, "_short", full)
    before = sorted(run.iterdir())
    assert "No space left" in fails(capsys, "score", run, spectra, "-q")
    assert sorted(run.iterdir()) == before


def test_run_without_a_fit(spectra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "fit.h5" in fails(capsys, "score", tmp_path, spectra)
    assert "not a fit of robusta_prob" in fails(capsys, "score", spectra, spectra)


def test_array_that_is_not_there(spectra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(capsys, "fit", spectra, "-k", "2", "-o", tmp_path / "run", "--ivar", "weights")
    assert "no array 'weights'" in error


def test_spectra_on_other_pixels(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, flux=np.ones((4, 7)), ivar=np.ones((4, 7)))
    assert "has 7 pixels, the fit has 120" in fails(capsys, "project", run, path, "-o", tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == [path]


def test_published_with_a_noise_law(
    spectra: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--published", "5", "--nu", "3")
    error = fails(capsys, "fit", spectra, "-k", "2", "-o", tmp_path / "run", *settings)
    assert "leave out --nu" in error


@pytest.mark.parametrize("ranks", ["0", "0-3", "a-b", "8-2", "5,4-2", "1-", "2,", "-3", ""])
def test_ranks_that_are_none(ranks: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["select", "stars.h5", f"--ranks={ranks}", "-o", "run"])
    assert end.value.code == 2
    assert f"--ranks: must look like 1-8 or 2,4,8, from 1 on, the smaller first; got {ranks!r}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--scales", "-1"], "scales must be positive numbers, got -1.0"),
        (["--group", "nope"], "group='nope' is no column of the metadata; there are ['source']"),
        (["--hidden", "0.9"], "hidden must be a share"),
        (["--scales", "2", "--nu", "3", "--flat-prior"], "leave out --nu and --flat-prior"),
        (["--one-fit", "--flat-prior"], "leave out --flat-prior"),
    ],
)
def test_select_with_impossible_settings(
    settings: list[str], message: str, stars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(capsys, "select", stars, "--ranks", "2", "-o", tmp_path / "a" / "run", *settings)
    assert list(tmp_path.iterdir()) == []


def test_select_in_a_folder_of_others(
    stars: Path, selected: tuple[Path, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = selected[0]
    before = sorted(folder.rglob("*"))
    error = fails(capsys, "select", stars, "--ranks", "3", "-o", folder, "--seed", "5", "-q")
    assert f"{folder / 'fits' / 'rank-003.h5'} is of other seed 4 (now 5), data: " in error
    assert sorted(folder.rglob("*")) == before
    (tmp_path / "fits").write_text("mine")
    for output in (tmp_path, tmp_path / "fits"):
        assert "there is a file of that name" in fails(capsys, "select", stars, "--ranks", "2", "-o", output)
    assert (tmp_path / "fits").read_text() == "mine"


def test_scales_are_not_for_one_fit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["select", "stars.h5", "--ranks", "3", "-o", "run", "--one-fit", "--scales", "2"])
    assert end.value.code == 2
    assert "not allowed with argument --one-fit" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cli.main(["fit", str(tmp_path / "none.h5"), "-k", "2", "-o", str(tmp_path / "run"), "--debug"])


def test_bits_of_a_mask_are_read_as_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spectra.npz"
    bits = np.zeros((4, 6), np.int16)
    bits[0] = [0, 1, 2, 4, 32, 33]
    np.savez(path, flux=np.ones((4, 6)), ivar=np.ones((4, 6)), mask_or=bits)
    arguments = ["fit", str(path), "-k", "2", "-o", str(tmp_path / "run"), "--mask-bits", "1,5"]
    asked = parser("").parse_args([*arguments, "--mask", "mask_or"])
    assert asked.mask_bits == [1, 5]
    asked.quiet = True
    assert shared.read(asked, "float32").n_observed.tolist() == [3, 6, 6, 6]
    assert "name it too, with --mask," in fails(capsys, *arguments)
    for text in ("1;5", "", "-1", "a"):
        with pytest.raises(SystemExit) as end:
            cli.main([*arguments[:-1], text])
        assert end.value.code == 2
    assert "--mask-bits: must be numbers of bits, such as 1,5,12, got 'a'" in capsys.readouterr().err


def test_arguments_are_named_as_options_and_the_users_words_are_left_alone() -> None:
    asked = parser("").parse_args(["fit", "max_epochs=.h5", "-k", "2", "-o", "run"])
    for text, told in (
        ("Pass ivar= with a name", "Pass --ivar with a name"),
        ("raise `max_epochs` or `tol`", "raise --max-epochs or --tol"),
        ("there is no mask_bits/ivar= .h5", "there is no mask_bits/ivar= .h5"),
        ("there is no array 'rank='", "there is no array 'rank='"),
        ("give file= or in_memory=False", "give file= or in_memory=False"),
    ):
        assert shared.as_options(text, asked) == told


# The cache of compiled programs ---------------------------------------------------------------------


def test_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    shared.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shared.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "robusta-prob" / "jax")
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "below"))
    shared.keep_compiled()  # cannot be made: silently without
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "robusta-prob" / "jax")
