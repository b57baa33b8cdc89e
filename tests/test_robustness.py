"""The right basis on hard data: contamination against the attainable bound, learned noise, restarts."""

import importlib.util
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import em
from robusta_prob.inference.anneal import TARGET
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.digits import precision
from robusta_prob.inference.listening import Heard, sums_of
from robusta_prob.inference.noise_step import FIRST_PACE, Arrow, Bounds, Free, _bounded, noise_step
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.restart import restart
from robusta_prob.inference.settle import NOTHING, settle
from robusta_prob.inference.start import warm
from robusta_prob.inference.sweep import sweep
from robusta_prob.models.noise import NoiseLaw, effective_ivar, log_density
from robusta_prob.models.priors import (
    CONTAMINATION_MEAN,
    FLOOR_WIDTH,
    INVERSE_DF_RATE,
    LOG_SCALE_WIDTH,
    LOG_WIDTH_WIDTH,
)
from robusta_prob.simulate import largest_angle, low_rank, toy


def _benchmark(name):
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cases = _benchmark("cases")


def _bound(data, rank=5):
    """Bad cells masked, the true noise, started at the truth."""
    masked = rp.dataset(data.flux, np.where(data.bad, 0.0, data.ivar))
    fit = rp.fit(masked, rank, noise=rp.Noise(math.inf, 1.0, 0.0), prior=rp.Prior.flat(), init=data.basis)
    return largest_angle(fit.basis, data.basis)


@pytest.mark.filterwarnings("ignore::robusta_prob.DataWarning")
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("30% pixels x 300", 1.05),
        ("8 hot columns, 45 %", 1.05),
        ("segments in 60% x 10", 1.1),
        ("40% foreign rows x 30", 1.1),
        ("errors over 4 decades", 1.1),
    ],
)
def test_contaminated_surveys_give_the_basis_that_masking_would(name, factor, smooth):
    data = cases.survey(cases.CASES[name], 7, smooth=smooth, size=(600, 200))
    fit = rp.fit(rp.dataset(data.flux, data.ivar), 5)
    assert fit.status.ok
    assert largest_angle(fit.basis, data.basis) < factor * _bound(data)


@pytest.mark.filterwarnings("ignore::robusta_prob.DataWarning")
def test_a_rank_too_high_contains_the_truth():
    data = cases.survey(cases.CASES["20% foreign rows x 30"], 3, smooth=True, size=(600, 200))
    fit = rp.fit(rp.dataset(data.flux, data.ivar), 7)
    assert largest_angle(fit.basis, data.basis) < 1.1 * _bound(data)


@pytest.mark.parametrize(
    ("nu", "scale", "floor"), [(2.0, 1.5, 0.0), (8.0, 0.7, 0.02), (30.0, 1.0, 0.02), (math.inf, 1.0, 0.0)]
)
def test_the_noise_law_is_recovered(nu, scale, floor):
    noise = rp.fit(low_rank(2000, 150, 3, nu=nu, scale=scale, floor=floor, seed=1).data, 3).noise
    assert noise.scale == pytest.approx(scale, rel=0.05)
    assert noise.floor == pytest.approx(floor, rel=0.05, abs=0.003)
    # 270,000 cells: the Cramer-Rao bound of 1/nu is 0.001, 4 % of 1/30
    assert 1 / noise.nu == pytest.approx(1 / nu, rel=0.15, abs=0.003)
    assert noise.contamination < 1e-3


def test_the_share_and_width_of_bad_cells_are_recovered():
    data = cases.survey(cases.pixels(0.1, 10.0), 0, smooth=True, size=(600, 200))
    noise = rp.fit(rp.dataset(data.flux, data.ivar), 5).noise
    assert noise.contamination == pytest.approx(data.bad.mean(), abs=0.005)
    assert 5 < noise.width < 15
    assert noise.scale == pytest.approx(1.0, abs=0.03) and noise.floor < 0.003


