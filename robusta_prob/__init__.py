"""Robust heteroskedastic matrix factorisation as a pure-functional NumPyro generative model.

data = rp.read("spectra.h5")
fit = rp.fit(data, rank=8)
scores = rp.surprise(fit, data)
"""

from importlib.metadata import PackageNotFoundError, version

from robusta_prob import models, simulate
from robusta_prob.data import Dataset, DataWarning, dataset
from robusta_prob.diagnostics import to_arviz
from robusta_prob.inference import anneal
from robusta_prob.inference.chains import Chains, in_gauge_of, nuts
from robusta_prob.inference.fitting import fit
from robusta_prob.inference.guides import guide_for
from robusta_prob.inference.iterate import Epoch, Status
from robusta_prob.inference.journal import Checkpoint
from robusta_prob.inference.progress import Progress
from robusta_prob.inference.projection import project, reconstruct, residuals, robust_weights
from robusta_prob.inference.results import Fit, Projection
from robusta_prob.inference.uncertainty import Draw, posterior_draws, reconstruct_sd
from robusta_prob.io import read, write
from robusta_prob.keeping import load, save
from robusta_prob.models.noise import Noise, NoiseLaw
from robusta_prob.models.priors import Prior
from robusta_prob.partition import split
from robusta_prob.scoring.calibration import Null
from robusta_prob.scoring.companions import Families, families
from robusta_prob.scoring.completeness import recovery
from robusta_prob.scoring.empirical import EmpiricalNull
from robusta_prob.scoring.injection import Injected, inject
from robusta_prob.scoring.outliers import surprise
from robusta_prob.scoring.recovered import Recovery
from robusta_prob.scoring.results import Surprise
from robusta_prob.scoring.table import score_columns, write_scores, write_windows
from robusta_prob.selection.grid import select
from robusta_prob.selection.one_fit import Relevance, relevance
from robusta_prob.selection.results import Selection, write_selection

try:
    __version__ = version("robusta-prob")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Chains",
    "DataWarning",
    "Dataset",
    "Draw",
    "EmpiricalNull",
    "Epoch",
    "Families",
    "Fit",
    "Injected",
    "Noise",
    "NoiseLaw",
    "Null",
    "Prior",
    "Progress",
    "Checkpoint",
    "Projection",
    "Recovery",
    "Relevance",
    "Selection",
    "Status",
    "Surprise",
    "anneal",
    "dataset",
    "families",
    "fit",
    "guide_for",
    "in_gauge_of",
    "inject",
    "load",
    "models",
    "nuts",
    "posterior_draws",
    "project",
    "read",
    "reconstruct",
    "reconstruct_sd",
    "recovery",
    "relevance",
    "residuals",
    "robust_weights",
    "save",
    "score_columns",
    "select",
    "simulate",
    "split",
    "surprise",
    "to_arviz",
    "write",
    "write_scores",
    "write_selection",
    "write_windows",
]
