"""The model: NumPyro programs, and the noise law, priors and gauge that they are made of."""

from robusta_prob.models.factorisation import (
    hmf,
    noise_at,
    observe,
    rhmf,
    rhmf_mixture,
    rhmf_scaled,
    standing_for,
)
from robusta_prob.models.priors import sample_basis, sample_coefficients, sample_noise
from robusta_prob.models.student_t import StudentT

__all__ = [
    "hmf",
    "rhmf",
    "rhmf_mixture",
    "rhmf_scaled",
    # what a program of your own is made of
    "StudentT",
    "noise_at",
    "observe",
    "sample_basis",
    "sample_coefficients",
    "sample_noise",
    "standing_for",
]
