"""Which cells of new objects are hidden: contiguous segments, and a margin that nobody looks at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

SEGMENTS = 4  # per object, one in each quarter of the pixels
LEAST_PIXELS = 8  # of a part of the spectrum with a segment of its own
MOST_HIDDEN = 2 / 3  # of the pixels, with the guards: the rest tells the coefficients
STREAM = 2  # of random numbers: the split and the starts of fits draw from others


class Segments(NamedTuple):
    """Segments [start, start + width) of every object: single pixels could be guessed from neighbours.

    Those at the end go on at the beginning, so that every pixel is judged as often as any other.
    """

    starts: Int[np.ndarray, "objects segments"]
    width: int  # [pixels]
    guard: int  # pixels on either side that are hidden as well, and not judged
    pixels: int
    wanted: int = 0  # guard, where there is no room for it

    def cells(self, rows: slice) -> tuple[Bool[np.ndarray, "rows pixels"], Bool[np.ndarray, "rows pixels"]]:
        """Of these objects, the cells that are judged, and all that are hidden."""
        starts = self.starts[rows]
        first = np.arange(len(starts))[:, None, None]

        def marked(margin: int) -> Bool[np.ndarray, "rows pixels"]:
            place = starts[:, :, None] + np.arange(-margin, self.width + margin)
            mask = np.zeros((len(starts), self.pixels), bool)
            mask[first, place % self.pixels] = True
            return mask

        judged = marked(0)
        return judged, marked(self.guard)


def segments(n: int, pixels: int, share: float, guard: int, seed: int) -> Segments:
    """Random segments that cover `share` of the pixels, one in each of up to four equal parts.

    Fewer and wider ones where the guard is wide, so that it hides no more than the segments do, and a third
    of the pixels is left to be shown; where one segment is left, the guard gives way.
    """
    wide = max(1, int(share * pixels // (2 * max(guard, 1))))
    most = int((MOST_HIDDEN - share) * pixels)  # of all guards together
    number = min(SEGMENTS, max(1, pixels // LEAST_PIXELS), wide, max(1, most // (2 * max(guard, 1))))
    edges = np.linspace(0, pixels, number + 1).astype(int)
    width = max(1, min(round(share * pixels / number), int(np.diff(edges).min()) - 1))
    rng = np.random.default_rng([seed, STREAM])
    starts = edges[:-1] + rng.integers(0, np.diff(edges) - width, (n, number), endpoint=True)
    starts = (starts + rng.integers(0, pixels, (n, 1))) % pixels
    room = max(1, min(width, most // (2 * number)))
    return Segments(starts, width, min(guard, room), pixels, guard)
