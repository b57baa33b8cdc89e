"""`recovery`: how many injected anomalies the scores find, and how many objects they flag that have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_objects, check_same_pixels
from robusta_prob.inference.checks import check_types, seed_of
from robusta_prob.inference.projection import project
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.scoring.kinds import ERRORS, FOREIGN, LINES
from robusta_prob.scoring.outliers import surprise
from robusta_prob.scoring.recovered import Completeness, FalsePositives, Proportion, Recovery, Trials
from robusta_prob.scoring.results import FLAG, Surprise
from robusta_prob.scoring.trials import lists_of, p_values, tried

# what `surprise` should call an injected anomaly; a shifted segment is one or the other by its length
NAMED = {
    "emission line": (LINES,),
    "absorption line": (LINES,),
    "line set": (LINES,),
    "second spectrum": (FOREIGN,),
    "shifted segment": (LINES, FOREIGN),
    "scaled noise": (ERRORS,),
    "foreign spectrum": (FOREIGN,),
}
LEVELS = tuple(np.geomspace(1e-4, 0.5, 16).tolist())  # p of the false-positive curve


def recovery(
    fit: Fit,
    data: Dataset,
    amplitudes: Mapping[str, Sequence[float]],
    *,
    key: Array | int,
    level: float = 1e-3,
    per_amplitude: int = 200,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    scores: Surprise | None = None,
    projection: Projection | None = None,
    levels: Sequence[float] = LEVELS,
    callback: Callable[[Trials], None] | None = None,
) -> Recovery:
    """Inject anomalies of known kind and amplitude into normal objects, and count how many are found.

    Normal are objects that no list flags at a false-discovery rate of 5 %, by q_value, q_run, q_any or
    q_pixel. Every amplitude gets a random sample of them, and a kind uses no object twice where there are
    enough. Anomalies are made of the reconstructed flux, and judged as the data as they are were: by their
    null law, their empirical null where it was applied, the same windows and replicates. An object that
    taught the basis stays a training object, though the fit has not seen what was put into it.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    amplitudes : mapping of kind to amplitudes
        Kinds and units are those of `rp.inject`.
    key : JAX key or int
    level : float
        p-value below which an injected object counts as found, by each list for itself.
    per_amplitude : int
        Objects per kind and amplitude, at most as many as are normal.
    options : mapping of kind to keyword arguments, optional
        For `rp.inject`, such as `{"second spectrum": {"shift": 8.0}}`.
    scores : Surprise, optional
        Of all cells of these data, if there are any already; else all objects are scored first.
    projection : Projection, optional
        Of these data, if there is one already.
    levels : sequence of float
        p of the false-positive curve.
    callback : callable, optional
        Gets the trials of every kind when it is done: `lambda trials: bar.update()` with a bar of tqdm.

    Returns
    -------
    Recovery
        `.by_amplitude` and `.by_strength` have shares found per list, `.trials` every injection,
        `.false_positives` the shares of objects as they are. A list counts the objects that have its p-value.

    Raises
    ------
    ValueError
        On an unknown kind, numbers out of range, an option that `rp.inject` refuses, data on other pixels
        than the fit's or without normal objects, or a projection or scores of other objects, of another rank
        or of other cells (`held_out`).
    TypeError
        If `amplitudes` is no mapping of kinds to numbers, or another argument is not what its name says.

    Notes
    -----
    "any" counts if one of three p-values (or of those and of each set of lines, where these flag) is below
    `level`: up to so many times as many false positives.
    Binomial errors take trials as independent. `rp.surprise` names the kind of what its q-values flag
    among all injected objects of that kind. Objects that it judges by replicates of all of them, by default
    those with fewer than ten observed pixels per component, are scored in batches among 20 times as many
    untouched ones.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> data = rp.simulate.low_rank(200, 100, 2, seed=1).data
    >>> found = rp.recovery(rp.fit(data, 2), data, {"emission line": [0.01, 1.0]}, key=0, per_amplitude=50)
    >>> found.by_amplitude.found.share.shape
    (2, 5)
    """
    check_same_pixels(fit, data)
    check_types(None, None, None, key, per_amplitude=per_amplitude)
    wanted = _checked(amplitudes)
    options = {} if options is None else options
    if unknown := set(options) - set(wanted):
        raise ValueError(f"options has kinds that amplitudes has not: {sorted(unknown)}")
    if per_amplitude < 1:
        raise ValueError(f"per_amplitude must be at least 1, got {per_amplitude}")
    grid = np.atleast_1d(np.asarray(levels, float))
    if not (0.0 < level < 1.0 and ((grid > 0.0) & (grid < 1.0)).all()):
        raise ValueError(f"level and levels must lie between 0 and 1, got {level} and {levels!r}")
    projection = project(fit, data) if projection is None else projection
    check_same_objects(projection, data, fit=fit)
    scores = surprise(fit, data, projection) if scores is None else scores
    check_same_objects(scores, data, "scores", "surprise")
    if not np.array_equal(scores.object.n_observed, data.count(fit.trained)):
        raise ValueError(
            "scores were made by other cells than those of these data: where some were held out, give "
            "data.hide(held_out), else leave the scores out"
        )

    normal = _normal(scores)
    candidates = np.flatnonzero(normal)
    if not len(candidates):
        raise ValueError("no object of the data is normal by its scores: there is nothing to inject into")
    rng = np.random.default_rng(seed_of(key))
    parts = []
    for kind, values in wanted.items():
        rows = _samples(candidates, len(values), per_amplitude, rng)
        each = np.repeat(values, len(rows) // len(values))
        own = options.get(kind, {})
        parts.append(tried(fit, data, projection, scores, rows, kind, each, int(rng.integers(2**31)), own))
        if callback is not None:
            callback(parts[-1])
    trials = Trials(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    p = p_values(scores)
    return Recovery(
        level,
        trials,
        _completeness(trials, level, _by_amplitude(trials, wanted)),
        _completeness(trials, level, _by_strength(trials, wanted)),
        FalsePositives(grid, _below(p, grid), _below(p[normal], grid)),
        lists_of(scores),
    )


def _checked(amplitudes: Any) -> dict[str, Float[np.ndarray, " amplitudes"]]:
    if not isinstance(amplitudes, Mapping) or not amplitudes:
        raise TypeError(
            f"amplitudes must map kinds to numbers, as in {{'emission line': [0.1, 0.3]}}; got {amplitudes!r}"
        )
    out = {}
    for kind, values in amplitudes.items():
        if kind not in NAMED:
            raise ValueError(f"kind must be one of {', '.join(map(repr, NAMED))}; got {kind!r}")
        try:
            out[kind] = np.unique(np.asarray(values, float))
        except (TypeError, ValueError):
            raise TypeError(f"amplitudes[{kind!r}] must be numbers, got {values!r}") from None
        if not out[kind].size:
            raise ValueError(f"amplitudes[{kind!r}] is empty: give at least one, or leave the kind out")
    return out


def _normal(scores: Surprise) -> Bool[np.ndarray, " objects"]:
    """Objects with a score that are in no list; those without a `p_run` are in none by it."""
    o = scores.object
    lists = np.stack([o.q_value, o.q_run, o.q_any, o.q_pixel])
    return ~np.isnan(o.p_value) & ~(lists < FLAG).any(0)


def _samples(
    candidates: Int[np.ndarray, " normal"], number: int, each: int, rng: np.random.Generator
) -> Int[np.ndarray, " trials"]:
    """`number` random samples one after the other: apart from each other where there are enough objects."""
    each = min(each, len(candidates))
    if number * each <= len(candidates):
        return rng.permutation(candidates)[: number * each]
    return np.concatenate([rng.permutation(candidates)[:each] for _ in range(number)])


def _by_amplitude(
    trials: Trials, wanted: Mapping[str, Float[np.ndarray, " amplitudes"]]
) -> list[Int[np.ndarray, " some"]]:
    return [
        np.flatnonzero((trials.kind == kind) & (trials.amplitude == a))
        for kind, values in wanted.items()
        for a in values
    ]


def _by_strength(
    trials: Trials, wanted: Mapping[str, Float[np.ndarray, " amplitudes"]]
) -> list[Int[np.ndarray, " some"]]:
    groups = []
    for kind, values in wanted.items():
        of_kind = np.flatnonzero(trials.kind == kind)
        groups += np.array_split(of_kind[np.argsort(trials.strength[of_kind])], len(values))
    return groups


def _completeness(trials: Trials, level: float, groups: list[Int[np.ndarray, " some"]]) -> Completeness:
    found = trials.p < level
    named = found[:, -1] & (trials.named != "")
    right = named & np.array([n in NAMED[k] for k, n in zip(trials.kind, trials.named, strict=True)])

    def middle(x: Float[np.ndarray, " trials"]) -> Float[np.ndarray, " groups"]:
        return np.array([np.median(x[group]) for group in groups])

    members = ([x[group].sum(0) for group in groups] for x in (found, ~np.isnan(trials.p)))
    return Completeness(
        np.array([trials.kind[group[0]] for group in groups]),
        middle(trials.amplitude),
        middle(trials.strength),
        middle(trials.beyond),
        found=Proportion.of(*members),
        named=Proportion.of(
            [right[group].sum() for group in groups], [named[group].sum() for group in groups]
        ),
    )


def _below(p: Float[np.ndarray, "objects lists"], levels: Float[np.ndarray, " levels"]) -> Proportion:
    return Proportion.of(np.array([(p < level).sum(0) for level in levels]), (~np.isnan(p)).sum(0))
