"""The five methods: which streams each one looks at, and with which loss. The only file that knows both networks and
losses.

A step sees three streams of images: real, rec (decodings of real images' codes) and fake (decodings of the prior). A
method is a pair of pure functions over them. In the encoder phase the decoder's parameters are constants, in the
decoder phase the updated encoder's.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from asvae_jax import losses
from asvae_jax.distance import as_distance
from asvae_jax.gaussians import Gaussian, kl_to_standard_normal, sample, squash
from asvae_jax.losses import reconstruction_error
from asvae_jax.models import Networks, Params, make_networks
from asvae_jax.settings import AsIntroVae, Config, IntroVae, SIntroVae, Vae, WganGp

Metrics = dict[str, jax.Array]

# With a smaller gamma_r the re-decodings of the decoder phase change nothing in float32, and are not computed.
NEGLIGIBLE_GAMMA_R = 6e-8
# Below this an exponential gives the encoder no gradient worth the name.
_SATURATED = 1e-6
# A code dimension whose mean varies less over the batch carries nothing (Burda et al., arXiv 1509.00519).
_ACTIVE_VARIANCE = 0.01
_ROOT_EPSILON = 1e-6
# Keeps a quotient of pulls finite where codes do not change with their images at all.
_PULL_EPSILON = 1e-12


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
    """The encoder phase: codes [B, Z] of the three streams, and the squared error [B] of each stream's images against
    the decoding of a sample of their code."""

    z: jax.Array
    q_real: Gaussian
    q_rec: Gaussian
    q_fake: Gaussian
    err_real: jax.Array
    err_rec: jax.Array
    err_fake: jax.Array


class DecoderStreams(NamedTuple):
    """The decoder phase: the same; the codes of real images are constants here."""

    q_real: Gaussian
    q_rec: Gaussian
    q_fake: Gaussian
    err_real: jax.Array
    err_rec: jax.Array
    err_fake: jax.Array


def encoder_streams(
    networks: Networks, encoder: Params, decoder: Params, images: jax.Array, noise: StepNoise, rec_target_gradient: bool
) -> Streams:
    """The streams as the encoder phase sees them; what a method leaves unused is never computed (jit drops it)."""
    q_real = networks.encode(encoder, images)
    z = sample(q_real, noise.eps_real)
    rec, fake = networks.decode(decoder, z), networks.decode(decoder, noise.prior)
    # The encoder is to judge rec and fake, not to change them: no gradient from their codes back into the images.
    q_rec = networks.encode(encoder, stop_gradient(rec))
    q_fake = networks.encode(encoder, stop_gradient(fake))
    rec_target = rec if rec_target_gradient else stop_gradient(rec)
    return Streams(
        z=z,
        q_real=q_real,
        q_rec=q_rec,
        q_fake=q_fake,
        err_real=reconstruction_error(images, rec),
        err_rec=reconstruction_error(rec_target, networks.decode(decoder, sample(q_rec, noise.eps_rec))),
        err_fake=reconstruction_error(fake, networks.decode(decoder, sample(q_fake, noise.eps_fake))),
    )


def decoder_streams(
    networks: Networks, encoder: Params, decoder: Params, images: jax.Array, z: jax.Array, noise: StepNoise
) -> DecoderStreams:
    """The streams as the decoder phase sees them. rec and fake equal those of the encoder phase, and the compiler
    computes them once."""
    # The decoder is to decode the codes it is given, not to move them.
    z = stop_gradient(z)
    rec, fake = networks.decode(decoder, z), networks.decode(decoder, noise.prior)
    q_rec, q_fake = networks.encode(encoder, rec), networks.encode(encoder, fake)
    # Re-decodings train the decoder alone: their codes and their targets are constants.
    z_rec = stop_gradient(sample(q_rec, noise.eps_rec_decoder))
    z_fake = stop_gradient(sample(q_fake, noise.eps_fake_decoder))
    return DecoderStreams(
        q_real=networks.encode(encoder, images),
        q_rec=q_rec,
        q_fake=q_fake,
        err_real=reconstruction_error(images, rec),
        err_rec=reconstruction_error(stop_gradient(rec), networks.decode(decoder, z_rec)),
        err_fake=reconstruction_error(stop_gradient(fake), networks.decode(decoder, z_fake)),
    )


def _health(config: Config, s: Streams) -> Metrics:
    """Figures that tell a healthy introspective game from a sick one, whatever its loss."""
    kl_real, kl_rec, kl_fake = (jnp.mean(kl_to_standard_normal(q)) for q in (s.q_real, s.q_rec, s.q_fake))
    return {
        "err_real": jnp.mean(s.err_real),
        "kl_real": kl_real,
        "kl_rec": kl_rec,
        "kl_fake": kl_fake,
        "kl_fake_minus_real": kl_fake - kl_real,
        **_code_health(config, [s.q_real, s.q_rec, s.q_fake]),
    }


def _code_health(config: Config, codes: list[Gaussian]) -> Metrics:
    """Dimensions of the first stream's codes that vary, and the share of log-variances at the clamp in all streams."""
    low, high = config.model.logvar_range
    logvars = jnp.stack([q.logvar for q in codes])
    return {
        "active_units": jnp.sum(jnp.var(codes[0].mean, axis=0) > _ACTIVE_VARIANCE).astype(jnp.float32),
        "clamped_logvars": jnp.mean((logvars <= low) | (logvars >= high)),
    }


