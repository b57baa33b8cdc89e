"""Every number of the comparison in one typed object, which a TOML file may change.

[fits]
ranks = [4, 8]

[splits]
number = 3
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from examples.settings import changed, read_toml

PCA, HMF, CLIPPED = "PCA", "HMF", "HMF, sigma clipping"
PACKAGE, OURS, OURS_FLOOR = "robusta-hmf", "ours", "ours, 2 % floor"
METHODS = (PCA, HMF, CLIPPED, PACKAGE, OURS_FLOOR, OURS)
NATURAL, INJECTED = "natural", "injected"


@dataclass(frozen=True)
class Files:
    """Where the spectra are, and where everything goes."""

    data: Path = Path("spex_prism.npz")
    output: Path = Path("ultracool_run")


@dataclass(frozen=True)
class Splits:
    """Halves by source: each teaches once, and is judged once by what the other has taught."""

    number: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Contamination:
    """What is put into training spectra, beside what is wrong with them anyway: shares of the rows."""

    bad_pixels: float = 0.04  # rows hit by cosmic rays
    hits: int = 10  # in each of them, 1 to 3 pixels wide
    height: tuple[float, float] = (0.3, 3.0)  # over the row's median flux, log-uniform
    foreign: float = 0.04  # rows replaced, half by labelled strangers, half by smooth noise of their flux
    errors: float = 0.02  # rows whose errors are too small
    factor: tuple[float, float] = (5.0, 20.0)  # by this factor, log-uniform
    seed: int = 1


@dataclass(frozen=True)
class Fits:
    """Who learns, and how many basis vectors."""

    methods: tuple[str, ...] = METHODS
    ranks: tuple[int, ...] = (2, 4, 6, 8, 16)
    floor: float = 0.02  # of every error, in units of the median flux, where a method does not learn it
    robustness: float = 3.0  # Q of robusta-hmf
    clip: float = 5.0  # sigma
    package_steps: int = 200  # iterations of robusta-hmf at most


@dataclass(frozen=True)
class Judging:
    """How a basis is judged, by the same procedure whoever learned it."""

    share: float = 0.2  # of the pixels of a held-out spectrum is hidden, in contiguous segments
    guard: int = 5  # pixels on either side that nobody sees: spectra were interpolated from shifted grids
    nu: float = 4.0  # of the common law, Student's t: real spectra have bad pixels, whoever describes them
    floor: float = 0.01  # of its errors, in units of the median flux
    gaussian_floor: float = 0.02  # of the second law, a Gaussian
    seed: int = 2


@dataclass(frozen=True)
class Strangers:
    """The search: all objects teach, and all are scored."""

    ranks: tuple[int, ...] = (2, 4, 6, 8, 16)
    rank: int = 8  # of the table and the pictures, as in the first measurement
    leading: int = 50
    bootstrap: int = 500  # resamples of the sources, for standard errors
    seed: int = 3


@dataclass(frozen=True)
class Simulation:
    """The stand-in for the library."""

    objects: int = 0  # 0: the file is there
    strange: float = 0.05
    floor: float = 0.02  # by which its stated errors are too small
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """All of it."""

    files: Files = Files()
    splits: Splits = Splits()
    contamination: Contamination = Contamination()
    fits: Fits = field(default_factory=Fits)
    judging: Judging = Judging()
    strangers: Strangers = Strangers()
    simulation: Simulation = Simulation()
    workers: int = 2  # processes that fit

    @classmethod
    def read(cls, path: Path | None = None, preset: str | None = None) -> Config:
        """The defaults, changed by a preset, changed by a TOML file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no TOML, names what there is not, or gives an impossible value.
        """
        config = cls()
        if preset is not None:
            config = changed(config, PRESETS[preset], f"preset {preset!r}")
        if path is not None:
            config = changed(config, read_toml(path), str(path))
        return config.checked()

    def checked(self) -> Config:
        """`self`, if its values are possible."""
        spoiled = self.contamination
        for name, value, good, want in (
            ("splits.number", self.splits.number, self.splits.number >= 1, "at least 1"),
            ("fits.ranks", self.fits.ranks, all(k >= 2 for k in self.fits.ranks), "2 or more each"),
            ("fits.methods", self.fits.methods, set(self.fits.methods) <= set(METHODS), f"among {METHODS}"),
            ("fits.floor", self.fits.floor, 0 <= self.fits.floor < math.inf, "0 or more"),
            ("judging.share", self.judging.share, 0 < self.judging.share < 0.5, "between 0 and 0.5"),
            (
                "strangers.rank",
                self.strangers.rank,
                self.strangers.rank in self.strangers.ranks,
                "among strangers.ranks",
            ),
            ("workers", self.workers, self.workers >= 1, "at least 1"),
        ):
            if not good:
                raise ValueError(f"{name} must be {want}, got {value!r}")
        if not 0 <= spoiled.bad_pixels + spoiled.foreign + spoiled.errors < 0.5:
            raise ValueError("contamination: the shares of rows must be 0 or more, and below 0.5 together")
        return self

    def located(self, **paths: Path | None) -> Config:
        """With these files instead, where they are given."""
        given = {name: path for name, path in paths.items() if path is not None}
        return replace(self, files=replace(self.files, **given))


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "simulation": {"objects": 260, "strange": 0.08},
        "splits": {"number": 2},
        "fits": {"ranks": [3, 5]},
        "strangers": {"ranks": [5], "rank": 5, "leading": 20, "bootstrap": 50},
    },
    "small": {
        "simulation": {"objects": 900},
        "splits": {"number": 2},
        "fits": {"ranks": [2, 4, 8]},
        "strangers": {"ranks": [8]},
    },
    "full": {"simulation": {"objects": 1776}},
}
