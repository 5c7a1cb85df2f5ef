"""What all methods are made of: the noise and the streams of a step, the two phases, figures of the game's health.

A step sees three streams of images: real, rec (decodings of real images' codes) and fake (decodings of the prior). In
the encoder phase the decoder's parameters are constants, in the decoder phase the updated encoder's.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from asvae_jax import losses
from asvae_jax.gaussians import Gaussian, kl_to_standard_normal, sample
from asvae_jax.losses import reconstruction_error
from asvae_jax.models import Networks, Params
from asvae_jax.settings import AsIntroVae, Config, SIntroVae

Metrics = dict[str, jax.Array]

# With a smaller gamma_r the re-decodings of the decoder phase change nothing in float32, and are not computed.
NEGLIGIBLE_GAMMA_R = 6e-8
# Below this an exponential gives the encoder no gradient worth the name.
_SATURATED = 1e-6
ACTIVE_VARIANCE = 0.01
"""A dimension of the code whose mean varies by less over the images carries nothing (arXiv 1509.00519)."""


class StepNoise(NamedTuple):
    """All randomness of a step: standard normal [B, Z], but for WGAN-GP's mixing weights `mix`, uniform [B]."""

    prior: jax.Array
    eps_real: jax.Array
    eps_rec: jax.Array
    eps_fake: jax.Array
    eps_rec_decoder: jax.Array
    eps_fake_decoder: jax.Array
    mix: jax.Array | None = None


class EncoderPhase(NamedTuple):
    """What the encoder phase found: its loss, the terms and health figures to log, and the codes that the decoder
    phase reuses."""

    loss: jax.Array
    metrics: Metrics
    z: jax.Array


# (encoder params, decoder params, images, noise, step) -> EncoderPhase
EncoderLoss = Callable[[Params, Params, jax.Array, StepNoise, jax.Array], EncoderPhase]
# (encoder params, decoder params, images, z, noise, step) -> (loss, metrics)
DecoderLoss = Callable[[Params, Params, jax.Array, jax.Array, StepNoise, jax.Array], losses.Loss]


class Method(NamedTuple):
    """A pair of losses. Without a decoder loss the encoder's trains both networks at once; the decoder moves every
    `decoder_every` steps."""

    encoder_loss: EncoderLoss
    decoder_loss: DecoderLoss | None
    decoder_every: int = 1


class Streams(NamedTuple):
    """Codes [B, Z] of the three streams, and the squared error [B] of each stream's images against the decoding of a
    sample of their code."""

    q_real: Gaussian
    q_rec: Gaussian
    q_fake: Gaussian
    err_real: jax.Array
    err_rec: jax.Array
    err_fake: jax.Array


def encoder_streams(
    networks: Networks, encoder: Params, decoder: Params, images: jax.Array, noise: StepNoise, rec_target_gradient: bool
) -> tuple[jax.Array, Streams]:
    """The sample of real images' codes that rec is decoded from, and the streams as the encoder phase sees them; what a
    method leaves unused is never computed (jit drops it)."""
    q_real = networks.encode(encoder, images)
    z = sample(q_real, noise.eps_real)
    rec, fake = networks.decode(decoder, z), networks.decode(decoder, noise.prior)
    # The encoder is to judge rec and fake, not to change them: no gradient from their codes back into the images.
    q_rec = networks.encode(encoder, stop_gradient(rec))
    q_fake = networks.encode(encoder, stop_gradient(fake))
    rec_target = rec if rec_target_gradient else stop_gradient(rec)
    return z, Streams(
        q_real=q_real,
        q_rec=q_rec,
        q_fake=q_fake,
        err_real=reconstruction_error(images, rec),
        err_rec=reconstruction_error(rec_target, networks.decode(decoder, sample(q_rec, noise.eps_rec))),
        err_fake=reconstruction_error(fake, networks.decode(decoder, sample(q_fake, noise.eps_fake))),
    )


def decoder_streams(
    networks: Networks, encoder: Params, decoder: Params, images: jax.Array, z: jax.Array, noise: StepNoise
) -> Streams:
    """The streams as the decoder phase sees them: the codes of real images are constants. rec and fake equal those of
    the encoder phase, and the compiler computes them once."""
    # The decoder is to decode the codes it is given, not to move them.
    z = stop_gradient(z)
    rec, fake = networks.decode(decoder, z), networks.decode(decoder, noise.prior)
    q_rec, q_fake = networks.encode(encoder, rec), networks.encode(encoder, fake)
    # Re-decodings train the decoder alone: their codes and their targets are constants.
    z_rec = stop_gradient(sample(q_rec, noise.eps_rec_decoder))
    z_fake = stop_gradient(sample(q_fake, noise.eps_fake_decoder))
    return Streams(
        q_real=networks.encode(encoder, images),
        q_rec=q_rec,
        q_fake=q_fake,
        err_real=reconstruction_error(images, rec),
        err_rec=reconstruction_error(stop_gradient(rec), networks.decode(decoder, z_rec)),
        err_fake=reconstruction_error(stop_gradient(fake), networks.decode(decoder, z_fake)),
    )


def stream_health(config: Config, s: Streams) -> Metrics:
    """Figures that tell a healthy introspective game from a sick one, whatever its loss."""
    kl_real, kl_rec, kl_fake = (jnp.mean(kl_to_standard_normal(q)) for q in (s.q_real, s.q_rec, s.q_fake))
    return {
        "err_real": jnp.mean(s.err_real),
        "kl_real": kl_real,
        "kl_rec": kl_rec,
        "kl_fake": kl_fake,
        "kl_fake_minus_real": kl_fake - kl_real,
        **code_health(config, [s.q_real, s.q_rec, s.q_fake]),
    }


def code_health(config: Config, codes: list[Gaussian]) -> Metrics:
    """Dimensions of the first stream's codes that vary, and the share of log-variances at the clamp in all streams."""
    low, high = config.model.logvar_range
    logvars = jnp.stack([q.logvar for q in codes])
    return {
        "active_units": jnp.sum(jnp.var(codes[0].mean, axis=0) > ACTIVE_VARIANCE).astype(jnp.float32),
        "clamped_logvars": jnp.mean((logvars <= low) | (logvars >= high)),
    }


def saturation(
    setting: SIntroVae | AsIntroVae, err: jax.Array, divergence: jax.Array, alpha: float | jax.Array
) -> Metrics:
    """Mean exponent of the soft exponential, and the share of examples that it no longer moves."""
    exponent = -alpha * setting.scale * (setting.b_rec * err + setting.b_neg * divergence)
    return {"exponent_fake": jnp.mean(exponent), "saturated": jnp.mean(exponent < math.log(_SATURATED))}


def redecoding_errors(setting: SIntroVae | AsIntroVae, s: Streams) -> tuple[jax.Array | None, jax.Array | None]:
    """Those of rec and fake for the decoder's loss, or None where their weight is negligible."""
    return (s.err_rec, s.err_fake) if setting.gamma_r > NEGLIGIBLE_GAMMA_R else (None, None)


def risen(step: jax.Array, over: float, steps: int) -> jax.Array | float:
    """What has risen linearly from 0 to 1 over that share of all steps; 1 at once if the share is 0."""
    return jnp.minimum(step / (over * steps), 1.0) if over else 1.0


def named(network: str, terms: Metrics) -> Metrics:
    """A network's terms under the names they are logged by, `encoder/kl`."""
    return {f"{network}/{name}": value for name, value in terms.items()}
