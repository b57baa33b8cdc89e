"""Objects far from the population: how far they are, and what is left of the population's hold on them."""

import numpy as np
import pytest
from scipy import special, stats

import robusta_prob as rp
from robusta_prob.scoring import outliers
from robusta_prob.scoring.manifold import mahalanobis, yielded

N, M, RARE = 1500, 200, np.arange(15)


@pytest.fixture(scope="module")
def survey():
    """A continuum, a narrow feature and a wide one; 15 objects have eight times as much of the narrow one."""
    rng, x = np.random.default_rng(0), np.arange(M)
    basis = np.stack(
        [np.ones(M), np.exp(-0.5 * ((x - 100) / 4.0) ** 2), np.exp(-0.5 * ((x - 60) / 15.0) ** 2)]
    )
    coefficients = np.column_stack([rng.normal(10, 1, N), rng.normal(0, 0.5, N), rng.normal(0, 1, N)])
    coefficients[RARE, 1] = 4.0
    flux = coefficients @ basis + 0.6 * rng.standard_normal((N, M))
    data = rp.dataset(flux, np.full((N, M), 0.6**-2.0), grid=x)
    fit = rp.fit(data, 3)
    return data, fit, rp.project(fit, data)


def test_rare_objects_are_far_and_only_they(survey):
    _, fit, projection = survey
    distance, directions = mahalanobis(fit, projection)
    far = stats.chi2.ppf(0.99, 3)
    assert (distance[RARE] > far).all() and (distance > far).mean() < 0.03 and (directions == 3).all()


def test_the_population_holds_far_objects_less_by_dense_algebra(survey):
    """(H + u P)^-1 and (H + u P)^-1 (1 - u) P (m - mu), where (H + P)^-1 is the covariance as it was."""
    _, fit, projection = survey
    distance, _ = mahalanobis(fit, projection)
    far = yielded(fit, projection)
    assert set(RARE) <= set(far.rows.tolist()) and len(far.rows) == pytest.approx(N / 2, rel=0.1)
    P = np.linalg.inv(fit.population.covariance)
    for row, shift, covariance in zip(*far, strict=True):
        u = stats.chi2.median(3) / distance[row]
        assert u < 1.0
        wanted = np.linalg.inv(np.linalg.inv(projection.covariance[row].astype(float)) - (1 - u) * P)
        np.testing.assert_allclose(covariance, wanted, rtol=2e-3, atol=1e-6)
        pull = (1 - u) * P @ (projection.coefficients[row] - fit.population.mean)
        np.testing.assert_allclose(shift, wanted @ pull, rtol=2e-3, atol=1e-4)


def test_of_objects_with_few_pixels_the_directions_that_they_tell_count(survey):
    """Continuum alone observed: half of them are farther than the median of one direction, not of three."""
    data, fit, _ = survey
    gap = np.zeros(data.shape, bool)
    gap[:, 5:195] = True
    projection = rp.project(fit, data.hide(gap))
    distance, directions = mahalanobis(fit, projection)
    assert (directions < 3).mean() > 0.9
    rows = yielded(fit, projection).rows
    assert (distance[rows] > stats.chi2.median(directions[rows])).all()
    assert len(rows) == (distance > stats.chi2.median(directions)).sum()


def test_with_a_flat_prior_nothing_holds_anybody(survey):
    data, *_ = survey
    fit = rp.fit(data, 3, prior=rp.Prior.flat())
    assert not len(yielded(fit, rp.project(fit, data)).rows)


def test_rare_objects_have_no_line_where_the_population_has_drawn_them(survey, monkeypatch):
    data, fit, projection = survey
    lines = {"narrow": [100.0], "elsewhere": [150.0]}
    now = rp.surprise(fit, data, projection, lines=lines).lines
    monkeypatch.setattr(outliers, "held_less", lambda fit, block, projection: (block, projection.covariance))
    before = rp.surprise(fit, data, projection, lines=lines).lines
    assert np.median(before["narrow"].z[RARE]) > 5.0 and np.abs(now["narrow"].z[RARE]).max() < 4.0
    usual = np.setdiff1d(np.arange(N), yielded(fit, projection).rows)
    for name in lines:
        np.testing.assert_array_equal(now[name].z[usual], before[name].z[usual])
    # where the basis has no feature little changes; the sign of a line that is none may
    there = [np.abs(one["elsewhere"].z[RARE]) for one in (now, before)]
    np.testing.assert_allclose(*there, atol=0.5)


def test_a_line_of_a_rare_object_is_found(survey):
    data, fit, _ = survey
    found = rp.inject(data, "line set", 2.5, key=0, rows=RARE, positions=[150.0], width=3.0)
    line = rp.surprise(fit, found.data, lines={"there": [150.0]}).lines["there"]
    assert (special.ndtr(-line.z[RARE]) < 1e-6).mean() > 0.9
