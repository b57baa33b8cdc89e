"""The page's data: precision of the codes, what is carried and what is not, several runs, hostile names."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from report_samples import EMPTY, EVIL, LINES, RANK, STRANGE, M, N, Sample, sample

import robusta_prob as rp
from robusta_prob import cli, report
from robusta_prob.report import building, mapping, writing
from robusta_prob.report.codes import LEAST_Z, decoded, quantised
from robusta_prob.report.explorer import carriers
from robusta_prob.report.packing import as_json, packed_cells
from robusta_prob.scoring.predictive import Judged, cells

NAMES = {"rank", "id", "flagged", "minus_log10_p", "sn", "meta_sn", "field", "colour", "big", "coefficient_2"}


@pytest.fixture(scope="module")
def made() -> Sample:
    return sample()


@pytest.fixture(scope="module")
def explorer(made: Sample) -> report.Explorer:
    return report.explore(*made, embedding=False, lines=LINES)


@pytest.fixture
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds of import that these tests can do without."""
    monkeypatch.setattr(mapping, "find_spec", lambda _: None)


def written(explorer: report.Explorer, folder: Path, title: str = "page") -> tuple[str, dict]:
    """The text of the page, and what it carries."""
    report.write_page(explorer, folder / "page.html", title=title)
    text = (folder / "page.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', text, re.S)
    assert found is not None
    return text, json.loads(found[1])


# Codes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [0.5, 20.0, 1e6])
def test_codes_are_as_precise_as_they_say(largest: float) -> None:
    rng = np.random.default_rng(1)
    z = rng.standard_normal((4, 500))
    z[:, 0], z[:, 1] = largest, -largest
    sd, weight = np.exp(rng.uniform(-3.0, 5.0, z.shape)), rng.uniform(0.0, 1.3, z.shape)
    z[rng.random(z.shape) < 0.1] = np.nan
    codes = quantised(z, sd, weight)
    got_z, got_sd, got_weight = decoded(codes)
    seen = ~np.isnan(z)
    np.testing.assert_array_equal(np.isnan(got_z), ~seen)
    half = np.arcsinh(codes.z_end) / 254.0  # of a step
    off = np.abs(np.arcsinh(got_z) - np.arcsinh(z))
    assert (off[seen] <= np.broadcast_to(1.0001 * half[:, None], z.shape)[seen]).all()
    assert half.max() < {0.5: 0.0085, 20.0: 0.0146, 1e6: 0.058}[largest]
    span = (codes.sd_high - codes.sd_low)[:, None] / 508.0
    assert (np.abs(np.log(got_sd / sd)) <= 1.0001 * span)[seen].all()
    assert (np.abs(got_weight - weight) <= 1.0001 * codes.weight_end[:, None] / 508.0)[seen].all()


def test_codes_of_nothing_and_of_what_is_not_finite() -> None:
    z = np.array([[np.nan, np.inf, 1.0], [np.nan] * 3, [1e300, -1.0, 0.0]])
    codes = quantised(z, np.where(np.isnan(z), np.nan, 1e-300), np.ones((3, 3)))
    np.testing.assert_array_equal(codes.z > 0, [[False, False, True], [False] * 3, [True] * 3])
    assert codes.z_end[1] == LEAST_Z
    got, sd, _ = decoded(codes)
    assert got[2, 0] == pytest.approx(1e9) and sd[2, 0] == pytest.approx(1e-300)


# What an explorer holds -----------------------------------------------------------------------------


def test_columns_are_the_score_table_and_what_is_derived(made: Sample, explorer: report.Explorer) -> None:
    columns = explorer.columns
    assert set(columns) >= NAMES
    assert "pair" not in columns, "a column of two numbers is no column of the page"
    np.testing.assert_array_equal(columns["meta_sn"], made.data.meta["sn"])
    np.testing.assert_array_equal(columns["flagged"], made.scores.flagged)
    assert columns["flagged"][list(STRANGE)].all()
    p = made.scores.object.p_value
    some = p > 1e-300
    np.testing.assert_allclose(10.0 ** -columns["minus_log10_p"][some], p[some], rtol=1e-6)
    assert (columns["flagged_as"] != "").sum() == columns["flagged"].sum()


def test_spectra_come_back(made: Sample, explorer: report.Explorer) -> None:
    """The model exactly, the flux within half a step of z; holes are holes; the grid rises."""
    fit, data, scores = made
    (run,) = explorer.runs
    assert (np.diff(run.grid) > 0).all() and run.grid_name == "wavelength [nm]"
    z, sd, weight = decoded(run.codes)
    projection = rp.project(fit, data)
    judged = Judged(data, projection, scores.object.in_training)
    for here, block in cells(fit, judged):
        rows = explorer.place[here]
        np.testing.assert_array_equal(~np.isnan(z[rows])[:, ::-1], block.seen)
        step = np.arcsinh(run.codes.z_end[rows])[:, None] / 254.0
        true = block.z[:, ::-1].astype(float)
        ok = block.seen[:, ::-1]
        assert (np.abs(z[rows] - true) <= 1.01 * step * np.sqrt(1.0 + true**2) + 1e-6)[ok].all()
        np.testing.assert_allclose(weight[rows][ok], block.weight[:, ::-1][ok], atol=0.004)
    model = run.coefficients @ run.basis.astype(float)
    np.testing.assert_allclose(model[:, ::-1], rp.reconstruct(fit, projection), rtol=1e-5)
    flux = (model + z * sd)[:, ::-1][data.observed]
    true = (data.flux * data.unit)[data.observed]
    assert np.median(np.abs(flux - true)) < 0.02 * 0.03  # 2 % of the errors
    assert np.isnan(z[explorer.place[EMPTY]]).all()


def test_windows_and_lines(made: Sample, explorer: report.Explorer) -> None:
    (run,) = explorer.runs
    numbered = [len({w.number for w in windows}) for windows in run.windows]
    found = np.bincount(made.scores.windows.row, minlength=N)
    np.testing.assert_array_equal(np.array(numbered)[explorer.place], found)
    assert explorer.lines["set"] == (("set", 402.0), ("set", 450.0))
    assert explorer.lines["named"][-1] == ("P17", 470.0)


def test_lines_that_were_scored_are_marked_unless_others_are_given(made: Sample) -> None:
    settings = made.scores.settings._replace(lines=MappingProxyType({"own": np.array([420.0])}))
    scored = replace(made.scores, settings=settings)
    assert report.explore(made.fit, made.data, scores=scored, embedding=False).lines == {
        "own": (("own", 420.0),)
    }


# Limits ---------------------------------------------------------------------------------------------


def test_flagged_objects_come_first_then_others_at_random() -> None:
    rank = np.array([4, 1, 3, 2, 5, 6])
    flagged = np.array([True, False, True, True, False, False])
    assert np.flatnonzero(carriers(rank, flagged, 2)).tolist() == [2, 3]
    more = carriers(rank, flagged, 4)
    assert more[flagged].all() and more.sum() == 4
    np.testing.assert_array_equal(more, carriers(rank, flagged, 4))
    assert carriers(rank, flagged, 5, normal=False).sum() == 3
    assert carriers(rank, flagged, 99).all() and not carriers(rank, flagged, 0).any()


def test_a_page_is_as_large_as_it_may_be(made: Sample, tmp_path: Path) -> None:
    small = report.explore(*made, embedding=False, limit_mb=1.575)
    carried = small.place >= 0
    assert 0 < carried.sum() < N and carried[small.flagged].all()
    text, _ = written(small, tmp_path)
    assert len(text.encode()) < 1.575e6
    assert f"{carried.sum()} with their spectra" in text
    assert (report.explore(*made, embedding=False, spectra="flagged").place >= 0).sum() == small.flagged.sum()
    chosen = report.explore(*made, embedding=False, spectra=[1, 2])
    assert np.flatnonzero(chosen.place >= 0).tolist() == [1, 2]


def test_long_texts_count(made: Sample, tmp_path: Path) -> None:
    """The page keeps its limit whatever the metadata."""
    notes = np.array([f"{i} {'long ' * 100}" for i in range(N)])
    noted = Sample(made.fit, made.data.with_meta(note=notes), made.scores)
    with pytest.raises(ValueError, match="before it holds a spectrum"):
        report.explore(*noted, embedding=False, limit_mb=1.575)
    small = report.explore(*noted, embedding=False, limit_mb=1.63)
    assert 0 < (small.place >= 0).sum() < N
    assert len(written(small, tmp_path)[0].encode()) < 1.63e6


def test_metadata_keep_a_name_of_their_own(made: Sample) -> None:
    own = np.arange(N, dtype=float)
    named = Sample(made.fit, made.data.with_meta(coefficient_1=own, log10_p=-own), made.scores)
    columns = report.explore(*named, embedding=False).columns
    np.testing.assert_array_equal(columns["meta_coefficient_1"], own)
    np.testing.assert_array_equal(columns["meta_log10_p"], -own)
    assert not np.array_equal(columns["coefficient_1"], own)


def test_spectra_that_are_asked_for_are_in_the_table(made: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MOST_OBJECTS", 10)
    asked = np.arange(20, 26)
    few = report.explore(*made, embedding=False, spectra=asked)
    assert few.columns["id"][few.place >= 0].tolist() == made.data.ids[asked].tolist()
    assert len(few.place) == 10 and few.flagged.sum() == made.scores.flagged.sum()


def test_more_objects_than_the_table_holds(made: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MOST_OBJECTS", 10)
    few = report.explore(*made, embedding=False)
    assert len(few.place) == 10 and few.total == N
    assert few.flagged.sum() == made.scores.flagged.sum()


# Maps -----------------------------------------------------------------------------------------------


def test_maps(made: Sample, explorer: report.Explorer, no_umap: None) -> None:
    name, points = mapping.residual_map(explorer)
    assert name == mapping.PCA and points.shape == (N, 2)
    assert np.isnan(points[EMPTY]).all() and np.isfinite(np.delete(points, EMPTY, 0)).all()
    np.testing.assert_array_equal(points, mapping.residual_map(explorer)[1])
    given = report.explore(*made, embedding=("mine", points), spectra="flagged")
    assert list(given.maps) == ["mine", building.COEFFICIENTS]
    tall = mapping._principal(np.random.default_rng(0).standard_normal((200, 3)))
    assert tall.shape == (200, 2) and tall[:, 0].std() > tall[:, 1].std()
    assert mapping._principal(np.ones((1, 5))).tolist() == [[0.0, 0.0]]


def test_a_map_is_kept_for_its_own_objects_alone(tmp_path: Path) -> None:
    path, ids, points = (
        tmp_path / "embedding.csv",
        np.array(["a,b", "c"]),
        np.array([[1.0, 2.0], [np.nan, 4.0]]),
    )
    mapping.write_map(path, ids, "a map", points)
    name, back = mapping.read_map(path, ids[::-1])
    assert name == "a map"
    np.testing.assert_array_equal(back, points[::-1])
    np.testing.assert_array_equal(mapping.read_map(path, ids[:1])[1], points[:1])
    assert mapping.read_map(path, np.array(["c", "d"])) is None
    assert mapping.read_map(tmp_path / "none.csv", ids) is None
    path.write_text("id,x\n1,2\n")
    assert mapping.read_map(path, ids) is None


# Several runs ---------------------------------------------------------------------------------------


def test_runs_of_different_ranks_are_joined(made: Sample, explorer: report.Explorer, tmp_path: Path) -> None:
    fit = rp.fit(made.data, 1)
    other = report.explore(fit, made.data, rp.surprise(fit, made.data), embedding=False)
    both = report.joined([explorer, other], [7, 12], facet="bin", embedding=False, axes=("sn", "-z"))
    assert len(both.place) == 2 * N and both.facet == "bin" and both.axes == ("sn", "-z")
    assert sorted(both.columns["rank"]) == list(range(1, 2 * N + 1))
    assert np.isnan(both.columns["coefficient_2"][N:]).all()
    assert [len(run.basis) for run in both.runs] == [RANK, 1]
    text, page = written(both, tmp_path)
    assert [run["name"] for run in page["runs"]] == ["bin 7", "bin 12"]
    assert text.count('<script type="text/plain" id="cells-') == 2
    tight = report.joined([explorer, other], [7, 12], facet="bin", embedding=False, limit_mb=1.66)
    carried = tight.place >= 0
    assert carried[tight.flagged].all() and 0 < carried.sum() < 2 * N
    for row in np.flatnonzero(carried)[::17]:  # a spectrum is still that of its object
        run, place = tight.runs[tight.run[row]], tight.place[row]
        before = both.runs[both.run[row]]
        np.testing.assert_array_equal(run.codes.z[place], before.codes.z[both.place[row]])


def test_parts_of_one_run_are_joined_into_it(made: Sample, explorer: report.Explorer) -> None:
    parts = [
        report.explore(
            made.fit, made.data.take(rows), made.scores.take(rows), embedding=False, survey=made.scores
        )
        for rows in (np.arange(30), np.arange(30, N))
    ]
    whole = report.joined(parts, ["a", "a"], embedding=False)
    assert len(whole.runs) == 1 and whole.total == N
    np.testing.assert_array_equal(whole.runs[0].codes.z, explorer.runs[0].codes.z)
    np.testing.assert_array_equal(whole.place, explorer.place)


# The page -------------------------------------------------------------------------------------------


def test_names_cannot_leave_their_place(explorer: report.Explorer, tmp_path: Path) -> None:
    text, page = written(explorer, tmp_path, EVIL)
    assert EVIL not in text and "<b id=" not in text
    assert text.count("</script>") == len(re.findall(r"<script[\s>]", text))
    assert page["title"] == EVIL
    ids = next(column for column in page["columns"] if column["name"] == "id")
    assert EVIL in ids["levels"]
    big = next(column for column in page["columns"] if column["name"] == "big")
    assert big["kind"] == "text", "integers beyond 2^53 are not numbers in a browser"
    markup = re.sub(r"(?s)<(script|style)[^>]*>.*?</\1>", "", text)
    assert "//" not in markup and "default-src 'none'" in markup, "nothing is fetched"
    assert as_json("</script>&<!--") == '"\\u003c/script\\u003e\\u0026\\u003c!--"'


def test_one_call_writes_a_page(made: Sample, tmp_path: Path, no_umap: None) -> None:
    report.write_report(*made, tmp_path / "page.html", spectra="flagged", title="One & only")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>One &amp; only</title>" in text and mapping.PCA in text


def test_cells_have_four_characters_each(explorer: report.Explorer) -> None:
    assert len("".join(packed_cells(explorer.runs[0]))) == 4 * M * N


@pytest.mark.parametrize("rows", [[EMPTY], [0], [0, 1]])
def test_very_few_objects(made: Sample, rows: list[int], tmp_path: Path, no_umap: None) -> None:
    """No flagged one, no column, no name of the grid; none of whose pixels is observed."""
    data = made.data.take(rows)
    data = rp.dataset(data.flux * data.unit, data.ivar / data.unit**2, grid=data.grid, ids=data.ids)
    few = report.explore(made.fit, data, made.scores.take(rows))
    assert not few.flagged.any()
    _, page = written(few, tmp_path)
    assert page["total"] == len(rows)


def test_no_object_carries_a_spectrum(made: Sample, tmp_path: Path) -> None:
    scores = replace(made.scores, object=made.scores.object._replace(q_any=np.ones(N)))
    none = report.explore(made.fit, made.data, scores, spectra="flagged")
    assert (none.place < 0).all()
    text, _ = written(none, tmp_path)
    assert '<script type="text/plain" id="cells-0"></script>' in text


# Errors ---------------------------------------------------------------------------------------------


def test_what_does_not_belong_is_refused(made: Sample, explorer: report.Explorer) -> None:
    fit, data, scores = made
    with pytest.raises(ValueError, match="same objects"):
        report.explore(fit, data.take(slice(5, 20)), scores)
    with pytest.raises(ValueError, match="of other fluxes"):
        report.explore(fit, rp.dataset(2.0 * data.flux, data.ivar, grid=data.grid, ids=data.ids), scores)
    with pytest.raises(ValueError, match="scores are of another fit"):
        report.explore(replace(fit, basis=2.0 * fit.basis), data, scores)
    for match, options in (
        ("'all', 'flagged' or rows", {"spectra": "some"}),
        ("'all', 'flagged' or rows", {"spectra": [N]}),
        (r"shape \(90, 2\); got \(3,\)", {"embedding": np.zeros(3)}),
        ("finite positions", {"lines": {"a": [np.nan]}}),
        ("positions, or", {"lines": {"a": ["x"]}}),
        ("positive number of megabytes", {"limit_mb": -1.0}),
        ("MB before it holds a spectrum", {"limit_mb": 0.5}),
    ):
        with pytest.raises(ValueError, match=match):
            report.explore(*made, **{"embedding": False, **options})
    with pytest.raises(ValueError, match="0 parts and 0 labels"):
        report.joined([], [])
    with pytest.raises(ValueError, match="no column of numbers 'hue'"):
        report.joined([explorer], ["a"], axes=("hue", "z"))
    with pytest.raises(ValueError, match="column 'flagged' of their own"):
        report.joined([explorer], ["a"], facet="flagged")
    with pytest.raises(ValueError, match=r"no boolean column 'sn'; there are .*flagged"):
        report.joined([explorer], ["a"], only=("sn", "bright"))


def test_without_the_library_it_says_what_to_install(
    explorer: report.Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bokeh", None)
    with pytest.raises(ImportError, match=r"pip install 'robusta-prob\[report\]'"):
        report.write_page(explorer, tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_page_that_was_there(
    explorer: report.Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> list[str]:
        raise OSError("no space")

    (tmp_path / "page.html").write_text("old")
    monkeypatch.setattr(writing, "packed_cells", broken)
    with pytest.raises(OSError, match="no space"):
        report.write_page(explorer, tmp_path / "page.html")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


# The command ----------------------------------------------------------------------------------------


@pytest.fixture
def run(made: Sample, tmp_path: Path) -> Path:
    """A run whose scores are kept, beside its spectra."""
    folder = tmp_path / "run"
    folder.mkdir()
    rp.write(made.data, tmp_path / "spectra.h5")
    rp.save(made.fit, folder / "fit.h5")
    rp.save(made.scores, folder / "scores.h5")
    record = {"fit": "fit.h5", "spectra": "../spectra.h5", "names": {}, "on_disk": False}
    (folder / "scores.json").write_text(json.dumps(record))
    return folder


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str], no_umap: None) -> None:
    assert cli.main(["report", str(run), "--lines", "Ca=410,450", "--title", "Mine"]) == 0
    out = capsys.readouterr().out
    assert "Map: PCA of residuals" in out and "90 of 90 objects, 90 with their spectra" in out
    assert "<title>Mine</title>" in (run / "report.html").read_text()
    assert cli.main(["report", str(run), "--lines", "K=99", "-q"]) == 0
    assert "--lines K: none of these is within the grid, 400 to 480" in capsys.readouterr().err
    assert cli.main(["report", str(run), "-o", str(run / "again.html"), "--spectra", "all"]) == 0
    assert "Map:" not in capsys.readouterr().out, "the map is there"
    assert cli.main(["report", str(run), "--spectra", "flagged", "-q"]) == 0
    assert len((run / "embedding.csv").read_text().splitlines()) > N, "a page of some does not take it away"
    (run / "embedding.csv").unlink()
    assert cli.main(["report", str(run), "--spectra", "flagged", "-q"]) == 0
    assert len((run / "embedding.csv").read_text().splitlines()) < 20


def test_the_command_says_in_one_line_what_is_wrong(
    run: Path, made: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_umap: None
) -> None:
    def fails(*arguments: object) -> str:
        assert cli.main(["report", *map(str, arguments)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("robusta-prob: error: ") and err.count("\n") == 1
        return err

    assert "does not exist" in fails(tmp_path / "none")
    assert "is a file" in fails(run / "fit.h5")
    assert "no scores.h5 and no scores.json: run `robusta-prob score" in fails(tmp_path)
    assert "positive number of megabytes" in fails(run, "--limit", "0")
    assert "the folder" in fails(run, "-o", tmp_path / "none" / "page.html")
    rp.write(made.data.take(slice(10, 30)), tmp_path / "others.h5")
    assert "same objects" in fails(run, tmp_path / "others.h5")
    (tmp_path / "spectra.h5").rename(tmp_path / "moved.h5")
    assert "say where they are" in fails(run)
    assert cli.main(["report", str(run), str(tmp_path / "moved.h5"), "-q"]) == 0
    (run / "scores.json").write_text("{}")
    assert "damaged" in fails(run)
