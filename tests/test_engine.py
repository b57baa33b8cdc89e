"""The engine maximises the model: against NumPyro's densities, dense algebra and the truncated SVD."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Trace_ELBO
from numpyro.infer.util import log_density
from scipy import stats

import robusta_prob as rp
from robusta_prob.inference.anneal import TARGET
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.linalg import informed, invert, pack, pair_count, solve, unpack
from robusta_prob.inference.m_step import population_of
from robusta_prob.inference.problem import Problem, chi2_quantile
from robusta_prob.inference.quantities import Form, Globals, Local, Settings
from robusta_prob.inference.settle import NOTHING, settle
from robusta_prob.inference.start import warm
from robusta_prob.inference.sweep import Round, sweep
from robusta_prob.models.noise import NoiseLaw
from robusta_prob.simulate import largest_angle, low_rank


def _random(seed=0, n=30, m=25, k=3, missing=0.3):
    rng = np.random.default_rng(seed)
    flux, ivar = rng.normal(size=(n, m)), rng.lognormal(1.0, 0.7, size=(n, m))
    ivar[rng.random((n, m)) < missing] = 0
    A, G = rng.normal(size=(n, k)), rng.normal(size=(k, m))
    mean, half = rng.normal(size=k), rng.normal(size=(k, 2 * k))
    return flux, ivar, A, G, mean, half @ half.T


def _pass(flux, ivar, A, V, G, law, population, *, marginal):
    """One sweep over everything as a single padded batch."""
    n = len(flux)
    rows = -(-n // 128) * 128
    pad = lambda x: jnp.asarray(np.concatenate([x, np.zeros((rows - n, *x.shape[1:]))]))  # noqa: E731
    first, second = np.triu_indices(A.shape[1])
    log_det = np.linalg.slogdet(V)[1] if marginal else np.zeros(n)
    local = Local(pad(A), pad(V[:, first, second]), pad(log_det), *2 * (jnp.ones(rows),))
    settings = Settings(*map(jnp.asarray, (0.0, 0.0, 1.0, 0.0, 1e30)))
    law = NoiseLaw(*map(jnp.asarray, law))
    known = jnp.zeros((pair_count(len(G)), G.shape[1]))
    shared = Globals(jnp.asarray(G), law, population, known)
    new, sums, objects = sweep(
        pad(flux), pad(ivar), local, Round(n), jnp.eye(len(G)), shared, settings, form=Form(marginal)
    )
    return jax.tree.map(lambda x: np.asarray(x)[:n], new), sums, np.asarray(objects.bound)[:n]


@pytest.mark.parametrize("nu", [1.0, 4.0, math.inf])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_joint_objective_is_numpyros_log_density_up_to_a_constant(x64, nu, floor):
    """Two random points: differences of the engine's objective and of the program's log density agree."""
    noise, differences = rp.Noise(nu, 1.3, floor), []
    values = []
    for seed in (0, 1):
        flux, ivar, *_, mean, covariance = _random(0)
        _, _, A, G, _, _ = _random(10 + seed)
        population = population_of(mean, covariance)
        law = (1 / nu, 1.3, floor)
        _, _, bound = _pass(flux, ivar, A, np.zeros((30, 3, 3)), G, law, population, marginal=False)
        prior = rp.Prior(mean, covariance, math.inf)
        total, _ = log_density(
            rp.models.rhmf,
            (flux, ivar),
            {"rank": 3, "noise": noise, "prior": prior},
            {"basis": G, "coefficients": A},
        )
        values.append((bound.sum(), float(total)))
        differences.append(bound.sum() - float(total))
    assert abs(values[0][0] - values[1][0]) > 10  # the points do differ
    assert differences[0] == pytest.approx(differences[1], rel=1e-5, abs=1e-5 * abs(values[0][1]))


def test_marginal_bound_is_the_elbo_under_the_matching_guide(x64):
    """q(a) = Normal(m, V), q(precision) = its Gamma: NumPyro's Monte Carlo ELBO within 4 errors."""
    n, m, k, nu, scale = 6, 9, 2, 4.0, 0.8
    flux, ivar, A, G, mean, covariance = _random(3, n, m, k)
    half = np.random.default_rng(5).normal(size=(n, k, 2 * k))
    V = 0.02 * half @ half.transpose(0, 2, 1)
    population = population_of(mean, covariance)
    _, _, bound = _pass(flux, ivar, A, V, G, (1 / nu, scale, 0.0), population, marginal=True)

    square = (flux - A @ G) ** 2 + np.einsum("kj,ikl,lj->ij", G, V, G)
    rate = 0.5 * (nu + ivar / scale**2 * square)

    def guide(flux, ivar, **_):
        numpyro.sample("basis", dist.Delta(jnp.asarray(G), event_dim=2))
        numpyro.sample("coefficients", dist.MultivariateNormal(jnp.asarray(A), jnp.asarray(V)).to_event(1))
        with numpyro.plate("objects", n, dim=-2), numpyro.plate("pixels", m, dim=-1):
            numpyro.sample("precision", dist.Gamma(0.5 * (nu + 1), jnp.asarray(rate)).mask(ivar > 0))

    kwargs = {"rank": k, "noise": rp.Noise(nu, scale, 0.0), "prior": rp.Prior(mean, covariance, math.inf)}

    def one(key):
        return -Trace_ELBO().loss(key, {}, rp.models.rhmf_mixture, guide, flux, ivar, **kwargs)

    draws = np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(0), 8_000)))
    error = draws.std() / math.sqrt(len(draws))
    assert error < 0.1
    # the engine leaves the 2 pi of prior and entropy out, where they cancel
    assert bound.sum() == pytest.approx(draws.mean(), abs=4 * error)


