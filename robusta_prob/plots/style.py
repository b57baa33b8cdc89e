"""What all pictures share: widths, fonts, colours, and small pieces of drawing.

Sizes of text are set on every artist: matplotlib's own defaults are global, and are left alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.mathtext import MathTextParser

COLUMN, PAGE = 3.5, 7.1  # widths of one and of two columns of a page [inch]
SMALL, NORMAL = 8.0, 9.0  # [pt]
BLACK, BLUE, VERMILLION, GREEN, PURPLE, GREY = (
    "black",
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#999999",
)  # Okabe & Ito (2008)


def finish(axes: Axes, x: Float[np.ndarray, " pixels"] | None = None) -> None:
    """Small tick labels, and the pixel axis from end to end."""
    axes.tick_params(labelsize=SMALL)
    axes.xaxis.get_offset_text().set_fontsize(SMALL)
    axes.yaxis.get_offset_text().set_fontsize(SMALL)
    if x is not None and x[-1] > x[0]:
        axes.set_xlim(x[0], x[-1])


def limits(*series: Float[np.ndarray, " pixels"], cut_spikes: bool = True) -> tuple[float, float]:
    """An axis range for these series, with room; NaN does not count.

    Spikes (the outermost 1 %) are cut off where they would squeeze all the rest into a quarter of the axis.
    """
    values = [x[np.isfinite(x)] for x in series]
    values = [x for x in values if len(x)]
    if not values:
        return -1.0, 1.0
    low, high = min(x.min() for x in values), max(x.max() for x in values)
    inner = [np.quantile(x, (0.005, 0.995)) for x in values]
    if cut_spikes and high - low > 4.0 * np.ptp(inner):
        low, high = np.min(inner), np.max(inner)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return float(low - room), float(high + room)


def plain(text: object, longest: int = 40) -> str:
    """A name from the data as matplotlib shows it: no mathematics in it, and not too long."""
    word = str(text)
    word = word if len(word) <= longest else f"{word[: longest - 1]}…"
    return word.replace("$", r"\$")


def axis_label(text: str, longest: int = 40) -> str:
    """An axis label from the data: mathematics between dollars if it is sound, else plain text."""
    if len(text) > longest:
        return plain(text, longest)
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return plain(text, longest)
    return text


def probability(log10_p: float) -> str:
    """A p-value in words, from its logarithm: as a power of ten where it is tiny."""
    if np.isnan(log10_p):
        return "unknown"
    if log10_p == -np.inf:
        return "$<10^{-300}$"
    return f"{10.0**log10_p:.2g}" if log10_p > -4 else f"$10^{{{log10_p:.0f}}}$"
