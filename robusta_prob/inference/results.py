"""What a fit is: immutable, on the host, in the user's units."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Shaped

from robusta_prob.data import Dataset
from robusta_prob.inference.iterate import Epoch, Status
from robusta_prob.models.noise import NoiseLaw


class PopulationLaw(NamedTuple):
    """Normal(mean, covariance) of the coefficients, estimated with robust weights of the objects."""

    mean: Float[np.ndarray, " rank"]
    covariance: Float[np.ndarray, "rank rank"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A learned factorisation Y = A G + noise, in the gauge of `models.gauge`.

    Coefficients and floors are in the user's flux unit, covariances in its square, the basis is
    dimensionless. Covariances are sandwich estimates: they hold also where the fitted loss is not the
    noise law.
    """

    basis: Float[np.ndarray, "rank pixels"]  # orthonormal rows; 0 at pixels never observed in training
    coefficients: Float[np.ndarray, "objects rank"]
    coefficient_covariance: Float[np.ndarray, "objects rank rank"]
    basis_covariance: Float[np.ndarray, "pixels rank rank"]  # of the column g_j, per pixel
    loss: NoiseLaw  # the robust loss that was fitted; with the published setting a threshold, not a noise law
    noise: NoiseLaw  # the noise law, always learned from the residuals; used for scores
    information: float  # sandwich factor on the loss' Grams: true information / naive information
    population: PopulationLaw
    flat_prior: bool  # whether coefficients were fitted without the population as their prior
    moments: Float[np.ndarray, " rank"]  # second moment of each coefficient, descending
    near_equal: tuple[int, ...]  # k where components k and k+1 cannot be told apart by their moments
    trained: Bool[np.ndarray, " pixels"]  # pixels observed in training; others are unknown to the fit
    ids: Shaped[np.ndarray, " objects"]  # of the training objects
    fingerprints: Shaped[np.ndarray, " objects"]  # of the training objects' flux, see `fingerprints`
    grid: Float[np.ndarray, " pixels"]
    grid_name: str
    flux_name: str
    unit: float  # power of two, in the user's unit, in which the fit was computed
    history: tuple[Epoch, ...]
    status: Status
    config: Mapping[str, Any]

    @property
    def rank(self) -> int:
        """Number of basis vectors K."""
        return len(self.basis)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the data that were fitted."""
        return np.dtype(self.basis.dtype)

    def __repr__(self) -> str:
        n, k = self.coefficients.shape
        return (
            f"Fit({n:,} objects x {self.basis.shape[1]:,} pixels, rank {k}, {self.status.code}; "
            f"noise nu={self.noise.nu:.3g}, scale={self.noise.scale:.3g}, "
            f"floor={self.noise.typical_floor:.3g})"
        )


def fingerprints(data: Dataset, unit: float, dtype: np.dtype) -> Shaped[np.ndarray, " objects"]:
    """CRC-32 of every object's flux: an id that recurs in another survey is another object."""
    sums = np.empty(data.shape[0], np.uint32)
    for here, flux, _ in data.blocks(1024, unit):
        sums[here] = fingerprints_of(flux.astype(dtype), here.stop - here.start)
    return sums


def fingerprints_of(flux: ArrayLike, rows: int) -> Shaped[np.ndarray, " rows"]:
    """CRC-32 of the first rows."""
    return np.array([zlib.crc32(row.tobytes()) for row in np.asarray(flux)[:rows]], np.uint32)


def in_training(fit: Fit, data: Dataset) -> Bool[np.ndarray, " objects"]:
    """Which objects the fit was trained on: the same id and the same flux, never the same position."""
    known = dict(zip(fit.ids.tolist(), fit.fingerprints.tolist(), strict=True))
    marks = fingerprints(data, fit.unit, fit.dtype).tolist()
    return np.array(
        [known.get(name) == mark for name, mark in zip(data.ids.tolist(), marks, strict=True)], bool
    )


class Origin(NamedTuple):
    """Of which fit and of which numbers a result is: ids alone may recur."""

    fit: int  # CRC-32 of its basis and loss
    fingerprints: Shaped[np.ndarray, " objects"]  # of the fluxes, hidden ones being 0
    unit: float  # and dtype, in which these were taken
    dtype: str

    def take(self, rows: Shaped[np.ndarray, " some"]) -> Origin:
        """Of some of the objects."""
        return self._replace(fingerprints=self.fingerprints[rows])


def mark_of(fit: Fit) -> int:
    """CRC-32 of what a projection depends on."""
    law = np.concatenate([np.ravel(np.asarray(x, float)) for x in fit.loss])
    return zlib.crc32(law.tobytes(), zlib.crc32(np.ascontiguousarray(fit.basis).tobytes()))


class Projection(NamedTuple):
    """Coefficients of objects on a given basis, in the user's flux unit."""

    coefficients: Float[np.ndarray, "objects rank"]
    covariance: Float[np.ndarray, "objects rank rank"]
    ids: Shaped[np.ndarray, " objects"]
    origin: Origin | None = None  # None: made by hand

    def take(self, rows: Shaped[np.ndarray, " some"]) -> Projection:
        """Some of the objects, perhaps repeatedly."""
        coefficients, covariance, ids = (values[rows] for values in self[:3])
        return Projection(coefficients, covariance, ids, self.origin and self.origin.take(rows))

    @staticmethod
    def joined(parts: Sequence[Projection]) -> Projection:
        """Projections of parts of a survey, on one fit, as that of all their objects.

        Raises
        ------
        ValueError
            If there are none, or they are of different fits.
        """
        if not parts:
            raise ValueError("there is no projection to join")
        origins = [part.origin for part in parts]
        known = [origin for origin in origins if origin is not None]
        if len({(origin.fit, origin.unit, origin.dtype) for origin in known}) > 1:
            raise ValueError("these projections are of different fits: project all objects on one of them")
        origin = None
        if len(known) == len(parts):
            origin = known[0]._replace(fingerprints=np.concatenate([one.fingerprints for one in known]))
        coefficients, covariance, ids = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return Projection(coefficients, covariance, ids, origin)
