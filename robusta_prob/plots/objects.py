"""Pictures of single objects: what is odd about the most surprising ones, or about any."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure

from robusta_prob.data import Dataset
from robusta_prob.inference.belonging import check_same_objects, check_same_pixels
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.plots.panels import Drawn, draw, drawn, explain, panels, windows_of
from robusta_prob.plots.style import PAGE, SMALL, plain, probability
from robusta_prob.scoring.results import Surprise

MOST_NAMED = 6  # windows that are told in words
LINE = 105  # characters in the width of a page


def outliers(
    fit: Fit, data: Dataset, scores: Surprise, top: int = 6, projection: Projection | None = None
) -> Figure:
    """The most surprising objects, each drawn as in `object_panels`, with its p-value and kind.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    scores : Surprise
        Of these data.
    top : int
        How many objects, at least 1; fewer where fewer have a score.
    projection : Projection, optional
        Of these data, if there is one already; else the objects shown are projected.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels per object, two objects in a row, the most surprising first.

    Raises
    ------
    ValueError
        If the scores are of other data, the pixels not those of the fit, or there is no object to show.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> fit = rp.fit(survey.data, rank=5)
    >>> scores = rp.surprise(fit, survey.data)
    >>> len(plots.outliers(fit, survey.data, scores, top=2).axes)
    6
    """
    _check(fit, data, scores, projection)
    ranked = scores.ranking[~np.isnan(scores.object.p_value[scores.ranking])][: max(top, 0)]
    if not len(ranked):
        raise ValueError(
            f"no object to show: top={top}, and {(~np.isnan(scores.object.p_value)).sum()} have a score"
        )
    columns = min(len(ranked), 2)
    rows = -(-len(ranked) // columns)
    figure = Figure(figsize=(PAGE, 0.6 + (2.7 if columns == 2 else 3.4) * rows), layout="constrained")
    axes = panels(figure, rows, columns)
    objects = drawn(fit, data, scores, ranked, projection)
    for place, (index, shown) in enumerate(zip(ranked, objects, strict=True)):
        row, column = divmod(place, columns)
        own = axes[3 * row : 3 * row + 3, column]
        draw(own, shown, fit, names=column == 0, numbers=False)
        own[0].set_title(f"{place + 1}. {_headline(scores, index, 16)}", fontsize=SMALL, pad=4)
    for one in axes[3 * rows - 3 :, len(ranked) - (rows - 1) * columns :].flat:
        one.remove()
    figure.align_ylabels()
    explain(figure, objects)
    return figure


def object_panels(
    fit: Fit, data: Dataset, scores: Surprise, row: int, projection: Projection | None = None
) -> Figure:
    """One object: its spectrum with the model, residuals in predictive standard deviations, robust weights.

    z is the residual over its predictive standard deviation, that of noise, coefficients and basis together.
    The bands are |z| below the 68 and 95 % quantiles of the null law's core: so many of the good cells
    of a normal object are within (1 and 2 deviations where the noise is Gaussian). In the upper panel they
    lie about the model, in units of the flux. Stretches of `scores.windows` are shaded and numbered, the
    strangest first; the header tells their centres [grid] and depths [flux], and the scores of the object.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    scores : Surprise
        Of these data.
    row : int
        Which of the N objects; `np.flatnonzero(data.ids == name)[0]` where its id is known.
    projection : Projection, optional
        Of these data, if there is one already; else the object is projected.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels sharing the pixel axis. Missing cells are gaps; the model is drawn across them.

    Raises
    ------
    ValueError
        If the scores are of other data, or the pixels not those of the fit.
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> fit = rp.fit(survey.data, rank=5)
    >>> scores = rp.surprise(fit, survey.data)
    >>> len(plots.object_panels(fit, survey.data, scores, row=int(scores.ranking[0])).axes)
    3
    """
    return object_pages(fit, data, scores, [row], projection)[0]


def object_pages(
    fit: Fit,
    data: Dataset,
    scores: Surprise,
    rows: Sequence[int] | Shaped[np.ndarray, " some"],
    projection: Projection | None = None,
) -> list[Figure]:
    """Several objects, a figure each: that of `object_panels`.

    Parameters
    ----------
    fit : Fit
    data : Dataset
        N objects on the pixels of the fit.
    scores : Surprise
        Of these data.
    rows : sequence of int
        Which of the N objects, `scores.ranking[:10]` say. matplotlib keeps every figure in memory.
    projection : Projection, optional
        Of these data, if there is one already; else the objects shown are projected.

    Returns
    -------
    list of matplotlib.figure.Figure
        In the order of `rows`.

    Raises
    ------
    ValueError
        If the scores are of other data, the pixels not those of the fit, or there are no rows.
    TypeError
        If the rows are not whole numbers.
    IndexError
        If there is no such row.

    Examples
    --------
    >>> import robusta_prob as rp
    >>> from robusta_prob import plots
    >>> survey = rp.simulate.toy(200, 150, seed=1)
    >>> fit = rp.fit(survey.data, rank=5)
    >>> scores = rp.surprise(fit, survey.data)
    >>> len(plots.object_pages(fit, survey.data, scores, scores.ranking[:3]))
    3
    """
    _check(fit, data, scores, projection)
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or not len(chosen):
        raise ValueError(f"rows must be a list of at least one row, got {rows!r}")
    if chosen.dtype.kind not in "iu":
        raise TypeError(f"rows must be whole numbers, got dtype {chosen.dtype}")
    if wrong := chosen[(chosen < 0) | (chosen >= data.shape[0])].tolist():
        raise IndexError(f"row must be between 0 and {data.shape[0] - 1}, one of the objects; got {wrong[0]}")
    objects = drawn(fit, data, scores, chosen, projection)
    return [_page(fit, scores, int(row), one) for row, one in zip(chosen, objects, strict=True)]


def _page(fit: Fit, scores: Surprise, row: int, shown: Drawn) -> Figure:
    figure = Figure(figsize=(PAGE, 4.4), layout="constrained")
    axes = panels(figure, 1, 1)[:, 0]
    draw(axes, shown, fit)
    header = "\n".join(
        [_headline(scores, row), *_scores_in_words(scores, row), *_windows_in_words(scores, row)]
    )
    axes[0].set_title(header, fontsize=SMALL, pad=14 if shown.windows else 4, loc="left")
    figure.align_ylabels()
    explain(figure, [shown])
    return figure


def _headline(scores: Surprise, row: int, longest: int = 60) -> str:
    o = scores.object
    name = f"id {_both_ends(str(scores.ids[row]), longest)}"
    if np.isnan(o.log_p[row]):
        return f"{name}: {o.reason[row] or 'no score'}"
    least = probability(scores.log_least_p[row] / math.log(10.0))
    return f"{name}: least p = {least}, {o.kind[row] or 'not flagged'}"


def _both_ends(name: str, longest: int) -> str:
    """A name that is too long without its middle: many differ at their ends alone."""
    if len(name) > longest:
        name = f"{name[: longest // 2]}…{name[-((longest - 1) // 2) :]}"
    return plain(name, longest)


def _scores_in_words(scores: Surprise, row: int) -> list[str]:
    """The other scores of an object, in two lines; none where it has no score."""
    o = scores.object
    if np.isnan(o.log_p[row]):
        return []
    whole, run = (probability(values[row] / math.log(10.0)) for values in (o.log_p, o.log_p_run))
    with np.errstate(divide="ignore"):
        q, pixel, coefficients = (
            probability(float(np.log10(values[row]))) for values in (o.q_any, o.p_pixel, o.p_mahalanobis)
        )
    return [
        f"as a whole p = {whole}, strangest run p = {run} (q = {q}), strangest pixel p = {pixel}, "
        f"score {o.score[row]:,.0f} nats",
        f"robust scale of z {o.scale[row]:.3g}, Mahalanobis distance² {o.mahalanobis[row]:,.3g} "
        f"(p = {coefficients}), {o.n_observed[row]:,} pixels, "
        f"{'in' if o.in_training[row] else 'not in'} the training set",
    ]


def _windows_in_words(scores: Surprise, row: int) -> list[str]:
    w = scores.windows
    own = windows_of(scores, row)
    if not len(own):
        return []
    told = [
        f"{number} at {w.centre[entry]:.6g}, depth "
        + (f"{w.depth[entry]:.3g} ± {w.depth_sd[entry]:.2g}" if np.isfinite(w.depth[entry]) else "unknown")
        for number, entry in enumerate(own[:MOST_NAMED], 1)
    ]
    text = "windows: " + "; ".join(told).replace("-", "−")
    if len(own) > MOST_NAMED:
        text += f"; and {len(own) - MOST_NAMED} more"
    return textwrap.wrap(text, LINE)


def _check(fit: Fit, data: Dataset, scores: Surprise, projection: Projection | None) -> None:
    check_same_pixels(fit, data)
    check_same_objects(scores, data, "scores", "surprise", hidden=True)
    if projection is not None:
        check_same_objects(projection, data, hidden=True)
