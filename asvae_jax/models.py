"""Networks in Flax linen: the papers' residual encoder and decoder, the toys' MLPs, and the critic.

Both papers (arXiv 2206.13903 and 2012.13253) use the same image networks and train them from the initialisation of
their framework: kernels and biases uniform within 1 / sqrt(fan-in), which is kept here.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from asvae_jax.gaussians import Gaussian
from asvae_jax.settings import Config, ConvModel, MlpModel, WganGp

Params = Any
Statistics = Any

_PROBES = 4096
"""Latents by which the linear part of an initial decoder is found."""

_kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _bias_init(fan_in: int) -> Callable[..., jax.Array]:
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, minval=-1.0, maxval=1.0) / math.sqrt(fan_in)

    return init


def _dense(features: int, x: jax.Array, dtype: jnp.dtype, name: str | None = None) -> jax.Array:
    layer = nn.Dense(features, dtype=dtype, kernel_init=_kernel_init, bias_init=_bias_init(x.shape[-1]), name=name)
    return layer(x)


class Norm(nn.Module):
    """Batch, group or no normalisation.

    Batch norm uses the statistics of the very batch that it is given, and notes them (momentum 0) for `calibrate` to
    average; with `calibrated` it uses the stored ones.
    """

    kind: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, calibrated: bool) -> jax.Array:
        if self.kind == "batch":
            # The one-pass variance is safe here: what a convolution puts out has a mean no larger than its spread.
            return nn.BatchNorm(use_running_average=calibrated, momentum=0.0, epsilon=1e-5, dtype=self.dtype)(x)
        if self.kind == "group":
            return nn.GroupNorm(num_groups=math.gcd(32, x.shape[-1]), epsilon=1e-5, dtype=self.dtype)(x)
        return x


class ResidualBlock(nn.Module):
    """conv3x3 - norm - LeakyReLU - conv3x3 - norm, plus the input (through a 1x1 convolution if the channels change),
    LeakyReLU."""

    features: int
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, calibrated: bool) -> jax.Array:
        conv = partial(nn.Conv, self.features, use_bias=False, dtype=self.dtype, kernel_init=_kernel_init)
        y = conv((3, 3), name="conv1")(x)
        y = nn.leaky_relu(Norm(self.norm, self.dtype, name="norm1")(y, calibrated), 0.2)
        y = conv((3, 3), name="conv2")(y)
        y = Norm(self.norm, self.dtype, name="norm2")(y, calibrated)
        if x.shape[-1] != self.features:
            x = conv((1, 1), name="shortcut")(x)
        return nn.leaky_relu(x + y, 0.2)


def _halve(x: jax.Array) -> jax.Array:
    """Average pooling by 2; an odd last row or column is averaged with nothing."""
    return nn.avg_pool(x, (2, 2), strides=(2, 2), padding="SAME", count_include_pad=False)


def _double(x: jax.Array, height: int, width: int) -> jax.Array:
    """Nearest-neighbour doubling, cut to the size that `_halve` came from."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :height, :width]


class ConvTrunk(nn.Module):
    """Images [B, H, W, C] to features [B, F]."""

    channels: tuple[int, ...]
    norm: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, calibrated: bool) -> jax.Array:
        x = nn.Conv(self.channels[0], (5, 5), use_bias=False, dtype=self.dtype, kernel_init=_kernel_init, name="stem")(
            x
        )
        x = nn.leaky_relu(Norm(self.norm, self.dtype, name="stem_norm")(x, calibrated), 0.2)
        x = _halve(x)
        for i, features in enumerate(self.channels[1:]):
            x = _halve(ResidualBlock(features, self.norm, self.dtype, name=f"block{i}")(x, calibrated))
        x = ResidualBlock(self.channels[-1], self.norm, self.dtype, name="last_block")(x, calibrated)
        return x.reshape(x.shape[0], -1)


class MlpTrunk(nn.Module):
    """Points [B, 2] or codes [B, Z] to features [B, F]."""

    widths: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, calibrated: bool) -> jax.Array:
        for i, width in enumerate(self.widths):
            x = nn.relu(_dense(width, x, self.dtype, name=f"layer{i}"))
        return x


def _trunk(model: ConvModel | MlpModel, norm: str | None = None) -> nn.Module:
    dtype = jnp.dtype(model.compute_dtype)
    if isinstance(model, MlpModel):
        return MlpTrunk(model.widths, dtype, name="trunk")
    return ConvTrunk(model.channels, norm or model.norm, dtype, name="trunk")


class Encoder(nn.Module):
    """Images [B, ...] to the Gaussian of their codes, float32 [B, Z]."""

    model: ConvModel | MlpModel

    @nn.compact
    def __call__(self, images: jax.Array, calibrated: bool = False) -> Gaussian:
        features = _trunk(self.model)(images, calibrated).astype(jnp.float32)
        mean, logvar = jnp.split(_dense(2 * self.model.latent_dim, features, jnp.float32, name="head"), 2, axis=-1)
        low, high = self.model.logvar_range
        return Gaussian(mean, jnp.clip(logvar, low, high))


class Critic(nn.Module):
    """Images [B, ...] to scores [B]: the encoder's trunk without batch norm, which would make a score depend on its
    neighbours."""

    model: ConvModel | MlpModel

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        norm = "group" if isinstance(self.model, ConvModel) and self.model.norm == "group" else "none"
        features = _trunk(self.model, norm)(images, False).astype(jnp.float32)
        return _dense(1, features, jnp.float32, name="head")[:, 0]


