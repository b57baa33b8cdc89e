"""The page at its real size: `python benchmarks/report.py`.

5000 objects x 2400 pixels, all with their spectra: how large the page is, how long it takes to write and to
load, and how long a click takes, from the event to the second painted frame after it. Needs Chromium and its
driver. The fit is of a subsample: only the size of the page matters here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

import browsers  # noqa: E402  (tests are no package that is installed)

import robusta_prob as rp  # noqa: E402
from robusta_prob import report  # noqa: E402

RANK, CLICKS = 10, 20
MOST_MB, MOST_SECONDS = 60.0, 0.2  # targets
# From the click to the frame that shows it: what the browser has to do for it is done before that frame.
TIMED = """
const end = arguments[arguments.length - 1], line = document.querySelectorAll("tr[data-row]")[arguments[0]];
const began = performance.now();
line.click();
requestAnimationFrame(() => requestAnimationFrame(() => end(performance.now() - began)));
"""
# The same for a click with the mouse on a point of the map: from the button's release.
WATCHED = """
document.addEventListener("pointerup", () => { window.pressed = performance.now(); }, true);
const steps = Bokeh.documents[0].get_model_by_name("steps");
const done = () => { window.painted = performance.now(); };
steps.properties.data.change.connect(() => requestAnimationFrame(() => requestAnimationFrame(done)));
"""
TAKEN = "return window.painted && window.painted - window.pressed"


def explorer_of(objects: int, pixels: int) -> tuple[report.Explorer, float]:
    """A survey, fitted roughly, and seconds that the page's content took."""
    survey = rp.simulate.low_rank(objects, pixels, RANK, seed=0)
    fit = rp.fit(survey.data.take(slice(0, min(objects, 500))), RANK, tol=1.0, max_epochs=5)
    projection = rp.project(fit, survey.data)
    scores = rp.surprise(fit, survey.data, projection)
    points = np.random.default_rng(0).standard_normal((objects, 2))
    began = time.perf_counter()
    made = report.explore(fit, survey.data, scores, projection, embedding=("a map", points))
    return made, time.perf_counter() - began


def busy(driver: Any) -> float:
    """Seconds of CPU that the page's main thread has taken, whatever else the machine does."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def clicks(page: Path, folder: Path, number: int) -> tuple[float, float, list[float], list[float]]:
    """Seconds until the page is drawn; of CPU per click; of clicks into the table, and on points of a map."""
    driver = browsers.start(folder)
    try:
        browsers.resize(driver, 1920, 1080)
        began = time.perf_counter()
        browsers.visit(driver, page)
        load = time.perf_counter() - began
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        before = busy(driver)
        table = [driver.execute_async_script(TIMED, 1 + i % 15) / 1e3 for i in range(number)]
        work = (busy(driver) - before) / number
        rng, points = np.random.default_rng(1), []
        driver.execute_script(WATCHED)
        n = driver.execute_script("return explorer.page.run.length")
        for row in rng.integers(0, n, number).tolist():
            driver.execute_script("window.painted = 0")
            browsers.click(driver, *driver.execute_script(browsers.WHERE, "map", row))
            points.append(browsers.until(driver, TAKEN) / 1e3)
        if found := browsers.complaints(driver):
            raise RuntimeError(f"the console says {found}")
        return load, work, table, points
    finally:
        driver.quit()


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--smoke", action="store_true", help="a small page, to see that it runs")
    small = options.parse_args().smoke
    objects, pixels, number = (200, 240, 3) if small else (5000, 2400, CLICKS)
    if lacking := browsers.missing():
        sys.exit(f"no browser: {lacking} not found")
    made, seconds = explorer_of(objects, pixels)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        began = time.perf_counter()
        report.write_page(made, page, title="benchmark")
        written = time.perf_counter() - began
        size = page.stat().st_size / 1e6
        load, work, table, points = clicks(page, Path(folder), number)
    carried = int((made.place >= 0).sum())
    print(f"{objects} objects x {pixels} pixels, {carried} with their spectra; rank {RANK}")
    print(f"page: {size:.1f} MB (target: under {MOST_MB:g} MB); made in {seconds + written:.1f} s")
    print(f"load, until it is drawn: {load:.1f} s")
    for what, times in (("line of the table", table), ("point of the map", points)):
        middle, longest = statistics.median(times), max(times)
        print(f"click on a {what}: median {middle:.3f} s, max {longest:.3f} s of {len(times)}")
    print(f"(target: under {MOST_SECONDS:g} s; the page's own work is {work:.3f} s of CPU a click)")


if __name__ == "__main__":
    main()
