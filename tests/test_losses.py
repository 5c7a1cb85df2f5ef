"""Every loss against a value worked out by hand, and every one of its numbers against being ignored."""

import inspect
import math
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvae_jax import losses

# Means: err_real 2, kl_real 3, kl_rec 1.5, kl_fake 10, err_rec 5, err_fake 6.
BATCH = dict(
    err_real=jnp.array([1.0, 3.0]),
    kl_real=jnp.array([2.0, 4.0]),
    err_rec=jnp.array([4.0, 6.0]),
    kl_rec=jnp.array([1.0, 2.0]),
    err_fake=jnp.array([5.0, 7.0]),
    kl_fake=jnp.array([9.0, 11.0]),
    distance=jnp.array(0.5),
    kl_weight=jnp.array(0.25),
    distance_weight=jnp.array(0.75),
    score_real=jnp.array([1.0, 2.0]),
    score_fake=jnp.array([-1.0, 4.0]),
    penalty=jnp.array([0.25, 0.75]),
)
NUMBERS = dict(
    b_rec=0.5, b_kl=2.0, b_neg=0.4, scale=0.1, alpha=2.0, margin=5.0, gamma_r=0.3, w_enc=3.0, w_dec=4.0,
    w_enc_outside=2.0, w_dec_outside=6.0, gp_weight=10.0, w_exp=1.2,
)  # fmt: skip
LOSSES = {name: function for name, function in vars(losses).items() if name.endswith("_loss")}