def test_a_floor_per_pixel_is_recovered_and_better_than_one_for_all():
    survey = low_rank(1500, 80, 2, seed=2, missing=0.1)
    floors = 0.06 * np.abs(np.sin(np.arange(80) / 9.0))
    data = survey.data
    rng = np.random.default_rng(0)
    flux = data.flux * data.unit + floors * rng.standard_normal(data.shape)
    ivar = data.ivar / data.unit**2
    ivar[:, 11] = 0  # a pixel that knows nothing
    hard = rp.dataset(flux, ivar)
    fit, plain = (rp.fit(hard, 2, noise=noise, starts=1) for noise in (rp.Noise(floor="pixel"), rp.Noise()))
    known = np.delete(np.arange(80), 11)
    large = known[floors[known] > 0.02]
    np.testing.assert_allclose(fit.noise.floor[large], floors[large], rtol=0.2)  # 5 % at one sigma
    assert fit.noise.scale == pytest.approx(1.0, abs=0.02) and fit.noise.nu > 50
    truth = survey.truth.basis[:, known]
    assert largest_angle(fit.basis[:, known], truth) < largest_angle(plain.basis[:, known], truth)
    assert "at the median pixel" in str(fit.noise)


def test_a_floor_per_pixel_is_saved_and_loaded(tmp_path):
    fit = rp.fit(low_rank(200, 40, 2, seed=0).data, 2, noise=rp.Noise(floor="pixel"))
    rp.save(fit, tmp_path / "fit.h5")
    again = rp.load(tmp_path / "fit.h5")
    np.testing.assert_array_equal(again.noise.floor, fit.noise.floor)
    assert again.noise.floor.shape == (40,) and again.config["noise"] == rp.Noise(floor="pixel")


def test_a_given_scale_tells_the_floor_where_the_errors_do_not_vary():
    survey = low_rank(300, 80, 2, sigma=0.05, spread=0.0, seed=0)
    data = rp.dataset(survey.data.flux * survey.data.unit, np.full(survey.data.shape, 1 / 0.03**2))
    fit = rp.fit(data, 2, noise=rp.Noise(scale=1.0))
    assert fit.noise.floor == pytest.approx(0.04, rel=0.05)  # 24,000 cells: 0.7 % at one sigma
    assert "too little" not in fit.status.message


LAW = NoiseLaw(0.2, 1.3, 0.02, 0.03, 2.0)


def _cells(law=LAW, shape=(4000, 6), seed=0):
    """Squared residuals of cells of this law, and inverse variances over a decade."""
    rng = np.random.default_rng(seed)
    ivar = np.exp(rng.normal(np.log(30**2.0), 1.0, shape))
    error = law.scale * np.sqrt(1 / ivar + law.floor**2)
    good = error * rng.standard_t(1 / law.inverse_df, shape)
    bad = np.hypot(law.width, error) * rng.standard_cauchy(shape)
    return jnp.asarray(np.where(rng.random(shape) < law.contamination, bad, good) ** 2), jnp.asarray(ivar)


def _log_posterior(t, floor2, r2, ivar):
    """Of t = (log s^2, 1/nu, log width, eps) and floors: cells and weak priors."""
    law = NoiseLaw(t[1], jnp.exp(0.5 * t[0]), jnp.sqrt(floor2), t[3], jnp.exp(t[2]))
    scale, width = -0.5 * (0.5 * t[0] / LOG_SCALE_WIDTH) ** 2, -0.5 * (t[2] / LOG_WIDTH_WIDTH) ** 2
    share = (1.0 / CONTAMINATION_MEAN - 2.0) * jnp.log1p(-t[3])
    weak = scale + width + share - INVERSE_DF_RATE * t[1] - 0.5 * (floor2 / FLOOR_WIDTH**2).sum()
    return log_density(r2, ivar, law).sum() + weak


def _sums(law, r2, ivar):
    P = effective_ivar(ivar, law)
    cells = Heard(jnp.sqrt(r2), P, ivar, ivar > 0, jnp.zeros_like(P))
    return jax.tree.map(np.asarray, sums_of(cells, jnp.zeros_like(P), law)[0])


