# %% [markdown]
# # Lines of the Gaia RVS window, 846-870 nm, in vacuum
#
# Gaia publishes vacuum wavelengths; most line lists of this region are in air, 0.23 nm to the blue.
# What was published in air is kept in air here, and converted by the code.

# %%
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

PIXELS, FIRST, STEP = 2401, 846.0, 0.01  # of the one grid of all RVS mean spectra [nm, vacuum]
WINDOW = (FIRST, 870.0)  # nm, vacuum
VALID = (230.0, 1690.0)  # nm: where Ciddor's two terms describe standard air
CALCIUM_TRIPLET = (850.035, 854.444, 866.452)  # nm, vacuum


class Line(NamedTuple):
    """A place in the spectrum and what absorbs there."""

    name: str
    wavelength: float  # nm, vacuum


# %% The refractive index of air: Ciddor 1996, Applied Optics 35, 1566, equation 1.
def _index(vacuum: np.ndarray) -> np.ndarray:
    """Standard air (15 C, 101,325 Pa, dry, 450 ppm CO2) at a vacuum wavelength [nm]."""
    square = (1e3 / vacuum) ** 2  # wavenumber in 1/um, squared
    return 1 + 0.05792105 / (238.0185 - square) + 0.00167917 / (57.362 - square)


def _checked(wavelength: ArrayLike) -> np.ndarray:
    values = np.asarray(wavelength, float)
    if not np.isfinite(values).all():
        raise ValueError("expected finite wavelengths [nm], got NaN or infinity; mask missing pixels first")
    outside = values[(values < VALID[0]) | (values > VALID[1])]
    if outside.size:
        raise ValueError(
            f"expected wavelengths of {VALID[0]:g}-{VALID[1]:g} nm, got {outside.flat[0]:g}: "
            "outside, the formula does not hold; are these angstroms, or micrometres?"
        )
    return values


def vacuum_to_air(wavelength: ArrayLike) -> np.ndarray:
    """Wavelength in standard air of a line at a wavelength in vacuum.

    Parameters
    ----------
    wavelength : array_like
        Vacuum wavelengths [nm], 230-1690 nm.

    Returns
    -------
    numpy.ndarray
        Air wavelengths [nm], of the same shape.

    Raises
    ------
    ValueError
        If a wavelength is not finite, or is where Ciddor's (1996) formula is not valid.

    Examples
    --------
    >>> print(f"{vacuum_to_air(854.444):.3f}")
    854.209
    """
    vacuum = _checked(wavelength)
    return vacuum / _index(vacuum)


def air_to_vacuum(wavelength: ArrayLike) -> np.ndarray:
    """Wavelength in vacuum of a line at a wavelength in standard air: the exact inverse of `vacuum_to_air`.

    Ciddor's index is a function of the vacuum wavelength: it is found by iteration, each step of which
    shrinks the error ten-thousandfold.

    Parameters
    ----------
    wavelength : array_like
        Air wavelengths [nm], 230-1690 nm.

    Returns
    -------
    numpy.ndarray
        Vacuum wavelengths [nm], of the same shape.

    Raises
    ------
    ValueError
        If a wavelength is not finite, or is where Ciddor's (1996) formula is not valid.

    Examples
    --------
    >>> print(f"{air_to_vacuum(854.209):.3f}")
    854.444
    """
    air = _checked(wavelength)
    vacuum = air
    for _ in range(4):
        vacuum = air * _index(vacuum)
    return vacuum


# %% Published in vacuum [nm].
# The NIST values of H I, n - 3. The bare Rydberg formula is 0.005 nm to the red: n = 3 has fine structure.
# P12 and P18 are outside the window, where only their wings are felt.
PASCHEN = {18: 844.0274, 17: 846.9581, 16: 850.4819, 15: 854.7731, 14: 860.0754, 13: 866.7398, 12: 875.2876}
_VACUUM_NITROGEN = (857.0089, 859.6360, 863.1606, 865.8256, 868.2666, 868.5788, 868.8535)  # NIST
# The only Mg I in the calibrated list of Contursi et al. 2021 (A&A 654, A130). It is weak: the strong
# Mg I 880.7 nm, which other surveys of the calcium triplet have, is outside.
_VACUUM_MAGNESIUM = (861.2092,)
# The CN line whose equivalent width Gaia measures (Recio-Blanco et al. 2023, A&A 674, A29), to 0.1 nm; and
# the heads of the two main R branches of the A-X (5,3) band, to 0.2 nm, from the molecule's constants
# (Huber and Herzberg 1979). Everything between is full of weak lines of CN in a cool giant.
_VACUUM_CYANOGEN = {"CN": 862.9, "CN 5-3 R2": 847.96, "CN 5-3 R1": 851.73}

# %% Published in air [nm]: laboratory values as in the usual line lists (NIST, VALD, Gaia-ESO).
_AIR_STRONG = {
    "Fe I": (846.8407, 851.4072, 851.5108, 858.2257, 861.1804, 862.1601, 867.4746, 868.8624),
    "Ti I": (867.5372, 868.2980, 869.2331),
}
_AIR_WEAK = {
    "Fe I": (852.6669, 857.1804, 859.2951, 859.8829, 861.3939, 861.6280),
    "Ti I": (851.8352, 854.8079),
    "Si I": (853.6164, 855.6777, 864.8465, 868.6352),
    "Ni I": (863.6995,),
    "Cr I": (854.885, 864.300),
    "S I": (869.393, 869.463),
}


def _from_air(lists: Mapping[str, tuple[float, ...]]) -> list[Line]:
    return [
        Line(name, round(float(air_to_vacuum(air)), 4)) for name, values in lists.items() for air in values
    ]


def _sorted(lines: list[Line]) -> tuple[Line, ...]:
    return tuple(sorted(set(lines), key=lambda line: (line.wavelength, line.name)))


# %% The four variants that a figure may be drawn with.
# Abundances: lines of the elements that Gaia's GSP-Spec measures (Recio-Blanco et al. 2023), not its windows.
# It also measures Zr II, Ce II and Nd II: no source for the places of their weak lines was at hand.
_STRONG_METALS = _from_air(_AIR_STRONG)
_STRONG = [
    *(Line("Ca II", wavelength) for wavelength in CALCIUM_TRIPLET),
    *(Line(f"P{n}", wavelength) for n, wavelength in PASCHEN.items() if WINDOW[0] < wavelength < WINDOW[1]),
    *_STRONG_METALS,
]
_ABUNDANCE = [
    *_STRONG_METALS,
    *_from_air(_AIR_WEAK),
    *(Line("N I", wavelength) for wavelength in _VACUUM_NITROGEN),
    *(Line("Mg I", wavelength) for wavelength in _VACUUM_MAGNESIUM),
]
_CYANOGEN = [Line(name, wavelength) for name, wavelength in _VACUUM_CYANOGEN.items()]

MARKERS: Mapping[str, tuple[Line, ...]] = MappingProxyType(
    {
        "strong": _sorted(_STRONG),
        "abundance": _sorted(_ABUNDANCE),
        "CN": _sorted(_CYANOGEN),
        "all": _sorted(_STRONG + _ABUNDANCE + _CYANOGEN),
    }
)