def _saturation(setting: SIntroVae | AsIntroVae, err: jax.Array, divergence: jax.Array) -> Metrics:
    """Mean exponent of the soft exponential, and the share of examples that it no longer moves."""
    exponent = -setting.alpha * setting.scale * (setting.b_rec * err + setting.b_neg * divergence)
    return {"exponent_fake": jnp.mean(exponent), "saturated": jnp.mean(exponent < math.log(_SATURATED))}


def vae(config: Config) -> Method:
    """Both networks at once on the ELBO of real images."""
    setting, networks = config.method, make_networks(config)
    assert isinstance(setting, Vae)

    def both_networks(encoder, decoder, images, noise, step):
        q_real = networks.encode(encoder, images)
        z = sample(q_real, noise.eps_real)
        err_real, kl_real = reconstruction_error(images, networks.decode(decoder, z)), kl_to_standard_normal(q_real)
        loss, terms = losses.vae_loss(err_real, kl_real, b_rec=setting.b_rec, b_kl=setting.b_kl, scale=setting.scale)
        health = {"err_real": jnp.mean(err_real), "kl_real": jnp.mean(kl_real), **_code_health(config, [q_real])}
        return EncoderPhase(loss, {**_named("encoder", terms), **health}, z)

    return Method(both_networks, None)


def introvae(config: Config) -> Method:
    """The hinge on the batch-mean KL of rec and fake; the decoder also reconstructs."""
    setting, networks = config.method, make_networks(config)
    assert isinstance(setting, IntroVae)

    def encoder_loss(encoder, decoder, images, noise, step):
        s = encoder_streams(networks, encoder, decoder, images, noise, rec_target_gradient=False)
        kl_real, kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_real, s.q_rec, s.q_fake))
        loss, terms = losses.introvae_encoder_loss(
            s.err_real, kl_real, kl_rec, kl_fake,
            b_rec=setting.b_rec, b_kl=setting.b_kl, b_neg=setting.b_neg, margin=setting.margin,
        )  # fmt: skip
        return EncoderPhase(loss, {**_named("encoder", terms), **_health(config, s)}, s.z)

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
        s = encoder_streams(networks, encoder, decoder, images, noise, setting.rec_target_gradient)
        kl_real, kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_real, s.q_rec, s.q_fake))
        loss, terms = losses.sintrovae_encoder_loss(
            s.err_real, kl_real, s.err_rec, kl_rec, s.err_fake, kl_fake,
            b_rec=setting.b_rec, b_kl=setting.b_kl, b_neg=setting.b_neg, scale=setting.scale, alpha=setting.alpha,
        )  # fmt: skip
        saturation = _saturation(setting, s.err_fake, kl_fake)
        return EncoderPhase(loss, {**_named("encoder", terms), **_health(config, s), **saturation}, s.z)

    def decoder_loss(encoder, decoder, images, z, noise, step):
        s = decoder_streams(networks, encoder, decoder, images, z, noise)
        kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_rec, s.q_fake))
        return losses.sintrovae_decoder_loss(
            s.err_real, kl_rec, kl_fake, *_redecoding_errors(setting, s),
            b_rec=setting.b_rec, b_kl=setting.b_kl, gamma_r=setting.gamma_r, scale=setting.scale,
        )  # fmt: skip

    return Method(encoder_loss, decoder_loss)