@pytest.mark.parametrize("per_pixel", [False, True])
def test_the_noise_steps_sums_are_slopes_and_it_climbs_to_the_maximum(x64, per_pixel):
    r2, ivar = _cells()
    floor = np.full(6, 0.05) if per_pixel else np.asarray(0.05)
    law, pace = NoiseLaw(0.02, 2.0, floor, 0.1, 20.0), FIRST_PACE
    free = Free(np.ones(4, bool), floor=True)
    for _ in range(60):
        law, moved, pace = noise_step(law, _sums(law, r2, ivar), free, pace)
    assert float(moved) < 1e-6
    t = jnp.asarray([2 * math.log(law.scale), law.inverse_df, math.log(law.width), law.contamination])
    slopes = jax.grad(_log_posterior, (0, 1))
    there, away = slopes(t, law.floor**2, r2, ivar), slopes(1.05 * t, 1.1 * law.floor**2, r2, ivar)
    for a, b in zip(there, away, strict=True):
        assert (np.abs(a) < 1e-3 * np.abs(b)).all()
    for name, value in LAW._asdict().items():
        np.testing.assert_allclose(getattr(law, name), value, rtol=0.2 if per_pixel else 0.1)


def test_the_noise_step_solves_the_dense_system():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(9, 9))
    full = root @ root.T
    full[4:, 4:] = np.diag(np.diag(full[4:, 4:]))
    full[np.diag_indices(9)] += 20.0
    score = rng.normal(size=9)
    arrow = Arrow(score[:4], score[4:], full[:4, :4], np.diag(full)[4:], full[:4, 4:])
    wide = [Bounds(np.full(n, -9.0), np.full(n, 9.0)) for n in (4, 5)]
    np.testing.assert_allclose(
        np.concatenate(_bounded(arrow, *wide)), np.linalg.solve(full, score), rtol=1e-4
    )
    # what hits a bound stays there, and the others are at their optimum given that
    tight = Bounds(np.full(4, -0.005), np.full(4, 0.005))
    delta = np.concatenate(_bounded(arrow, tight, wide[1]))
    gradient, at = score - full @ delta, np.append(np.isclose(np.abs(delta[:4]), 0.005), [False] * 5)
    assert at.any() and (gradient[at] * delta[at] > 0).all() and np.abs(gradient[~at]).max() < 1e-4


def test_objects_with_fewer_pixels_than_components_fall_back_to_the_population_honestly():
    survey = low_rank(600, 120, 8, seed=0)
    ivar = survey.data.ivar / survey.data.unit**2
    rng = np.random.default_rng(3)
    few = np.arange(100)
    for i in few:  # 5 pixels, scattered or side by side
        seen = rng.choice(120, 5, replace=False) if i % 2 else np.arange(40, 45)
        ivar[i, np.delete(np.arange(120), seen)] = 0
    fit = rp.fit(rp.dataset(survey.data.flux * survey.data.unit, ivar), 8, starts=1)
    truth = survey.truth.clean @ fit.basis.T
    error = (fit.coefficients - truth)[few]
    weighed = np.linalg.solve(fit.coefficient_covariance[few], error[..., None])[..., 0]
    distance2 = (error * weighed).sum(1)
    assert distance2.mean() == pytest.approx(8.0, rel=0.2)  # 800 degrees of freedom: 5 % at one sigma
    spread = np.sqrt(np.diag(fit.population.covariance))
    assert np.abs((fit.coefficients[few] - fit.population.mean) / spread).max() < 5


@pytest.mark.parametrize("kind", ["pixels", "toy"])
def test_shuffled_rows_other_blocks_and_other_keys_give_the_same_basis(kind):
    contaminated = cases.survey(cases.pixels(0.1, 10.0), 0, smooth=True, size=(1200, 150))
    data = toy(1200, 150, seed=0).data if kind == "toy" else rp.dataset(contaminated.flux, contaminated.ivar)
    fit = rp.fit(data, 5)
    np.testing.assert_array_equal(rp.fit(data, 5).basis, fit.basis)
    shuffled = data.take(np.random.default_rng(0).permutation(1200))
    # some of the toy's outliers have two solutions of nearly one F: 1e-4 is 3 % of the basis' own error there
    most = 1e-4 if kind == "toy" else 1e-5
    for other in (rp.fit(shuffled, 5), rp.fit(data, 5, batch_rows=256), rp.fit(data, 5, key=9)):
        assert largest_angle(other.basis, fit.basis) < most
        assert other.history[-1].bound == pytest.approx(fit.history[-1].bound, rel=1e-4)