def _tight(data, rank, **options):
    return rp.fit(data, rank, tol=1e-9, max_epochs=3000, schedule=rp.anneal.constant(), starts=1, **options)


def test_gradient_of_log_density_vanishes_at_the_optimum():
    """Maximum likelihood: in every direction of A and of G, since the gauge only moves along flat ones."""
    data = low_rank(60, 40, 2, nu=4, missing=0.1, seed=2, dtype="float64").data
    noise = rp.Noise(4.0, 1.0, 0.0)
    fit = _tight(data, 2, noise=noise, prior=rp.Prior.flat())
    assert fit.status.ok

    with jax.enable_x64(True):

        def density(values):
            kwargs = {"rank": 2, "noise": noise, "prior": rp.Prior.flat()}
            return log_density(rp.models.rhmf, (data.flux, data.ivar), kwargs, values)[0]

        at = {"basis": jnp.asarray(fit.basis), "coefficients": jnp.asarray(fit.coefficients / fit.unit)}
        here = jax.grad(density)(at)
        away = jax.grad(density)({name: 1.01 * x for name, x in at.items()})
    for name in at:
        assert np.abs(here[name]).max() < 1e-6 * np.abs(away[name]).max()


def _marginal_optimum(data, noise, passes=400):
    """The engine's own fixed point with a learned population, pass by pass."""
    problem = Problem.of(data, 2, noise, rp.Prior())
    blocks = Blocks.of(data, data.unit)
    begun = warm(problem, _tight(data, 2, noise=noise, prior=rp.Prior.flat()), 0)
    state = begun.state_for(blocks)
    for epoch in range(passes):
        state, info, _ = problem.step(state, blocks, TARGET, epoch, "test")
    return problem, blocks, state, info


@pytest.mark.parametrize("nu", [4.0, math.inf])
def test_gradient_of_the_marginal_bound_vanishes_at_the_optimum(x64, nu):
    """An independent dense bound, differentiated by JAX in means and basis."""
    data = low_rank(25, 30, 2, nu=nu, missing=0.1, seed=4, dtype="float64").data
    Y, W = np.asarray(data.flux), np.asarray(data.ivar)
    problem, blocks, state, _ = _marginal_optimum(data, rp.Noise(nu, 1.0, 0.0))
    for epoch in range(200):  # population and basis at rest: the coefficients follow
        state, *_ = problem.step(state, blocks, TARGET, epoch, "test", NOTHING)
    A, V, *_ = (np.asarray(x)[:25] for x in state.local[0])
    V = np.moveaxis(np.asarray(unpack(V.T, 2)), -1, 0)
    mean, precision = np.asarray(state.shared.population.mean), np.asarray(state.shared.population.precision)

    def bound(G, A):
        square = W * ((Y - A @ G) ** 2 + jnp.einsum("kj,ikl,lj->ij", G, V, G))
        cells = -0.5 * square if math.isinf(nu) else -0.5 * (nu + 1) * jnp.log1p(square / nu)
        offset = A - mean
        return jnp.where(W > 0, cells, 0.0).sum() - 0.5 * jnp.einsum("ik,kl,il->", offset, precision, offset)

    at = jnp.asarray(state.shared.basis), jnp.asarray(A)
    of_basis, of_means = jax.grad(bound, (0, 1))(*at)
    away_basis, away_means = jax.grad(bound, (0, 1))(1.01 * at[0], 1.01 * at[1])
    assert np.abs(of_means).max() < 1e-6 * np.abs(away_means).max()
    if math.isinf(nu):
        # every object votes fully on the population, so the basis rests along the gauge as well
        assert np.allclose(np.asarray(state.local[0].weight)[:25], 1.0)
        assert np.abs(of_basis).max() < 1e-6 * np.abs(away_basis).max()


