"""The page as one file: template, scripts, data and library, nothing from the network."""

from __future__ import annotations

import html
import os
from importlib.resources import files
from typing import Any

import numpy as np

from robusta_prob.data import Dataset
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.io import atomic_path
from robusta_prob.report.building import explore
from robusta_prob.report.explorer import Explorer
from robusta_prob.report.facts import CAREFUL
from robusta_prob.report.packing import as_json, packed_cells, packed_page
from robusta_prob.scoring.results import Surprise

SCRIPTS = ("data", "cells", "colours", "scales", "table", "spectrum", "filters", "explorer")
CELLS = "<!-- cells -->"
BRIGHT = 30  # colours of the ramp that are too bright on white; dark is much
NEEDED = "the page needs Bokeh: pip install 'robusta-prob[report]'"


def write_page(explorer: Explorer, path: str | os.PathLike[str], *, title: str = "robusta-prob") -> None:
    """Write the page that explores a survey: one HTML file, which needs no network and no server.

    A map of the objects, a second scatter of any two columns, a table that can be sorted and searched, and
    the spectrum of the object that was clicked, with its model, predictive band, residuals, weights and
    windows; all of them linked. What is shown can be restricted, coloured by any column, exported as CSV.

    Map and scatter are beside the spectrum and the table is below it, all on one screen: nobody has to
    scroll between the list and what it lists. Table and controls are plain HTML, not widgets of Bokeh:
    its table does not tell in which order it is sorted, and the keyboard steps through that order.

    Spectra are kept in three bytes a cell, see `report.codes`; the page says how precise that is.

    Parameters
    ----------
    explorer : Explorer
    path : path
        File to write (UTF-8), in a folder that exists; a failure leaves an existing file untouched.
    title : str
        Of the page.

    Raises
    ------
    ImportError
        Without Bokeh.
    OSError
        If nothing can be written there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import robusta_prob as rp
    >>> from robusta_prob import report
    >>> data = rp.simulate.toy(200, 150, seed=1).data
    >>> fit = rp.fit(data, rank=5)
    >>> explorer = report.explore(fit, data, rp.surprise(fit, data), embedding=False)
    >>> path = Path(tempfile.mkdtemp()) / "report.html"
    >>> report.write_page(explorer, path, title="Toy survey")
    >>> path.stat().st_size < 5e6
    True
    """
    check_library()
    from bokeh.embed import file_html
    from bokeh.palettes import Cividis256
    from bokeh.resources import INLINE
    from jinja2 import Template

    from robusta_prob.report.figures import document

    # drawn in this order: the most surprising ones are on top of all others
    doubtful = any(name == CAREFUL for run in explorer.runs for name, _ in run.facts)
    ordered = explorer.take(np.argsort(-explorer.columns["rank"], kind="stable"))
    page = as_json(packed_page(ordered, title=title, palette=list(Cividis256[::-1][BRIGHT:])))
    text = file_html(
        document(title),
        INLINE,
        title=title,
        template=Template(_part("page.html")),
        template_variables={
            "heading": html.escape(title),
            "style": _part("page.css"),
            "summary": summary_of(explorer),
            "careful": ": careful, too many are flagged" if doubtful else "",
            "script": "\n".join(_part(f"{name}.js") for name in SCRIPTS),
            "page": page,
            "cells": CELLS,
        },
    )
    head, tail = text.split(CELLS)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(head)
        for number, run in enumerate(explorer.runs):
            file.write(f'<script type="text/plain" id="cells-{number}">')
            file.writelines(packed_cells(run))
            file.write("</script>\n")
        file.write(tail)


def check_library() -> None:
    """Raise an ImportError that says what to install, where Bokeh is not."""
    try:
        import bokeh  # noqa: F401
    except ImportError as error:
        raise ImportError(NEEDED) from error


def write_report(
    fit: Fit,
    data: Dataset,
    scores: Surprise,
    path: str | os.PathLike[str],
    projection: Projection | None = None,
    *,
    title: str = "robusta-prob",
    **options: Any,
) -> None:
    """The page of one fit: `write_page` of what `explore` makes of it.

    Parameters
    ----------
    fit : Fit
    data : Dataset
    scores : Surprise
        Of these data.
    path : path
        File to write, in a folder that exists.
    projection : Projection, optional
        Of these data, if there is one already.
    title : str
        Of the page.
    **options
        Of `explore`: embedding, lines, spectra, limit_mb, labels, survey, callback.

    Raises
    ------
    ImportError, ValueError, OSError
        As these two do.

    Examples
    --------
    >>> report.write_report(fit, data, scores, "report.html", title="My survey")  # doctest: +SKIP
    """
    check_library()
    write_page(explore(fit, data, scores, projection, **options), path, title=title)


def summary_of(explorer: Explorer) -> str:
    """HTML of what is known of every run, and of what the page holds."""
    sections = []
    for run in explorer.runs:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in run.facts
        )
        name = f"<h2>{html.escape(run.name)}</h2>" if run.name else ""
        sections.append(f"<section>{name}{_histogram(run.p_values)}<table>{rows}</table></section>")
    return "".join(sections) + f'<p class="note">{_note(explorer)}</p>'


def _note(explorer: Explorer) -> str:
    n, carried = len(explorer.place), int((explorer.place >= 0).sum())
    words = [f"{explorer.total:,} objects in all"]
    if n < explorer.total:
        words.append(f"{n:,} of them on this page")
    if carried < n:
        flagged = int((explorer.flagged & (explorer.place >= 0)).sum())
        words.append(f"{carried:,} with their spectra, {flagged:,} of them flagged")
    ends = [float(run.codes.z_end.max()) for run in explorer.runs if len(run.coefficients)]
    if not ends:
        return "; ".join(words) + "."
    coarse = np.arcsinh(max(ends)) / 254.0
    precision = (
        "Spectra are kept in three bytes a pixel: z is exact to √(1 + z²) times asinh of its object's "
        f"largest |z| over 254, {coarse:.2g} at most; weights to 0.002 of the largest. The flux is the model "
        "plus z σ."
    )
    return "; ".join(words) + f". {precision}"


def _histogram(counts: np.ndarray) -> str:
    """The p-values as a picture, with what normal objects would show."""
    wide, high, base, left = 260, 84, 96, 34
    top = max(int(counts.max(initial=0)), 1)
    step = wide / len(counts)
    bars = "".join(
        f'<rect x="{left + i * step:.1f}" y="{base - high * c / top:.1f}" width="{step - 1:.1f}" '
        f'height="{high * c / top:.1f}"/>'
        for i, c in enumerate(counts.tolist())
    )
    level = base - high * counts.sum() / len(counts) / top
    ticks = "".join(
        f'<text x="{left + wide * p:.0f}" y="{base + 14}" text-anchor="middle">{p:g}</text>'
        for p in (0, 0.5, 1)
    )
    return (
        f'<svg viewBox="0 0 {left + wide + 12} 130" role="img" aria-label="histogram of the p-values">{bars}'
        f'<line x1="{left}" x2="{left + wide}" y1="{level:.1f}" y2="{level:.1f}"/>'
        f'<text x="{left - 4}" y="{base - high + 10}" text-anchor="end">{top:,}</text>'
        f'<text x="{left - 4}" y="{base}" text-anchor="end">0</text>{ticks}'
        f'<text x="{left + wide / 2:.0f}" y="{base + 29}" text-anchor="middle">'
        "p-value; line: were all objects normal</text></svg>"
    )


def _part(name: str) -> str:
    return (files("robusta_prob.report") / "page" / name).read_text(encoding="utf-8")
