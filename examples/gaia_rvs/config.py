"""Every number of the search in one typed object: the published values, which a TOML file may change.

[model]
ranks = [6, 8, 10]

[pictures]
pages = 20
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from examples.gaia_rvs.lines import CALCIUM_TRIPLET, FIRST, MARKERS, PIXELS, STEP
from examples.settings import changed, read_toml


@dataclass(frozen=True)
class Files:
    """Where the two input files are, and where everything goes."""

    spectra: Path = Path("dr3-rvs-all.hdf5")
    metadata: Path = Path("dr3-source-meta.csv")
    truth: Path | None = None  # what is wrong with which star, of simulated surveys
    output: Path = Path("gaia_rvs_run")


@dataclass(frozen=True)
class Bins:
    """Overlapping ellipses along the main sequence, in BP-RP [mag] and absolute magnitude M_G [mag]."""

    number: int = 14
    bp_rp: tuple[float, float] = (-0.1, 3.0)  # centres of the first and of the last one
    abs_mag: tuple[float, float] = (0.0, 11.0)
    bump: float = 1.5  # of the sequence above a straight line [mag], at
    bump_at: float = 1.5  # this colour, with
    bump_width: float = 0.6  # this standard deviation
    width_bp_rp: float = 1.5  # full widths, in steps from one centre to the next
    width_abs_mag: float = 2.8


@dataclass(frozen=True)
class Pixels:
    """The wavelength grid of the spectra, which their file does not have [nm, vacuum]."""

    first: float = FIRST
    step: float = STEP
    number: int = PIXELS
    clip: int = 40  # pixels left out at either end


@dataclass(frozen=True)
class Model:
    """What is fitted to a bin, and how the candidates are judged."""

    ranks: tuple[int, ...] = (10,)
    scales: tuple[float, ...] = (5.0,)  # Q of the published loss; empty: the noise law is learned instead
    tol: float = 0.1  # of `rp.fit`, in posterior deviations; the published 1e-4 is in units of its own
    max_epochs: int = 60
    train: float = 0.5  # share of the spectra that is fitted; the others judge
    seed: int = 0
    least: int = 60  # spectra, with fewer of which a bin has no model
    least_per_component: int = 8  # spectra, for each component of a rank that is tried


@dataclass(frozen=True)
class Search:
    """What counts as strange."""

    lines: dict[str, tuple[float, ...]] = field(default_factory=lambda: {"Ca II": CALCIUM_TRIPLET})  # [nm]
    # judge stars against those with similar errors: bright ones are more varied than a basis can describe
    by_error: bool = True
    robustness: float = 5.0  # Q of the robust weights Q^2 / (Q^2 + z^2), whatever is fitted,
    published: float = 0.5  # whose 1 % quantile is the published score; an outlier below this
    memory: float = 3.0  # GiB that `train` and `analyse` may take; larger bins are read block by block
    chunk: int = 50_000  # spectra that are inferred between two savings


@dataclass(frozen=True)
class Injection:
    """Anomalies that are put into normal spectra, per bin, to learn how complete the list is."""

    amplitudes: dict[str, tuple[float, ...]] = field(
        default_factory=lambda: {
            "line set": (0.003, 0.01, 0.03, 0.1, 0.3),  # height of the Ca II cores over the continuum
            "second spectrum": (0.02, 0.05, 0.1, 0.3, 1.0),  # flux ratio
            "shifted segment": (2.0, 8.0),  # pixels
            "scaled noise": (1.05, 1.1, 1.2, 1.5, 2.0),  # true over stated errors
        }
    )
    options: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "line set": {"positions": CALCIUM_TRIPLET, "width": 3.0},  # [nm], [pixels]
            "second spectrum": {"shift": 25.0},  # pixels, 88 km/s
        }
    )
    per_amplitude: int = 50
    seed: int = 1


@dataclass(frozen=True)
class Pictures:
    """What is drawn."""

    pages: int = 10  # of the strangest spectra of each bin, in every variant of the markers
    variants: tuple[str, ...] = ("strong", "abundance", "CN", "all")
    sample: int = 500  # random spectra per bin whose residuals are kept for pictures, so many of which
    shown: int = 5  # are drawn one by one
    least: int = 1000  # spectra, with fewer of which a bin has a hollow symbol: its model is poor
    seed: int = 2
    workers: int = 2  # processes that draw
    dpi: int = 110
    strengths: tuple[float, ...] = (
        0.0,
        3.0,
        5.0,
        8.0,
        13.0,
        20.0,
        40.0,
        100.0,
    )  # edges of the recovery table [sigma]


@dataclass(frozen=True)
class Embedding:
    """UMAP of the residuals of the outliers."""

    neighbours: int = 15
    min_dist: float = 0.1
    seed: int = 0
    only_in_all_bins: bool = False  # leave out stars that are outliers in one of their two bins alone
    least: int = 10  # outliers, with fewer of which there is no map


@dataclass(frozen=True)
class Simulation:
    """The survey that `--simulate` writes."""

    objects: int = 0  # 0: the files are there
    anomalies: float = 0.02  # share of labelled ones
    flatness: float = (
        0.3  # share of stars that are spread evenly along the sequence, for every bin to have some
    )
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """All of it."""

    files: Files = Files()
    bins: Bins = Bins()
    pixels: Pixels = Pixels()
    model: Model = Model()
    search: Search = Search()
    injection: Injection = Injection()
    pictures: Pictures = Pictures()
    embedding: Embedding = Embedding()
    simulation: Simulation = Simulation()

    @classmethod
    def read(cls, path: Path | None = None, preset: str | None = None) -> Config:
        """The defaults, changed by a preset, changed by a TOML file.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no TOML, names what there is not, or gives a value of another kind.
        """
        config = cls()
        if preset is not None:
            config = changed(config, PRESETS[preset], f"preset {preset!r}")
        if path is not None:
            config = changed(config, read_toml(path), str(path))
        return config.checked()

    def checked(self) -> Config:
        """`self`, if its values are possible."""
        last = self.pixels.step * (self.pixels.number - 1)
        for what, good, want in (
            ("bins.number", self.bins.number >= 2, "at least 2"),
            ("pixels.step", self.pixels.step > 0, "above 0 [nm]"),
            (
                "pixels.clip",
                0 <= 2 * self.pixels.clip < self.pixels.number,
                "0 or more, and leave some pixels",
            ),
            ("model.train", 0 < self.model.train < 1, "between 0 and 1"),
            ("bins.width_bp_rp", self.bins.width_bp_rp > 0, "above 0"),
            ("bins.width_abs_mag", self.bins.width_abs_mag > 0, "above 0"),
            ("model.ranks", len(self.model.ranks) and min(self.model.ranks) > 0, "positive integers"),
            ("model.scales", all(q > 0 for q in self.model.scales), "positive"),
            (
                "search.lines",
                all(0 <= x - self.pixels.first <= last for set_ in self.search.lines.values() for x in set_),
                f"between {self.pixels.first:g} and {self.pixels.first + last:g} nm, in vacuum",
            ),
            ("search.published", 0 < self.search.published < 1, "between 0 and 1"),
            ("search.memory", self.search.memory >= 1.5, "at least 1.5 GiB, what a fit takes by itself"),
            ("search.chunk", self.search.chunk > 0, "above 0"),
            ("pictures.variants", set(self.pictures.variants) <= set(MARKERS), f"among {', '.join(MARKERS)}"),
            ("simulation.objects", self.simulation.objects >= 0, "0 or more"),
        ):
            if not good:
                section, name = what.split(".")
                raise ValueError(f"{what} must be {want}, got {getattr(getattr(self, section), name)!r}")
        return self

    def located(self, **paths: Path | None) -> Config:
        """With these files instead, where they are given."""
        given = {name: path for name, path in paths.items() if path is not None}
        return replace(self, files=replace(self.files, **given))


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "simulation": {"objects": 700, "anomalies": 0.03, "flatness": 1.0},
        "model": {"ranks": [3], "scales": [], "tol": 0.1},
        "injection": {"amplitudes": {"line set": [0.03, 0.3]}, "per_amplitude": 10},
        "pictures": {"pages": 1, "variants": ["strong"], "sample": 20, "shown": 2},
        "embedding": {"least": 4},
    },
    "small": {
        "simulation": {"objects": 4000, "anomalies": 0.03, "flatness": 0.6},
        "model": {"ranks": [8], "scales": [], "tol": 0.1},
        "injection": {"per_amplitude": 20},
        "pictures": {"pages": 1},
    },
    "full": {"simulation": {"objects": 1_000_000, "flatness": 0.0}},
}
