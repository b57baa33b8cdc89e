"""How data are stored: what is written comes back bit for bit, whole or not at all; what is wrong is said."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from robusta_prob.data import Dataset, DataWarning, dataset
from robusta_prob.io import atomic_path, open_hdf5, read, write

BIG_ID = 1363284299777747584  # above 2^53: a float64 would already destroy it
SUFFIXES = (".npz", ".h5")
ERRORS = ("flux_error", "flux_err", "error", "sigma", "uncertainty")
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def arrays(n: int = 4, m: int = 6, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Flux and ivar with holes."""
    rng = np.random.default_rng(seed)
    flux = rng.normal(scale, 0.2 * scale, (n, m))
    ivar = rng.uniform(1, 9, (n, m)) * (100 / scale) ** 2
    flux[1, 2], ivar[1, 2] = np.nan, 0
    ivar[2] = 0
    return {"flux": flux, "ivar": ivar}


def store(path: Path, contents: dict[str, np.ndarray]) -> Path:
    """As a user would, without `write`."""
    if path.suffix == ".npz":
        np.savez(path, **contents)
        return path
    with h5py.File(path, "w") as file:
        for name, values in contents.items():
            file[name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values
    return path


def assert_same(data: Dataset, other: Dataset) -> None:
    for name in ("flux", "ivar", "grid", "ids"):
        values, expected = getattr(data, name), getattr(other, name)
        assert values.dtype.kind == expected.dtype.kind
        if expected.dtype.kind != "U":  # the width of text is not information
            assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values, expected)
    for name in ("unit", "grid_name", "flux_name"):
        assert getattr(data.labels, name) == getattr(other.labels, name)
    assert sorted(data.meta) == sorted(other.meta)
    for name, expected in other.meta.items():
        assert data.meta[name].dtype.kind == expected.dtype.kind
        np.testing.assert_array_equal(data.meta[name], expected)
    assert (data.census.observed, data.census.missing) == (other.census.observed, other.census.missing)


def faint_part() -> Dataset:
    """Part of a larger set: alone, it would have been given another unit."""
    values = arrays(8)
    values["flux"][5:] *= 1e-3
    part = dataset(**values).take(slice(5, 8))
    assert dataset(values["flux"][5:], values["ivar"][5:]).unit < part.unit
    return part


def labelled() -> Dataset:
    """Columns of every type, with names that could be taken for something else."""
    n, m = 4, 6
    meta = {
        "flux": np.arange(n),
        "ivar": np.ones((n, m)),
        "id": np.array([1, 1, 2, 2]),
        "file": np.array(["α Cen", "", "x" * 70, "a,b"]),
        "flag": np.array([True, False, True, True]),
        "snr": np.array([1.5, np.nan, -np.inf, 0], ">f4"),
        "gaia/source_id": BIG_ID + np.arange(n, dtype=np.uint64),
        "meta/band": np.arange(3 * n).reshape(n, 3),
        "date": np.arange(n).astype("M8[s]"),
    }
    grid = np.linspace(846, 870, m) ** 1.1
    names = {"grid_name": "λ [nm]", "flux_name": 'F "λ" [erg]'}
    return dataset(**arrays(n, m), ids=np.array(["b", "a", "é", "d"]), grid=grid, meta=meta, **names)


def subnormal() -> Dataset:
    """Float32 leaves too small for float32 once they are multiplied by the unit."""
    flux = np.full((2, 2), 2.0**-100)
    flux[0, 0] = np.float32(1.1e-38) * 2.0**-100
    return dataset(flux, np.full((2, 2), 2.0**200))


CASES = {
    "plain": lambda: dataset(**arrays()),
    "cgs": lambda: dataset(**arrays(scale=1e-17)),
    "huge": lambda: dataset(**arrays(scale=1e25)),
    "float64": lambda: dataset(**arrays(scale=1e-17), dtype="float64"),
    "big ids": lambda: dataset(**arrays(), ids=BIG_ID + np.arange(4)),
    "faint part": faint_part,
    "labelled": labelled,
    "square": lambda: dataset(**arrays(5, 5), meta={"wave": np.arange(5)}),
    "subnormal": subnormal,
    "one cell": lambda: dataset([[3.0]], [[1.0]]),
    "nothing seen": lambda: dataset(np.full((2, 3), np.nan), np.zeros((2, 3))),
}


