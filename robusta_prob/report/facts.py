"""What the head of the page says of a fit and of its calibration."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from robusta_prob.inference.results import Fit
from robusta_prob.scoring.results import FLAG, Surprise

CAREFUL = "Careful"  # name of the fact that is told in the head of the page, too
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
        ("Null law of z", str(scores.null)),
        ("Bulk of the objects", str(scores.empirical)),
        ("Flagged", f"{flagged:,} of {n:,} objects at q < {FLAG:g}" + ("" if scores.warning else
                    f": {flagged * FLAG:.3g} of them expected to be normal, at most")),
        ("Kinds", ", ".join(f"{c:,} {kind}" for kind, c in zip(kinds, counts, strict=True))
                  or "none"),
        ("p < 0.01", f"{int((known < 0.01).sum()):,} objects; {0.01 * len(known):.3g} would be, "
                     "were all of them normal"),
    ]  # fmt: skip
    if scores.warning:
        facts.insert(0, (CAREFUL, scores.warning.replace("`empirical_null`", "an empirical null")))
    if len(known) < n:
        facts.append(("Without a score", f"{n - len(known):,} objects"))
    return tuple(facts)


def p_histogram(p: Float[np.ndarray, " objects"], bins: int) -> Int[np.ndarray, " bins"]:
    """How many p-values are in each of so many equal bins from 0 to 1."""
    return np.histogram(p[~np.isnan(p)], bins, (0.0, 1.0))[0]
