"""AS-IntroVAE by hand: what its distance is made of, how it is weighed, and which network each of its terms moves."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_terms import decoder_terms, encoder_terms
from toy_runs import BATCH, LATENT, assert_close, is_zero, tiny_toy, toy_inputs

from asvae_jax import methods, streams
from asvae_jax.distance import as_distance
from asvae_jax.gaussians import kl_to_standard_normal, squash
from asvae_jax.losses import annealed_kl_weight
from asvae_jax.models import make_networks
from asvae_jax.update import make_update


@pytest.fixture(scope="module")
def networks():
    return make_networks(tiny_toy("asintrovae"))


def by_hand(config, step):
    """Adversarial terms of both phases from the codes, each stream's KL taken as the reading has it."""
    method = config.method
    state, images, noise = toy_inputs(config)
    encoder, decoder = state.params["encoder"], state.params["decoder"]
    networks = make_networks(config)
    _, s = streams.encoder_streams(networks, encoder, decoder, images, noise, rec_target_gradient=True)
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
    config, step = tiny_toy(f"asintrovae,{reading}", b_neg=0.002), 2
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
    config = tiny_toy("asintrovae", **words)
    metrics, terms = readings(config, step=0)
    _, c, d = by_hand(config, step=0)
    assert c == 0
    factor = (BATCH**2 if over_pairs == "sum" else 1) * (LATENT if over_dims == "sum" else 1)
    assert metrics["as_distance"] == pytest.approx(factor * d, rel=1e-4)
    assert terms["adversarial"] == pytest.approx(0.5 * 0.5 * 0.3 * factor * d, rel=1e-4)


def test_encoder_climbs_d_and_decoder_descends_it():
    # Without reconstruction and KL (step 0), D is all that the adversarial terms know.
    config = tiny_toy("asintrovae", b_rec=0.0)
    terms, decoder = encoder_terms(config, only=["encoder/adversarial", "as_distance"]), decoder_terms(config)
    d = 2 * by_hand(config, 0)[2]
    # (1 / alpha) exp(-alpha s b_neg D) has the slope -s b_neg exp(-alpha s b_neg D) in D.
    slope = -0.5 * 0.9 * np.exp(-2 * 0.5 * 0.9 * d)
    expected = jax.tree.map(lambda g: slope * g, terms["as_distance"][0])
    assert_close(terms["encoder/adversarial"][0], expected, rtol=1e-3)

    state, images, noise = toy_inputs(config)
    networks = make_networks(config)

    def distance(decoder):
        s = streams.decoder_streams(networks, state.params["encoder"], decoder, images, noise.eps_real, noise)
        return as_distance(s.q_rec, s.q_fake, squash=True, method="pairwise", over_dims="sum")

    # 0.5 s b_kl > 0
    expected = jax.tree.map(lambda g: 0.5 * 0.5 * 0.3 * g, jax.grad(distance)(state.params["decoder"]))
    assert_close(decoder["adversarial"][1], expected, rtol=1e-3)


OUTSIDE = dict(distance_in="loss", kl_schedule="none", kl_rate=0.0, w_enc=3.0, w_dec=4.0, b_neg=0.1)


@pytest.mark.parametrize("pairs", ["rec_fake", "real_fake"])
def test_distance_outside_the_exponential_stands_beside_sintrovae(pairs):
    config = tiny_toy("asintrovae", **OUTSIDE, distance_pairs=pairs)
    metrics, terms = readings(config, step=0)
    s, _, _ = by_hand(config, step=0)
    other = s.q_rec if pairs == "rec_fake" else s.q_real
    d = float(as_distance(other, s.q_fake, squash=True, method="pairwise", over_dims="sum"))
    assert metrics["as_distance"] == pytest.approx(d, rel=1e-4)
    # s is 0.5.
    assert metrics["encoder/distance"] == pytest.approx(-0.5 * 3 * d, rel=1e-4)
    assert terms["distance"] == pytest.approx(0.5 * 4 * d, rel=1e-4)
    plain_metrics, plain_terms = readings(tiny_toy("sintrovae", b_neg=0.1), step=0)
    for name in ("encoder/adversarial", "encoder/kl", "saturated", "exponent_fake"):
        assert metrics[name] == pytest.approx(float(plain_metrics[name]), rel=1e-5)
    assert terms["adversarial"] == pytest.approx(float(plain_terms["adversarial"]), rel=1e-5)


def test_without_annealing_kl_and_distance_both_have_their_whole_weight():
    config = tiny_toy("asintrovae", kl_schedule="none", kl_rate=0.0, b_neg=0.002)
    metrics, terms = readings(config, step=0)
    s, _, d = by_hand(tiny_toy("asintrovae"), step=0)
    kl = float(sum(jnp.mean(kl_to_standard_normal(q)) for q in (s.q_rec, s.q_fake)))
    assert metrics["kl_weight"] == 1
    assert terms["adversarial"] == pytest.approx(0.5 * 0.5 * 0.3 * (kl + LATENT * d), rel=1e-4)


