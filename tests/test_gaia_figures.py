"""Pictures of the Gaia example, and lines marked on a page: what they tell is right, odd tables too."""

import io
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import robusta_prob as rp
from examples.gaia_rvs import figures
from examples.gaia_rvs.drawing import CEILING, edge_of, surprise_of
from examples.gaia_rvs.lines import MARKERS
from robusta_prob.plots.markers import arranged, mark_lines, marked

KINDS = ("", "Ca II emission", "cosmic rays")


def stars_of(number: int, rows: int = 60) -> pd.DataFrame:
    """Stars of a bin: the first three are in our list, the first two in the published one; one p is 0."""
    key = np.random.default_rng(number)
    p = np.concatenate([[0.0, 1e-40, 1e-6], key.uniform(0.01, 1.0, rows)])[:rows]
    score = np.concatenate([[0.01, 0.3], key.uniform(0.9, 0.99, rows)])[:rows]
    place = np.arange(rows)
    return pd.DataFrame(
        {
            "bin": np.full(rows, number),
            "bp_rp": 0.3 + 0.01 * key.normal(size=rows),
            "abs_mag": 2.0 + 0.1 * key.normal(size=rows),
            "parallax": key.uniform(0.1, 90.0, rows),
            "least_p": p,
            "low_weight": score,
            "flagged": place < 3,
            "published": place < 2,
            "true": np.array(KINDS)[place % 3] if rows else np.array([], str),
        }
    )


def with_nan(table: pd.DataFrame) -> pd.DataFrame:
    """The last star knows nothing of itself."""
    table = table.copy()
    for name in ("bp_rp", "abs_mag", "parallax", "least_p", "low_weight"):
        table.loc[table.index[-1:], name] = np.nan
    return table


ELLIPSES = pd.DataFrame(
    {"bin": range(14), "bp_rp": np.linspace(-0.1, 3, 14), "abs_mag": np.linspace(0, 11, 14)}
).assign(width_bp_rp=0.36, width_abs_mag=2.4)
TABLES = {
    "ordinary": [stars_of(number) for number in range(14)],
    "single": [stars_of(7)],
    "empty": [stars_of(0, rows=0)],
    "NaN": [with_nan(stars_of(number)) for number in range(3)],
}


def summary_of(parts: list[pd.DataFrame]) -> pd.DataFrame:
    rows = [
        {"bin": place, "spectra": len(part), "flagged": part["flagged"].sum(), "published": 0, "false": 1}
        for place, part in enumerate(parts)
    ]
    return pd.DataFrame(rows).assign(false=lambda table: np.minimum(table["flagged"], 1))


def pairs_of(stars: pd.DataFrame) -> pd.DataFrame:
    score = surprise_of(stars["least_p"])
    return pd.DataFrame({"score_first": score, "score_second": 0.5 * score, "in_all": stars["published"]})


def halves_of(stars: pd.DataFrame) -> pd.DataFrame:
    rows = stars.groupby("bin").size().index
    kinds = [("line set", 12.0), ("never", np.nan)]
    return pd.DataFrame(
        [(row, kind, half) for row in rows for kind, half in kinds], columns=["bin", "kind", "half"]
    ).astype({"half": float})


def recovered_of(stars: pd.DataFrame) -> pd.DataFrame:
    kinds = [kind for kind in sorted(set(stars["true"])) if kind]
    edges = ((0.0, 5.0), (5.0, 40.0), (40.0, np.inf))
    rows = [(kind, *ends, 10, place * 5, place, place) for kind in kinds for place, ends in enumerate(edges)]
    names = ["kind", "strength_low", "strength_high", "number", "found", "published", "named"]
    return pd.DataFrame(rows, columns=names)


def agreement_of(stars: pd.DataFrame) -> Figure:
    metrics = ["density", "kl"] if len(stars) else []
    matrix = pd.DataFrame([[1.0, np.nan], [np.nan, np.nan]], metrics, metrics) if metrics else pd.DataFrame()
    rows = [(number, name, 10, 5.0, 3) for number in sorted(set(stars["bin"])) for name in metrics]
    return figures.agreement(matrix, pd.DataFrame(rows, columns=["bin", "metric", "K", "Q", "outliers"]))


