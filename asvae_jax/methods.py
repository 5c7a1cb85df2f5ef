"""The five methods: which streams each one looks at, and with which loss. AS-IntroVAE has a file of its own.

A method is a pair of pure functions over the streams of a step.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax.lax import stop_gradient

from asvae_jax import losses
from asvae_jax.asintrovae import asintrovae
from asvae_jax.gaussians import kl_to_standard_normal, sample
from asvae_jax.losses import reconstruction_error
from asvae_jax.models import make_networks
from asvae_jax.settings import Config, IntroVae, SIntroVae, Vae, WganGp
from asvae_jax.streams import (
    EncoderPhase,
    Method,
    code_health,
    decoder_streams,
    encoder_streams,
    named,
    redecoding_errors,
    saturation,
    stream_health,
)


def vae(config: Config) -> Method:
    """Both networks at once on the ELBO of real images."""
    setting, networks = config.method, make_networks(config)
    assert isinstance(setting, Vae)

    def both_networks(encoder, decoder, images, noise, step):
        q_real = networks.encode(encoder, images)
        z = sample(q_real, noise.eps_real)
        err_real, kl_real = reconstruction_error(images, networks.decode(decoder, z)), kl_to_standard_normal(q_real)
        loss, terms = losses.vae_loss(err_real, kl_real, b_rec=setting.b_rec, b_kl=setting.b_kl, scale=setting.scale)
        health = {"err_real": jnp.mean(err_real), "kl_real": jnp.mean(kl_real), **code_health(config, [q_real])}
        return EncoderPhase(loss, {**named("encoder", terms), **health}, z)

    return Method(both_networks, None)


def introvae(config: Config) -> Method:
    """The hinge on the batch-mean KL of rec and fake; the decoder also reconstructs."""
    setting, networks = config.method, make_networks(config)
    assert isinstance(setting, IntroVae)

    def encoder_loss(encoder, decoder, images, noise, step):
        z, s = encoder_streams(networks, encoder, decoder, images, noise, rec_target_gradient=False)
        kl_real, kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_real, s.q_rec, s.q_fake))
        loss, terms = losses.introvae_encoder_loss(
            s.err_real, kl_real, kl_rec, kl_fake,
            b_rec=setting.b_rec, b_kl=setting.b_kl, b_neg=setting.b_neg, margin=setting.margin,
        )  # fmt: skip
        return EncoderPhase(loss, {**named("encoder", terms), **stream_health(config, s)}, z)

    def decoder_loss(encoder, decoder, images, z, noise, step):
        s = decoder_streams(networks, encoder, decoder, images, z, noise)
        kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_rec, s.q_fake))
        return losses.introvae_decoder_loss(s.err_real, kl_rec, kl_fake, b_rec=setting.b_rec, b_kl=setting.b_kl)

    return Method(encoder_loss, decoder_loss)


def sintrovae(config: Config) -> Method:
    """The soft exponential of the ELBO of rec and fake."""
    setting, networks = config.method, make_networks(config)
    assert isinstance(setting, SIntroVae)

    def encoder_loss(encoder, decoder, images, noise, step):
        z, s = encoder_streams(networks, encoder, decoder, images, noise, setting.rec_target_gradient)
        kl_real, kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_real, s.q_rec, s.q_fake))
        loss, terms = losses.sintrovae_encoder_loss(
            s.err_real, kl_real, s.err_rec, kl_rec, s.err_fake, kl_fake,
            b_rec=setting.b_rec, b_kl=setting.b_kl, b_neg=setting.b_neg, scale=setting.scale, alpha=setting.alpha,
        )  # fmt: skip
        health = {**stream_health(config, s), **saturation(setting, s.err_fake, kl_fake, setting.alpha)}
        return EncoderPhase(loss, {**named("encoder", terms), **health}, z)

    def decoder_loss(encoder, decoder, images, z, noise, step):
        s = decoder_streams(networks, encoder, decoder, images, z, noise)
        kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_rec, s.q_fake))
        return losses.sintrovae_decoder_loss(
            s.err_real, kl_rec, kl_fake, *redecoding_errors(setting, s),
            b_rec=setting.b_rec, b_kl=setting.b_kl, gamma_r=setting.gamma_r, scale=setting.scale,
        )  # fmt: skip

    return Method(encoder_loss, decoder_loss)


def wgan_gp(config: Config) -> Method:
    """The GAN baseline: the encoder's place is taken by a critic. Each step moves the critic, every `critic_steps`-th
    the generator too."""
    setting, networks = config.method, make_networks(config)
    assert isinstance(setting, WganGp)

    def critic_loss(critic, generator, images, noise, step):
        if noise.mix is None:
            raise ValueError("wgan_gp needs StepNoise.mix, uniform [B]; draw_noise draws it.")
        # The critic is to judge the fake images, not to change them.
        fake = stop_gradient(networks.decode(generator, noise.prior))
        penalty = losses.gradient_penalty(lambda x: networks.critic(critic, x), images, fake, noise.mix)
        loss, terms = losses.wgan_gp_critic_loss(
            networks.critic(critic, images), networks.critic(critic, fake), penalty, gp_weight=setting.gp_weight
        )
        return EncoderPhase(loss, named("encoder", terms), noise.prior)

    def generator_loss(critic, generator, images, z, noise, step):
        # Fresh codes: the critic has just been fitted to those of `prior`.
        return losses.wgan_gp_generator_loss(networks.critic(critic, networks.decode(generator, noise.eps_fake)))

    return Method(critic_loss, generator_loss, decoder_every=setting.critic_steps)


METHODS: dict[str, Callable[[Config], Method]] = {
    "vae": vae,
    "introvae": introvae,
    "sintrovae": sintrovae,
    "asintrovae": asintrovae,
    "wgan_gp": wgan_gp,
}


def make_method(config: Config) -> Method:
    """The pair of losses that `config.method` names."""
    return METHODS[config.method.name](config)