class ConvDecoder(nn.Module):
    """Codes [B, Z] to images [B, H, W, C], float32 with a linear output."""

    model: ConvModel
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: jax.Array, calibrated: bool = False) -> jax.Array:
        channels, norm, dtype = self.model.channels, self.model.norm, jnp.dtype(self.model.compute_dtype)
        height, width, colours = self.shape
        sizes = [(height, width)]
        for _ in channels:
            sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
        x = nn.relu(_dense(math.prod(sizes[-1]) * channels[-1], z.astype(dtype), dtype, name="head"))
        x = x.reshape(-1, *sizes[-1], channels[-1])
        for i, features in enumerate(reversed(channels)):
            x = ResidualBlock(features, norm, dtype, name=f"block{i}")(x, calibrated)
            x = _double(x, *sizes[-2 - i])
        x = ResidualBlock(channels[0], norm, dtype, name="last_block")(x, calibrated)
        bias_init = _bias_init(25 * channels[0])
        x = nn.Conv(colours, (5, 5), dtype=dtype, kernel_init=_kernel_init, bias_init=bias_init, name="output")(x)
        return x.astype(jnp.float32)


class MlpDecoder(nn.Module):
    """Codes [B, Z] to points [B, 2]."""

    model: MlpModel
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: jax.Array, calibrated: bool = False) -> jax.Array:
        features = _trunk(self.model)(z, calibrated).astype(jnp.float32)
        return _dense(self.shape[0], features, jnp.float32, name="head")


class Networks(NamedTuple):
    """The two networks of a config as pure functions of their parameters.

    `statistics` are calibrated batch-norm statistics; without them every call normalises by its own batch.
    """

    encoder: Encoder | Critic
    decoder: ConvDecoder | MlpDecoder
    example_shape: tuple[int, ...]
    latent_dim: int

    def init(self, key: jax.Array) -> dict[str, Params]:
        """Parameters {"encoder", "decoder"}, float32."""
        encoder_key, decoder_key = jax.random.split(key)
        encoder = self.encoder.init(encoder_key, jnp.zeros((2, *self.example_shape)))["params"]
        decoder = self.decoder.init(decoder_key, jnp.zeros((2, self.latent_dim)))["params"]
        if isinstance(self.decoder, MlpDecoder) and self.decoder.model.initial_gain:
            decoder = _begin_near_a_similarity(self.decoder.model, decoder, jax.random.fold_in(decoder_key, 0))
        return {"encoder": encoder, "decoder": decoder}

    def encode(self, params: Params, images: jax.Array, statistics: Statistics | None = None) -> Gaussian:
        """Codes of images [B, ...]."""
        return _apply(self.encoder, params, images, statistics)

    def decode(self, params: Params, z: jax.Array, statistics: Statistics | None = None) -> jax.Array:
        """Images [B, ...] of codes [B, Z]; about in `data.value_range`, not clipped."""
        return _apply(self.decoder, params, z, statistics)

    def critic(self, params: Params, images: jax.Array) -> jax.Array:
        """Scores [B] of images [B, ...], where the encoder's place is taken by a critic."""
        scores: jax.Array = self.encoder.apply({"params": params}, images)  # type: ignore[assignment]
        return scores


# A program that calls a network several times at one shape traces it once.
@partial(jax.jit, static_argnums=0)
def _apply(network: nn.Module, params: Params, inputs: jax.Array, statistics: Statistics | None) -> Any:
    if statistics is not None:
        return network.apply({"params": params, "batch_stats": statistics}, inputs, calibrated=True)
    outputs, _ = network.apply({"params": params}, inputs, mutable=["batch_stats"])
    return outputs


def measure_statistics(network: nn.Module, params: Params, inputs: jax.Array) -> tuple[Any, Statistics]:
    """(outputs, the batch-norm statistics of this very batch); the statistics are {} for a network without batch
    norm."""
    outputs, variables = network.apply({"params": params}, inputs, mutable=["batch_stats"])
    return outputs, variables.get("batch_stats", {})


def make_networks(config: Config) -> Networks:
    """The encoder (for WGAN-GP the critic) and decoder that a config asks for."""
    encoder = Critic(config.model) if isinstance(config.method, WganGp) else Encoder(config.model)
    shape = config.example_shape
    decoder = (
        ConvDecoder(config.model, shape) if isinstance(config.model, ConvModel) else MlpDecoder(config.model, shape)
    )
    return Networks(encoder, decoder, shape, config.model.latent_dim)


def _begin_near_a_similarity(model: MlpModel, decoder: Params, key: jax.Array) -> Params:
    """The decoder with the least change of its output layer by which the linear part of its map becomes that of
    z -> initial_gain * z, and the mean of its samples 0.

    By random weights alone the first samples are nearly one point, spread up to tens of times as far along one
    direction as along the other, and how modes come to lie in the latent plane is chance.
    """
    z = jax.random.normal(key, (_PROBES, model.latent_dim))
    features = jnp.asarray(_trunk(model).apply({"params": decoder["trunk"]}, z, False), jnp.float32)
    centre = jnp.mean(features, axis=0, keepdims=True)
    slope = jnp.linalg.lstsq(z, features - centre)[0]
    kernel = decoder["head"]["kernel"]
    missing = model.initial_gain * jnp.eye(model.latent_dim, kernel.shape[1]) - slope @ kernel
    kernel += jnp.linalg.pinv(slope) @ missing
    return {**decoder, "head": {"kernel": kernel, "bias": -(centre @ kernel)[0]}}
