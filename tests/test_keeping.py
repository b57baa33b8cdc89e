"""Results on disk and in parts: the same again, to the last bit; clear words about files that are none."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.io.trees import read_tree, write_tree
from robusta_prob.keeping import KINDS, VERSION, WHOLE
from robusta_prob.scoring.empirical import Tail

LINES = {"a/b": [30.0], "Hα": [12.0, 50.0], "/": [70.0]}  # names that paths in a file could not be
DTYPES = ["float32", "float64"]


@pytest.fixture(scope="module")
def fitted():
    """400 objects named by texts, two of them strange, one without data; and their fit."""
    survey = rp.simulate.low_rank(400, 80, 2, missing=0.1, seed=0)
    flux, ivar = survey.data.flux * survey.data.unit, np.array(survey.data.ivar / survey.data.unit**2)
    flux[3, 20:26] += 2.0
    flux[8, 40:44] -= 2.0
    ivar[5] = 0.0
    data = rp.dataset(flux, ivar, ids=np.array([f"star {i} α" for i in range(400)]))
    return rp.fit(data, 2, starts=1), data


@pytest.fixture(scope="module")
def scores(fitted):
    fit, data = fitted
    return rp.surprise(fit, data, lines=LINES, flag_lines=True, empirical_null="by error", pixel=True)


@pytest.fixture(scope="module")
def found(fitted, scores):
    fit, data = fitted
    kinds = {"emission line": [0.01, 1.0], "line set": [0.5]}
    here = {"line set": {"positions": [30.0]}}
    return rp.recovery(fit, data, kinds, key=0, per_amplitude=20, scores=scores, options=here)


def content(result):
    """What a result holds, of those that are no named tuples."""
    return {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}


def same(a, b):
    """Whether two trees are the same to the last bit, types and dtypes included."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if a.dtype.kind == "U" and b.dtype.kind == "U":
            return a.shape == b.shape and bool((a == b).all())
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and a != a:
        return type(a) is type(b) and b != b
    return type(a) is type(b) and a == b


def assert_same(one, other):
    assert type(one) is type(other)
    if dataclasses.is_dataclass(one):
        for name, value in content(one).items():
            assert same(value, getattr(other, name)), name
    else:
        assert same(one, other)


def again(result, path):
    rp.save(result, path)
    return rp.load(path)


@pytest.mark.parametrize("pixel", [True, False])
@pytest.mark.parametrize("null", [False, True, "by error"])
def test_scores_come_back_as_they_were(fitted, tmp_path, null, pixel):
    fit, data = fitted
    plain = rp.surprise(fit, data, lines=LINES, flag_lines=pixel, empirical_null=null, pixel=pixel)
    loaded = again(plain, tmp_path / "scores.h5")
    assert_same(plain, loaded)
    assert (loaded.pixel is not None) is pixel and list(loaded.lines) == list(LINES)
    assert repr(loaded) == repr(plain) and (loaded.flagged == plain.flagged).all()
    assert len(loaded.windows.row) > 0 and loaded.object.reason[5] == "no observed pixel"


def test_scores_in_float64_with_numbers_for_names_and_no_window(tmp_path):
    data = rp.simulate.low_rank(200, 40, 2, seed=1, dtype="float64").data
    data = rp.dataset(data.flux, data.ivar, ids=1363284299777747584 + np.arange(200), dtype="float64")
    fit = rp.fit(data, 2, starts=1)
    plain = rp.surprise(fit, data, windows=[2, 3], replicates=0, pixel=True)
    plain = dataclasses.replace(plain, windows=type(plain.windows)(*(x[:0] for x in plain.windows)))
    loaded = again(plain, tmp_path / "scores.h5")
    assert_same(plain, loaded)
    assert loaded.pixel.z.dtype == np.float64 and not len(loaded.windows.row)
    projection = rp.project(fit, data)
    assert_same(projection, again(projection, tmp_path / "projection.h5"))


