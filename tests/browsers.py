"""Chromium, driven by selenium: for the tests of the page, and for its benchmark."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def missing() -> str:
    """What is not here of all that a browser takes; "" where nothing is missing."""
    lacking = [] if any(map(shutil.which, CHROMIUM)) else ["chromium"]
    lacking += [] if shutil.which("chromedriver") else ["chromedriver"]
    try:
        import selenium  # noqa: F401
    except ImportError:
        lacking.append("selenium")
    return " and ".join(lacking)


def start(downloads: Path) -> Any:
    """A browser without a window. Its driver is the distribution's: selenium is not to download one."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    os.environ["SE_OFFLINE"] = "true"
    options = webdriver.ChromeOptions()
    options.binary_location = next(path for path in map(shutil.which, CHROMIUM) if path)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    driver.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    return driver


def resize(driver: Any, width: int, height: int) -> None:
    """The size of the page [px]."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def visit(driver: Any, page: Path, seconds: float = 120.0) -> None:
    """Load the page, and wait until it is drawn."""
    driver.get(page.resolve().as_uri())
    until(driver, "return document.body.dataset.ready === 'yes'", seconds)
    painted(driver)


def until(driver: Any, script: str, seconds: float = 60.0) -> Any:
    """What the script returns, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := driver.execute_script(script)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"never true: {script}\n{driver.get_log('browser')}")
        time.sleep(0.05)
    return found


def painted(driver: Any) -> None:
    """Wait for the second frame from now."""
    driver.execute_async_script(
        "const end = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(end))"
    )


def complaints(driver: Any) -> list[str]:
    """Errors and warnings on the console."""
    return [line["message"] for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]


# Where a point of a scatter is on the screen [px], by the frame of its figure and by its axes.
WHERE = """
const [name, row] = arguments, fig = Bokeh.documents[0].get_model_by_name(name);
const data = Bokeh.documents[0].get_model_by_name("objects").data;
const [xs, ys] = name === "map" ? [data.mx, data.my] : [data.x, data.y];
const view = Bokeh.index.find_one(fig), canvas = view.canvas_view.el.getBoundingClientRect();
const share = (range, value) => (value - range.start) / (range.end - range.start), frame = view.frame.bbox;
return [canvas.left + frame.left + share(fig.x_range, xs[row]) * frame.width,
        canvas.top + frame.bottom - share(fig.y_range, ys[row]) * frame.height];
"""
# The point that is farthest from all others.
LONELIEST = """
const [name] = arguments, fig = Bokeh.documents[0].get_model_by_name(name);
const data = Bokeh.documents[0].get_model_by_name("objects").data;
const [xs, ys] = name === "map" ? [data.mx, data.my] : [data.x, data.y];
const wide = fig.x_range.end - fig.x_range.start, high = fig.y_range.end - fig.y_range.start;
const rows = [...xs.keys()].filter((i) => Number.isFinite(xs[i]) && Number.isFinite(ys[i]));
const between = (i, j) => Math.hypot((xs[i] - xs[j]) / wide, (ys[i] - ys[j]) / high);
const apart = (i) => Math.min(...rows.filter((j) => j !== i).map((j) => between(i, j)));
const others = rows.filter((i) => i !== explorer.state.current);
return others.reduce((best, i) => (apart(i) > apart(best) ? i : best));
"""


def click(driver: Any, x: float, y: float) -> None:
    """A press and a release of the mouse, where people would click."""
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": int(kind != "mouseMoved")}
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