def test_other_values_of_the_noise_compile_nothing():
    """One program where cells may be bad, one where none may: a grid over Q is fitted by the first fit's."""
    data = low_rank(200, 40, 2, nu=4, seed=0).data
    jax.clear_caches()  # of the programs of other tests: none may hide one that is missing
    rp.fit(data, 2)
    before = sweep._cache_size()
    for noise in (rp.Noise(contamination=0.1), rp.Noise(scale=2.0), rp.Noise(floor=0.01)):
        rp.fit(data, 2, noise=noise, schedule=rp.anneal.tightening(2, 3))
    assert sweep._cache_size() == before
    flat = rp.Prior.flat()
    rp.fit(data, 2, noise=rp.Noise(1.0, 3.0, 0.0), prior=flat)
    before = sweep._cache_size()
    for q in (0.5, 1.0, 2.0, 4.0, 5.0, 10.0):
        rp.fit(data, 2, noise=rp.Noise(1.0, q, 0.0), prior=flat)
    rp.fit(data, 2, noise=rp.Noise(math.inf, 1.0, 0.0), prior=flat)
    assert sweep._cache_size() == before


def test_an_object_in_a_wrong_solution_is_begun_again():
    """Two spectra in one: 60 % of the pixels follow one, 40 % the other, and the fit sits on the latter."""
    survey = low_rank(300, 120, 3, sigma=0.01, seed=0)
    right, wrong = survey.truth.coefficients.copy(), survey.truth.coefficients.copy()
    wrong[[5, 70]] *= -3.0
    flux = (survey.data.flux * survey.data.unit).astype(float)
    flux[:, ::5] += ((wrong - right) @ survey.truth.basis)[:, ::5]
    flux[:, 1::5] += ((wrong - right) @ survey.truth.basis)[:, 1::5]
    data = rp.dataset(flux, survey.data.ivar / survey.data.unit**2)
    fit = rp.fit(data, 3)
    here, there = (x @ survey.truth.basis @ fit.basis.T / data.unit for x in (right, wrong))
    np.testing.assert_allclose(fit.coefficients / data.unit, here, atol=0.2)
    problem = Problem.of(data, 3, rp.Noise(), rp.Prior())
    with precision(np.dtype("float32")):
        blocks = Blocks.of(data, data.unit)
        begun = warm(problem, fit, 0)._replace(coefficients=there)
        state = begun.state_for(blocks)
        for _ in range(5):
            state, _ = settle(problem, state, blocks)
        stuck = blocks.gather([local.coefficients for local in state.local])
        np.testing.assert_allclose(stuck[[5, 70]], there[[5, 70]], atol=0.2)
        _, before, _ = problem.step(state, blocks, TARGET, 0, "test", NOTHING)
        state, (moved, stayed) = restart(problem, state, blocks)
        _, after, _ = problem.step(state, blocks, TARGET, 0, "test", NOTHING)
        bounds = [blocks.gather([x.bound for x in info.objects]) for info in (before, after)]
        assert (bounds[1] >= bounds[0] - 1e-3 * np.abs(bounds[0])).all()
        found = blocks.gather([local.coefficients for local in state.local])
        assert moved == 2
        np.testing.assert_allclose(found, here, atol=0.2)
        assert restart(problem, state, blocks, stayed)[1][0] == 0


def test_an_object_that_stayed_is_not_begun_again_a_second_time(monkeypatch):
    survey = low_rank(300, 60, 2, seed=3)
    flux = (survey.data.flux * survey.data.unit).copy()
    flux[7] = 30.0 * np.random.default_rng(0).standard_normal(60)  # nothing explains it
    data = rp.dataset(flux, survey.data.ivar / survey.data.unit**2)
    fit, problem = rp.fit(data, 2), Problem.of(data, 2, rp.Noise(), rp.Prior())
    with precision(np.dtype("float32")):
        blocks = Blocks.of(data, data.unit)
        state, _ = settle(problem, warm(problem, fit, 0).state_for(blocks), blocks)
        state, (moved, stayed) = restart(problem, state, blocks)
        assert (moved, list(stayed)) == (0, [7])
        monkeypatch.setattr("robusta_prob.inference.restart.settle", None)
        _, (moved, again) = restart(problem, state, blocks, stayed)
    assert (moved, list(again)) == (0, [7])


