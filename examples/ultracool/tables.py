"""Results as tables: means over the splits with their standard errors, and differences within each split."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import robusta_prob as rp
from examples.ultracool import dwarfs, strangers
from examples.ultracool.config import INJECTED, NATURAL, OURS, OURS_FLOOR, Config
from examples.ultracool.splits import Half
from examples.ultracool.store import agreement_path, judged_path, load, scores_path, write_json

GAUSSIAN, COMMON = "Gaussian", "Student's t"
SIZES = ("density", "median_density", "rms_z", "rms_z_fitted")
LEVELS = (3.0, 2.0, 1.5, 1.2, 1.1)  # rms z for which components are counted


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over the splits, and its standard error; NaN where there is one split only."""
    values = np.asarray(values, float)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return (float(values.mean()), float(error)) if len(values) else (math.nan, math.nan)


def gathered(config: Config) -> dict[str, Any]:
    """{contamination: {method: {rank: {size: values per split}}}}, of complete splits."""
    found: dict[str, Any] = {}
    for contamination in (NATURAL, INJECTED):
        for method in config.fits.methods:
            for rank in sorted(config.fits.ranks):
                splits = [
                    s
                    for s in range(config.splits.number)
                    if _complete(config, s, contamination, method, rank)
                ]
                if not splits:
                    continue
                rows = [dict(_sizes(config, split, contamination, method, rank)) for split in splits]
                sizes = {name: [row.get(name, math.nan) for row in rows] for name in rows[0]}
                place = found.setdefault(contamination, {}).setdefault(method, {})
                place[str(rank)] = {"splits": splits, **sizes}
    return found


def _complete(config: Config, split: int, contamination: str, method: str, rank: int) -> bool:
    return all(
        judged_path(config, Half(split, half, contamination), method, rank).exists() for half in (0, 1)
    )


def _sizes(
    config: Config, split: int, contamination: str, method: str, rank: int
) -> Iterator[tuple[str, float]]:
    """Everything that is known of a pair of halves, the mean of both."""
    told = [
        json.loads(judged_path(config, Half(split, half, contamination), method, rank).read_text())
        for half in (0, 1)
    ]
    for law in (COMMON, GAUSSIAN):
        for name in SIZES:
            yield f"{name}, {law}", float(np.mean([one[law][name] for one in told]))
        for letter in sorted(told[0][law]["by_class"]):
            classes = [one[law]["by_class"].get(letter, math.nan) for one in told]
            yield f"{letter} dwarfs, {law}", float(np.mean(classes))
    path = agreement_path(config, split, contamination, method, rank)
    if path.exists():
        yield from json.loads(path.read_text()).items()


def paired(
    found: dict[str, Any], contamination: str, rank: int, size: str, one: str, other: str
) -> tuple[float, float]:
    """Difference one - other within each split: mean and standard error."""
    try:
        a, b = (found[contamination][name][str(rank)] for name in (one, other))
    except KeyError:
        return math.nan, math.nan
    if size not in a or size not in b:
        return math.nan, math.nan
    common = sorted(set(a["splits"]) & set(b["splits"]))
    values = [a[size][a["splits"].index(s)] - b[size][b["splits"].index(s)] for s in common]
    return mean_and_error(np.array(values))


def needed(ranks: np.ndarray, values: np.ndarray, level: float) -> float:
    """Components at which a falling curve reaches a level, interpolated between ranks; NaN where never.

    0 where it is below at the smallest rank that was tried: then nobody knows.
    """
    best = np.minimum.accumulate(values)
    if not best[-1] <= level:
        return math.nan
    first = int(np.argmax(best <= level))
    if first == 0:
        return 0.0
    share = (best[first - 1] - level) / (best[first - 1] - best[first])
    return float(ranks[first - 1] + share * (ranks[first] - ranks[first - 1]))


def components(found: dict[str, Any], contamination: str, size: str = f"rms_z, {GAUSSIAN}") -> dict[str, Any]:
    """For every method and level: components needed, mean and standard error over the splits."""
    table: dict[str, Any] = {}
    for method, by_rank in found.get(contamination, {}).items():
        ranks = np.array(sorted(map(int, by_rank)))
        common = sorted(set.intersection(*(set(by_rank[str(k)]["splits"]) for k in ranks)))
        curves = [[by_rank[str(k)][size][by_rank[str(k)]["splits"].index(s)] for k in ranks] for s in common]
        table[method] = {
            str(level): _counted(ranks, np.array([needed(ranks, np.array(c), level) for c in curves]))
            for level in LEVELS
        }
    return table


