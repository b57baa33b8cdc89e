"""Data that stay on disk are the same data, and give the same numbers, as those in memory."""

import dataclasses
import gc
import tracemalloc

import h5py
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob import stored
from robusta_prob.inference.blocks import Blocks
from robusta_prob.simulate import low_rank


@pytest.fixture(scope="module")
def survey():
    return low_rank(400, 40, 2, missing=0.1, seed=0).data


@pytest.fixture(scope="module")
def path(survey, tmp_path_factory):
    return rp.write(survey, tmp_path_factory.mktemp("stored") / "survey.h5")


@pytest.fixture
def on_disk(path):
    return rp.read(path, in_memory=False)


@pytest.fixture(autouse=True)
def _small_reads(monkeypatch):
    """So that these small surveys are read in many blocks."""
    monkeypatch.setattr(stored, "ROWS", 64)
    monkeypatch.setattr("robusta_prob.inference.blocks.BATCH_ROWS", 128)


def same(one, other):
    return np.array_equal(one.flux, other.flux) and np.array_equal(one.ivar, other.ivar)


def test_the_data_are_those_in_memory(survey, on_disk):
    assert isinstance(on_disk, rp.Dataset) and on_disk.load() is not on_disk and survey.load() is survey
    assert same(on_disk.load(), survey) and on_disk.census == survey.census
    assert on_disk.unit == survey.unit and on_disk.shape == survey.shape
    np.testing.assert_array_equal(on_disk.n_observed, survey.n_observed)
    np.testing.assert_array_equal(on_disk.ids, survey.ids)
    few = np.arange(400) < 3
    for key in (5, -1, slice(3, 200, 7), [9, 2, 2], (slice(None), 3), (slice(10), slice(2, 5)), few, ...):
        np.testing.assert_array_equal(on_disk.flux[key], survey.flux[key])
    for key in (([9, 2], 3), (few, slice(2, 5)), (slice(10), [3, 4]), (7, [3, 4]), (7, 3)):
        np.testing.assert_array_equal(on_disk.flux[key], survey.flux[key])
    assert on_disk.flux[slice(0, 0)].shape == (0, 40)
    assert "on disk" in repr(on_disk.flux)


def test_cells_that_are_nowhere_near_each_other_are_refused(on_disk):
    """Where NumPy gives two cells, or four by `np.ix_`: which was meant must be said."""
    for key in (([1, 2], [3, 4]), np.ix_([1, 2], [3, 4]), np.array([[1, 2], [3, 4]]), None):
        with pytest.raises(IndexError, match="index the rows alone"):
            on_disk.flux[key]


def test_parts_are_read_in_the_order_of_the_file_and_given_in_that_asked_for(survey, on_disk, monkeypatch):
    rows = np.random.default_rng(0).permutation(400)[:150]
    reads = []
    fetch = on_disk.source.fetch
    monkeypatch.setattr(stored, "GAP", 3)

    def told(rows):
        reads.append(rows)
        return fetch(rows)

    source = dataclasses.replace(on_disk.source, fetch=told)
    flux, _ = source.take(rows).read(slice(0, 150))
    np.testing.assert_array_equal(flux, survey.flux[rows])
    starts = [read.start for read in reads]
    assert starts == sorted(starts) and len(starts) < 150
    part = on_disk.take(rows)
    assert same(part.load(), survey.take(rows)) and part.census == survey.take(rows).census
    assert same(part.take([3, 1]).load(), survey.take(rows).take([3, 1]))
    few = np.arange(40) < 5
    assert same(on_disk.without(few).load(), survey.without(few))
    np.testing.assert_array_equal(on_disk.count(~few), survey.count(~few))
    hidden = np.random.default_rng(1).random((400, 40)) < 0.2
    assert same(on_disk.hide(hidden), survey.hide(hidden))


