"""What the head of the page says of a fit and of its calibration."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from robusta_prob.inference.results import Fit
from robusta_prob.scoring.results import BY_ERROR, FLAG, Surprise

P_BINS = 20


def facts_of(fit: Fit, scores: Surprise) -> tuple[tuple[str, str], ...]:
    """Names and values, in the order of the page."""
    n, flagged = len(scores.ids), int(scores.flagged.sum())
    kinds, counts = np.unique(scores.object.kind[scores.flagged], return_counts=True)
    known = scores.object.p_value[~np.isnan(scores.object.p_value)]
    facts = [
        ("Fit", fit.status.message if fit.status.ok else f"NOT AT REST: {fit.status.message}"),
        ("Rank", f"{fit.rank} components of {fit.basis.shape[1]:,} pixels, "
                 f"learned from {len(fit.ids):,} objects"),
        ("Noise law", f"{fit.noise} [{fit.flux_name}]"),
    ]  # fmt: skip
    if str(fit.loss) != str(fit.noise):
        facts.append(("Loss, as given", f"{fit.loss} [{fit.flux_name}]"))
    facts += [
        ("Null law of z", _null_in_words(scores)),
        ("Bulk of the objects", _bulk_in_words(scores)),
        ("Flagged", f"{flagged:,} of {n:,} objects at q < {FLAG:g}: {flagged * FLAG:.3g} of them expected "
                    "to be normal, at most"),
        ("Kinds", ", ".join(f"{c:,} {kind or 'other'}" for kind, c in zip(kinds, counts, strict=True))
                  or "none"),
        ("p < 0.01", f"{int((known < 0.01).sum()):,} objects; {0.01 * len(known):.3g} would be, "
                     "were all of them normal"),
    ]  # fmt: skip
    if len(known) < n:
        facts.append(("Without a score", f"{n - len(known):,} objects"))
    return tuple(facts)


def p_histogram(p: Float[np.ndarray, " objects"], bins: int) -> Int[np.ndarray, " bins"]:
    """How many p-values are in each of so many equal bins from 0 to 1."""
    return np.histogram(p[~np.isnan(p)], bins, (0.0, 1.0))[0]


def _null_in_words(scores: Surprise) -> str:
    null = scores.null
    nu = 1.0 / null.inverse_df if null.inverse_df > 0.0 else math.inf
    words = f"Student t, ν = {nu:.3g}, scale {null.scale:.3g}; {100 * null.contamination:.2g} % of pixels bad"
    if null.correlation:
        lags = len(null.correlation)
        words += f"; correlation {null.correlation[0]:.2g} from pixel to pixel, over {lags} in all"
    return words


def _bulk_in_words(scores: Surprise) -> str:
    bulk = scores.empirical
    if bulk.levels:
        return f"p-values are taken against objects with similar errors ({BY_ERROR})"
    use = "p-values are taken against it" if bulk.applied else "0 ± 1 where the null law holds"
    return f"z = {bulk.centre:.2f} ± {bulk.width:.2f} ({use})"