def _counted(ranks: np.ndarray, needed_: np.ndarray) -> tuple[float, float] | str:
    """Mean and error over the splits; in words where the smallest rank was enough in one of them."""
    return f"≤ {ranks[0]}" if (needed_ == 0.0).any() else mean_and_error(needed_)


def search_table(config: Config, data: rp.Dataset) -> dict[str, Any]:
    """{rank: {method: {score: {target: AUC and precision, errors, differences, "kinds": by kind}}}}."""
    settings, table = config.strangers, {}
    samples = strangers.resamples(data, settings.bootstrap, settings.seed)
    targets = strangers.targets(data)
    for rank in settings.ranks:
        methods = [m for m in config.fits.methods if scores_path(config, m, rank).exists()]
        scores = {
            (method, name): score
            for method in methods
            for name, score in strangers.all_scores(config, method, rank).items()
        }
        found = {
            (*key, target): strangers.judged(score, strange, samples, settings.leading)
            for key, score in scores.items()
            for target, strange in targets.items()
        }
        for (method, name), score in scores.items():
            row = {"kinds": strangers.by_kind(score, data, settings.leading)}
            for target in targets:
                one, ours = found[method, name, target], found.get((OURS, strangers.OURS_SCORE, target))
                row[target] = {k: v for k, v in one._asdict().items() if k != "samples"}
                if ours is not None:
                    row[target]["ours minus this"] = _less(ours, one)
            table.setdefault(str(rank), {}).setdefault(method, {})[name] = row
    return table


def _less(ours: strangers.Found, other: strangers.Found) -> dict[str, list[float]]:
    """Differences with errors, by the same resamples."""
    errors = np.nanstd(ours.samples - other.samples, axis=0, ddof=1)
    return {
        "auc": [ours.auc - other.auc, float(errors[0])],
        "precision": [ours.precision - other.precision, float(errors[1])],
    }


def main(config: Config) -> dict[str, Any]:
    """Write `results.json` and `tables.md`."""
    found = gathered(config)
    results = {
        "splits": found,
        "components": {kind: components(found, kind) for kind in found},
        "dwarfs": {
            kind: dwarfs.compared(config, kind, rank)
            for kind in found
            for rank in (config.strangers.rank,)
            if rank in config.fits.ranks
        },
        "search": search_table(config, load(config.files.data)),
    }
    write_json(results, config.files.output / "results.json")
    text = "\n".join(written(config, results))
    (config.files.output / "tables.md").write_text(text + "\n")
    return results


def written(config: Config, results: dict[str, Any]) -> Iterator[str]:
    """The tables of the page."""
    found = results["splits"]
    for contamination, by_method in found.items():
        yield from _judged(config, contamination, by_method)
        yield from _differences(config, contamination, found)
        yield from _dwarfs(config, contamination, results["dwarfs"].get(contamination, {}))
        yield from _components(contamination, results["components"][contamination])
    yield from _injections(config, found)
    for rank, methods in results["search"].items():
        yield from _search(rank, methods, config.strangers.leading)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _with_error(pair: tuple[float, float], digits: int = 3) -> str:
    mean, error = pair
    if math.isnan(mean):
        return "—"
    return f"{mean:.{digits}f}" if math.isnan(error) else f"{mean:.{digits}f} ± {error:.{digits}f}"


def _judged(config: Config, contamination: str, by_method: dict[str, Any]) -> Iterator[str]:
    columns = {
        "density, t [nats per pixel]": f"density, {COMMON}",
        "of M": f"M dwarfs, {COMMON}",
        "of L": f"L dwarfs, {COMMON}",
        "of T": f"T dwarfs, {COMMON}",
        "density, Gaussian": f"density, {GAUSSIAN}",
        "of the median dwarf": f"median_density, {GAUSSIAN}",
        "rms z, hidden": f"rms_z, {GAUSSIAN}",
        "rms z, fitted": f"rms_z_fitted, {GAUSSIAN}",
        "shared subspace": "shared",
        "halves differ by": "flux",
    }
    for rank in sorted(config.fits.ranks):
        rows = {name: one[str(rank)] for name, one in by_method.items() if str(rank) in one}
        if not rows:
            continue
        yield f"\n{contamination.capitalize()} contamination, K = {rank}\n"
        yield _row(["", "splits", *columns])
        yield "|---" * (len(columns) + 2) + "|"
        for name, row in rows.items():
            cells = [_with_error(mean_and_error(row.get(size, []))) for size in columns.values()]
            yield _row([name, str(len(row["splits"])), *cells])


