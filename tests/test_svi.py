"""The variational engine: against the closed form, with other programs, and in a user's own loop."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.handlers import seed, substitute, trace
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.util import log_density

import robusta_prob as rp
from robusta_prob.inference import local, svi
from robusta_prob.inference.anneal import TARGET
from robusta_prob.inference.guides import Whitened
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.start import warm
from robusta_prob.inference.variational import warm_up
from robusta_prob.simulate import largest_angle, low_rank

GAUSSIAN = rp.Noise(math.inf, 1.0, 0.0)


@pytest.fixture(scope="module")
def survey():
    return low_rank(500, 60, 2, seed=0, missing=0.1)


@pytest.fixture(scope="module")
def closed(survey):
    return rp.fit(survey.data, 2)


@pytest.mark.parametrize("guide", ["map", "normal"])
def test_svi_finds_what_the_closed_form_finds(survey, closed, guide):
    fit = rp.fit(survey.data, 2, engine="svi", guide=guide, key=1)
    assert fit.status.ok and fit.config["engine"] == "svi"
    sd = np.sqrt(np.trace(closed.basis_covariance.mean(0)))  # of a column of the basis
    assert largest_angle(fit.basis, closed.basis) < 0.5 * sd * math.sqrt(60)
    np.testing.assert_allclose(fit.noise.scale, closed.noise.scale, rtol=0.03)
    np.testing.assert_allclose(rp.reconstruct(fit), rp.reconstruct(closed), atol=0.02)
    if guide == "normal":  # 400 draws, and a mean field
        ratio = np.trace(fit.basis_covariance, axis1=1, axis2=2) / np.trace(
            closed.basis_covariance, axis1=1, axis2=2
        )
        assert np.median(ratio) == pytest.approx(1.0, abs=0.25)
    again = rp.fit(survey.data, 2, engine="svi", guide=guide, key=1)
    np.testing.assert_array_equal(again.basis, fit.basis)


def test_a_likelihood_of_ones_own():
    """NumPyro's Student-t, unknown here: coefficients by Newton steps, and the noise law is learned after."""
    survey = low_rank(300, 50, 2, nu=3.0, seed=1)

    def own(flux, ivar, *, rank, size=None):
        objects, pixels = ivar.shape
        basis = rp.models.sample_basis(rank, pixels, rp.Prior())
        with rp.models.standing_for(objects, size):
            coefficients = rp.models.sample_coefficients(objects, rank, pixels, rp.Prior())
        sigma = 1.0 / jnp.sqrt(jnp.where(ivar > 0, ivar, 1.0))
        return rp.models.observe(flux, ivar, dist.StudentT(3.0, coefficients @ basis, sigma), size)

    fit = rp.fit(survey.data, 2, engine="svi", model=own, max_epochs=40)
    assert largest_angle(fit.basis, survey.truth.basis) < 0.02
    assert fit.noise.scale == pytest.approx(1.0, abs=0.1) and fit.noise.nu == pytest.approx(3.0, rel=0.3)


def test_non_negative_factors_by_hand():
    rng = np.random.default_rng(0)
    parts = np.stack([np.exp(-0.5 * ((np.arange(40) - c) / 4.0) ** 2) for c in (10, 25)])
    shares = rng.gamma(2.0, 1.0, (200, 2))
    flux = (shares @ parts + 0.05 * rng.normal(size=(200, 40))).astype("float32")
    ivar = np.full_like(flux, 400.0)

    def model(flux, ivar, *, size=None):
        objects, pixels = ivar.shape
        basis = numpyro.sample("basis", dist.HalfNormal(1.0).expand([2, pixels]).to_event(2))
        with rp.models.standing_for(objects, size):
            law = dist.HalfNormal(3.0).expand([objects, 2]).to_event(2)
            coefficients = numpyro.sample("coefficients", law)
        return rp.models.observe(flux, ivar, dist.Normal(coefficients @ basis, 1 / jnp.sqrt(ivar)), size)

    guide = rp.guide_for(model, init={"basis": parts + 0.3})
    svi_ = SVI(model, guide, optax.adam(0.03), Trace_ELBO())
    state = svi_.init(jax.random.key(0), flux, ivar)
    state, losses = jax.lax.scan(lambda s, _: svi_.update(s, flux, ivar), state, length=500)
    basis = np.asarray(guide.shared.median(svi_.get_params(state))["basis"])
    assert (basis >= 0).all() and np.isfinite(np.asarray(losses)).all()
    assert largest_angle(np.linalg.qr(basis.T)[0].T, np.linalg.qr(parts.T)[0].T) < 0.05


