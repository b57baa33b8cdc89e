"""Fits and chains in ArviZ: densities against dense mathematics, and what ArviZ makes of them."""

import dataclasses
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import robusta_prob as rp
from robusta_prob.models.noise import NoiseLaw
from robusta_prob.simulate import low_rank

ROOT = Path(__file__).parents[1]
BIG = 500.0  # the user's unit
N, M, K = 60, 25, 2
LAW = NoiseLaw(1 / 3.0, 1.1, 0.02 * BIG, 0.1, 2.0 * BIG)


def survey_of(n):
    small = low_rank(n, M, K, sigma=0.1, nu=5.0, missing=0.1, seed=2).data
    ivar = small.ivar / small.unit**2 / BIG**2
    ivar[3] = 0.0  # an empty object
    return rp.dataset(
        small.flux * small.unit * BIG,
        ivar,
        grid=np.linspace(400.0, 900.0, M),
        ids=[f"star {i}" for i in range(n)],
        meta={"nu": np.arange(n), "a/b": np.ones((n, 2)), "kind": np.full(n, "normal")},
    )


@pytest.fixture(scope="module")
def data():
    return survey_of(N)


@pytest.fixture(scope="module")
def fit(data):
    return rp.fit(data, K, noise=rp.Noise(contamination=0.0))


@pytest.fixture(scope="module")
def tree(fit, data):
    return rp.to_arviz(fit, data, draws=400)


@pytest.fixture(scope="module")
def other(fit):
    """The same fit with a law that has everything."""
    return dataclasses.replace(fit, noise=LAW)


@pytest.fixture(scope="module")
def filled(data):
    """Without the empty object, whose wide posterior would take NUTS long."""
    return data.take(data.n_observed > 0)


@pytest.fixture(scope="module")
def chains(fit, filled):
    return rp.nuts(fit, filled, warmup=150, samples=200)


@pytest.fixture(scope="module")
def of_chains(chains, filled):
    return rp.to_arviz(chains, filled)


def cell_densities(flux, model, ivar, law):
    """The law in the user's unit, by scipy."""
    S = law.scale * np.sqrt(1.0 / ivar + law.floor**2)
    good = np.log1p(-law.contamination) + stats.t(law.nu, model, S).logpdf(flux)
    if law.contamination == 0:
        return good
    wide = stats.cauchy(model, np.hypot(law.width, S)).logpdf(flux)
    return np.logaddexp(good, np.log(law.contamination) + wide)


def user_unit(data):
    flux, ivar = np.asarray(data.flux, float) * data.unit, np.asarray(data.ivar, float) / data.unit**2
    return flux, ivar, ivar > 0


def log_integral(flux, ivar, basis, law, mean, covariance):
    """log of the integral over both coefficients, on a grid of 18 deviations about a robust centre."""
    variance = law.scale**2 * (1.0 / ivar + law.floor**2)
    precision = (basis / variance) @ basis.T + np.linalg.inv(covariance)
    centre = np.linalg.solve(precision, (basis / variance) @ flux + np.linalg.solve(covariance, mean))
    for _ in range(30):  # robustly, or a bad cell would move the grid off the mass
        weight = 1.0 / variance / (1.0 + (flux - centre @ basis) ** 2 / variance / 3.0)
        centre = np.linalg.solve(
            (basis * weight) @ basis.T + np.linalg.inv(covariance),
            (basis * weight) @ flux + np.linalg.solve(covariance, mean),
        )
    root = np.linalg.cholesky(np.linalg.inv(precision))
    steps, rank = np.linspace(-18, 18, 145), len(basis)
    u = np.stack(np.meshgrid(*[steps] * rank, indexing="ij"), -1).reshape(-1, rank)
    a = centre + u @ root.T
    joint = stats.multivariate_normal(mean, covariance).logpdf(a)
    for j in range(len(flux)):
        joint = joint + cell_densities(flux[j], a @ basis[:, j], ivar[j], law)
    return logsumexp(joint) + rank * np.log(steps[1] - steps[0]) + np.log(np.diag(root)).sum()


