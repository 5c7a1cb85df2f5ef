"""The objectives of the five methods as functions of arrays; `docs/methods.md` sets them beside the papers.

Per-example inputs have shape [B]: reconstruction errors are squared errors summed over an image, divergences are nats
summed over Z. Every loss returns `(scalar, metrics)` with the terms whose sum it is. `scale` is the size of one
pixel, 1 / (H * W * C).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp

Loss = tuple[jax.Array, dict[str, jax.Array]]
KlSchedule = Literal["linear", "tanh", "constant", "none"]
KL_SCHEDULES = get_args(KlSchedule)


def reconstruction_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Squared error summed over all non-batch axes.

    Args:
      images: [B, ...].
      reconstructions: the same shape.

    Returns:
      [B], non-negative, float32 at least.
    """
    chex.assert_equal_shape([images, reconstructions])
    dtype = jnp.promote_types(jnp.result_type(images, reconstructions), jnp.float32)
    difference = jnp.asarray(images, dtype) - jnp.asarray(reconstructions, dtype)
    return jnp.sum(jnp.square(difference), axis=tuple(range(1, images.ndim)))


def soft_exp_elbo(
    err: jax.Array, divergence: jax.Array, *, b_rec: float, b_neg: float, scale: float, alpha: float | jax.Array = 2.0
) -> jax.Array:
    """exp(-alpha * scale * (b_rec * err + b_neg * divergence)): the soft-exponential of S-IntroVAE (arXiv 2012.13253,
    Eq. 5).

    Args:
      err: reconstruction error [B].
      divergence: KL, or its blend with the AS-Distance, in nats [B].
      b_rec, b_neg, scale, alpha: see `sintrovae_encoder_loss`.

    Returns:
      [B], in [0, 1] for non-negative inputs. The 1 / alpha of the objective stands in the loss.
    """
    chex.assert_equal_shape([err, divergence])
    return jnp.exp(-alpha * scale * (b_rec * err + b_neg * divergence))


def annealed_kl_weight(
    step: jax.typing.ArrayLike, *, total_steps: int, schedule: KlSchedule = "linear", rate: float = 5.0
) -> jax.Array:
    """The annealed KL weight c of AS-IntroVAE, 1 - c being the weight of the AS-Distance.

    Args:
      step: counted from 0 over all training steps, a VAE warm-up included.
      total_steps: T.
      schedule: `linear` is min(rate * step / T, 1) (the paper), `tanh` is tanh(rate * step / T) (the released code;
        it never quite reaches 1), `constant` is min(rate, 1) at every step, `none` is 1: nothing is annealed, and D
        is to be given a `distance_weight` of 1 as well.
      rate: 5 in the paper.

    Returns:
      A scalar in [0, 1].

    Raises:
      ValueError: for another schedule.
    """
    progress = rate * jnp.asarray(step, jnp.float32) / total_steps
    if schedule == "linear":
        return jnp.minimum(progress, 1.0)
    if schedule == "tanh":
        return jnp.tanh(progress)
    if schedule == "constant":
        return jnp.minimum(jnp.full_like(progress, rate), 1.0)
    if schedule == "none":
        return jnp.ones_like(progress)
    raise ValueError(f"schedule must be one of {', '.join(KL_SCHEDULES)}; got {schedule!r}.")


def vae_loss(err_real: jax.Array, kl_real: jax.Array, *, b_rec: float, b_kl: float, scale: float) -> Loss:
    """The weighted negative ELBO (arXiv 1312.6114), for both networks at once.

    Args:
      err_real: squared error of the reconstructions [B].
      kl_real: KL of the codes of real images [B].
      b_rec, b_kl: weights of the two terms.
      scale: size of one pixel.
    """
    chex.assert_equal_shape([err_real, kl_real])
    return _total(reconstruction=scale * b_rec * jnp.mean(err_real), kl=scale * b_kl * jnp.mean(kl_real))