# Round trips


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".hdf5", ".HDF"])
def test_read_gives_back_what_write_was_given(case, suffix, tmp_path):
    data = CASES[case]()
    path = tmp_path / f"data{suffix}"
    assert write(data, path) == path
    assert_same(read(path, dtype=data.dtype.name), data)


def test_anybody_can_open_an_hdf5_file_of_ours(tmp_path):
    values = arrays(1000, 300, scale=1e-17)
    data = dataset(**values, ids=BIG_ID + np.arange(1000), meta={"bp_rp": np.arange(1000.0)})
    with h5py.File(write(data, tmp_path / "data.h5")) as file:
        seen = data.observed
        assert file["flux"].dtype == np.float32
        assert file["ivar"].dtype == np.float64, "1e38 and more is beyond float32"
        np.testing.assert_allclose(file["flux"][...][seen], values["flux"][seen], rtol=2**-24)
        np.testing.assert_allclose(file["ivar"][...][seen], values["ivar"][seen], rtol=2**-24)
        assert np.isnan(file["flux"][...][~seen]).all()
        assert not file["ivar"][...][~seen].any()
        assert file["ids"][0] == BIG_ID
        assert file["meta/bp_rp"][999] == 999
        rows, pixels = file["flux"].chunks
        assert pixels == 300
        assert 1 <= rows < 1000


def test_anybody_can_open_an_npz_of_ours(tmp_path):
    values = arrays()
    with np.load(write(dataset(**values), tmp_path / "data.npz"), allow_pickle=False) as file:
        expected = np.where(values["ivar"] > 0, values["flux"], np.nan).astype(np.float32)
        np.testing.assert_array_equal(file["flux"], expected)
        np.testing.assert_array_equal(file["ivar"], values["ivar"].astype(np.float32))


def test_text_and_objects_in_metadata(tmp_path):
    text = np.array(["a", "bc", "d", ""], object)
    data = dataset(**arrays(), meta={"text": text, "bytes": np.array([b"a", b"bc", b"d", b""])})
    for suffix in SUFFIXES:
        back = read(write(data, tmp_path / f"data{suffix}"))
        assert back.meta["text"].tolist() == back.meta["bytes"].tolist() == text.tolist()
    for column in (np.array([None, 1, 2, 3], object), np.zeros(4, [("x", object)])):
        with pytest.raises(ValueError, match="'meta/thing' holds Python objects, which are never stored"):
            write(dataset(**arrays(), meta={"thing": column}), tmp_path / "other.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.h5", "data.npz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_newer_format_is_refused(suffix, tmp_path):
    contents = arrays() | {"robusta_prob": np.array(json.dumps({"version": 99}))}
    path = tmp_path / f"data{suffix}"
    if suffix == ".npz":
        store(path, contents)
    else:
        with h5py.File(path, "w") as file:
            file.attrs["robusta_prob"] = str(contents["robusta_prob"])
    with pytest.raises(ValueError, match=r"written by a newer robusta_prob \(format 99, here 1\)"):
        read(path)


# Whole files or none


class Interruption(BaseException):
    """Stands for Ctrl-C: not even an Exception."""


@pytest.mark.parametrize("before", [b"precious", None])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), Interruption()])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_leaves_everything_as_it_was(before, failure, suffix, tmp_path, monkeypatch):
    def half_an_archive(file, **arrays) -> None:
        file.write(b"half")
        fail()

    def half_a_file(group, name, **options) -> None:
        group.create_group("half")
        fail()

    def fail() -> None:
        assert len(list(tmp_path.iterdir())) == (2 if before else 1), (
            "the temporary file lies beside the target"
        )
        raise failure

    path = tmp_path / f"data{suffix}"
    if before:
        path.write_bytes(before)
    if suffix == ".npz":
        monkeypatch.setattr(np, "savez", half_an_archive)
    else:
        monkeypatch.setattr(h5py.File, "create_dataset", half_a_file)
    with pytest.raises(type(failure)):
        write(dataset(**arrays()), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == (
        [(path.name, before)] if before else []
    )


def test_the_target_changes_only_at_the_end_and_after_a_sync(tmp_path, monkeypatch):
    target, calls = tmp_path / "note.txt", []
    target.write_text("old")
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, real=real: (calls.append(name), real(*args))[1]
        )
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert calls == ["fsync", "replace"]
    assert list(tmp_path.iterdir()) == [target]