def groups_of(tree):
    names = tree.groups() if callable(tree.groups) else tree.groups
    return {name.strip("/") for name in names} - {""}


def log_mean(densities):
    """Log of the mean density over all draws, per case."""
    values = np.asarray(densities, float)
    return logsumexp(values, (0, 1)) - np.log(values.shape[0] * values.shape[1])


def loo(tree, name):
    """ArviZ's expected log density per case, and k-hat."""
    import arviz as az

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of some k-hat above its limit: the tests look at them
        result = az.loo(tree, var_name=name, pointwise=True)
    cases = result.loo_i if hasattr(result, "loo_i") else result.elpd_i
    return np.asarray(cases), np.asarray(result.pareto_k)


def test_the_groups_have_named_dimensions_and_the_users_units(tree, fit, data):
    flux, ivar, seen = user_unit(data)
    sizes = {"chain": 1, "draw": 400, "objects": N, "component": K, "pixels": M}
    posterior = tree["posterior"]
    assert dict(posterior.sizes) == sizes and set(posterior.data_vars) == {"coefficients", "basis"}
    assert posterior["coefficients"].dims == ("chain", "draw", "objects", "component")
    assert posterior["basis"].dims == ("chain", "draw", "component", "pixels")
    np.testing.assert_array_equal(posterior["objects"], data.ids)
    np.testing.assert_array_equal(posterior["pixels"], data.grid)
    # draws of the user's unit: their mean and deviation are the fit's
    A, sd = posterior["coefficients"].values[0], np.sqrt(np.diagonal(fit.coefficient_covariance, 0, 1, 2))
    known = np.arange(N) != 3
    assert np.abs((A.mean(0) - fit.coefficients) / sd)[known].max() < 5 / np.sqrt(400)
    assert np.median(A.std(0) / sd) == pytest.approx(1.0, abs=0.02)

    np.testing.assert_allclose(tree["observed_data"]["flux"], np.where(seen, flux, np.nan), rtol=1e-6)
    constant = tree["constant_data"]
    np.testing.assert_allclose(constant["ivar"], ivar, rtol=1e-6)
    assert constant["in_training"].values.all() and constant["trained"].values.all()
    assert float(constant["scale"]) == fit.noise.scale and float(constant["nu"]) == fit.noise.nu
    np.testing.assert_array_equal(constant["meta_nu"], np.arange(N))  # "nu" is the law's
    assert constant["a_b"].shape == (N, 2) and "kind" not in constant
    assert tree.attrs["status"] == fit.status.code and tree.attrs["rank"] == K
    assert tree.attrs["inference_library_version"] == rp.__version__


def test_a_cell_has_the_density_of_the_law_and_a_masked_one_none(other, data):
    flux, ivar, seen = user_unit(data)
    tree = rp.to_arviz(other, data, draws=3, predictive=False, log_likelihood="cell")
    cell = tree["log_likelihood"]["cell"]
    assert set(tree["log_likelihood"].data_vars) == {"cell"} and cell.shape == (1, 3, seen.sum())
    i, j = np.nonzero(seen)
    np.testing.assert_array_equal(cell["cell_object"], data.ids[i])
    np.testing.assert_array_equal(cell["cell_pixel"], data.grid[j])
    for s in range(3):
        A, G = (tree["posterior"][name].values[0, s].astype(float) for name in ("coefficients", "basis"))
        expected = cell_densities(flux[i, j], (A @ G)[i, j], ivar[i, j], LAW)
        np.testing.assert_allclose(cell.values[0, s], expected, atol=2e-4)  # float32, S/N 10-100


