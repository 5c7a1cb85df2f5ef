"""The Inception network of 2015-12-05 that FID is defined by, in Flax, up to its pooled features.

It is Inception v3 (arXiv 1512.00567) with quirks of the TensorFlow graph that the weights were published in: average
pooling leaves the border out of the mean, and the last block pools by maximum. Modules bear the names of the PyTorch
port, so that a converted weight can be found in both. Images come as the graph wants them: 299 x 299, in [-1, 1].
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SIDE = 299
FEATURES = 2048

Resampling = Literal["half_pixel", "corner", "antialiased"]


def resize(images: jax.Array, resampling: Resampling) -> jax.Array:
    """To 299 x 299: [B, H, W, C] to [B, 299, 299, C].

    "half_pixel" interpolates linearly, without antialiasing, between pixels that have their values at their centres, as
    PyTorch does (align_corners=False) and `pytorch-fid` with it; "corner" between values at the upper left corners, as
    the published TensorFlow graph does. "antialiased" is Pillow's bicubic filter, which `clean-fid` uses; it may leave
    the range of the pixels.
    """
    rows, columns = (_interpolation(size, resampling) for size in images.shape[1:3])
    return jnp.einsum("oh,bhwc,pw->bopc", rows, images, columns, precision=jax.lax.Precision.HIGHEST)


def _interpolation(size: int, resampling: Resampling) -> np.ndarray:
    """Weights [299, size] of each old row in each new one. Past the border the outermost row goes on, or, antialiased,
    the others have its weight."""
    middle = 0.0 if resampling == "corner" else 0.5
    at = (np.arange(SIDE) + middle) * (size / SIDE) - middle
    if resampling == "antialiased":
        weights = _keys((at[:, None] - np.arange(size)) / max(size / SIDE, 1.0))
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    at = np.clip(at, 0, size - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size))).astype(np.float32)


def _keys(x: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel of Keys (1981) with a = -1/2, which ends at 2."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


class Inception(nn.Module):
    """Images [B, 299, 299, 3] in [-1, 1] to features [B, 2048].

    With `batch_statistics` every normalisation uses the statistics of the batch that it is given, as if the network
    were being trained: the protocol fault behind S-IntroVAE's published FIDs, kept to remake them by.

    The outputs of the blocks are noted under "intermediates", for comparison with other implementations.
    """

    batch_statistics: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = partial(_ConvNorm, batch_statistics=self.batch_statistics)
        x = conv(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = conv(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = conv(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = _max_pool_halving(x)
        x = conv(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = conv(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = _max_pool_halving(x)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = _BlockA(self.batch_statistics, name=name, pooled=pooled)(x)
        x = _BlockB(self.batch_statistics, name="Mixed_6a")(x)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = _BlockC(self.batch_statistics, name=name, inner=inner)(x)
        x = _BlockD(self.batch_statistics, name="Mixed_7a")(x)
        x = _BlockE(self.batch_statistics, name="Mixed_7b", pool=_average_pool)(x)
        x = _BlockE(self.batch_statistics, name="Mixed_7c", pool=_max_pool)(x)
        return jnp.mean(x, axis=(1, 2))


class _ConvNorm(nn.Module):
    """Convolution without bias, normalisation, ReLU."""

    features: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"
    batch_statistics: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(
            self.features, self.kernel, self.stride, self.padding, use_bias=False,
            precision=jax.lax.Precision.HIGHEST, name="conv",
        )(x)  # fmt: skip
        x = nn.BatchNorm(
            use_running_average=not self.batch_statistics, epsilon=1e-3, use_fast_variance=False, name="bn"
        )(x)
        x = nn.relu(x)
        self.sow("intermediates", "out", x)
        return x


class _Block(nn.Module):
    batch_statistics: bool

    def conv(self, name: str, features: int, kernel: tuple[int, int], stride: int = 1, padding: str = "SAME"):
        return _ConvNorm(features, kernel, stride, padding, self.batch_statistics, name=name)


class _BlockA(_Block):
    """1x1, 5x5 and two 3x3 beside each other, at 35 x 35."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = self.conv("branch1x1", 64, (1, 1))(x)
        five = self.conv("branch5x5_1", 48, (1, 1))(x)
        five = self.conv("branch5x5_2", 64, (5, 5))(five)
        double = self.conv("branch3x3dbl_1", 64, (1, 1))(x)
        double = self.conv("branch3x3dbl_2", 96, (3, 3))(double)
        double = self.conv("branch3x3dbl_3", 96, (3, 3))(double)
        pool = self.conv("branch_pool", self.pooled, (1, 1))(_average_pool(x))
        return jnp.concatenate([one, five, double, pool], axis=-1)