def test_mode_and_links_survive(tmp_path):
    (tmp_path / "disk").mkdir()
    real, link, fresh = tmp_path / "disk" / "data.txt", tmp_path / "link.txt", tmp_path / "fresh.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    for path in (link, fresh):
        with atomic_path(path) as temporary:
            temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == fresh.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    (tmp_path / "plain").touch()
    assert fresh.stat().st_mode == (tmp_path / "plain").stat().st_mode, "as the umask has it, not 0600"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere/data.h5", FileNotFoundError, r"the folder .*nowhere does not exist; make it first"),
        ("file/data.h5", NotADirectoryError, r"file is a file, not a folder"),
        ("folder.h5", IsADirectoryError, "it is a folder; give the name of a file in it"),
        ("data.fits", ValueError, r"data\.fits has no suffix .*expected one of \.npz, \.h5, \.hdf5, \.hdf$"),
        ("data", ValueError, r"expected one of \.npz, \.h5"),
    ],
)
def test_write_says_why_it_cannot(name, error, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(error, match=message):
        write(dataset(**arrays()), tmp_path / name)
    assert len(list(tmp_path.rglob("*"))) == 2


def test_write_without_permission(tmp_path, monkeypatch):
    def refuse(*args):  # root may write anywhere, so permission bits cannot test this
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"cannot write .*data\.h5: no permission to make files in "):
        write(dataset(**arrays()), tmp_path / "data.h5")


# Files that are not what they should be


@pytest.mark.parametrize("reader", [read, open_hdf5])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.h5", FileNotFoundError, r"there is no file .*missing\.h5 \(looked from /"),
        ("folder.h5", ValueError, "is a folder; give the name of a file in it"),
        ("empty.h5", ValueError, r"is empty \(0 bytes\)"),
        ("text.h5", ValueError, "is not an HDF5 file, it begins with b'source_id,flux"),
        ("cut.h5", ValueError, r"is a damaged HDF5 file \(.*truncated.*\); copy or make it again"),
    ],
)
def test_bad_hdf5_files(reader, name, error, message, tmp_path):
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "empty.h5").touch()
    (tmp_path / "text.h5").write_text("source_id,flux\n1,2\n")
    whole = write(dataset(**arrays(50, 60)), tmp_path / "whole.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(error, match=message):
        reader(tmp_path / name)


def test_open_hdf5_opens_for_reading_only(tmp_path):
    with open_hdf5(write(dataset(**arrays()), tmp_path / "data.h5")) as file:
        assert file["flux"].shape == (4, 6)
        assert file.mode == "r"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing.npz", FileNotFoundError, r"there is no file .*missing\.npz"),
        ("empty.npz", ValueError, r"is empty \(0 bytes\)"),
        ("text.npz", ValueError, "is not a whole NPZ archive, it begins with b'hello"),
        ("cut.npz", ValueError, "is not a whole NPZ archive, it begins with b'PK"),
        ("rotten.npz", ValueError, r"is a damaged NPZ archive \(Bad CRC-32 .*\); copy or make it again"),
        ("data.csv", ValueError, r"expected one of \.npz, \.h5, \.hdf5, \.hdf, \.fits, \.fits\.gz$"),
    ],
)
def test_bad_npz_files(name, error, message, tmp_path):
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("hello world, I am no archive")
    whole = bytearray(store(tmp_path / "whole.npz", arrays()).read_bytes())
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    whole[250] ^= 255
    (tmp_path / "rotten.npz").write_bytes(whole)
    with pytest.raises(error, match=message):
        read(tmp_path / name)


def test_pickles_in_an_npz_are_left_out_and_told(tmp_path):
    path = store(tmp_path / "data.npz", arrays() | {"notes": np.array([None, {}, [], 1], object)})
    with pytest.warns(DataWarning, match=r"'notes' in .*data\.npz is left out, Python objects are") as caught:
        data = read(path)
    assert caught[0].filename == __file__
    assert data.meta == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_contradictions_are_told_at_the_line_that_reads(suffix, tmp_path):
    values = arrays()
    values["ivar"][0, 0] = -1
    path = store(tmp_path / f"data{suffix}", values)
    with pytest.warns(DataWarning, match="1 cells with a negative ivar") as caught:
        read(path)
    assert [warning.filename for warning in caught] == [__file__]