def test_coefficients_that_rest_are_asked_once_in_whatever_gauge(monkeypatch):
    data = low_rank(300, 60, 3, seed=0).data
    fit, problem = rp.fit(data, 3), Problem.of(data, 3, rp.Noise(), rp.Prior())
    passes = []
    step = em.step
    monkeypatch.setattr(em, "step", lambda *given, **how: passes.append(how["times"]) or step(*given, **how))
    with precision(np.dtype("float32")):
        blocks = Blocks.of(data, data.unit)
        state, _ = settle(problem, warm(problem, fit, 0).state_for(blocks), blocks)
        passes.clear()
        T = np.array([[0.0, 2.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 1.0, 1.0]])
        local = tuple(em.turned_by(x, np.linalg.inv(T).astype("float32")) for x in state.local)
        settle(problem, state._replace(local=local, turn=T), blocks)
    assert passes == [1]


def test_a_restart_that_runs_off_does_not_lose_the_fit(monkeypatch):
    data = low_rank(200, 40, 2, seed=0).data
    good = rp.fit(data, 2)

    def broken(problem, state, blocks, known):
        nowhere = state.shared._replace(basis=math.nan * state.shared.basis)
        return state._replace(shared=nowhere, past=None), (7, known)

    monkeypatch.setattr("robusta_prob.inference.solving.restart", broken)
    fit = rp.fit(data, 2)
    np.testing.assert_array_equal(fit.basis, good.basis)
    assert fit.status.ok and "after 7 objects were begun again a number stopped" in fit.status.message
    assert fit.config["restarted"] == 0


def _arrays(survey):
    unit = survey.data.unit
    return np.array(survey.data.flux * unit, float), np.array(survey.data.ivar / unit**2, float)


@pytest.mark.parametrize("size", [30.0, 65535.0, 1e12, 1e30])
def test_a_dead_column_is_left_out_and_told(size):
    """It is the same in all objects, so that the likelihood would spend a component on it."""
    survey = low_rank(300, 120, 3, seed=1)
    flux, ivar = _arrays(survey)
    others = np.arange(120) != 7
    clean = rp.fit(rp.dataset(flux, np.where(others, ivar, 0.0)), 3)  # never observed
    flux[:, 7] = size
    data = rp.dataset(flux, ivar)
    fit = rp.fit(data, 3)
    assert fit.status.ok and fit.config["isolated"] == (7,)
    assert "1 pixel (number 7, counted from 0) would have taken" in fit.status.message
    np.testing.assert_array_equal(fit.trained, others)
    assert largest_angle(fit.basis[:, others], clean.basis[:, others]) < 1e-4
    assert rp.surprise(fit, data).object.in_training.all()
    assert rp.fit(data, 3, init=fit).config["isolated"] == (7,)


def test_pixels_are_isolated_by_robust_laws_alone_and_honest_lines_stay():
    survey = low_rank(600, 120, 3, seed=1)
    flux, ivar = _arrays(survey)
    line = np.exp(-0.5 * ((np.arange(120) - 60) / 0.85) ** 2)  # two pixels wide
    flux += 5 * np.random.default_rng(0).normal(size=(600, 1)) * line
    assert rp.fit(rp.dataset(flux, ivar), 4).config["isolated"] == ()
    flux[:, 7] = 30
    gaussian = rp.fit(rp.dataset(flux, ivar), 4, noise=rp.Noise(math.inf, 1.0, 0.0))
    assert gaussian.config["isolated"] == () and np.abs(gaussian.basis[:, 7]).max() > 0.9


