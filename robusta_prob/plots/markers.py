"""Names of spectral lines on a figure that is there already, and off it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from scipy.optimize import isotonic_regression

from robusta_prob.plots.style import PURPLE, plain

FONT = 7.0  # [pt], of the names
PITCH = 1.25  # distance of names that are side by side, in heights of the font
SHIFT = 1.5  # the farthest that a name is moved from its line, in the same distance
PAD = 3.0  # [pt], above and below the names
MOST = 0.6  # of the height of the axes that names may take


def mark_lines(figure: Figure, lines: Iterable[tuple[str, float]]) -> list[Artist]:
    """Mark where lines are: dotted through every panel, with their names at the top of the first one.

    The upper end of the first panel is raised to make room for the names. Names never overlap: neighbours
    of the same name share one, others move aside a little, and where there are still too many some lines
    have none, first those whose name stands elsewhere as well.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Such as one of `object_pages`. The names stand in its first axes.
    lines : iterable of (str, float)
        Name and place on the horizontal axis. An axes leaves out those beyond its ends.

    Returns
    -------
    list of matplotlib.artist.Artist
        What was added: `artist.remove()` takes it off. `marked` does, and restores the axis as well.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from robusta_prob import plots
    >>> figure = Figure()
    >>> axes = figure.subplots()
    >>> axes.set_xlim(846.0, 870.0)
    (846.0, 870.0)
    >>> added = plots.mark_lines(figure, [("Ca II", 850.035), ("Ca II", 854.444), ("Na I", 589.0)])
    >>> [text.get_text() for text in axes.texts]
    ['Ca II', 'Ca II']
    """
    known = [(float(place), str(name)) for name, place in lines]
    added: list[Artist] = []
    for number, axes in enumerate(figure.axes):
        low, high = sorted(axes.get_xlim())
        inside = [(place, name) for place, name in known if low <= place <= high]
        if inside:
            added.append(_dotted(axes, [place for place, _ in inside]))
            added += _names(figure, axes, inside) if number == 0 else []
    return added


@contextmanager
def marked(figure: Figure, lines: Iterable[tuple[str, float]]) -> Generator[Figure, None, None]:
    """A figure on which lines are marked as by `mark_lines`, for as long as the context lasts.

    The figure is laid out here, and keeps this layout from then on: panels stay where they are, and
    matplotlib need not lay out the figure again for every set of lines.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    lines : iterable of (str, float)
        Name and place on the horizontal axis.

    Yields
    ------
    matplotlib.figure.Figure
        The same figure. Afterwards what was added is gone, and its axes are what they were.

    Examples
    --------
    >>> import io
    >>> from matplotlib.figure import Figure
    >>> from robusta_prob import plots
    >>> figure = Figure()
    >>> axes = figure.subplots()
    >>> axes.set_xlim(846.0, 870.0)
    (846.0, 870.0)
    >>> for lines in ([("Ca II", 850.035)], [("Fe I", 847.0734), ("Fe I", 851.6)]):
    ...     with plots.marked(figure, lines):
    ...         figure.savefig(io.BytesIO())
    >>> len(axes.texts)
    0
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    before = [(axes, axes.get_ylim(), axes.get_autoscaley_on()) for axes in figure.axes[:1]]
    added: list[Artist] = []
    try:
        added = mark_lines(figure, lines)
        yield figure
    finally:
        for artist in added:
            artist.remove()
        for axes, ends, auto in before:
            axes.set_ylim(ends, auto=auto)


def _dotted(axes: Axes, places: Sequence[float]) -> LineCollection:
    """Lines from bottom to top, whatever the vertical axis is; the limits of the axes are left alone."""
    collection = LineCollection(
        [[(place, 0.0), (place, 1.0)] for place in places],
        transform=axes.get_xaxis_transform(),
        colors=PURPLE,
        linewidths=0.8,
        linestyles="dotted",
        zorder=1.5,
    )
    axes.add_collection(collection, autolim=False)
    return collection


def _names(figure: Figure, axes: Axes, places: Sequence[tuple[float, str]]) -> list[Annotation]:
    """Names at the top of the axes, whose upper end is raised above the data by the longest of them."""
    point = figure.dpi / 72.0  # [pixels]
    (left, bottom), (right, top) = axes.transAxes.transform([(0.0, 0.0), (1.0, 1.0)])
    level = axes.get_ylim()[0]
    x = axes.transData.transform([(place, level) for place, _ in places])[:, 0]
    order = np.argsort(x)
    names = [places[i][1] for i in order]
    added = []
    for pixel, name in arranged(x[order], names, PITCH * FONT * point, left, right):
        at = float(axes.transData.inverted().transform((pixel, bottom))[0])
        one = axes.annotate(
            plain(name),
            (at, 1.0),
            (0.0, -PAD),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="top",
            fontsize=FONT,
        )
        added.append(one)
    different = {one.get_text(): one for one in added}.values()
    longest = max((one.get_window_extent().height for one in different), default=0.0)
    share = min((longest + 2.0 * PAD * point) / (top - bottom), MOST)
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(np.array(axes.get_ylim()))
    raised = scale.inverted().transform(np.array([low + (high - low) / (1.0 - share)]))
    axes.set_ylim(top=float(raised[0]))
    return added


def arranged(
    x: Float[np.ndarray, " lines"], names: Sequence[str], pitch: float, left: float, right: float
) -> list[tuple[float, str]]:
    """Where names stand that are `pitch` wide, between left and right: as near to x, ascending, as possible.

    Least squares of what they are moved: y_i - i pitch is the isotonic regression of x_i - i pitch. While one
    is moved too far, a name of its group is dropped.
    """
    starts = [i for i in range(len(x)) if not i or names[i] != names[i - 1] or x[i] - x[i - 1] >= pitch]
    ends = [*starts[1:], len(x)]
    labels = [(float(np.mean(x[a:b])), names[a]) for a, b in zip(starts, ends, strict=True)]
    while labels:
        steps = pitch * np.arange(len(labels))
        wanted = np.array([place for place, _ in labels])
        low, high = left + 0.5 * pitch, right - 0.5 * pitch - steps[-1]
        group, moved = np.arange(len(labels)), np.zeros(len(labels))
        if low <= high:
            y = np.clip(isotonic_regression(wanted - steps).x, low, high) + steps
            moved = np.abs(y - wanted)
            worst = int(moved.argmax())
            if moved[worst] <= SHIFT * pitch:
                return [(float(place), name) for place, (_, name) in zip(y, labels, strict=True)]
            parts = np.cumsum(np.diff(y, prepend=y[0]) > 1.001 * pitch)
            group = np.flatnonzero(parts == parts[worst])
        often = Counter(name for _, name in labels)
        _, _, dropped = max((often[labels[i][1]], moved[i], int(i)) for i in group)
        del labels[dropped]
    return []
