"""Objects on a learned basis: against weighted least squares, and at the edges."""

import dataclasses
import math

import h5py
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.simulate import low_rank, toy


@pytest.fixture(scope="module")
def gaussian():
    survey = low_rank(400, 80, 3, missing=0.2, seed=0)
    train, test = survey.data.take(slice(0, 300)), survey.data.take(slice(300, 400))
    return rp.fit(train, 3, noise=rp.Noise(math.inf, 1.0, 0.0), prior=rp.Prior.flat()), test


def test_a_gaussian_projection_is_weighted_least_squares(gaussian):
    fit, test = gaussian
    got = rp.project(fit, test)
    Y, W, G = (
        test.flux.astype(float) * test.unit,
        test.ivar.astype(float) / test.unit**2,
        fit.basis.astype(float),
    )
    gram = np.einsum("ij,kj,lj->ikl", W, G, G)
    expected = np.linalg.solve(gram, np.einsum("ij,kj,ij->ik", W, G, Y)[..., None])[..., 0]
    np.testing.assert_allclose(got.coefficients, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got.covariance, np.linalg.inv(gram) / fit.information, rtol=1e-3, atol=1e-9)
    assert fit.information == pytest.approx(1.0, abs=0.05)
    assert (got.ids == test.ids).all()


def test_training_objects_project_onto_their_own_coefficients():
    data = toy(300, 120, seed=1).data
    fit = rp.fit(data, 5)
    again = rp.project(fit, data)
    sd = np.sqrt(np.diagonal(fit.coefficient_covariance, axis1=1, axis2=2))
    moved = (np.abs(again.coefficients - fit.coefficients) / sd).max(1)
    assert np.quantile(moved, 0.98) < 0.1  # foreign objects may sit in another of their own minima


def test_objects_with_little_data_fall_back_to_the_population():
    survey = low_rank(600, 120, 4, seed=2)
    fit = rp.fit(survey.data, 4)
    ivar = survey.data.ivar / survey.data.unit**2
    few = np.zeros_like(ivar)
    few[0::2, 10:12] = ivar[0::2, 10:12]  # two pixels for four coefficients; odd objects have none
    part = rp.project(fit, rp.dataset(survey.data.flux * survey.data.unit, few))
    np.testing.assert_allclose(part.coefficients[1], fit.population.mean, atol=1e-4 * fit.population.mean[0])
    np.testing.assert_allclose(part.covariance[1], fit.population.covariance, rtol=1e-3, atol=1e-3)
    # honest: errors in units of the claimed covariance have the right size
    model = rp.reconstruct(fit, part)[0::2]
    truth = (survey.truth.coefficients @ survey.truth.basis)[0::2]
    claimed = np.einsum("kj,ikl,lj->ij", fit.basis, part.covariance[0::2], fit.basis)
    assert np.mean((model - truth) ** 2 / claimed) == pytest.approx(1.0, abs=0.25)


def test_results_stream_into_hdf5_and_rows_can_be_chosen(gaussian, tmp_path):
    fit, test = gaussian
    whole = rp.residuals(fit, test)
    assert np.isnan(whole[~test.observed]).all() and np.isfinite(whole[test.observed]).all()
    with h5py.File(tmp_path / "out.h5", "w") as file:
        written = file.create_dataset("weights", test.shape, "f4")
        assert rp.robust_weights(fit, test, out=written) is written
        np.testing.assert_array_equal(written[()], rp.robust_weights(fit, test))
    np.testing.assert_allclose(rp.residuals(fit, test, rows=[3, 5]), whole[[3, 5]], rtol=1e-5, atol=1e-6)
    projection = rp.project(fit, test)
    np.testing.assert_allclose(
        rp.reconstruct(fit, projection) + whole,
        np.where(test.observed, test.flux * test.unit, np.nan),
        rtol=1e-5,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="out must hold floats in shape"):
        rp.residuals(fit, test, out=np.empty((2, 2)))
    with pytest.raises(ValueError, match="got int64"):
        rp.residuals(fit, test, out=np.empty(test.shape, "int64"))


def test_weights_are_the_published_ones():
    data = toy(300, 120, seed=0).data
    fit = rp.fit(data, 5, noise=rp.Noise(1.0, 5.0, 0.0), prior=rp.Prior.flat())
    projection = rp.project(fit, data)
    z2 = rp.residuals(fit, data, projection) ** 2 * data.ivar / data.unit**2
    np.testing.assert_allclose(
        rp.robust_weights(fit, data, projection),
        np.where(data.observed, 25 / (25 + z2), np.nan),
        rtol=2e-3,
        atol=1e-6,
    )


def test_another_dtype_and_unit_of_the_data_do_not_matter(gaussian):
    fit, test = gaussian
    flux, ivar = test.flux.astype(float) * test.unit, test.ivar.astype(float) / test.unit**2
    other = rp.dataset(np.concatenate([flux, 1e4 * flux]), np.concatenate([ivar, ivar]), dtype="float64")
    got = rp.project(fit, other).coefficients[:100]
    np.testing.assert_allclose(got, rp.project(fit, test).coefficients, rtol=1e-4, atol=1e-4)


def test_other_pixels_are_refused(gaussian):
    fit, test = gaussian
    with pytest.raises(ValueError, match="resample the data to the grid of the fit"):
        rp.project(fit, rp.dataset(np.ones((2, 5)), np.ones((2, 5))))
    shifted = rp.dataset(test.flux, test.ivar, grid=test.grid + 1.0)
    with pytest.raises(ValueError, match="the grids differ"):
        rp.project(fit, shifted)