def test_an_object_has_the_dense_gaussian_density_with_its_coefficients_integrated_out(fit, data):
    flux, ivar, seen = user_unit(data)
    law = NoiseLaw(0.0, 1.2, 0.03 * BIG)
    tree = rp.to_arviz(
        dataclasses.replace(fit, noise=law), data, draws=2, predictive=False, log_likelihood="object"
    )
    found = tree["log_likelihood"]["object"]
    known = np.flatnonzero(seen.any(1))
    np.testing.assert_array_equal(found["objects"], data.ids[known])  # none of the empty object
    mean, covariance = fit.population
    for s in range(2):
        G = tree["posterior"]["basis"].values[0, s].astype(float)
        for n, i in enumerate(known):
            g, variance = G[:, seen[i]], law.scale**2 * (1.0 / ivar[i, seen[i]] + law.floor**2)
            dense = stats.multivariate_normal(mean @ g, g.T @ covariance @ g + np.diag(variance))
            assert found.values[0, s, n] == pytest.approx(dense.logpdf(flux[i, seen[i]]), abs=1e-3)


def test_an_object_has_the_density_of_quadrature_under_a_heavy_tail_and_bad_cells(other, data):
    """At 11 cells per coefficient importance sampling is off by a few 0.01 nats, alike in all draws."""
    flux, ivar, seen = user_unit(data)
    tree = rp.to_arviz(other, data, draws=2, rows=slice(8), predictive=False, log_likelihood="object")
    known = np.flatnonzero(seen[:8].any(1))
    error = np.empty((2, len(known)))
    for s in range(2):
        G = tree["posterior"]["basis"].values[0, s].astype(float)
        for n, i in enumerate(known):
            exact = log_integral(flux[i, seen[i]], ivar[i, seen[i]], G[:, seen[i]], LAW, *other.population)
            error[s, n] = tree["log_likelihood"]["object"].values[0, s, n] - exact
    assert np.abs(error).max() < 0.1 and np.sqrt(np.mean(error**2)) < 0.04
    assert np.sqrt(np.mean((error[0] - error[1]) ** 2)) < 0.02


def test_replicas_follow_the_law_and_are_missing_where_data_are(other, data):
    _, ivar, seen = user_unit(data)
    tree = rp.to_arviz(other, data, draws=100, log_likelihood=())
    assert "log_likelihood" not in groups_of(tree)
    replicas = tree["posterior_predictive"]["flux"].values[0]
    np.testing.assert_array_equal(np.isnan(replicas), np.broadcast_to(~seen, replicas.shape))
    posterior = tree["posterior"]
    model = posterior["coefficients"].values[0].astype(float) @ posterior["basis"].values[0]
    S = LAW.scale * np.sqrt(1.0 / np.where(seen, ivar, 1.0) + LAW.floor**2)
    good, wide = stats.t(LAW.nu), stats.cauchy(scale=np.hypot(LAW.width, S[seen]) / S[seen])
    z = ((replicas - model) / S)[:, seen]
    level = (1.0 - LAW.contamination) * good.cdf(z) + LAW.contamination * wide.cdf(z)
    assert stats.kstest(level.ravel(), "uniform").pvalue > 0.001


def test_loo_and_summary_of_a_fit(tree, fit, data):
    import arviz as az

    summary = az.summary(tree, kind="stats")
    assert len(summary) == N * K + K * M and not summary.isna().any(axis=None)
    cells, of_cells = loo(tree, "cell")
    objects, of_objects = loo(tree, "object")
    assert cells.shape == (data.observed.sum(),) and objects.shape == (N - 1,)
    # K M / N = 0.8; from 400 draws k-hat itself is known to 0.1 only
    assert np.mean(of_objects > 0.7) < 0.05 and np.mean(of_cells > 0.7) < 0.03


def test_given_their_coefficients_no_object_can_be_left_out(fit, data):
    """Why they are integrated out: sums over an object's cells have k-hat above 0.7 nearly everywhere."""
    tree = rp.to_arviz(fit, data, draws=400, predictive=False, log_likelihood="cell")
    cells = tree["log_likelihood"]["cell"]
    tree["log_likelihood"]["sums"] = cells.groupby("cell_object").sum()
    _, k_hat = loo(tree, "sums")
    assert k_hat.shape == (N - 1,) and np.mean(k_hat > 0.7) > 0.8


