"""The generative programs against quadrature, scipy and each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoDelta, AutoNormal
from numpyro.infer.util import log_density
from scipy import integrate, stats

import robusta_prob as rp
from robusta_prob.models.gauge import fix_gauge, near_equal
from robusta_prob.models.noise import (
    Noise,
    NoiseLaw,
    law_at,
    log1p,
    log_kernel_slope,
    log_normaliser,
    robust_weight,
)
from robusta_prob.models.noise import log_density as cell_density
from robusta_prob.models.student_t import StudentT

NUS = [0.5, 1.0, 3.0, 8.0, 100.0, 1e3, 1e7, math.inf]
PROGRAMS = [rp.models.rhmf, rp.models.hmf, rp.models.rhmf_mixture, rp.models.rhmf_scaled]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log1p_keeps_its_digits_compiled_or_not(dtype):
    """Compilers like to cancel 1 + x - 1, upon which its correction stands."""
    with jax.enable_x64(dtype == "float64"):
        x = np.append(np.geomspace(1e-37, 1e37, 3000), [0.0, np.inf]).astype(dtype)
        exact = np.log1p(x.astype(float))
        for function in (log1p, jax.jit(log1p), jax.jit(lambda: log1p(jnp.asarray(x)))):
            found = np.asarray(function() if function.__name__ == "<lambda>" else function(x), float)
            np.testing.assert_allclose(found, exact, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("nu", NUS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_student_density_matches_scipy_at_every_nu(nu, dtype):
    z = np.linspace(-20, 20, 101)
    expected = stats.norm.logpdf(z, 1.0, 2.0) if math.isinf(nu) else stats.t.logpdf(z, nu, 1.0, 2.0)
    with jax.enable_x64(dtype == "float64"):
        got = StudentT(jnp.asarray(1 / nu, dtype), 1.0, 2.0).log_prob(jnp.asarray(z, dtype))
    # float32: a few roundings of the log density; float64: Stirling's series ends at 1e-11
    tolerance = 5e-6 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(7, 1), (5,), (7, 5)])
def test_degrees_of_freedom_may_differ_from_cell_to_cell(shape):
    nu = np.random.default_rng(0).uniform(1.0, 20.0, shape)
    z = np.random.default_rng(1).normal(size=(7, 5))
    with jax.enable_x64(True):
        got = StudentT(jnp.asarray(1 / nu), 0.0, 1.0).log_prob(jnp.asarray(z))
    np.testing.assert_allclose(got, stats.t(nu).logpdf(z), rtol=1e-9)


@pytest.mark.parametrize("nu", [2.0, math.inf])
@pytest.mark.parametrize("share", [1e-4, 0.1, 0.9])
def test_contaminated_density_matches_scipy_and_its_derivatives_finite_differences(nu, share):
    z, sigma, width = np.linspace(-20, 20, 101), 0.3, 7.0
    core = stats.norm(0, sigma) if math.isinf(nu) else stats.t(nu, 0, sigma)

    def density(residual):
        return np.log(
            (1 - share) * core.pdf(residual) + share * stats.cauchy.pdf(residual, 0, np.hypot(width, sigma))
        )

    with jax.enable_x64(True):
        got = StudentT(jnp.asarray(1 / nu), 0.0, sigma, share, width).log_prob(jnp.asarray(z * sigma))
        law = NoiseLaw(1 / nu, 1.0, 0.0, share, width)
        at = map(np.asarray, law_at(jnp.asarray(z**2), jnp.asarray(sigma**-2), law))
    _, good, bad, pull, slope_of_pull = at
    np.testing.assert_allclose(got, density(z * sigma), rtol=1e-10)
    np.testing.assert_allclose(good + bad, 1.0, rtol=1e-12)
    step = 1e-4
    slope = (density((z + step) * sigma) - density((z - step) * sigma)) / (2 * step)
    np.testing.assert_allclose(-pull * z, slope, rtol=1e-6, atol=1e-6)
    curvature = density((z + step) * sigma) - 2 * density(z * sigma) + density((z - step) * sigma)
    np.testing.assert_allclose(-slope_of_pull, curvature / step**2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nu", [1.0, 4.0, 30.0, 1e5])
def test_slope_in_inverse_nu_matches_finite_differences(nu):
    z2, eta, step = np.array([0.0, 0.3, 2.0, 30.0, 1e4]), 1 / nu, 1e-3 / nu

    def density(inverse_df):
        return stats.t.logpdf(np.sqrt(z2), 1 / inverse_df)

    expected = (density(eta + step) - density(eta - step)) / (2 * step)
    with jax.enable_x64(True):
        got = jax.grad(log_normaliser)(eta) + log_kernel_slope(jnp.asarray(z2), jnp.asarray(eta))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_student_samples_follow_the_law():
    draws = StudentT(0.25, 3.0, 2.0).sample(jax.random.key(0), (20_000,))
    assert stats.kstest(np.asarray(draws), stats.t(4, 3.0, 2.0).cdf).pvalue > 0.01
    normal = StudentT(0.0, 3.0, 2.0).sample(jax.random.key(1), (20_000,))
    assert stats.kstest(np.asarray(normal), stats.norm(3.0, 2.0).cdf).pvalue > 0.01
    mixed = StudentT(0.0, 3.0, 2.0, 0.3, 9.0).sample(jax.random.key(3), (20_000,))
    cdf = lambda x: 0.7 * stats.norm.cdf(x, 3.0, 2.0) + 0.3 * stats.cauchy.cdf(x, 3.0, np.hypot(9.0, 2.0))  # noqa: E731
    assert stats.kstest(np.asarray(mixed), cdf).pvalue > 0.01


@pytest.mark.parametrize("nu", [1.0, 5.0])
def test_scale_mixture_integrates_to_the_marginal(nu):
    """Normal with latent precision Gamma(nu/2, nu/2), by quadrature, is the Student-t of `rhmf`."""
    residual, sigma = 1.7, 0.6

    def integrand(precision):
        return stats.norm.pdf(residual, 0, sigma / math.sqrt(precision)) * stats.gamma.pdf(
            precision, nu / 2, scale=2 / nu
        )

    mixture, _ = integrate.quad(integrand, 0, np.inf)
    with jax.enable_x64(True):
        marginal = StudentT(jnp.asarray(1 / nu), 0.0, sigma).log_prob(jnp.asarray(residual))
    assert math.log(mixture) == pytest.approx(float(marginal), abs=1e-7)


@pytest.mark.parametrize("contamination", [0.0, 0.2])
def test_mixture_and_marginal_programs_agree_after_integrating_the_precisions(contamination):
    """Sum over cells of the quadrature above, through the programs' own sites."""
    ivar = np.array([[4.0, 0.0, 1.0]])
    flux = np.array([[0.3, np.nan, -2.0]])
    noise = Noise(3.0, 1.2, 0.1, contamination)
    prior = rp.Prior(np.zeros(1), np.eye(1), math.inf)
    values = {"basis": np.array([[0.5, 0.2, -0.4]]), "coefficients": np.array([[0.7]])}
    values |= {"width": np.array(6.0)} if contamination else {}

    def density(model, **extra):
        settings = {"rank": 1, "noise": noise, "prior": prior}
        return log_density(model, (flux, ivar), settings, values | extra)[0]

    with jax.enable_x64(True):
        marginal = float(density(rp.models.rhmf))
        mixture = jax.jit(lambda precision: density(rp.models.rhmf_mixture, precision=precision))
        base = float(mixture(np.ones((1, 3))))

        def along(j, x):
            precision = np.ones((1, 3))
            precision[0, j] = x
            return math.exp(float(mixture(precision)) - base)

        total = base + sum(
            math.log(integrate.quad(lambda x, j=j: along(j, x), 1e-9, 40, limit=200, points=[0.01])[0])
            for j in (0, 2)
        )
    assert total == pytest.approx(marginal, abs=1e-5)


