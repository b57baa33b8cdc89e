"""The simulator of the Gaia RVS example: physics against independent mathematics, files, truth, bad input."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import integrate

sys.path.insert(0, str(Path(__file__).parents[1]))

from examples.gaia_rvs import anomalies, lines, population, simulate, spectra
from examples.gaia_rvs.bins import ridge
from examples.gaia_rvs.config import Bins

N = 1100  # spectra: two blocks, the second cut short


class Written:
    """What one call wrote."""

    def __init__(self, folder):
        with h5py.File(folder / simulate.SPECTRA) as file:
            self.ids, self.flux, self.error = (file[x][()] for x in ("source_id", "flux", "flux_error"))
            self.chunks = [file[x].chunks for x in file]
            self.names = set(file)
        self.catalogue = pd.read_csv(folder / simulate.CATALOGUE)
        self.truth = pd.read_csv(folder / simulate.TRUTH)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    def of(objects, **options):
        folder = tmp_path_factory.mktemp("survey")
        options = {"seed": 3, "callback": lambda count: None, **options}
        simulate.simulate(folder, objects, **options)
        return Written(folder)

    return of


@pytest.fixture(scope="module")
def survey(write):
    """Every fifth spectrum has an anomaly, so that every kind occurs."""
    return write(N, anomalies=0.2)


@pytest.fixture(scope="module")
def untouched(write):
    """The same survey without anomalies."""
    return write(N, anomalies=0.0)


def stars(count, colours=population.COLOURS, flatness=0.3):
    """A whole number of blocks, as (observed BP-RP, true M_G, atmosphere)."""
    law = population.density(colours, flatness)
    drawn = [population.draw_stars(np.random.default_rng([7, k]), law, k) for k in range(count)]
    colour = np.concatenate([s.colour for s in drawn])
    absolute = np.concatenate([s.apparent + 5 * np.log10(s.parallax / 1000) + 5 for s in drawn])
    return colour, absolute, [s.atmosphere for s in drawn]


def in_bin(number, colour, absolute):
    """Inside the published ellipse."""
    centre = np.linspace(-0.1, 3.0, 14)[number]
    height = np.linspace(0, 11, 14)[number] + 1.5 * np.exp(-(((centre - 1.5) / 0.6) ** 2) / 2)
    x, y = (colour - centre) / (1.5 * 3.1 / 13 / 2), (absolute - height) / (2.8 * 11 / 13 / 2)
    return x**2 + y**2 < 1


# Physics


def test_paschen_lines_lie_where_they_are_observed():
    """P12-P14, P17 and P18 in air, from the NIST database, to 0.01 nm."""
    air = np.array([875.047, 866.502, 859.839, 846.725, 843.796])
    assert np.allclose(spectra.HYDROGEN[[0, 1, 2, 5, 6]], lines.air_to_vacuum(air), atol=0.01)


@pytest.mark.parametrize("b", [0.3, 2.0, 17.0, 120.0])
def test_rotation_is_the_transform_of_a_limb_darkened_disc(b):
    """Sum up the disc in stripes of equal velocity instead."""

    def stripe(y):
        half = np.sqrt(1 - y**2)
        mu_over_stripe = 0.5 * np.pi * half**2  # integral of mu along it
        return 2 * half * (1 - spectra.LIMB) + spectra.LIMB * mu_over_stripe

    total = integrate.quad(stripe, -1, 1)[0]
    wave = integrate.quad(stripe, -1, 1, weight="cos", wvar=b)[0]
    assert spectra.rotation_transform(np.array([b]))[0] == pytest.approx(wave / total, abs=1e-6)
    assert spectra._rotation(np.array([b], np.float32))[0] == pytest.approx(wave / total, abs=1e-5)


def test_broadening_moves_lines_and_keeps_their_area():
    layer = np.ones((3, spectra.WIDE), np.float32)
    layer[:, spectra.MARGIN + 1200] = 0.0
    moved = 10 * spectra.KM_S
    out = spectra.broaden(layer, np.array([1.0, 1.0, 200.0]), np.array([0.0, moved, 0.0]))
    assert np.allclose((1 - out.astype(float)).sum(1), 1.0, atol=1e-3)  # 2401 float32 near 1
    assert np.allclose(np.roll(out[0], 10)[20:-20], out[1, 20:-20], atol=2e-6)
    fwhm = (out[0] < 0.5 * (1 + out[0].min())).sum()
    assert fwhm == pytest.approx(858 / 11_500 / 0.01, abs=1)  # resolving power of the RVS
    reach = 200 / spectra.KM_S
    far = np.abs(np.arange(spectra.PIXELS) - 1200) > reach + 15
    assert np.abs(1 - out[2][far]).max() < 1e-5


def test_normal_spectra_of_a_bin_need_about_ten_components():
    """Held out, ten leave less than 0.1 % of the continuum: below the noise of all but the brightest."""
    for number, colours in ((0, (-0.1, 0.1)), (4, (0.65, 1.05)), (12, (2.6, 3.0))):
        colour, absolute, (star,) = stars(1, colours)
        flux = spectra.clean(star.take(np.flatnonzero(in_bin(number, colour, absolute))))
        basis = np.linalg.svd(flux[::2], full_matrices=False)[2][:10]
        left = flux[1::2] - flux[1::2] @ basis.T @ basis
        assert np.sqrt((left**2).mean()) < 1e-3


def test_lines_strengthen_and_fade_along_the_sequence():
    """Depths of Ca II, Paschen 14 and TiO against each other, from A to M."""
    names = {"calcium": 854.444, "hydrogen": 860.05, "oxide": 847.3}
    depth = {}
    for letter, colour in (("A", 0.0), ("G", 0.82), ("M", 2.7)):
        temperature, gravity = (np.array([v]) for v in population.dwarf(colour))
        none = np.zeros(1)
        star = spectra.Atmosphere(temperature, gravity, none, none, none, none + 5, none, none, none)
        flux = spectra.clean(star)[0]
        depth[letter] = {name: 1 - np.interp(x, spectra.GRID, flux) for name, x in names.items()}
    assert depth["G"]["calcium"] > 0.6 > depth["A"]["calcium"]
    assert depth["A"]["hydrogen"] > 0.2 > depth["G"]["hydrogen"]
    assert depth["M"]["oxide"] > 0.3 > depth["G"]["oxide"]


# Population


def test_stars_follow_the_ridge_and_fill_every_bin():
    colour, absolute, _ = stars(15)
    assert abs(np.median(absolute - ridge(Bins(), colour))) < 0.05
    counts = [in_bin(b, colour, absolute).sum() for b in range(14)]
    assert min(counts) > 100
    colour, absolute, _ = stars(15, flatness=0.0)
    counts = np.array([in_bin(b, colour, absolute).sum() for b in range(14)])
    assert counts.argmax() == 4
    assert 0.01 < counts[0] / counts[4] < 0.07  # 6,846 of 192,000 in the archive
    assert 0.01 < counts[7] / counts[4] < 0.10  # 9,286


# Files


def test_files_have_the_layout_of_the_archive(survey):
    assert survey.names == {"source_id", "flux", "flux_error"}
    assert survey.chunks == [None] * 3
    assert (survey.ids.dtype, survey.flux.dtype, survey.error.dtype) == (np.int64, np.float32, np.float32)
    assert survey.flux.shape == survey.error.shape == (N, 2401)
    assert len(np.unique(survey.ids)) == N
    assert {len(str(i)) for i in survey.ids} == {19}
    missing = np.isnan(survey.flux)
    assert np.array_equal(missing, np.isnan(survey.error))
    assert np.isfinite(survey.flux[~missing]).all()
    assert (survey.error[~missing] > 0).all()
    assert 0.005 < missing.mean() < 0.05


def test_the_catalogue_is_neither_the_same_set_nor_in_the_same_order(survey):
    table = survey.catalogue
    assert table["source_id"].is_unique
    both = np.isin(table["source_id"], survey.ids)
    assert 0.02 < 1 - both.mean() < 0.06  # no spectrum
    assert 0.01 < 1 - np.isin(survey.ids, table["source_id"]).mean() < 0.06  # not in the catalogue
    order = table["source_id"][both].to_numpy()
    assert not np.array_equal(order, survey.ids[np.isin(survey.ids, order)])
    assert table[["parallax", "bp_rp", "phot_g_mean_mag"]].isna().any().all()
    assert (table["parallax"] <= 0).any()


def test_catalogue_rows_belong_to_their_spectra(untouched):
    """The depth of a calcium line tells G from A stars: the join on source_id must find that again."""
    table = untouched.catalogue.set_index("source_id")["bp_rp"].reindex(untouched.ids).to_numpy()
    middle = untouched.flux[:, 844]
    clear = np.nanmedian(untouched.error, 1) < 0.02
    assert np.nanmedian(middle[clear & (table < 0.2)]) > 0.55
    assert np.nanmedian(middle[clear & (table > 0.7) & (table < 1.2)]) < 0.35


def test_a_larger_survey_begins_with_a_smaller_one(survey, write):
    again = write(N, anomalies=0.2)
    fewer = write(300, anomalies=0.2)
    for name in ("ids", "flux", "error"):
        whole = getattr(survey, name)
        assert whole.tobytes() == getattr(again, name).tobytes()
        assert whole[:300].tobytes() == getattr(fewer, name).tobytes()
    pd.testing.assert_frame_equal(survey.catalogue, again.catalogue)
    first = survey.truth[np.isin(survey.truth["source_id"], fewer.ids)]
    pd.testing.assert_frame_equal(first, fewer.truth, check_dtype=False)
    assert np.isin(fewer.catalogue["source_id"], survey.catalogue["source_id"]).all()
    other = write(300, seed=4)
    assert not np.isin(other.ids, survey.ids).any()


def test_colours_can_be_restricted(write):
    table = write(200, colours=(0.7, 1.0)).catalogue
    assert table["bp_rp"].dropna().between(0.65, 1.05).all()


# Truth


def test_noise_is_what_flux_error_says(untouched):
    """Against the clean spectra of the same stars; 1100 x 2401 deviates."""
    stream = np.random.default_rng([3, 1, simulate.INGREDIENTS.index("population")])
    star = population.draw_stars(stream, population.density(population.COLOURS, 0.3), 0).atmosphere
    clean = spectra.clean(star.take(np.arange(population.BLOCK)))
    z = ((untouched.flux[: len(clean)] - clean) / untouched.error[: len(clean)]).ravel()
    z = z[np.isfinite(z)]
    assert abs(z.mean()) < 0.004
    assert abs(z.std() - 1) < 0.003
    assert abs((z[1:] * z[:-1]).mean()) < 0.004
    assert (np.abs(z) > 3).mean() == pytest.approx(0.0027, rel=0.1)


def test_strength_is_the_difference_from_the_same_survey_without_anomalies(survey, untouched):
    assert not len(untouched.truth)
    row = {source: i for i, source in enumerate(survey.ids)}
    rows = np.array([row[i] for i in survey.truth["source_id"]])
    changed = np.zeros(N, bool)
    changed[rows] = True
    assert np.array_equal(survey.flux[~changed], untouched.flux[~changed], equal_nan=True)
    assert np.array_equal(survey.error, untouched.error, equal_nan=True)
    z = (survey.flux[rows].astype(float) - untouched.flux[rows]) / survey.error[rows]
    strength = np.sqrt(np.nansum(z**2, 1))
    # both fluxes are rounded to float32, 6e-8 of the continuum, under errors of 0.3 %
    assert np.allclose(strength, survey.truth["strength"], rtol=1e-3, atol=5e-3)


def test_every_kind_occurs_within_its_range(survey):
    truth = survey.truth
    assert set(truth["kind"]) == set(anomalies.KINDS)
    assert len(truth) == pytest.approx(0.2 * N, abs=45)  # 3 sd
    for name, part in truth.groupby("kind"):
        kind = anomalies.KINDS[name]
        assert part["amplitude"].between(kind.low - 1e-6, kind.high + 1e-6).all()
        assert (part["unit"] == kind.unit).all()
    binaries = truth[truth["kind"] == "double-lined binary"]
    assert binaries["velocity_km_s"].abs().between(30, 200).all()
    assert truth[truth["kind"] == "cosmic rays"]["n_pixels"].between(1, 6).all()
    assert truth[truth["kind"] == "detector segment"]["n_pixels"].between(50, 400).all()


def test_calcium_emission_has_the_strength_of_its_three_cores():
    """In flat noise: height / error times the norm of three Gaussians, (3 sigma sqrt(pi))^(1/2)."""
    star = anomalies.Star(None, np.ones(2401), np.full(2401, 0.01), None, np.ones(2401, bool))
    _, facts = anomalies.inject(np.random.default_rng(0), "Ca II emission", star)
    expected = facts["amplitude"] / 0.01 * np.sqrt(3 * facts["sigma_pixels"] * np.sqrt(np.pi))
    assert facts["strength"] == pytest.approx(expected, rel=1e-6)


# Bad input and failure


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objects": 0}, ValueError, "objects must lie between 1 and"),
        ({"objects": 2.5}, TypeError, "objects must be a whole number, got 2.5"),
        ({"seed": -1}, ValueError, "seed must lie between 0 and"),
        ({"anomalies": 2}, ValueError, "anomalies is a share .* got 2; 2 % is 0.02"),
        ({"flatness": float("nan")}, ValueError, "flatness is a share"),
        ({"colours": (1.0, 0.5)}, ValueError, r"colours must be the lower .* got \(1.0, 0.5\)"),
        ({"colours": (0.5, 3.5)}, ValueError, "leave it out for all"),
        ({"colours": (0.5,)}, ValueError, "leave it out for all"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        simulate.simulate(tmp_path / "new", **{"objects": 10, **options})
    assert not (tmp_path / "new").exists()


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / simulate.SPECTRA).write_text("old")

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate.simulate(tmp_path, 10, callback=stop)
    assert [path.name for path in tmp_path.iterdir()] == [simulate.SPECTRA]
    assert (tmp_path / simulate.SPECTRA).read_text() == "old"
