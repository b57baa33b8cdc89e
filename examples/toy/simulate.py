# %% [markdown]
# # The toy survey of the paper
#
# 8000 spectra of rank 5 on 1200 pixels. Errors range over five decades, half of the spectra have a hole,
# 40 are something else, 10 have foreign absorption lines; there are 3 bad columns and 38,400 bad pixels.
# It is drawn from our own generative model and then corrupted: `rp.simulate.toy` has the recipe.

# %%
from pathlib import Path
from typing import NamedTuple

import numpy as np

import robusta_prob as rp


class Halves(NamedTuple):
    """The survey, and which of its objects teach; the others judge."""

    survey: rp.simulate.Survey
    first: np.ndarray  # (N,) bool

    @property
    def train(self) -> rp.Dataset:
        return self.survey.data.take(self.first)

    @property
    def test(self) -> rp.Dataset:
        return self.survey.data.take(~self.first)


def halves(objects: int, pixels: int, seed: int) -> Halves:
    """Always the same survey, and the same halves as `rp.select` makes of it."""
    survey = rp.simulate.toy(objects, pixels, seed=seed)
    train, _ = rp.split(survey.data, 0.5, seed=seed)
    return Halves(survey, np.isin(survey.data.ids, train.ids))


def main(output: Path, objects: int = 8000, pixels: int = 1200, seed: int = 0) -> None:
    """Write the spectra, for the command line and for other programs."""
    output.mkdir(parents=True, exist_ok=True)
    survey = rp.simulate.toy(objects, pixels, seed=seed)
    rp.write(survey.data, output / "survey.h5")
    print(f"{output / 'survey.h5'}: {survey.data.census}")