PICTURES = {
    "hr by bin": lambda parts, stars: figures.hr_diagram(stars, ELLIPSES, stars[stars.flagged], "bin", "bin"),
    "hr by p": lambda parts, stars: figures.hr_diagram(stars, ELLIPSES[:1], stars, "least_p", "p"),
    "hr of nothing": lambda parts, stars: figures.hr_diagram(stars, ELLIPSES[:0], stars[:0], "bin", "bin"),
    "p": lambda parts, stars: figures.stacked_histograms(parts, "least_p", None, "−log₁₀ p"),
    "scores": lambda parts, stars: figures.stacked_histograms(parts, "low_weight", 0.5, "score"),
    "fraction": lambda parts, stars: figures.outlier_fraction(summary_of(parts)),
    "pairs": lambda parts, stars: figures.pairs(pairs_of(stars)),
    "agreement": lambda parts, stars: agreement_of(stars),
    "embedding": lambda parts, stars: figures.embedding(on_map(stars), "bin", "bin"),
    "embedding by parallax": lambda parts, stars: figures.embedding(
        on_map(stars), "parallax", "parallax [mas]"
    ),
    "side by side": lambda parts, stars: figures.side_by_side(stars, 0.5),
    "side by side, sky": lambda parts, stars: figures.side_by_side(stars.drop(columns="true"), 0.5),
    "completeness": lambda parts, stars: figures.completeness(halves_of(stars)),
    "recovered": lambda parts, stars: figures.recovered(recovered_of(stars)),
    "false discoveries": lambda parts, stars: figures.false_discoveries(summary_of(parts), 1000),
    "weights": lambda parts, stars: figures.weights_histogram(stars, 0.5),
}


def on_map(stars: pd.DataFrame) -> pd.DataFrame:
    return stars.assign(x=stars["bp_rp"], y=stars["abs_mag"])


def texts(figure: Figure) -> list[str]:
    """All that is written, without the numbers of the axes."""
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [axes.get_title() for axes in figure.axes]
    for legend in figure.legends + [axes.get_legend() for axes in figure.axes]:
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return [text for text in found if text]


def saved(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, dpi=40)
    return file.getvalue()


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", TABLES)
def test_every_picture_of_every_table(kind, name):
    parts = TABLES[kind]
    figure = PICTURES[name](parts, pd.concat(parts, ignore_index=True))
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    if kind == "empty" and name not in ("p", "scores", "fraction", "false discoveries"):  # a bin of nobody
        assert {"no outliers", "no stars", "nothing found", "nothing injected"} & set(texts(figure))


def test_numbers_that_are_written():
    parts = TABLES["NaN"]
    stars = pd.concat(parts, ignore_index=True)
    assert texts(figures.stacked_histograms(parts, "least_p", None, "p")) == ["3 of 59"] * 3
    assert texts(figures.stacked_histograms(parts, "least_p", 1e-10, "p")) == ["2 of 59"] * 3
    assert texts(figures.stacked_histograms(parts, "low_weight", 0.5, "w")) == ["2 of 59"] * 3
    assert texts(figures.weights_histogram(stars, 0.5)) == ["6 of 177 stars below 0.5"]
    side = texts(figures.side_by_side(stars, 0.5, 0.01))
    assert side[:4] == [
        "in no list: 171",
        "ours alone (q < 0.01): 3",
        "published alone: 0",
        "in both lists: 6",
    ]
    assert side[4:] == ["nothing injected", "Ca II emission", "cosmic rays"]
    assert "9 outliers among 180 stars (grey)" in texts(
        figures.hr_diagram(stars, ELLIPSES, stars[stars.flagged], "bin", "bin")
    )
    told = texts(figures.false_discoveries(summary_of(parts), 30, 0.1))
    assert told[:3] == ["1 of 3"] * 3 and "nominal, 0.1" in told
    assert texts(figures.outlier_fraction(summary_of(parts))) == ["ours, 9", "published score, 0"]
    told = texts(figures.pairs(pairs_of(stars)))
    assert told[1:] == ["outlier in both bins, 6", "in one alone, 171"]
    assert "never: no half" in texts(figures.completeness(halves_of(stars)))
    assert texts(agreement_of(stars))[:4] == ["1.00", "–", "–", "–"]


