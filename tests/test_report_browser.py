"""The page in a real browser: it loads, and does what one clicks, types and drags."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsers
import numpy as np
import pytest
from report_samples import EMPTY, EVIL, LINES, STRANGE, M, N, sample

from robusta_prob import report

if lacking := browsers.missing():
    pytest.skip(f"no browser: {lacking} not found; `.ci/run` installs it", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the driver's sockets


@pytest.fixture(scope="module")
def explorer() -> report.Explorer:
    """Two bins, which differ in their rank; some objects bring no spectrum."""
    made = sample()
    rng = np.random.default_rng(0)
    settled = made.scores.flagged & (np.arange(N) != STRANGE[1])
    data = made.data.with_meta(in_all_bins=settled)
    parts = [
        report.explore(
            made.fit,
            data.take(rows),
            made.scores.take(rows),
            embedding=False,
            lines=LINES,
            spectra=np.arange(rows.sum() - 1),
        )
        for rows in (np.arange(N) < 50, np.arange(N) >= 50)
    ]
    places, only = rng.standard_normal((N, 2)), ("in_all_bins", "flagged in all their bins")
    return report.joined(parts, [2, 11], facet="bin", embedding=("a map", places), only=only)


@pytest.fixture(scope="module")
def browser(explorer: report.Explorer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("browser")
    report.write_page(explorer, folder / "page.html", title=EVIL)
    driver = browsers.start(folder)
    driver.folder = folder
    try:
        browsers.resize(driver, 1280, 720)
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def page(browser: Any) -> Any:
    """The page as it is at the beginning."""
    browsers.visit(browser, browser.folder / "page.html")
    return browser


def text(page: Any, css: str) -> str:
    return page.execute_script("return document.querySelector(arguments[0]).textContent", css)


def column(page: Any, name: str) -> list[str]:
    """A column of the lines of the table that are in the document."""
    return page.execute_script(
        """const all = (css) => [...document.querySelectorAll(css)], lines = all("tr[data-row]");
        const at = all("#table th").findIndex((th) => th.dataset.column === arguments[0]);
        return lines.map((tr) => tr.children[at].textContent)""",
        name,
    )


def choose(page: Any, name: str, value: Any) -> None:
    """Set a control, as people do."""
    page.execute_script(
        """const it = document.getElementById(arguments[0]);
        it[it.type === "checkbox" ? "checked" : "value"] = arguments[1];
        it.dispatchEvent(new Event(it.type === "search" ? "input" : "change", { bubbles: true }))""",
        name,
        value,
    )


def press(page: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    chain = ActionChains(page)
    for key in keys:
        chain = chain.send_keys(key)
    chain.perform()


def state(page: Any, what: str) -> Any:
    return page.execute_script(f"return explorer.{what}")


def current(page: Any) -> str:
    """The id of the object that is shown."""
    return text(page, "#headline b")


def test_it_loads_with_the_most_surprising_object(page: Any, explorer: report.Explorer) -> None:
    assert browsers.complaints(page) == []
    first = int(np.argmin(explorer.columns["rank"]))
    assert current(page) == explorer.columns["id"][first]
    assert page.title.split() == EVIL.split()
    assert page.execute_script("return document.getElementById('evil')") is None
    assert int(text(page, "#table tr.current td")) == 1


def test_it_fits_on_a_laptop_and_on_a_desk(page: Any) -> None:
    for width, height in ((1280, 720), (1920, 1080)):
        browsers.resize(page, width, height)
        browsers.painted(page)
        wide, high = page.execute_script(
            "const d = document.documentElement; return [d.scrollWidth, d.scrollHeight]"
        )
        assert (wide, high) == (width, height), "nothing to scroll but the table"
        sizes = page.execute_script(
            "return ['map', 'scatter', 'flux', 'z', 'weight'].map((name) => "
            "Bokeh.documents[0].get_model_by_name(name)).map((f) => [f.inner_width, f.inner_height])"
        )
        assert (np.array(sizes)[:3] > 110).all() and (np.array(sizes) > 30).all(), sizes
    browsers.resize(page, 1280, 720)


def test_the_spectrum_is_that_of_the_library(page: Any, explorer: report.Explorer) -> None:
    """Model, flux, z, band and weight as decoded here; holes are holes in all of them."""
    from robusta_prob.report.codes import decoded

    order = np.argsort(-explorer.columns["rank"], kind="stable")  # of the page
    for row in np.flatnonzero(explorer.place[order] >= 0)[[0, 40, -1]]:
        page.execute_script("explorer.show(arguments[0])", int(row))
        run = explorer.runs[explorer.run[order][row]]
        place = explorer.place[order][row]
        z, sd, weight = (values[0] for values in decoded(run.codes.take([place])))
        model = run.coefficients[place] @ run.basis.astype(float)
        shown = page.execute_script(
            """const s = explorer.shown, plain = (v) => Array.from(v, (x) => (Number.isFinite(x) ? x : null));
            return ["x", "model", "flux", "z", "sd", "weight"].map((name) => plain(s[name]))"""
        )
        shown = [np.array(values, float) for values in shown]
        for got, true in zip(shown, (run.grid, model, model + z * sd, z, sd, weight), strict=True):
            np.testing.assert_allclose(got, true, rtol=1e-6, atol=1e-9)
        drawn = page.execute_script(
            "return Array.from(Bokeh.documents[0].get_model_by_name('steps').data.z, (v) => Number.isNaN(v))"
        )
        np.testing.assert_array_equal(drawn, np.repeat(np.isnan(z), 2))


@pytest.mark.parametrize("name", ["map", "scatter"])
def test_a_click_on_a_point_shows_that_object(page: Any, name: str) -> None:
    """The farthest one from all others, so that there is no doubt which; and at once another one."""
    for _ in range(2):
        row = page.execute_script(browsers.LONELIEST, name)
        browsers.click(page, *page.execute_script(browsers.WHERE, name, row))
        browsers.until(page, f"return explorer.state.current === {row}")
    assert state(page, "state.selected.size") == 1
    assert current(page) == page.execute_script(
        "return explorer.page.named.get('id').text(arguments[0])", row
    )
    assert "1 selected" in text(page, "#export")
    assert browsers.complaints(page) == []


def test_a_lasso_selects_everywhere_and_shows_the_strangest(page: Any) -> None:
    page.execute_script("Bokeh.documents[0].get_model_by_name('objects').selected.indices = [4, 9, 2]")
    browsers.until(page, "return explorer.state.selected.size === 3")
    ranks = page.execute_script("return [4, 9, 2].map((row) => explorer.page.named.get('rank').values[row])")
    shown = page.execute_script("return explorer.page.named.get('rank').values[explorer.state.current]")
    assert shown == min(ranks)
    choose(page, "only-selected", True)
    assert sorted(column(page, "rank"), key=int) == [str(int(r)) for r in sorted(ranks)]
    from selenium.webdriver import Keys

    press(page, Keys.ESCAPE)
    assert state(page, "state.selected.size") == 0
    assert text(page, "#listed") == f"{N} of {N} objects"


def test_a_line_of_the_table_shows_its_object_and_objects_without_spectra_say_so(
    page: Any, explorer: report.Explorer
) -> None:
    page.execute_script("document.querySelectorAll('#table tr[data-row]')[3].click()")
    assert state(page, "state.current") == state(page, "state.order[3]")
    bare = page.execute_script("return explorer.page.place.findIndex((place) => place < 0)")
    page.execute_script("explorer.show(arguments[0])", bare)
    assert "does not carry the spectrum" in text(page, "#no-spectrum")
    choose(page, "only-carried", True)
    assert len(state(page, "state.order")) == (explorer.place >= 0).sum() < N


def test_sorting(page: Any, explorer: report.Explorer) -> None:
    heading = "#table th[data-column='colour']"
    for rising in (True, False):
        page.execute_script("document.querySelector(arguments[0]).click()", heading)
        values = page.execute_script(
            "const v = explorer.page.named.get('colour').values; "
            "return explorer.state.order.map((row) => (Number.isNaN(v[row]) ? null : v[row]))"
        )
        values = np.array(values, float)
        known = np.isfinite(explorer.columns["colour"]).sum()
        assert np.isnan(values[known:]).all(), "what is missing is at the end"
        assert (np.diff(values[:known]) * (1 if rising else -1) >= 0).all()
    assert page.find_element("css selector", heading).get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('"STAR 4"', lambda c: np.array(["star 4" in one for one in c["id"].tolist()])),
        ("NORTH meta_sn>20", lambda c: (c["field"] == "north") & (c["meta_sn"] > 20)),
        ("meta_sn<=60 meta_sn>=60", lambda c: c["meta_sn"] == 60),
        ("field=south", lambda c: c["field"] == "south"),
        ('field = "south" meta_sn > 20', lambda c: (c["field"] == "south") & (c["meta_sn"] > 20)),
        ("<b id=", lambda c: np.array([EVIL in pair for pair in zip(c["id"], c["field"], strict=True)])),
        ("nobody", lambda c: np.zeros(N, bool)),
    ],
)  # fmt: skip
def test_search(page: Any, explorer: report.Explorer, words: str, expected: Any) -> None:
    choose(page, "search", words)
    found = expected(explorer.columns)
    assert text(page, "#listed") == f"{found.sum()} of {N} objects"
    shown = page.execute_script("return explorer.state.order.map(explorer.page.named.get('id').text)")
    assert sorted(shown) == sorted(explorer.columns["id"][found].tolist())
    assert sum(state(page, "state.keep")) == found.sum()


def test_a_search_by_what_is_no_column_says_so(page: Any) -> None:
    choose(page, "search", "brightness > 3")
    assert "there is no column “brightness”" in text(page, "#listed")
    choose(page, "search", "")
    assert text(page, "#listed") == f"{N} of {N} objects"


def test_filters(page: Any, explorer: report.Explorer) -> None:
    columns = explorer.columns
    options = "return [...document.getElementById('facet').options].map((o) => o.value)"
    assert page.execute_script(options) == ["", "2", "11"], "2 is before 11"
    both = columns["flagged"] & columns["in_all_bins"]
    for wanted, found in (
        ({"facet": "11"}, columns["bin"] == 11),
        ({"only-flagged": True}, (columns["bin"] == 11) & columns["flagged"]),
        ({"facet": "", "only-flagged": False, "only": True}, both),
    ):  # fmt: skip
        for name, value in wanted.items():
            choose(page, name, value)
        assert len(state(page, "state.order")) == found.sum() > 0
    assert browsers.complaints(page) == []


def test_colour_by_any_column(page: Any) -> None:
    colours = "return new Set(Bokeh.documents[0].get_model_by_name('objects').data.colour).size"
    names = page.execute_script("return explorer.page.columns.map((column) => column.name)")
    seen = {}
    for name in names:
        choose(page, "colour", name)
        seen[name] = page.execute_script(colours)
        assert text(page, "#legend")
    assert seen["minus_log10_p"] > 10 and seen["flagged"] == 2 and seen["field"] == 3
    markers = "return new Set(Bokeh.documents[0].get_model_by_name('objects').data.marker).size"
    choose(page, "colour", "field")
    assert page.execute_script(markers) == 3, "categories differ by more than colour"
    browsers.painted(page)
    assert browsers.complaints(page) == []


def test_axes(page: Any) -> None:
    choose(page, "x-axis", "colour")
    choose(page, "y-axis", "rank")
    choose(page, "y-down", True)
    label, start, end = page.execute_script(
        "const f = Bokeh.documents[0].get_model_by_name('scatter'); "
        "return [f.below[0].axis_label, f.y_range.start, f.y_range.end]"
    )
    assert label == "colour" and start > N > 1 > end
    choose(page, "y-stretch", True)
    ticks = page.execute_script(
        "return [...Bokeh.documents[0].get_model_by_name('scatter').left[0].major_label_overrides.values()]"
    )
    assert len(ticks) > 2 and all(float(tick) >= 0 for tick in ticks)
    choose(page, "map-choice", page.execute_script("return explorer.page.maps[1].name"))
    browsers.painted(page)
    assert browsers.complaints(page) == []


def test_line_markers(page: Any) -> None:
    marks = "return Bokeh.documents[0].get_model_by_name('marks').data"
    assert page.execute_script(marks)["x"] == []
    choose(page, "lines", "=named")
    shown = page.execute_script(marks)
    assert shown["x"] == [410.0, 410.5, 470.0] and shown["label"] == ["Ca II", "", "P17"], (
        "names do not overlap"
    )
    page.execute_script(
        "const x = Bokeh.documents[0].get_model_by_name('pixels'); x.setv({ start: 409, end: 412 })"
    )
    assert page.execute_script(marks)["label"] == ["Ca II", "Fe I"], "and there is room when one zooms in"


def test_keys(page: Any) -> None:
    from selenium.webdriver import Keys

    order = state(page, "state.order")
    press(page, "j", Keys.ARROW_DOWN, "j", "k")
    assert state(page, "state.current") == order[2]
    press(page, Keys.END, "j")
    assert state(page, "state.current") == order[-1]
    assert text(page, "#table tr.current td") == str(N), "the table scrolls along"
    press(page, Keys.ARROW_UP, Keys.HOME, "k")
    assert state(page, "state.current") == order[0]
    press(page, "/", "jk star 7", Keys.ESCAPE)
    assert page.execute_script("return document.getElementById('search').value") == "", "Esc clears it"
    assert state(page, "state.current") == order[0]
    press(page, "/", '"star 7"', Keys.ENTER)
    assert current(page).startswith("star 7")
    press(page, "?")
    assert page.execute_script("return document.getElementById('keys').open")
    press(page, Keys.ESCAPE)
    assert not page.execute_script("return document.getElementById('keys').open")


def test_export(page: Any, explorer: report.Explorer, browser: Any) -> None:
    """The selection, or what is listed: as a file, every column, hostile names quoted."""
    choose(page, "only-flagged", True)
    page.execute_script("document.getElementById('export').click()")
    file: Path = browser.folder / "objects.csv"
    browsers.until(page, "return true")
    for _ in range(200):
        if file.exists() and not list(browser.folder.glob("*.crdownload")):
            break
        browsers.painted(page)
    lines = list(csv.DictReader(io.StringIO(file.read_bytes().decode(), newline="")))
    flagged = explorer.columns["flagged"]
    order = np.argsort(explorer.columns["rank"][flagged])
    assert [line["id"] for line in lines] == explorer.columns["id"][flagged][order].tolist()
    assert set(lines[0]) == set(explorer.columns)
    for name in ("z", "big", "colour"):
        written = [line[name] for line in lines]
        true = explorer.columns[name][flagged][order]
        np.testing.assert_array_equal([float(x or "nan") for x in written], true.astype(float))
    page.execute_script("explorer.select([0, 1])")
    assert len(page.execute_script("return explorer.csv()").split("\r\n")) >= 4
    assert "2 selected" in text(page, "#export")


def test_what_is_under_the_mouse_is_told(page: Any) -> None:
    page.execute_script("explorer.moved(explorer.shown.x[10])")
    assert "model" in text(page, "#readout")
    assert len(page.execute_script("return Array.from(explorer.shown.x)")) == M


def unusual(name: str) -> report.Explorer:
    """What no survey should have, and some do."""
    made = sample()
    if name == "one object":
        rows = np.array([STRANGE[0]])
        return report.explore(made.fit, made.data.take(rows), made.scores.take(rows), embedding=False)
    if name == "no pixel":
        rows = np.array([EMPTY])
        return report.explore(made.fit, made.data.take(rows), made.scores.take(rows), embedding=False)
    ends = np.resize([np.inf, -np.inf, 1e-300, 1e308, 0.0], N)
    meta = {"nothing": np.full(N, np.nan), "ends": ends, "<i>name</i>": np.arange(N)}
    return report.explore(made.fit, made.data.with_meta(**meta), made.scores, embedding=False)


@pytest.mark.parametrize("name", ["one object", "no pixel", "numbers"])
def test_unusual_objects_and_numbers_are_shown(browser: Any, name: str) -> None:
    explorer = unusual(name)
    report.write_page(explorer, browser.folder / "unusual.html")
    browsers.visit(browser, browser.folder / "unusual.html")
    assert text(browser, "#counts").startswith(f"{len(explorer.place)} object")
    for column in ("nothing", "ends", "<i>name</i>") if name == "numbers" else ("z",):
        for control in ("colour", "x-axis", "y-axis"):
            choose(browser, control, column)
    press(browser, "j")
    assert browsers.complaints(browser) == []


# Everything that the page consists of, shadow roots too: Bokeh's tooltips are in one.
EVERYTHING = """
const found = [], look = (root) => root.querySelectorAll("*").forEach((one) => {
  found.push(one);
  if (one.shadowRoot) look(one.shadowRoot);
});
look(document);
"""


def test_names_from_the_data_are_text_under_the_mouse_too(page: Any) -> None:
    ids = "explorer.page.named.get('id').text"
    (row,) = page.execute_script(
        f"return [...explorer.page.run.keys()].filter((row) => {ids}(row) === arguments[0])", EVIL
    )
    x, y = page.execute_script(browsers.WHERE, "map", row)
    page.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    values = "found.filter((one) => one.className === 'bk-tooltip-row-value').map((one) => one.textContent)"
    told = browsers.until(page, f"{EVERYTHING} const told = {values}; return told.length && told")
    assert EVIL in told[0]
    assert not page.execute_script(f"{EVERYTHING} return found.some((one) => one.id === 'evil')")
    assert browsers.complaints(page) == []