def test_a_minibatch_stands_for_the_survey(survey):
    """Its log density, less the shared sites' own, is size / N times that of the objects in it."""
    data = survey.data
    values = {"basis": survey.truth.basis, "coefficients": np.ones((100, 2), "float32")}
    args = (data.flux[:100], data.ivar[:100])

    def total(size):
        density, _ = log_density(rp.models.rhmf, args, {"rank": 2, "noise": GAUSSIAN, "size": size}, values)
        return float(density)

    shared = total(100) - (total(200) - total(100))
    assert total(1000) == pytest.approx(shared + 10 * (total(100) - shared), rel=1e-4)


def test_local_solutions_are_the_dense_posterior(x64):
    rng = np.random.default_rng(0)
    flux, ivar = rng.normal(size=(6, 12)), rng.lognormal(size=(6, 12))
    ivar[1, 3:] = 0
    G, mean, half = rng.normal(size=(2, 12)), rng.normal(size=2), rng.normal(size=(2, 4))
    prior = rp.Prior(mean, half @ half.T)
    model = partial(rp.models.hmf, rank=2, noise=rp.Noise(scale=1.0, floor=0.0), prior=prior)

    def run(more):
        return trace(substitute(seed(model, 0), {"basis": jnp.asarray(G), **more})).get_trace(flux, ivar)

    closed = local.posterior(run, jnp.asarray(flux), jnp.asarray(ivar), TARGET, ["coefficients"], linear=True)
    newton = local.laplace(run, {"coefficients": run({})["coefficients"]["fn"]}, {}, jnp.asarray(ivar > 0))
    precision = np.linalg.inv(half @ half.T)
    for i in range(6):
        H = (G * ivar[i]) @ G.T + precision
        m = np.linalg.solve(H, (G * ivar[i]) @ flux[i] + precision @ mean)
        for mean_found, root in (closed, newton):
            np.testing.assert_allclose(mean_found[i], m, rtol=1e-5, atol=1e-8)
            np.testing.assert_allclose(root[i] @ root[i].T, np.linalg.inv(H), rtol=1e-5, atol=1e-8)


def test_a_whitened_site_has_the_density_of_its_own_up_to_a_constant():
    rng = np.random.default_rng(0)
    fn = dist.Normal(1.0, 2.0).expand([2, 5]).to_event(2)
    root = np.tril(rng.normal(size=(5, 2, 2))) + 3 * np.eye(2)
    law = Whitened(fn, jnp.asarray(rng.normal(size=(2, 5))), jnp.asarray(root))
    u, v = rng.normal(size=(2, 2, 5))
    there = [float(fn.log_prob(law.unwhitened(jnp.asarray(x)))) for x in (u, v)]
    here = [float(law.log_prob(jnp.asarray(x))) for x in (u, v)]
    assert here[0] - here[1] == pytest.approx(there[0] - there[1], rel=1e-4)
    draw = law.unwhitened(law.sample(jax.random.key(0)))
    assert abs(float(draw.mean()) - 1.0) < 4 * 2 / math.sqrt(10)


