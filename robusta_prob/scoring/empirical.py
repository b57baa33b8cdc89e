"""The bulk of the objects: where their deviates lie that should be standard normal (Efron 2004)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

NORMAL_QUARTILE = 0.67449
NARROWEST = 1e-3  # bulk of the objects [z]
OBJECT, RUN = "object", "run"  # tests, beside those of sets of lines
GROUP, MOST_GROUPS = 100, 64  # objects of similar errors at least, and groups of them at most
STRANGE = 3.5  # deviations, by the quartiles of its group, beyond which an object says nothing of its width
TAIL = 0.95  # quantile of the others that tells how wide a group's bulk is towards its tail
# What a basis lacks may grow with the distance from the population: not, or as its root (the distance is
# squared). In proportion, strange objects, whose coefficients are strange too, would be left to themselves.
POWERS = (0.0, 0.25)
DOUBT = 1e-3  # mean log density [nats] by which leaving out the distance has to be better
NEAREST = 0.25  # squared distance per component, below which all are equally well described
CARRIED = (
    1.0  # e-folds of the error, over which a width is carried on beyond the group of the smallest errors
)
LEAST_BEYOND = 20  # objects beyond a quantile that is trusted
LEAST_QUANTILES = 3  # of a tail that is carried on as an exponential one; a shorter one as a normal one


class Tail(NamedTuple):
    """Of a test with a sign, whose normal objects are symmetric: how far beyond a normal law they reach.

    Attributes
    ----------
    z : tuple of float
        Deviates, rising from 0, and
    normal : tuple of float
        the normal deviates beyond which is the same share of objects, on the side that has fewer of them.
    decay : float
        In which the share falls by a factor of e beyond the last of them; 0 where it falls as a normal one.
    """

    z: tuple[float, ...]
    normal: tuple[float, ...]
    decay: float

    @classmethod
    def of(cls, z: Float[np.ndarray, " objects"]) -> Tail:
        """That of the side with fewer objects far out: an emission line is no absorption line."""
        known = z[np.isfinite(z)]
        if not len(known):
            return cls((0.0,), (0.0,), 0.0)
        steps = max(int(np.log2((1.0 - TAIL) * len(known) / LEAST_BEYOND)), 0)
        shares = (1.0 - TAIL) * 0.5 ** np.arange(steps + 1)  # 5, 2.5, 1.25 % ... while enough are beyond
        sides = np.array([np.quantile(side, 1.0 - shares) for side in (known, -known)])
        last = int(sides[:, -1].argmin())
        side, end = (known, -known)[last], sides[last, -1]
        normal = -special.ndtri(shares)
        decay = 0.0
        if len(shares) >= LEAST_QUANTILES and (side > end).any():
            decay = float(np.median(side[side > end]) - end) / np.log(2.0)
        knots = np.maximum.accumulate(np.maximum(sides.min(0), normal))
        return cls((0.0, *knots.tolist()), (0.0, *normal.tolist()), decay)

    def deviates(self, z: Float[np.ndarray, " objects"]) -> Float[np.ndarray, " objects"]:
        """Normal deviates of the same probability; none is larger than it was."""
        size, end, last = np.abs(z), self.z[-1], self.normal[-1]
        inside = np.interp(size, self.z, self.normal)
        if self.decay > 0.0:
            log_p = special.log_ndtr(-last) - np.maximum(size - end, 0.0) / self.decay
            beyond = -special.ndtri_exp(log_p)
        else:
            beyond = size * (last / end if end > 0.0 else 1.0)
        return np.sign(z) * np.minimum(size, np.where(size > end, beyond, inside))


class EmpiricalNull(NamedTuple):
    """Where the bulk of the objects lies in z, 0 and 1 where the null law holds (Efron 2004).

    Attributes
    ----------
    centre, width : float
        Of the deviates of `p_value`: their median, and their width by the quartiles.
    applied : bool
        Whether p-values were taken against this normal law, see `empirical_null` of `rp.surprise`.
    run_centre, run_width : float
        The same of the deviates of `p_run`; NaN where there are none.
    levels : tuple of float
        `relative_error`, rising, of groups of objects; empty but for "by error".
    by_error : mapping of test to (groups, 2) tuples
        Centre and width of every group, of the tests "object", "run" and the sets of lines.
    tails : mapping of set of lines to Tail
        Of their deviates from these bulks.
    power : float
        Of the squared Mahalanobis distance per component, by which errors are divided for `levels`.
    """

    centre: float
    width: float
    applied: bool
    run_centre: float = 0.0
    run_width: float = 1.0
    levels: tuple[float, ...] = ()
    by_error: Mapping[str, tuple[tuple[float, float], ...]] = MappingProxyType({})
    tails: Mapping[str, Tail] = MappingProxyType({})

    power: float = 0.0

    def __str__(self) -> str:
        if self.levels:
            return "p-values are taken against objects with similar errors"
        use = "p-values are taken against it" if self.applied else "0 and 1 where the null law holds"
        runs = f", of runs {self.run_centre:.2f} +- {self.run_width:.2f}" if self.run_width > 0 else ""
        return f"z = {self.centre:.2f} +- {self.width:.2f}{runs} ({use})"

    def relative_error(
        self, level: Float[np.ndarray, " objects"], distance: Float[np.ndarray, " objects"]
    ) -> Float[np.ndarray, " objects"]:
        """Logarithm of the errors [log flux], less that of how much the basis may lack of an object.

        An object of which no distance is known counts as near.
        """
        return level - self.power * np.log(np.fmax(distance, NEAREST))

    def bulk_at(
        self, test: str, error: Float[np.ndarray, " objects"]
    ) -> tuple[Float[np.ndarray, " objects"], Float[np.ndarray, " objects"]]:
        """Centre and width of a test's bulk among objects with such a `relative_error`."""
        centres, widths = np.array(self.by_error[test]).T
        variance = np.interp(error, self.levels, widths**2)
        # what the model does not describe is a flux: its variance over that of the errors goes like error^-2
        beyond = np.clip(self.levels[0] - error, 0.0, CARRIED if len(self.levels) > 1 else 0.0)
        variance += (widths[0] ** 2 - 1.0) * np.expm1(2.0 * beyond)
        return np.interp(error, self.levels, centres), np.sqrt(variance)

    def standardised(
        self,
        test: str,
        z: Float[np.ndarray, " objects"],
        level: Float[np.ndarray, " objects"],
        distance: Float[np.ndarray, " objects"],
    ) -> Float[np.ndarray, " objects"]:
        """Deviates of a test against the bulk of similar objects; unchanged where none is known.

        `level` is the mean logarithm of their errors [log flux], `distance` the squared Mahalanobis distance
        of their coefficients, per component.
        """
        if not self.levels:
            known = {OBJECT: (self.centre, self.width), RUN: (self.run_centre, self.run_width)}
            centre, width = known.get(test, (0.0, 1.0))
            return (z - centre) / width
        if test not in self.by_error:
            tests = ", ".join(map(repr, self.by_error))
            raise ValueError(f"the empirical null knows the tests {tests}, not {test!r}: give the same lines")
        at, spread = self.bulk_at(test, self.relative_error(level, distance))
        z = (z - at) / spread
        return self.tails[test].deviates(z) if test in self.tails else z