def test_fit_projection_and_scores_are_the_same(survey, on_disk):
    fit = rp.fit(survey, 2)
    again = rp.fit(on_disk, 2)
    np.testing.assert_array_equal(again.basis, fit.basis)
    np.testing.assert_array_equal(again.coefficients, fit.coefficients)
    assert again.noise == fit.noise and again.status == fit.status
    one, other = rp.project(fit, survey), rp.project(fit, on_disk)
    np.testing.assert_array_equal(one.coefficients, other.coefficients)
    one, other = rp.surprise(fit, survey).object, rp.surprise(fit, on_disk).object
    for name in ("p_value", "p_run", "mahalanobis", "kind", "in_training"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(rp.robust_weights(fit, survey), rp.robust_weights(fit, on_disk))


def test_recovery_reads_the_objects_that_it_needs(survey, tmp_path, monkeypatch):
    """Some have few pixels, and one pixel is in none of them: their counts must not be made of all ivar."""
    ivar = np.array(survey.ivar / survey.unit**2)
    ivar[200:, 10:] = 0
    ivar[:, 7] = 0
    for name, number in (("TOTAL", 400), ("PILOT", 100), ("PILOTS", 1)):  # as many replicates as will do here
        monkeypatch.setattr(f"robusta_prob.scoring.replicates.{name}", number)
    data = rp.dataset(survey.flux * survey.unit, ivar)
    fit = rp.fit(data, 2, starts=1)
    on_disk = rp.read(rp.write(data, tmp_path / "sparse.h5"), in_memory=False)
    scores = rp.surprise(fit, data)
    sizes = []
    read = stored.Stored.__getitem__
    monkeypatch.setattr(
        stored.Stored, "__getitem__", lambda side, key: sizes.append(len(side)) or read(side, key)
    )
    kinds = {"scaled noise": [3.0]}
    one, other = (rp.recovery(fit, x, kinds, key=0, per_amplitude=16, scores=scores) for x in (data, on_disk))
    np.testing.assert_array_equal(one.trials.p, other.trials.p)
    assert not sizes  # blocks are read, and objects loaded, in one request for both sides
    one, other = (rp.inject(x, "scaled noise", 2.0, key=0, rows=[1, 300]).data for x in (data, on_disk))
    assert isinstance(other.ivar, np.ndarray) and same(one, other)


def test_errors_and_masks_are_read_as_they_are_in_memory(survey, tmp_path):
    path = tmp_path / "errors.h5"
    mask = np.random.default_rng(0).integers(0, 4, survey.shape)
    with h5py.File(path, "w") as file:
        file["flux"] = np.where(survey.observed, survey.flux * survey.unit, np.inf)
        file["flux_error"] = np.where(
            survey.observed, survey.unit / np.sqrt(np.maximum(survey.ivar, 1e-9)), 1.0
        )
        file["bits"] = mask
        file["names"] = [f"star {i}" for i in range(400)]
    settings = {"mask": "bits", "mask_bits": [1]}
    match = "non-finite flux under a positive ivar"
    with pytest.warns(rp.DataWarning, match=match):
        one = rp.read(path, **settings)
    with pytest.warns(rp.DataWarning, match=match):
        other = rp.read(path, in_memory=False, **settings)
    assert same(other.load(), one) and other.census == one.census
    np.testing.assert_array_equal(other.meta["names"], one.meta["names"])


def test_only_what_is_looked_at_is_in_memory(tmp_path):
    """4000 x 1000 in float32: 32 MB of flux and ivar, and a pass over them in a few of them."""
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        for name in ("flux", "ivar"):
            file.create_dataset(name, data=np.ones((4000, 1000), np.float32), chunks=(50, 1000))
    data = rp.read(path, in_memory=False)
    tracemalloc.start()
    assert sum(1 for _ in data.blocks(64)) == 63
    blocks = Blocks.of(data, data.unit, 64)
    assert not blocks.at_hand and sum(block.rows for block in blocks) == sum(blocks.rows) == 4000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6


def test_the_file_is_open_as_long_as_it_is_needed(path):
    data = rp.read(path, in_memory=False)
    part = data.take([1, 2])
    del data
    gc.collect()
    assert part.flux[0].shape == (40,)
    del part
    gc.collect()
    with h5py.File(path, "a"):  # which a file that is open for reading refuses
        pass


def test_what_cannot_stay_on_disk_is_refused(survey, tmp_path):
    path = rp.write(survey, tmp_path / "survey.npz")
    with pytest.raises(ValueError, match="only HDF5 files can stay on disk"):
        rp.read(path, in_memory=False)
    with h5py.File(tmp_path / "twice.h5", "w") as file:
        file["flux"], file["ivar"] = np.ones((3, 4)), np.ones((3, 4))
        file["ids"] = [1, 1, 2]
    with pytest.warns(rp.DataWarning, match="cannot serve as ids"):
        assert list(rp.read(tmp_path / "twice.h5", in_memory=False).ids) == [0, 1, 2]


# Parts of a file


@pytest.fixture
def asked(monkeypatch):
    """Rows of flux and of ivar that h5py was asked for."""
    rows = {"/flux": [], "/ivar": []}
    read = h5py.Dataset.__getitem__

    def noted(self, key, *rest):
        if self.name in rows:
            (index,) = key if isinstance(key, tuple) else (key,)
            rows[self.name] += range(self.shape[0])[index]
        return read(self, key, *rest)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", noted)
    return rows


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "rows", [slice(120, 200), np.array([390, 7, 9, 201]), np.arange(400) % 100 == 3, [399]]
)
def test_other_objects_are_not_read(path, survey, asked, rows, in_memory):
    part = rp.read(path, rows=rows, pixels=[3, 1, 30], in_memory=in_memory)
    wanted = np.arange(400)[rows]
    np.testing.assert_array_equal(part.load().flux, survey.flux[rows][:, [3, 1, 30]])
    for read in asked.values():
        far = np.abs(np.subtract.outer(np.unique(read), wanted)).min(1)
        assert set(wanted) <= set(read) and far.max() < stored.GAP
        if np.diff(np.sort(wanted)).max(initial=99) > stored.GAP:
            assert set(read) - set(wanted) <= {8}  # between 7 and 9, which one read brings