def test_no_window_of_objects_that_are_named(scores, tmp_path):
    none = type(scores.windows)(*(x[:0] for x in scores.windows))
    loaded = again(dataclasses.replace(scores, windows=none), tmp_path / "scores.h5")
    assert loaded.windows.id.dtype.kind == "U" and loaded.windows.id.shape == (0,)


@pytest.mark.parametrize("with_origin", [True, False])
def test_a_projection_comes_back_as_it_was(fitted, tmp_path, with_origin):
    fit, data = fitted
    projection = rp.project(fit, data)
    projection = projection if with_origin else projection._replace(origin=None)
    loaded = again(projection, tmp_path / "projection.h5")
    assert_same(projection, loaded)
    one, other = (rp.surprise(fit, data, x).object for x in (projection, loaded))
    assert same(one, other)  # it is taken for that of these data


def test_a_fit_and_what_else_there_is_are_told_apart(fitted, tmp_path):
    fit, _ = fitted
    loaded = again(fit, tmp_path / "fit.h5")
    assert isinstance(loaded, rp.Fit) and np.array_equal(loaded.basis, fit.basis)


def test_a_recovery_comes_back_as_it_was(found, tmp_path):
    loaded = again(found, tmp_path / "found.h5")
    assert_same(found, loaded)
    assert loaded.lists == ("p_value", "p_run", "p_pixel", *LINES, "p_flag", "any")
    assert loaded.half("emission line", "a/b") == pytest.approx(
        found.half("emission line", "a/b"), nan_ok=True
    )


def test_scores_that_were_loaded_judge_further_objects_as_the_first_ones(fitted, scores, tmp_path):
    fit, data = fitted
    kept = again(scores, tmp_path / "scores.h5")
    part = rp.surprise(
        fit,
        data.take(slice(50, 90)),
        null=kept.null,
        search=kept.search,
        empirical_null=kept.empirical,
        windows=kept.settings.windows,
        lines=kept.settings.lines,
        flag_lines=True,
    )
    for name in ("p_value", "p_run"):
        there = getattr(scores.object, name)[50:90]
        np.testing.assert_allclose(getattr(part.object, name), there, rtol=1e-3)
    np.testing.assert_allclose(part.lines["a/b"].p_value, scores.lines["a/b"].p_value[50:90], rtol=1e-3)
    found = rp.recovery(fit, data, {"line set": [0.0]}, key=0, per_amplitude=10, scores=kept)
    for place, name in enumerate(("p_value", "p_run")):  # runs by the holes of all, and not of these ten
        there = getattr(scores.object, name)[found.trials.row]
        assert found.trials.p[:, place] == pytest.approx(there, rel=1e-3)


def test_what_is_loaded_cannot_be_changed_by_name(scores, tmp_path):
    loaded = again(scores, tmp_path / "scores.h5")
    mappings = (loaded.lines, loaded.settings.lines, loaded.empirical.by_error, loaded.empirical.tails)
    for mapping in mappings:
        assert type(mapping) is MappingProxyType and len(mapping)
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.ids = None


def test_cells_that_were_written_elsewhere_stay_there(fitted, tmp_path):
    fit, data = fitted
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        z = file.create_dataset("z", data.shape, np.float32)
        elsewhere = rp.surprise(fit, data, out={"z": z})
        loaded = again(elsewhere, tmp_path / "scores.h5")
    assert loaded.pixel is None and same(loaded.object, elsewhere.object)


# Parts ------------------------------------------------------------------------------------------------------

SOME = [
    [8, 0, 3, 399],
    np.arange(400) % 2 == 1,
    slice(5, None, 3),
    slice(20, 3, -1),
    [5],
    np.array([-1, 2]),
    np.zeros(400, bool),
]


