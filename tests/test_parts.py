"""Updates after every part of a pass: the same sums, the same place of rest, sooner."""

import jax
import numpy as np
import pytest

import robusta_prob as rp
from robusta_prob.inference import em
from robusta_prob.inference.anneal import TARGET
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.m_step import maximise, no_memory
from robusta_prob.inference.parts import Parts, absolute, relative, turned
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.settle import NOTHING
from robusta_prob.inference.start import warm
from robusta_prob.simulate import largest_angle, low_rank

ROWS = 128


@pytest.fixture
def begun(x64):
    """A problem of four blocks in float64, and its state near the truth."""
    survey = low_rank(500, 40, 2, nu=4, missing=0.1, seed=2, dtype="float64")
    problem = Problem.of(survey.data, 2, rp.Noise(4.0, 1.0, 0.0), rp.Prior())
    blocks = Blocks.of(survey.data, survey.data.unit, ROWS)
    return survey, problem, blocks, warm(problem, survey.truth.basis, 0).state_for(blocks)


def _passes(problem, state, blocks, count, **how):
    for epoch in range(count):
        state, info, _ = problem.step(state, blocks, TARGET, epoch, "test", **how)
    return state, info


def _assert_close(one, other, rtol=1e-9):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (1e-30 + np.abs(b).max()))


def test_parts_add_up_to_a_whole_pass(begun):
    _, problem, blocks, state = begun
    state, _ = _passes(problem, state, blocks, 3, learn=NOTHING)
    parts = Parts((None,) * 4)
    for number in range(4):
        one = Blocks(lambda _, n=number: blocks.ordered([n]), ROWS, [blocks.rows[number]], at_hand=False)
        here = em.State(state.shared, (state.local[number],), state.turn)
        _, info = _passes(problem, here, one, 1, learn=NOTHING)
        parts = parts.replaced(number, info.statistics, state.shared)
    assert parts.complete
    _, again = _passes(problem, state, blocks, 1, learn=NOTHING)
    without_noise = [x._replace(noise=0.0) for x in (parts.at(state.shared), again.statistics)]
    _assert_close(*without_noise)


def test_sums_about_zero_are_those_of_another_gauge_and_basis(begun):
    """Carried along they are those of turned coefficients; and there and back is nothing."""
    _, problem, blocks, state = begun
    state, info = _passes(problem, state, blocks, 2)
    _assert_close(relative(absolute(info.statistics, state.shared), state.shared), info.statistics, 1e-7)
    T = np.array([[1.2, 0.3], [-0.5, 0.8]])
    there = turned(absolute(info.statistics, state.shared), T)
    gram = info.statistics.gram[[0, 1, 1, 2]].reshape(2, 2, -1)
    np.testing.assert_allclose(there.gram[1], np.einsum("a,abj,b->j", T[0], gram, T[1]), rtol=1e-9)
    np.testing.assert_allclose(there.moment2, T @ absolute(info.statistics, state.shared).moment2 @ T.T)


def test_a_kept_sum_gives_the_update_that_a_fresh_one_gives(begun):
    _, problem, blocks, state = begun
    state, _ = _passes(problem, state, blocks, 2)
    _, info = _passes(problem, state, blocks, 1, learn=NOTHING)
    other = state.shared._replace(basis=state.shared.basis * 1.01)
    kept = relative(absolute(info.statistics, state.shared), other)
    new, old = (
        maximise(at, sums, no_memory(at), problem.learn, steady=False)[0].shared
        for at, sums in ((other, kept), (state.shared, info.statistics))
    )
    assert largest_angle(np.asarray(new.basis), np.asarray(old.basis)) < 1e-9


def test_it_comes_to_rest_where_whole_passes_do_and_sooner(begun):
    _, problem, blocks, state = begun
    bad = state._replace(
        shared=state.shared._replace(
            basis=state.shared.basis + 0.3 * np.random.default_rng(0).normal(size=(2, 40))
        )
    )
    whole, at_rest = _passes(problem, bad, blocks, 300)
    parts, info = _passes(problem, bad, blocks, 60, updates=8)
    assert parts.parts.complete and len(parts.parts.each) == 4  # as many as there are blocks
    assert info.bound == pytest.approx(at_rest.bound, rel=1e-10)
    assert largest_angle(np.asarray(parts.shared.basis), np.asarray(whole.shared.basis)) < 1e-6
    few, some = (
        _passes(problem, bad, blocks, 6, steady=False, **how)[1].bound for how in ({}, {"updates": 4})
    )
    assert at_rest.bound - some < 0.5 * (at_rest.bound - few)


def test_a_fit_of_many_blocks_is_that_of_one():
    data = low_rank(600, 60, 3, nu=4, missing=0.1, seed=5).data
    one, many = (rp.fit(data, 3, tol=1e-4, batch_rows=rows) for rows in (None, ROWS))
    assert one.status.ok and many.status.ok
    assert largest_angle(one.basis, many.basis) < 1e-5
    assert len(many.history) <= len(one.history)
