"""Gradient routing of every method, term by term: what must move which network, and what must be exactly zero."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_runs import BATCH, LATENT, assert_close, is_zero, toy_config, toy_inputs

from asvae_jax import methods
from asvae_jax.distance import as_distance
from asvae_jax.gaussians import Gaussian, kl_to_standard_normal, sample, squash
from asvae_jax.losses import annealed_kl_weight, reconstruction_error
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


def by_terms(function):
    """Gradients of every entry of a dictionary with respect to each argument: {term: (gradient, ...)}."""
    return jax.jit(lambda *arguments: jax.jacrev(function, argnums=tuple(range(len(arguments))))(*arguments))


def encoder_terms(config, step=0, only=None):
    """{term: (by encoder, by decoder, by images)} of the encoder phase, of all its terms or of some."""
    state, images, noise = toy_inputs(config)
    loss = methods.make_method(config).encoder_loss

    def metrics(encoder, decoder, images):
        found = loss(encoder, decoder, images, noise, jnp.int32(step)).metrics
        return {term: found[term] for term in only or found}

    terms = by_terms(metrics)
    return terms(state.params["encoder"], state.params["decoder"], images)


def decoder_terms(config, step=0):
    """{term: (by encoder, by decoder, by z)} of the decoder phase."""
    state, images, noise = toy_inputs(config)
    loss = methods.make_method(config).decoder_loss
    terms = by_terms(lambda encoder, decoder, z: loss(encoder, decoder, images, z, noise, jnp.int32(step))[1])
    return terms(state.params["encoder"], state.params["decoder"], noise.eps_real)


def stream_means(streams):
    """The mean error and KL of each stream."""
    return {
        name: jnp.mean(field if name.startswith("err") else kl_to_standard_normal(field))
        for name, field in streams._asdict().items()
        if name != "z"
    }


@pytest.fixture(scope="module")
def networks():
    return make_networks(toy_config("sintrovae"))


@pytest.fixture(scope="module")
def inputs():
    return toy_inputs(toy_config("sintrovae"))


@pytest.fixture(scope="module", params=INTROSPECTIVE)
def introspective(request):
    """(name, gradients of the encoder phase's terms, of the decoder phase's)."""
    config = toy_config(request.param, **ALIVE[request.param])
    return request.param, encoder_terms(config, step=2), decoder_terms(config, step=2)


# VAE


def test_vae_moves_both_networks_by_the_reconstruction_and_the_encoder_alone_by_the_kl():
    terms = encoder_terms(toy_config("vae"))
    encoder, decoder, _ = terms["encoder/reconstruction"]
    assert not is_zero(encoder) and not is_zero(decoder)
    encoder, decoder, _ = terms["encoder/kl"]
    assert not is_zero(encoder) and is_zero(decoder)


def test_vae_has_one_phase():
    assert methods.make_method(toy_config("vae")).decoder_loss is None


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
        return stream_means(
            methods.encoder_streams(networks, encoder, decoder, images, noise, rec_target_gradient=rec_target_gradient)
        )

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
        config = toy_config(name, rec_target_gradient=switch)
        _, _, images = encoder_terms(config, step=2, only=["encoder/adversarial"])["encoder/adversarial"]
        assert is_zero(images) is not switch


def test_z_is_the_sample_of_the_real_codes(inputs, networks):
    state, images, noise = inputs
    encoder, decoder = state.params["encoder"], state.params["decoder"]
    expected = sample(networks.encode(encoder, images), noise.eps_real)
    for name in ("vae", *INTROSPECTIVE):
        phase = methods.make_method(toy_config(name)).encoder_loss(encoder, decoder, images, noise, jnp.int32(0))
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
            methods.decoder_streams(networks, state.params["encoder"], decoder, images, noise.eps_real, noise)
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
    negligible, large = toy_config("asintrovae"), toy_config("asintrovae", **REDECODING)
    assert negligible.method.gamma_r <= methods.NEGLIGIBLE_GAMMA_R
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
    config = toy_config(name, optimizer__learning_rate=0.2, **ALIVE[name])
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


# AS-IntroVAE


def by_hand(config, step):
    """Adversarial terms of both phases from the codes, each stream's KL taken as the reading has it."""
    method = config.method
    state, images, noise = toy_inputs(config)
    encoder, decoder = state.params["encoder"], state.params["decoder"]
    networks = make_networks(config)
    s = methods.encoder_streams(networks, encoder, decoder, images, noise, rec_target_gradient=True)
    c = float(annealed_kl_weight(step, total_steps=config.training.steps, schedule=method.kl_schedule))
    # Per pair and per dimension, before any weight.
    d = float(as_distance(s.q_rec, s.q_fake, squash=True, method="pairwise"))
    return s, c, d


