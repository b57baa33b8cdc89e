"""The figures of the page, empty, which `page/explorer.js` fills.

Nothing but `write_page` imports this module: it imports Bokeh.
"""

from __future__ import annotations

from typing import Any

from bokeh.document import Document
from bokeh.events import DocumentReady
from bokeh.models import (
    BooleanFilter,
    BoxAnnotation,
    BoxZoomTool,
    CDSView,
    ColumnDataSource,
    CrosshairTool,
    CustomJS,
    FixedTicker,
    HoverTool,
    PanTool,
    Range1d,
    ResetTool,
    Span,
    WheelZoomTool,
)
from bokeh.plotting import figure

from robusta_prob.plots.style import BLACK, BLUE, GREEN, PURPLE, VERMILLION

FONT = "12px"
SHADES = (0.28, 0.18)  # opacities of the bands, the inner one upon the outer one
LEFT = 74  # [px], so that the panels of a spectrum are aligned


def document(title: str) -> Document:
    """Five figures and their sources, by name; the page's script starts when all of them are there."""
    doc = Document(title=title)
    objects = ColumnDataSource(
        {name: [] for name in ("mx", "my", "x", "y", "colour", "marker", "size", "alpha", "id", "kind", "p")},
        name="objects",
    )
    view = CDSView(filter=BooleanFilter(name="filter"))
    ring = ColumnDataSource({"mx": [], "my": [], "x": [], "y": []}, name="ring")
    for name, x, y in (("map", "mx", "my"), ("scatter", "x", "y")):
        doc.add_root(_scatter(name, x, y, objects, view, ring))
    for panel in _panels():
        doc.add_root(panel)
    objects.selected.js_on_change("indices", _calls("dragged()"))
    start = "window.startExplorer(Bokeh.documents[0], {x, y})"
    tickers = {side: FixedTicker(ticks=[]) for side in ("x", "y")}  # of stretched axes
    doc.js_on_event(DocumentReady, CustomJS(args=tickers, code=start))
    return doc


def _scatter(
    name: str, x: str, y: str, objects: ColumnDataSource, view: CDSView, ring: ColumnDataSource
) -> Any:
    fig = figure(
        name=name,
        sizing_mode="stretch_both",
        min_height=150,
        x_range=Range1d(0, 1),
        y_range=Range1d(0, 1),
        tools="lasso_select,box_select,pan,wheel_zoom,reset",
        active_drag="lasso_select",
        active_scroll="wheel_zoom",
        toolbar_location="above",
        min_border_left=54,
        lod_threshold=None,
    )
    shown = fig.scatter(
        x, y, source=objects, view=view, marker="marker", size="size", name=f"{name}-points",
        fill_color="colour", line_color="colour", fill_alpha="alpha", line_alpha="alpha",
        nonselection_fill_alpha=0.15, nonselection_line_alpha=0.15,
    )  # fmt: skip
    fig.scatter(
        x, y, source=ring, size=17, marker="circle", fill_color=None, line_color=BLACK, line_width=2.2,
        level="overlay",  # a layer of its own: it moves and the points are not drawn again
    )  # fmt: skip
    fig.add_tools(
        HoverTool(
            renderers=[shown],
            tooltips=[("id", "@id"), ("kind", "@kind"), ("least p", "@p")],
            point_policy="follow_mouse",
            limit=1,
        )
    )
    for event in ("tap", "doubletap", "pressup"):  # a click soon after another one, and a slow one
        fig.js_on_event(event, _calls(f"tapped({name!r}, cb_obj)"))
    return _plain(fig)


