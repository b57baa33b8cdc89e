"""What is to be optimised, and one pass of it: shared by starts, fit, projection and noise law."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from robusta_prob.data import Dataset
from robusta_prob.inference import em
from robusta_prob.inference.anneal import Robustness
from robusta_prob.inference.blocks import Blocks, rows_per_batch
from robusta_prob.inference.iterate import Epoch
from robusta_prob.inference.linalg import pair_count
from robusta_prob.inference.m_step import Learn, flat_population, population_of
from robusta_prob.inference.quantities import Form, Globals, Population, Settings
from robusta_prob.models.noise import Noise, NoiseLaw
from robusta_prob.models.priors import Prior

HALF_NORMAL_MEDIAN2 = 0.4549  # median of z^2 for a standard normal z
FIRST_INVERSE_DF = 0.1  # where learning of 1/nu begins
FIRST_CONTAMINATION = 0.05
FIRST_WIDTH = 30.0  # in units of the typical residual
# 2^19 cells suffice for a noise law of five parameters, its scale is then known to 0.1 %: where there are so
# many cells, one of so many is heard
STRIDES = {2**24: 32, 2**22: 8}
SPREAD_CELLS = 2**19  # cells that tell how much the errors vary, about
FIRST_LAW_CELLS = 10_000  # cells that a first guess of scale and floor looks at
NO_CUT = 1e30  # an object cut that never bites, within float32


class Problem(NamedTuple):
    """A data set's model, resolved: what is learned, what is given, what is marginalised."""

    data: Dataset
    rank: int
    noise: Noise
    prior: Prior
    learn: Learn
    separable: bool  # whether the given errors vary enough to tell a scale from a floor
    dtype: np.dtype
    # what a sweep is compiled for, the same for parts of the data:
    rows: int  # of a block
    stride: int = 1  # how many cells go to each that says something about the noise law

    @classmethod
    def of(
        cls, data: Dataset, rank: int, noise: Noise, prior: Prior, batch_rows: int | None = None
    ) -> Problem:
        """Resolve user settings; floors are in the user's unit here."""
        per_pixel = noise.floor == "pixel"
        separable = scale_and_floor_separate(data, per_pixel)
        learn_floor = (noise.floor is None or per_pixel) and (separable or noise.scale is not None)
        learn = Learn(
            basis=True,
            nu=noise.nu is None,
            scale=noise.scale is None,
            floor=learn_floor,
            contamination=noise.learns_contamination,
            width=noise.has_contamination,
            population=not prior.is_flat,
        )
        rows = batch_rows or rows_per_batch(data)
        stride = 1 if per_pixel else stride_of(data)
        return cls(data, rank, noise, prior, learn, separable, data.dtype, rows, stride)

    @property
    def form(self) -> Form:
        """Coefficients are marginalised wherever they have a proper prior."""
        return Form(not self.prior.is_flat, self.noise.has_contamination, self.stride)

    @property
    def per_pixel(self) -> bool:
        """Whether every pixel has a floor of its own."""
        return self.noise.floor == "pixel"

    @property
    def floor_shape(self) -> tuple[int, ...]:
        """Of the floor: one, or one per pixel."""
        return (self.data.shape[1],) if self.per_pixel else ()

    @property
    def given_floor(self) -> float | None:
        """The floor in the user's unit, where it is not learned."""
        if self.learn.floor:
            return None
        return 0.0 if self.noise.floor is None or self.per_pixel else float(self.noise.floor)

    def settings(
        self,
        robustness: Robustness,
        learn: Learn,
        *,
        bare: bool = False,
    ) -> Settings:
        """Of a pass, as arrays of the data's dtype (so that no value compiles anything)."""
        cut = NO_CUT if self.prior.is_flat else chi2_quantile(self.rank)
        values = (*robustness, any(learn) or bare, bare, cut)
        return Settings(*(np.asarray(x, self.dtype) for x in values))

    def law(self, law: NoiseLaw) -> NoiseLaw:
        """A noise law as arrays of the data's dtype."""
        return NoiseLaw(*(jnp.asarray(x, self.dtype) for x in law))

    def shared(
        self, basis: Float[np.ndarray, "rank pixels"], law: NoiseLaw, population: Population
    ) -> Globals:
        """Shared values to begin with."""
        return Globals(
            jnp.asarray(basis, self.dtype),
            law,
            population,
            basis_covariance=jnp.zeros((pair_count(len(basis)), basis.shape[1]), self.dtype),
        )

    def population(
        self, mean: Float[np.ndarray, " rank"], covariance: Float[np.ndarray, "rank rank"]
    ) -> Population:
        """The population's prior: flat, or this first guess of it."""
        law = flat_population(self.rank) if self.prior.is_flat else population_of(mean, covariance)
        return Population(*(jnp.asarray(np.asarray(x, self.dtype)) for x in law))

    def step(
        self,
        state: em.State,
        blocks: Blocks,
        robustness: Robustness,
        epoch: int,
        stage: str,
        learn: Learn | None = None,
        *,
        bare: bool = False,
        steady: bool = True,
        updates: int = 1,
        times: int = 1,
    ) -> tuple[em.State, em.Info, Epoch]:
        """One pass of the engine and its line of the history.

        With `bare` its statistics tell the influence of residuals as they are, without what Cov(a) adds.
        """
        learn = learn or self.learn
        new, info = em.step(
            state,
            blocks,
            self.settings(robustness, learn, bare=bare),
            learn,
            form=self.form,
            steady=steady,
            updates=updates,
            times=times,
        )
        law = new.shared.loss
        line = Epoch(
            epoch,
            stage,
            info.bound,
            info.moves.basis,
            info.moves.noise,
            *robustness,
            law.nu,
            float(law.scale),
            law.typical_floor * self.data.unit,
            float(law.contamination),
        )
        return new, info, line

    def first_law(
        self, residual: Float[np.ndarray, "objects pixels"], ivar: Float[np.ndarray, "objects pixels"]
    ) -> NoiseLaw:
        """Given parts as given; scale and floor such that the median z^2 of these residuals is a normal's."""
        inverse_df = FIRST_INVERSE_DF if self.noise.nu is None else 1.0 / self.noise.nu
        scale, floor = self.noise.scale, self.given_floor
        some = np.flatnonzero(ivar > 0)
        some = some[np.linspace(0, max(some.size - 1, 0), min(some.size, FIRST_LAW_CELLS)).astype(int)]
        r2, variance = residual.flat[some].astype(float) ** 2, 1.0 / ivar.flat[some].astype(float)
        if floor is None:
            floor2 = _matching_floor2(r2 / (1.0 if scale is None else scale) ** 2, variance)
        else:
            floor2 = (floor / self.data.unit) ** 2
        if scale is None:
            scale = math.sqrt(max(np.median(r2 / (variance + floor2)) / HALF_NORMAL_MEDIAN2, 1e-12))
        contamination = FIRST_CONTAMINATION if self.learn.contamination else self.noise.contamination or 0.0
        width = FIRST_WIDTH * max(math.sqrt(np.median(r2)), 1e-12)
        floors = np.full(self.floor_shape, math.sqrt(floor2))
        return self.law(NoiseLaw(inverse_df, scale, floors, contamination, width))