def test_minibatches_cover_every_object_and_have_one_shape():
    flux = np.arange(1003.0)[:, None]
    parts = [y[:, 0] for y, _ in svi.minibatches(flux, flux, 256, 0, 3)]
    assert {len(part) for part in parts} == {svi.batch_rows(1003, 256)} and len(parts) == 4
    assert set(np.concatenate(parts)) == set(range(1003))
    other = np.concatenate([y[:, 0] for y, _ in svi.minibatches(flux, flux, 256, 0, 4)])
    assert (np.concatenate(parts) != other).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"engine": "mcmc"}, ValueError, "engine must be one of"),
        ({"guide": "map"}, ValueError, "guide belongs to engine='svi'"),
        ({"engine": "svi", "guide": "mean"}, ValueError, "guide must be one of"),
        ({"engine": "svi", "prior": rp.Prior.flat()}, ValueError, "needs a proper population"),
        ({"engine": "svi", "model": 3}, TypeError, "model must be a NumPyro program"),
        ({"noise": "cauchy"}, TypeError, "noise must be rp.Noise"),
        ({"prior": "flat"}, TypeError, "prior must be rp.Prior"),
        ({"schedule": 3}, TypeError, "schedule must be a function of the epoch"),
        ({"starts": 1.5}, TypeError, "starts must be an integer"),
        ({"key": -1}, ValueError, "key must be a JAX key"),
    ],
)
def test_impossible_settings_are_refused(survey, options, error, message):
    with pytest.raises(error, match=message):
        rp.fit(survey.data, 2, **options)