def test_the_median_difference_of_pairs():
    table = pd.DataFrame({"score_first": [10.0, 30.0, 400.0], "score_second": [8.0, 26.0, np.nan]})
    assert "median |difference| 3" in texts(figures.pairs(table.assign(in_all=True)))


def test_a_share_of_zero_is_an_upper_limit():
    (axes,) = figures.outlier_fraction(summary_of(TABLES["single"])).axes
    drawn = axes.containers[-1]
    assert drawn.has_yerr
    limit = drawn.lines[0].get_ydata()
    assert 0.5 / 60 < limit[0] < 3.0 / 60  # 84 % quantile of Beta(1/2, 60 + 1/2)


def test_end_of_a_list():
    assert edge_of([1e-8, 1e-4, 1e-2, 0.5], [True, True, False, False]) == pytest.approx(1e-3)
    assert edge_of([1e-8, 0.5], [True, True]) == 0.5
    assert np.isnan(edge_of([], [])) and np.isnan(edge_of([0.5], [False]))
    np.testing.assert_allclose(surprise_of([0.0, 1.0, 1e-3, np.nan]), [CEILING, 0.0, 3.0, np.nan])


# %% Arrays.
@pytest.mark.parametrize("rows", [0, 1, 5, 60])
def test_weights_map_shows_the_least_of_neighbours_and_leaves_out_what_is_missing(rows):
    weights = np.ones((rows, 2401))
    weights[:1, 1201] = 0.25  # alone in its pair
    weights[:1, :4] = np.nan
    figure = figures.weights_map(weights, 846 + 0.01 * np.arange(2401), [f"star {i}" for i in range(rows)])
    saved(figure)
    if not rows:
        assert texts(figure) == ["no outliers"]
        return
    (image,) = figure.axes[0].images
    drawn = np.ma.filled(image.get_array(), np.nan)
    assert drawn.shape[0] == rows and np.nanmin(drawn[0]) == 0.25
    assert np.isnan(drawn[0, 0]) and (drawn[1:] == 1.0).all()
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert named[0] == ("star 0" if rows < 60 else "1")