def bulk_of(z: Float[np.ndarray, " objects"]) -> tuple[float, float]:
    """Centre and width of the bulk of these deviates, by median and quartiles."""
    known = z[np.isfinite(z)]
    if not len(known):
        return np.nan, np.nan
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    width = max(float(high - low) / (2.0 * NORMAL_QUARTILE), NARROWEST)
    return float(middle), width


def by_error(
    plain: EmpiricalNull,
    level: Float[np.ndarray, " objects"],
    distance: Float[np.ndarray, " objects"],
    tests: Mapping[str, Float[np.ndarray, " objects"]],
    two_sided: frozenset[str],
) -> EmpiricalNull:
    """The same with the bulks of groups of similar errors, relative to the distance if that tells more.

    Beyond its bulk a test without a sign is taken as normal. The width of a bulk is told by its upper tail,
    of objects that are not strange by its quartiles, and is at least 1, and no centre of a test without a
    sign is below 0: by these no object becomes more surprising than the null law has it. `two_sided` are
    tests whose deviates have a sign.
    """
    best, null = -np.inf, plain
    for power in POWERS:
        error = plain._replace(power=power).relative_error(level, distance)
        tried = _grouped(plain._replace(power=power), error, tests, two_sided)
        density = _log_density(tried, error, tests, two_sided)
        if density > best - DOUBT:
            best, null = density, tried
    # what is strange by other tests says nothing of how far normal objects reach
    strange = np.zeros(len(level), bool)
    for name in set(tests) - two_sided:
        strange |= null.standardised(name, tests[name], level, distance) > STRANGE
    tails = {}
    for name in sorted(two_sided):
        z = null.standardised(name, tests[name], level, distance)
        tails[name] = Tail.of(np.where(strange, np.nan, z))
    return null._replace(tails=MappingProxyType(tails))