def introvae_encoder_loss(
    err_real: jax.Array,
    kl_real: jax.Array,
    kl_rec: jax.Array,
    kl_fake: jax.Array,
    *,
    b_rec: float,
    b_kl: float,
    b_neg: float,
    margin: float,
) -> Loss:
    """IntroVAE's encoder (arXiv 1807.06358, Eq. 11): small KL for real images, at least `margin` nats for rec and
    fake ones.

    Args:
      err_real, kl_real, kl_rec, kl_fake: [B].
      b_rec, b_kl, b_neg: weights; the hinges carry 0.5 * b_kl * b_neg each.
      margin: m, in nats; the hinge is on the batch mean.
    """
    chex.assert_equal_shape([err_real, kl_real, kl_rec, kl_fake])
    hinge_rec, hinge_fake = (jnp.maximum(0.0, margin - jnp.mean(kl)) for kl in (kl_rec, kl_fake))
    return _total(
        reconstruction=b_rec * jnp.mean(err_real),
        kl=b_kl * jnp.mean(kl_real),
        adversarial=0.5 * b_kl * b_neg * (hinge_rec + hinge_fake),
    )


def introvae_decoder_loss(
    err_real: jax.Array, kl_rec: jax.Array, kl_fake: jax.Array, *, b_rec: float, b_kl: float
) -> Loss:
    """IntroVAE's decoder (arXiv 1807.06358, Eq. 12): it reconstructs, and it draws the KL of rec and fake images
    down. Inputs [B]."""
    chex.assert_equal_shape([err_real, kl_rec, kl_fake])
    return _total(
        reconstruction=b_rec * jnp.mean(err_real), adversarial=0.5 * b_kl * (jnp.mean(kl_rec) + jnp.mean(kl_fake))
    )


def sintrovae_encoder_loss(
    err_real: jax.Array,
    kl_real: jax.Array,
    err_rec: jax.Array,
    kl_rec: jax.Array,
    err_fake: jax.Array,
    kl_fake: jax.Array,
    *,
    b_rec: float,
    b_kl: float,
    b_neg: float,
    scale: float,
    alpha: float | jax.Array = 2.0,
) -> Loss:
    """S-IntroVAE's encoder (arXiv 2012.13253, Eq. 5 and Algorithm 1): the ELBO of real images up, the exponential one
    of rec and fake down.

    Args:
      err_real, kl_real, err_rec, kl_rec, err_fake, kl_fake: [B].
      b_rec, b_kl: weights of the ELBO; b_rec also weighs the error within the exponent.
      b_neg: weight of the KL within the exponent.
      scale: size of one pixel.
      alpha: sharpness of the exponential.
    """
    chex.assert_equal_shape([err_real, kl_real, err_rec, kl_rec, err_fake, kl_fake])
    exponential = partial(soft_exp_elbo, b_rec=b_rec, b_neg=b_neg, scale=scale, alpha=alpha)
    exp_rec, exp_fake = exponential(err_rec, kl_rec), exponential(err_fake, kl_fake)
    return _total(
        reconstruction=scale * b_rec * jnp.mean(err_real),
        kl=scale * b_kl * jnp.mean(kl_real),
        adversarial=(jnp.mean(exp_rec) + jnp.mean(exp_fake)) / (2 * alpha),
    )


def sintrovae_decoder_loss(
    err_real: jax.Array,
    kl_rec: jax.Array,
    kl_fake: jax.Array,
    err_rec: jax.Array | None = None,
    err_fake: jax.Array | None = None,
    *,
    b_rec: float,
    b_kl: float,
    gamma_r: float,
    scale: float,
) -> Loss:
    """S-IntroVAE's decoder (arXiv 2012.13253, Algorithm 1): the ELBO of rec and fake images up.

    Args:
      err_real, kl_rec, kl_fake: [B].
      err_rec, err_fake: errors of the re-decoded rec and fake images [B], or None to leave out a negligible `gamma_r`
        term.
      b_rec, b_kl: weights of the ELBO.
      gamma_r: weight of the re-decoding errors.
      scale: size of one pixel.
    """
    chex.assert_equal_shape([err_real, kl_rec, kl_fake])
    return _total(
        reconstruction=scale * b_rec * jnp.mean(err_real),
        adversarial=0.5 * scale * b_kl * (jnp.mean(kl_rec) + jnp.mean(kl_fake)),
        **_redecoding(err_rec, err_fake, 0.5 * scale * gamma_r * b_rec),
    )


