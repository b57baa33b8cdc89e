"""What the data are: one validation, exact units, holes, and a host side that JAX never touches."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robusta_prob import validate
from robusta_prob.data import Dataset, DataWarning, dataset
from robusta_prob.partition import split
from robusta_prob.validate import check_ids

BIG_ID = 1363284299777747584  # a Gaia source id; 32-bit JAX would make it 2009728


def make(n: int = 7, m: int = 5, seed: int = 0, **options) -> Dataset:
    """Values that float32 holds exactly, a hole in every row, an empty row and an empty column."""
    rng = np.random.default_rng(seed)
    flux = rng.normal(1, 0.2, (n, m)).astype(np.float32)
    ivar = rng.uniform(1, 100, (n, m)).astype(np.float32)
    ivar[np.arange(n), rng.integers(0, m - 1, n)] = 0
    ivar[2] = ivar[:, m - 1] = 0
    meta = {"index": np.arange(n), "name": np.array([f"star {i}" for i in range(n)])}
    return dataset(flux, ivar, ids=BIG_ID + np.arange(n), meta=meta, **options)


def in_user_units(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(data.flux, float) * data.unit, np.asarray(data.ivar, float) / data.unit**2


# Units


@pytest.mark.parametrize("flux_scale", [1e-17, 1.0, 3e12])
def test_values_survive_exactly_in_any_unit(flux_scale):
    rng = np.random.default_rng(1)
    flux = rng.normal(flux_scale, 0.3 * flux_scale, (20, 30)).astype(np.float32).astype(float)
    ivar = rng.uniform(1, 2, (20, 30)).astype(np.float32) * 2.0 ** np.round(-2 * np.log2(0.01 * flux_scale))
    data = dataset(flux, ivar)
    assert np.frexp(data.unit)[0] == 0.5, "the unit must be a power of two"
    assert data.dtype == np.float32
    back_flux, back_ivar = in_user_units(data)
    np.testing.assert_array_equal(back_flux, flux)
    np.testing.assert_array_equal(back_ivar, ivar)


def test_leaves_do_not_depend_on_the_user_unit():
    rng = np.random.default_rng(2)
    flux, ivar = rng.normal(1, 0.2, (6, 4)), rng.uniform(1, 9, (6, 4))
    near, far = dataset(flux, ivar), dataset(flux * 2.0**-57, ivar * 2.0**114)
    np.testing.assert_array_equal(near.flux, far.flux)
    np.testing.assert_array_equal(near.ivar, far.ivar)
    assert far.unit == near.unit * 2.0**-57


def test_unit_ignores_missing_cells():
    flux, ivar = np.ones((4, 4)), np.ones((4, 4))
    flux[:3], ivar[:3] = 1e30, 0
    assert dataset(flux, ivar).unit == 1.0


def test_values_beyond_float32_ask_for_float64():
    flux, ivar = np.ones((3, 4)), np.ones((3, 4))
    flux[0, 0] = 1e39
    with pytest.raises(ValueError, match=r"overflows float32; pass dtype='float64'"):
        dataset(flux, ivar)
    assert in_user_units(dataset(flux, ivar, dtype="float64"))[0][0, 0] == 1e39
    flux[0, 0] = 1e300
    with pytest.raises(ValueError, match="overflows float64; choose another unit, or set ivar = 0 there"):
        dataset(flux, ivar * 1e-20, unit=2.0**-500, dtype="float64")
    ivar[1, 1] = 1e-39
    with pytest.raises(ValueError, match=r"underflows float32 in observed cells; pass dtype='float64'"):
        dataset(np.ones((3, 4)), ivar)


@pytest.mark.parametrize("unit", [2.0**-30, 1, 4.0, 2.0**40])
def test_a_given_unit_is_used(unit):
    data, automatic = make(unit=unit), make()
    assert data.unit == unit
    assert isinstance(data.unit, float)
    for given, usual in zip(in_user_units(data), in_user_units(automatic), strict=True):
        np.testing.assert_array_equal(given, usual)


@pytest.mark.parametrize("unit", [0.0, -2.0, 3.0, 0.1, np.inf, np.nan, 2.0**600, 2.0**-512])
def test_a_unit_is_a_power_of_two_that_can_be_squared(unit):
    with pytest.raises(ValueError, match=r"unit must be a positive power of two, from .*, got"):
        make(unit=unit)
    with pytest.raises(ValueError, match="unit must be a positive power of two"):
        make().blocks(3, unit)


def test_a_given_unit_may_be_out_of_range():
    with pytest.raises(ValueError, match=r"overflows float32; pass dtype='float64'"):
        make(unit=2.0**-140)
    with pytest.raises(ValueError, match=r"underflows float32 in observed cells; pass dtype='float64'"):
        make(unit=2.0**-70)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", ["1e160", "1e-170"])
def test_fluxes_that_cannot_be_squared_must_be_rescaled(size, dtype):
    flux = np.full((3, 4), float(size))
    with pytest.raises(
        ValueError, match=f"flux is about {size}, .* rescale the flux: divide it .* by {size} "
    ):
        dataset(flux, np.ones((3, 4)), dtype=dtype)
    assert dataset(flux / float(size), np.ones((3, 4)), dtype=dtype).unit == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_fluxes_that_can_be_squared(dtype):
    for exponent in (511, -511):
        data = dataset(np.full((2, 2), 2.0**exponent), np.full((2, 2), 2.0 ** (-2 * exponent)), dtype=dtype)
        assert data.unit == 2.0**exponent
        assert (data.flux == 1).all()
        assert (data.ivar == 1).all()


def test_rows_are_validated_in_blocks(monkeypatch):
    whole = make(20)
    monkeypatch.setattr(validate, "_ROWS_AT_ONCE", 3)
    parts = make(20, unit=whole.unit)
    np.testing.assert_array_equal(parts.flux, whole.flux)
    np.testing.assert_array_equal(parts.ivar, whole.ivar)
    assert parts.census == whole.census


# Holes and contradictions


@pytest.mark.parametrize(("flux_hole", "ivar_hole"), [(np.nan, 0), (np.nan, np.nan), (1.0, 0), (np.inf, 0)])
def test_declared_holes_are_silent_zeros(flux_hole, ivar_hole):
    flux, ivar = np.full((3, 4), 2.0), np.full((3, 4), 4.0)
    flux[1, 2], ivar[1, 2] = flux_hole, ivar_hole
    data = dataset(flux, ivar)  # any warning is an error here
    assert data.flux[1, 2] == data.ivar[1, 2] == 0
    assert data.census == (11, 1, 0, 0, 0, 0, 0)
    np.testing.assert_array_equal(data.observed, ivar > 0)


@pytest.mark.parametrize(
    ("flux_cell", "ivar_cell", "field", "message"),
    [
        (np.nan, 4.0, "flux_not_finite", "2 cells with a non-finite flux under a positive ivar"),
        (-np.inf, 4.0, "flux_not_finite", "2 cells with a non-finite flux under a positive ivar"),
        (2.0, -4.0, "ivar_negative", "2 cells with a negative ivar"),
        (2.0, np.inf, "ivar_not_finite", "2 cells with a non-finite ivar"),
        (2.0, -np.inf, "ivar_not_finite", "2 cells with a non-finite ivar"),
        (np.nan, -np.inf, "ivar_not_finite", "2 cells with a non-finite ivar"),
        (2.0, np.nan, "ivar_not_finite", "2 cells with a non-finite ivar"),
    ],
)
def test_contradictions_are_counted_and_told(flux_cell, ivar_cell, field, message):
    flux, ivar = np.full((3, 4), 2.0), np.full((3, 4), 4.0)
    flux[1, 1:3], ivar[1, 1:3] = flux_cell, ivar_cell
    with pytest.warns(DataWarning, match=message) as caught:
        data = dataset(flux, ivar)
    assert len(caught) == 1
    assert caught[0].filename == __file__, "the warning must point at the caller"
    assert getattr(data.census, field) == data.census.missing == 2
    assert sum(data.census[2:5]) == 2
    assert not data.flux[1, 1:3].any()
    assert not data.ivar[1, 1:3].any()


def test_empty_objects_and_pixels_are_kept_and_counted():
    data = make()
    assert data.shape == (7, 5)
    assert (data.census.empty_objects, data.census.empty_pixels) == (1, 1)
    assert data.census.observed + data.census.missing == 35
    assert "1 objects without data; 1 pixels without data" in str(data.census)


def test_nothing_observed_is_still_a_dataset():
    data = dataset(np.full((2, 3), np.nan), np.zeros((2, 3)))
    assert data.unit == 1.0
    assert data.census == (0, 6, 0, 0, 0, 2, 3)


@pytest.mark.parametrize("masked", [{"flux"}, {"ivar"}, {"flux", "ivar"}])
@pytest.mark.parametrize("beneath", [7, -7])
def test_a_cell_that_is_masked_in_either_array_is_missing_without_a_warning(masked, beneath):
    hidden = np.zeros((3, 4), bool)
    hidden[0, 1] = hidden[2, 3] = True
    arrays = {name: np.where(hidden, beneath, 7) for name in ("flux", "ivar")}  # integers have no NaN
    given = {name: np.ma.array(array, mask=hidden) for name, array in arrays.items()}
    given |= {name: np.full((3, 4), 7) for name in given.keys() - masked}
    data = dataset(**given)
    np.testing.assert_array_equal(data.observed, ~hidden)
    np.testing.assert_array_equal(in_user_units(data)[0], np.where(hidden, 0, 7))
    assert data.census == (10, 2, 0, 0, 0, 0, 0)


def test_masks_of_flux_and_ivar_add_up():
    flux, ivar = np.ma.ones((3, 4)), np.ma.ones((3, 4))
    flux[0, 0] = ivar[1, 1] = np.ma.masked
    flux.data[1, 1] = np.nan
    data = dataset(flux, ivar)
    assert np.argwhere(~data.observed).tolist() == [[0, 0], [1, 1]]
    assert dataset(np.ma.ones((3, 4)), np.ma.ones((3, 4))).census.missing == 0


# Types, shapes and bytes


@pytest.mark.parametrize("dtype", ["i2", ">i4", "u1", "f2", ">f4", ">f8", "<f8"])
def test_any_real_type_and_byte_order_gives_the_same_leaves(dtype):
    flux, ivar = np.arange(1, 13).reshape(3, 4), np.arange(4, 16).reshape(3, 4)
    data, plain = (
        dataset(flux.astype(dtype), ivar.astype(dtype)),
        dataset(flux.astype(float), ivar.astype(float)),
    )
    np.testing.assert_array_equal(data.flux, plain.flux)
    np.testing.assert_array_equal(data.ivar, plain.ivar)
    assert data.flux.dtype.isnative
    assert data.unit == plain.unit


@pytest.mark.parametrize("dtype", [complex, object, "U3", "M8[s]"])
@pytest.mark.parametrize("which", ["flux", "ivar"])
def test_other_types_are_refused(dtype, which):
    arrays = {"flux": np.ones((2, 3)), "ivar": np.ones((2, 3))}
    arrays[which] = np.zeros((2, 3)).astype(int).astype(dtype)
    with pytest.raises(TypeError, match=f"{which} must hold real numbers, got dtype"):
        dataset(**arrays)
    arrays[which] = np.ma.array(arrays[which], mask=[[True, False, False]] * 2)
    with pytest.raises(TypeError, match=f"{which} must hold real numbers, got dtype"):
        dataset(**arrays)


@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (4, 0), (2, 3, 4)])
def test_flux_must_be_a_nonempty_matrix(shape):
    with pytest.raises(ValueError, match="flux must be a non-empty matrix"):
        dataset(np.ones(shape), np.ones(shape))


@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (1, 4), (4, 3), (3, 4, 1)])
def test_ivar_never_broadcasts(shape):
    with pytest.raises(
        ValueError, match=r"shape of flux \(3, 4\), got .*np\.broadcast_to\(ivar, flux\.shape\)"
    ):
        dataset(np.ones((3, 4)), np.ones(shape))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "float16"}, ValueError, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({"grid": np.arange(3)}, ValueError, r"grid .* shape \(4,\), got shape \(3,\)"),
        ({"grid": [0, 1, np.nan, 3]}, ValueError, "grid must hold one finite coordinate"),
        ({"grid": np.arange(4) + 0j}, TypeError, "grid must hold real numbers, got dtype complex128"),
        ({"grid": np.ma.masked_equal([0, 1, 2, 3], 2)}, ValueError, "grid has 1 masked entries; fill them"),
        ({"ids": np.ma.masked_less([0, 1, 2], 2)}, ValueError, "ids has 2 masked entries"),
        ({"meta": {"snr": np.ma.masked_less([0, 1, 2], 1)}}, ValueError, r"meta\['snr'\] has 1 masked"),
        ({"meta": {"snr": np.ones(4)}}, ValueError, r"meta\['snr'\] must have one entry per object \(3\)"),
        ({"ids": [1, 2]}, ValueError, r"ids must have one entry per object, shape \(3,\)"),
        ({"ids": [5, 5, 6]}, ValueError, "ids must be unique, but 1 occur more than once, such as 5"),
        ({"ids": ["a", "b", "b"]}, ValueError, "such as b"),
        (
            {"ids": [1.0, 2.0, 3.0]},
            TypeError,
            r"integers or strings \(floats lose digits\), got dtype float64",
        ),
    ],
)
def test_bad_labels_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        dataset(np.ones((3, 4)), np.ones((3, 4)), **options)


def test_check_ids_gives_them_back_as_they_are():
    ids = BIG_ID + np.arange(3)
    assert check_ids(ids, 3) is ids
    assert check_ids(np.array(["b", "a"]), 2).tolist() == ["b", "a"]


@pytest.mark.parametrize("ids", [["b", "a", "\u03b1"], [b"b", b"a", "\u03b1".encode()]])
def test_ids_that_are_bytes_become_text(ids):
    data = dataset(np.ones((3, 4)), np.ones((3, 4)), ids=np.array(ids))
    assert data.ids.dtype.kind == "U"
    assert data.ids.tolist() == ["b", "a", "\u03b1"]
    assert check_ids(np.array([b"b", b"\xff"]), 2).tolist() == ["b", "\\xff"]


def test_frozen_is_a_private_read_only_row_major_copy():
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    copy = validate.frozen(values)
    values[:] = 9
    assert copy.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copy.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        copy[0, 0] = 5


def test_defaults_are_counts():
    data = dataset(np.ones((3, 4)), np.ones((3, 4)))
    assert data.ids.tolist() == [0, 1, 2]
    assert data.grid.tolist() == [0, 1, 2, 3]
    assert data.meta == {}
    assert (data.labels.grid_name, data.labels.flux_name) == ("pixel", "flux")


def test_leaves_are_private_aligned_and_read_only():
    flux, ivar = np.ones((3, 5), np.float32), np.ones((3, 5), np.float32)
    data = dataset(flux, ivar)
    flux[:], ivar[:] = 9, 9
    assert (data.flux == 1).all()
    assert (data.ivar == 1).all()
    for leaf in (data.flux, data.ivar):
        assert leaf.ctypes.data % 64 == 0
        with pytest.raises(ValueError, match="read-only"):
            leaf[0, 0] = 2


def test_labels_are_private_and_read_only():
    grid, ids, snr = np.arange(4.0), np.arange(3), np.arange(3.0)
    data = dataset(np.ones((3, 4)), np.ones((3, 4)), grid=grid, ids=ids, meta={"snr": snr})
    grid[:], ids[:], snr[:] = 9, 9, 9
    for some in (data, data.take([2, 0]), split(data)[0]):
        assert some.grid.tolist() == [0, 1, 2, 3]
        assert some.ids.tolist() == some.meta["snr"].tolist()
        for labels in (some.grid, some.ids, some.meta["snr"]):
            with pytest.raises(ValueError, match="read-only"):
                labels[0] = 5
        with pytest.raises(TypeError, match="does not support item assignment"):
            some.meta["snr"] = snr
    assert data.take([2, 0]).ids.tolist() == [2, 0]


def test_nothing_of_a_dataset_can_be_replaced():
    with pytest.raises(FrozenInstanceError):
        make().flux = np.ones((7, 5))
    with pytest.raises(FrozenInstanceError):
        make().labels.unit = 1.0


def test_a_dataset_can_be_sent_to_another_process():
    data = make()
    for copy in (pickle.loads(pickle.dumps(data)), deepcopy(data)):
        np.testing.assert_array_equal(copy.flux, data.flux)
        assert copy.ids.tolist() == data.ids.tolist()
        assert copy.meta["name"].tolist() == data.meta["name"].tolist()


def test_observed_pixels_of_each_object_are_counted_once(monkeypatch):
    monkeypatch.setattr(validate, "_ROWS_AT_ONCE", 3)
    data = make()
    for some in (data, data.take([5, 2, 0])):
        np.testing.assert_array_equal(some.n_observed, some.observed.sum(1))
        assert some.n_observed.sum() == some.census.observed
        assert some.n_observed is some.n_observed
        with pytest.raises(ValueError, match="read-only"):
            some.n_observed[0] = 5
    assert data.n_observed[2] == 0
    doubled = jax.tree_util.tree_map(lambda leaf: 2 * leaf, data)
    assert doubled.n_observed is data.n_observed


# Quantities


@pytest.fixture
def units():
    return pytest.importorskip("astropy.units", reason="needs the extra robusta-prob[astropy]")


def test_the_unit_of_ivar_follows_that_of_flux(units):
    flux, ivar = np.full((3, 4), 2.0), np.full((3, 4), 25.0)
    plain = dataset(flux, ivar)
    for given in (ivar / units.Jy**2, 1e-6 * ivar / units.mJy**2):
        data = dataset(flux * units.Jy, given, grid=np.arange(4) * units.nm)
        np.testing.assert_array_equal(data.flux, plain.flux)
        np.testing.assert_allclose(data.ivar, plain.ivar, rtol=1e-6)  # one rounding of float32
        assert data.unit == plain.unit
        assert (data.labels.flux_name, data.labels.grid_name) == ("flux [Jy]", "wavelength [nm]")
        assert data.grid.tolist() == [0, 1, 2, 3]
        assert type(data.flux) is type(data.grid) is np.ndarray


def test_names_and_units_of_quantities_are_independent(units):
    flux, ivar = np.ones((3, 4)) * units.one, np.ones((3, 4)) * units.one
    data = dataset(flux, ivar, grid_name="velocity [km/s]", grid=np.arange(4) * units.km / units.s)
    assert (data.labels.flux_name, data.labels.grid_name) == ("flux", "velocity [km/s]")
    data = dataset(np.ones((3, 4)), np.ones((3, 4)), grid=np.arange(4) * units.AA, flux_name="counts")
    assert (data.labels.flux_name, data.labels.grid_name) == ("counts", "wavelength [Angstrom]")


def test_conversion_of_a_float32_ivar_does_not_overflow(units):
    flux = np.ones((2, 3), np.float32) * units.Unit("erg / (s cm2 AA)") * np.float32(1e-17)
    ivar = np.full((2, 3), 4.0, np.float32) * units.Unit("1e-20 erg / (s cm2 AA)") ** -2  # 4e40 of flux^-2
    _, back = in_user_units(dataset(flux, ivar))
    np.testing.assert_allclose(back, 4e40, rtol=1e-6)


def test_a_masked_quantity_has_holes(units):
    masked = pytest.importorskip("astropy.utils.masked").Masked
    hidden = np.zeros((3, 4), bool)
    hidden[1, 2] = True
    flux, ivar = masked(np.ones((3, 4)) * units.Jy, mask=hidden), np.ones((3, 4)) * units.mJy**-2
    np.testing.assert_array_equal(dataset(flux, ivar).observed, ~hidden)
    flux, ivar = np.ones((3, 4)) * units.Jy, masked(ivar, mask=hidden)
    np.testing.assert_array_equal(dataset(flux, ivar).observed, ~hidden)


def test_an_ivar_in_the_unit_of_something_else_is_refused(units):
    ones = np.ones((3, 4))
    for unit, name in ((units.Jy, "Jy"), (units.nm**-2, r"1 / nm2")):
        with pytest.raises(ValueError, match=rf"unit of flux\*\*-2 = \(Jy\)\*\*-2, got ivar in {name}"):
            dataset(ones * units.Jy, ones * unit)


@pytest.mark.parametrize(("has", "lacks"), [("flux", "ivar"), ("ivar", "flux")])
def test_flux_and_ivar_have_units_both_or_neither(has, lacks):
    quantity = SimpleNamespace(unit="Jy", to_value=lambda unit: np.ones((3, 4)))
    with pytest.raises(ValueError, match=rf"{has} has a unit \(Jy\) and {lacks} has none: give {lacks} its"):
        dataset(**{has: quantity, lacks: np.ones((3, 4))})


# Parts


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [([5, 0], [5, 0]), (np.arange(7) % 3 == 1, [1, 4]), (slice(None, None, -3), [6, 3, 0]), ([-1], [6])],
)
def test_take_keeps_rows_and_labels_together(rows, chosen):
    data = make()
    part = data.take(rows)
    np.testing.assert_array_equal(part.flux, data.flux[chosen])
    np.testing.assert_array_equal(part.ivar, data.ivar[chosen])
    assert part.ids.tolist() == [BIG_ID + i for i in chosen]
    assert part.meta["index"].tolist() == chosen
    assert part.meta["name"].tolist() == [f"star {i}" for i in chosen]
    assert part.unit == data.unit
    assert part.census.observed == int((data.ivar[chosen] > 0).sum())
    assert part.census.empty_objects == 0
    for leaf in (part.flux, part.ivar):
        assert leaf.flags.c_contiguous
        assert leaf.ctypes.data % 64 == 0
        with pytest.raises(ValueError, match="read-only"):
            leaf[0, 0] = 2


@pytest.mark.parametrize("rows", [[], slice(3, 3), slice(9, 12), np.zeros(7, bool)])
def test_an_empty_selection_is_refused(rows):
    with pytest.raises(ValueError, match="the selection is empty: it takes none of the 7 objects"):
        make().take(rows)


def test_contradictions_are_of_the_input_and_not_of_its_parts():
    flux, ivar = np.ones((3, 4)), np.ones((3, 4))
    ivar[1, 1] = -1
    with pytest.warns(DataWarning, match="negative"):
        data = dataset(flux, ivar)
    assert data.census.ivar_negative == 1
    assert data.take([1]).census == (3, 1, 0, 0, 0, 0, 1)


# Further labels


def test_columns_come_beside_or_instead_of_those_that_are_there():
    data = make()
    mine = np.arange(7.0)
    more = data.with_meta(teff=mine, name=np.array(list("abcdefg")), spectrum=np.zeros((7, 3)))
    assert list(more.meta) == ["index", "name", "teff", "spectrum"] and list(data.meta) == ["index", "name"]
    assert more.meta["name"].tolist() == list("abcdefg") and data.meta["name"][0] == "star 0"
    mine[0] = 99.0  # a private copy
    assert more.meta["teff"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    with pytest.raises(ValueError, match="read-only"):
        more.meta["teff"][0] = 1.0
    assert more.flux is data.flux and more.ivar is data.ivar and more.census == data.census
    assert more.ids is data.ids and more.unit == data.unit and more.n_observed is data.n_observed
    assert more.take([6, 1]).meta["teff"].tolist() == [6.0, 1.0]
    assert list(data.with_meta().meta) == list(data.meta)


@pytest.mark.parametrize("column", [np.zeros(6), 3.0, np.zeros((1, 7)), []])
def test_a_column_of_another_length_is_refused(column):
    with pytest.raises(ValueError, match=r"meta\['teff'\] must have one entry per object \(7\), got shape"):
        make().with_meta(teff=column)
    with pytest.raises(ValueError, match="has 1 masked entries"):
        make().with_meta(teff=np.ma.array(np.zeros(7), mask=np.arange(7) == 2))


def test_another_grid_has_another_name():
    data = make(grid_name="pixel number")
    moved = data.with_grid([5, 4, 3, 2, 1], "log wavelength")
    assert moved.grid.tolist() == [5.0, 4.0, 3.0, 2.0, 1.0] and moved.grid.dtype == float
    assert moved.labels.grid_name == "log wavelength" and data.labels.grid_name == "pixel number"
    assert data.grid.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert data.with_grid(np.arange(5)).labels.grid_name == "grid"
    assert moved.flux is data.flux and moved.meta == data.meta and moved.census == data.census
    with pytest.raises(ValueError, match="read-only"):
        moved.grid[0] = 1.0


@pytest.mark.parametrize(
    ("grid", "error"),
    [
        (np.arange(4), ValueError),
        (np.arange(10).reshape(5, 2), ValueError),
        (list("abcde"), TypeError),
        ([0, 1, np.nan, 3, 4], ValueError),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(grid, error):
    with pytest.raises(error, match="grid must hold"):
        make().with_grid(grid)


@pytest.mark.parametrize("rows", [1, 3, 7, 50])
def test_blocks_have_one_shape_and_cover_every_row_once(rows):
    data = make()
    blocks = list(data.blocks(rows))
    assert len(blocks) == -(-7 // rows)
    assert {array.shape for _, *arrays in blocks for array in arrays} == {(rows, 5)}
    assert np.concatenate([np.arange(7)[here] for here, _, _ in blocks]).tolist() == list(range(7))
    for leaf, whole in ((1, data.flux), (2, data.ivar)):
        together = np.concatenate([block[leaf] for block in blocks])
        np.testing.assert_array_equal(together[:7], whole)
        assert not together[7:].any()


def test_blocks_in_another_unit_mean_the_same_measurements():
    data = make()
    unit = data.unit * 2.0**-9
    _, flux, ivar = next(data.blocks(8, unit))
    assert flux.dtype == ivar.dtype == np.float32
    expected_flux, expected_ivar = in_user_units(data)
    np.testing.assert_array_equal(flux[:7].astype(float) * unit, expected_flux)
    np.testing.assert_array_equal(ivar[:7].astype(float) / unit**2, expected_ivar)


@pytest.mark.parametrize("rows", [0, -3])
def test_blocks_have_at_least_one_row(rows):
    with pytest.raises(ValueError, match=f"a block must have at least one row, got rows={rows}"):
        make().blocks(rows)


@pytest.mark.parametrize(
    ("exponent", "message"),
    [
        (-130, r"overflows float32; pass dtype='float64'"),
        (65, r"overflows float32; pass dtype='float64'"),
        (-64, "underflows float32 in observed cells; pass dtype='float64'"),
        (-90, "underflows float32 in observed cells; pass dtype='float64'"),
    ],
)
def test_blocks_in_a_unit_beyond_the_dtype(exponent, message):
    data = dataset(np.ones((3, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match=message):
        next(data.blocks(2, 2.0**exponent))
    wide = dataset(np.ones((3, 4)), np.ones((3, 4)), dtype="float64")
    _, flux, ivar = next(wide.blocks(2, 2.0**exponent))
    assert (flux == 2.0**-exponent).all()
    assert (ivar == 4.0**exponent).all()


@pytest.mark.parametrize("fraction", [0.5, 0.2, 0.75])
def test_split_is_a_partition_of_the_stated_size(fraction):
    data = make(40)
    first, rest = split(data, fraction, seed=3)
    assert first.shape[0] == round(40 * fraction)
    assert sorted([*first.ids, *rest.ids]) == data.ids.tolist()
    np.testing.assert_array_equal(first.flux, data.flux[first.meta["index"]])


def test_split_is_decided_by_the_seed():
    data = make(40)
    chosen = [split(data, seed=seed)[0].ids.tolist() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


@pytest.mark.parametrize("by_name", [True, False])
def test_split_never_separates_a_group(by_name):
    n = 60
    source = np.random.default_rng(4).integers(0, 20, n).astype(str)
    data = dataset(np.ones((n, 2)), np.ones((n, 2)), meta={"source": source})
    assert len(np.unique(source)) < n
    for seed in range(5):
        first, rest = split(data, 0.5, seed=seed, group="source" if by_name else source)
        sides = set(first.meta["source"]), set(rest.meta["source"])
        assert not sides[0] & sides[1]
        assert len(sides[0]) == round(0.5 * len(np.unique(source)))
        assert first.shape[0] + rest.shape[0] == n


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fraction": 0.0}, ValueError, "fraction=0.0 of 7 groups leaves one side empty"),
        ({"fraction": 1.0}, ValueError, "take another fraction"),
        (
            {"group": "source"},
            KeyError,
            r"group='source' is no column of the metadata; there are \['index', 'name'\]",
        ),
        ({"group": np.arange(6)}, ValueError, r"one label per object \(7\), got shape \(6,\)"),
        ({"group": np.zeros(7)}, ValueError, "of 1 groups leaves one side empty"),
    ],
)
def test_split_says_why_it_cannot(options, error, message):
    with pytest.raises(error, match=message):
        split(make(), **options)


# JAX


def test_leaves_are_exactly_flux_and_ivar():
    data = make()
    leaves, structure = jax.tree_util.tree_flatten(data)
    assert len(leaves) == 2
    assert leaves[0] is data.flux
    assert leaves[1] is data.ivar
    assert jax.tree_util.tree_unflatten(structure, leaves).labels is data.labels


def test_jit_takes_and_returns_a_dataset_without_touching_its_host_side():
    data, traces = make(), []

    @jax.jit
    def double(data: Dataset) -> Dataset:
        traces.append(1)
        return jax.tree_util.tree_map(lambda leaf: 2 * leaf, data)

    doubled = double(double(data))
    np.testing.assert_array_equal(doubled.flux, 4 * data.flux)
    np.testing.assert_array_equal(doubled.ivar, 4 * data.ivar)
    assert doubled.ids.dtype == np.int64
    assert doubled.ids[0] == BIG_ID
    assert len(traces) == 1, "the same labels must not compile twice"


def test_gradients_are_finite_at_the_holes():
    data = make()
    assert data.census.missing > 0

    def chi2(level, data: Dataset):
        return jnp.sum(data.ivar * (data.flux - level) ** 2)

    level = float((data.ivar * data.flux).sum() / data.ivar.sum())  # where chi-squared is least
    gradient = jax.grad(chi2)(level, data)
    assert abs(float(gradient)) < 1e-5 * 2 * float(data.ivar.sum())  # float32 sums of 35 terms


def test_columns_of_a_pandas_table_are_taken():
    names = np.array(["a", "b", "c"], dtype=object)  # what pandas gives for text
    assert dataset(np.ones((3, 4)), np.ones((3, 4)), ids=names).ids.tolist() == ["a", "b", "c"]
    with pytest.raises(TypeError, match="integers or strings"):
        dataset(np.ones((3, 4)), np.ones((3, 4)), ids=np.array(["a", 1.5, None], dtype=object))
