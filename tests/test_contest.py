"""The contest of starts, and whether one with components too many has anything to find."""

import math

import jax
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import solving
from robusta_prob.inference.contest import compete
from robusta_prob.inference.digits import precision
from robusta_prob.inference.initialise import Start, has_structure, plain, wrapped
from robusta_prob.inference.problem import Problem
from robusta_prob.simulate import low_rank


def test_starts_that_lead_apart_are_told_from_those_that_agree():
    survey = low_rank(300, 80, 2, seed=1)
    problem = Problem.of(survey.data, 2, rp.Noise(math.inf, 1.0, 0.0), rp.Prior())

    def same_again(Y, seen, rank, seed):
        return wrapped(Y, seen, rank, seed)

    with precision(np.dtype("float32")):
        begun = compete(problem, (wrapped, same_again), 0)
    assert set(begun.scores) == {"wrapped", "same_again"} and begun.doubt == ""

    # half of the objects along one direction, half along another: rank 1 holds either as well
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 2)))[0].T.astype("float32")
    sizes = np.random.default_rng(1).normal(5, 1, size=(400, 1))
    flux = sizes * directions[np.arange(400) % 2] + 0.01 * np.random.default_rng(2).normal(size=(400, 60))
    problem = Problem.of(rp.dataset(flux, np.full(flux.shape, 1e4)), 1, rp.Noise(1.0, 3.0, 0.0), rp.Prior())

    def first(Y, seen, rank, seed):
        return Start(directions[:1], Y @ directions[:1].T)

    def second(Y, seen, rank, seed):
        return Start(directions[1:], Y @ directions[1:].T)

    with precision(np.dtype("float32")):
        begun = compete(problem, (first, second), 0)
    assert "leads to another basis" in begun.doubt


def test_a_key_decides_what_is_held_out():
    data = low_rank(200, 40, 2, seed=0).data
    one, same, other = (rp.fit(data, 2, key=jax.random.key(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.basis, same.basis)
    assert one.config["start_scores"] == same.config["start_scores"] != other.config["start_scores"]


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_any_size_has_no_structure_and_a_weak_component_has(seed):
    rng = np.random.default_rng(seed)
    errors = 10.0 ** rng.uniform(-1, 1, (400, 1)) * rng.uniform(0.5, 2.0, (1, 150))
    noise = rng.standard_normal((400, 150)) * errors * (rng.random((400, 150)) > 0.2)
    assert not has_structure(noise, seed)
    # a standard deviation of 1.5 along one direction of unit noise; any method can tell (M / N)^(1/4) = 0.8
    direction = np.linalg.qr(rng.normal(size=(150, 1)))[0].T
    assert has_structure(rng.standard_normal((400, 150)) + 1.5 * rng.normal(size=(400, 1)) * direction, seed)


def test_components_too_many_are_not_tried_where_noise_is_left():
    """Where more is left they are: `test_what_a_minority_does_coherently_takes_no_component`."""
    scores = rp.fit(low_rank(600, 100, 3, seed=0).data, 3).config["start_scores"]
    assert set(scores) == {"wrapped_sizes", "wrapped", "plain"}
    too_few = rp.fit(low_rank(600, 100, 3, seed=0).data, 2).config["start_scores"]
    assert any(name.endswith("with 2 more") for name in too_few)


@pytest.mark.parametrize("rank", [4, 9])
def test_weak_components_beside_a_dominant_mean_are_found_as_by_an_exact_decomposition(rank):
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(200, rank)))[0].T
    sizes = np.geomspace(30.0, 3.0, rank) * rng.normal(size=(400, rank)) + 3000.0 * (np.arange(rank) == 0)
    X = sizes @ directions + rng.standard_normal((400, 200))
    basis = plain(X, np.ones(X.shape, bool), rank, 0).basis
    exact = np.linalg.svd(X, full_matrices=False)[2][:rank]
    assert np.linalg.norm(basis - (basis @ exact.T) @ exact, 2) < 5e-3


