"""The model: NumPyro programs, and the noise law, priors and gauge that they are made of."""

from robusta_prob.models.factorisation import hmf, rhmf, rhmf_mixture, rhmf_scaled

__all__ = ["hmf", "rhmf", "rhmf_mixture", "rhmf_scaled"]
