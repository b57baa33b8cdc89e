"""What is believed about the noise: a Student-t law with known per-cell variances, a scale and a floor.

    y_ij | m_ij ~ (1 - eps) StudentT(nu, m_ij, S_ij) + eps Cauchy(m_ij, sqrt(width^2 + S_ij^2)),
    S_ij^2 = s^2 (sigma_ij^2 + f^2),     sigma_ij^2 = 1 / ivar_ij.

A share eps of the cells, the contamination, is bad (Tukey 1960): off by some width in flux, on top of the
noise. At eps = 0 the law is the plain Student-t. Without eps, bad cells
would have to be paid for with a small nu, and a small nu throws away information of the good ones: with
10 % of gross cells the basis is 1.5 times less accurate.

Everything is written in 1/nu, which is finite and smooth through the Gaussian limit 1/nu = 0, also in
float32 (the textbook density in nu is wrong by 0.9 nats per pixel at nu = 1e7 there).
"""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

NO_SHARE = 1e-4  # of bad cells: a smaller one is none, when a law is told


class Noise(NamedTuple):
    """Which parts of the noise law are given, and which are learned (`None`).

    `Noise()` learns everything. `Noise(1.0, Q, 0.0)` is the loss of Hilder, Hogg, Casey & Rix with their
    robustness scale Q: nu = 1, s = Q, no floor. `Noise(math.inf, 1.0, 0.0)` is Gaussian with the errors
    as given. A given nu is the whole tail, unless a contamination is given as well. The width of bad cells
    is learned wherever there may be any.
    """

    nu: float | None = None  # degrees of freedom, 0 < nu <= inf
    scale: float | None = None  # s > 0, the factor on the given errors
    floor: float | str | None = (
        None  # f >= 0, added in quadrature, in the unit of flux; "pixel": one per pixel
    )
    contamination: float | None = None  # share of bad cells, 0 <= eps < 1; None: learned if nu is, else 0

    @property
    def learns_contamination(self) -> bool:
        """Whether the share of bad cells is learned."""
        return self.contamination is None and self.nu is None

    @property
    def has_contamination(self) -> bool:
        """Whether there may be bad cells, whose width is then learned."""
        given: Any = self.contamination  # may be traced: then there may be any
        none = given is None or (isinstance(given, numbers.Real) and float(given) == 0)
        return self.learns_contamination or not none

    @property
    def is_robust(self) -> bool:
        """Whether the law is anything but a given Gaussian, for which every cell counts in full."""
        return self.nu is None or self.nu < math.inf or self.has_contamination

    def validated(self) -> Noise:
        """`self`, or a ValueError that says which setting is impossible."""
        value: Any
        for name, value, good in (
            ("nu", self.nu, lambda x: x > 0),
            ("scale", self.scale, lambda x: 0 < x < math.inf),
            ("floor", self.floor, lambda x: 0 <= x < math.inf),
            ("contamination", self.contamination, lambda x: 0 <= x < 1),
        ):
            if value is None or isinstance(value, jax.core.Tracer):  # traced values cannot be looked at
                continue
            if isinstance(value, str) and name == "floor" and value == "pixel":
                continue
            if isinstance(value, jax.Array | np.ndarray) and value.ndim == 0:
                value = value.item()
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not good(float(value)):
                limits = {
                    "nu": "0 < nu <= inf",
                    "scale": "0 < scale < inf",
                    "floor": "0 <= floor < inf",
                    "contamination": "0 <= contamination < 1",
                }
                other = ', or "pixel" to learn one per pixel' if name == "floor" else ""
                if name == "floor" and np.ndim(value):
                    other += " (known floors per pixel belong into the data: ivar / (1 + ivar * floor**2))"
                raise ValueError(
                    f"noise.{name} must be a number with {limits[name]}, or None to learn it{other}; "
                    f"got {value!r}"
                )
        return self


