"""Wavelengths in air and vacuum, and the line lists of the Gaia RVS window, against physics."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from examples.gaia_rvs import lines

CALCIUM_AIR = (849.802, 854.209, 866.214)
RYDBERG_H = 109_677.58340  # 1/cm


def _morton(vacuum):
    """Index of air of Birch and Downs 1994 as in Morton 2000, ApJS 130, 403; VALD uses it."""
    square = (1e3 / vacuum) ** 2
    return 1 + 8.34254e-5 + 2.406147e-2 / (130 - square) + 1.5998e-4 / (38.9 - square)


def _edlen(vacuum):
    """Index of air of Edlen 1953, the standard of the IAU."""
    square = (1e3 / vacuum) ** 2
    return 1 + 6.4328e-5 + 2.94981e-2 / (146 - square) + 2.5540e-4 / (41 - square)


def _ritz(*levels):
    """Vacuum wavelength [nm] between two energy levels [1/cm]."""
    return 1e7 / abs(levels[1] - levels[0])


def test_the_calcium_triplet_converts_both_ways():
    np.testing.assert_allclose(lines.air_to_vacuum(CALCIUM_AIR), lines.CALCIUM_TRIPLET, atol=0.002)
    np.testing.assert_allclose(lines.vacuum_to_air(lines.CALCIUM_TRIPLET), CALCIUM_AIR, atol=0.002)


def test_the_conversions_invert_each_other():
    wavelength = np.linspace(231, 1689, 1000).reshape(20, 50)
    there = lines.air_to_vacuum(lines.vacuum_to_air(wavelength))
    assert there.shape == wavelength.shape
    np.testing.assert_allclose(there, wavelength, rtol=1e-14)


@pytest.mark.parametrize("index", [_morton, _edlen])
def test_other_formulas_agree(index):
    wavelength = np.linspace(*lines.WINDOW, 100)
    np.testing.assert_allclose(lines.vacuum_to_air(wavelength), wavelength / index(wavelength), atol=1e-4)


@pytest.mark.parametrize("convert", [lines.air_to_vacuum, lines.vacuum_to_air])
@pytest.mark.parametrize(
    ("wavelength", "match"),
    [
        ([850.0, np.nan], "finite"),
        (np.inf, "finite"),
        (8542.1, r"230-1690 nm, got 8542\.1.*angstroms"),
        ([850.0, 0.854], r"got 0\.854"),
        (-850.0, "got -850"),
    ],
)
def test_bad_wavelengths_are_refused(convert, wavelength, match):
    with pytest.raises(ValueError, match=match):
        convert(wavelength)


def test_a_scalar_stays_one():
    assert lines.air_to_vacuum(854.209).shape == ()


def test_every_marker_is_in_the_window_once_and_in_order():
    for group in lines.MARKERS.values():
        wavelength = [line.wavelength for line in group]
        assert group and wavelength == sorted(wavelength) and len(set(group)) == len(group)
        assert all(lines.WINDOW[0] <= value <= lines.WINDOW[1] for value in wavelength)
        assert all(isinstance(line.wavelength, float) and line.name for line in group)


def test_all_is_the_union():
    assert set(lines.MARKERS) == {"strong", "abundance", "CN", "all"}
    groups = [set(lines.MARKERS[name]) for name in ("strong", "abundance", "CN")]
    assert set(lines.MARKERS["all"]) == set.union(*groups)
    assert not groups[2] & (groups[0] | groups[1])


def test_nobody_changes_the_lists():
    with pytest.raises(TypeError):
        lines.MARKERS["strong"] = ()


def test_the_triplet_is_marked():
    marked = tuple(line.wavelength for line in lines.MARKERS["strong"] if line.name == "Ca II")
    assert marked == lines.CALCIUM_TRIPLET


def test_paschen_lines_obey_rydberg_and_dirac():
    """Rydberg's formula to 0.006 nm, and to 0.0005 nm with the mean fine structure of n = 3.

    A level j is lowered by alpha^2 R / 81 (3 / (j + 1/2) - 3/4); the mean over the 18 states is 11/12.
    """
    found = {
        int(line.name[1:]): line.wavelength for line in lines.MARKERS["strong"] if line.name.startswith("P")
    }
    upper = np.array([n for n in range(4, 60) if 846 < _ritz(0, RYDBERG_H * (1 / 9 - 1 / n**2)) < 870])
    assert sorted(found) == list(upper) == [13, 14, 15, 16, 17]
    assert all(lines.PASCHEN[n] == found[n] for n in upper)
    upper = np.arange(12, 19)  # with those outside the window
    wavelength = np.array([lines.PASCHEN[int(n)] for n in upper])
    wavenumber = RYDBERG_H * (1 / 9 - 1 / upper**2)
    np.testing.assert_allclose(wavelength, 1e7 / wavenumber, atol=0.006)
    lowered = RYDBERG_H / 137.036**2 / 81 * 11 / 12
    np.testing.assert_allclose(wavelength, 1e7 / (wavenumber + lowered), atol=5e-4)


@pytest.mark.parametrize(
    ("name", "levels"),
    [  # energy levels [1/cm] of NIST; Ritz's principle gives the wavelength in vacuum
        ("Fe I", (17927.382, 29732.736)),  # a5P1 - z5P1
        ("Fe I", (17726.988, 29469.024)),  # a5P2 - z5P2
        ("Fe I", (17550.181, 29056.324)),  # a5P3 - z5P3
        ("Fe I", (22838.320, 34362.871)),  # b3P2 - z3P1
        ("Fe I", (22946.815, 34555.60)),  # b3P1 - z3P0
        ("Fe I", (23783.617, 35379.205)),  # b3G5 - z3G5
        ("Fe I", (24118.816, 35767.561)),  # b3G4 - z3G4
        ("Fe I", (24338.765, 36079.366)),  # b3G3 - z3G3
        ("Ti I", (8602.344, 20126.060)),  # a3P2 - z3D3
        ("Ti I", (8492.421, 20006.038)),  # a3P1 - z3D2
        ("Ti I", (8436.618, 19937.855)),  # a3P0 - z3D1
        ("Ni I", (31031.020, 42605.945)),  # 4p - 5s
    ],
)
def test_metal_lines_lie_between_their_levels(name, levels):
    expected = _ritz(*levels)
    assert (
        min(abs(line.wavelength - expected) for line in lines.MARKERS["abundance"] if line.name == name)
        < 5e-4
    )


def test_nitrogen_agrees_with_its_wavelengths_in_air():
    """NIST in vacuum against the angstroms in air of the abundance literature, which have two decimals."""
    air = np.array([8567.74, 8594.00, 8629.24, 8655.88, 8680.28, 8683.40, 8686.15]) / 10
    found = [line.wavelength for line in lines.MARKERS["abundance"] if line.name == "N I"]
    np.testing.assert_allclose(found, lines.air_to_vacuum(air), atol=1e-3)


def test_cyanogen_heads_follow_from_the_constants():
    """A-X (5,3) of CN: origin, spin-orbit halves, and R heads (B' + B'')^2 / 4 (B'' - B') above them."""
    upper = 9245.28 + 1812.56 * 5.5 - 12.609 * 5.5**2
    lower = 2068.59 * 3.5 - 13.087 * 3.5**2
    spin = {"CN 5-3 R2": 52.64 / 2, "CN 5-3 R1": -52.64 / 2}
    b_upper, b_lower = 1.7151 - 0.01708 * 5.5, 1.8997 - 0.01736 * 3.5
    head = (b_upper + b_lower) ** 2 / (4 * (b_lower - b_upper))
    found = {line.name: line.wavelength for line in lines.MARKERS["CN"]}
    for name, half in spin.items():
        assert found[name] == pytest.approx(1e7 / (upper - lower + half + head), abs=0.05)
