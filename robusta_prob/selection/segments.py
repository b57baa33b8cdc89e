"""Which cells of new objects are hidden: contiguous segments, and a margin that nobody looks at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

SEGMENTS = 4  # per object, one in each quarter of the pixels
LEAST_PIXELS = 8  # of a part of the spectrum with a segment of its own


class Segments(NamedTuple):
    """Segments [start, start + width) of every object: single pixels could be guessed from neighbours."""

    starts: Int[np.ndarray, "objects segments"]
    width: int  # [pixels]
    guard: int  # pixels on either side that are hidden as well, and not judged
    pixels: int

    def cells(self, rows: slice) -> tuple[Bool[np.ndarray, "rows pixels"], Bool[np.ndarray, "rows pixels"]]:
        """Of these objects, the cells that are judged, and all that are hidden."""
        starts = self.starts[rows]
        first = np.arange(len(starts))[:, None, None]

        def marked(margin: int) -> Bool[np.ndarray, "rows pixels"]:
            place = starts[:, :, None] + np.arange(-margin, self.width + margin)
            mask = np.zeros((len(starts), self.pixels), bool)
            mask[first, np.clip(place, 0, self.pixels - 1)] = True
            return mask

        return marked(0), marked(self.guard)


def segments(n: int, pixels: int, share: float, guard: int, seed: int) -> Segments:
    """Random segments that cover `share` of the pixels, one in each of up to four equal parts.

    The guard is at most half a segment, or it would hide more than the segments do.
    """
    number = min(SEGMENTS, max(1, pixels // LEAST_PIXELS))
    edges = np.linspace(0, pixels, number + 1).astype(int)
    width = max(1, min(round(share * pixels / number), int(np.diff(edges).min()) - 1))
    room = np.diff(edges) - width
    starts = edges[:-1] + np.random.default_rng(seed).integers(0, room, (n, number), endpoint=True)
    return Segments(starts, width, min(guard, max(1, width // 2)), pixels)