def _grouped(
    null: EmpiricalNull,
    error: Float[np.ndarray, " objects"],
    tests: Mapping[str, Float[np.ndarray, " objects"]],
    two_sided: frozenset[str],
) -> EmpiricalNull:
    """Bulks of all tests in groups of rising `relative_error`."""
    known = np.flatnonzero(np.isfinite(tests[OBJECT]))
    groups = np.clip(len(known) // GROUP, 1, MOST_GROUPS)
    rising = known[np.argsort(error[known], kind="stable")]
    members = np.array_split(rising, groups)
    middles = np.array([np.quantile(error[rows], 0.5, method="lower") for rows in members])
    distinct, first = np.unique(middles, return_index=True)
    starts = np.cumsum([0, *map(len, members)])[first]
    alike = np.split(rising, starts[1:])  # groups with the same errors are one
    found = {}
    for name, z in tests.items():
        centre, width = np.array([_towards_tail(z[rows], name in two_sided) for rows in alike]).T
        width = np.exp(_smoothed(np.log(width)))
        found[name] = tuple(zip(_smoothed(centre).tolist(), width.tolist(), strict=True))
    return null._replace(levels=tuple(distinct.tolist()), by_error=MappingProxyType(found))


def _log_density(
    null: EmpiricalNull,
    error: Float[np.ndarray, " objects"],
    tests: Mapping[str, Float[np.ndarray, " objects"]],
    two_sided: frozenset[str],
) -> float:
    """Mean over the deviates towards their tails, as normal ones; strange ones count as just so."""
    total = 0.0
    for name, z in tests.items():
        centre, width = null.bulk_at(name, error)
        x = (z - centre) / width
        x = np.minimum(np.abs(x) if name in two_sided else x, STRANGE)
        here = x > 0.0
        if here.any():
            total -= float((0.5 * x[here] ** 2 + np.log(width[here])).mean())
    return total


def _smoothed(x: Float[np.ndarray, " groups"]) -> Float[np.ndarray, " groups"]:
    """Each with its neighbours, which count half; the ends are left, where the widths are steepest."""
    inner = 0.25 * (x[:-2] + 2.0 * x[1:-1] + x[2:])
    return np.concatenate([x[:1], inner, x[1:][-1:]])


def _towards_tail(z: Float[np.ndarray, " group"], two_sided: bool) -> tuple[float, float]:
    known = z[np.isfinite(z)]
    if not len(known):
        return 0.0, 1.0
    centre = float(np.median(known))
    beyond = np.abs(known - centre) if two_sided else known - centre
    quarter, tail = (special.ndtri(0.5 * (1.0 + q) if two_sided else q) for q in (0.75, TAIL))
    width = max(float(np.quantile(beyond, 0.75)) / quarter, 1.0)
    usual = beyond[beyond < STRANGE * width]
    width = max(float(np.quantile(usual, TAIL)) / tail, 1.0)
    return (centre if two_sided else max(centre, 0.0)), width
