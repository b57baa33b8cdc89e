"""The score table: whose columns it has, under which names, in which order, and what a cell loses."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.scoring.calibration import Null
from robusta_prob.scoring.empirical import EmpiricalNull
from robusta_prob.scoring.kinds import no_windows
from robusta_prob.scoring.lines import Line
from robusta_prob.scoring.results import ObjectSurprise, Settings
from robusta_prob.scoring.table import most_surprising

LOG_P = np.array([-1.0, -900.0, np.nan, -20.0])  # object 1 is the most surprising, object 2 has no score
RANKS = [3, 1, 4, 2]


def scored(meta: dict[str, object], ids: object = (10, 11, 12, 13)) -> tuple[rp.Surprise, rp.Dataset]:
    """Four objects with scores made by hand: no fit is needed to write a table."""
    data = rp.dataset(np.ones((4, 3)), np.ones((4, 3)), ids=np.array(ids), meta=meta)
    numbers = np.array([1.0, 2.0, np.nan, 1 / 3])
    columns = dict.fromkeys(ObjectSurprise._fields, numbers) | {
        "p_value": np.exp(LOG_P),
        "log_p": LOG_P,
        "n_observed": np.array([3, 3, 0, 3]),
        "in_training": np.array([True, True, False, True]),
        "kind": np.array(["", "foreign", "", ""]),
        "reason": np.array(["", "", "no observed pixel", ""]),
    }
    bulk = EmpiricalNull(0.0, 1.0, 0.0, 1.0, False)
    null = Null(0.25, 1.0, 1e-3)
    return rp.Surprise(ObjectSurprise(**columns), data.ids, null, bulk, no_windows(data.ids)), data


def test_objects_are_ranked_by_the_least_of_what_flags() -> None:
    """By a run, by lines that flag, and by p-values that are all 0; a test may be unknown of an object."""
    log_p = np.array([-3.0, -1000.0, -1.0, -2.0, np.nan, -4.0])
    log_p_run = np.array([-1.0, -1.0, -2000.0, -1.0, np.nan, np.nan])
    z_line = np.array([0.1, 0.1, 0.1, -80.0, np.nan, 0.1])
    columns = dict.fromkeys(ObjectSurprise._fields, np.zeros(6)) | {
        "p_value": np.exp(log_p),
        "log_p": log_p,
        "p_run": np.exp(log_p_run),
        "log_p_run": log_p_run,
    }
    line = Line(*[np.zeros(6)] * 6).with_deviates(z_line)
    scores = rp.Surprise(
        ObjectSurprise(**columns),
        np.arange(6),
        Null(0.25, 1.0, 1e-3),
        EmpiricalNull(0.0, 1.0, False),
        no_windows(np.arange(6)),
        {"H": line},
        settings=Settings(flag_lines=True),
    )
    assert scores.ranking.tolist() == [3, 2, 1, 5, 0, 4]
    assert scores.least_p.tolist()[:4] == [np.exp(-3.0), 0.0, 0.0, 0.0] and np.isnan(scores.least_p[4])
    # of a normal deviate z far out: log phi(z) - log z, for either sign
    assert scores.log_least_p[3] == pytest.approx(
        -3200.0 - math.log(80.0 * math.sqrt(0.5 * math.pi)), rel=1e-6
    )
    silent = replace(scores, settings=Settings())
    assert silent.ranking.tolist() == [2, 1, 5, 0, 3, 4]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_are_in_the_order_of_the_data() -> None:
    scores, data = scored({"teff": [4.0, 5.0, 6.0, 7.0]})
    columns = rp.score_columns(scores, data)
    assert list(columns)[:2] == ["rank", "id"]
    assert list(columns)[-1] == "teff"
    assert "log_p" not in columns
    np.testing.assert_array_equal(columns["rank"], RANKS)
    np.testing.assert_array_equal(columns["id"], data.ids)
    np.testing.assert_array_equal(columns["teff"], data.meta["teff"])
    np.testing.assert_allclose(10.0 ** columns["log10_p"][[0, 3]], np.exp(LOG_P[[0, 3]]))


def test_only_metadata_that_clash_are_renamed() -> None:
    names = ("rank", "id", "z", "meta_z", "log_p", "teff")
    meta = {name: np.full(4, place) for place, name in enumerate(names)}
    columns = rp.score_columns(*scored(meta))
    for place, name in enumerate(("meta_rank", "meta_id", "meta_meta_z", "meta_z", "log_p", "teff")):
        assert columns[name][0] == place
    assert len(columns) == 3 + len(ObjectSurprise._fields) + len(names)


def test_file_is_ranked_and_keeps_all_digits_of_metadata(tmp_path: Path) -> None:
    ra = np.array([10.123456789012, 200.5, np.nan, 1 / 3])
    name = ['plain, "quoted"', "two\nlines", "Å", ""]
    pair = np.arange(8.0).reshape(4, 2)
    scores, data = scored({"ra": ra, "name": name, "pair": pair}, ids=("a,b", "c", "d", "e"))
    path = tmp_path / "scores.csv"
    rp.write_scores(scores, data, path)
    rows = read(path)
    order = np.argsort(RANKS)
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["id"] for row in rows] == list(data.ids[order])
    assert [row["name"] for row in rows] == [name[i] for i in order]
    np.testing.assert_array_equal([float(row["ra"]) for row in rows], ra[order])
    np.testing.assert_array_equal([json.loads(row["pair"]) for row in rows], pair[order])
    assert rows[0]["p_value"] == "0"  # underflows; its logarithm does not
    assert float(rows[0]["log10_p"]) == pytest.approx(-900.0 / math.log(10.0), rel=1e-6)
    assert rows[1]["score"] == "0.3333333"
    assert rows[-1]["score"] == "nan"
    assert rows[-1]["reason"] == "no observed pixel"


def test_printed_rows_are_aligned_and_ranked() -> None:
    lines = most_surprising(scored({})[0], 3).splitlines()
    assert [line.split()[:2] for line in lines] == [["rank", "id"], ["1", "11"], ["2", "13"], ["3", "10"]]
    assert len({len(line) for line in lines}) == 1
    assert len(most_surprising(scored({})[0], 10).splitlines()) == 1 + 4


def test_scores_of_other_objects_are_refused(tmp_path: Path) -> None:
    scores, data = scored({})
    for other in (data.take(np.array([1, 0, 2, 3])), data.take(np.arange(3))):
        with pytest.raises(ValueError, match="same objects in the same order"):
            rp.write_scores(scores, other, tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        rp.write_scores(*scored({}), tmp_path / "none" / "scores.csv")


def test_windows_and_lines_are_written(tmp_path):
    survey = rp.simulate.toy(200, 150, seed=1)
    grid = survey.data.grid
    scores = rp.surprise(rp.fit(survey.data, 5), survey.data, lines={"mid": [grid[70]]})
    rp.write_windows(scores, tmp_path / "windows.csv")
    rows = read(tmp_path / "windows.csv")
    assert len(rows) == len(scores.windows.row)
    assert {int(row["row"]) for row in rows} <= set(np.flatnonzero(scores.object.kind != ""))
    columns = rp.score_columns(scores, survey.data)
    np.testing.assert_array_equal(columns["mid_amplitude"], scores.lines["mid"].amplitude)