# Names in the file


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_array_is_answered_with_what_is_there(suffix, tmp_path):
    path = store(tmp_path / f"data{suffix}", {"spectrum": np.ones((3, 4)), "weights": np.ones((3, 4))})
    with pytest.raises(
        ValueError, match=r"no array 'flux'\. It holds spectrum \(3, 4\), weights \(3, 4\)\. Pass flux="
    ):
        read(path)
    with pytest.raises(
        ValueError, match=r"no inverse variances .* weights \(3, 4\)\. Say which .* error= errors"
    ):
        read(path, flux="spectrum")
    for role in ("ivar", "grid", "ids", "mask"):
        with pytest.raises(ValueError, match=rf"no array 'nope'\. .* Pass {role}= with the right name"):
            read(path, flux="spectrum", **{"ivar": "weights", role: "nope"})
    assert read(path, flux="spectrum", ivar="weights").shape == (3, 4)
    with pytest.raises(ValueError, match="give ivar= or error=, not both"):
        read(path, flux="spectrum", ivar="weights", error="weights")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_errors_of_any_name(suffix, tmp_path):
    path = store(tmp_path / f"data{suffix}", {"flux": np.ones((3, 4)), "e_lambda": np.full((3, 4), 0.5)})
    data = read(path, error="e_lambda")
    np.testing.assert_allclose(data.ivar / data.unit**2, 4.0)


def test_a_flux_that_is_no_matrix(tmp_path):
    with pytest.raises(
        ValueError, match=r"'flux' in .* must be a matrix \(objects, pixels\), got shape \(5,\)"
    ):
        read(store(tmp_path / "data.npz", {"flux": np.ones(5), "ivar": np.ones(5)}))


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", [*ERRORS, "FLUX_ERROR"])
def test_errors_become_inverse_variances(name, named, tmp_path):
    error = np.array([[0.5, 0.25, 2, 1, 1, 1], [0, -1, np.nan, np.inf, -np.inf, 4]], np.float32)
    path = store(tmp_path / "data.npz", {"flux": np.ones((2, 6)), name: error})
    data = read(path, ivar=name if named else None)  # silent: such errors are how catalogues mark holes
    np.testing.assert_array_equal(
        data.ivar * data.unit**-2, [[4, 16, 0.25, 1, 1, 1], [0, 0, 0, 0, 0, 1 / 16]]
    )


def test_errors_are_squared_in_float64(tmp_path):
    contents = {"flux": np.full((2, 3), 1e-17, np.float32), "flux_error": np.full((2, 3), 1e-20, np.float32)}
    data = read(store(tmp_path / "data.npz", contents))
    np.testing.assert_allclose(
        data.ivar.astype(float) / data.unit**2, 1e40, rtol=1e-6
    )  # float32 errors: 2 x 2^-24


def test_inverse_variances_come_before_errors(tmp_path):
    contents = {
        "flux": np.ones((2, 3)),
        "error": np.full((2, 3), 0.5),
        "inverse_variance": np.full((2, 3), 9.0),
    }
    path = store(tmp_path / "data.npz", contents)
    assert (read(path).ivar == 9).all()
    assert (read(path, ivar="error").ivar == 4).all()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("grid", "grid"),
        ("wavelength", "wavelength"),
        ("WAVE", "wavelength"),
        ("wave_um", "wavelength [um]"),
        ("wave_nm", "wavelength [nm]"),
        ("loglam", "log10 wavelength [Angstrom]"),
        ("lambda", "wavelength"),
        ("freq", "frequency"),
        ("unheard_of", "pixel"),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_grid_is_found_and_labelled(name, label, suffix, tmp_path):
    grid = np.linspace(1, 2, 6)
    data = read(store(tmp_path / f"data{suffix}", arrays() | {name: grid}))
    assert data.labels.grid_name == label
    np.testing.assert_array_equal(data.grid, np.arange(6) if label == "pixel" else grid)


def test_a_name_alone_makes_no_grid(tmp_path):
    contents = arrays() | {"wavelength": np.ones((4, 6)), "freq": np.arange(4), "lambda": np.array(5.0)}
    with pytest.warns(DataWarning, match="'wavelength' .* is not taken as grid"):
        data = read(store(tmp_path / "data.npz", contents))
    assert data.labels.grid_name == "pixel"
    assert list(data.meta) == ["freq"]
    with pytest.raises(ValueError, match=r"grid must hold one finite coordinate per pixel, shape \(6,\)"):
        read(tmp_path / "data.npz", grid="freq")