def test_distance_between_real_and_fake_moves_the_encoder_by_both_and_the_decoder_by_fake(networks):
    config = tiny_toy("asintrovae", **OUTSIDE, distance_pairs="real_fake")
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
    config = partial(tiny_toy, "asintrovae", distance_in=where, distance_pairs="real_fake")
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


def test_a_balanced_distance_that_pulls_at_nothing_weighs_nothing():
    # Codes so narrow that far ones do not see each other: nothing bounds D, and at fake images it is flat.
    config = tiny_toy("asintrovae", balance_pulls=True, kernel="product", squash_distance=False, **OUTSIDE)
    state, images, noise = toy_inputs(config)
    head = state.params["encoder"]["head"]
    narrow = {**state.params["encoder"], "head": {**head, "bias": head["bias"].at[LATENT:].add(-40.0)}}
    _, metrics = make_update(config)(state._replace(params={**state.params, "encoder": narrow}), images, noise)
    assert metrics["decoder/distance"] == 0 and metrics["skipped"] == 0
    assert 0 < metrics["decoder/gradient_norm"] < math.inf


MEANS = dict(**OUTSIDE, distance_pairs="real_fake", kernel="product", bandwidth=1.0, squash_distance=False)


def test_distance_between_the_means_has_a_root_of_its_own():
    config = tiny_toy("asintrovae", **MEANS, root_distance=True, means_bandwidths=(0.4, 0.05))
    metrics, terms = readings(config, step=0)
    s, _, _ = by_hand(config, step=0)
    d = as_distance(s.q_real, s.q_fake, kernel="product", bandwidth=1.0)
    of_means = sum(as_distance(s.q_real, s.q_fake, kernel="means", bandwidth=h2) for h2 in (0.4, 0.05))
    assert metrics["as_distance"] == pytest.approx(float(d**0.5), rel=1e-3)
    assert metrics["means_distance"] == pytest.approx(float(of_means**0.5), rel=1e-3)
    expected = float(d**0.5 + of_means**0.5)
    assert metrics["encoder/distance"] == pytest.approx(-0.5 * 3 * expected, rel=1e-3)
    assert terms["distance"] == pytest.approx(0.5 * 4 * expected, rel=1e-3)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (5, 0.0), (7, 0.4), (10, 1.0), (20, 1.0)])
def test_distance_between_the_means_begins_to_count_when_it_is_asked_to(step, share):
    # Of 20 steps.
    config = partial(tiny_toy, "asintrovae", **MEANS)
    alone, beside, rising = (
        [metrics["encoder/distance"], terms["distance"]]
        for metrics, terms in (
            readings(config(**changes), step)
            for changes in ({}, dict(means_bandwidths=(0.05,)), dict(means_bandwidths=(0.05,), late_from=0.25))
        )
    )
    for d, both, so_far in zip(alone, beside, rising, strict=True):
        assert so_far == pytest.approx(float(d + share * (both - d)), rel=1e-5)
        assert abs(both - d) > 0.01


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (5, 1.0), (7, 0.7), (10, 0.25), (20, 0.25)])
def test_the_exponential_lasts_in_the_late_game(step, factor):
    # Of 20 steps, over 5 to 10 of which alpha falls.
    config = partial(tiny_toy, "asintrovae", **MEANS)
    late = readings(config(late_from=0.25, late_alpha_factor=0.25), step)[0]
    expected = readings(config(alpha=2 * factor), step)[0]
    for name in ("exponent_fake", "encoder/adversarial"):
        assert late[name] == pytest.approx(float(expected[name]), rel=1e-5)


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (5, 1.0), (7, 0.7), (10, 0.25), (20, 0.25)])
@pytest.mark.parametrize("where", ["loss", "exponent"])
def test_the_encoder_weighs_the_distance_otherwise_in_the_late_game(where, step, factor):
    # Of 20 steps, over 5 to 10 of which the encoder's weight falls; the decoder's stays.
    config = partial(tiny_toy, "asintrovae", **{**MEANS, "distance_in": where})
    late, of_decoder = readings(config(w_enc=3.0, late_from=0.25, late_w_enc_factor=0.25), step)
    expected, as_ever = readings(config(w_enc=3.0 * factor), step)
    for metrics, other in ((late, expected), (of_decoder, as_ever)):
        assert metrics.keys() == other.keys()
        for name, value in metrics.items():
            assert value == pytest.approx(float(other[name]), rel=1e-5), name