@pytest.mark.parametrize("model", PROGRAMS)
def test_programs_draw_from_the_prior_with_the_promised_sites_and_plates(model):
    ivar = np.full((6, 9), 4.0)
    draw = trace(seed(model, jax.random.key(3))).get_trace(None, ivar, rank=2)
    shapes = {
        name: np.shape(draw[name]["value"])
        for name in ("basis", "coefficients", "flux", "nu", "scale", "floor", "contamination", "width")
    }
    assert shapes == {
        "basis": (2, 9),
        "coefficients": (6, 2),
        "flux": (6, 9),
        "nu": (),
        "scale": (),
        "floor": (),
        "contamination": (),
        "width": (),
    }
    assert {frame.name for frame in draw["flux"]["cond_indep_stack"]} == {"objects", "pixels"}
    assert np.isfinite(draw["flux"]["value"]).all()


@pytest.mark.parametrize("model", PROGRAMS)
def test_missing_cells_neither_count_nor_break_gradients(model):
    rng = np.random.default_rng(0)
    flux, ivar = rng.normal(size=(5, 7)), np.full((5, 7), 2.0)
    ivar[1, 2] = ivar[3] = 0
    site = {"basis": rng.normal(size=(2, 7)), "coefficients": rng.normal(size=(5, 2))}
    site |= {"precision": np.ones((5, 7)), "object_scale": np.ones(5)}
    fixed = {"rank": 2, "noise": Noise(4.0, 1.0, 0.0)}

    def total(basis, flux):
        return log_density(model, (flux, ivar), fixed, site | {"basis": basis})[0]

    junk = np.where(ivar > 0, flux, np.nan)
    assert float(total(site["basis"], flux)) == float(total(site["basis"], junk))
    assert np.isfinite(jax.grad(total)(jnp.asarray(site["basis"]), jnp.asarray(junk))).all()


