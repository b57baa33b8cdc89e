"""The kinds of anomalies that can be put into objects: what each adds to their flux."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

CONTRAST = 0.3  # rms of a foreign spectrum about its level: it is level (1 + CONTRAST shape)
DRAWN = 3  # lines of a set whose positions are not given


class Block(NamedTuple):
    """Some objects, and what is to be done to them; flux in units of `data.unit`."""

    flux: Float[np.ndarray, "rows pixels"]  # what the anomaly is made of, without holes
    level: Float[np.ndarray, "rows 1"]
    sigma: Float[np.ndarray, "rows pixels"]  # 0 where missing
    noisy: bool  # whether `flux` has the noise in it
    centre: Float[np.ndarray, "rows positions"]  # [pixels]
    width: float  # [pixels]
    other: Float[np.ndarray, "rows pixels"] | None  # a second spectrum, at the level of the object
    rng: np.random.Generator


Amplitude = Float[np.ndarray, "rows 1"]
Added = Float[np.ndarray, "rows pixels"]


def _emission(a: Amplitude, block: Block) -> Added:
    pixel = np.arange(block.flux.shape[1])
    profile = np.zeros(block.flux.shape)
    for centre in block.centre.T:
        profile += np.exp(-0.5 * ((pixel - centre[:, None]) / block.width) ** 2)
    return a * block.level * profile


def _absorption(a: Amplitude, block: Block) -> Added:
    return -_emission(a, block)


def _second(a: Amplitude, block: Block) -> Added:
    return a * np.asarray(block.other)


def _shifted(a: Amplitude, block: Block) -> Added:
    inside = np.abs(np.arange(block.flux.shape[1]) - block.centre) < 0.5 * block.width
    return np.where(inside, moved(block.flux, a[:, 0]) - block.flux, 0.0)


def _noise(a: Amplitude, block: Block) -> Added:
    return np.sqrt(a**2 - 1.0) * block.sigma * block.rng.standard_normal(block.flux.shape)


def _foreign(a: Amplitude, block: Block) -> Added:
    white = block.rng.standard_normal(block.flux.shape)
    shape = ndimage.gaussian_filter1d(white, block.width, axis=1, mode="wrap")
    shape /= np.sqrt((shape**2).mean(1, keepdims=True))
    d = a * (block.level * (1.0 + CONTRAST * shape) - block.flux)
    if block.noisy:  # (1 - a)^2 of the noise's variance is left
        d += np.sqrt(a * (2.0 - a)) * block.sigma * block.rng.standard_normal(d.shape)
    return d


def moved(
    flux: Float[np.ndarray, "rows pixels"], shift: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, "rows pixels"]:
    """Flux moved to the right by `shift` pixels; the ends go on as they are."""
    last = flux.shape[1] - 1
    x = np.clip(np.arange(last + 1) - shift[:, None], 0.0, last)
    left = np.floor(x).astype(int)
    right, part = np.minimum(left + 1, last), x - left
    take = np.take_along_axis
    return (1.0 - part) * take(flux, left, 1) + part * take(flux, right, 1)


class Kind(NamedTuple):
    """How an anomaly is made of its amplitude, and what may be asked of it."""

    added: Callable[[Amplitude, Block], Added]
    least: float
    most: float
    width: Callable[[int], float] | None = None  # default, from the number of pixels; None: it has none
    positions: int = 0  # how many are drawn


KINDS = {
    "emission line": Kind(_emission, 0.0, math.inf, lambda m: 2.0, 1),
    "absorption line": Kind(_absorption, 0.0, math.inf, lambda m: 2.0, 1),
    "line set": Kind(_emission, -math.inf, math.inf, lambda m: 2.0, DRAWN),
    "second spectrum": Kind(_second, 0.0, math.inf),
    "shifted segment": Kind(_shifted, -math.inf, math.inf, lambda m: float(max(1, m // 8)), 1),
    "scaled noise": Kind(_noise, 1.0, math.inf),
    "foreign spectrum": Kind(_foreign, 0.0, 1.0, lambda m: max(1.0, m / 50)),
}
