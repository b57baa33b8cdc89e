"""One matrix over engines, dtypes and noise settings: what every fit must do."""

import math
import warnings

import jax
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.simulate import largest_angle, low_rank

RANK, SIZE = 2, (256, 40)
NOISES = {
    "learned": rp.Noise(),
    "Gaussian": rp.Noise(math.inf, 1.0, 0.0),
    "published": rp.Noise(1.0, 5.0, 0.0),
    "pixel floors": rp.Noise(contamination=0.0, floor="pixel"),
}


DTYPES = ("float32", "float64")
# what SVI does with a noise law does not depend on the dtype: one law in float64
CELLS = [
    pytest.param(dtype, engine, noise, id=f"{dtype}-{engine}-{name}")
    for dtype in DTYPES
    for engine in ("em", "svi")
    for name, noise in NOISES.items()
    if engine == "em" or dtype == "float32" or name == "learned"
]


@pytest.fixture(scope="module")
def survey(request):
    return low_rank(*SIZE, RANK, missing=0.1, seed=0, dtype=request.param)


def _fit(survey, engine, noise, **options):
    return rp.fit(survey.data, RANK, engine=engine, noise=noise, **options)


@pytest.mark.parametrize(("survey", "engine", "noise"), CELLS, indirect=["survey"])
def test_a_fit_recovers_the_truth_in_the_dtype_of_its_data_and_can_be_repeated(survey, engine, noise):
    fit = _fit(survey, engine, noise, key=3)
    # K (M - K) angles of sigma / (|a| sqrt(N)) each would give 0.006
    assert largest_angle(fit.basis, survey.truth.basis) < 0.02
    error = (rp.reconstruct(fit) - survey.truth.clean) / rp.reconstruct_sd(fit)
    assert np.sqrt(np.mean(error**2)) == pytest.approx(1.0, abs=0.12)  # 590 degrees of freedom: 3 %
    # 9216 cells: 0.7 %, where K/M and K/N are 5 % and 1 %; floors of pixels that have none take 3 % of it
    assert fit.noise.scale == pytest.approx(1.0, abs=0.05 if noise.floor == "pixel" else 0.03)
    assert fit.status.ok
    for name in ("basis", "coefficients", "coefficient_covariance", "basis_covariance"):
        value = getattr(fit, name)
        assert value.dtype == survey.data.dtype and np.isfinite(value).all(), name
    if noise == rp.Noise():
        again = _fit(survey, engine, noise, key=3)
        np.testing.assert_array_equal(again.basis, fit.basis)
        np.testing.assert_array_equal(again.coefficients, fit.coefficients)


@pytest.mark.parametrize("survey", DTYPES, indirect=True)
@pytest.mark.parametrize("engine", ["em", "svi"])
def test_a_fit_after_the_first_of_its_shape_compiles_nothing(survey, engine):
    _fit(survey, engine, rp.Noise(), max_epochs=3)
    other = low_rank(*SIZE, RANK, missing=0.1, seed=1, dtype=survey.data.dtype)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    try:
        _fit(other, engine, rp.Noise(), max_epochs=9)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled


def _wild(sizes, precisions):
    rng = np.random.default_rng(0)
    flux = rng.standard_cauchy((64, 20)) * 10.0 ** rng.uniform(-sizes, sizes, (64, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rp.DataWarning)
        return rp.dataset(flux, 10.0 ** rng.uniform(-precisions, precisions, flux.shape))


def test_hopeless_numbers_are_an_error_with_advice():
    with pytest.raises(FloatingPointError, match="look at the input's extreme values"):
        rp.fit(_wild(15.0, 30.0), RANK, engine="svi", max_epochs=20)


def test_hopeless_numbers_end_the_closed_form_with_advice_at_the_last_finite_pass():
    fit = rp.fit(_wild(15.0, 30.0), RANK, max_epochs=20)
    assert fit.status.code == "non_finite" and "look at the input's extreme values" in fit.status.message
    assert np.isfinite(fit.basis).all() and np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize("engine", ["em", "svi"])
def test_wild_numbers_are_a_status_and_never_nan(engine):
    assert not rp.fit(_wild(4.0, 6.0), RANK, engine=engine, max_epochs=5).status.ok
    fit = rp.fit(_wild(4.0, 6.0), RANK, engine=engine, max_epochs=20)
    assert "these residuals follow no law of this kind" in fit.status.message
    covariances = (fit.coefficient_covariance, fit.basis_covariance)
    for value in (fit.basis, fit.coefficients, *covariances, *fit.noise):
        assert np.isfinite(value).all()
