"""Coefficients at a fixed basis: the same pass as in a fit, with nothing shared being learned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from robusta_prob.inference import em
from robusta_prob.inference.anneal import TARGET, Robustness
from robusta_prob.inference.blocks import Blocks
from robusta_prob.inference.linalg import informed
from robusta_prob.inference.m_step import Learn
from robusta_prob.inference.problem import Problem
from robusta_prob.inference.quantities import Local

PASSES = 20
REST = 0.01  # change of an object's coefficients, in posterior standard deviations, that counts as rest
STRAGGLERS = 0.01  # share of the objects (foreign ones, torn between two solutions) that may still move
NOTHING = Learn(*[False] * len(Learn._fields))


def settle(
    problem: Problem,
    state: em.State,
    blocks: Blocks,
    robustness: Robustness = TARGET,
    passes: int = PASSES,
    *,
    bare: bool = False,
) -> tuple[em.State, em.Info]:
    """Iterate the coefficients of every object to rest; the shared values stay as they are.

    Most are there after a pass or two; those of outliers may take all that there are, and are asked less and
    less often. With `bare` the statistics tell the influence of the residuals, for a tenth of a pass more.
    """
    done, times = 0, 1
    while done < passes:
        times = min(times, passes - done)
        new, info, _ = problem.step(
            state, blocks, robustness, done, "settle", NOTHING, bare=bare, times=times
        )
        moving = _moving(em.in_gauge(state), new, blocks)
        state, done, times = new, done + times, 2 * times
        if moving <= STRAGGLERS:
            break
    return state, info


def covariances(
    state: em.State, blocks: Blocks, information: float, T: Float[np.ndarray, "rank rank"], dtype: np.dtype
) -> Float[np.ndarray, "objects rank rank"]:
    """Posterior covariance of every object's coefficients T a, with the sandwich's information factor.

    Of a state at rest. Block by block: in float64 those of all objects would take more than data on disk may.
    """
    prior = np.asarray(state.shared.population.precision, float)

    def of(local: Local) -> np.ndarray:
        return (T @ informed(np.asarray(local.covariance, float), prior, information) @ T.T).astype(dtype)

    return blocks.gather([of(local) for local in state.local])


def _moving(old: em.State, new: em.State, blocks: Blocks) -> float:
    """Share of the objects whose coefficients have not come to rest."""
    moving = 0
    for was, now, rows in zip(old.local, new.local, blocks.rows, strict=True):
        before, after, spread = (
            np.asarray(x)[:rows] for x in (was.coefficients, now.coefficients, now.covariance)
        )
        first, second = np.triu_indices(after.shape[1])
        moving += int((~((after - before) ** 2 <= REST**2 * spread[:, first == second])).any(1).sum())
    return float(blocks.summed(moving)) / sum(blocks.every)