@pytest.mark.parametrize("rows", SOME)
def test_scores_of_some_objects_are_theirs_among_all(scores, rows):
    part, index = scores.take(rows), np.arange(400)[rows]
    assert same(part.ids, scores.ids[rows])
    for name, column in scores.object._asdict().items():
        assert same(getattr(part.object, name), column[rows]), name
    for name, line in scores.lines.items():
        assert type(part.lines[name]) is type(line)
        assert all(same(a, b[rows]) for a, b in zip(part.lines[name], line, strict=True))
    assert same(part.pixel, type(scores.pixel)(*(x[rows] for x in scores.pixel)))
    assert part.null is scores.null and part.empirical is scores.empirical and part.search is scores.search
    assert part.settings is scores.settings and (part.flagged == scores.flagged[rows]).all()
    assert same(part.least_p, scores.least_p[rows])
    # every window is there once, and belongs to the object that it belonged to
    there = np.isin(scores.windows.row, index)
    assert (part.ids[part.windows.row] == part.windows.id).all()
    assert same(part.windows._replace(row=0), type(part.windows)(0, *(x[there] for x in scores.windows[1:])))
    assert (index[part.windows.row] == scores.windows.row[there]).all()
    if len(index):
        assert part.origin.fit == scores.origin.fit
        assert same(part.origin.fingerprints, scores.origin.fingerprints[rows])


def test_there_are_windows_to_be_renumbered(scores):
    assert {3, 8} <= set(scores.windows.row) and len(scores.take([8, 0]).windows.row) > 0
    assert set(scores.take([8, 0, 3]).windows.row) == {0, 2}


def test_scores_of_some_objects_are_known_as_those_of_the_data(fitted, scores):
    fit, data = fitted
    rows = np.arange(399, 100, -1)
    part = scores.take(rows)
    kinds = {"scaled noise": [2.0]}
    found = rp.recovery(fit, data.take(rows), kinds, key=0, per_amplitude=5, scores=part)
    assert len(found.trials.row) == 5
    with pytest.raises(ValueError, match="scores and data must be of the same objects"):
        rp.recovery(fit, data.take(rows[::-1]), kinds, key=0, per_amplitude=5, scores=part)


def test_scores_without_cells_or_whose_cells_are_elsewhere(fitted, scores, tmp_path):
    fit, data = fitted
    assert dataclasses.replace(scores, pixel=None).take([1]).pixel is None
    assert dataclasses.replace(scores, origin=None).take([1]).origin is None
    only_z = dataclasses.replace(scores, pixel=scores.pixel._replace(p=None, weight=None)).take([7, 1]).pixel
    assert only_z.p is None and only_z.weight is None and same(only_z.z, scores.pixel.z[[7, 1]])
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        z = file.create_dataset("z", data.shape, np.float32)
        elsewhere = rp.surprise(fit, data, out={"z": z})
        assert elsewhere.take([7, 1]).pixel is None and elsewhere.pixel.z is z


def test_the_least_p_and_the_level_say_what_is_flagged(fitted, scores):
    fit, data = fitted
    of, lines = scores.object, [line.p_value for line in scores.lines.values()]
    assert same(scores.least_p, np.fmin.reduce([of.p_value, of.p_run, *lines]))
    assert scores.flagged.any() and np.isnan(scores.least_p[5])
    assert ((scores.least_p <= scores.level) == scores.flagged).all()
    quiet = rp.surprise(fit, data, lines=LINES)
    assert same(quiet.least_p, np.fmin(quiet.object.p_value, quiet.object.p_run))
    assert scores.take([1, 2]).level == scores.level  # that among all
    # where nothing is flagged the level is that at which one alone would be, of 150 with a score
    part = data.take(slice(100, 250))
    for tests, settings in ((5, {"lines": LINES, "flag_lines": True}), (2, {"lines": LINES}), (2, {})):
        none = rp.surprise(fit, part, null=scores.null, **settings)
        assert not none.flagged.any() and none.level == pytest.approx(0.05 / (tests * 150))


def test_an_object_is_taken_once(scores):
    with pytest.raises(ValueError, match="has an object twice"):
        scores.take([3, 8, 3])


def test_runs_are_judged_as_in_another_call(fitted, scores):
    """Half of the pixels of the part are missing: its own search would expect fewer windows."""
    fit, data = fitted
    plain = rp.surprise(fit, data)
    part = data.take(slice(100, 250))
    one = rp.surprise(fit, part, null=plain.null, search=plain.search)
    np.testing.assert_allclose(one.object.p_run, plain.object.p_run[100:250], rtol=1e-3)
    assert one.search is plain.search
    gaps = part.hide(np.broadcast_to(np.arange(80) % 4 == 0, part.shape).copy())
    own, given = (rp.surprise(fit, gaps, null=plain.null, search=x) for x in (None, plain.search))
    assert not np.allclose(own.object.p_run, given.object.p_run, rtol=1e-3)
    assert own.search.null == plain.null and given.search is plain.search


