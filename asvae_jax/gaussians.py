"""Diagonal Gaussians: the codes that encoders return. Arithmetic is float32 at least, whatever the inputs are."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Gaussian(NamedTuple):
    """A diagonal Gaussian N(mean, exp(logvar)); both fields have shape [..., Z]."""

    mean: jax.Array
    logvar: jax.Array


def in_full_precision(q: Gaussian) -> Gaussian:
    """`q` with both fields in float32 (float64 stays float64): divergences of bfloat16 codes lose most of their
    digits."""
    dtype = jnp.promote_types(jnp.result_type(q.mean, q.logvar), jnp.float32)
    return Gaussian(jnp.asarray(q.mean, dtype), jnp.asarray(q.logvar, dtype))


def kl_to_standard_normal(q: Gaussian) -> jax.Array:
    """KL(q || N(0, I)) in nats, summed over Z (Kingma and Welling, arXiv 1312.6114, appendix B).

    Args:
      q: fields [..., Z].

    Returns:
      [...], non-negative.
    """
    mean, logvar = in_full_precision(q)
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.expm1(logvar) - logvar, axis=-1)


def sample(q: Gaussian, eps: jax.Array) -> jax.Array:
    """The reparametrised draw mean + exp(logvar / 2) * eps.

    Args:
      q: fields [..., Z].
      eps: standard normal noise [..., Z].

    Returns:
      [..., Z].
    """
    mean, logvar = in_full_precision(q)
    return mean + jnp.exp(0.5 * logvar) * eps


def log_density(q: Gaussian, z: jax.Array) -> jax.Array:
    """log q(z) in nats, summed over Z; `z` and the fields of `q` are [..., Z], the result is [...]."""
    mean, logvar = in_full_precision(q)
    return -0.5 * jnp.sum(jnp.log(2 * jnp.pi) + logvar + jnp.square(z - mean) * jnp.exp(-logvar), axis=-1)


def squash(q: Gaussian) -> Gaussian:
    """tanh of mean and of logvar: means within +-1 and variances within [1/e, e], so that no kernel of `q` is
    unbounded."""
    mean, logvar = in_full_precision(q)
    return Gaussian(jnp.tanh(mean), jnp.tanh(logvar))
