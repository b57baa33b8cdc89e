"""What `recovery` returns: shares with their binomial errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import special

# by which an object can be found, and before the last two by sets of lines that flag: "p_flag" is the least
# of those by which `rp.surprise` flags, "any" the least of all
LISTS = ("p_value", "p_run", "p_pixel", "p_flag", "any")
ONE_SIGMA = 0.682689  # probability within it


class Proportion(NamedTuple):
    """`found` of `number`, with a central interval of 68 % for the share; NaN where there is none to find.

    The interval is Jeffreys', quantiles of Beta(found + 1/2, number - found + 1/2), with its end at 0 or 1
    where none or all are found: Brown, Cai & DasGupta (2001), Statistical Science 16, 101, section 3.1.3.
    """

    found: Int[np.ndarray, "*groups"]
    number: Int[np.ndarray, "*groups"]
    share: Float[np.ndarray, "*groups"]
    low: Float[np.ndarray, "*groups"]
    high: Float[np.ndarray, "*groups"]

    @classmethod
    def of(cls, found: Any, number: Any) -> Proportion:
        """From counts, broadcast against each other."""
        k, n = (np.asarray(x, int) for x in np.broadcast_arrays(found, number))
        tail = 0.5 * (1.0 - ONE_SIGMA)
        low = special.betaincinv(k + 0.5, n - k + 0.5, tail)
        high = special.betaincinv(k + 0.5, n - k + 0.5, 1.0 - tail)
        of_these = (k / np.maximum(n, 1), np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high))
        return cls(k, n, *(np.where(n > 0, x, np.nan) for x in of_these))


class Trials(NamedTuple):
    """Every one of the T injections of `rp.recovery`.

    Attributes
    ----------
    row : (T,) array of int
        Of the object, in the data.
    kind : (T,) array of str
        What was put in.
    amplitude : (T,) array
        In the unit of the kind, see `rp.inject`.
    strength : (T,) array
        Signal-to-noise of what was put in [sigma].
    beyond : (T,) array
        Signal-to-noise of what no coefficients can take up of it [sigma].
    p : (T, lists) array
        p_value, p_run, p_pixel, those of lines that flag; the least of those that flag, and of all; NaN where
        there is none.
    named : (T,) array of str
        The kind that `rp.surprise` named; "" where it flags nothing.
    """

    row: Int[np.ndarray, " trials"]
    kind: Shaped[np.ndarray, " trials"]
    amplitude: Float[np.ndarray, " trials"]
    strength: Float[np.ndarray, " trials"]
    beyond: Float[np.ndarray, " trials"]
    p: Float[np.ndarray, "trials lists"]
    named: Shaped[np.ndarray, " trials"]


class Completeness(NamedTuple):
    """How many injected anomalies are found, per group of trials; amplitudes and so on are medians."""

    kind: Shaped[np.ndarray, " groups"]
    amplitude: Float[np.ndarray, " groups"]
    strength: Float[np.ndarray, " groups"]  # [sigma]
    beyond: Float[np.ndarray, " groups"]  # [sigma]
    found: Proportion  # (groups, lists), of those that have the p-value
    named: Proportion  # (groups,): of those found and named, how many are called what they are


class FalsePositives(NamedTuple):
    """Share of objects as they are, nothing injected, with p below `level`; (levels, lists) each."""

    level: Float[np.ndarray, " levels"]
    all: Proportion  # of all objects with that p-value, real anomalies included: an upper limit
    normal: Proportion  # of the normal ones: a lower limit, as the strange have been taken out by their p


@dataclass(frozen=True, eq=False)
class Recovery:
    """What `rp.recovery` found; the columns of "lists" are those of `lists`."""

    level: float
    trials: Trials
    by_amplitude: Completeness  # one group per kind and amplitude
    by_strength: Completeness  # as many groups per kind, of equal numbers, by rising strength
    false_positives: FalsePositives
    lists: tuple[str, ...] = LISTS

    def half(self, kind: str, by: str = "p_flag") -> float:
        """Strength of what is injected at which half of it is found [sigma].

        That is the threshold that divides the found trials of this kind from the others with the fewest on
        its wrong side, midway where several do; NaN where that is below or above all that was injected. What
        has no strength, a control, does not count.

        Raises
        ------
        ValueError
            If nothing of this kind was injected, or `by` is none of the lists.
        """
        of_kind = (self.trials.kind == kind) & (self.trials.strength > 0)
        if not of_kind.any() or by not in self.lists:
            known = dict.fromkeys(self.trials.kind.tolist())
            raise ValueError(f"half({kind!r}, {by!r}): there are the kinds {[*known]} and lists {self.lists}")
        strength = self.trials.strength[of_kind]
        order = np.argsort(strength)
        found = (self.trials.p[of_kind, self.lists.index(by)] < self.level)[order]
        wrong = np.concatenate([[0], np.cumsum(found)]) + np.concatenate([np.cumsum(~found[::-1])[::-1], [0]])
        edges = np.concatenate([[np.nan], strength[order], [np.nan]])
        least = np.flatnonzero(wrong == wrong.min())
        return float(np.sqrt(edges[least[0]] * edges[least[-1] + 1]))