def _differences(config: Config, contamination: str, found: dict[str, Any]) -> Iterator[str]:
    sizes = (
        f"density, {COMMON}",
        f"density, {GAUSSIAN}",
        f"median_density, {GAUSSIAN}",
        f"rms_z, {GAUSSIAN}",
        "shared",
    )
    for one in (OURS, OURS_FLOOR):
        yield f"\n{contamination.capitalize()} contamination: {one} minus the other, within each split\n"
        yield _row(["K", "other", *sizes])
        yield "|---" * (len(sizes) + 2) + "|"
        for rank in sorted(config.fits.ranks):
            for other in config.fits.methods:
                pairs = [paired(found, contamination, rank, size, one, other) for size in sizes]
                if other != one and not math.isnan(pairs[0][0]):
                    yield _row([str(rank), other, *map(_with_error, pairs)])


def _dwarfs(config: Config, contamination: str, table: dict[str, Any]) -> Iterator[str]:
    rank = config.strangers.rank
    yield f"\n{contamination.capitalize()} contamination, K = {rank}: dwarf by dwarf, over all splits\n"
    yield _row(["", "other", "dwarfs described better", "gain [nats per pixel]"])
    yield "|---" * 4 + "|"
    for one, by_other in table.items():
        for other, told in by_other.items():
            yield _row([one, other, _with_error(told["share"], 2), _with_error(told["gain"])])


def _injections(config: Config, found: dict[str, Any]) -> Iterator[str]:
    yield "\nWhat is injected costs: density, natural minus injected, within each split\n"
    yield _row(["", *(f"K = {rank}" for rank in sorted(config.fits.ranks))])
    yield "|---" * (1 + len(config.fits.ranks)) + "|"
    for method in config.fits.methods:
        costs = []
        for rank in sorted(config.fits.ranks):
            try:
                a, b = (found[kind][method][str(rank)] for kind in (NATURAL, INJECTED))
            except KeyError:
                costs.append((math.nan, math.nan))
                continue
            size = f"density, {COMMON}"
            common = sorted(set(a["splits"]) & set(b["splits"]))
            values = [a[size][a["splits"].index(s)] - b[size][b["splits"].index(s)] for s in common]
            costs.append(mean_and_error(np.array(values)))
        yield _row([method, *map(_with_error, costs)])


def _components(contamination: str, table: dict[str, Any]) -> Iterator[str]:
    yield f"\n{contamination.capitalize()} contamination: components for a median rms z of hidden segments\n"
    yield _row(["", *(f"{level:g}" for level in LEVELS)])
    yield "|---" * (len(LEVELS) + 1) + "|"
    for method, row in table.items():
        yield _row([method, *(x if isinstance(x, str) else _with_error(x, 1) for x in row.values())])


def _search(rank: str, methods: dict[str, Any], leading: int) -> Iterator[str]:
    kinds = list(next(iter(next(iter(methods.values())).values()))["kinds"])[1:]
    for target in (strangers.NO_DWARF, strangers.NO_ULTRACOOL_DWARF):
        yield f"\nStrangers, K = {rank}: what is {target}\n"
        names = ("AUC", f"precision at {leading}", "ours − this: AUC", "precision")
        shown = kinds if target == strangers.NO_DWARF else []
        yield _row(["", "score", *names, *shown])
        yield "|---" * (2 + len(names) + len(shown)) + "|"
        for method, by_score in methods.items():
            for name, row in by_score.items():
                one, nothing = row[target], (math.nan, math.nan)
                less = one.get("ours minus this", {"auc": nothing, "precision": nothing})
                yield _row(
                    [
                        method,
                        name,
                        _with_error((one["auc"], one["auc_error"])),
                        _with_error((one["precision"], one["precision_error"]), 2),
                        _with_error(less["auc"]),
                        _with_error(less["precision"], 2),
                        *(f"{row['kinds'][kind][0]:.2f} ({row['kinds'][kind][1]})" for kind in shown),
                    ]
                )
