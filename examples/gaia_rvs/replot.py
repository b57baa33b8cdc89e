# %% [markdown]
# # Step `replot`: the pictures of a bin, from what `analyse` has kept
#
# The big file is not opened: change a colour and draw again.

# %%
from __future__ import annotations

import robusta_prob as rp
from examples.gaia_rvs import analyse, figures, train
from examples.gaia_rvs.bins import centres
from examples.gaia_rvs.config import Config
from examples.gaia_rvs.lines import MARKERS
from examples.gaia_rvs.summarise import SURPRISE
from examples.gaia_rvs.tables import folder_of, read_record, read_table, save_picture
from robusta_prob import plots


def run(config: Config, number: int) -> None:
    """Draw everything of one bin; nothing where it has no model."""
    folder, drawn = folder_of(config, number), config.pictures
    record = read_record(folder / analyse.RECORD)
    if record["rank"] is None:
        return
    if gone := [path for path in analyse.kept_of(folder) if not path.exists()]:
        raise FileNotFoundError(f"there is no {gone[0]}: run `analyse` again, which makes it anew")
    table, selection = read_table(folder / analyse.ALL), rp.load(folder / train.SELECTION)
    fit, scores = selection.fit(), rp.load(folder / analyse.SCORES)
    ellipse = centres(config.bins).iloc[[number]]
    pictures = {
        "hr": figures.hr_diagram(table, ellipse, table[table["flagged"]], "least_p", SURPRISE),
        "published-scores": figures.weights_histogram(table, config.search.published),
        "p-values": plots.calibration(scores),
        "surprise": plots.surprise_histogram(scores),
        "basis": plots.basis(fit),
        "history": plots.history(fit),
        "completeness": plots.recovery_curves(rp.load(folder / analyse.RECOVERY), by="p_flag"),
    }
    if len(selection.candidates) > 1:
        pictures["selection"] = plots.selection(selection)
    sample = analyse.kept(folder / analyse.SAMPLE)
    if sample is not None:
        data, own, projection = sample
        cells = rp.surprise(fit, data, projection, null=own.null, search=own.search, pixel=True).pixel
        pictures["residuals"] = figures.residual_summary(cells.z, cells.weight, data.grid)
        model = rp.reconstruct(fit, projection)
        pictures["spectra"] = figures.spectra(data, model, cells.z, drawn.shown)
    for name, figure in pictures.items():
        save_picture(figure, folder / "pictures" / f"{name}.png", drawn.dpi)

    # The strangest spectra, each in every variant of the markers; an older list may have had others.
    for old in (folder / "outliers").glob("*.png"):
        old.unlink()
    strange = analyse.kept(folder / analyse.STRANGE)
    if strange is None:
        return
    data, own, projection = strange
    weight = rp.robust_weights(fit, data, projection)
    names = [str(name) for name in data.ids]
    save_picture(figures.weights_map(weight, data.grid, names), folder / "pictures/weights.png", drawn.dpi)
    for place in range(min(drawn.pages, len(names))):
        (page,) = plots.object_pages(fit, data, own, [place], projection)
        for variant in drawn.variants:
            with plots.marked(page, MARKERS[variant]):
                save_picture(
                    page, folder / "outliers" / f"{place + 1:03d}-{names[place]}-{variant}.png", drawn.dpi
                )
