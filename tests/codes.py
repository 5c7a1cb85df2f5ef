"""Batches of codes that several test files look at, and the ways to compute a distance between them."""

import jax.numpy as jnp
import numpy as np

from asvae_jax.distance import pairwise_kernel
from asvae_jax.gaussians import Gaussian


def random_codes(seed, n, z=3, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return Gaussian(
        jnp.asarray(rng.normal(size=(n, z)), dtype), jnp.asarray(0.7 * rng.normal(size=(n, z)) - 0.5, dtype)
    )


def float32_rounding(p, q, kernel, squash=False):
    """D is made of four mean kernels, so its error scales with them and not with D: two roundings each."""
    if squash:
        p, q = Gaussian(*map(jnp.tanh, p)), Gaussian(*map(jnp.tanh, q))
    within = [float(jnp.mean(pairwise_kernel(codes, codes, kernel=kernel))) for codes in (p, q)]
    return 8 * float(np.finfo(np.float32).eps) * max(within)


def forms(kernel):
    return ["pairwise", "tiled", "grid", "auto"] if kernel == "per_dim" else ["pairwise", "tiled", "auto"]


# Those that need no bandwidth.
KERNELS = ("per_dim", "product", "prior")
FORMS = [(kernel, form) for kernel in KERNELS for form in forms(kernel)]