def test_learned_noise_sites_follow_their_priors():
    draws = Predictive(rp.models.rhmf, num_samples=2000)(jax.random.key(0), None, np.ones((1, 2)), rank=1)
    assert stats.kstest(1 / np.asarray(draws["nu"]), stats.expon(scale=0.5).cdf).pvalue > 0.01
    assert stats.kstest(np.log(np.asarray(draws["scale"])), stats.norm.cdf).pvalue > 0.01
    assert stats.kstest(np.asarray(draws["floor"]), stats.halfnorm(scale=0.1).cdf).pvalue > 0.01
    assert stats.kstest(np.asarray(draws["contamination"]), stats.beta(1, 9).cdf).pvalue > 0.01
    assert stats.kstest(np.log(np.asarray(draws["width"])), stats.norm(0, 2).cdf).pvalue > 0.01


def test_given_noise_is_deterministic_and_impossible_noise_is_refused():
    draw = trace(substitute(seed(rp.models.rhmf, jax.random.key(0)), {})).get_trace(
        None, np.ones((3, 4)), rank=1, noise=Noise(1.0, 5.0, 0.0)
    )
    assert [draw[name]["type"] for name in ("nu", "scale", "floor")] == ["deterministic"] * 3
    for bad, message in [
        (Noise(nu=0.0), "0 < nu <= inf"),
        (Noise(scale=-1.0), "0 < scale < inf"),
        (Noise(floor=math.nan), "0 <= floor"),
        (Noise(nu="many"), "must be a number"),
        (Noise(contamination=1.0), "0 <= contamination < 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            bad.validated()
    with pytest.raises(ValueError, match="needs a finite nu"):
        rp.models.rhmf_mixture(None, np.ones((3, 4)), rank=1, noise=Noise(nu=math.inf))


def test_log_density_of_cells_is_zero_where_missing_and_robust_weight_is_the_published_one():
    law = NoiseLaw(1.0, 5.0, 0.0)  # nu = 1, s = Q = 5
    ivar, residual = np.array([4.0, 0.0]), np.array([3.0, 1.0])
    assert float(cell_density(residual**2, ivar, law)[1]) == 0.0
    assert float(cell_density(residual**2, ivar, law)[0]) == pytest.approx(
        stats.cauchy.logpdf(3.0, 0, 2.5), rel=1e-6
    )
    weight = robust_weight(residual**2, ivar, law)
    assert float(weight[0]) == pytest.approx(25 / (25 + 36))  # Q^2 / (Q^2 + r^2 ivar)


def test_gauge_leaves_the_product_alone_and_orders_it():
    rng = np.random.default_rng(1)
    A, G = rng.normal(size=(40, 3)) * [1, 5, 2], rng.normal(size=(3, 30))
    gauge = fix_gauge(G, A.T @ A / len(A))
    B = A @ gauge.to_coefficients.T
    np.testing.assert_allclose(B @ gauge.basis, A @ G, atol=1e-12)
    np.testing.assert_allclose(gauge.basis @ gauge.basis.T, np.eye(3), atol=1e-12)
    # the singular value decomposition, an independent route to the same gauge
    _, values, vectors = np.linalg.svd(A @ G, full_matrices=False)
    np.testing.assert_allclose(gauge.moments, values[:3] ** 2 / len(A), rtol=1e-10)
    np.testing.assert_allclose(np.abs((gauge.basis * vectors[:3]).sum(1)), 1.0, atol=1e-12)
    assert (gauge.basis[np.arange(3), np.abs(gauge.basis).argmax(1)] > 0).all()


def test_near_equal_components_are_named():
    assert near_equal(np.array([9.0, 4.0, 3.9, 1.0]), 0.1) == [1]


@pytest.mark.parametrize("model", PROGRAMS)
@pytest.mark.parametrize("guide", [AutoNormal, AutoDelta])
def test_programs_work_with_autoguides(model, guide):
    data = rp.simulate.low_rank(15, 12, 2, missing=0.2, seed=0).data
    svi = SVI(model, guide(model), numpyro.optim.Adam(1e-2), Trace_ELBO())
    result = svi.run(jax.random.key(0), 5, data.flux, data.ivar, rank=2, progress_bar=False)
    assert np.isfinite(result.losses).all()


def test_the_scale_of_the_noise_can_be_differentiated():
    data = rp.simulate.low_rank(6, 10, 1, seed=0).data
    values = {"basis": np.ones((1, 10)), "coefficients": np.ones((6, 1))}

    def total(scale):
        kwargs = {"rank": 1, "noise": Noise(np.float32(4.0), scale, np.int64(0))}
        return log_density(rp.models.rhmf, (data.flux, data.ivar), kwargs, values)[0]

    assert np.isfinite(jax.grad(total)(1.3)) and float(jax.grad(total)(1.3)) != 0


@pytest.mark.parametrize("share", [0.0, 0.01])
@pytest.mark.parametrize("z", [0.5, 5.0, 15.0, 300.0])
def test_second_derivatives_are_finite_far_out(share, z):
    """Newton steps and NUTS' mass matrices need them; a Gaussian core underflows beyond 13 sigma."""

    def density(log_scale):
        return StudentT(0.0, 0.0, jnp.exp(log_scale), jnp.asarray(share), 10.0).log_prob(z)

    slope, step = jax.grad(density), 1e-3
    expected = (slope(step) - slope(-step)) / (2.0 * step)
    np.testing.assert_allclose(jax.grad(slope)(0.0), expected, rtol=2e-2, atol=1e-3)


def test_a_flat_prior_cannot_be_drawn_from():
    with pytest.raises(ValueError, match="cannot be drawn from"):
        seed(rp.models.rhmf, jax.random.key(0))(None, np.ones((3, 4)), rank=1, prior=rp.Prior.flat())