class NoiseLaw(NamedTuple):
    """Values of the noise law; a pytree, so they may be traced."""

    inverse_df: Float[Array, ""] | float  # 1/nu
    scale: Float[Array, ""] | float  # s
    floor: Float[Array | np.ndarray, "*pixels"] | float  # f in the unit of the flux; one, or one per pixel
    contamination: Float[Array, ""] | float = 0.0  # eps, the share of bad cells
    width: Float[Array, ""] | float = 1.0  # of the bad cells, in the unit of the flux it is used with

    @property
    def nu(self) -> float:
        """Degrees of freedom; infinity in the Gaussian limit."""
        inverse = float(self.inverse_df)
        return 1.0 / inverse if inverse > 0 else math.inf

    @property
    def typical_floor(self) -> float:
        """The floor, or its median over the pixels."""
        return float(np.median(np.asarray(self.floor)))

    def in_unit(self, unit: float) -> NoiseLaw:
        """The same law for fluxes divided by `unit`."""
        return self._replace(floor=self.floor / unit, width=self.width / unit)

    def __str__(self) -> str:
        scale, floor, bad = float(self.scale), self.typical_floor, float(self.contamination)
        floors = " at the median pixel" if np.ndim(self.floor) else ""
        tail = f"; a share {bad:.2g} of the cells bad by {float(self.width):.2g}" if bad > NO_SHARE else ""
        return f"Student t, nu = {self.nu:.3g}; errors x {scale:.3g}; floor {floor:.2g}{floors}{tail}"


@jax.jit
def effective_ivar(ivar: Float[Array | np.ndarray, "*cells"], law: NoiseLaw) -> Float[Array, "*cells"]:
    """1 / (s^2 (sigma^2 + f^2)) per cell; 0 stays 0 for a missing one."""
    return jnp.asarray(ivar) / (law.scale**2 * (1.0 + ivar * law.floor**2))


class Law(NamedTuple):
    """The law of z = residual / (s sqrt(sigma^2 + f^2)) at some cells."""

    log_density: Float[Array, "*cells"]  # of z, normalised [nats]
    good: Float[Array, "*cells"]  # probability that the cell belongs to the core
    bad: Float[Array, "*cells"]  # 1 - good, with all its digits
    pull: Float[Array, "*cells"]  # -2 d log_density / d z^2, the E-step's precision in units of 1/(s sigma)^2
    slope: Float[Array, "*cells"]  # d (pull z) / dz


def law_at(z2: Float[Array, "*cells"], precision: Float[Array, "*cells"], law: NoiseLaw) -> Law:
    """Density of z and its derivatives: a scale mixture of normals, whose weights fall with z^2.

    `precision` is 1 / (s^2 (sigma^2 + f^2)) and must be positive. A contamination that is the plain number 0
    costs nothing.
    """
    eta, bad = jnp.asarray(law.inverse_df), law.contamination
    core = log_normaliser(eta) + log_kernel(z2, eta)
    weight = 1.0 / (1.0 + eta * z2)
    of_core = (1.0 + eta) * weight
    if isinstance(bad, float) and bad == 0.0:
        one = jnp.ones_like(of_core)
        return Law(core, one, 0.0 * one, of_core, of_core * (1.0 - 2.0 * eta * z2 * weight))
    most = 0.1 * float(jnp.finfo(core.dtype).max)
    width2 = jnp.minimum(1.0 + law.width**2 * precision, most)  # in units of z^2
    of_wide = 2.0 / (width2 + z2)
    good = (1.0 - bad) * jnp.exp(core)
    wide = bad / (2.0 * math.pi) * jnp.sqrt(width2) * of_wide
    # without bad cells the density may be smaller than the smallest number; safe to differentiate twice
    total = jnp.where(wide > 0, jnp.maximum(good + wide, jnp.finfo(core.dtype).tiny), 1.0)
    over_total = 1.0 / total  # divisions are dear
    share = wide * over_total
    density = jnp.where(wide > 0, jnp.log(total), core + jnp.log1p(-bad))
    good = jnp.where(wide > 0, good * over_total, 1.0)
    gap = of_core - of_wide
    change = (
        good * eta * of_core * weight + 0.5 * (share * of_wide) * of_wide + 0.5 * (share * gap) * gap * good
    )
    pull = good * of_core + share * of_wide
    return Law(density, good, share, pull, pull - 2.0 * z2 * change)


@jax.jit
def robust_weight(
    residual2: Float[Array | np.ndarray, "*cells"], ivar: Float[Array | np.ndarray, "*cells"], law: NoiseLaw
) -> Float[Array, "*cells"]:
    """A cell's weight in the fit over that of a perfect core cell, in [0, 1].

    Without contamination nu / (nu + z^2), the published robust weight, with Q^2 = nu s^2. 1 where missing.
    """
    precision = effective_ivar(ivar, law)
    at = law_at(precision * residual2, jnp.where(precision > 0, precision, 1.0), law)
    return jnp.where(precision > 0, jnp.minimum(at.pull / (1.0 + law.inverse_df), 1.0), 1.0)


def quadrature(nodes: int = 400) -> tuple[Float[np.ndarray, " nodes"], Float[np.ndarray, " nodes"]]:
    """Nodes z > 0 and weights of an integral over all z of an even function, up to |z| = 10^6."""
    step = math.asinh(1e6) / nodes
    places = (np.arange(nodes) + 0.5) * step
    return np.sinh(places), 2.0 * np.cosh(places) * step


