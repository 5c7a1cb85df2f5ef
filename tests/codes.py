"""Batches of codes that several test files look at."""

import jax.numpy as jnp
import numpy as np

from asvae_jax.gaussians import Gaussian


def random_codes(seed, n, z=3, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return Gaussian(
        jnp.asarray(rng.normal(size=(n, z)), dtype), jnp.asarray(0.7 * rng.normal(size=(n, z)) - 0.5, dtype)
    )
