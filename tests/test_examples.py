"""Every example and every benchmark runs, tiny."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_toy_example_runs(tmp_path):
    spec = importlib.util.spec_from_file_location("toy_run", ROOT / "examples" / "toy" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    numbers = module.main(tmp_path, objects=400, pixels=150)
    assert numbers["angle"] < 0.03
    assert {path.name for path in tmp_path.iterdir()} == {
        "basis.png",
        "history.png",
        "surprise.png",
        "outliers.png",
    }


@pytest.mark.parametrize(
    ("script", "options", "word"),
    [
        ("run", ["--no-package"], "ours_published"),
        ("contamination", ["--columns", "ours", "HMF"], "| clean | smooth |"),
        ("noise_law", [], "| Gaussian, M = 50, K = 10 |"),
    ],
)
def test_a_benchmark_runs_without_the_other_package(script, options, word):
    command = [sys.executable, ROOT / "benchmarks" / f"{script}.py", "--smoke", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert word in done.stdout
