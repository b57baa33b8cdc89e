"""Anderson acceleration of the basis: fewer passes, and never a worse place."""

import numpy as np

import robusta_prob as rp
from robusta_prob.inference.accelerate import LONGEST, carried, leap, no_leaps
from robusta_prob.simulate import low_rank

RANK, PIXELS = 2, 20


def _linear_em(rates, steps):
    """Of x -> rates x, whose rest is 0, with leaps: its distance, what was said of it, and the jump."""
    gram = np.tile(np.eye(RANK)[:, :, None], PIXELS)
    x = np.random.default_rng(0).normal(size=(RANK, PIXELS))
    leaps, far = no_leaps(RANK, PIXELS), []
    for _ in range(steps):
        jump, leaps = leap(leaps, -(1.0 - rates) * x, gram)
        x = x + jump.step
        far.append((float(np.linalg.norm(x)), float(np.sqrt(jump.left2)), jump))
    return far


def test_slow_directions_are_taken_in_one_jump():
    rates = np.full((RANK, PIXELS), 0.2)
    rates[0, 0], rates[1, 3] = 0.97, 0.9
    far = _linear_em(rates, 12)
    assert far[-1][0] < 1e-4  # plain EM: 0.97^12 = 0.7
    # what is said to be left is not less than a third of what is
    assert all(left > 0.3 * distance for distance, left, _ in far if distance > 1e-6)


def test_a_jump_is_no_longer_than_said():
    rates = np.full((RANK, PIXELS), 0.9999)
    far = _linear_em(rates, 3)
    _, _, jump = far[1]
    assert float(np.linalg.norm(jump.step)) <= 1.01 * (1 + LONGEST) * float(np.sqrt(jump.move2))


def test_the_gauge_does_not_matter():
    """The same moves told in another gauge give the same jump, told in that gauge."""
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(RANK, RANK)))[0] @ np.diag([3.0, 0.2])
    root = rng.normal(size=(PIXELS, RANK, RANK))
    gram = np.einsum("jab,jcb->acj", root, root)
    back = np.linalg.inv(turn)
    turned_gram = np.einsum("ka,klj,lb->abj", back, gram, back)
    leaps = no_leaps(RANK, PIXELS)
    for size in (1.0, 0.9, 0.8):
        _, leaps = leap(leaps, size * rng.normal(size=(RANK, PIXELS)), gram)
    move = rng.normal(size=(RANK, PIXELS))
    here, _ = leap(leaps, move, gram)
    there, _ = leap(carried(leaps, turn), turn @ move, turned_gram)
    np.testing.assert_allclose(there.step, turn @ here.step, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(there.left2, here.left2, rtol=1e-6)


def test_a_component_too_many_converges_in_tens_of_passes():
    """Plain EM needed 118 to 500 passes: the spare components turn slowly among the noise's directions."""
    survey = low_rank(600, 200, 5, seed=0)
    exact, spare = rp.fit(survey.data, 5), rp.fit(survey.data, 7)
    assert exact.status.ok and spare.status.ok
    assert sum(not line.stage.startswith("start") for line in spare.history) < 80