class _BlockB(_Block):
    """From 35 x 35 to 17 x 17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = self.conv("branch3x3", 384, (3, 3), 2, "VALID")(x)
        double = self.conv("branch3x3dbl_1", 64, (1, 1))(x)
        double = self.conv("branch3x3dbl_2", 96, (3, 3))(double)
        double = self.conv("branch3x3dbl_3", 96, (3, 3), 2, "VALID")(double)
        return jnp.concatenate([three, double, _max_pool_halving(x)], axis=-1)


class _BlockC(_Block):
    """7x7 in parts of 1x7 and 7x1, at 17 x 17."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = self.conv("branch1x1", 192, (1, 1))(x)
        seven = self.conv("branch7x7_1", self.inner, (1, 1))(x)
        seven = self.conv("branch7x7_2", self.inner, (1, 7))(seven)
        seven = self.conv("branch7x7_3", 192, (7, 1))(seven)
        double = self.conv("branch7x7dbl_1", self.inner, (1, 1))(x)
        double = self.conv("branch7x7dbl_2", self.inner, (7, 1))(double)
        double = self.conv("branch7x7dbl_3", self.inner, (1, 7))(double)
        double = self.conv("branch7x7dbl_4", self.inner, (7, 1))(double)
        double = self.conv("branch7x7dbl_5", 192, (1, 7))(double)
        pool = self.conv("branch_pool", 192, (1, 1))(_average_pool(x))
        return jnp.concatenate([one, seven, double, pool], axis=-1)


class _BlockD(_Block):
    """From 17 x 17 to 8 x 8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = self.conv("branch3x3_1", 192, (1, 1))(x)
        three = self.conv("branch3x3_2", 320, (3, 3), 2, "VALID")(three)
        seven = self.conv("branch7x7x3_1", 192, (1, 1))(x)
        seven = self.conv("branch7x7x3_2", 192, (1, 7))(seven)
        seven = self.conv("branch7x7x3_3", 192, (7, 1))(seven)
        seven = self.conv("branch7x7x3_4", 192, (3, 3), 2, "VALID")(seven)
        return jnp.concatenate([three, seven, _max_pool_halving(x)], axis=-1)


class _BlockE(_Block):
    """3x3 in parts of 1x3 and 3x1 that are kept apart, at 8 x 8; `pool` differs between the two of its kind."""

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = self.conv("branch1x1", 320, (1, 1))(x)
        three = self.conv("branch3x3_1", 384, (1, 1))(x)
        double = self.conv("branch3x3dbl_1", 448, (1, 1))(x)
        double = self.conv("branch3x3dbl_2", 384, (3, 3))(double)
        parts = [
            one,
            self.conv("branch3x3_2a", 384, (1, 3))(three),
            self.conv("branch3x3_2b", 384, (3, 1))(three),
            self.conv("branch3x3dbl_3a", 384, (1, 3))(double),
            self.conv("branch3x3dbl_3b", 384, (3, 1))(double),
            self.conv("branch_pool", 192, (1, 1))(self.pool(x)),
        ]
        return jnp.concatenate(parts, axis=-1)


def _max_pool_halving(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2))


def _max_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), padding="SAME")


def _average_pool(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)