@pytest.mark.parametrize("noise", [rp.Noise(1.0, 3.0, 0.0), rp.Noise(math.inf, 1.0, 0.01)])
def test_maximum_likelihood_never_falls_once_annealing_has_ended(noise):
    data = low_rank(150, 80, 3, nu=3, missing=0.2, seed=1, dtype="float64").data
    fit = rp.fit(
        data,
        4,  # one more than the truth: converges slowly, so that the basis takes long jumps
        noise=noise,
        prior=rp.Prior.flat(),
        tol=1e-7,
        schedule=rp.anneal.tightening(1, 1),
        starts=1,
        max_epochs=80,
    )
    bounds = np.array(
        [line.bound for line in fit.history if not line.stage.startswith("start") and line.epoch > 2]
    )
    assert len(bounds) > 5
    assert (np.diff(bounds) > -1e-11 * np.abs(bounds[:-1])).all()


@pytest.mark.parametrize("noise", [rp.Noise(1.0, 3.0, 0.0), rp.Noise(math.inf, 1.0, 0.01)])
def test_the_marginal_bound_never_falls_at_a_given_population(x64, noise):
    data = low_rank(150, 80, 2, nu=3, missing=0.2, seed=1, dtype="float64").data
    problem, blocks, state, _ = _marginal_optimum(data, noise, passes=5)
    turn = jnp.asarray(np.random.default_rng(0).normal(size=state.shared.basis.shape))
    state = state._replace(shared=state.shared._replace(basis=state.shared.basis + 0.1 * turn), past=None)
    bounds, learn = [], problem.learn._replace(population=0.0)
    for epoch in range(40):
        state, info, _ = problem.step(state, blocks, TARGET, epoch, "test", learn)
        bounds.append(info.bound)
    assert bounds[-1] - bounds[0] > 100  # there was something to gain
    assert (np.diff(bounds) > -1e-11 * np.abs(bounds[:-1])).all()


def test_a_jump_that_lowers_the_bound_is_taken_back(x64):
    data = low_rank(150, 80, 2, nu=3, missing=0.2, seed=1, dtype="float64").data
    problem, blocks, state, info = _marginal_optimum(data, rp.Noise(1.0, 3.0, 0.0), passes=5)
    turn = jnp.asarray(np.random.default_rng(0).normal(size=state.shared.basis.shape))
    bad = state.shared._replace(basis=state.shared.basis + 0.1 * turn)
    assert state.past.memory.leaps.differences
    fallen = problem.step(state._replace(shared=bad, past=None), blocks, TARGET, 5, "test")[1]
    mended = problem.step(state._replace(shared=bad), blocks, TARGET, 5, "test")[1]
    assert fallen.bound < info.bound - 100 and mended.bound > info.bound - 1e-3
    # also where the coefficients alone go on: those of before the jump, in the gauge of before it
    assert settle(problem, state._replace(shared=bad), blocks)[1].bound > info.bound - 1e-3


def test_without_robustness_holes_and_prior_it_is_the_truncated_svd():
    rng = np.random.default_rng(7)
    flux = rng.normal(size=(200, 60)) @ np.diag(np.linspace(3, 0.5, 60))
    data = rp.dataset(flux, np.full(flux.shape, 4.0), dtype="float64")
    fit = rp.fit(
        data,
        4,
        noise=rp.Noise(math.inf, 1.0, 0.0),
        prior=rp.Prior.flat(),
        starts=3,
        tol=1e-9,
        max_epochs=4000,
    )
    u, s, v = np.linalg.svd(flux, full_matrices=False)
    assert fit.status.ok
    assert largest_angle(fit.basis, v[:4]) < 1e-6
    np.testing.assert_allclose(rp.reconstruct(fit), (u[:, :4] * s[:4]) @ v[:4], atol=1e-6 * s[0])
    np.testing.assert_allclose(np.abs((fit.basis * v[:4]).sum(1)), 1.0, atol=1e-6)


def test_float32_and_float64_find_the_same_subspace():
    single = rp.simulate.toy(600, 150, seed=3).data
    double = rp.dataset(single.flux.astype(float), single.ivar.astype(float), dtype="float64")
    found = [rp.fit(data, 5, starts=1) for data in (single, double)]
    assert [fit.dtype for fit in found] == [np.float32, np.float64]
    assert largest_angle(found[0].basis, found[1].basis) < 1e-3
    assert not jax.config.jax_enable_x64


