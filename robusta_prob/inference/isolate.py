"""What would break a fit is kept from it: cells beyond the reach of floating point, and pixels of their own.

A robust loss gives an extreme cell no weight, but only as long as its square is a number. A pixel that
follows none of the others (a dead column, a fill value) is another matter: all objects agree on it, so that
the likelihood gladly spends a component on it. It is left out, and the fit says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from robusta_prob.data import Dataset
from robusta_prob.validate import frozen

ALONE = 0.8  # leverage: a line sampled at Nyquist's rate leaves a third of its component to other pixels
PIXELS_PER_RANK = 5  # with fewer, even honest pixels come near a leverage of 1
FOLLOWS = 5.0  # errors
SAMPLE = 512  # objects that tell the size of a pixel
FURTHEST = 10.0  # in units of 1/sqrt(rounding): sizes of pixels beyond this ratio do not fit into one Gram


def within_reach(
    flux: Float[np.ndarray, "rows pixels"], ivar: Float[np.ndarray, "rows pixels"]
) -> tuple[Float[np.ndarray, "rows pixels"], Float[np.ndarray, "rows pixels"]]:
    """The same arrays, but that no flux, precision or squared z is beyond what sums of squares can hold.

    What changes was off by more than 10^11 typical fluxes or 10^17 errors (float32), and stays so.
    """
    most = float(np.finfo(flux.dtype).max) ** 0.9
    furthest, sharpest = most ** (1 / 3), most**0.8
    largest = max(float(flux.max()), -float(flux.min()))
    if largest <= furthest and float(ivar.max()) * max(largest, 1.0) ** 2 <= sharpest:
        return flux, ivar
    flux = np.clip(flux, -furthest, furthest)
    sharp = np.minimum(sharpest, most / np.maximum(flux.astype(float) ** 2, 1.0))
    return flux, np.minimum(ivar, sharp).astype(ivar.dtype)


def tamed(data: Dataset) -> Dataset:
    """The data set in memory and `within_reach`; itself, where it is so already."""
    data = data.load()
    flux, ivar = within_reach(np.asarray(data.flux), np.asarray(data.ivar))
    return data if flux is data.flux else replace(data, flux=frozen(flux), ivar=frozen(ivar))


def out_of_proportion(data: Dataset) -> Bool[np.ndarray, " pixels"]:
    """Pixels whose fluxes are so much larger than those of the median pixel that no Gram can hold both."""
    step = max(1, data.shape[0] // SAMPLE)
    flux, seen = np.asarray(data.flux[::step]), np.asarray(data.ivar[::step]) > 0
    seen &= flux != 0
    size = np.log(np.abs(np.where(seen, flux, 1.0)), dtype=float).sum(0) / np.maximum(seen.sum(0), 1)
    known = np.asarray(seen.any(0))
    if not known.any():
        return known
    limit = np.log(FURTHEST / np.sqrt(np.finfo(data.dtype).eps))
    return known & np.asarray(size - np.median(size[known]) > limit)


def alone(basis: Float[np.ndarray, "rank pixels"]) -> Bool[np.ndarray, " pixels"]:
    """Pixels that have a component for themselves: those of leverage near 1 on the subspace."""
    rank, used = len(basis), (basis != 0).any(0)
    if used.sum() < PIXELS_PER_RANK * rank:
        return np.zeros_like(used)
    Q, _ = np.linalg.qr(np.asarray(basis, float).T)
    return (Q**2).sum(1) > ALONE


def predicted(
    data: Dataset, coefficients: Float[np.ndarray, "objects rank"], pixels: Bool[np.ndarray, " pixels"]
) -> Bool[np.ndarray, " pixels"]:
    """Which of these pixels follow from the others after all: bright ones, not dead ones.

    `coefficients` are of a fit without them. Each pixel is regressed on them, three times with Cauchy
    weights; it follows if the typical residual is within `FOLLOWS` errors.
    """
    A, honest = np.asarray(coefficients, float), np.zeros_like(pixels)
    columns = np.flatnonzero(pixels)
    if not columns.size:
        return honest
    Y, W = np.asarray(data.flux[:, columns], float), np.asarray(data.ivar[:, columns], float)
    for j, y, ivar in zip(columns, Y.T, W.T, strict=True):
        seen, weight = ivar > 0, ivar
        if seen.sum() <= 2 * A.shape[1]:
            continue
        for _ in range(3):
            root = np.sqrt(weight[seen])
            g, *_ = np.linalg.lstsq(A[seen] * root[:, None], y[seen] * root, rcond=None)
            z2 = ivar * (y - A @ g) ** 2
            weight = ivar / (1.0 + z2 / max(float(np.median(z2[seen])), 1e-30))
        honest[j] = np.median(z2[seen]) < FOLLOWS**2
    return honest


def note(isolated: Bool[np.ndarray, " pixels"], left: Bool[np.ndarray, " pixels"]) -> list[str]:
    """What to tell of pixels that were left out, and of those that should have been."""
    notes = []
    if isolated.any():
        notes.append(
            f"{_named(isolated)} would have taken components for themselves and were left out. Look at "
            "them; where they are right and are to count, divide them and their errors by their size"
        )
    if left.any():
        notes.append(
            f"{_named(left)} still seem to take components for themselves: mask them, raise `max_epochs`, "
            "or lower the rank"
        )
    return notes


def _named(pixels: Bool[np.ndarray, " pixels"]) -> str:
    numbers = np.flatnonzero(pixels)
    some = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"{len(numbers)} pixel{'s' * (len(numbers) > 1)} (number {some}, counted from 0)"
