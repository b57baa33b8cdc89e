"""Cheap robust starts: where the iteration begins decides where it ends.

Each start is a low-rank description of a subsample, found without any model of the noise. Wrapping
follows Raymaekers & Rousseeuw (2021), Technometrics 63, 184: a value far from its pixel's median counts
as the median.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from robusta_prob.inference.linalg import product
from robusta_prob.inference.threads import in_order

Matrix = Float[np.ndarray, "objects pixels"]
MAD_TO_SIGMA = 1.4826
SUBSETS, BEST_SUBSETS = 300, 5  # of K + 1 rows: at 40 % of foreign ones a few are clean up to K = 10
FLIPS, ABOVE_NOISE = 3, 1.1  # leading singular values of noise differ by 1 %, a basis not at rest adds 5
ROUNDS, SETTLED = 12, 1e-4  # of subspace iteration at most, and gain of any leading value that is none
NEAR, FAR = 1.5, 4.0  # wrapping: unchanged up to NEAR robust sigmas, ignored beyond FAR


class Start(NamedTuple):
    """Basis (K, M) with orthonormal rows, and the coefficients (n, K) of the subsample in it."""

    basis: Float[np.ndarray, "rank pixels"]
    coefficients: Float[np.ndarray, "objects rank"]


def wrapped_sizes(Y: Matrix, seen: Bool[np.ndarray, "objects pixels"], rank: int, seed: int) -> Start:
    """Objects divided by their robust size, wrapped pixel by pixel, normalised: survives bad columns."""
    sizes = np.maximum(_median(np.abs(Y), seen, 1), np.finfo(Y.dtype).tiny)
    X = _wrap(Y / sizes[:, None], seen)
    norms = np.linalg.norm(X, axis=1)
    basis = _principal(X / np.where(norms > 0, norms, 1.0)[:, None], rank, seed)
    return Start(basis, product(X, basis.T) * sizes[:, None])


def wrapped(Y: Matrix, seen: Bool[np.ndarray, "objects pixels"], rank: int, seed: int) -> Start:
    """Wrapped pixel by pixel, for data that share one scale or change sign."""
    X = _wrap(Y, seen)
    basis = _principal(X, rank, seed)
    return Start(basis, product(X, basis.T))


def plain(Y: Matrix, seen: Bool[np.ndarray, "objects pixels"], rank: int, seed: int) -> Start:
    """Truncated singular value decomposition with zeros for holes, the published start."""
    X = np.where(seen, Y, 0.0).astype(Y.dtype)
    basis = _principal(X, rank, seed)
    return Start(basis, product(X, basis.T))


def project_wrapped(
    Y: Matrix, seen: Bool[np.ndarray, "objects pixels"], basis: Float[np.ndarray, "rank pixels"]
) -> Start:
    """A given basis, with coefficients by least squares on the wrapped data."""
    return Start(basis, np.linalg.lstsq(basis.T, _wrap(Y, seen).T, rcond=None)[0].T)


STARTS = (wrapped_sizes, wrapped, plain)


def majority(start: Start, rank: int, seed: int) -> Start:
    """Of a start with components too many, the directions along which the majority of the objects varies.

    What only a minority does (a second kind of object, a recurring artefact) may outweigh a true component in
    the data, but not among the half of the objects whose scatter is smallest: the leading directions of its
    second moment are kept. That half is found by minimum covariance determinant (Rousseeuw & Van Driessen
    1999, Technometrics 41, 212), about zero, for the mean is part of the basis.
    """
    A = np.asarray(start.coefficients, float)
    _, vectors = np.linalg.eigh(_least_second_moment(A, np.random.default_rng(seed)))
    turn = vectors[:, ::-1][:, :rank].T.astype(start.basis.dtype)
    return Start(turn @ start.basis, start.coefficients @ turn.T)


def has_structure(residual: Matrix, seed: int) -> bool:
    """Whether objects have anything in common: their leading singular value against those with random signs.

    Signs of its own leave a cell of noise, whatever its size, what it was, and take from everything else what
    rows share (signflip parallel analysis: Hong, Sheng & Dobriban 2020, arXiv:2012.02985).
    """
    rng = np.random.default_rng(seed)

    def leading(X: Matrix) -> float:
        return float(np.linalg.norm(product(X, _principal(X, 1, seed).T)))

    flipped = (np.where(rng.random(residual.shape) < 0.5, -residual, residual) for _ in range(FLIPS))
    own, *others = in_order(leading, (residual, *flipped))
    return own > ABOVE_NOISE * max(others)


def _least_second_moment(
    A: Float[np.ndarray, "objects rank"], rng: np.random.Generator
) -> Float[np.ndarray, "rank rank"]:
    """Of the half of the rows that makes its determinant least, by concentration from many subsets."""
    n, k = A.shape
    half = (n + k + 1) // 2
    tiny = 1e-10 * np.eye(k) * (A**2).mean()

    def concentrated(moment: np.ndarray, steps: int) -> tuple[float, np.ndarray]:
        for _ in range(steps):
            distance2 = np.einsum("ij,ij->i", A @ np.linalg.inv(moment), A)
            near = A[np.argpartition(distance2, half - 1)[:half]]
            moment = near.T @ near / half + tiny
        return float(np.linalg.slogdet(moment)[1]), moment

    few = (A[rng.choice(n, min(n, k + 1), replace=False)] for _ in range(SUBSETS))
    begun = sorted((concentrated(x.T @ x / len(x) + tiny, 2) for x in few), key=lambda x: x[0])
    return min((concentrated(moment, 20) for _, moment in begun[:BEST_SUBSETS]), key=lambda x: x[0])[1]


def _wrap(Y: Matrix, seen: Bool[np.ndarray, "objects pixels"]) -> Matrix:
    centre = _median(Y, seen, 0)
    spread = MAD_TO_SIGMA * _median(np.abs(Y - centre), seen, 0)
    spread = np.maximum(spread, np.finfo(Y.dtype).tiny)
    with np.errstate(over="ignore"):
        z = np.clip((Y - centre) / spread, -FAR, FAR)
    # unchanged up to NEAR, then falling smoothly to zero at FAR
    fall = NEAR * np.cos(0.5 * np.pi * (np.abs(z) - NEAR) / (FAR - NEAR))
    z = np.where(np.abs(z) <= NEAR, z, np.sign(z) * fall)
    return (centre + np.where(seen, z, 0.0) * spread).astype(Y.dtype)


def _median(Y: Matrix, seen: Bool[np.ndarray, "objects pixels"], axis: int) -> np.ndarray:
    """Median over observed cells; 0 where there are none."""
    ordered = np.sort(np.where(seen, Y, np.inf), axis=axis)
    count = seen.sum(axis, keepdims=True)
    middle = (np.maximum(count - 1, 0) // 2, count // 2)
    low, high = (np.take_along_axis(ordered, np.minimum(m, Y.shape[axis] - 1), axis) for m in middle)
    both = np.where(count > 0, 0.5 * (np.where(count > 0, low, 0) + np.where(count > 0, high, 0)), 0)
    return both.squeeze(axis).astype(Y.dtype)


def _principal(X: Matrix, rank: int, seed: int) -> Float[np.ndarray, "rank pixels"]:
    """Leading right singular vectors by subspace iteration (Halko, Martinsson & Tropp 2011), not centred."""
    n, m = X.shape
    Q = np.random.default_rng(seed).standard_normal((m, min(rank + 10, n, m))).astype(X.dtype)
    before = np.zeros(rank)
    for _ in range(ROUNDS):
        Q = _orthonormal(product(X.T, product(X, Q))).astype(X.dtype)
        few = product(X, Q).astype(float)
        values, vectors = np.linalg.eigh(product(few.T, few))
        now = values[-rank:]
        if (now - before <= SETTLED * now).all():  # of each: the first may be nearly all of their sum
            break
        before = now
    return (vectors[:, ::-1].T.astype(X.dtype) @ Q.T)[:rank]


def _orthonormal(X: Float[np.ndarray, "pixels width"]) -> Float[np.ndarray, "pixels width"]:
    """A basis of the columns, by Cholesky factors in float64: tall QR is slow where threads contend."""
    Q = X.astype(float)
    try:
        for _ in range(2):  # the second time for what the first lost (Yamamoto et al. 2015, ETNA 44, 306)
            Q = Q / np.maximum(np.linalg.norm(Q, axis=0), np.finfo(float).tiny)
            Q = np.linalg.solve(np.linalg.cholesky(product(Q.T, Q)), Q.T).T
    except np.linalg.LinAlgError:  # columns that depend on one another
        Q, _ = np.linalg.qr(X)
    return Q