def readings(config, step):
    state, images, noise = toy_inputs(config)
    method = methods.make_method(config)
    encoder, decoder = state.params["encoder"], state.params["decoder"]
    phase = method.encoder_loss(encoder, decoder, images, noise, jnp.int32(step))
    _, terms = method.decoder_loss(encoder, decoder, images, phase.z, noise, jnp.int32(step))
    return phase.metrics, terms


@pytest.mark.parametrize(
    ("reading", "encoder_factor", "decoder_factor", "squashed_kl"),
    [("paper", LATENT, LATENT, False), ("released", BATCH * BATCH * LATENT, 1, True)],
)
def test_readings_weigh_d_and_squash_the_kl_where_they_say(reading, encoder_factor, decoder_factor, squashed_kl):
    # So small a b_neg that the summed distance does not saturate the exponential.
    config, step = toy_config(f"asintrovae,{reading}", b_neg=0.002), 2
    metrics, terms = readings(config, step)
    s, c, d = by_hand(config, step)
    assert 0.2 < c < 0.6 and d > 1e-3
    kl_rec, kl_fake = kl_to_standard_normal(s.q_rec), kl_to_standard_normal(s.q_fake)
    # Raw in the encoder phase, whatever the reading.
    assert metrics["kl_rec"] == pytest.approx(float(jnp.mean(kl_rec)), rel=1e-5)
    blends = [c * kl + (1 - c) * encoder_factor * d for kl in (kl_rec, kl_fake)]
    exponentials = [
        jnp.exp(-2 * 0.5 * (0.2 * err + 0.002 * blend))
        for err, blend in zip((s.err_rec, s.err_fake), blends, strict=True)
    ]
    expected = float(sum(map(jnp.mean, exponentials))) / 4
    assert metrics["encoder/adversarial"] == pytest.approx(expected, rel=1e-4)

    judged = [kl_to_standard_normal(squash(q) if squashed_kl else q) for q in (s.q_rec, s.q_fake)]
    kl = float(sum(map(jnp.mean, judged)))
    expected = 0.5 * 0.5 * 0.3 * (c * kl + (1 - c) * decoder_factor * d)
    assert terms["adversarial"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("over_pairs", ["mean", "sum"])
@pytest.mark.parametrize("over_dims", ["mean", "sum"])
def test_sums_are_the_batch_squared_and_z_times_the_means(over_pairs, over_dims):
    words = dict(
        over_pairs_encoder=over_pairs,
        over_dims_encoder=over_dims,
        over_pairs_decoder=over_pairs,
        over_dims_decoder=over_dims,
    )
    # At step 0 the KL weighs nothing, so that the decoder's adversarial term is 0.5 s b_kl D.
    config = toy_config("asintrovae", **words)
    metrics, terms = readings(config, step=0)
    _, c, d = by_hand(config, step=0)
    assert c == 0
    factor = (BATCH**2 if over_pairs == "sum" else 1) * (LATENT if over_dims == "sum" else 1)
    assert metrics["as_distance"] == pytest.approx(factor * d, rel=1e-4)
    assert terms["adversarial"] == pytest.approx(0.5 * 0.5 * 0.3 * factor * d, rel=1e-4)


def test_encoder_climbs_d_and_decoder_descends_it():
    # Without reconstruction and KL (step 0), D is all that the adversarial terms know.
    config = toy_config("asintrovae", b_rec=0.0)
    terms, decoder = encoder_terms(config, only=["encoder/adversarial", "as_distance"]), decoder_terms(config)
    d = 2 * by_hand(config, 0)[2]
    # (1 / alpha) exp(-alpha s b_neg D) has the slope -s b_neg exp(-alpha s b_neg D) in D.
    slope = -0.5 * 0.9 * np.exp(-2 * 0.5 * 0.9 * d)
    expected = jax.tree.map(lambda g: slope * g, terms["as_distance"][0])
    assert_close(terms["encoder/adversarial"][0], expected, rtol=1e-3)

    state, images, noise = toy_inputs(config)
    networks = make_networks(config)

    def distance(decoder):
        s = methods.decoder_streams(networks, state.params["encoder"], decoder, images, noise.eps_real, noise)
        return as_distance(s.q_rec, s.q_fake, squash=True, method="pairwise", over_dims="sum")

    # 0.5 s b_kl > 0
    expected = jax.tree.map(lambda g: 0.5 * 0.5 * 0.3 * g, jax.grad(distance)(state.params["decoder"]))
    assert_close(decoder["adversarial"][1], expected, rtol=1e-3)


OUTSIDE = dict(distance_in="loss", kl_schedule="none", kl_rate=0.0, w_enc=3.0, w_dec=4.0, b_neg=0.1)


@pytest.mark.parametrize("pairs", ["rec_fake", "real_fake"])
def test_distance_outside_the_exponential_stands_beside_sintrovae(pairs):
    config = toy_config("asintrovae", **OUTSIDE, distance_pairs=pairs)
    metrics, terms = readings(config, step=0)
    s, _, _ = by_hand(config, step=0)
    other = s.q_rec if pairs == "rec_fake" else s.q_real
    d = float(as_distance(other, s.q_fake, squash=True, method="pairwise", over_dims="sum"))
    assert metrics["as_distance"] == pytest.approx(d, rel=1e-4)
    # s is 0.5.
    assert metrics["encoder/distance"] == pytest.approx(-0.5 * 3 * d, rel=1e-4)
    assert terms["distance"] == pytest.approx(0.5 * 4 * d, rel=1e-4)
    plain_metrics, plain_terms = readings(toy_config("sintrovae", b_neg=0.1), step=0)
    for name in ("encoder/adversarial", "encoder/kl", "saturated", "exponent_fake"):
        assert metrics[name] == pytest.approx(float(plain_metrics[name]), rel=1e-5)
    assert terms["adversarial"] == pytest.approx(float(plain_terms["adversarial"]), rel=1e-5)


def test_without_annealing_kl_and_distance_both_have_their_whole_weight():
    config = toy_config("asintrovae", kl_schedule="none", kl_rate=0.0, b_neg=0.002)
    metrics, terms = readings(config, step=0)
    s, _, d = by_hand(toy_config("asintrovae"), step=0)
    kl = float(sum(jnp.mean(kl_to_standard_normal(q)) for q in (s.q_rec, s.q_fake)))
    assert metrics["kl_weight"] == 1
    assert terms["adversarial"] == pytest.approx(0.5 * 0.5 * 0.3 * (kl + LATENT * d), rel=1e-4)


def test_distance_between_real_and_fake_moves_the_encoder_by_both_and_the_decoder_by_fake(networks):
    config = toy_config("asintrovae", **OUTSIDE, distance_pairs="real_fake")
    state, images, noise = toy_inputs(config)
    encoder, decoder = state.params["encoder"], state.params["decoder"]

    def distance(encoder_of_real, encoder_of_fake, decoder):
        fake = networks.encode(encoder_of_fake, networks.decode(decoder, noise.prior))
        return as_distance(networks.encode(encoder_of_real, images), fake, squash=True, over_dims="sum")

    by_real, by_fake, by_decoder = jax.grad(distance, argnums=(0, 1, 2))(encoder, encoder, decoder)
    of_encoder, of_decoder, _ = encoder_terms(config, only=["encoder/distance"])["encoder/distance"]
    assert not is_zero(by_real) and not is_zero(by_fake) and is_zero(of_decoder)
    assert_close(of_encoder, jax.tree.map(lambda a, b: -0.5 * 3 * (a + b), by_real, by_fake), rtol=1e-3)
    assert_close(decoder_terms(config)["distance"][1], jax.tree.map(lambda g: 0.5 * 4 * g, by_decoder), rtol=1e-3)


@pytest.mark.parametrize(("where", "unit"), [("loss", 1.0), ("exponent", 0.5 * 0.3)])
def test_a_balanced_distance_pulls_at_fake_images_as_many_times_as_hard_as_kl_as_was_asked(networks, where, unit):
    config = partial(toy_config, "asintrovae", distance_in=where, distance_pairs="real_fake")
    fixed, balanced, without = config(w_dec=1.0), config(w_dec=5.0, balance_pulls=True), config(w_dec=0.0)
    state, images, noise = toy_inputs(fixed)
    encoder = state.params["encoder"]
    fake = networks.decode(state.params["decoder"], noise.prior)

    def kl(fake):
        return 0.5 * 0.3 * jnp.mean(kl_to_standard_normal(networks.encode(encoder, fake)))

    def distance(fake):
        codes = networks.encode(encoder, images), networks.encode(encoder, fake)
        return unit * as_distance(*codes, squash=True, over_dims="sum")

    of_kl, of_distance = (jnp.linalg.norm(jax.grad(pull)(fake)) for pull in (kl, distance))
    term = "distance" if where == "loss" else "adversarial"
    by_fixed, by_balanced, by_rest = (decoder_terms(c)[term][1] for c in (fixed, balanced, without))
    one, asked = (jax.tree.map(jnp.subtract, by_all, by_rest) for by_all in (by_fixed, by_balanced))
    assert_close(asked, jax.tree.map(lambda g: 5 * of_kl / of_distance * g, one), rtol=1e-3)


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (10, 1.0), (15, 2.0), (20, 3.0)])
@pytest.mark.parametrize("balance_pulls", [False, True])
def test_the_decoders_stake_grows_over_the_second_half(step, factor, balance_pulls):
    # Of 20 steps.
    config = partial(
        toy_config, "asintrovae", distance_in="loss", distance_pairs="real_fake", kl_schedule="none", kl_rate=0.0,
        balance_pulls=balance_pulls,
    )  # fmt: skip
    one, grown = (readings(config(w_dec_growth=growth), step)[1]["distance"] for growth in (1.0, 3.0))
    assert grown == pytest.approx(factor * float(one), rel=1e-5)


