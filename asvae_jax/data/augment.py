"""From stored pixels to what a network sees, on the device."""

import jax
import jax.numpy as jnp

from asvae_jax.settings import ImageData

# Names the mirroring's random stream within the run's key, as `toys` does for its data.
_FLIP_STREAM = 0xF11B


def training_images(data: ImageData, pixels: jax.Array, key: jax.Array, step: jax.typing.ArrayLike) -> jax.Array:
    """What a network sees of a batch, float32 [B, H, W, C] in `data.value_range`, from uint8 pixels: scaled, and
    each mirrored with probability 1/2 if `data.flip`, which ones by the run's key and the step alone."""
    if data.flip:
        key = jax.random.fold_in(jax.random.fold_in(key, _FLIP_STREAM), step)
        mirrored = jax.random.bernoulli(key, shape=(pixels.shape[0],))
        pixels = jnp.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    return to_value_range(data, pixels.astype(jnp.float32) / 255)


def to_value_range(data: ImageData, images: jax.Array) -> jax.Array:
    """Images in [0, 1] as networks see them."""
    low, high = data.value_range
    return images * (high - low) + low


def from_value_range(data: ImageData, images: jax.Array) -> jax.Array:
    """The inverse."""
    low, high = data.value_range
    return (images - low) / (high - low)