def test_starts_that_run_off_all_of_them_are_told_with_what_to_do():
    def nowhere(Y, seen, rank, seed):
        return Start(np.full((rank, Y.shape[1]), np.nan, Y.dtype), np.full((len(Y), rank), np.nan, Y.dtype))

    problem = Problem.of(low_rank(200, 40, 2, seed=0).data, 2, rp.Noise(), rp.Prior())
    with (
        precision(np.dtype("float32")),
        pytest.raises(FloatingPointError, match="no start stays finite; look at"),
    ):
        compete(problem, (nowhere,), 0, generous=True)


@pytest.mark.parametrize("shape", [(30, 4), (5, 40)])
def test_no_components_too_many_where_there_is_no_room_for_them(shape):
    flux = np.random.default_rng(0).normal(size=shape)
    known = rp.Noise(math.inf, 1.0, 0.0)
    fit = rp.fit(rp.dataset(flux, np.full(shape, 100.0)), 4, noise=known, max_epochs=3)
    assert len(fit.config["start_scores"]) == 3


@pytest.fixture(scope="module")
def two_kinds():
    """Six of ten objects along one direction, the others along another: rank 1 has to choose."""
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 2)))[0].T.astype("float32")
    sizes = np.random.default_rng(1).normal(5, 1, size=(400, 1))
    flux = sizes * directions[np.where(np.arange(400) % 5 < 3, 0, 1)]
    flux += 0.01 * np.random.default_rng(2).normal(size=(400, 60))
    return rp.dataset(flux, np.full(flux.shape, 1e4)), *directions[:, None]


def test_what_is_given_competes_with_the_cheap_starts_and_has_to_win(two_kinds, monkeypatch):
    data, most, few = two_kinds
    law, cheap = rp.Noise(1.0, 3.0, 0.0), ("wrapped_sizes", "wrapped", "plain")
    alone = rp.fit(data, 1, noise=law, starts=3)
    beaten = rp.fit(data, 1, noise=law, starts=3, init=few)
    scores = beaten.config["start_scores"]
    assert set(scores) == {*cheap, "init"} and scores["init"] < min(scores[name] for name in cheap)
    assert beaten.config["start"] == alone.config["start"]
    np.testing.assert_array_equal(beaten.basis, alone.basis)

    def second(Y, seen, rank, seed):
        return Start(few, Y @ few.T)

    monkeypatch.setattr(solving, "STARTS", (second,))
    assert abs((rp.fit(data, 1, noise=law, starts=1).basis @ few.T).item()) > 0.99
    won = rp.fit(data, 1, noise=law, starts=1, init=1e6 * most)  # its size means nothing
    assert won.config["start"] == "init"
    assert abs((won.basis @ most.T).item()) > 0.99


def test_a_fit_competes_by_its_basis_alone(two_kinds):
    data, law = two_kinds[0], rp.Noise(1.0, 3.0, 0.0)
    given = rp.fit(data.take(slice(0, 300)), 1, noise=law, starts=1)
    by_fit, by_basis = (rp.fit(data, 1, noise=law, starts=1, init=x) for x in (given, given.basis))
    assert by_fit.config["start_scores"] == by_basis.config["start_scores"]
    np.testing.assert_array_equal(by_fit.coefficients, by_basis.coefficients)


@pytest.mark.parametrize(
    ("init", "match"),
    [
        (np.ones((2, 60)), r"finite basis of shape \(rank, pixels\) = \(1, 60\), got shape \(2, 60\)"),
        (np.full((1, 60), np.nan), "init must be a Fit or a finite basis"),
        (np.zeros((1, 60)), "must be linearly independent"),
    ],
)
def test_what_cannot_be_a_basis_does_not_compete(two_kinds, init, match):
    with pytest.raises(ValueError, match=match):
        rp.fit(two_kinds[0], 1, starts=1, init=init)
