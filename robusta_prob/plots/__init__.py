"""Pictures of a fit and of its outliers: pure functions, each giving a new matplotlib Figure.

    from robusta_prob import plots
    plots.basis(fit).savefig("basis.png", dpi=200)

Built on matplotlib's objects alone, without pyplot: no global state and no screen. `import robusta_prob`
does not import this package, hence not matplotlib.
"""

from robusta_prob.plots.completeness import recovery_curves
from robusta_prob.plots.fits import basis, history
from robusta_prob.plots.markers import mark_lines, marked
from robusta_prob.plots.objects import object_pages, object_panels, outliers
from robusta_prob.plots.p_values import calibration
from robusta_prob.plots.selections import selection
from robusta_prob.plots.surveys import overview, surprise_against_sn, surprise_histogram

__all__ = [
    "basis",
    "calibration",
    "history",
    "mark_lines",
    "marked",
    "object_pages",
    "object_panels",
    "outliers",
    "overview",
    "recovery_curves",
    "selection",
    "surprise_against_sn",
    "surprise_histogram",
]
