"""Every example and every benchmark runs, tiny."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _main(folder, script):
    path = ROOT / "examples" / folder / f"{script}.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_{script}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_the_first_fit_runs(tmp_path):
    numbers = _main("toy", "first_fit")(tmp_path, objects=600, pixels=150)
    assert numbers["angle"] < 0.03
    assert {path.name for path in tmp_path.iterdir()} == {
        "basis.png",
        "history.png",
        "surprise.png",
        "outliers.png",
    }


def test_the_toy_survey_runs(tmp_path, monkeypatch):
    """All three scripts, tiny and without robusta-hmf; what they show is shown at their own size."""
    monkeypatch.syspath_prepend(ROOT)
    from examples.toy import figures, run, simulate

    monkeypatch.setattr(run, "RANKS", range(4, 6))
    monkeypatch.setattr(run, "SCALES", (3.0, 5.0))
    monkeypatch.setattr(run, "GENEROUS", 6)
    for method in ("pca", "pursuit"):  # of packages that the tests do without
        monkeypatch.setattr(run.rivals, method, run.rivals.hmf)
    monkeypatch.setattr(run.rivals, "check", lambda: None)
    simulate.main(tmp_path, 400, 120)
    results = run.main(tmp_path, 400, 120, package=False)
    assert (tmp_path / "report.html").stat().st_size > 1e6
    assert results["chosen"] == {"rank": 5, "scale": results["chosen"]["scale"], "learned": 5, "supported": 5}
    assert min(results["errors"], key=lambda name: results["errors"][name]["mean"]) == "ours"
    assert results["errors"]["ours"]["mean"] < 0.1 * results["errors"]["HMF"]["mean"]
    monkeypatch.setattr(figures, "RANKS", run.RANKS)
    monkeypatch.setattr(figures, "SCALES", run.SCALES)
    monkeypatch.setattr(figures, "EPOCHS", (1, 3))
    figures.main(tmp_path)
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        "annealing",
        "basis",
        "grid",
        "lines",
        "reconstructions",
        "surprise",
        "weights",
    }


@pytest.mark.parametrize(
    ("script", "sizes", "bounds"),
    [
        ("own_loop", {"objects": 300, "pixels": 50, "steps": 400}, {"angle": 0.2}),
        ("own_prior", {"objects": 200, "pixels": 60, "steps": 300}, {"smooth": 0.5, "non_negative": 0.2}),
        ("nuts", {"objects": 25, "pixels": 12, "warmup": 60, "samples": 60}, {"offset of A G": 1.0}),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_numpyro_script_runs(script, sizes, bounds):
    """Tiny: that they run, and come near; what they show is shown at their own sizes."""
    numbers = _main("numpyro_scripts", script)(**sizes)
    for name, bound in bounds.items():
        assert numbers[name] < bound
    if script == "own_prior":
        assert numbers["smooth"] < 0.8 * numbers["independent"]


@pytest.mark.parametrize(
    ("script", "options", "word"),
    [
        ("run", ["--no-package"], "| ours, published loss, one start, to rest |"),
        ("contamination", ["--columns", "ours", "HMF"], "| clean | smooth |"),
        ("noise_law", [], "| Gaussian, M = 120, K = 3 |"),
        ("coverage", [], "| 2 | Gaussian | 0% | learned |"),
        ("calibration", ["--only", "bad-pixels"], "| 0 | held-out |"),
        ("detection", ["--only", "names"], "| correlated |"),
        ("streaming", [], "held-out log density per cell after 3 epochs"),
        ("memory", [], "times the data"),
        ("selection", [], "| 3 | 3 | 1 of 1 |"),
        ("resume", [], "1 of 1 ended with the same bits"),
        ("gaia_rvs", ["--only", "one"], "just read the file once"),
        ("processes", [], "an epoch in"),
    ],
)
def test_a_benchmark_runs_without_the_other_package(script, options, word):
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--smoke", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert word in done.stdout
