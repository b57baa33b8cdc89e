"""A worker process as seen from the benchmark that drives it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PACKAGE_PYTHON = HERE.parent / ".venv-robusta-hmf" / "bin" / "python"


class Contestant:
    """One method in a process of its own, see `worker.py`."""

    def __init__(
        self, name: str, python: Path | str, rank: int, scale: float, out: Path, cache: Path | None = None
    ) -> None:
        """`cache` is a folder in which compiled programs are kept from process to process."""
        self.name, self._out = name, out.with_suffix(".npz")
        kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._environment = os.environ | (kept if cache else {})
        self._command = [str(python), str(HERE / "worker.py"), name, str(rank), str(scale), str(self._out)]
        self._process: subprocess.Popen[str] | None = None

    def begin(self, data: Path) -> None:
        """Ask for one fit of flux and ivar in this npz file, which is read again only if its name changes."""
        if self._process is None:  # not before its turn: cold times are from here
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, text=True, env=self._environment
            )
        assert self._process.stdin is not None
        self._process.stdin.write(f"{data}\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, float]:
        """Wait for it; seconds of the fit, and since the process started."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with code {self._process.wait()}")
        return json.loads(line)

    def run(self, data: Path) -> dict[str, float]:
        """Both."""
        self.begin(data)
        return self.finish()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients and basis of the last fit."""
        with np.load(self._out) as arrays:
            return arrays["coefficients"], arrays["basis"]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
