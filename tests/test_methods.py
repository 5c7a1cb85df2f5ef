"""Gradient routing of every method, term by term: what must move which network, and what must be exactly zero."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_terms import by_terms, decoder_terms, encoder_terms
from toy_runs import assert_close, is_zero, tiny_toy, toy_inputs

from asvae_jax import methods, streams
from asvae_jax.gaussians import Gaussian, kl_to_standard_normal, sample
from asvae_jax.losses import reconstruction_error
from asvae_jax.models import make_networks
from asvae_jax.update import make_update

INTROSPECTIVE = ("introvae", "sintrovae", "asintrovae")
# So large that re-decodings take part.
REDECODING = dict(gamma_r=1.0)
# All terms at work: hinges and exponentials that have not run dry.
ALIVE = {
    "introvae": dict(margin=50.0),
    "sintrovae": dict(**REDECODING, b_neg=0.1),
    "asintrovae": dict(**REDECODING, b_neg=0.1),
}


def stream_means(s):
    """The mean error and KL of each stream."""
    return {
        name: jnp.mean(field if name.startswith("err") else kl_to_standard_normal(field))
        for name, field in s._asdict().items()
    }


@pytest.fixture(scope="module")
def networks():
    return make_networks(tiny_toy("sintrovae"))


@pytest.fixture(scope="module")
def inputs():
    return toy_inputs(tiny_toy("sintrovae"))


@pytest.fixture(scope="module", params=INTROSPECTIVE)
def introspective(request):
    """(name, gradients of the encoder phase's terms, of the decoder phase's)."""
    config = tiny_toy(request.param, **ALIVE[request.param])
    return request.param, encoder_terms(config, step=2), decoder_terms(config, step=2)


# VAE


def test_vae_moves_both_networks_by_the_reconstruction_and_the_encoder_alone_by_the_kl():
    terms = encoder_terms(tiny_toy("vae"))
    encoder, decoder, _ = terms["encoder/reconstruction"]
    assert not is_zero(encoder) and not is_zero(decoder)
    encoder, decoder, _ = terms["encoder/kl"]
    assert not is_zero(encoder) and is_zero(decoder)


def test_vae_has_one_phase():
    assert methods.make_method(tiny_toy("vae")).decoder_loss is None


def test_warm_up_is_the_plain_vae_in_pixel_units():
    # IntroVAE's own losses have no scale, its warm-up has.
    setting = tiny_toy("introvae").warmup().method
    assert (setting.name, setting.b_rec, setting.b_kl, setting.scale) == ("vae", 0.2, 0.3, 0.5)


def test_warm_up_has_the_scale_of_its_method():
    assert tiny_toy("sintrovae", method__scale=0.3).warmup().method.scale == 0.3


# Encoder phase


def test_every_term_of_the_encoder_phase_moves_the_encoder(introspective):
    _, terms, _ = introspective
    for term in ("encoder/reconstruction", "encoder/kl", "encoder/adversarial"):
        assert not is_zero(terms[term][0]), term


def test_codes_of_rec_and_fake_give_their_images_no_gradient_in_the_encoder_phase(introspective):
    name, terms, _ = introspective
    for term in ("kl_rec", "kl_fake", *(["as_distance"] if name == "asintrovae" else [])):
        encoder, decoder, images = terms[term]
        # The decoder made the images of both streams, the data those of rec.
        assert not is_zero(encoder), term
        assert is_zero(decoder) and is_zero(images), term


def test_kl_of_real_codes_knows_no_decoder(introspective):
    _, terms, _ = introspective
    encoder, decoder, images = terms["kl_real"]
    assert not is_zero(encoder) and is_zero(decoder) and not is_zero(images)


def test_encoder_sees_rec_and_fake_as_a_variant_by_hand_with_constant_images(introspective, networks, inputs):
    _, terms, _ = introspective
    state, images, noise = inputs
    encoder, decoder = state.params["encoder"], state.params["decoder"]
    rec = networks.decode(decoder, sample(networks.encode(encoder, images), noise.eps_real))
    fake = networks.decode(decoder, noise.prior)

    def mean_kl(encoder, constant):
        return jnp.mean(kl_to_standard_normal(networks.encode(encoder, constant)))

    assert_close(terms["kl_rec"][0], jax.grad(mean_kl)(encoder, rec), rtol=1e-5)
    assert_close(terms["kl_fake"][0], jax.grad(mean_kl)(encoder, fake), rtol=1e-5)


@pytest.mark.parametrize("rec_target_gradient", [True, False])
def test_rec_target_gradient_switch(rec_target_gradient, networks, inputs):
    state, images, noise = inputs
    encoder, decoder = state.params["encoder"], state.params["decoder"]

    def means(encoder, images):
        _, s = streams.encoder_streams(networks, encoder, decoder, images, noise, rec_target_gradient)
        return stream_means(s)

    gradients = by_terms(means)(encoder, images)
    # The rec image is the only way from the data to its error.
    assert is_zero(gradients["err_rec"][1]) is not rec_target_gradient
    # A fake image has no way to the data, switch or not.
    assert is_zero(gradients["err_fake"][1])

    def err_rec(encoder, target_encoder):
        target = networks.decode(decoder, sample(networks.encode(target_encoder, images), noise.eps_real))
        q_rec = networks.encode(encoder, jax.lax.stop_gradient(target))
        return jnp.mean(reconstruction_error(target, networks.decode(decoder, sample(q_rec, noise.eps_rec))))

    as_judge, as_target = jax.grad(err_rec, argnums=(0, 1))(encoder, encoder)
    assert not is_zero(as_target)
    expected = jax.tree.map(jnp.add, as_judge, as_target) if rec_target_gradient else as_judge
    assert_close(gradients["err_rec"][0], expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["sintrovae", "asintrovae"])
def test_methods_obey_the_rec_target_switch(name):
    for switch in (True, False):
        config = tiny_toy(name, rec_target_gradient=switch)
        _, _, images = encoder_terms(config, step=2, only=["encoder/adversarial"])["encoder/adversarial"]
        assert is_zero(images) is not switch


def test_z_is_the_sample_of_the_real_codes(inputs, networks):
    state, images, noise = inputs
    encoder, decoder = state.params["encoder"], state.params["decoder"]
    expected = sample(networks.encode(encoder, images), noise.eps_real)
    for name in ("vae", *INTROSPECTIVE):
        phase = methods.make_method(tiny_toy(name)).encoder_loss(encoder, decoder, images, noise, jnp.int32(0))
        np.testing.assert_allclose(phase.z, expected, rtol=1e-6, atol=1e-7)


# Decoder phase


def test_every_method_gives_its_decoder_the_reconstruction_gradient(introspective):
    _, _, terms = introspective
    encoder, decoder, z = terms["reconstruction"]
    assert not is_zero(decoder)
    # z is the encoder's sample, and a constant.
    assert is_zero(z) and is_zero(encoder)


def test_gradients_pass_through_the_frozen_encoder_to_the_decoder(introspective):
    _, _, terms = introspective
    _, decoder, z = terms["adversarial"]
    assert not is_zero(decoder)
    assert is_zero(z)


@pytest.mark.parametrize("stream", ["rec", "fake"])
def test_codes_of_both_streams_move_the_decoder(stream, networks, inputs):
    state, images, noise = inputs

    def means(decoder):
        return stream_means(
            streams.decoder_streams(networks, state.params["encoder"], decoder, images, noise.eps_real, noise)
        )

    gradients = by_terms(means)(state.params["decoder"])
    assert not is_zero(gradients[f"q_{stream}"])


def test_redecodings_move_the_decoder_alone(introspective):
    name, _, terms = introspective
    assert ("redecoding" in terms) is (name != "introvae")
    if name != "introvae":
        encoder, decoder, z = terms["redecoding"]
        assert not is_zero(decoder)
        assert is_zero(encoder) and is_zero(z)


def test_redecodings_see_codes_and_targets_as_constants(introspective, networks, inputs):
    name, _, terms = introspective
    if name == "introvae":
        assert "redecoding" not in terms
        return
    state, _, noise = inputs
    encoder, decoder = state.params["encoder"], state.params["decoder"]
    rec, fake = networks.decode(decoder, noise.eps_real), networks.decode(decoder, noise.prior)
    z_rec = sample(networks.encode(encoder, rec), noise.eps_rec_decoder)
    z_fake = sample(networks.encode(encoder, fake), noise.eps_fake_decoder)

    def by_hand(decoder):
        errors = [
            reconstruction_error(image, networks.decode(decoder, z)) for image, z in ((rec, z_rec), (fake, z_fake))
        ]
        return 0.5 * 0.5 * 1.0 * 0.2 * jnp.mean(sum(errors))

    assert_close(terms["redecoding"][1], jax.grad(by_hand)(decoder), rtol=1e-5)


def test_gamma_r_decides_about_redecodings_and_the_decoder_but_not_the_encoder():
    negligible, large = tiny_toy("asintrovae"), tiny_toy("asintrovae", **REDECODING)
    assert negligible.method.gamma_r <= streams.NEGLIGIBLE_GAMMA_R
    state, images, noise = toy_inputs(negligible)
    (without, metrics), (with_it, more) = (jax.jit(make_update(c))(state, images, noise) for c in (negligible, large))
    assert "decoder/redecoding" not in metrics and "decoder/redecoding" in more
    jax.tree.map(np.testing.assert_array_equal, without.params["encoder"], with_it.params["encoder"])
    # Adam's first moment is the gradient.
    moved = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), *(s.opt_state["decoder"] for s in (without, with_it)))
    assert max(map(float, jax.tree.leaves(moved))) > 1e-4


@pytest.mark.parametrize("name", INTROSPECTIVE)
def test_decoder_phase_judges_by_the_updated_encoder_with_the_same_z_and_noise(name):
    # A rate at which one step moves the encoder visibly.
    config = tiny_toy(name, optimizer__learning_rate=0.2, **ALIVE[name])
    state, images, noise = toy_inputs(config)
    method = methods.make_method(config)
    new, metrics = jax.jit(make_update(config))(state, images, noise)
    z = sample(make_networks(config).encode(state.params["encoder"], images), noise.eps_real)
    decoder_loss = jax.jit(
        lambda encoder: method.decoder_loss(encoder, state.params["decoder"], images, z, noise, jnp.int32(0))[0]
    )
    updated, old = decoder_loss(new.params["encoder"]), decoder_loss(state.params["encoder"])
    assert metrics["decoder/loss"] == pytest.approx(float(updated), rel=1e-4)
    assert metrics["decoder/loss"] != pytest.approx(float(old), rel=1e-2)


# WGAN-GP


def test_critic_does_not_move_the_generator():
    terms = encoder_terms(tiny_toy("wgan_gp"))
    for term in ("encoder/wasserstein", "encoder/gradient_penalty"):
        critic, generator, _ = terms[term]
        assert not is_zero(critic) and is_zero(generator), term


def test_generator_is_judged_on_fresh_codes_and_never_sees_the_data():
    config = tiny_toy("wgan_gp")
    state, images, noise = toy_inputs(config)
    method, networks = methods.make_method(config), make_networks(config)
    critic, generator = state.params["encoder"], state.params["decoder"]
    loss = partial(method.decoder_loss, critic, z=noise.prior, step=jnp.int32(0))
    value, _ = loss(generator, images, noise=noise)
    expected = -jnp.mean(networks.critic(critic, networks.decode(generator, noise.eps_fake)))
    assert value == pytest.approx(float(expected), rel=1e-5)
    assert value == loss(generator, images + 1, noise=noise._replace(prior=noise.prior + 1))[0]
    assert not is_zero(jax.grad(lambda generator: loss(generator, images, noise=noise)[0])(generator))


def test_critic_moves_at_each_step_and_generator_at_every_third():
    config = tiny_toy("wgan_gp", critic_steps=3)
    state, images, noise = toy_inputs(config)
    update = jax.jit(make_update(config))
    moved = []
    for _ in range(6):
        new, metrics = update(state, images, noise)
        still = {name: is_zero(jax.tree.map(jnp.subtract, new.params[name], state.params[name])) for name in new.params}
        moved.append(not still["decoder"])
        assert not still["encoder"]
        # Off its turn its optimiser rests too.
        counts = [int(s.opt_state["decoder"][0].count) for s in (state, new)]
        assert counts[1] - counts[0] == moved[-1]
        # What did not happen is not logged as a zero.
        resting = {key: bool(jnp.isnan(value)) for key, value in metrics.items()}
        assert resting == {key: key.startswith("decoder/") and not moved[-1] for key in metrics}
        state = new
    assert moved == [False, False, True] * 2


def test_wgan_gp_without_mixing_weights_is_refused():
    config = tiny_toy("wgan_gp")
    state, images, noise = toy_inputs(config)
    with pytest.raises(ValueError, match=r"wgan_gp needs StepNoise\.mix"):
        make_update(config)(state, images, noise._replace(mix=None))


# What is logged


def test_logged_terms_add_up_to_the_loss():
    for name in ("vae", *INTROSPECTIVE, "wgan_gp"):
        config = tiny_toy(name)
        state, images, noise = toy_inputs(config)
        params = state.params
        phase = methods.make_method(config).encoder_loss(
            params["encoder"], params["decoder"], images, noise, jnp.int32(0)
        )
        terms = [value for key, value in phase.metrics.items() if key.startswith("encoder/")]
        assert phase.loss == pytest.approx(float(sum(terms)), rel=1e-5), name


def test_clamped_log_variances_are_counted():
    for low_high, expected in (((-30.0, 20.0), 0.0), ((5.0, 6.0), 1.0)):
        config = tiny_toy("vae", model__logvar_range=low_high)
        state, images, noise = toy_inputs(config)
        params = state.params
        phase = methods.make_method(config).encoder_loss(
            params["encoder"], params["decoder"], images, noise, jnp.int32(0)
        )
        assert phase.metrics["clamped_logvars"] == expected


def test_active_units_are_the_dimensions_whose_means_vary():
    config = tiny_toy("vae")
    varied = jnp.linspace(-1, 1, 8)
    q = Gaussian(jnp.stack([varied, 0.01 * varied, varied + 3], axis=1), jnp.zeros((8, 3)))
    assert streams.code_health(config, [q])["active_units"] == 2


def test_saturation_is_the_share_of_examples_below_a_millionth():
    setting = tiny_toy("sintrovae").method
    # Exponents -2 * 0.5 * (0.2 * err + 0.9 * kl): -1 and -100.
    metrics = streams.saturation(setting, jnp.array([0.5, 50.0]), jnp.array([1.0, 100.0]), alpha=2.0)
    assert metrics["saturated"] == 0.5
    assert metrics["exponent_fake"] == pytest.approx(-50.5, rel=1e-5)
