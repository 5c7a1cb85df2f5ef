"""AS-IntroVAE (arXiv 2206.13903) in all its readings: S-IntroVAE with the AS-Distance between two streams' codes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from asvae_jax import losses
from asvae_jax.choice import by_word
from asvae_jax.distance import WITH_BANDWIDTH, OverDims, as_distance, root
from asvae_jax.gaussians import Gaussian, kl_to_standard_normal, squash
from asvae_jax.models import make_networks
from asvae_jax.settings import AsIntroVae, Config
from asvae_jax.streams import (
    EncoderPhase,
    Method,
    Streams,
    decoder_streams,
    encoder_streams,
    named,
    redecoding_errors,
    risen,
    saturation,
    stream_health,
)

# A distance that pulls at fake images by less than this has no direction left that could be followed.
_LEAST_PULL = 1e-12


def asintrovae(config: Config) -> Method:
    """S-IntroVAE with the KL of rec and fake blended with the AS-Distance between their codes."""
    setting, networks, steps = config.method, make_networks(config), config.training.steps
    assert isinstance(setting, AsIntroVae)
    outside = setting.distance_in == "loss"

    def encoder_loss(encoder, decoder, images, noise, step):
        z, s = encoder_streams(networks, encoder, decoder, images, noise, setting.rec_target_gradient)
        kl_real, kl_rec, kl_fake = map(kl_to_standard_normal, (s.q_real, s.q_rec, s.q_fake))
        c, weight = _kl_and_distance_weights(setting, step, steps)
        late = _late(setting, step, steps)
        alpha = setting.alpha * _late_factor(setting.late_alpha_factor, late)
        w_enc = setting.w_enc * _late_factor(setting.late_w_enc_factor, late)
        found = _distances(
            setting, _partner(setting, s), s.q_fake, setting.over_pairs_encoder, setting.over_dims_encoder
        )
        d = _in_sum(found, late)
        w_inside, w_outside = (0.0, w_enc) if outside else (w_enc, None)
        loss, terms = losses.asintrovae_encoder_loss(
            s.err_real, kl_real, s.err_rec, kl_rec, s.err_fake, kl_fake, d, c, weight, b_rec=setting.b_rec,
            b_kl=setting.b_kl, b_neg=setting.b_neg, scale=setting.scale, w_enc=w_inside,
            w_enc_outside=w_outside, alpha=alpha, w_exp=setting.w_exp,
        )  # fmt: skip
        # The time and not the weight tells, as that is a traced number in a sweep.
        if setting.slope_until:
            # The directions need only be independent of the real images, as the fake stream's noise is.
            terms["slope"] = _slope_term(
                setting, lambda x: networks.encode(encoder, x).mean, images, noise.eps_fake, step, steps
            )
            loss += terms["slope"]
        terms["latent"] = _latent_term(setting, noise.prior, s.q_fake, step, steps)
        loss += terms["latent"]
        in_exponent = weight * w_inside * d
        health = {
            **stream_health(config, s),
            **saturation(setting, s.err_fake / setting.w_exp, c * kl_fake + in_exponent, alpha),
            **dict(zip(("as_distance", "means_distance"), found, strict=False)),
            "kl_weight": c,
        }
        return EncoderPhase(loss, {**named("encoder", terms), **health}, z)

    def decoder_loss(encoder, decoder, images, z, noise, step):
        s = decoder_streams(networks, encoder, decoder, images, z, noise)

        def judged_kl(q: Gaussian) -> jax.Array:
            return kl_to_standard_normal(squash(q) if setting.squash_decoder_kl else q)

        def distances_to(q_fake: Gaussian) -> list[jax.Array]:
            return _distances(
                setting, _partner(setting, s), q_fake, setting.over_pairs_decoder, setting.over_dims_decoder
            )

        kl_rec, kl_fake, found = judged_kl(s.q_rec), judged_kl(s.q_fake), distances_to(s.q_fake)
        c, weight = _kl_and_distance_weights(setting, step, steps)
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
            found = [
                d * jnp.where(of_d > _LEAST_PULL, of_kl / jnp.maximum(of_d, _LEAST_PULL), 0.0)
                for d, of_d in zip(found, of_distances, strict=True)
            ]
        d = _in_sum(found, _late(setting, step, steps))
        w_dec, w_dec_outside = (0.0, setting.w_dec) if outside else (setting.w_dec, None)
        loss, terms = losses.asintrovae_decoder_loss(
            s.err_real, kl_rec, kl_fake, d, c, *redecoding_errors(setting, s), weight, b_rec=setting.b_rec,
            b_kl=setting.b_kl, gamma_r=setting.gamma_r, scale=setting.scale, w_dec=w_dec, w_dec_outside=w_dec_outside,
        )  # fmt: skip
        terms["latent"] = _latent_term(setting, noise.prior, s.q_fake, step, steps)
        return loss + terms["latent"], terms

    return Method(encoder_loss, decoder_loss)


def _kl_and_distance_weights(setting: AsIntroVae, step: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """c, and what D is weighed with: 1 - c, or 1 where nothing is annealed."""

    def of_schedule(schedule: Any) -> tuple[jax.Array, jax.Array]:
        c = losses.annealed_kl_weight(step, total_steps=steps, schedule=schedule, rate=setting.kl_rate)
        return c, jnp.ones_like(c) if schedule == "none" else 1 - c

    return by_word(setting.kl_schedule, of_schedule)


def _partner(setting: AsIntroVae, s: Streams) -> Gaussian:
    """The codes that those of the fake images are compared with."""
    return s.q_rec if setting.distance_pairs == "rec_fake" else s.q_real


def _distances(
    setting: AsIntroVae, codes: Gaussian, q_fake: Gaussian, over_pairs: str, over_dims: OverDims
) -> list[jax.Array]:
    """D, and the one between the codes' means if there is one."""
    measure = partial(
        as_distance, codes, q_fake, statistic=setting.statistic, over_dims=over_dims, squash=setting.squash_distance
    )

    def of_kernel(kernel: Any) -> jax.Array:
        if kernel == "constant":
            # An ablation: what is left of the method if D opens and shuts the exponential but measures nothing.
            return jnp.ones(())
        return measure(kernel=kernel, bandwidth=setting.bandwidth if kernel in WITH_BANDWIDTH else 0.0)

    found = [by_word(setting.kernel, of_kernel)]
    if setting.means_bandwidths:
        found.append(measure(kernel="means", bandwidth=setting.means_bandwidths))
    if over_pairs == "sum":
        pairs = codes.mean.shape[0] * q_fake.mean.shape[0]
        found = [d * pairs for d in found]
    # Each has a root of its own, or the chance that is in a distance of narrow kernels would silence the other.
    return [root(d) for d in found] if setting.root_distance else found


