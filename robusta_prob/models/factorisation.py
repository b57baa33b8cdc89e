"""The generative programs: Y = A G + noise, as plain NumPyro functions for SVI, NUTS or Predictive.

    a_i          ~ Normal(mu, C)                                         coefficients, i = 1..N
    G            ~ weak Normal prior on every entry                      basis, K x M
    y_ij | a, G  ~ StudentT(nu, sum_k a_ik g_kj, s sqrt(sigma_ij^2 + f^2))   where ivar_ij > 0

or, for a share eps of the cells, a much wider Cauchy, see `models.noise`.

The four programs share these lines and differ in the noise only. Sites: "basis" (K, M), "coefficients"
(N, K), "nu", "scale", "floor", "contamination", "width", "flux" (N, M); the flux has the plates "objects" and
"pixels". Given a minibatch and the `size` of the whole survey, what belongs to objects counts size / N times:
the log density is then an unbiased estimate of the survey's.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float

from robusta_prob.models.noise import Noise, NoiseLaw
from robusta_prob.models.priors import Prior, sample_basis, sample_coefficients, sample_noise
from robusta_prob.models.student_t import StudentT

Matrix = Float[Array, "objects pixels"]


def rhmf(
    flux: Matrix | None,
    ivar: Matrix,
    *,
    rank: int,
    noise: Noise | None = None,
    prior: Prior | None = None,
    size: int | None = None,
) -> Matrix:
    """Robust heteroskedastic matrix factorisation: the Student-t program.

    Parameters
    ----------
    flux : (N, M) array or None
        Measurements; None draws them from the prior.
    ivar : (N, M) array
        Inverse variances in units of flux^-2; cells with 0 are missing and do not count.
    rank : int
        Number of basis vectors K.
    noise : Noise, optional
        Which of nu, scale, floor, contamination are given; the others are sampled. Default: all sampled.
    prior : Prior, optional
        Population of the coefficients and scale of the basis.
    size : int, optional
        Number of objects of the whole survey, where flux and ivar are a minibatch of it. Default: N.

    Returns
    -------
    (N, M) array
        The site "flux": the measurements, or the draw.

    References
    ----------
    Hilder, Hogg, Casey & Rix, "Robust Heteroskedastic Matrix Factorization"; Tsalmantza & Hogg (2012),
    ApJ 753, 122, for the Gaussian case.

    Examples
    --------
    >>> import jax, numpy as np, robusta_prob as rp
    >>> from numpyro.infer import Predictive
    >>> draw = Predictive(rp.models.rhmf, num_samples=1)
    >>> draw(jax.random.key(0), None, np.ones((5, 20)), rank=2)["flux"].shape
    (1, 5, 20)
    """
    model, law = _mean_and_noise(flux, ivar, rank, noise, prior, size)
    return observe(flux, ivar, noise_at(model, ivar, law), size)


def hmf(
    flux: Matrix | None,
    ivar: Matrix,
    *,
    rank: int,
    noise: Noise | None = None,
    prior: Prior | None = None,
    size: int | None = None,
) -> Matrix:
    """Gaussian heteroskedastic matrix factorisation: `rhmf` at nu = infinity, whatever `noise` says of nu."""
    noise = (noise or Noise())._replace(nu=math.inf, contamination=0.0)
    model, law = _mean_and_noise(flux, ivar, rank, noise, prior, size)
    return observe(flux, ivar, dist.Normal(model, _sigma(ivar, law)), size)


def rhmf_mixture(
    flux: Matrix | None,
    ivar: Matrix,
    *,
    rank: int,
    noise: Noise | None = None,
    prior: Prior | None = None,
    size: int | None = None,
) -> Matrix:
    """The scale mixture: `rhmf` with a latent precision per cell, the same after marginalising it.

    Site "precision" (N, M) ~ Gamma(nu/2, nu/2), or for bad cells Gamma(1/2, (1 + (width/sigma)^2)/2); flux ~
    Normal(mean, sigma / sqrt(precision)). Arguments as in `rhmf`; needs a finite nu.
    """
    if noise is not None and noise.nu is not None and math.isinf(noise.nu):
        raise ValueError("rhmf_mixture needs a finite nu; with nu = inf every precision is 1: use hmf")
    model, law = _mean_and_noise(flux, ivar, rank, noise, prior, size)
    sigma, half_df = _sigma(ivar, law), jnp.broadcast_to(0.5 / law.inverse_df, model.shape)
    shares = jnp.stack([1.0 - law.contamination, law.contamination])
    rates = jnp.stack([half_df, 0.5 + 0.5 * (law.width / sigma) ** 2], -1)
    parts = dist.Gamma(jnp.stack([half_df, jnp.full_like(half_df, 0.5)], -1), rates)
    cell = dist.MixtureSameFamily(dist.Categorical(shares), parts)
    objects, pixels = _plates(*model.shape)
    with standing_for(model.shape[0], size), objects, pixels:
        precision = numpyro.sample("precision", cell.mask(ivar > 0))
    return observe(flux, ivar, dist.Normal(model, sigma / jnp.sqrt(precision)), size)


def rhmf_scaled(
    flux: Matrix | None,
    ivar: Matrix,
    *,
    rank: int,
    noise: Noise | None = None,
    prior: Prior | None = None,
    size: int | None = None,
    spread: float = 0.5,
) -> Matrix:
    """`rhmf` with a latent scale per object, for errors that are wrong by a factor of their own.

    Site "object_scale" (N,) ~ LogNormal(0, spread) multiplies the noise of every pixel of the object.
    Other arguments as in `rhmf`.
    """
    model, law = _mean_and_noise(flux, ivar, rank, noise, prior, size)
    each = dist.LogNormal(0.0, spread).expand([model.shape[0]]).to_event(1)
    with standing_for(model.shape[0], size):
        scale = numpyro.sample("object_scale", each)
    return observe(flux, ivar, noise_at(model, ivar, law._replace(scale=law.scale * scale[:, None])), size)


def standing_for(objects: int, size: int | None) -> numpyro.handlers.scale:
    """Context in which what belongs to these objects counts for a survey of `size` of them."""
    return numpyro.handlers.scale(scale=1.0 if size is None else size / objects)


def noise_at(mean: Matrix, ivar: Matrix, law: NoiseLaw) -> StudentT:
    """The noise law of cells with these means and given errors; it may be multiplied per object or pixel."""
    return StudentT(law.inverse_df, mean, _sigma(ivar, law), law.contamination, law.width)


def observe(flux: Matrix | None, ivar: Matrix, law: dist.Distribution, size: int | None = None) -> Matrix:
    """Site "flux" with its plates: the observed cells follow `law`, of batch shape (N, M)."""
    seen = jnp.asarray(ivar) > 0
    safe = None if flux is None else jnp.where(seen, flux, 0.0)
    objects, pixels = _plates(*jnp.shape(ivar))
    with standing_for(len(seen), size), objects, pixels:
        return numpyro.sample("flux", law.mask(seen), obs=safe)


def _mean_and_noise(
    flux: Matrix | None,
    ivar: Matrix,
    rank: int,
    noise: Noise | None,
    prior: Prior | None,
    size: int | None,
) -> tuple[Matrix, NoiseLaw]:
    objects, pixels = jnp.shape(ivar)
    prior = prior or Prior()
    if flux is None and prior.is_flat:
        raise ValueError(
            "a flat prior cannot be drawn from: give the flux, or a proper prior such as Prior()"
        )
    law = sample_noise(noise or Noise(), pixels)
    basis = sample_basis(rank, pixels, prior)
    with standing_for(objects, size):
        coefficients = sample_coefficients(objects, rank, pixels, prior)
    return coefficients @ basis, law


def _sigma(ivar: Matrix, law: NoiseLaw) -> Matrix:
    """Noise per cell; 1 where missing, so that masked cells have finite gradients."""
    variance = 1.0 / jnp.where(ivar > 0, ivar, 1.0)
    return law.scale * jnp.sqrt(variance + law.floor**2)


def _plates(objects: int, pixels: int) -> tuple[numpyro.plate, numpyro.plate]:
    return numpyro.plate("objects", objects, dim=-2), numpyro.plate("pixels", pixels, dim=-1)