def test_loo_of_an_object_is_its_density_under_a_fit_without_it(tree, fit, data):
    objects, _ = loo(tree, "object")
    known = np.flatnonzero(data.observed.any(1))
    for i in (0, 10, 20):
        rest = rp.fit(data.take(np.arange(N) != i), K, noise=rp.Noise(contamination=0.0))
        held = rp.to_arviz(rest, data, rows=[i], draws=400, predictive=False, log_likelihood="object")
        assert not held["constant_data"]["in_training"].values.any()
        density = log_mean(held["log_likelihood"]["object"])
        assert objects[known == i] == pytest.approx(density, abs=1.0)


def test_chains_come_with_their_law_and_statistics(of_chains, chains):
    posterior, statistics = of_chains["posterior"], of_chains["sample_stats"]
    assert set(posterior.data_vars) == {"coefficients", "basis", "nu", "scale", "floor"}
    np.testing.assert_array_equal(posterior["coefficients"], chains.coefficients)
    np.testing.assert_array_equal(posterior["floor"], chains.noise["floor"])
    assert float(of_chains["constant_data"]["contamination"]) == 0.0 and of_chains.attrs["source"] == "Chains"
    names = {"diverging", "energy", "n_steps", "acceptance_rate", "lp"}
    assert set(statistics.data_vars) == names and statistics["lp"].shape == (2, 200)
    assert int(statistics["diverging"].sum()) == chains.divergences
    evaluated = {"posterior_predictive", "log_likelihood"}
    given = {"observed_data", "constant_data"}
    assert groups_of(of_chains) == {"posterior", "sample_stats"} | evaluated | given


def test_densities_of_chains_are_those_of_every_draws_own_law(of_chains, chains, filled):
    """The population belongs to the gauge that was sampled, not to that of the fit."""
    flux, ivar, seen = user_unit(filled)
    (i, j), raw = np.nonzero(seen), chains.mcmc.get_samples(group_by_chain=True)
    for c, s in ((0, 0), (1, 150)):
        nu, scale, floor = (float(chains.noise[name][c, s]) for name in ("nu", "scale", "floor"))
        law = NoiseLaw(1.0 / nu, scale, floor)
        model = chains.coefficients[c, s].astype(float) @ chains.basis[c, s]
        expected = cell_densities(flux[i, j], model[i, j], ivar[i, j], law)
        np.testing.assert_allclose(of_chains["log_likelihood"]["cell"][c, s], expected, atol=1e-3)
        G = np.asarray(raw["basis"][c, s], float)
        assert np.abs(G - chains.basis[c, s]).max() > 0.01
        for n in (0, 7):
            own, population = seen[n], chains.fit.population
            exact = log_integral(flux[n, own], ivar[n, own], G[:, own], law, *population)
            found = float(of_chains["log_likelihood"]["object"].sel(objects=filled.ids[n])[c, s])
            assert found == pytest.approx(exact, abs=0.05)


def test_loo_and_summary_of_chains():
    """Of twice as many objects: at K M / N = 0.8 five of 59 hold so much of the basis that k-hat > 0.7."""
    import arviz as az

    data = survey_of(2 * N)
    fit = rp.fit(data, K, noise=rp.Noise(contamination=0.0))
    filled = data.take(data.n_observed > 0)
    tree = rp.to_arviz(fit, data, draws=400)
    of_chains = rp.to_arviz(rp.nuts(fit, filled, warmup=150, samples=200), filled)
    summary = az.summary(of_chains)
    assert len(summary) == (2 * N - 1) * K + K * M + 3 and not summary.isna().any(axis=None)
    assert float(summary["r_hat"].astype(float).max()) < 1.1  # of 400 draws
    cells, of_cells = loo(of_chains, "cell")
    objects, of_objects = loo(of_chains, "object")
    assert len(cells) == filled.observed.sum() and len(objects) == 2 * N - 1
    assert np.mean(of_objects > 0.7) < 0.06 and np.mean(of_cells > 0.7) < 0.03
    # a fit draws A and G independently, and has one law: near in sample, and cheaper out of it
    for name, cases in (("object", objects), ("cell", cells)):
        density, gaussian = (log_mean(x["log_likelihood"][name]).sum() for x in (of_chains, tree))
        cost = density - cases.sum()  # p_loo
        assert gaussian == pytest.approx(density, abs=0.1 * cost)
        assert loo(tree, name)[0].sum() == pytest.approx(cases.sum(), abs=0.5 * cost)