def _panels() -> list[Any]:
    """Spectrum, residual and weight, which share the pixel axis."""
    x = Range1d(0, 1, name="pixels")
    for end in ("start", "end"):
        x.js_on_change(end, _calls("zoomed()"))
    cross = Span(dimension="height", line_color=BLACK, line_width=1, line_dash="dotted", line_alpha=0.7)
    steps = ColumnDataSource({k: [] for k in ("x", "flux", "z", "weight")}, name="steps")
    model = ColumnDataSource({"x": [], "model": []}, name="model")
    bands = ColumnDataSource({k: [] for k in ("x", "low68", "high68", "low95", "high95")}, name="bands")
    areas = ColumnDataSource({"x": [], "weight": []}, name="areas")
    windows = ColumnDataSource(
        {k: [] for k in ("left", "right", "middle", "bottom", "number")}, name="windows"
    )
    marks = ColumnDataSource({"x": [], "top": [], "label": []}, name="marks")
    beyond = ColumnDataSource({"x": [], "y": [], "marker": []}, name="beyond")
    panels = []
    for name in ("flux", "z", "weight"):
        fig = figure(
            name=name,
            sizing_mode="stretch_both",
            min_height=40,
            x_range=x,
            y_range=Range1d(0, 1, name=f"{name}-range"),
            tools=[],
            toolbar_location="above" if name == "flux" else None,
            min_border_left=LEFT,
            min_border_right=8,
            min_border_top=2,
            min_border_bottom=2,
        )
        zoom, wheel = BoxZoomTool(dimensions="width"), WheelZoomTool(dimensions="width")
        fig.add_tools(zoom, PanTool(dimensions="width"), wheel, ResetTool(), CrosshairTool(overlay=cross))
        fig.toolbar.active_drag, fig.toolbar.active_scroll = zoom, wheel
        fig.vstrip("left", "right", source=windows, fill_color=GREEN, fill_alpha=0.25, line_color=None)
        fig.vspan("x", source=marks, line_color=PURPLE, line_dash="dotted", line_width=1.3)
        fig.js_on_event("mousemove", _calls("moved(cb_obj.x)"))
        fig.xaxis.visible = name == "weight"
        panels.append(_plain(fig))
    flux, z, weight = panels
    for reach, shade in (("95", SHADES[1]), ("68", SHADES[0])):
        flux.varea("x", f"low{reach}", f"high{reach}", source=bands, fill_color=VERMILLION, fill_alpha=shade)
        z.add_layout(
            BoxAnnotation(
                name=f"band{reach}",
                fill_color=VERMILLION,
                fill_alpha=shade,
                line_color=None,
                level="underlay",
            )
        )
    flux.line("x", "flux", source=steps, line_color=BLACK, line_width=1)
    flux.line("x", "model", source=model, line_color=VERMILLION, line_width=1.6)
    flux.scatter("x", "y", marker="marker", source=beyond, color=BLACK, size=7)
    label: dict[str, Any] = {"text_font_size": FONT, "text_baseline": "middle"}
    flux.text(
        "x", "top", "label", source=marks, angle=1.5708, text_align="right", x_offset=-6, y_offset=4, **label
    )
    flux.text(
        "middle", "bottom", "number", source=windows, text_align="center", y_offset=-9, text_color="#006b4d",
        text_font_style="bold", **label,
    )  # fmt: skip
    z.line("x", "z", source=steps, line_color=BLUE, line_width=1)
    z.yaxis.ticker = FixedTicker(ticks=[], name="z-ticks")
    weight.varea("x", 0, "weight", source=areas, fill_color=BLUE, fill_alpha=0.35)
    weight.line("x", "weight", source=steps, line_color=BLUE, line_width=1)
    weight.yaxis.ticker = FixedTicker(ticks=[0, 1])
    z.yaxis.axis_label, weight.yaxis.axis_label = "z [σ]", "weight"
    return panels


def _calls(code: str) -> CustomJS:
    """A call of the page's script, once it has started."""
    return CustomJS(code=f"if (window.explorer) window.explorer.{code}")


def _plain(fig: Any) -> Any:
    """Upright labels of a legible size, a light frame, no logo."""
    fig.toolbar.logo = None
    fig.toolbar.autohide = False
    fig.axis.axis_label_text_font_style = "normal"
    fig.axis.axis_label_text_font_size = FONT
    fig.axis.axis_label_standoff = 4
    fig.xaxis.major_label_text_font_size = fig.yaxis.major_label_text_font_size = "11px"
    fig.grid.grid_line_alpha = 0.5
    fig.outline_line_color = "#999999"
    return fig