def test_a_stored_state_resumes_where_it_was(survey):
    """Arrays alone are carried: through host memory and another engine, the next steps are the same."""
    data, model = survey.data, rp.models.rhmf
    problem = Problem.of(data, 2, rp.Noise(), rp.Prior())
    first, root, _ = warm_up(problem, warm(problem, survey.truth.basis, 0), rp.anneal.constant(), 0)

    def made():
        engine = svi.engine(
            model, first, root, size=500, steps_per_epoch=4, noise=rp.Noise(), prior=rp.Prior()
        )
        return engine, engine.init(jax.random.key(0), (data.flux[:125], data.ivar[:125]))

    def stepped(engine, state, epoch):
        for batch in svi.minibatches(data.flux, data.ivar, 125, 0, epoch):
            state, loss = engine.step(state, batch, TARGET)
        return state, float(loss)

    engine, state = made()
    state, _ = stepped(engine, state, 0)
    leaves, tree = jax.tree.flatten(state)
    stored = [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    stored = [np.array(x) for x in stored]
    _, loss = stepped(engine, state, 1)
    other, _ = made()
    again = [
        jax.random.wrap_key_data(x) if jnp.issubdtype(y.dtype, jax.dtypes.prng_key) else jnp.asarray(x)
        for x, y in zip(stored, leaves, strict=True)
    ]
    assert stepped(other, jax.tree.unflatten(tree, again), 1)[1] == loss


def test_a_guide_of_ones_own_for_all_sites(survey):
    """Amortised: coefficients are a linear function of the flux, and their deviation is one number."""
    start = np.linalg.qr(survey.truth.basis.T)[0].T

    def guide(flux, ivar, **_):
        numpyro.param("law", jnp.zeros(()))
        basis = numpyro.param("loc", jnp.asarray(start))
        numpyro.sample("basis", dist.Normal(basis, 0.01).to_event(2))
        for name, value in (
            ("nu", 50.0),
            ("scale", 1.0),
            ("floor", 1e-3),
            ("contamination", 1e-3),
            ("width", 1.0),
        ):
            numpyro.sample(name, dist.Delta(numpyro.param(f"{name}_at", jnp.asarray(value))))
        encoder = numpyro.param("encoder", jnp.asarray(start.T))
        size = numpyro.param("size", 0.05, constraint=dist.constraints.positive)
        with rp.models.standing_for(len(flux), 500):
            mean = jnp.where(ivar > 0, flux, 0.0) @ encoder / 0.9
            numpyro.sample("coefficients", dist.Normal(mean, size).to_event(2))

    fit = rp.fit(survey.data, 2, engine="svi", guide=guide, max_epochs=60)
    assert largest_angle(fit.basis, survey.truth.basis) < 0.1
    assert np.isfinite(fit.basis_covariance).all() and np.isfinite(fit.coefficients).all()


def test_object_scales_are_solved_for_with_the_coefficients():
    """A tenth of the objects with errors five times too small: each scale belongs to its object."""
    survey = low_rank(300, 60, 2, sigma=0.05, seed=2)
    rng = np.random.default_rng(0)
    bad = rng.random(300) < 0.1
    noise = 5.0 * survey.data.unit / np.sqrt(survey.data.ivar) * rng.normal(size=(300, 60))
    flux = np.where(bad[:, None], survey.truth.clean + noise, survey.data.flux * survey.data.unit)
    data = rp.dataset(flux, survey.data.ivar / survey.data.unit**2)
    model = partial(rp.models.rhmf_scaled, rank=2, noise=GAUSSIAN, size=300)
    guide = rp.guide_for(model, init={"basis": survey.truth.basis})
    loop = SVI(model, guide, optax.adam(1e-3), Trace_ELBO())
    state = loop.init(jax.random.key(0), data.flux[:100], data.ivar[:100])
    for rows in (
        slice(100, 200),
        slice(200, 300),
    ):  # another batch is no matter: nothing of it is a parameter
        state, loss = loop.update(state, data.flux[rows], data.ivar[rows])
    assert np.isfinite(float(loss))
    sites = trace(substitute(seed(guide, 1), loop.get_params(state))).get_trace(data.flux, data.ivar)
    scale = np.asarray(sites["object_scale"]["value"])
    assert np.median(scale[bad]) == pytest.approx(5.0, rel=0.2)
    assert np.median(scale[~bad]) == pytest.approx(1.0, rel=0.1)
    fit = rp.fit(data, 2, engine="svi", model=rp.models.rhmf_scaled, noise=GAUSSIAN, max_epochs=8)
    assert largest_angle(fit.basis, survey.truth.basis) < 0.02


@pytest.mark.parametrize(
    ("guide", "options", "message"),
    [
        (lambda flux, ivar, **_: None, {}, "the guide must sample the sites of the program"),
        (
            AutoNormal(partial(rp.models.rhmf, rank=2)),
            {"batch_rows": 128},
            "belong to the 125 objects of one",
        ),
    ],
)
def test_a_guide_that_cannot_be_right_is_refused(survey, guide, options, message):
    with pytest.raises(ValueError, match=message):
        rp.fit(survey.data, 2, engine="svi", guide=guide, max_epochs=2, **options)


def test_a_program_of_other_sites_is_refused_by_name(survey):
    def model(flux, ivar, *, rank):
        numpyro.sample("G", dist.Normal(0.0, 1.0).expand([rank, 60]).to_event(2))

    with pytest.raises(ValueError, match="no site 'coefficients' and no site 'flux'"):
        rp.fit(survey.data, 2, engine="svi", model=model)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_a_program_in_plates_of_its_own_and_with_a_response(survey, gain):
    """A mean that is not coefficients @ basis is solved for by Newton steps, without being told."""

    def model(flux, ivar, *, rank, size=None):
        objects, pixels = ivar.shape
        basis = numpyro.sample("basis", dist.Normal(0.0, 0.1).expand([rank, pixels]).to_event(2))
        sigma = 1.0 / jnp.sqrt(jnp.where(ivar > 0, ivar, 1.0))
        with numpyro.plate("rows", objects), rp.models.standing_for(objects, size):
            law = dist.Normal(0.0, 5.0).expand([rank]).to_event(1)
            coefficients = numpyro.sample("coefficients", law)
            cells = dist.Normal(gain * coefficients @ basis, sigma).mask(ivar > 0).to_event(1)
            numpyro.sample("flux", cells, obs=jnp.where(ivar > 0, flux, 0.0))

    fit = rp.fit(survey.data, 2, engine="svi", model=model, max_epochs=12)
    assert largest_angle(fit.basis, survey.truth.basis) < 0.02


def test_an_optimiser_that_runs_away_is_a_status(survey):
    fit = rp.fit(survey.data, 2, engine="svi", optimizer=optax.sgd(1e3), max_epochs=4)
    assert not fit.status.ok
