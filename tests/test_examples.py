"""Every example and the benchmark run, tiny."""

import importlib.util
import subprocess
import sys
from pathlib import Path

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


def test_the_benchmark_runs_without_the_other_package():
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "--smoke", "--no-package"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "ours_published" in done.stdout


def test_the_contamination_suite_runs_without_the_other_package():
    command = [
        sys.executable,
        ROOT / "benchmarks" / "contamination.py",
        "--smoke",
        "--columns",
        "ours",
        "HMF",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| clean | smooth |" in done.stdout