def arguments(loss):
    """(arrays, numbers) of a loss by the names in its signature."""
    parameters = inspect.signature(loss).parameters.values()
    arrays = {p.name: BATCH[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    return arrays, {p.name: NUMBERS[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


def evaluate(name, **changes):
    arrays, numbers = arguments(LOSSES[name])
    return LOSSES[name](**{**arrays, **numbers, **changes})


def soft_exp(err, divergence, weight=-2 * 0.1, b_rec=0.5):
    """exp(-alpha s (b_rec err + b_neg divergence)) with the numbers above."""
    return math.exp(weight * (b_rec * err + 0.4 * divergence))


# Means, then 1 / (2 alpha).
S_ADVERSARIAL = (soft_exp(4, 1) + soft_exp(6, 2) + soft_exp(5, 9) + soft_exp(7, 11)) / 2 / 4
# Blend: 0.25 KL + 0.75 * 3 * 0.5.
AS_BLEND = {kl: 0.25 * kl + 1.125 for kl in (1, 2, 9, 11)}
AS_ADVERSARIAL = (
    1.2 * sum(soft_exp(err, AS_BLEND[kl], b_rec=0.5 / 1.2) for err, kl in ((4, 1), (6, 2), (5, 9), (7, 11))) / 2 / 4
)

BY_HAND = {
    # 0.1 * 0.5 * 2, 0.1 * 2 * 3
    "vae_loss": dict(reconstruction=0.1, kl=0.6),
    # 0.5 * 2, 2 * 3, 0.5 * 2 * 0.4 * (max(0, 5 - 1.5) + max(0, 5 - 10))
    "introvae_encoder_loss": dict(reconstruction=1.0, kl=6.0, adversarial=1.4),
    # 0.5 * 2, 0.5 * 2 * (1.5 + 10)
    "introvae_decoder_loss": dict(reconstruction=1.0, adversarial=11.5),
    "sintrovae_encoder_loss": dict(reconstruction=0.1, kl=0.6, adversarial=S_ADVERSARIAL),
    # 0.1 * 0.5 * 2, 0.5 * 0.1 * 2 * 11.5, 0.5 * 0.1 * 0.3 * 0.5 * (5 + 6)
    "sintrovae_decoder_loss": dict(reconstruction=0.1, adversarial=1.15, redecoding=0.0825),
    # 0.1 * 2 * 0.75 * 0.5 stands outside.
    "asintrovae_encoder_loss": dict(reconstruction=0.1, kl=0.6, adversarial=AS_ADVERSARIAL, distance=-0.075),
    # 0.5 * 0.1 * 2 * (0.25 * 11.5 + 0.75 * 4 * 0.5), 0.1 * 6 * 0.75 * 0.5
    "asintrovae_decoder_loss": dict(reconstruction=0.1, adversarial=0.4375, distance=0.225, redecoding=0.0825),
    # 1.5 - 1.5, 10 * 0.5
    "wgan_gp_critic_loss": dict(wasserstein=0.0, gradient_penalty=5.0),
    "wgan_gp_generator_loss": dict(adversarial=-1.5),
}


def test_every_loss_has_its_hand_value():
    assert BY_HAND.keys() == LOSSES.keys()


@pytest.mark.parametrize("name", BY_HAND)
def test_hand_values(name):
    loss, terms = evaluate(name)
    assert {key: float(term) for key, term in terms.items()} == pytest.approx(BY_HAND[name], rel=1e-5, abs=1e-7)
    assert loss == pytest.approx(sum(BY_HAND[name].values()), rel=1e-5)
    assert loss.shape == ()


@pytest.mark.parametrize("name", LOSSES)
def test_every_number_of_a_loss_changes_it(name):
    before = float(evaluate(name)[0])
    for key, value in arguments(LOSSES[name])[1].items():
        assert float(evaluate(name, **{key: 1.5 * value})[0]) != pytest.approx(before, rel=1e-3), key


@pytest.mark.parametrize("name", LOSSES)
def test_every_array_of_a_loss_changes_it(name):
    before = float(evaluate(name)[0])
    for key, value in arguments(LOSSES[name])[0].items():
        # The KL of the fake stream is beyond IntroVAE's margin here.
        changed = value - 8 if key == "kl_fake" else 1.5 * value + 0.1
        assert float(evaluate(name, **{key: changed})[0]) != pytest.approx(before, rel=1e-3), key


@pytest.mark.parametrize("name", [name for name in LOSSES if len(arguments(LOSSES[name])[0]) > 1])
def test_arrays_of_another_shape_are_refused(name):
    with pytest.raises(AssertionError):
        evaluate(name, **{next(iter(arguments(LOSSES[name])[0])): jnp.ones((2, 1))})


def test_introvae_hinge_is_on_the_batch_mean():
    # Mean 5 at margin 5, though one of the examples lies below.
    _, terms = evaluate("introvae_encoder_loss", kl_rec=jnp.array([1.0, 9.0]))
    assert terms["adversarial"] == 0


def test_introvae_hinges_share_one_weight():
    rec = evaluate("introvae_encoder_loss", kl_rec=jnp.full(2, 2.0), kl_fake=jnp.full(2, 10.0))[1]["adversarial"]
    fake = evaluate("introvae_encoder_loss", kl_rec=jnp.full(2, 10.0), kl_fake=jnp.full(2, 2.0))[1]["adversarial"]
    assert rec == fake > 0


def test_asintrovae_without_the_distance_is_sintrovae():
    for network, further in (("encoder", dict(w_exp=1.0)), ("decoder", {})):
        without = dict(kl_weight=jnp.array(1.0), distance_weight=None, **further)
        loss, _ = evaluate(f"asintrovae_{network}_loss", **without)
        assert loss == pytest.approx(float(evaluate(f"sintrovae_{network}_loss")[0]), rel=1e-6)


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_asintrovae_at_the_first_step_sees_the_distance_alone(network):
    start = dict(kl_weight=jnp.array(0.0), distance_weight=None)
    far = dict(kl_rec=jnp.full(2, 99.0), kl_fake=jnp.full(2, 99.0))
    before = evaluate(f"asintrovae_{network}_loss", **start)[0]
    assert evaluate(f"asintrovae_{network}_loss", **start, **far)[0] == before
    assert evaluate(f"asintrovae_{network}_loss", **start, distance=jnp.array(0.6))[0] != before


@pytest.mark.parametrize("outside", [None, 2.0])
def test_the_distance_weighs_what_kl_leaves_to_it_unless_told(outside):
    for network, word in (("encoder", "enc"), ("decoder", "dec")):
        weights = {f"w_{word}": 1.0 if outside is None else 0.0, f"w_{word}_outside": outside}
        loss = partial(evaluate, f"asintrovae_{network}_loss", **weights)
        told = float(loss(distance_weight=jnp.array(0.75))[0])
        assert float(loss(distance_weight=None)[0]) == told
        assert float(loss(distance_weight=jnp.array(1.0))[0]) != pytest.approx(told, rel=1e-3)


def test_outside_no_exponential_weakens_the_distance():
    # Beyond all reason far: inside, the encoder feels nothing of D.
    far = dict(err_rec=jnp.full(2, 1e5), err_fake=jnp.full(2, 1e5))

    def slope(outside):
        loss = partial(evaluate, "asintrovae_encoder_loss", w_enc_outside=outside, **far)
        return jax.grad(lambda d: loss(distance=d)[0])(jnp.array(0.5))

    assert slope(None) == 0
    assert slope(2.0) == pytest.approx(-0.1 * 2 * 0.75)


def test_inside_encoder_gains_and_decoder_loses_by_the_distance():
    inside = dict(encoder=dict(w_enc_outside=None), decoder=dict(w_dec_outside=None))
    slopes = {
        network: jax.grad(lambda d, name=network: evaluate(f"asintrovae_{name}_loss", distance=d, **inside[name])[0])(
            jnp.array(0.5)
        )
        for network in inside
    }
    # d/dD of the decoder's: 0.5 s b_kl (1 - c) w_dec = 0.5 * 0.1 * 2 * 0.75 * 4.
    assert slopes["decoder"] == pytest.approx(0.3, rel=1e-5)
    # d/dD of the encoder's: -alpha s b_neg (1 - c) w_enc times the adversarial term.
    assert slopes["encoder"] == pytest.approx(-2 * 0.1 * 0.4 * 0.75 * 3 * AS_ADVERSARIAL, rel=1e-5)


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_outside_there_is_no_term_unless_weighed(network):
    _, terms = evaluate(f"asintrovae_{network}_loss", **{f"w_{network[:3]}_outside": None})
    assert "distance" not in terms


@pytest.mark.parametrize("name", ["sintrovae_decoder_loss", "asintrovae_decoder_loss"])
def test_redecoding_can_be_left_out(name):
    loss, terms = evaluate(name, err_rec=None, err_fake=None)
    assert "redecoding" not in terms
    assert loss == pytest.approx(float(evaluate(name, gamma_r=0.0)[0]), rel=1e-6)


# Their parts


@pytest.mark.parametrize(("share", "kl"), [(2.0, 1.53068), (0.25, 0.0)])
def test_encoder_is_content_with_the_kl_that_the_densities_give(share, kl):
    """Real images at a place and `share` times as many fake ones: (log(2 * share * 0.9 / 0.7) - 0.2 * 2.6 / 2) / 0.9
    nats, or none."""
    numbers = dict(b_rec=0.2, b_kl=0.7, b_neg=0.9, scale=0.5, w_enc=1.0, alpha=2.0, w_exp=2.0)
    err, nothing, whole = jnp.array([2.6]), jnp.array(0.0), jnp.array(1.0)

    @jax.grad
    def slope(kl):
        _, terms = losses.asintrovae_encoder_loss(err, kl, err, kl, err, kl, nothing, whole, **numbers)
        return terms["kl"] + share * terms["adversarial"]

    at, above = (float(slope(jnp.array([value]))[0]) for value in (kl, kl + 0.1))
    assert abs(at) < 1e-5 if kl else at > 0.01
    assert above > 0.01


def test_reconstruction_error_sums_over_all_axes_but_the_batch():
    images = jnp.zeros((2, 2, 3, 1)).at[1, 0, 0, 0].set(3.0)
    other = jnp.zeros((2, 2, 3, 1)).at[0].set(0.5).at[1, 1, 2, 0].set(-4.0)
    np.testing.assert_allclose(losses.reconstruction_error(images, other), [6 * 0.25, 9 + 16])


def test_reconstruction_error_of_bfloat16_images_is_float32():
    # 1000 times 0.01^2: a bfloat16 sum would stop growing.
    images = jnp.full((1, 1000), 0.01, jnp.bfloat16)
    error = losses.reconstruction_error(images, jnp.zeros_like(images))
    assert error.dtype == jnp.float32
    assert error[0] == pytest.approx(1000 * float(jnp.bfloat16(0.01)) ** 2, rel=1e-5)


def test_reconstruction_error_refuses_to_broadcast():
    with pytest.raises(AssertionError):
        losses.reconstruction_error(jnp.ones((2, 3)), jnp.ones((1, 3)))


def test_soft_exp_elbo_hand_value():
    # alpha s = 1: exp(-(ln 2 + 2 ln 3)) = 1/18; and 1 for a perfect model.
    value = losses.soft_exp_elbo(
        jnp.array([math.log(2), 0.0]), jnp.array([math.log(3), 0.0]), b_rec=1.0, b_neg=2.0, scale=0.5, alpha=2.0
    )
    np.testing.assert_allclose(value, [1 / 18, 1], rtol=1e-6)


def test_soft_exp_elbo_vanishes_for_a_terrible_model_with_finite_gradient():
    def value(err):
        return jnp.sum(losses.soft_exp_elbo(err, err, b_rec=1.0, b_neg=256.0, scale=1.0))

    far = jnp.array([1e6])
    assert value(far) == 0
    assert jax.grad(value)(far) == 0


@pytest.mark.parametrize(
    ("schedule", "rate", "expected"),
    [
        # Steps 0, 10, 20 and 100 of 100.
        ("linear", 5.0, [0.0, 0.5, 1.0, 1.0]),
        ("linear", 2.0, [0.0, 0.2, 0.4, 1.0]),
        ("tanh", 5.0, [0.0, math.tanh(0.5), math.tanh(1.0), math.tanh(5.0)]),
        ("constant", 0.3, [0.3, 0.3, 0.3, 0.3]),
        ("constant", 5.0, [1.0, 1.0, 1.0, 1.0]),
        ("none", 0.0, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_annealed_kl_weight(schedule, rate, expected):
    weights = [losses.annealed_kl_weight(i, total_steps=100, schedule=schedule, rate=rate) for i in (0, 10, 20, 100)]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_tanh_schedule_never_quite_reaches_one():
    assert losses.annealed_kl_weight(100, total_steps=100, schedule="tanh") < 1


def test_annealing_defaults_are_the_papers():
    assert losses.annealed_kl_weight(10, total_steps=100) == pytest.approx(0.5, rel=1e-6)


def test_annealed_kl_weight_takes_a_traced_step():
    weight = jax.jit(lambda step: losses.annealed_kl_weight(step, total_steps=100))(jnp.int32(10))
    assert weight == pytest.approx(0.5, rel=1e-6)
    assert weight.dtype == jnp.float32


def test_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule must be one of linear, tanh, constant, none; got 'cosine'"):
        losses.annealed_kl_weight(0, total_steps=10, schedule="cosine")


def test_gradient_penalty_of_a_linear_critic_is_known():
    # The gradient is w = (2, 3, 6) everywhere, of norm 7 over all non-batch axes: (7 - 1)^2.
    w = jnp.array([2.0, 3.0, 6.0]).reshape(1, 3, 1)
    real, fake = jax.random.normal(jax.random.key(0), (2, 4, 1, 3, 1))
    penalty = losses.gradient_penalty(lambda x: jnp.sum(w[None] * x, axis=(1, 2, 3)), real, fake, jnp.linspace(0, 1, 4))
    np.testing.assert_allclose(penalty, np.full(4, 36.0), rtol=1e-5)


def test_gradient_penalty_is_zero_for_a_slope_of_one():
    penalty = losses.gradient_penalty(lambda x: x[:, 0], jnp.ones((3, 2)), jnp.zeros((3, 2)), jnp.full(3, 0.5))
    np.testing.assert_allclose(penalty, np.zeros(3), atol=1e-12)


def test_gradient_penalty_looks_between_the_images():
    # The gradient of |x|^2 / 2 is x: at mix 1 the real image of norm 5, at 0 the fake one of norm 2, half way (1.5, 3).
    real, fake = jnp.tile(jnp.array([3.0, 4.0]), (3, 1)), jnp.tile(jnp.array([0.0, 2.0]), (3, 1))
    penalty = losses.gradient_penalty(lambda x: 0.5 * jnp.sum(x**2, axis=1), real, fake, jnp.array([1.0, 0.0, 0.5]))
    np.testing.assert_allclose(penalty, [16, 1, (math.sqrt(1.5**2 + 3**2) - 1) ** 2], rtol=1e-5)


def test_gradient_penalty_of_a_flat_critic_has_a_finite_derivative():
    def penalty(w):
        x = jnp.ones((2, 3))
        return jnp.sum(losses.gradient_penalty(lambda x: x @ w, x, x, jnp.full(2, 0.5)))

    value, slope = jax.value_and_grad(penalty)(jnp.zeros(3))
    # The root's epsilon leaves a norm of 1e-6: 2 * (1e-6 - 1)^2.
    assert value == pytest.approx(2, rel=1e-5)
    np.testing.assert_array_equal(slope, np.zeros(3))


def test_squared_slope_of_linear_codes_is_known():
    # Codes W x of images [1, 3, 1]: along v the slope is W^T v, over all v on average the sum of W's squares.
    w = jnp.array([[2.0, 3.0, 6.0], [1.0, 0.0, 2.0]])
    images, v = jnp.ones((5000, 1, 3, 1)), jax.random.normal(jax.random.key(0), (5000, 2))
    slopes = losses.squared_slope(lambda x: x.reshape(-1, 3) @ w.T, images, v)
    np.testing.assert_allclose(slopes, jnp.sum((v @ w) ** 2, axis=1), rtol=1e-5)
    assert jnp.mean(slopes) == pytest.approx(54, rel=0.05)


def test_squared_slope_is_taken_at_each_image():
    # d/dx of x^2 is 2 x; v = 1, 1, 2.
    slopes = losses.squared_slope(jnp.square, jnp.array([[1.0], [3.0], [-2.0]]), jnp.array([[1.0], [1.0], [2.0]]))
    np.testing.assert_allclose(slopes, [4, 36, 64], rtol=1e-6)


@pytest.mark.parametrize("module", ["gaussians", "distance", "losses"])
def test_arithmetic_imports_no_framework(module):
    code = f"import sys, asvae_jax.{module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "asvae_jax" in loaded
    assert not {"flax", "tensorflow", "tensorflow_datasets", "orbax", "ml_collections", "optax"} & set(loaded)
