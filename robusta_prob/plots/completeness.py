"""A picture of what the scores find: completeness of injected anomalies, and false positives."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from robusta_prob.plots.style import BLACK, BLUE, GREEN, GREY, NORMAL, PAGE, SMALL, VERMILLION, finish
from robusta_prob.scoring.recovered import Completeness, FalsePositives, Recovery

# colour tells what sort of anomaly it is, marker and line tell kinds of one sort apart
LOOKS = {
    "emission line": (BLUE, "^", "-"),
    "absorption line": (BLUE, "v", "--"),
    "line set": (BLUE, "D", ":"),
    "second spectrum": (GREEN, "o", "-"),
    "shifted segment": (GREEN, "s", "--"),
    "scaled noise": (BLACK, "X", "-"),
    "foreign spectrum": (VERMILLION, "P", "-"),
}
OF_LISTS = {"p_value": (BLUE, "o", "-"), "p_run": (VERMILLION, "s", "--"), "p_pixel": (GREEN, "^", ":")}
AGAINST = {
    "strength": "signal-to-noise of what was put in [σ]",
    "beyond": "signal-to-noise beyond the basis [σ]",
    "amplitude": "size of the amplitude [unit of the kind]",
}
EXPECTED = 0.5  # objects below p, fewer than which none is no news
APART = 1.06  # factor on p between lists, so that their error bars stand side by side


def recovery_curves(recovery: Recovery, against: str = "strength", by: str = "any") -> Figure:
    """How many injected anomalies are found, and how many objects are flagged that have none.

    Left, completeness per kind, in groups of equal numbers by rising strength, or per amplitude. Right, the
    share of objects as they are with a p-value below p; thin lines are of the normal ones alone, and a caret
    is the upper end of the interval where none is below p. Bars are binomial, 68 %.

    Parameters
    ----------
    recovery : Recovery
        Of `rp.recovery`.
    against : {"strength", "beyond", "amplitude"}
        What the completeness is drawn against, see `recovery.by_strength`.
    by : {"any", "p_flag", "p_value", "p_run", "p_pixel"} or a set of lines that flags
        By which list an injected object counts as found, one of `recovery.lists`.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels.

    Raises
    ------
    ValueError
        If `against` or `by` is none of these.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> data = rp.simulate.low_rank(200, 100, 2, seed=1).data
    >>> found = rp.recovery(rp.fit(data, 2), data, {"emission line": [0.01, 1.0]}, key=0, per_amplitude=50)
    >>> len(plots.recovery_curves(found).axes)
    2
    """
    if against not in AGAINST:
        raise ValueError(f"against must be one of {', '.join(AGAINST)}; got {against!r}")
    if by not in recovery.lists:
        raise ValueError(f"by must be one of {', '.join(recovery.lists)}; got {by!r}")
    figure = Figure(figsize=(PAGE, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1.0))
    groups = recovery.by_amplitude if against == "amplitude" else recovery.by_strength
    _completeness(left, groups, against, recovery.lists.index(by))
    left.axhline(recovery.level, color=GREY, lw=0.8)
    found = {"any": "p_value, p_run or p_pixel", "p_flag": "p_value or p_run"}.get(by, by)
    if by in ("any", "p_flag"):
        found = ", ".join([*recovery.lists[3:-2], found])
    left.set_title(f"Found: {found} < {recovery.level:g}", fontsize=NORMAL)
    left.set_xlabel(AGAINST[against], fontsize=SMALL)
    _false_positives(right, recovery.false_positives, recovery.lists)
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize=SMALL,
        frameon=False,
    )
    return figure


def _completeness(axes: Axes, groups: Completeness, against: str, column: int) -> None:
    x = np.abs(getattr(groups, against))
    share, low, high = (part[:, column] for part in groups.found[2:])
    for kind in dict.fromkeys(groups.kind.tolist()):
        colour, marker, line = LOOKS[kind]
        here = np.flatnonzero((groups.kind == kind) & (x > 0))
        here = here[np.argsort(x[here])]
        axes.errorbar(
            x[here],
            share[here],
            [share[here] - low[here], high[here] - share[here]],
            color=colour,
            marker=marker,
            ls=line,
            ms=4,
            lw=1.0,
            elinewidth=0.8,
            label=kind,
        )
    axes.set_xscale("log")
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("injected anomalies that are found", fontsize=SMALL)
    finish(axes)


def _false_positives(axes: Axes, curve: FalsePositives, lists: tuple[str, ...]) -> None:
    level = curve.level
    telling = (level * curve.all.number.max() > EXPECTED) | (curve.all.found > 0).any(1)
    axes.plot(level[telling], level[telling], color=BLACK, lw=0.8, label="nominal")
    for place, (name, (colour, marker, line)) in enumerate(OF_LISTS.items()):
        column = lists.index(name)
        share, low, high = (part[:, column] for part in curve.all[2:])
        some = share > 0
        x = level * APART ** (place - 1)
        axes.errorbar(
            x[some],
            share[some],
            [(share - low)[some], (high - share)[some]],
            color=colour,
            marker=marker,
            ls="",
            ms=3,
            elinewidth=0.8,
            label=name,
        )
        none = ~some & (level * curve.all.number[:, column] > EXPECTED)
        axes.plot(x[none], high[none], color=colour, marker=7, ls="", ms=4)  # 7: a caret pointing down
        normal = curve.normal.share[:, column]
        axes.plot(x, np.where(normal > 0, normal, np.nan), color=colour, ls=line, lw=0.7)
    axes.plot([], [], color=GREY, lw=0.7, label="normal ones alone")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title("Objects as they are", fontsize=NORMAL)
    axes.set_xlabel("p", fontsize=SMALL)
    axes.set_ylabel("share of objects below p", fontsize=SMALL)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower right", handlelength=1.2)
    finish(axes)