def asintrovae_encoder_loss(
    err_real: jax.Array,
    kl_real: jax.Array,
    err_rec: jax.Array,
    kl_rec: jax.Array,
    err_fake: jax.Array,
    kl_fake: jax.Array,
    distance: jax.Array,
    kl_weight: jax.Array,
    distance_weight: jax.Array | None = None,
    *,
    b_rec: float,
    b_kl: float,
    b_neg: float,
    scale: float,
    w_enc: float | jax.Array,
    w_enc_outside: float | jax.Array | None = None,
    alpha: float | jax.Array = 2.0,
    w_exp: float = 1.0,
) -> Loss:
    """AS-IntroVAE's encoder (arXiv 2206.13903, Eqs. 6 and 9): S-IntroVAE's, with c * KL + (1 - c) * w_enc * D within
    the exponent.

    The encoder maximises D (Eq. 6; the printed signs of Eq. 9 say the opposite).

    Args:
      err_real, kl_real, err_rec, kl_rec, err_fake, kl_fake: [B].
      distance: D, the AS-Distance of two streams' codes, a scalar.
      kl_weight: c, a scalar in [0, 1].
      distance_weight: what stands in the place of 1 - c, a scalar.
      w_enc: weight of D within the exponent, beside a KL in nats.
      w_enc_outside: weight of D as a term of its own, (1 - c) * w_enc_outside * D (Eqs. 5 and 6 taken literally), which
        a saturated exponential cannot silence; beside nats and squared errors of weight 1: `scale` multiplies all
        three. None for no such term.
      w_exp: weight of the exponential, 1 in the papers; the error within it counts b_rec / w_exp. So the loss is w_exp
        times that of b_rec / w_exp and b_kl / w_exp, and a heavy KL does not drown the exponential. Where real images
        have the density p and both others q, the encoder is content with a KL of (log(w_exp * b_neg * q / (b_kl * p)) -
        alpha * scale * b_rec * err / w_exp) / (alpha * scale * b_neg) nats, and with none where that is negative: there
        KL no longer tells how many fake images are missing.
      b_rec, b_kl, b_neg, scale, alpha: as in `sintrovae_encoder_loss`.
    """
    annealed = _annealed(distance, kl_weight, distance_weight)
    inside = w_enc * annealed
    _, terms = sintrovae_encoder_loss(
        err_real, kl_real, err_rec, kl_weight * kl_rec + inside, err_fake, kl_weight * kl_fake + inside,
        b_rec=b_rec / w_exp, b_kl=b_kl / w_exp, b_neg=b_neg, scale=scale, alpha=alpha,
    )  # fmt: skip
    outside = {} if w_enc_outside is None else {"distance": -scale * w_enc_outside * annealed}
    return _total(**{name: w_exp * term for name, term in terms.items()}, **outside)


def asintrovae_decoder_loss(
    err_real: jax.Array,
    kl_rec: jax.Array,
    kl_fake: jax.Array,
    distance: jax.Array,
    kl_weight: jax.Array,
    err_rec: jax.Array | None = None,
    err_fake: jax.Array | None = None,
    distance_weight: jax.Array | None = None,
    *,
    b_rec: float,
    b_kl: float,
    gamma_r: float,
    scale: float,
    w_dec: float,
    w_dec_outside: float | None = None,
) -> Loss:
    """AS-IntroVAE's decoder (arXiv 2206.13903, Eqs. 6 and 10): S-IntroVAE's, with c * (KL_rec + KL_fake) + (1 - c) *
    w_dec * D.

    Args:
      err_real, kl_rec, kl_fake: [B].
      distance, kl_weight, distance_weight: as in `asintrovae_encoder_loss`.
      err_rec, err_fake: [B], or None to leave out a negligible `gamma_r` term.
      w_dec: weight of D, beside a KL in nats.
      w_dec_outside: weight of D as a term of its own, in the units of `w_enc_outside`: where the two are equal both
        networks play for the same stake. None for no such term.
      b_rec, b_kl, gamma_r, scale: as in `sintrovae_decoder_loss`.
    """
    chex.assert_equal_shape([err_real, kl_rec, kl_fake])
    annealed = _annealed(distance, kl_weight, distance_weight)
    divergence = kl_weight * (jnp.mean(kl_rec) + jnp.mean(kl_fake)) + w_dec * annealed
    outside = {} if w_dec_outside is None else {"distance": scale * w_dec_outside * annealed}
    return _total(
        reconstruction=scale * b_rec * jnp.mean(err_real),
        adversarial=0.5 * scale * b_kl * divergence,
        **outside,
        **_redecoding(err_rec, err_fake, 0.5 * scale * gamma_r * b_rec),
    )