def test_objects_and_draws_can_be_chosen(of_chains, chains, fit, data, filled, tree):
    some = rp.to_arviz(chains, filled, draws=3, rows=[4, 2])
    whole = of_chains.sel(objects=filled.ids[[4, 2]], draw=[0, 100, 199])
    for group, name in (("posterior", "coefficients"), ("log_likelihood", "object")):
        np.testing.assert_allclose(some[group][name], whole[group][name], rtol=1e-5)
    assert some["observed_data"]["flux"].shape == (2, M)
    few = rp.to_arviz(fit, data, draws=5, rows=data.n_observed > 23, predictive=False, log_likelihood=())
    assert groups_of(few) == {"posterior", "observed_data", "constant_data"}
    np.testing.assert_array_equal(few["posterior"]["objects"], data.ids[data.n_observed > 23])
    again = rp.to_arviz(fit, data, draws=400)
    for group, name in (("posterior", "basis"), ("posterior_predictive", "flux")):
        np.testing.assert_array_equal(again[group][name], tree[group][name])


def test_what_the_fit_does_not_know_is_not_in_the_posterior(fit, data):
    """A pixel without training, and without a population objects of fewer cells than coefficients."""
    grid = np.repeat(np.arange(400.0, 413.0), 2)[:M]  # no index: it repeats itself
    trained = np.arange(M) != 5
    blind = dataclasses.replace(
        fit, trained=trained, basis=np.where(trained, fit.basis, 0.0), flat_prior=True, grid=grid
    )
    flux, ivar, seen = user_unit(data)
    ivar[7, seen[7].nonzero()[0][1:]] = 0.0
    poor = rp.dataset(flux, ivar, grid=grid, ids=data.ids)
    tree = rp.to_arviz(blind, poor, draws=8)
    np.testing.assert_array_equal(tree["posterior"]["objects"], np.delete(data.ids, [3, 7]))
    np.testing.assert_array_equal(tree["posterior"]["pixels"], np.flatnonzero(trained))
    assert all(np.isfinite(tree["posterior"][name]).all() for name in ("coefficients", "basis"))
    cells = tree["log_likelihood"]["cell"]
    assert np.isfinite(cells).all() and 5 not in cells["cell_pixel"]
    assert np.isnan(tree["posterior_predictive"]["flux"].sel(pixels=5)).all()
    assert np.isfinite(tree["observed_data"]["flux"].sel(pixels=5)).any()
    np.testing.assert_array_equal(tree["constant_data"]["grid"], grid)
    with pytest.raises(ValueError, match="none of the objects has the 2 observed cells"):
        rp.to_arviz(blind, poor, rows=[3, 7])


def test_it_can_be_stored(tree, tmp_path):
    import arviz as az

    pytest.importorskip("h5netcdf", reason="ArviZ 0.x brings it along, 1.x does not")
    tree.to_netcdf(tmp_path / "tree.nc")
    back = az.from_netcdf(tmp_path / "tree.nc")
    np.testing.assert_array_equal(back["log_likelihood"]["cell"], tree["log_likelihood"]["cell"])
    np.testing.assert_array_equal(back["posterior"]["objects"], tree["posterior"]["objects"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"draws": 0}, ValueError, "draws must be at least 1, got 0"),
        ({"draws": -3}, ValueError, "draws must be at least 1, got -3"),
        ({"draws": 2.5}, TypeError, "draws must be an integer"),
        ({"draws": 10**6}, ValueError, r"GiB \(posterior 1.3, .*rows=, .*draws=, .*predictive=False"),
        ({"key": -1}, ValueError, "key must be"),
        ({"log_likelihood": "flux"}, ValueError, "log_likelihood must be some of"),
        ({"log_likelihood": False}, ValueError, "log_likelihood must be some of"),
        ({"predictive": "yes"}, TypeError, "predictive must be True or False"),
        ({"rows": []}, ValueError, "selection is empty"),
        ({"rows": [3]}, ValueError, "no cell of these objects is observed"),
    ],
)
def test_bad_settings_are_refused(fit, data, options, error, message):
    with pytest.raises(error, match=message):
        rp.to_arviz(fit, data, **options)