@pytest.mark.parametrize("name", ["ids", "id", "source_id", "OBJECT_ID"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_64_bit_ids_survive(name, suffix, tmp_path):
    ids = BIG_ID + np.arange(4)
    data = read(store(tmp_path / f"data{suffix}", arrays() | {name: ids}))
    assert data.ids.dtype == np.int64
    assert data.ids.tolist() == ids.tolist()
    assert data.meta == {}


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (np.array([7, 7, 8, 9]), ValueError, "ids must be unique, but 1 occur more than once, such as 7"),
        (np.array(["a", "b", "a", "c"]), ValueError, "such as a"),
        (np.arange(4.0), TypeError, "ids must be integers or strings"),
    ],
)
def test_unusable_ids_are_metadata_unless_named(ids, error, message, tmp_path):
    path = store(tmp_path / "data.h5", arrays() | {"source_id": ids})
    with pytest.warns(DataWarning, match=f"'source_id' in .* becomes metadata: .*{message}") as caught:
        data = read(path)
    assert caught[0].filename == __file__
    assert data.ids.tolist() == [0, 1, 2, 3]
    assert data.meta["source_id"].tolist() == ids.tolist()
    with pytest.raises(error, match=message):
        read(path, ids="source_id")


@pytest.mark.parametrize(
    ("name", "array", "role"),
    [("wave", np.arange(7.0), "grid"), ("wave", np.ones((4, 6)), "grid"), ("id", np.arange(6), "ids")],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_bears_the_name_of_a_grid_or_of_ids_and_is_none_is_told(name, array, role, suffix, tmp_path):
    path = store(tmp_path / f"data{suffix}", arrays() | {name: array})
    with pytest.warns(DataWarning, match=f"'(?i:{name})' .* is not taken as {role}: .* would have shape"):
        data = read(path)
    assert data.grid.tolist() == list(range(6))
    assert data.ids.tolist() == list(range(4))


@pytest.mark.parametrize("grid", [np.ones(6), np.array([1.0, 3, 2, 4, 5, 6])])
def test_a_grid_that_is_out_of_order_is_told(grid, tmp_path):
    with pytest.warns(DataWarning, match="'wave' in .* neither rises nor falls"):
        assert read(store(tmp_path / "data.npz", arrays() | {"wave": grid})).grid.tolist() == grid.tolist()
    backwards = read(store(tmp_path / "data.npz", arrays() | {"wave": np.arange(6.0)}), pixels=[4, 1, 3])
    assert backwards.grid.tolist() == [4.0, 1.0, 3.0]  # as asked for
    falling = read(store(tmp_path / "data.npz", arrays() | {"wave": np.arange(6.0)[::-1]}))
    assert falling.grid[0] == 5.0


def test_metadata_is_what_has_one_entry_per_object(tmp_path):
    contents = {
        "bp_rp": np.arange(4.0),
        "name": np.array([b"a", "é".encode(), b"", b"d"]),
        "bands": np.ones((4, 3)),
        "model": np.ones((4, 6)),
        "lines": np.arange(3),
        "version": np.array(2),
    }
    for suffix in SUFFIXES:
        data = read(store(tmp_path / f"data{suffix}", arrays() | contents))
        assert sorted(data.meta) == ["bands", "bp_rp", "name"]
        assert data.meta["name"].tolist() == ["a", "é", "", "d"]


def test_groups_and_units_of_hdf5(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        for name, values in arrays().items():
            file[f"rvs/{name}"] = values
        file["rvs/wavelength"] = np.linspace(846, 870, 6)
        file["rvs/wavelength"].attrs["unit"] = "nm"
        file["rvs/flux"].attrs["units"] = np.bytes_(b"erg / (s cm2 nm)")
        file["table/source_id"] = BIG_ID + np.arange(4)
        file["table/name"] = ["a", "b", "c", "d"]
        file["nothing"] = h5py.Empty("f4")
    data = read(path, flux="rvs/flux", ids="table/source_id")
    assert (data.labels.grid_name, data.labels.flux_name) == ("wavelength [nm]", "flux [erg / (s cm2 nm)]")
    assert data.grid[-1] == 870
    assert data.ids[0] == BIG_ID
    assert data.meta["table/name"].tolist() == ["a", "b", "c", "d"]


# Masks


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32])
@pytest.mark.parametrize("spread", ["ivar", "error"])
def test_a_mask_applies_only_where_named(dtype, spread, tmp_path):
    bits = np.zeros((4, 6), dtype)
    bits[0, 1] = bits[3, 5] = np.dtype(dtype).type(64)
    values = arrays()
    contents = {"flux": values["flux"], "mask_or": bits}
    with np.errstate(divide="ignore"):
        contents[spread] = values["ivar"] if spread == "ivar" else values["ivar"] ** -0.5
    path = store(tmp_path / "data.npz", contents)
    plain, masked = read(path), read(path, mask="mask_or")
    np.testing.assert_array_equal(plain.observed, values["ivar"] > 0)
    np.testing.assert_array_equal(masked.observed, (values["ivar"] > 0) & (bits == 0))
    np.testing.assert_array_equal(masked.ivar[masked.observed], plain.ivar[masked.observed])
    assert plain.meta == masked.meta == {}