def test_a_search_under_another_law_or_for_other_runs_is_refused(fitted, scores):
    fit, data = fitted
    null, search = scores.null, scores.search
    settings = {"null": null, "search": search}
    for change in (
        {"null": null._replace(scale=1.1)},
        {"windows": [2, 3]},
        {"search": search._replace(widths=search.widths[:-1])},
    ):
        with pytest.raises(ValueError, match="calibrated under another null law, or for other windows"):
            rp.surprise(fit, data, **(settings | change))
    for wrong in (scores, "search", tuple(search)):
        with pytest.raises(
            TypeError, match=r"search must be the \.search of another call of rp\.surprise, got"
        ):
            rp.surprise(fit, data, null=null, search=wrong)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([0, 0, 0, 1, 1], 12.0**0.5),  # between 3 and 4, in the middle of their logarithms
        ([0, 1, 0, 1, 1], 2.0),  # one on the wrong side wherever it is, from 1 to 4
        ([1, 1, 1, 1, 0], np.nan),  # below all of them, but for one: nobody knows where
        ([1, 1, 1, 1, 1], np.nan),
        ([0, 0, 0, 0, 0], np.nan),
    ],
)
def test_half_is_found_where_fewest_are_on_the_wrong_side(found, expected):
    trials = rp.scoring.recovered.Trials(
        np.arange(5),
        np.full(5, "line set"),
        np.ones(5),
        np.arange(1.0, 6.0),
        np.ones(5),
        np.where(np.array(found)[:, None], [1.0, 1.0, 1.0, 1e-9, 1e-9], np.nan),
        np.full(5, ""),
    )
    shuffled = trials._replace(strength=trials.strength[[3, 0, 4, 2, 1]], p=trials.p[[3, 0, 4, 2, 1]])
    for one in (trials, shuffled):
        if not np.isnan(expected):  # a control among them changes nothing
            more = [np.concatenate([values, values[:1]]) for values in one]
            more[3][-1] = 0.0
            control = rp.Recovery(1e-3, type(one)(*more), None, None, None)
            assert control.half("line set") == pytest.approx(expected)
        recovery = rp.Recovery(1e-3, one, None, None, None)
        assert recovery.half("line set") == pytest.approx(expected, nan_ok=True)
        assert np.isnan(recovery.half("line set", "p_run"))
        with pytest.raises(ValueError, match=r"there are the kinds \['line set'\] and lists"):
            recovery.half("line set", "a/b")


# Selections -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def selection(tmp_path_factory):
    """In a folder with the fits, which is a scene of its own."""
    folder = tmp_path_factory.mktemp("scene") / "grid"
    data = rp.simulate.low_rank(200, 40, 2, seed=0).data
    fits = folder / "fits"
    fits.mkdir(parents=True)
    chosen = rp.select(data, [1, 2], folder=fits)
    rp.save(chosen, folder / "selection.h5")
    return chosen, folder


def test_a_selection_comes_back_as_it_was(selection):
    chosen, folder = selection
    loaded = rp.load(folder / "selection.h5")
    for name, value in content(chosen).items():
        if name != "fits":
            assert same(value, getattr(loaded, name)), name
    assert type(loaded.fits) is MappingProxyType and list(loaded.fits) == list(chosen.fits)
    assert {k: Path(v).resolve() for k, v in loaded.fits.items()} == {
        k: v.resolve() for k, v in chosen.fits.items()
    }
    assert str(loaded) == str(chosen) and loaded.rank == chosen.rank
    assert np.array_equal(loaded.fit(1).basis, chosen.fit(1).basis)