def log_normaliser(inverse_df: Float[Array, ""] | float) -> Float[Array, ""]:
    """log of Gamma((nu+1)/2) / (Gamma(nu/2) sqrt(pi nu)), stable through 1/nu = 0.

    The ratio of Gammas is pushed up by its recurrence to x + 8, where Stirling's series for
    log Gamma(x + 1/2) - log Gamma(x) (Abramowitz & Stegun 6.1.40) has converged.
    """
    up = 8
    each, steps = jnp.expand_dims(jnp.asarray(inverse_df), -1), 2 * np.arange(up, dtype=np.int8)
    recurrence = jnp.log1p(each / (1.0 + steps * each)).sum(-1)  # unrolled it compiles slowly
    far = inverse_df / (1.0 + 2.0 * up * inverse_df)
    series = far / 4.0 - far**3 / 24.0 + far**5 / 20.0 - 17.0 * far**7 / 112.0 + 31.0 * far**9 / 36.0
    return 0.5 * jnp.log1p(2.0 * up * inverse_df) - recurrence - series - 0.5 * math.log(2.0 * math.pi)


@jax.custom_jvp
def log_kernel(z2: Float[Array, "*cells"], inverse_df: Float[Array, ""] | float) -> Float[Array, "*cells"]:
    """-(nu+1)/2 log(1 + z^2/nu), stable through 1/nu = 0, where it is -z^2/2."""
    safe = jnp.maximum(inverse_df, 1e-30)
    return -0.5 * (1.0 + inverse_df) * (log1p(safe * z2) / safe)


def log1p(x: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
    """log(1 + x) for x >= 0 with all its digits (Kahan; Higham 2002, sec. 1.14), twice as fast as XLA."""
    one = jnp.where(x < 1e30, 1.0, 2.0)  # or XLA would take 1 + x - 1 for x, rounded or not
    up = one + x
    rounded = up - one
    ratio = x / jnp.where(rounded > 0, rounded, 1.0)
    # where 1 is lost in x there is nothing to correct, and x may be infinite
    return jnp.where(rounded > 0, jnp.log(up) * jnp.where(up < 1e8, ratio, 1.0), x)


@log_kernel.defjvp
def _log_kernel_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    """By the slopes in closed form: autodiff would cancel where 1/nu is small."""
    (z2, inverse_df), (of_z2, of_inverse_df) = primals, tangents
    in_z2 = -0.5 * (1.0 + inverse_df) / (1.0 + inverse_df * z2)
    return log_kernel(z2, inverse_df), in_z2 * of_z2 + log_kernel_slope(z2, inverse_df) * of_inverse_df


def log_kernel_slope(
    z2: Float[Array, "*cells"], inverse_df: Float[Array, ""] | float
) -> Float[Array, "*cells"]:
    """Derivative of `log_kernel` with respect to 1/nu, without the cancellation that autodiff would meet."""
    small, y, safe = _split_small(z2, inverse_df)
    ratio = z2 / (1.0 + inverse_df * z2)
    series = z2**2 * _horner(y, -1 / 2, 2 / 3, -3 / 4, 4 / 5, -5 / 6, 6 / 7)
    exact = (inverse_df * ratio - log1p(inverse_df * z2)) / safe**2
    return -0.5 * (ratio + jnp.where(small, series, exact))


def _split_small(z2: Any, inverse_df: Any) -> tuple[Any, Any, Any]:
    """Where the series in y = z^2/nu holds; y cut to that range; and a 1/nu that is safe to divide by."""
    small = inverse_df * z2 < 0.02
    return small, jnp.where(small, inverse_df * z2, 0.0), jnp.where(inverse_df > 0, inverse_df, 1.0)


def _horner(y: Any, *coefficients: float) -> Any:
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = c + y * total
    return total


@jax.jit
def log_density(
    residual2: Float[Array | np.ndarray, "*cells"], ivar: Float[Array | np.ndarray, "*cells"], law: NoiseLaw
) -> Float[Array, "*cells"]:
    """Normalised log density of squared residuals, in nats; 0 where `ivar` is 0 (missing)."""
    precision = effective_ivar(ivar, law)
    seen = precision > 0
    log_precision = jnp.log(jnp.where(seen, precision, 1.0))
    at = law_at(precision * residual2, jnp.where(seen, precision, 1.0), law)
    return jnp.where(seen, 0.5 * log_precision + at.log_density, 0.0)