@pytest.mark.parametrize("rows", [0, 1, 400])
def test_residual_summary(rows):
    z = np.random.default_rng(1).normal(size=(rows, 50))
    z[:, 3] = np.nan
    weight = np.where(np.isnan(z), np.nan, 1.0)
    weight[: rows // 4, 10] = 0.1
    figure = figures.residual_summary(z, weight, np.arange(50.0))
    saved(figure)
    if rows == 400:
        share = figure.axes[1].lines[0].get_ydata()
        assert share[10] == 25.0 and np.isnan(share[3]) and np.nansum(share) == 25.0


@pytest.fixture(scope="module")
def data() -> rp.Dataset:
    key = np.random.default_rng(2)
    flux = key.normal(1.0, 0.1, (6, 80))
    flux[0, :9] = np.nan
    return rp.dataset(flux, np.where(np.isnan(flux), 0.0, 100.0), grid=846 + 0.3 * np.arange(80))


@pytest.mark.parametrize("shown", [0, 1, 4, 99])
def test_spectra(data, shown):
    model = np.ones(data.shape)
    z = np.full(data.shape, np.nan)
    figure = figures.spectra(data, model, z, shown)
    saved(figure)
    names = set(texts(figure)) - {"data", "model"}
    assert names == ({"no stars"} if not shown else names & {str(name) for name in data.ids})
    assert shown == 0 or len(names) == min(shown, 6)


# %% Lines marked on a figure.
@pytest.fixture
def page() -> Figure:
    figure = Figure(figsize=(7.1, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot([846.4, 869.6], [0.5, 1.0])
    above.set_xlim(846.4, 869.6)
    below.plot([846.4, 869.6], [-5.0, 300.0])
    below.set_yscale("symlog")
    return figure


@pytest.mark.parametrize("variant", MARKERS)
def test_names_do_not_overlap_each_other_nor_the_data(page, variant):
    with marked(page, MARKERS[variant]):
        saved(page)
        axes = page.axes[0]
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.x0)
        assert len(boxes) >= 3
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        frame = axes.get_window_extent()
        assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
        top = axes.transData.transform((850.0, 1.0))[1]
        assert all(top < box.y0 and box.y1 < frame.y1 for box in boxes)
        ticks = [len(one.collections[-1].get_segments()) for one in page.axes]
        inside = [line for line in MARKERS[variant] if 846.4 <= line.wavelength <= 869.6]
        assert ticks == [len(inside)] * 2  # every line is drawn, whether named or not


def test_marks_are_taken_off_again(page):
    before = saved(page)
    ends = page.axes[0].get_ylim()
    with marked(page, []):
        plain = saved(page)
    with marked(page, MARKERS["all"]):
        assert saved(page) != plain and page.axes[0].get_ylim()[1] > ends[1]
    assert page.axes[0].get_ylim() == ends and page.axes[0].get_autoscaley_on()
    assert not page.axes[0].texts and not any(axes.collections for axes in page.axes)
    assert saved(page) == plain and len(before) > 1000


def test_marks_are_taken_off_when_saving_fails(page):
    with pytest.raises(FileNotFoundError), marked(page, MARKERS["all"]):
        page.savefig("/no/such/folder/page.png")
    assert not page.axes[0].texts and not any(axes.collections for axes in page.axes)


def test_lines_beyond_an_axes_are_left_out(page):
    added = mark_lines(page, [("Na I", 589.0), ("$x", 850.0), ("Ca II", 900.0)])
    assert len(added) == 3  # a line in two panels, and its name
    assert page.axes[0].texts[0].get_text() == r"\$x"
    saved(page)
    for artist in added:
        artist.remove()
    assert mark_lines(page, []) == [] and mark_lines(Figure(), [("Ca II", 850.0)]) == []


def test_raised_axis_whatever_its_scale(page):
    first, _ = page.axes
    for scale, ends in (("log", (0.1, 10.0)), ("linear", (3.0, -1.0))):
        first.set_yscale(scale)
        first.set_ylim(ends)
        with marked(page, [("Ca II", 850.035)]):
            assert first.get_ylim()[0] == ends[0]
            assert (first.get_ylim()[1] - ends[1]) * (ends[1] - ends[0]) > 0
        assert first.get_ylim() == ends


def test_arranged():
    x = np.array([10.0, 10.5, 11.0, 50.0])
    places, names = zip(*arranged(x, ["Fe", "Fe", "Ti", "Ca"], 2.0, 0.0, 100.0), strict=True)
    assert names == ("Fe", "Ti", "Ca")
    np.testing.assert_allclose(places, [9.625, 11.625, 50.0])  # of 10.25, 11 and 50: two move aside alike
    assert arranged(np.array([0.0, 100.0]), ["a", "b"], 4.0, 0.0, 100.0) == [(2.0, "a"), (98.0, "b")]
    crowd = arranged(np.linspace(50, 51, 9), ["Fe", "Ti"] * 4 + ["Ca"], 4.0, 0.0, 100.0)
    assert "Ca" in [name for _, name in crowd] and len(crowd) < 9  # the one that is named nowhere else stays
    assert (np.diff([place for place, _ in crowd]) >= 4.0 - 1e-9).all()
    assert arranged(np.array([1.0, 2.0]), ["a", "b"], 5.0, 0.0, 4.0) == []  # no room at all