def test_a_selection_and_its_fits_can_be_moved_together(selection, tmp_path, monkeypatch):
    chosen, folder = selection
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    monkeypatch.chdir(tmp_path)  # paths are those from the file, wherever one is
    loaded = rp.load("elsewhere/selection.h5")
    assert all(moved in path.resolve().parents for path in loaded.fits.values())
    assert np.array_equal(loaded.fit().basis, chosen.fit().basis)
    rp.save(loaded, tmp_path / "one_up.h5")
    assert np.array_equal(rp.load(tmp_path / "one_up.h5").fit().basis, chosen.fit().basis)


def test_of_a_selection_fits_in_memory_are_not_kept(selection, tmp_path):
    chosen, _ = selection
    fits = {(1, None): chosen.fit(1), (2, None): chosen.fits[2, None]}
    loaded = again(dataclasses.replace(chosen, fits=fits), tmp_path / "selection.h5")
    assert list(loaded.fits) == [(2, None)] and loaded.scores.shape == (2, 1)


def test_many_candidates_with_scales_stay_in_order(selection, tmp_path):
    chosen, _ = selection
    scales = [0.5 * i for i in range(1, 13)]
    one = chosen.candidates[0]
    many = dataclasses.replace(
        chosen,
        candidates=tuple(one._replace(scale=scale, density=one.density + scale) for scale in scales),
        chosen=11,
        fits={(1, scale): Path(tmp_path / f"{scale}.h5") for scale in scales},
    )
    loaded = again(many, tmp_path / "selection.h5")
    assert loaded.scales == tuple(scales) and loaded.scale == 6.0
    np.testing.assert_array_equal(loaded.scores, many.scores)
    assert [scale for _, scale in loaded.fits] == scales


# Trees ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"b": 1, "a/b": {"/": None, "": "α"}, "..": ()},
        (True, 1, -0.0, np.inf, "", "a\nb", None, [], (), [1, (2.5, "x")]),
        tuple(range(25)),  # by name 10 comes before 2
        [np.float32(1.5), np.int64(2**62), np.bool_(True), np.array([True, False])],
        [np.zeros((0, 3), np.float32), np.array([], "U5"), np.array(["", "α", "ab"]), np.array([["a"]])],
        [np.array([np.nan, -np.nan, np.inf, -0.0]), np.array([1, 2], ">i2"), np.array([b"ab", b"c"])],
        np.arange(12.0).reshape(3, 4).T,
        {str(i): i for i in range(30)},
        Tail((1.0, 2.0), (-1.0,), 0.5),
    ],
)
def test_a_tree_comes_back_as_it_was(value, tmp_path):
    with h5py.File(tmp_path / "tree.h5", "w") as file:
        write_tree(file, "tree", value)
    with h5py.File(tmp_path / "tree.h5") as file:
        back = read_tree(file["tree"], KINDS)
    assert same(value, back)


def test_arrays_of_jax_come_back_as_such(tmp_path):
    with h5py.File(tmp_path / "tree.h5", "w") as file:
        write_tree(file, "tree", (jnp.arange(3.0), np.arange(3.0)))
        one, other = read_tree(file["tree"], KINDS)
    assert isinstance(one, type(jnp.zeros(1))) and isinstance(other, np.ndarray)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j, np.array([object()]), lambda: 0])
def test_what_has_no_form_on_disk_is_refused(value, tmp_path):
    with h5py.File(tmp_path / "tree.h5", "w") as file, pytest.raises(TypeError):
        write_tree(file, "tree", (1, value))


def test_every_part_of_a_result_is_known_by_its_name(scores, found, selection):
    """What `save` writes, `load` must know: a named tuple that is new is told of here."""

    def kinds_of(value):
        if isinstance(value, Mapping):
            return set().union(*map(kinds_of, value.values()))
        if isinstance(value, tuple | list):
            own = {type(value).__name__} if hasattr(value, "_fields") else set()
            return own.union(*map(kinds_of, value))
        return set()

    for result in (scores, found, selection[0]):
        held = content(result) | ({"fits": ()} if isinstance(result, rp.Selection) else {})
        assert kinds_of(held) <= set(KINDS)
    assert {"Tail", "Origin", "Windows"} <= kinds_of(content(scores))