def _late(setting: AsIntroVae, step: jax.Array, steps: int) -> jax.Array:
    """How much of the late game is played, in [0, 1]: modes must be parted before their shape, and what lies between
    them, are of interest."""
    begins = setting.late_from * steps
    return jnp.clip(step / begins - 1, 0, 1) if begins else jnp.ones(())


def _late_factor(factor: float, late: jax.Array) -> jax.Array:
    """1 before the late game, `factor` once it is all there."""
    return 1 + (factor - 1) * late


def _in_sum(found: list[jax.Array], late: jax.Array) -> jax.Array:
    """D plus the distance between the means, which belongs to the late game."""
    d, *of_means = found
    return d + late * of_means[0] if of_means else d


def _slope_term(
    setting: AsIntroVae,
    means: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    directions: jax.Array,
    step: jax.Array,
    steps: int,
) -> jax.Array:
    """What the encoder pays for the slope of its codes: flat ones tell modes apart early on; later steep ones are to
    show a mode's own shape."""
    left = jnp.maximum(0.0, 1 - step / (setting.slope_until * steps))
    # Once it weighs nothing it need not be computed.
    slope = jax.lax.cond(
        left > 0, lambda: jnp.mean(losses.squared_slope(means, images, directions)), lambda: jnp.zeros(())
    )
    return 0.5 * setting.scale * setting.slope_weight * left * slope


def _latent_term(setting: AsIntroVae, latents: jax.Array, q_fake: Gaussian, step: jax.Array, steps: int) -> jax.Array:
    """What both networks pay for latents that the codes of their decodings do not tell: a decoder that lays two of them
    on one image wastes what a mode's tails are made of. Dear from the first step on it may keep modes from being
    parted."""
    error = jnp.mean(losses.reconstruction_error(latents, q_fake.mean))
    return setting.scale * setting.w_latent * risen(step, setting.latent_rise, steps) * error


def _pulls(
    encode: Callable[[jax.Array], Gaussian], images: jax.Array, objectives: list[Callable[[Gaussian], jax.Array]]
) -> list[jax.Array]:
    """How hard each function of their codes pulls at the images: the norm of its gradient by them all, a constant."""
    q, back = jax.vjp(encode, stop_gradient(images))
    gradients = [back(jax.grad(objective)(q))[0] for objective in objectives]
    return [stop_gradient(jnp.linalg.norm(gradient)) for gradient in gradients]
