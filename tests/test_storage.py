"""A fit on disk: the same back again, and clear words about files that are none."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import h5py
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import storage
from robusta_prob.inference.results import in_training


@pytest.fixture(scope="module")
def fit():
    data = rp.simulate.low_rank(150, 40, 2, seed=0).data
    ids = np.arange(150) + 1363284299777747584  # beyond float64's and int32's integers
    data = rp.dataset(data.flux, data.ivar, ids=ids, grid_name="wavelength [nm]")
    return rp.fit(data, 2, noise=rp.Noise(3.0, None, 0.0))


def _same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple) and not hasattr(a, "_fields"):
        return len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "_fields"):
        return type(a) is type(b) and all(map(_same, a, b))
    if isinstance(a, Mapping):
        return dict(a) == dict(b)
    return a == b and type(a) is type(b)


def test_what_is_saved_is_what_is_loaded(fit, tmp_path):
    rp.save(fit, tmp_path / "fit.h5")
    again = rp.load(tmp_path / "fit.h5")
    for field in dataclasses.fields(rp.Fit):
        assert _same(getattr(fit, field.name), getattr(again, field.name)), field.name


def test_string_ids_survive(fit, tmp_path):
    named = dataclasses.replace(fit, ids=np.array([f"star {i} \u03b1" for i in range(150)]))
    rp.save(named, tmp_path / "fit.h5")
    assert np.array_equal(rp.load(tmp_path / "fit.h5").ids, named.ids)


def test_objects_with_ids_of_bytes_are_known_again(tmp_path):
    data = rp.simulate.low_rank(150, 40, 2, seed=0).data
    ids = np.array([f"star {i}" for i in range(150)], "S")
    data = rp.dataset(data.flux, data.ivar, ids=ids)
    rp.save(rp.fit(data, 2, noise=rp.Noise(3.0, 1.0, 0.0), max_epochs=3), tmp_path / "fit.h5")
    assert in_training(rp.load(tmp_path / "fit.h5"), data).all()


def test_a_loaded_fit_cannot_be_changed(fit, tmp_path):
    rp.save(fit, tmp_path / "fit.h5")
    again = rp.load(tmp_path / "fit.h5")
    arrays = [value for value in vars(again).values() if isinstance(value, np.ndarray)]
    assert len(arrays) >= 9
    for array in (*arrays, *again.population):
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[...] = array
    assert type(again.config) is MappingProxyType
    with pytest.raises(TypeError, match="does not support item assignment"):
        again.config["rank"] = 3
    rp.save(again, tmp_path / "again.h5")
    assert dict(rp.load(tmp_path / "again.h5").config) == dict(fit.config)


def test_numbers_of_numpy_in_the_configuration_stay_numbers(fit, tmp_path):
    config = {**fit.config, "rank": np.int64(2), "tol": np.float32(0.5), "max_epochs": np.inf}
    rp.save(dataclasses.replace(fit, config=config), tmp_path / "fit.h5")
    again = rp.load(tmp_path / "fit.h5").config
    assert {name: again[name] for name in ("rank", "tol", "max_epochs")} == {
        "rank": 2,
        "tol": 0.5,
        "max_epochs": np.inf,
    }


def test_a_field_that_is_not_stored_is_an_error(fit, tmp_path, monkeypatch):
    rp.save(fit, tmp_path / "fit.h5")
    monkeypatch.setattr(storage, "_SCALARS", tuple(x for x in storage._SCALARS if x != "flux_name"))
    with pytest.raises(ValueError, match=r"incomplete or damaged .* differ in \['flux_name'\]"):
        rp.load(tmp_path / "fit.h5")


@pytest.mark.parametrize("attribute", ["version", "unit", "config"])
def test_a_missing_attribute_is_damage(fit, tmp_path, attribute):
    rp.save(fit, tmp_path / "fit.h5")
    with h5py.File(tmp_path / "fit.h5", "a") as file:
        del file.attrs[attribute]
    with pytest.raises(ValueError, match="incomplete or damaged"):
        rp.load(tmp_path / "fit.h5")


def test_a_failed_save_leaves_the_old_file_and_no_other(fit, tmp_path):
    rp.save(fit, tmp_path / "fit.h5")
    broken = dataclasses.replace(fit, basis=np.array([object()]))
    with pytest.raises(TypeError):
        rp.save(broken, tmp_path / "fit.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["fit.h5"]
    assert rp.load(tmp_path / "fit.h5").rank == 2


def test_files_that_are_no_fit_are_refused_with_the_reason(fit, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5"):
        rp.load(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match="HDF5"):
        rp.load(tmp_path / "text.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(ValueError, match="empty"):
        rp.load(tmp_path / "empty.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["flux"] = np.ones(3)
    with pytest.raises(ValueError, match="not a fit of robusta_prob"):
        rp.load(tmp_path / "foreign.h5")

    rp.save(fit, tmp_path / "fit.h5")
    whole = (tmp_path / "fit.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"truncated|incomplete|damaged"):
        rp.load(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "fit.h5", "a") as file:
        del file["basis"]
    with pytest.raises(ValueError, match="incomplete or damaged"):
        rp.load(tmp_path / "fit.h5")
    with h5py.File(tmp_path / "fit.h5", "a") as file:
        file.attrs["version"] = 99
    with pytest.raises(ValueError, match="newer than 2"):
        rp.load(tmp_path / "fit.h5")


def test_a_damaged_fit_is_refused(fit, tmp_path):
    path = tmp_path / "fit.h5"
    rp.save(fit, path)
    whole = bytearray(path.read_bytes())
    place = whole.find(fit.coefficients[75].tobytes())
    assert place > 0
    whole[place : place + 8] = b"\xff" * 8
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged"):
        rp.load(path)