@pytest.mark.parametrize("mask", [np.zeros((4, 6)), np.zeros(6, bool), np.zeros((6, 4), int)])
def test_a_mask_of_another_kind_is_refused(mask, tmp_path):
    path = store(tmp_path / "data.npz", arrays() | {"bad": mask})
    with pytest.raises(ValueError, match=r"mask 'bad' must be boolean or integer, of shape \(4, 6\), got"):
        read(path, mask="bad")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, ">i4", np.uint64])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_the_named_bits_of_a_mask_are_bad(dtype, suffix, tmp_path):
    bits = np.zeros((4, 6), dtype)
    bits[0] = [0, 1, 2, 3, 64, 65]
    values = arrays()
    path = store(tmp_path / f"data{suffix}", values | {"mask_or": bits})
    for chosen, bad in (
        ([1], [2, 3]),
        ([0, 6], [1, 3, 4, 5]),
        (iter([1, np.int64(6)]), [2, 3, 4, 5]),
        ([7], []),
    ):
        expected = values["ivar"] > 0
        expected[0, bad] = False
        np.testing.assert_array_equal(read(path, mask="mask_or", mask_bits=chosen).observed, expected)


def test_the_sign_bit_is_a_bit(tmp_path):
    bits = np.zeros((4, 6), np.int16)
    bits[0, 0] = np.iinfo(np.int16).min
    path = store(tmp_path / "data.npz", arrays() | {"mask": bits})
    assert not read(path, mask="mask", mask_bits=[15]).observed[0, 0]
    assert read(path, mask="mask", mask_bits=range(15)).observed[0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_bits": [1]}, r"mask_bits=\[1\] are bits of a mask: name it too, with mask="),
        ({"mask": "mask", "mask_bits": []}, r"numbers of bits, such as \[1, 5\], got \[\]"),
        ({"mask": "mask", "mask_bits": "1,5"}, "numbers of bits, .* got '1,5'"),
        ({"mask": "mask", "mask_bits": 5}, "list of numbers of bits, .* got 5"),
        ({"mask": "mask", "mask_bits": [-1]}, r"numbers of bits, .* got \[-1\]"),
        (
            {"mask": "mask", "mask_bits": [2, 64]},
            r"has the bits 0 to 15, got mask_bits=\[2, 64\]; give numbers",
        ),
        ({"mask": "flags", "mask_bits": [1]}, "'flags' of dtype bool has the bits 0 to 0"),
    ],
)
def test_bits_that_a_mask_has_not_are_refused(options, message, tmp_path):
    masks = {"mask": np.zeros((4, 6), np.int16), "flags": np.zeros((4, 6), bool)}
    path = store(tmp_path / "data.npz", arrays() | masks)
    with pytest.raises(ValueError, match=message):
        read(path, **options)


# Parts


def with_everything(path: Path) -> Path:
    """30 objects on 12 pixels: errors, bits of a mask, names, a table of metadata, wavelengths."""
    rng = np.random.default_rng(1)
    error = rng.uniform(0.1, 0.3, (30, 12))
    error[4, 5] = 0.0
    contents = {
        "flux": rng.normal(1.0, 0.1, (30, 12)),
        "flux_error": error,
        "wave_nm": 846.0 + 2.0 * np.arange(12.0),
        "ids": BIG_ID + np.arange(30)[::-1],
        "bits": rng.integers(0, 4, (30, 12)),
        "name": np.array([f"star {i}".encode() for i in range(30)]),
        "position": rng.normal(size=(30, 2)),
    }
    return store(path, contents)


PARTS = [
    ([7, 0, 3, 4], None),
    (np.array([-1, 4], np.int16), np.array([11, 0])),
    (slice(25, 3, -4), slice(10, None, -3)),
    (np.arange(30) % 7 == 4, np.arange(12) != 6),
    (None, [5]),
    ((29,), range(2, 7)),
    (np.uint8([4, 2]), slice(None)),
]