def test_a_constant_distance_gates_and_moves_nothing():
    config = toy_config("asintrovae", kernel="constant", over_pairs_encoder="sum", b_neg=0.002)
    terms = encoder_terms(config, only=["as_distance"])
    assert all(is_zero(gradient) for gradient in terms["as_distance"])
    metrics, _ = readings(config, step=0)
    assert metrics["as_distance"] == BATCH**2


def test_slope_of_the_codes_reaches_the_encoder_alone():
    config = toy_config("asintrovae", slope_weight=0.4, slope_until=0.5)
    step = config.training.steps // 4
    state, images, noise = toy_inputs(config)
    encoder, networks = state.params["encoder"], make_networks(config)
    with_term, without = (
        methods.make_method(c).encoder_loss(encoder, state.params["decoder"], images, noise, jnp.int32(step))
        for c in (config, toy_config("asintrovae"))
    )
    jacobians = jax.vmap(jax.jacrev(lambda x: networks.encode(encoder, x[None]).mean[0]))(images)
    along = jnp.einsum("bz,bzd->bd", noise.eps_fake, jacobians)
    # Half of the pixel's size times the weight, of which half is left.
    term = 0.5 * 0.5 * (0.5 * 0.4) * jnp.mean(jnp.sum(along**2, axis=1))
    assert with_term.metrics["encoder/slope"] == pytest.approx(float(term), rel=1e-4)
    assert with_term.loss == pytest.approx(float(without.loss + term), rel=1e-5)
    of_encoder, of_decoder, _ = encoder_terms(config, only=["encoder/slope"])["encoder/slope"]
    assert not is_zero(of_encoder) and is_zero(of_decoder)


