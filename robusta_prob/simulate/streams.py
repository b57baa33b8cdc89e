"""One independent random stream for every ingredient of a survey."""

from __future__ import annotations

import numpy as np

# Every ingredient draws from its own stream, default_rng([seed, place in this tuple]): changing one
# leaves the others as they were. Append only, or every published number changes.
INGREDIENTS = ("basis", "coefficients", "sigma", "noise", "spectra", "columns", "pixels", "lines", "holes")


def stream(seed: int, ingredient: str) -> np.random.Generator:
    """Generator of one ingredient."""
    return np.random.default_rng([seed, INGREDIENTS.index(ingredient)])
