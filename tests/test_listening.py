"""Who is heard of a block, and blocks side by side."""

import jax
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import problem, threads
from robusta_prob.inference.linalg import congruence, congruent, product
from robusta_prob.inference.listening import heard, heard_product
from robusta_prob.inference.sweep import sweep
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
    assert (np.bincount(rows, minlength=128) >= pixels // stride).all()
    for pixel in range(pixels):  # sums over objects are sums of that pixel's
        assert set((asked[:, pixel] - 1) % pixels) == {pixel}
    np.testing.assert_array_equal(heard(cells, 1), cells)


def test_a_product_is_heard_without_the_rest():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(128, 6)), rng.normal(size=(6, 21))
    np.testing.assert_allclose(heard_product(left, right, 8), heard(left @ right, 8), rtol=1e-4, atol=1e-5)


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
