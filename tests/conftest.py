"""What all tests share: pictures without a screen, and the folder of real data where there is one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib
# most of the tests' time is compilation: modules and workers share what one of them has compiled
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # small programs are many
# NumPyro sums the ELBO in the order of a set of names: only where that is the same do workers share it
os.environ.setdefault("PYTHONHASHSEED", "0")

import jax

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def _let_go_of_programs() -> Iterator[None]:
    """Forget what a module compiled: every program holds memory maps, and Linux gives a process 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real spectra beside the checkout; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real spectra are not here: there is no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture
def x64():
    """JAX computes in float64."""
    with jax.enable_x64(True):
        yield