def test_each_of_two_balanced_distances_pulls_as_hard_as_was_asked(networks):
    config = partial(tiny_toy, "asintrovae", **MEANS, balance_pulls=True)
    state, images, noise = toy_inputs(config())
    encoder = state.params["encoder"]

    def pulls(config):
        """The gradient of the decoder's term of D by its parameters."""
        method = methods.make_method(config)

        def distance(decoder):
            z, _ = streams.encoder_streams(networks, encoder, decoder, images, noise, True)
            return method.decoder_loss(encoder, decoder, images, z, noise, jnp.int32(0))[1]["distance"]

        return jax.grad(distance)(state.params["decoder"])

    of_one, of_both = pulls(config()), pulls(config(means_bandwidths=(0.05,)))
    of_means = pulls(config(kernel="means", bandwidth=0.05))
    assert_close(of_both, jax.tree.map(jnp.add, of_one, of_means), rtol=1e-3)
    assert not is_zero(of_means)


def test_a_constant_distance_gates_and_moves_nothing():
    config = tiny_toy("asintrovae", kernel="constant", over_pairs_encoder="sum", b_neg=0.002)
    terms = encoder_terms(config, only=["as_distance"])
    assert all(is_zero(gradient) for gradient in terms["as_distance"])
    metrics, _ = readings(config, step=0)
    assert metrics["as_distance"] == BATCH**2


def test_slope_of_the_codes_reaches_the_encoder_alone():
    config = tiny_toy("asintrovae", slope_weight=0.4, slope_until=0.5)
    step = config.training.steps // 4
    state, images, noise = toy_inputs(config)
    encoder, networks = state.params["encoder"], make_networks(config)
    with_term, without = (
        methods.make_method(c).encoder_loss(encoder, state.params["decoder"], images, noise, jnp.int32(step))
        for c in (config, tiny_toy("asintrovae"))
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
    config = tiny_toy("asintrovae", slope_weight=0.4, slope_until=0.5)
    half = config.training.steps // 2
    slopes = [float(readings(config, step)[0]["encoder/slope"]) for step in (half - 1, half, half + 1)]
    assert slopes[0] > 0 and slopes[1:] == [0, 0]


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (3, 0.3), (10, 1.0), (15, 1.0)])
def test_cost_of_latents_rises_as_it_is_asked_to(step, share):
    # Of 20 steps.
    at_once, rising = (readings(tiny_toy("asintrovae", w_latent=0.6, latent_rise=r), step) for r in (0.0, 0.5))
    for name, whole, so_far in zip(("encoder/latent", "latent"), at_once, rising, strict=True):
        assert so_far[name] == pytest.approx(share * float(whole[name]), rel=1e-5) and whole[name] > 0.1


def test_latents_that_codes_do_not_tell_cost_both_networks(networks):
    config = tiny_toy("asintrovae", w_latent=0.6)
    state, _, noise = toy_inputs(config)

    def error(encoder, decoder):
        codes = networks.encode(encoder, networks.decode(decoder, noise.prior))
        return jnp.mean(jnp.sum((codes.mean - noise.prior) ** 2, axis=1))

    cost = 0.5 * 0.6 * error(state.params["encoder"], state.params["decoder"])
    by_encoder, by_decoder = jax.grad(error, argnums=(0, 1))(state.params["encoder"], state.params["decoder"])
    for phase, terms in zip(readings(config, step=0), readings(tiny_toy("asintrovae"), step=0), strict=True):
        found = {name for name in phase if phase[name] != terms[name]}
        assert len(found) == 1 and phase[found.pop()] == pytest.approx(float(cost), rel=1e-5)
    # What it is to the network whose turn it is: to the encoder fake images are given.
    of_encoder, nothing, _ = encoder_terms(config, only=["encoder/latent"])["encoder/latent"]
    assert is_zero(nothing)
    assert_close(of_encoder, jax.tree.map(lambda g: 0.3 * g, by_encoder), rtol=1e-3)
    assert_close(decoder_terms(config)["latent"][1], jax.tree.map(lambda g: 0.3 * g, by_decoder), rtol=1e-3)


def test_root_of_the_distance_is_the_distance_itself():
    config = tiny_toy("asintrovae", root_distance=True)
    metrics, _ = readings(config, step=0)
    assert metrics["as_distance"] == pytest.approx((LATENT * by_hand(config, 0)[2]) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_kl_weight_counts_all_steps_of_the_run_warm_up_included(reading):
    config = tiny_toy(f"asintrovae,{reading}")
    state, images, noise = toy_inputs(config)
    warm_up, adversarial = jax.jit(make_update(config.warmup())), jax.jit(make_update(config))
    for _ in range(2):
        state, _ = warm_up(state, images, noise)
    schedule = (lambda x: min(x, 1)) if reading == "paper" else np.tanh
    for step in (2, 3):
        state, metrics = adversarial(state, images, noise)
        assert metrics["kl_weight"] == pytest.approx(schedule(5 * step / config.training.steps), rel=1e-5)
