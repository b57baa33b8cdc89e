"""Who is heard of a block, and blocks side by side."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import problem, threads
from robusta_prob.inference.linalg import congruence, congruent, product
from robusta_prob.inference.listening import Heard, heard, heard_product, sums_of
from robusta_prob.inference.quantities import Form, Globals, Local, Population, Settings
from robusta_prob.inference.sweep import sweep, sweep_block
from robusta_prob.models.noise import NoiseLaw, effective_ivar
from robusta_prob.simulate import low_rank


@pytest.mark.parametrize("stride", problem.STRIDES.values())
@pytest.mark.parametrize("pixels", [3, 8, 12, 15, 41])
def test_every_object_is_heard_and_every_pixel_as_often(pixels, stride):
    cells = np.arange(1, 128 * pixels + 1).reshape(128, pixels)
    asked = np.asarray(heard(cells, stride))
    some = np.sort(asked[asked > 0]) - 1
    assert len(np.unique(some)) == len(some)
    rows, columns = np.divmod(some, pixels)
    assert (np.bincount(columns, minlength=pixels) == 128 // stride).all()
    assert set(np.bincount(rows, minlength=128)) <= {pixels // stride, -(-pixels // stride)}
    for pixel in range(pixels):  # sums over objects are sums of that pixel's
        assert set((asked[:, pixel] - 1) % pixels) == {pixel}
    np.testing.assert_array_equal(heard(cells, 1), cells)


@pytest.mark.parametrize("stride", problem.STRIDES.values())
def test_a_product_is_heard_without_the_rest(stride):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(128, 6)), rng.normal(size=(6, 41))
    got = heard_product(left, right, stride)
    np.testing.assert_allclose(got, heard(left @ right, stride), rtol=1e-4, atol=1e-5)


def test_all_objects_are_heard_of_few_pixels():
    many = max(problem.STRIDES)
    data = rp.dataset(np.ones((64, 12)), np.ones((64, 12)))
    few = dataclasses.replace(data.labels, census=data.census._replace(observed=many))
    assert problem.stride_of(dataclasses.replace(data, labels=few)) == 8
    assert problem.stride_of(data) == 1


@pytest.mark.parametrize("object_scale", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("stride", [1, *problem.STRIDES.values()])
def test_what_is_told_is_that_of_the_cells_heard(stride, object_scale):
    """Cov(a) and Cov(g) count as far as nothing is annealed, once each; bare residuals have neither."""
    rng = np.random.default_rng(stride)
    A, G, V = rng.normal(size=(128, 2)), rng.normal(size=(2, 70)), np.tile([0.02, 0.005, 0.03], (128, 1))
    known = np.tile([[0.01], [0.002], [0.02]], 70)
    Y, W = A @ G + 0.3 * rng.standard_normal((128, 70)), np.where(rng.random((128, 70)) < 0.2, 0.0, 9.0)
    Y, W, A, G, V, known = (jnp.asarray(x, jnp.float32) for x in (Y, W, A, G, V, known))
    one = jnp.ones(128)
    population = Population(jnp.zeros(2), jnp.eye(2), jnp.zeros(()))
    law = NoiseLaw(*map(jnp.asarray, (0.1, 1.1, 0.05, 0.02, 3.0)))
    shared = Globals(G, law, population, known)

    def told(V, known, bare):
        settings = Settings(*map(jnp.asarray, (object_scale, 0.0, 1.0, bare, 1e30)))
        local = Local(A, V, 0.0 * one, one, one)
        given = shared._replace(basis_covariance=known)
        return sweep_block(Y, W, local, given, settings, Form(marginal=True, stride=stride))[1]

    first, second = np.triu_indices(2)
    twice = jnp.where(first == second, 1.0, 2.0)
    of_a = (1.0 - object_scale) * (V * twice) @ (G[first] * G[second])
    of_g = (1.0 - object_scale) * (A[:, first] * A[:, second] * twice) @ known
    P = effective_ivar(W, law)
    cells = Heard(*(heard(x, stride) for x in (Y - A @ G, P, W, P > 0, of_a)))
    expected = sums_of(cells, heard(of_g, stride), law)
    got, close = told(V, known, 0.0), partial(np.testing.assert_allclose, rtol=2e-3, atol=1e-2)
    jax.tree.map(close, (got.noise, got.influence), expected)
    bare, points = told(V, known, 1.0).influence, told(0.0 * V, 0.0 * known, 0.0).influence
    np.testing.assert_allclose(bare, points, rtol=1e-5)


def test_a_fit_by_one_thread_is_the_same_to_the_last_bit(monkeypatch):
    data = low_rank(1200, 60, 2, seed=0).data
    several = rp.fit(data, 2)
    monkeypatch.setattr(threads, "MOST", 1)
    alone = rp.fit(data, 2)
    np.testing.assert_array_equal(several.coefficients, alone.coefficients)
    assert several.config["start_scores"] == alone.config["start_scores"]


@pytest.mark.parametrize("pixels", [12, 200])
def test_a_noise_law_heard_in_part_is_that_of_all_pixels(pixels, monkeypatch):
    """Errors understated in all pixels but two of eight; outliers are few objects that are all bad."""
    survey = low_rank(1000, pixels, 2, seed=0)
    rng = np.random.default_rng(0)
    factor = np.where(np.arange(pixels) % 8 >= 2, 1.5, 1.0)
    flux = survey.truth.clean + survey.truth.sigma * factor * rng.standard_normal(survey.truth.clean.shape)
    flux[:20] += 5.0 * rng.standard_normal((20, pixels))
    data = rp.dataset(flux, survey.truth.sigma**-2.0)
    whole = rp.fit(data, 2, starts=1).noise
    monkeypatch.setattr(problem, "STRIDES", {1: 8})
    part = rp.fit(data, 2, starts=1).noise
    assert part.scale == pytest.approx(whole.scale, rel=0.03) and part.scale > 1.2
    assert part.contamination == pytest.approx(whole.contamination, abs=0.004)


def test_a_projection_of_the_same_data_compiles_nothing():
    data = low_rank(300, 40, 2, seed=0).data
    fit = rp.fit(data, 2, starts=1)
    before = sweep._cache_size()
    rp.project(fit, data)
    assert sweep._cache_size() == before


def test_blocks_side_by_side_keep_their_order_and_settings_and_are_not_taken_long_before():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    found = []
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        for number, x64, precision in threads.in_order(
            lambda i: (i, jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision), items()
        ):
            assert x64 and precision == "highest"
            found.append(number)
            assert len(taken) <= len(found) + threads.workers()
    assert found == list(range(20))
    with pytest.raises(ZeroDivisionError):
        list(threads.in_order(lambda i: 1 // (i - 3), range(9)))


def test_products_in_pieces_are_products():
    rng = np.random.default_rng(0)
    for shape, inner in (((3, 700), 5), ((900, 4), 40), ((2, 3), 300_000)):
        left, right = rng.normal(size=(shape[0], inner)), rng.normal(size=(inner, shape[1]))
        np.testing.assert_allclose(product(left, right), left @ right)
    T, packed = rng.normal(size=(4, 4)), rng.normal(size=(10, 3000))
    np.testing.assert_allclose(congruent(T, packed), congruence(T) @ packed)
