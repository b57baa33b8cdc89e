"""Is the noise law learned right? `python benchmarks/noise_law.py [--data FOLDER]`.

Draws from the model over a grid of (nu, s, f), 2000 x 300, K = 3, given errors log-normal with a spread of
0.5 around 0.03; many components on few pixels; and, with `--data`, real spectra. Writes NOISE.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contestant import HERE
from tqdm import tqdm

import robusta_prob as rp
from robusta_prob.simulate import low_rank

NU, SCALE, FLOOR = (2.0, 4.0, 8.0, 30.0, math.inf), (0.7, 1.0, 1.5), (0.0, 0.02)
REAL = {"rm017_B_exposures.npz": (2, 3, 4), "rm017_R_exposures.npz": (2, 3, 4), "spex_prism.npz": (3, 8, 16)}
GAUSSIAN = rp.Noise(math.inf, 1.0)  # the errors as they are, plus a floor: how large must it be?


def drawn(size: tuple[int, int], seeds: int, grid: list[tuple[float, float, float]]) -> Iterator[str]:
    """One line per noise law: the median of the learned parts over the seeds, and the worst errors."""
    for nu, scale, floor in tqdm(grid, desc="drawn"):
        laws = [
            rp.fit(low_rank(*size, 3, nu=nu, scale=scale, floor=floor, spread=0.5, seed=seed).data, 3).noise
            for seed in range(seeds)
        ]
        yield _line(
            f"nu = {nu:g}, s = {scale:g}, f = {floor:g}",
            laws,
            max(abs(law.scale / scale - 1) for law in laws),
            max(abs(law.nu / nu - 1) for law in laws) if nu < math.inf else math.nan,
            max(abs(law.floor - floor) for law in laws),
        )


def _line(name: str, laws: list[rp.NoiseLaw], *errors: float) -> str:
    middle = [np.median([getattr(law, part) for law in laws]) for part in ("nu", "scale", "floor")]
    of_scale, of_nu, of_floor = errors
    worst = f"{of_scale:.1%} | {'' if math.isnan(of_nu) else f'{of_nu:.1%}'} | {of_floor:.2g}"
    return f"| {name} | {middle[0]:.3g} | {middle[1]:.3f} | {middle[2]:.4f} | {worst} |"


def crowded(size: tuple[int, int], rank: int, seeds: int) -> Iterator[str]:
    """K = 10 of M = 50: fitted coefficients must not make the noise look smaller."""
    laws = [rp.fit(low_rank(*size, rank, seed=seed).data, rank).noise for seed in range(seeds)]
    errors = max(abs(law.scale - 1) for law in laws), math.nan, max(law.floor for law in laws)
    yield _line(f"Gaussian, M = {size[1]}, K = {rank}", laws, *errors)


def real(folder: Path) -> Iterator[str]:
    """The learned law of real spectra, and the robust size of z under it and under a plain Gaussian."""
    for file, ranks in REAL.items():
        data = rp.read(folder / file)
        for rank in ranks:
            fit = rp.fit(data, rank)
            gaussian = rp.fit(data, rank, noise=GAUSSIAN)
            cells = " | ".join(f"{x:.2f}" for x in (_size(fit, data), _size(gaussian, data)))
            floors = f"{fit.noise.floor:.4f} | {cells} | {gaussian.loss.floor:.4f}"
            yield f"| {file}, K = {rank} | {fit.noise.nu:.3g} | {fit.noise.scale:.2f} | {floors} |"


def _size(fit: rp.Fit, data: rp.Dataset) -> float:
    """Standard deviation of z within 5, z with the scale and the floor of the law that was fitted."""
    seen = data.observed
    variance = data.unit**2 / np.where(seen, data.ivar, 1.0).astype(float)
    z = rp.residuals(fit, data) / np.sqrt(fit.loss.scale**2 * (variance + fit.loss.floor**2))
    return float(z[seen & (np.abs(z) < 5)].std())


def main() -> None:
    """Run and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="holds the real spectra")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="tiny surveys: does it run at all?")
    options = parser.parse_args()
    warnings.simplefilter("ignore", rp.DataWarning)
    seeds, size, grid = (options.seeds, (2000, 300), list(itertools.product(NU, SCALE, FLOOR)))
    many = (2000, 50), 10
    if options.smoke:
        seeds, size, grid = 1, (300, 120), grid[:2]
        many = size, 3
    lines = [
        "# The learned noise law",
        "",
        f"Draws from the model, {size[0]} x {size[1]}, K = 3, {seeds} seeds: medians, and the worst errors.",
        "",
        "| drawn | nu | s | f | worst s | worst nu | worst f |",
        "|---|---|---|---|---|---|---|",
        *drawn(size, seeds, grid),
        *crowded(*many, seeds),
    ]
    if options.data:
        lines += [
            "",
            "Real spectra: everything learned, and a Gaussian with the errors as given plus a learned floor.",
            "sd of z: of the cells within 5.",
            "",
            "| spectra | nu | s | f | sd of z | Gaussian: sd of z | Gaussian: f |",
            "|---|---|---|---|---|---|---|",
            *real(options.data),
        ]
    text = "\n".join(lines) + "\n"
    print(text)
    if not options.smoke:
        (HERE / "NOISE.md").write_text(text)


if __name__ == "__main__":
    main()
