"""Anderson acceleration of the basis: fewer passes, and never a worse place."""

import jax.numpy as jnp
import numpy as np

import robusta_prob as rp
from robusta_prob.inference.accelerate import LONGEST, carried, leap, no_leaps
from robusta_prob.simulate import low_rank

RANK, PIXELS = 2, 20


def _linear_em(rates, steps):
    """Of x -> rates x, whose rest is 0, with leaps: its distance, what was said of it, and the jump."""
    gram = jnp.tile(jnp.eye(RANK)[:, :, None], PIXELS)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(RANK, PIXELS)))
    leaps, far = no_leaps(RANK, PIXELS, x.dtype), []
    for _ in range(steps):
        jump, leaps = leap(leaps, -(1.0 - rates) * x, gram)
        x = x + jump.step
        far.append((float(jnp.linalg.norm(x)), float(jnp.sqrt(jump.left2)), jump))
    return far


def test_slow_directions_are_taken_in_one_jump(x64):
    rates = np.full((RANK, PIXELS), 0.2)
    rates[0, 0], rates[1, 3] = 0.97, 0.9
    far = _linear_em(jnp.asarray(rates), 12)
    assert far[-1][0] < 1e-4  # plain EM: 0.97^12 = 0.7
    # what is said to be left is not less than a third of what is
    assert all(left > 0.3 * distance for distance, left, _ in far if distance > 1e-6)


def test_a_jump_is_no_longer_than_said(x64):
    rates = np.full((RANK, PIXELS), 0.9999)
    far = _linear_em(jnp.asarray(rates), 3)
    _, _, jump = far[1]
    assert float(jnp.linalg.norm(jump.step)) <= 1.01 * (1 + LONGEST) * float(jnp.sqrt(jump.move2))


def test_the_gauge_does_not_matter(x64):
    """The same moves told in another gauge give the same jump, told in that gauge."""
    rng = np.random.default_rng(1)
    turn = jnp.asarray(np.linalg.qr(rng.normal(size=(RANK, RANK)))[0]) @ jnp.diag(jnp.asarray([3.0, 0.2]))
    root = rng.normal(size=(PIXELS, RANK, RANK))
    gram = jnp.asarray(np.einsum("jab,jcb->acj", root, root))
    back = jnp.linalg.inv(turn)
    turned_gram = jnp.einsum("ka,klj,lb->abj", back, gram, back)
    leaps = no_leaps(RANK, PIXELS, gram.dtype)
    for size in (1.0, 0.9, 0.8):
        _, leaps = leap(leaps, jnp.asarray(size * rng.normal(size=(RANK, PIXELS))), gram)
    move = jnp.asarray(rng.normal(size=(RANK, PIXELS)))
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