def asintrovae(config: Config) -> Method:
    """S-IntroVAE with the KL of rec and fake blended with the AS-Distance between their codes."""
    setting, networks = config.method, make_networks(config)
    assert isinstance(setting, AsIntroVae)

    outside = setting.distance_in == "loss"

    def kl_and_distance_weights(step):
        c = losses.annealed_kl_weight(
            step, total_steps=config.training.steps, schedule=setting.kl_schedule, rate=setting.kl_rate
        )
        return c, jnp.ones_like(c) if setting.kl_schedule == "none" else 1 - c

    def distances(s: Streams | DecoderStreams, over_pairs, over_dims) -> list[jax.Array]:
        """D, and the one between the codes' means if there is one."""
        codes = s.q_rec if setting.distance_pairs == "rec_fake" else s.q_real
        measure = partial(
            as_distance, codes, s.q_fake, statistic=setting.statistic, over_dims=over_dims,
            squash=setting.squash_distance,
        )  # fmt: skip
        if setting.kernel == "constant":
            # An ablation: what is left of the method if D opens and shuts the exponential but measures nothing.
            found = [jnp.ones(())]
        else:
            found = [measure(kernel=setting.kernel, bandwidth=setting.bandwidth)]
        if setting.means_bandwidths:
            of_means = [measure(kernel="means", bandwidth=h2) for h2 in setting.means_bandwidths]
            found.append(sum(of_means, start=jnp.zeros(())))
        if over_pairs == "sum":
            pairs = codes.mean.shape[0] * s.q_fake.mean.shape[0]
            found = [d * pairs for d in found]
        # Each has a root of its own, or the chance that is in a distance of narrow kernels would silence the other. The
        # small number keeps the root's slope finite where the two batches are alike.
        return [jnp.sqrt(jnp.maximum(d, 0) + _ROOT_EPSILON) for d in found] if setting.root_distance else found

    def in_sum(found: list[jax.Array], step) -> jax.Array:
        """D plus the distance between the means, in so far as that counts by now: modes must be parted before their
        shape is of interest."""
        d, *of_means = found
        if not of_means:
            return d
        begins = setting.means_from * config.training.steps
        return d + (jnp.clip(step / begins - 1, 0, 1) if begins else 1.0) * of_means[0]

    def encoder_loss(encoder, decoder, images, noise, step):
        s = encoder_streams(networks, encoder, decoder, images, noise, setting.rec_target_gradient)
        kl_real, kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_real, s.q_rec, s.q_fake))
        c, weight = kl_and_distance_weights(step)
        d = in_sum(distances(s, setting.over_pairs_encoder, setting.over_dims_encoder), step)
        objective = losses.asintrovae_outside_encoder_loss if outside else losses.asintrovae_encoder_loss
        loss, terms = objective(
            s.err_real, kl_real, s.err_rec, kl_rec, s.err_fake, kl_fake, d, c, weight, b_rec=setting.b_rec,
            b_kl=setting.b_kl, b_neg=setting.b_neg, scale=setting.scale, w_enc=setting.w_enc, alpha=setting.alpha,
        )  # fmt: skip
        if setting.slope_weight:
            # Flat codes tell modes apart early on; later steep ones are to show a mode's own shape.
            left = jnp.maximum(0.0, 1 - step / (setting.slope_until * config.training.steps))

            def mean_slope() -> jax.Array:
                # The directions need only be independent of the real images, as the fake stream's noise is.
                slopes = losses.squared_slope(
                    lambda x: networks.encode(encoder, x).mean, images, directions=noise.eps_fake
                )
                return jnp.mean(slopes)

            # Once it weighs nothing it need not be computed.
            slope = jax.lax.cond(left > 0, mean_slope, lambda: jnp.zeros(()))
            terms["slope"] = 0.5 * setting.scale * setting.slope_weight * left * slope
            loss += terms["slope"]
        within = 0.0 if outside else weight * setting.w_enc * d
        saturation = _saturation(setting, s.err_fake, c * kl_fake + within)
        health = {**_health(config, s), **saturation, "as_distance": d, "kl_weight": c}
        return EncoderPhase(loss, {**_named("encoder", terms), **health}, s.z)

    def decoder_loss(encoder, decoder, images, z, noise, step):
        s = decoder_streams(networks, encoder, decoder, images, z, noise)

        def judged_kl(q: Gaussian) -> jax.Array:
            return kl_to_standard_normal(squash(q) if setting.squash_decoder_kl else q)

        def distances_to(q_fake: Gaussian) -> list[jax.Array]:
            return distances(s._replace(q_fake=q_fake), setting.over_pairs_decoder, setting.over_dims_decoder)

        kl_rec, kl_fake, found = judged_kl(s.q_rec), judged_kl(s.q_fake), distances_to(s.q_fake)
        c, weight = kl_and_distance_weights(step)
        # Late in training the rate is low, and what is chance in a batch's D averages out over the steps.
        second_half = jnp.clip(2 * step / config.training.steps - 1, 0, 1)
        weight *= 1 + (setting.w_dec_growth - 1) * second_half
        if setting.balance_pulls:
            unit = 1.0 if outside else 0.5 * setting.b_kl
            of_kl, *of_distances = _pulls(
                lambda x: networks.encode(encoder, x),
                networks.decode(decoder, noise.prior),
                [
                    lambda q: 0.5 * setting.b_kl * jnp.mean(judged_kl(q)),
                    *(lambda q, n=n: unit * distances_to(q)[n] for n in range(len(found))),
                ],
            )
            found = [d * of_kl / (of_d + _PULL_EPSILON) for d, of_d in zip(found, of_distances, strict=True)]
        objective = losses.asintrovae_outside_decoder_loss if outside else losses.asintrovae_decoder_loss
        return objective(
            s.err_real, kl_rec, kl_fake, in_sum(found, step), c, *_redecoding_errors(setting, s), weight,
            b_rec=setting.b_rec, b_kl=setting.b_kl, gamma_r=setting.gamma_r, scale=setting.scale, w_dec=setting.w_dec,
        )  # fmt: skip

    return Method(encoder_loss, decoder_loss)


def _pulls(
    encode: Callable[[jax.Array], Gaussian], images: jax.Array, objectives: list[Callable[[Gaussian], jax.Array]]
) -> list[jax.Array]:
    """How hard each function of their codes pulls at the images: the norm of its gradient by them all, a constant."""
    q, back = jax.vjp(encode, stop_gradient(images))
    gradients = [back(jax.grad(objective)(q))[0] for objective in objectives]
    return [stop_gradient(jnp.linalg.norm(gradient)) for gradient in gradients]


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
        return EncoderPhase(loss, _named("encoder", terms), noise.prior)

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


def _redecoding_errors(setting: SIntroVae | AsIntroVae, s: DecoderStreams) -> tuple[jax.Array | None, jax.Array | None]:
    return (s.err_rec, s.err_fake) if setting.gamma_r > NEGLIGIBLE_GAMMA_R else (None, None)


def _named(network: str, terms: Metrics) -> Metrics:
    return {f"{network}/{name}": value for name, value in terms.items()}