@pytest.mark.parametrize(
    ("flux", "ivar"), [(1e18, None), (1e30, None), (1e12, 1e15), (10.0, 1e30), (1e30, 1e30)]
)
@pytest.mark.parametrize("where", [np.s_[0, :], np.s_[0, 0]], ids=["object", "cell"])
def test_values_beyond_the_range_of_squares_are_outliers_and_nothing_else(flux, ivar, where):
    survey = low_rank(300, 80, 2, seed=1)
    good_flux, good_ivar = _arrays(survey)
    bad_flux, bad_ivar = good_flux.copy(), good_ivar.copy()
    bad_flux[where] = flux
    if ivar is not None:
        bad_ivar[where] = ivar
    data = rp.dataset(bad_flux, bad_ivar)
    fit = rp.fit(data, 2)
    assert fit.status.ok
    assert largest_angle(fit.basis, rp.fit(rp.dataset(good_flux[1:], good_ivar[1:]), 2).basis) < 5e-3
    scores = rp.surprise(fit, data)
    assert np.isfinite(scores.object.p_value).all() and np.isfinite(fit.coefficients).all()
    others = rp.project(fit, rp.dataset(bad_flux, bad_ivar, ids=np.arange(1000, 1300)))
    assert np.isfinite(others.coefficients).all() and np.isfinite(others.covariance).all()
    if where == np.s_[0, :]:
        assert scores.object.p_value[0] < 1e-100


def test_a_threshold_that_lets_the_population_overrule_the_data_is_told():
    faint = cases.survey(cases.CASES["S/N 1"], 0, smooth=True, size=(300, 120))
    data, wide = rp.dataset(faint.flux, faint.ivar), rp.Noise(1.0, 5.0, 0.0)
    assert "the population determines" in rp.fit(data, 5, noise=wide).status.message
    assert (
        "the population determines" not in rp.fit(data, 5, noise=wide, prior=rp.Prior.flat()).status.message
    )
    assert "the population determines" not in rp.fit(data, 5).status.message
    bright = low_rank(300, 120, 3, seed=1).data
    assert "the population determines" not in rp.fit(bright, 3, noise=wide).status.message


@pytest.mark.filterwarnings("ignore::robusta_prob.DataWarning")
@pytest.mark.parametrize(
    "loss", [{}, {"noise": rp.Noise(1.0, 5.0, 0.0), "prior": rp.Prior.flat()}], ids=["learned", "published"]
)
def test_what_a_minority_does_coherently_takes_no_component(loss):
    """Every start of rank 5 ends with the recurring spectrum as a component, at an angle of 1."""
    data = cases.survey(cases.twins(0.15, 2.0), 5, smooth=True, size=(600, 150))
    fit = rp.fit(rp.dataset(data.flux, data.ivar), 5, **loss)
    assert fit.status.ok and "more" in fit.config["start"]
    assert largest_angle(fit.basis, data.basis) < 0.05


def test_a_bright_band_that_follows_the_others_is_not_left_out():
    survey = low_rank(300, 120, 3, seed=1)
    flux, ivar = _arrays(survey)
    flux[:, 40] *= 30.0
    ivar[:, 40] /= 30.0**2
    fit = rp.fit(rp.dataset(flux, ivar), 3)
    assert fit.status.ok and fit.config["isolated"] == () and fit.trained.all()


def test_a_few_wild_errors_do_not_tell_a_floor_from_a_scale():
    survey = low_rank(300, 80, 2, sigma=0.05, spread=0.0, seed=0)
    ivar = np.full(survey.data.shape, 1 / 0.03**2)
    ivar[np.arange(5), np.arange(5)] *= 1e6
    fit = rp.fit(rp.dataset(survey.data.flux * survey.data.unit, ivar), 2)
    assert "too little to tell a floor from a scale" in fit.status.message and fit.noise.floor == 0


@pytest.mark.parametrize(
    "schedule",
    [rp.anneal.constant(rp.anneal.FULL), lambda epoch: rp.anneal.Robustness(0.5**epoch, 0.5**epoch)],
    ids=["robust to the end", "decaying"],
)
def test_a_schedule_may_end_anywhere(schedule):
    assert rp.fit(low_rank(200, 40, 2, seed=0).data, 2, schedule=schedule, starts=1).status.ok


def test_weak_components_are_not_slowed_by_jumps_that_are_taken_back():
    """Judged before the coefficients have followed, nine jumps of ten were: 114 to 253 epochs."""
    fit = rp.fit(low_rank(600, 150, 3, sigma=0.23, seed=1).data, 5)
    assert fit.status.ok
    assert sum(not line.stage.startswith("start") for line in fit.history) < 70


def test_too_few_cells_for_a_noise_law_are_told():
    sparse = low_rank(300, 60, 3, seed=2, missing=0.9).data
    assert "too few to trust the learned noise" in rp.fit(sparse, 3, max_epochs=20).status.message