def test_coefficients_of_other_objects_are_refused(gaussian):
    """Reversed, they would leave residuals of 25 times the noise, and nobody would be told."""
    fit, test = gaussian
    own = rp.project(fit, test)
    of_another_rank = rp.Projection(own.coefficients[:, :2], own.covariance[:, :2, :2], own.ids)
    for function in (rp.residuals, rp.robust_weights):
        for rows in (slice(None, None, -1), slice(0, 5)):
            with pytest.raises(ValueError, match="of the same objects in the same order"):
                function(fit, test, own.take(np.arange(len(own.ids))[rows]))
        with pytest.raises(ValueError, match="of a fit of rank 2, not 3"):
            function(fit, test, of_another_rank)
        with pytest.raises(TypeError, match="projection is a ndarray"):
            function(fit, test, own.coefficients)
    with pytest.raises(ValueError, match="of a fit of rank 2, not 3"):
        rp.reconstruct(fit, of_another_rank)
    with pytest.raises(TypeError, match="objects is a ndarray"):
        rp.reconstruct(fit, own.coefficients)


def test_results_of_other_fluxes_or_of_another_fit_are_refused(gaussian):
    """Ids do not tell: the default ones are 0, 1, ..."""
    fit, test = gaussian
    others = rp.dataset(test.flux[::-1] * test.unit, test.ivar[::-1] / test.unit**2, ids=test.ids)
    assert (others.ids == test.ids).all()
    own, scores = rp.project(fit, test), rp.surprise(fit, others)
    with pytest.raises(ValueError, match="same ids but of other fluxes"):
        rp.surprise(fit, others, own)
    with pytest.raises(ValueError, match="scores is of objects of the same ids but of other fluxes"):
        rp.families(fit, test, scores)
    with pytest.raises(ValueError, match="projection is of another fit"):
        rp.residuals(dataclasses.replace(fit, basis=-fit.basis), test, own)
    with pytest.raises(TypeError, match="projection is a Fit"):
        rp.surprise(fit, test, fit)
    by_hand = rp.Projection(own.coefficients, own.covariance, own.ids)
    assert rp.surprise(fit, test, by_hand).origin is None  # believed


def test_projections_of_parts_are_that_of_the_whole(gaussian):
    fit, test = gaussian
    whole = rp.project(fit, test)
    rows = np.random.default_rng(0).permutation(100)
    parts = [rp.project(fit, test.take(rows[i : i + 40])) for i in (0, 40, 80)]
    joined = rp.Projection.joined(parts)
    assert isinstance(joined, rp.Projection)
    np.testing.assert_allclose(joined.coefficients, whole.coefficients[rows], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(joined.covariance, whole.covariance[rows], rtol=1e-4)
    np.testing.assert_array_equal(joined.ids, test.ids[rows])
    np.testing.assert_array_equal(joined.origin.fingerprints, whole.origin.fingerprints[rows])
    assert joined.origin._replace(fingerprints=0) == whole.origin._replace(fingerprints=0)
    rp.surprise(fit, test.take(rows), joined)  # it is one of these data
    with pytest.raises(ValueError, match="must be of the same objects in the same order"):
        rp.surprise(fit, test, joined)
    (one,) = parts[:1]
    np.testing.assert_array_equal(rp.Projection.joined([one]).coefficients, one.coefficients)


def test_projections_that_do_not_belong_together_are_not_joined(gaussian):
    fit, test = gaussian
    half = [rp.project(fit, test.take(rows)) for rows in (slice(50), slice(50, 100))]
    other = rp.project(dataclasses.replace(fit, basis=-fit.basis), test)
    with pytest.raises(ValueError, match="of different fits: project all objects on one of them"):
        rp.Projection.joined([half[0], other])
    for origin in (half[0].origin._replace(unit=64.0), half[0].origin._replace(dtype="float64")):
        with pytest.raises(ValueError, match="of different fits"):
            rp.Projection.joined([half[0]._replace(origin=origin), half[1]])
    with pytest.raises(ValueError, match="there is no projection to join"):
        rp.Projection.joined([])
    by_hand = rp.Projection.joined([half[0], half[1]._replace(origin=None)])  # who knows of which fit it is
    assert by_hand.origin is None and len(by_hand.ids) == 100


def test_batches_are_whole_blocks(gaussian):
    fit, test = gaussian
    for rows in (0, 100, 200, -128):
        with pytest.raises(ValueError, match=f"batch_rows must be a positive multiple of 128, got {rows}"):
            rp.project(fit, test, batch_rows=rows)
    with pytest.raises(TypeError, match=r"batch_rows must be an integer, got 128\.0"):
        rp.project(fit, test, batch_rows=128.0)


def test_the_models_uncertainty_is_that_of_its_draws_and_of_its_error():
    survey = low_rank(300, 60, 2, sigma=0.2, missing=0.2, seed=4)
    fit = rp.fit(survey.data, 2)
    sd = rp.reconstruct_sd(fit)
    z = (rp.reconstruct(fit) - survey.truth.clean) / sd
    assert np.mean(z**2) == pytest.approx(1.0, abs=0.15)
    few = slice(0, 20)
    drawn = np.stack([draw.coefficients @ draw.basis for draw in rp.posterior_draws(fit, 400, rows=few)])
    np.testing.assert_allclose(drawn.mean(0), rp.reconstruct(fit, rows=few), atol=6 * sd[few].max() / 20)
    assert np.median(drawn.std(0) / sd[few]) == pytest.approx(1.0, abs=0.05)
    new = low_rank(10, 60, 2, sigma=0.2, seed=4)
    projection = rp.project(fit, new.data)
    np.testing.assert_allclose(rp.reconstruct_sd(fit, new.data), rp.reconstruct_sd(fit, projection))
    with pytest.raises(ValueError, match="number of draws"):
        rp.posterior_draws(fit, -1)