def of_axes(rows, pixels):
    return [(n, slice(None) if of is None else of) for n, of in ((30, rows), (12, pixels))]


@pytest.mark.parametrize(("rows", "pixels"), PARTS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_is_what_it_is_in_the_whole(rows, pixels, suffix, tmp_path):
    path = with_everything(tmp_path / f"data{suffix}")
    settings = {"mask": "bits", "mask_bits": [1], "dtype": "float64"}
    whole, part = read(path, **settings), read(path, rows=rows, pixels=pixels, **settings)
    i, j = (np.arange(n)[of if isinstance(of, slice) else np.asarray(of)] for n, of in of_axes(rows, pixels))
    assert part.shape == (len(i), len(j)) and part.observed.any()
    np.testing.assert_array_equal(part.flux * part.unit, whole.flux[i][:, j] * whole.unit)
    np.testing.assert_array_equal(part.ivar / part.unit**2, whole.ivar[i][:, j] / whole.unit**2)
    np.testing.assert_array_equal(part.grid, whole.grid[j])
    np.testing.assert_array_equal(part.ids, whole.ids[i])
    np.testing.assert_array_equal(part.n_observed, whole.observed[i][:, j].sum(1))
    assert set(part.meta) == set(whole.meta) == {"name", "position"}
    for name, column in part.meta.items():
        np.testing.assert_array_equal(column, whole.meta[name][i])
    assert (part.labels.grid_name, part.labels.flux_name) == ("wavelength [nm]", "flux")
    assert part.census.observed == part.observed.sum()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_keeps_its_unit_in_parts(suffix, tmp_path):
    data = dataset(**arrays(scale=1e-17), grid=np.arange(6.0) ** 2, ids=["a", "b", "c", "d"], grid_name="v")
    part = read(write(data, tmp_path / f"data{suffix}"), rows=[3, 0], pixels=[4, 1])
    assert part.unit == data.unit and part.labels.grid_name == "v"
    np.testing.assert_array_equal(part.flux, data.flux[[3, 0]][:, [4, 1]])
    np.testing.assert_array_equal(part.ivar, data.ivar[[3, 0]][:, [4, 1]])
    assert part.ids.tolist() == ["d", "a"] and part.grid.tolist() == [16.0, 1.0]


def test_without_grid_and_ids_parts_are_numbered_as_the_whole(tmp_path):
    part = read(store(tmp_path / "data.h5", arrays()), rows=[3, 1], pixels=slice(2, 4))
    assert part.ids.tolist() == [3, 1] and part.grid.tolist() == [2.0, 3.0]
    assert part.labels.grid_name == "pixel"


def test_contradictions_elsewhere_are_not_told(tmp_path):
    values = arrays()
    values["ivar"][3, 0] = -1.0
    path = store(tmp_path / "data.h5", values)
    read(path, rows=[0, 1])
    read(path, pixels=[1, 2])
    with pytest.warns(DataWarning, match="1 cells with a negative ivar"):
        read(path, rows=[3, 0])


@pytest.mark.parametrize("role", ["rows", "pixels"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_that_are_none_are_refused(role, suffix, tmp_path):
    path = with_everything(tmp_path / f"data{suffix}")
    none = [[], (), slice(3, 3), np.zeros(0, int), np.zeros(30 if role == "rows" else 12, bool)]
    odd = [[1.5], "abc", 3, [[1, 2]], np.zeros((30, 12), bool), np.ones((30, 12), bool)]
    for of in none + odd:
        with pytest.raises(
            ValueError, match=f"{role} must be indices, a mask or a slice that selects some of"
        ):
            read(path, **{role: of})
    for of in ([30], [-31], np.ones(5, bool)):
        with pytest.raises(IndexError):
            read(path, **{role: of})
    with pytest.raises(ValueError, match="ids must be unique"):
        read(path, rows=[3, 3])


def test_big_endian_arrays(tmp_path):
    values = arrays() | {"ids": BIG_ID + np.arange(4), "wave": np.linspace(1, 2, 6)}
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in values.items()}
    little = read(store(tmp_path / "little.npz", values))
    for suffix in SUFFIXES:
        big = read(store(tmp_path / f"big{suffix}", swapped))
        np.testing.assert_array_equal(big.flux, little.flux)
        np.testing.assert_array_equal(big.ivar, little.ivar)
        np.testing.assert_array_equal(big.grid, little.grid)
        assert big.ids.tolist() == values["ids"].tolist()


# FITS


@pytest.fixture
def survey(tmp_path):
    """A FITS survey: images by EXTNAME, a table of objects."""
    fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the extra robusta-prob[astropy]")
    values = arrays()
    names = np.array(["a", "bb", "c c", ""])
    columns = [
        fits.Column("SOURCE_ID", "K", array=BIG_ID + np.arange(4)),
        fits.Column("NAME", "8A", array=names),
        fits.Column("Z", "E", array=np.arange(4.0)),
    ]
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(values[name], name=name.upper()) for name in values)]
    hdus += [
        fits.ImageHDU(np.linspace(360, 980, 6), name="WAVELENGTH"),
        fits.BinTableHDU.from_columns(columns),
    ]
    hdus[1].header["BUNIT"], hdus[3].header["BUNIT"] = "1e-17 erg/s/cm2/Angstrom", "nm"
    fits.HDUList(hdus).writeto(tmp_path / "survey.fits")
    fits.HDUList(hdus).writeto(tmp_path / "survey.fits.gz")
    return tmp_path / "survey.fits", values


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fits_images_and_table(survey, suffix):
    path, values = survey
    data, expected = read(f"{path}{suffix}"), dataset(**values)
    np.testing.assert_array_equal(data.flux, expected.flux)
    np.testing.assert_array_equal(data.ivar, expected.ivar)
    np.testing.assert_array_equal(data.grid, np.linspace(360, 980, 6))
    assert data.ids.tolist() == (BIG_ID + np.arange(4)).tolist()
    assert {name: column.tolist() for name, column in data.meta.items()} == {
        "NAME": ["a", "bb", "c c", ""],
        "Z": [0, 1, 2, 3],
    }
    assert all(array.dtype.isnative for array in (data.grid, data.ids, *data.meta.values()))
    assert data.labels.grid_name == "wavelength [nm]"
    assert data.labels.flux_name == "flux [1e-17 erg/s/cm2/Angstrom]"