def test_other_sources_and_data_are_refused(fit, chains, filled):
    with pytest.raises(TypeError, match=r"source must be a Fit .* or Chains"):
        rp.to_arviz(chains.mcmc, filled)
    with pytest.raises(TypeError, match="data must be a Dataset"):
        rp.to_arviz(fit, np.ones((3, M)))
    for source in (fit, chains):
        with pytest.raises(ValueError, match="data has 16 pixels, the fit has 25"):
            rp.to_arviz(source, low_rank(5, 16, 1).data)
    with pytest.raises(ValueError, match="and at most the 200 that every chain has, got 201"):
        rp.to_arviz(chains, filled, draws=201)
    flux, ivar, _ = user_unit(filled)
    changed = rp.dataset(1.5 * flux, ivar, grid=filled.grid, ids=filled.ids)
    for others in (filled.take(slice(20)), filled.take(np.arange(N - 1)[::-1]), changed):
        with pytest.raises(ValueError, match=r"chains are of 59 objects, .* choose objects with rows="):
            rp.to_arviz(chains, others)


@pytest.mark.parametrize("other", ["noise", "population"])
def test_densities_of_other_programs_are_refused(chains, filled, other):
    program, fit = chains.mcmc.sampler.model, chains.fit
    if other == "noise":
        noise, unit = rp.Noise(contamination=0.0), filled.unit
        prior = rp.Prior(fit.population.mean / unit, fit.population.covariance / unit**2)
        program = partial(rp.models.rhmf_scaled, rank=K, noise=noise, prior=prior)
    else:
        fit = dataclasses.replace(fit, population=fit.population._replace(mean=2.0 * fit.population.mean))
    mcmc = SimpleNamespace(
        get_samples=chains.mcmc.get_samples,
        get_extra_fields=chains.mcmc.get_extra_fields,
        sampler=SimpleNamespace(model=program),
    )
    changed = chains._replace(mcmc=mcmc, fit=fit)
    with pytest.raises(ValueError, match="another noise law or population"):
        rp.to_arviz(changed, filled, draws=2)
    tree = rp.to_arviz(changed, filled, draws=2, predictive=False, log_likelihood=())
    assert tree["posterior"]["basis"].shape == (2, 2, K, M)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python has ArviZ 1.x itself")
def test_the_same_under_arviz_1():
    """ArviZ 1.x needs another Python: that of `make .venv-3.12/.done`, or of $ROBUSTA_PROB_PYTHON312."""
    python = Path(os.environ.get("ROBUSTA_PROB_PYTHON312", ROOT / ".venv-3.12" / "bin" / "python"))
    if not python.exists():
        pytest.skip(f"there is no Python 3.12 with ArviZ 1.x at {python}: `make .venv-3.12/.done` makes one")
    wanted = "import arviz, robusta_prob, sys; sys.exit(int(arviz.__version__.split('.')[0]) < 1)"
    options = {
        "cwd": ROOT,
        "env": os.environ | {"PYTHONPATH": str(ROOT)},
        "capture_output": True,
        "text": True,
    }
    if subprocess.run([python, "-c", wanted], **options).returncode:
        pytest.skip(f"{python} cannot import this package and ArviZ 1.x")
    chosen = "groups or (loo and summary)"
    command = [python, "-m", "pytest", "-n", "0", "-k", chosen, __file__]
    done = subprocess.run(command, **options, timeout=300)
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
