"""`robusta-prob select`: which rank, perhaps which scale, and the fit to make with it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import robusta_prob as rp
from robusta_prob.cli.arguments import parser
from robusta_prob.cli.shared import ROLES, law, read, save, say, say_where, warn, writable
from robusta_prob.inference.iterate import NON_FINITE
from robusta_prob.selection.results import ENOUGH, Candidate

OF_SELECTION = ("selection.csv", "selection.png", "fits")
OF_ONE_FIT = ("relevance.csv", "relevance.png", "fits")
AS_IN_FIT = (*rp.Noise._fields, "flat_prior", "seed", "dtype", *ROLES, "mask_bits", "on_disk")
MOST_NAMES = 4  # of candidates in a sentence


def run_select(options: argparse.Namespace) -> int:
    """Judge all candidates, write and print how they did, and say how to go on."""
    from robusta_prob import plots

    settings, files = _settings(options), OF_ONE_FIT if options.one_fit else OF_SELECTION
    data = read(options, options.dtype)
    with writable(options.output) as run:
        selection = _selected(data, options, run, settings)
        rp.write_selection(selection, run / files[0])
        save(plots.selection(selection), run / files[1])
    cells = selection.hidden
    judges = (
        f"{int((selection.count > 0).sum()):,} objects, in {cells.starts.shape[1]} segments of {cells.width}"
    )
    say(
        options,
        f"\n{selection}\nJudged by {judges} pixels each, with a guard of {cells.guard} on either side.",
    )
    say(options, "below_best is in nats per pixel, error its standard error, paired object by object.")
    say(options, f"\n{choice(selection)}")
    for text in doubts(selection):
        warn(text)
    say_where(options, run, *files)
    say(options, "Next: " + shlex.join(following(options, selection)))
    return int(selection.candidates[selection.chosen].status.code == NON_FINITE)


def choice(selection: rp.Selection) -> str:
    """What was chosen and why, and who did not come to rest."""
    every, best = selection.candidates, selection.best
    chosen = every[selection.chosen]
    if len(every) == 1:
        why = "there is no other candidate"
    elif chosen is best:
        smaller = chosen.rank > selection.ranks[0]
        why = "it scores best" + (", and all of smaller rank are clearly worse" if smaller else "")
    else:
        more = selection.difference(best[:2], chosen[:2])
        why = (
            f"the smallest rank to which none is clearly preferred, by {ENOUGH:g} standard errors "
            f"({_name(best)} scores higher by {more.mean:.2g} +- {more.error:.2g} nats per pixel)"
        )
    restless = [_name(one) for one in every if not one.status.ok]
    names = ", ".join([*restless[:MOST_NAMES], *(["..."] if len(restless) > MOST_NAMES else [])])
    rest = f"{len(restless)} of {len(every)} candidates did not come to rest ({names})"
    rest = rest if restless else "all candidates came to rest"
    return f"{_name(chosen).capitalize()} is chosen: {why}; {rest}."


def doubts(selection: rp.Selection) -> list[str]:
    """Reasons to run it again with other settings."""
    chosen, found = selection.candidates[selection.chosen], []
    if not (chosen.status.ok and selection.best.status.ok):
        found.append("the best candidate or the chosen one did not come to rest: raise --max-epochs")
    if len(selection.ranks) > 1 and chosen.rank == selection.ranks[-1]:
        found.append("the largest rank is chosen: let larger ones compete too")
    if len(selection.ranks) > 1 and chosen.rank == selection.ranks[0] > 1:
        found.append("the smallest rank is enough: let smaller ones compete too")
    if len(selection.scales) > 1 and chosen.scale in (selection.scales[0], selection.scales[-1]):
        found.append(f"scale {chosen.scale:g} is the last in its direction: let others compete too")
    return found


def following(options: argparse.Namespace, selection: rp.Selection) -> list[str]:
    """The command that fits all objects with the choice."""
    words = ["robusta-prob", "fit", options.file, "--rank", str(selection.rank), "-o", options.output]
    if selection.scale is not None:
        words += ["--published", _word(selection.scale)]
    plain = parser("").parse_args(words[1:])
    for name in AS_IN_FIT:
        value, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if value != getattr(plain, name):
            words += [flag] if value is True else [flag, _word(value)]
    return words


def _selected(
    data: rp.Dataset, options: argparse.Namespace, run: Path, settings: dict[str, Any]
) -> rp.Selection:
    with (
        writable(run / "fits") as fits,
        rp.Progress("select", disable=options.quiet) as bar,
    ):
        settings = settings | {"folder": fits, "callback": bar}
        if options.one_fit:
            return rp.relevance(data, max(options.ranks), **settings)
        return rp.select(data, options.ranks, options.scales, **settings)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    noise, given = law(options)
    given += ["--flat-prior"] if options.flat_prior else []
    if options.scales is not None and given:
        raise ValueError(f"--scales fits the published loss: leave out {' and '.join(given)}")
    if options.one_fit and options.flat_prior:
        raise ValueError("--one-fit learns how large components are: leave out --flat-prior")
    return {
        "noise": noise if options.scales is None else None,
        "prior": rp.Prior.flat() if options.flat_prior else None,
        "key": options.seed,
    } | {name: getattr(options, name) for name in ("train", "hidden", "guard", "group", "tol", "max_epochs")}


def _name(candidate: Candidate) -> str:
    scale = "" if candidate.scale is None else f" with scale {candidate.scale:g}"
    return f"rank {candidate.rank}{scale}"


def _word(value: object) -> str:
    """An argument that is read as this value again."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
