"""The five 2-D toys, drawn on the device: 8 Gaussians, 2 spirals, checkerboard, rings (arXiv 2012.13253) and 25
Gaussians."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Names the data's random stream within the run's key. JAX's split(k)[i] is fold_in(k, i), so the noise of step 0x2D70 =
# 11,632 has the keys of the data of steps 0 to 6; as their shapes and uses differ, that is left as it is.
_DATA_STREAM = 0x2D70


class Mixture(NamedTuple):
    """A mixture of Gaussians of equal shares.

    Fields:
      centres: [modes, 2].
      width: the standard deviation of every mode, along both axes.
    """

    centres: np.ndarray
    width: float


def _ring_of_8() -> np.ndarray:
    angles = np.arange(8) * (2 * np.pi / 8)
    return 2 / 1.414 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _grid_of_25() -> np.ndarray:
    axis = np.arange(-4, 5, 2) * (2 / 2.828)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


MIXTURES = {
    "8gaussians": Mixture(_ring_of_8(), 0.02 / 1.414),
    "25gaussians": Mixture(_grid_of_25(), 0.05 * 2 / 2.828),
}
"""The toys whose modes can be counted."""


def _from_mixture(mixture: Mixture) -> Callable[[jax.Array, int], jax.Array]:
    def draw(key: jax.Array, n: int) -> jax.Array:
        which, noise = jax.random.split(key)
        centres = jnp.asarray(mixture.centres, jnp.float32)
        of_modes = centres[jax.random.randint(which, (n,), 0, len(centres))]
        return of_modes + mixture.width * jax.random.normal(noise, (n, 2))

    return draw


def _two_spirals(key: jax.Array, n: int) -> jax.Array:
    turn, jitter, arm, noise = jax.random.split(key, 4)
    angle = jnp.sqrt(jax.random.uniform(turn, (n,))) * 3 * math.pi
    x, y = -jnp.cos(angle) * angle, jnp.sin(angle) * angle
    points = (jnp.stack([x, y], axis=1) + 0.5 * jax.random.uniform(jitter, (n, 2))) / 3
    sign = jnp.where(jax.random.bernoulli(arm, 0.5, (n, 1)), 1.0, -1.0)
    return sign * points + 0.1 * jax.random.normal(noise, (n, 2))


def _checkerboard(key: jax.Array, n: int) -> jax.Array:
    first, second, shift = jax.random.split(key, 3)
    x1 = 4 * jax.random.uniform(first, (n,)) - 2
    x2 = jax.random.uniform(second, (n,)) - 2 * jax.random.bernoulli(shift, 0.5, (n,)) + jnp.floor(x1) % 2
    return 2 * jnp.stack([x1, x2], axis=1)


def _rings(key: jax.Array, n: int) -> jax.Array:
    turn, which, noise = jax.random.split(key, 3)
    angle = 2 * math.pi * jax.random.uniform(turn, (n,))
    radius = 3 * 0.25 * jax.random.randint(which, (n,), 1, 5)
    points = radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    return points + 0.08 * jax.random.normal(noise, (n, 2))


TOYS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "8gaussians": _from_mixture(MIXTURES["8gaussians"]),
    "2spirals": _two_spirals,
    "checkerboard": _checkerboard,
    "rings": _rings,
    "25gaussians": _from_mixture(MIXTURES["25gaussians"]),
}


def draw(name: str, key: jax.Array, n: int) -> jax.Array:
    """`n` points of a toy, float32 [n, 2]."""
    return TOYS[name](key, n)


def training_batch(name: str, key: jax.Array, step: jax.typing.ArrayLike, batch_size: int) -> jax.Array:
    """The batch of a training step [B, 2]: a pure function of the run's key and the step."""
    return draw(name, jax.random.fold_in(jax.random.fold_in(key, _DATA_STREAM), step), batch_size)