def test_slope_of_the_codes_is_free_once_the_bound_has_fallen():
    config = toy_config("asintrovae", slope_weight=0.4, slope_until=0.5)
    half = config.training.steps // 2
    slopes = [float(readings(config, step)[0]["encoder/slope"]) for step in (half - 1, half, half + 1)]
    assert slopes[0] > 0 and slopes[1:] == [0, 0]


def test_root_of_the_distance_is_the_distance_itself():
    config = toy_config("asintrovae", root_distance=True)
    metrics, _ = readings(config, step=0)
    assert metrics["as_distance"] == pytest.approx((LATENT * by_hand(config, 0)[2]) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_kl_weight_counts_all_steps_of_the_run_warm_up_included(reading):
    config = toy_config(f"asintrovae,{reading}")
    state, images, noise = toy_inputs(config)
    warm_up, adversarial = jax.jit(make_update(config.warmup())), jax.jit(make_update(config))
    for _ in range(2):
        state, _ = warm_up(state, images, noise)
    schedule = (lambda x: min(x, 1)) if reading == "paper" else np.tanh
    for step in (2, 3):
        state, metrics = adversarial(state, images, noise)
        assert metrics["kl_weight"] == pytest.approx(schedule(5 * step / config.training.steps), rel=1e-5)


def test_warm_up_is_the_plain_vae_in_pixel_units():
    # IntroVAE's own losses have no scale, its warm-up has.
    setting = toy_config("introvae").warmup().method
    assert (setting.name, setting.b_rec, setting.b_kl, setting.scale) == ("vae", 0.2, 0.3, 0.5)


# WGAN-GP


def test_critic_does_not_move_the_generator():
    terms = encoder_terms(toy_config("wgan_gp"))
    for term in ("encoder/wasserstein", "encoder/gradient_penalty"):
        critic, generator, _ = terms[term]
        assert not is_zero(critic) and is_zero(generator), term


def test_generator_is_judged_on_fresh_codes_and_never_sees_the_data():
    config = toy_config("wgan_gp")
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
    config = toy_config("wgan_gp", critic_steps=3)
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
    config = toy_config("wgan_gp")
    state, images, noise = toy_inputs(config)
    with pytest.raises(ValueError, match=r"wgan_gp needs StepNoise\.mix"):
        make_update(config)(state, images, noise._replace(mix=None))


# What is logged


def test_logged_terms_add_up_to_the_loss():
    for name in ("vae", *INTROSPECTIVE, "wgan_gp"):
        config = toy_config(name)
        state, images, noise = toy_inputs(config)
        params = state.params
        phase = methods.make_method(config).encoder_loss(
            params["encoder"], params["decoder"], images, noise, jnp.int32(0)
        )
        terms = [value for key, value in phase.metrics.items() if key.startswith("encoder/")]
        assert phase.loss == pytest.approx(float(sum(terms)), rel=1e-5), name


def test_clamped_log_variances_are_counted():
    for low_high, expected in (((-30.0, 20.0), 0.0), ((5.0, 6.0), 1.0)):
        config = toy_config("vae", model__logvar_range=low_high)
        state, images, noise = toy_inputs(config)
        params = state.params
        phase = methods.make_method(config).encoder_loss(
            params["encoder"], params["decoder"], images, noise, jnp.int32(0)
        )
        assert phase.metrics["clamped_logvars"] == expected


def test_active_units_are_the_dimensions_whose_means_vary():
    config = toy_config("vae")
    varied = jnp.linspace(-1, 1, 8)
    q = Gaussian(jnp.stack([varied, 0.01 * varied, varied + 3], axis=1), jnp.zeros((8, 3)))
    assert methods._code_health(config, [q])["active_units"] == 2


def test_saturation_is_the_share_of_examples_below_a_millionth():
    setting = toy_config("sintrovae").method
    # Exponents -2 * 0.5 * (0.2 * err + 0.9 * kl): -1 and -100.
    metrics = methods._saturation(setting, jnp.array([0.5, 50.0]), jnp.array([1.0, 100.0]))
    assert metrics["saturated"] == 0.5
    assert metrics["exponent_fake"] == pytest.approx(-50.5, rel=1e-5)