def test_another_value_of_any_continuous_setting_compiles_nothing():
    data = low_rank(200, 40, 2, seed=0).data
    jax.clear_caches()  # of the programs of other tests: none may hide one that is missing

    def options(q, nu, schedule):
        return {"noise": rp.Noise(nu, q, 0.0), "prior": rp.Prior.flat(), "schedule": schedule}

    rp.fit(data, 2, **options(5.0, 1.0, rp.anneal.tightening()))
    before = sweep._cache_size()
    rp.fit(data, 2, **options(2.0, 3.0, rp.anneal.tightening(1, 3)))
    rp.fit(
        data.take(slice(0, 150)),
        2,
        **options(0.5, math.inf, rp.anneal.constant(rp.anneal.Robustness(0.5, 0.3))),
    )
    assert sweep._cache_size() == before


def test_the_same_key_gives_the_same_fit_and_row_order_does_not_matter():
    data = low_rank(300, 60, 3, nu=4, missing=0.1, seed=5).data
    first, again = rp.fit(data, 3, key=jax.random.key(1)), rp.fit(data, 3, key=jax.random.key(1))
    assert np.array_equal(first.basis, again.basis)
    order = np.random.default_rng(0).permutation(300)
    shuffled = rp.fit(data.take(order), 3, key=1, tol=1e-3)
    reference = rp.fit(data, 3, key=1, tol=1e-3, batch_rows=128)
    assert largest_angle(shuffled.basis, reference.basis) < 1e-4


def test_systems_match_dense_algebra(x64):
    rng = np.random.default_rng(0)
    half = rng.normal(size=(40, 6, 9)) * 10.0 ** rng.uniform(-6, 6, size=(40, 1, 1))
    full = half @ half.transpose(0, 2, 1)
    rhs = rng.normal(size=(6, 40))
    inverse, log_det = invert(jnp.asarray(full.transpose(1, 2, 0)))
    np.testing.assert_allclose(log_det, np.linalg.slogdet(full)[1], atol=1e-8)
    solution, _, _ = solve(jnp.asarray(full.transpose(1, 2, 0)), jnp.asarray(rhs))
    expected = np.linalg.solve(full, rhs.T[..., None])[..., 0].T
    scale = np.abs(expected).max(0)
    np.testing.assert_allclose(solution / scale, expected / scale, atol=1e-8)
    np.testing.assert_allclose(unpack(pack(inverse), 6), inverse, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-6), ("float32", 2e-3)])
def test_a_covariance_with_other_information_is_that_of_the_scaled_gram(x64, dtype, rtol):
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(20, 4, 3)) * 10.0 ** rng.uniform(-1.5, 1.5, (20, 1, 1))
    roots[0] = 0.0  # an object without data
    roots[1:4, 2:] = 0.0  # and some with fewer precise pixels than components
    roots[1:4] *= 1e3
    grams, prior = roots.swapaxes(1, 2) @ roots, np.diag([1.0, 4.0, 0.5])
    first, second = np.triu_indices(3)
    naive = np.linalg.inv(grams + prior)[:, first, second].astype(dtype)
    for factor in (0.6, 1.0, 30.0):
        expected = np.linalg.inv(factor * grams + prior)
        on_host = informed(naive.astype(float), prior, factor)
        there = informed(jnp.asarray(naive), jnp.asarray(prior, dtype), jnp.asarray(factor, dtype), jnp)
        size = np.sqrt(np.einsum("ikk->ik", expected))
        for found in (on_host, np.asarray(there, float)):
            off = np.abs(found - expected) / size[:, :, None] / size[:, None]
            assert np.median(off, axis=(1, 2)).max() < rtol
            assert (np.linalg.eigvalsh(found) > -1e-6 * np.abs(found).max((1, 2))[:, None]).all()
        assert there.dtype == dtype


@pytest.mark.parametrize("rank", [3, 10])
def test_increments_of_singular_systems_never_make_things_worse(rank):
    rng = np.random.default_rng(0)
    for known in range(rank):
        half = rng.normal(size=(300, rank, max(known, 1))) * (known > 0)
        full = half @ half.transpose(0, 2, 1)
        rhs = np.einsum("bkl,bl->kb", full, rng.normal(size=(300, rank)))
        x, start = np.zeros_like(rhs), np.linalg.norm(rhs, axis=0)
        for _ in range(20):
            left = rhs - np.einsum("bkl,lb->kb", full, x)
            step, *_ = solve(jnp.asarray(full.transpose(1, 2, 0), "float32"), jnp.asarray(left, "float32"))
            x = x + np.asarray(step)
        assert (np.linalg.norm(rhs - np.einsum("bkl,lb->kb", full, x), axis=0) <= 0.5 * start).all()


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_chi2_quantile(rank):
    assert chi2_quantile(rank) == pytest.approx(stats.chi2.ppf(0.99, rank), rel=0.02)