@pytest.mark.parametrize("pixels", [None, slice(30, 3, -2), np.arange(40) % 3 == 0, [5]])
@pytest.mark.parametrize("rows", [None, slice(350, None, -3), np.arange(400) % 2 == 1])
def test_a_part_on_disk_is_that_in_memory(path, survey, rows, pixels):
    part = rp.read(path, rows=rows, pixels=pixels, in_memory=False)
    there = rp.read(path, rows=rows, pixels=pixels)
    i, j = (slice(None) if of is None else of for of in (rows, pixels))
    np.testing.assert_array_equal(there.flux, survey.flux[i][:, j])
    np.testing.assert_array_equal(there.ivar, survey.ivar[i][:, j])
    for one in (part, part.load()):
        assert same(one, there) and one.census == there.census and one.unit == survey.unit
        np.testing.assert_array_equal(one.grid, survey.grid[j])
        np.testing.assert_array_equal(one.ids, survey.ids[i])
        np.testing.assert_array_equal(one.n_observed, survey.observed[i][:, j].sum(1))
    few = [5, 0, 17]
    assert same(part.take(few).load(), there.take(few)) and same(part.take(few).take([2]), there.take([17]))
    hidden = np.arange(part.shape[1]) % 2 == 0
    assert same(part.without(hidden), there.without(hidden))


def test_a_fit_to_a_part_on_disk_is_that_to_the_part(path, survey):
    rows, pixels = np.arange(400)[::-2], np.arange(2, 38)
    part = rp.read(path, rows=rows, pixels=pixels, in_memory=False)
    flux, ivar = survey.flux[rows][:, pixels] * survey.unit, survey.ivar[rows][:, pixels] / survey.unit**2
    data = rp.dataset(flux, ivar, grid=survey.grid[pixels], ids=survey.ids[rows], unit=survey.unit)
    one, other = (rp.fit(x, 2, starts=1) for x in (data, part))
    np.testing.assert_array_equal(one.basis, other.basis)
    np.testing.assert_array_equal(
        rp.surprise(one, data).object.p_value, rp.surprise(other, part).object.p_value
    )


def test_columns_and_grid_are_added_without_reading(on_disk, survey, asked):
    data = on_disk.with_meta(teff=np.arange(400.0)).with_grid(
        np.geomspace(400.0, 700.0, 40), "wavelength [nm]"
    )
    assert type(data) is type(on_disk) and data.flux is on_disk.flux and not any(asked.values())
    assert data.take([7, 3]).meta["teff"].tolist() == [7.0, 3.0]
    loaded = data.load()
    assert same(loaded, survey) and loaded.labels.grid_name == "wavelength [nm]"
    assert loaded.grid[-1] == pytest.approx(700.0) and "teff" not in on_disk.meta
    assert loaded.census == survey.census


@pytest.mark.parametrize("rows", [[], np.zeros(400, bool), np.zeros((400, 40), bool)])
def test_no_part_of_a_file_on_disk_is_refused_and_closes_it(path, rows):
    with pytest.raises(ValueError, match="rows must be indices, a mask or a slice that selects some of 400"):
        rp.read(path, rows=rows, in_memory=False)
    gc.collect()
    with h5py.File(path, "a"):
        pass