def stride_of(data: Dataset) -> int:
    """How many cells go to each that says something about the noise law, where it is one for all pixels."""
    cells, pixels = data.census.observed, data.shape[1]
    return max((x for many, x in STRIDES.items() if cells >= many and pixels >= x), default=1)


def scale_and_floor_separate(data: Dataset, per_pixel: bool = False) -> bool:
    """Whether the errors vary enough: the Cramer-Rao bound of f^2 / sigma^2 at f = 0 is below 0.1.

    At a log-spread tau of sigma^2 over n cells that bound is about sqrt(2/n) / tau; with a floor per pixel,
    of the cells and within the pixels.
    """
    step = max(1, data.shape[0] // min(max(SPREAD_CELLS // data.shape[1], 256), 2000))
    ivar = np.asarray(data.ivar[::step])
    seen = ivar > 0
    size = np.log(np.where(seen, ivar, 1.0), dtype=float)
    if seen.sum() < 2:
        return False
    count = seen.sum(0, keepdims=True) if per_pixel else seen.sum(keepdims=True)
    middle = (size * seen).sum(0 if per_pixel else None, keepdims=True) / np.maximum(count, 1)
    offset = (size - middle)[seen]
    # of the bulk: a few wild errors can tell a floor from a scale only if they are believed
    tau = float(np.clip(offset, *np.quantile(offset, (0.02, 0.98))).std())
    return bool(math.sqrt(2.0 / (step * np.median(count[count > 0]))) < 0.1 * tau)


def chi2_quantile(df: int) -> float:
    """99 % quantile of chi-squared (Wilson & Hilferty 1931)."""
    return df * (1.0 - 2.0 / (9.0 * df) + 2.3263 * math.sqrt(2.0 / (9.0 * df))) ** 3


def _matching_floor2(r2: Float[np.ndarray, " cells"], variance: Float[np.ndarray, " cells"]) -> float:
    """f^2 with median r^2 / (sigma^2 + f^2) = that of a normal; 0 where the errors are large enough."""

    def excess(floor2: float) -> float:
        return float(np.median(r2 / (variance + floor2))) - HALF_NORMAL_MEDIAN2

    low, high = 0.0, float(np.median(r2)) / HALF_NORMAL_MEDIAN2
    if excess(0.0) <= 0:
        return 0.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high