def test_fits_spectra_in_a_table(tmp_path):
    fits = pytest.importorskip("astropy.io.fits", reason="FITS needs the extra robusta-prob[astropy]")
    values = arrays()
    columns = [fits.Column(name, "6D", array=array, unit="Jy") for name, array in values.items()]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "table.fits")
    data = read(tmp_path / "table.fits")
    np.testing.assert_array_equal(data.flux, dataset(**values).flux)
    assert data.labels.flux_name == "flux [Jy]"


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_fits_cut_short(survey, keep):
    path, _ = survey
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match=r"(?s)is not a whole FITS file \(.*\); copy or make it again"):
        read(path)


def test_fits_that_is_text(tmp_path):
    pytest.importorskip("astropy", reason="FITS needs the extra robusta-prob[astropy]")
    (tmp_path / "text.fits").write_text("hello" * 1000)
    with pytest.raises(ValueError, match=r"text\.fits is not a whole FITS file"):
        read(tmp_path / "text.fits")


def test_fits_without_astropy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "astropy.io", None)
    with pytest.raises(
        ImportError, match=r"reading FITS needs astropy: pip install 'robusta-prob\[astropy\]'"
    ):
        read(tmp_path / "survey.fits")


# Real files


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real spectra are not shipped; put them into {REAL}")
@pytest.mark.parametrize(
    ("name", "shape", "grid_name", "column"),
    [
        ("spex_prism", (1776, 448), "wavelength [um]", "source_key"),
        ("rm017_R_exposures", (567, 1225), "log10 wavelength [Angstrom]", "mjd"),
        ("rm017_B_exposures", (567, 1175), "log10 wavelength [Angstrom]", "mjd"),
    ],
)
def test_real_files(name, shape, grid_name, column, tmp_path):
    path = REAL / f"{name}.npz"
    data = read(path)
    assert data.shape == shape
    assert data.labels.grid_name == grid_name
    with np.load(path, allow_pickle=False) as raw:
        assert data.census.missing == int((raw["ivar"] <= 0).sum())
        np.testing.assert_array_equal(data.meta[column], raw[column])
        np.testing.assert_array_equal((data.flux * data.unit)[data.observed], raw["flux"][data.observed])
        if "mask_or" in raw.files:
            masked = read(path, mask="mask_or")
            np.testing.assert_array_equal(masked.observed, (raw["ivar"] > 0) & (raw["mask_or"] == 0))
    part = data.take(slice(0, None, 50))
    assert_same(read(write(part, tmp_path / "part.h5")), part)