def wgan_gp_critic_loss(score_real: jax.Array, score_fake: jax.Array, penalty: jax.Array, *, gp_weight: float) -> Loss:
    """WGAN-GP's critic (arXiv 1704.00028, Eq. 3); scores and penalties are [B], `gp_weight` is lambda."""
    chex.assert_equal_shape([score_real, score_fake, penalty])
    return _total(
        wasserstein=jnp.mean(score_fake) - jnp.mean(score_real), gradient_penalty=gp_weight * jnp.mean(penalty)
    )


def wgan_gp_generator_loss(score_fake: jax.Array) -> Loss:
    """WGAN-GP's generator (arXiv 1704.00028, Algorithm 1): the negative mean score; `score_fake` is [B]."""
    chex.assert_rank(score_fake, 1)
    return _total(adversarial=-jnp.mean(score_fake))


def gradient_penalty(
    critic: Callable[[jax.Array], jax.Array], real: jax.Array, fake: jax.Array, mix: jax.Array
) -> jax.Array:
    """(|grad critic| - 1)^2 between real and fake images (arXiv 1704.00028, Eq. 3), the norm taken over all non-batch
    axes.

    Args:
      critic: [B, ...] -> scores [B], each score a function of its own image alone.
      real, fake: [B, ...].
      mix: weights of the real images in [0, 1], uniform, one for each pair [B].

    Returns:
      [B], non-negative.
    """
    chex.assert_equal_shape([real, fake])
    weights = mix.reshape(mix.shape + (1,) * (real.ndim - 1))
    between = weights * real + (1 - weights) * fake
    gradient = jax.grad(lambda images: jnp.sum(critic(images)))(between)
    # The epsilon within the root keeps its derivative finite where the gradient is zero.
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=tuple(range(1, real.ndim))) + 1e-12)
    return jnp.square(norm - 1)


def squared_slope(means: Callable[[jax.Array], jax.Array], images: jax.Array, directions: jax.Array) -> jax.Array:
    """How steeply codes change with their images: |J^T v|^2 of the Jacobian J [Z, ...] of each image's mean.

    Over standard normal v its expectation is the sum of J's squares. The distance between codes is only as smooth a
    function of images as the encoder is; bounding the slope there is what arXiv 1805.11565 does for kernel distances
    of learnt features.

    Args:
      means: images [B, ...] -> means of codes [B, Z]; with batch norm an image's slope takes in its effect on the
        others' codes.
      images: [B, ...].
      directions: v [B, Z].

    Returns:
      [B], non-negative, in squared code units per squared image unit.
    """
    gradient = jax.grad(lambda images: jnp.sum(directions * means(images)))(images)
    return jnp.sum(jnp.square(gradient), axis=tuple(range(1, images.ndim)))


def _annealed(distance: jax.Array, kl_weight: jax.Array, distance_weight: jax.Array | None) -> jax.Array:
    weight = 1 - kl_weight if distance_weight is None else distance_weight
    chex.assert_rank([distance, kl_weight, weight], 0)
    return weight * distance


def _redecoding(err_rec: jax.Array | None, err_fake: jax.Array | None, weight: float) -> dict[str, jax.Array]:
    if err_rec is None or err_fake is None:
        return {}
    chex.assert_equal_shape([err_rec, err_fake])
    return {"redecoding": weight * (jnp.mean(err_rec) + jnp.mean(err_fake))}


def _total(**terms: jax.Array) -> Loss:
    return sum(terms.values(), start=jnp.zeros(())), terms
