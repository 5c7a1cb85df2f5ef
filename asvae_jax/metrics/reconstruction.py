"""Reconstruction measures of images in [0, 1], one number an image."""

import dm_pix
import jax
import jax.numpy as jnp

_WINDOW = 11


def mse(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Mean squared error per pixel: [B, H, W, C] twice to [B]."""
    return jnp.mean(jnp.square(images - reconstructions), axis=(1, 2, 3))


def psnr(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio 10 log10(1 / MSE) in dB, data range 1: [B, H, W, C] twice to [B]; infinite for equal
    images."""
    return -10 * jnp.log10(mse(images, reconstructions))


def ssim(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Structural similarity of Wang et al. (2004): Gaussian window of 11 x 11 pixels with sigma 1.5, population
    covariance, K = (0.01, 0.03), data range 1, averaged over the windows that lie within the image and over channels.

    Args:
      images, reconstructions: [B, H, W, C]; where an image is smaller than the window, the largest odd window that
        fits is taken.

    Returns:
      [B], at most 1.
    """
    shortest = min(images.shape[1:3])
    window = min(_WINDOW, shortest - 1 + shortest % 2)
    # A GPU would else filter in 10 bits of precision, and variances are small differences of what comes out.
    with jax.default_matmul_precision("highest"):
        return dm_pix.ssim(images, reconstructions, max_val=1.0, filter_size=window, filter_sigma=1.5, k1=0.01, k2=0.03)