# What is no such file ---------------------------------------------------------------------------------------


@pytest.fixture
def path(scores, tmp_path):
    path = tmp_path / "scores.h5"
    rp.save(scores, path)
    return path


def test_a_file_cut_short_is_refused(path):
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"scores\.h5 is .*(truncated|damaged).*make it again"):
            rp.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        rp.load(path)


def test_damaged_numbers_are_refused(path, scores):
    whole = bytearray(path.read_bytes())
    for array in (scores.object.z, scores.pixel.z, scores.search.rates[0].log_rate, scores.lines["a/b"].z):
        flat = array[len(array) // 2 :].ravel()
        place = whole.find(flat[np.isfinite(flat)][:1].tobytes())
        assert place > 0
        damaged = whole.copy()
        damaged[place : place + 4] = b"\x01\x02\x03\x04"
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"incomplete or damaged .*make it again"):
            rp.load(path)


@pytest.mark.parametrize("missing", ["whole content", "one field", "one field within", "what it is"])
def test_a_file_that_lacks_something_is_refused(path, missing):
    with h5py.File(path, "a") as file:
        if missing == "whole content":
            del file["content"]
        elif missing == "one field":
            del file["content/0"]
        elif missing == "one field within":
            del file["content/0/q_run"]
        else:
            del file["content/0"].attrs["kind"]
    with pytest.raises(ValueError, match="incomplete or damaged"):
        rp.load(path)


@pytest.mark.parametrize("unknown", ["NoSuchThing", "Surprise"])
def test_an_unknown_part_is_refused(path, unknown):
    with h5py.File(path, "a") as file:
        file["content/0"].attrs["kind"] = unknown
    with pytest.raises(ValueError, match="incomplete or damaged"):
        rp.load(path)


@pytest.mark.parametrize(
    ("version", "match"), [(VERSION + 1, "update robusta-prob"), (VERSION - 1, "make it again")]
)
def test_another_version_is_refused_with_advice(path, version, match):
    with h5py.File(path, "a") as file:
        file.attrs["version"] = version
    with pytest.raises(
        ValueError, match=f"is a Surprise of format {version}, and here is {VERSION}: {match}"
    ):
        rp.load(path)
    with h5py.File(path, "a") as file:
        del file.attrs["version"]
    with pytest.raises(ValueError, match="make it again"):
        rp.load(path)


def test_other_files_are_refused(fitted, tmp_path):
    _, data = fitted
    with pytest.raises(FileNotFoundError, match="there is no file"):
        rp.load(tmp_path / "none.h5")
    with pytest.raises(ValueError, match="not a fit of robusta_prob"):
        rp.load(rp.write(data, tmp_path / "data.h5"))
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        rp.load(rp.write(data, tmp_path / "data.npz"))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["format"] = "robusta_prob.Windows"  # a part alone is no result
    with pytest.raises(ValueError, match="robusta_prob"):
        rp.load(tmp_path / "other.h5")


@pytest.mark.parametrize("what", ["data", "windows", "text", "mapping"])
def test_what_is_no_result_is_refused(fitted, scores, tmp_path, what):
    other = {"data": fitted[1], "windows": scores.windows, "text": "scores", "mapping": {}}[what]
    with pytest.raises(TypeError, match="a Fit, a Projection, or a Surprise, a Recovery, a Selection can be"):
        rp.save(other, tmp_path / "x.h5")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file_and_no_other(scores, tmp_path):
    path = tmp_path / "scores.h5"
    rp.save(scores, path)
    before = path.read_bytes()
    odd = dataclasses.replace(scores, ids=np.array([object()] * 400))
    with pytest.raises(TypeError):
        rp.save(odd, path)
    assert [one.name for one in tmp_path.iterdir()] == ["scores.h5"] and path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="make it first"):
        rp.save(scores, tmp_path / "no folder" / "scores.h5")


def test_all_results_have_a_name_of_their_own():
    assert set(WHOLE) == {"Surprise", "Recovery", "Selection"} and not set(WHOLE) & set(KINDS)
