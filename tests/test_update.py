"""One step of training: its two phases, its refusals, and what does not matter to it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from toy_runs import BATCH, LATENT, METHODS, assert_close, first_moments, poisoned, tiny_toy, toy_inputs
from training_runs import digits

from asvae_jax.config import resolve
from asvae_jax.data import toys
from asvae_jax.data.augment import training_images
from asvae_jax.methods import make_method
from asvae_jax.models import make_networks
from asvae_jax.presets.toy import toy_config
from asvae_jax.update import draw_noise, init_state, make_steps, make_toy_steps, make_update


@pytest.fixture(scope="module")
def update_of():
    """Compiled updates, one for each method."""
    compiled = {}

    def get(name):
        if name not in compiled:
            compiled[name] = jax.jit(make_update(tiny_toy(name)))
        return compiled[name]

    return get


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_bfloat16_networks_is_near_that_of_float32_ones_and_kept_in_float32(method, update_of):
    narrow = tiny_toy(method, model__compute_dtype="bfloat16")
    state, images, noise = toy_inputs(narrow)
    _, expected = update_of(method)(state, images, noise)
    new, metrics = jax.jit(make_update(narrow))(state, images, noise)
    # bfloat16 keeps 8 bits: a rounding is one of 0.4 %.
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected[name], rtol=0.04, err_msg=name)
    kept = jax.tree.leaves((new.params, new.ema, new.opt_state, metrics))
    assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32"), jnp.dtype("int32")}


# Two phases


def test_two_phases_by_hand(update_of):
    config = tiny_toy("asintrovae")
    state, images, noise = toy_inputs(config)
    method, adam = make_method(config), optax.adam(2e-4, b1=0.9, b2=0.999)
    encoder, decoder = state.params["encoder"], state.params["decoder"]

    @jax.jit
    def by_hand(encoder, decoder):
        def encoder_loss(encoder):
            phase = method.encoder_loss(encoder, decoder, images, noise, state.step)
            return phase.loss, phase.z

        gradient, z = jax.grad(encoder_loss, has_aux=True)(encoder)
        change, _ = adam.update(gradient, adam.init(encoder))
        encoder = optax.apply_updates(encoder, change)
        decoder_gradient = jax.grad(lambda d: method.decoder_loss(encoder, d, images, z, noise, state.step)[0])(decoder)
        change, _ = adam.update(decoder_gradient, adam.init(decoder))
        return {"encoder": gradient, "decoder": decoder_gradient}, {
            "encoder": encoder,
            "decoder": optax.apply_updates(decoder, change),
        }

    gradients, params = by_hand(encoder, decoder)
    new, metrics = update_of("asintrovae")(state, images, noise)
    assert_close(first_moments(new), jax.tree.map(lambda g: 0.1 * g, gradients), rtol=1e-4)
    for network in params:
        assert metrics[f"{network}/gradient_norm"] == pytest.approx(
            float(optax.tree.norm(gradients[network])), rel=1e-4
        )
        # A hundredth of Adam's first step, which is the rate whatever the gradient.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), new.params[network], params[network]
        )


def test_vae_moves_both_networks_by_one_loss(update_of):
    config = tiny_toy("vae")
    state, images, noise = toy_inputs(config)
    encoder_loss = make_method(config).encoder_loss
    gradients = jax.jit(
        jax.grad(lambda params: encoder_loss(params["encoder"], params["decoder"], images, noise, state.step).loss)
    )(state.params)
    new, _ = update_of("vae")(state, images, noise)
    assert_close(first_moments(new), jax.tree.map(lambda g: 0.1 * g, gradients), rtol=1e-4)


def test_step_counts_and_key_stays(update_of):
    state, images, noise = toy_inputs(tiny_toy("vae"))
    new, _ = update_of("vae")(state, images, noise)
    assert new.step == 1
    assert jax.random.key_data(new.key).tolist() == jax.random.key_data(state.key).tolist()


def test_state_is_not_mutated(update_of):
    state, images, noise = toy_inputs(tiny_toy("vae"))
    before = jax.tree.map(np.array, state._replace(key=None))
    update_of("vae")(state, images, noise)
    jax.tree.map(np.testing.assert_array_equal, state._replace(key=None), before)


def test_metrics_are_float32_scalars(update_of):
    for name in METHODS:
        _, metrics = update_of(name)(*toy_inputs(tiny_toy(name)))
        assert {(value.shape, value.dtype.name) for value in metrics.values()} == {((), "float32")}, name
        assert metrics["skipped"] == 0


def test_images_and_noise_of_different_batches_are_refused():
    state, images, noise = toy_inputs(tiny_toy("vae"))
    with pytest.raises(AssertionError):
        make_update(tiny_toy("vae"))(state, images[:-1], noise)


# Refusals


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("what", ["images", "noise"])
def test_a_step_that_is_not_finite_changes_nothing_but_the_count(name, what, update_of):
    state, images, noise = toy_inputs(tiny_toy(name))
    # Optimiser states that have something to lose.
    state, _ = update_of(name)(state, images, noise)
    if what == "images":
        images = images.at[3, 0].set(jnp.inf)
    else:
        noise = poisoned(noise, "prior" if name == "wgan_gp" else "eps_real")
    new, metrics = update_of(name)(state, images, noise)
    assert metrics["skipped"] == 1
    assert new.step == state.step + 1
    for part in ("params", "opt_state", "ema"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, part), getattr(state, part))


@pytest.mark.parametrize("field", ["prior", "eps_rec", "eps_fake"])
def test_one_bad_number_in_any_noise_skips_the_step(field, update_of):
    state, images, noise = toy_inputs(tiny_toy("asintrovae"))
    new, metrics = update_of("asintrovae")(state, images, poisoned(noise, field))
    assert metrics["skipped"] == 1
    jax.tree.map(np.testing.assert_array_equal, new.params, state.params)


def test_generators_bad_noise_matters_at_its_turn_only(update_of):
    state, images, noise = toy_inputs(tiny_toy("wgan_gp"))
    bad = poisoned(noise, "eps_fake")
    skipped = [
        update_of("wgan_gp")(state._replace(step=jnp.int32(step)), images, bad)[1]["skipped"] for step in (3, 4, 5)
    ]
    assert skipped == [0, 1, 0]


def test_training_goes_on_after_a_skipped_step(update_of):
    state, images, noise = toy_inputs(tiny_toy("asintrovae"))
    state, _ = update_of("asintrovae")(state, images * jnp.nan, noise)
    new, metrics = update_of("asintrovae")(state, images, noise)
    assert metrics["skipped"] == 0
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(new.params))
    assert float(optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params))) > 0


# Several steps, many devices


@pytest.mark.parametrize("name", ["asintrovae", "wgan_gp"])
def test_three_steps_at_once_are_three_single_steps(name):
    # Pixels are scaled and mirrored within the step.
    config = digits(f"{name},tiny", data__value_range=(-1.0, 1.0), data__flip=True, model__channels=(4,))
    state = init_state(config, jax.random.key(0))
    pixels = np.random.default_rng(0).integers(256, size=(3, 16, 8, 8, 1), dtype=np.uint8)
    at_once, metrics = jax.jit(make_steps(config))(state, pixels)
    one_by_one, update = state, jax.jit(make_update(config))
    for i in range(3):
        images = training_images(config.data, pixels[i], state.key, i)
        one_by_one, single = update(one_by_one, images, draw_noise(state.key, i, 16, config.model.latent_dim))
        assert {key: float(values[i]) for key, values in metrics.items()} == pytest.approx(
            {key: float(value) for key, value in single.items()}, rel=1e-4, abs=1e-6, nan_ok=True
        )
    assert at_once.step == 3
    assert_close(at_once.params, one_by_one.params, rtol=1e-5)
    assert_close(first_moments(at_once), first_moments(one_by_one), rtol=1e-3)


def test_toy_steps_draw_their_points_and_noise_from_key_and_step(update_of):
    config = tiny_toy("vae")
    state, _, _ = toy_inputs(config)
    steps = jax.jit(make_toy_steps(config), static_argnums=1)
    at_once, metrics = steps(state, 2)
    assert metrics["encoder/loss"].shape == (2,)
    by_hand = state
    for i in range(2):
        points = toys.training_batch("8gaussians", state.key, i, BATCH)
        by_hand, _ = update_of("vae")(by_hand, points, draw_noise(state.key, i, BATCH, LATENT))
    assert_close(at_once.params, by_hand.params, rtol=1e-5)
    # Where a dispatch begins makes no difference.
    resumed, _ = steps(steps(state, 1)[0], 1)
    assert_close(at_once.params, resumed.params, rtol=1e-5)


def test_training_batch_is_a_pure_function_of_key_and_step():
    def draw(seed, step):
        return toys.training_batch("rings", jax.random.key(seed), step, 16)

    np.testing.assert_array_equal(draw(0, 3), draw(0, 3))
    np.testing.assert_allclose(draw(0, 3), jax.jit(draw, static_argnums=0)(0, jnp.int32(3)), rtol=1e-6, atol=1e-6)
    assert not np.any(draw(0, 3) == draw(0, 4))
    assert not np.any(draw(0, 3) == draw(1, 3))


def test_noise_is_a_pure_function_of_key_and_step_and_its_fields_differ():
    def draw(seed, step):
        return draw_noise(jax.random.key(seed), step, 8, LATENT)

    jax.tree.map(np.testing.assert_array_equal, draw(0, 3), draw(0, 3))
    *normals, mix = draw(0, 3)
    fields = [*normals, *draw(0, 4)[:-1], *draw(1, 3)[:-1]]
    assert len({float(field[0, 0]) for field in fields}) == len(fields)
    assert {field.shape for field in normals} == {(8, LATENT)}
    assert mix.shape == (8,) and mix.min() >= 0 and mix.max() <= 1


@pytest.mark.parametrize("name", ["asintrovae", "wgan_gp"])
def test_four_devices_equal_one(name, update_of):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    config = tiny_toy(name)
    state, images, noise = toy_inputs(config)
    one, metrics = update_of(name)(state, images, noise)
    spread = jax.device_put(state, everywhere), *jax.device_put((images, noise), split)
    four, more = update_of(name)(*spread)
    assert len(spread[1].sharding.device_set) == 4
    assert {key: float(value) for key, value in more.items()} == pytest.approx(
        {key: float(value) for key, value in metrics.items()}, rel=1e-5, abs=1e-6, nan_ok=True
    )
    assert_close(first_moments(four), first_moments(one), rtol=1e-5)


# Cost


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.fixture(scope="module")
def forward_flops():
    """(e, d): one forward pass of each network at the toys' real size."""
    config, (state, images, noise) = full_size("asintrovae")
    networks = make_networks(config)
    return (
        flops(networks.encode, state.params["encoder"], images),
        flops(networks.decode, state.params["decoder"], noise.prior),
    )


def full_size(variant, **changes):
    """(config, shapes of state, images and noise) of a toy at real width and batch."""
    config = toy_config(variant, name="8gaussians")
    config.method.update(changes)
    config = resolve(config)
    size, latent = config.data.batch_size, config.model.latent_dim
    state = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
    noise = jax.eval_shape(lambda: draw_noise(jax.random.key(0), 0, size, latent))
    return config, (state, jax.ShapeDtypeStruct((size, 2), jnp.float32), noise)


# The released code takes 13 e + 19 d. Two decodings of the decoder phase are those of the encoder phase; the two
# re-decodings, with a backward pass twice their size, are left out with a negligible gamma_r.
@pytest.mark.parametrize(
    ("name", "gamma_r", "encoders", "decoders"),
    [("sintrovae", 1e-8, 13, 11), ("asintrovae", 1e-8, 13, 11), ("asintrovae", 1.0, 13, 17)],
)
def test_a_step_computes_every_shared_pass_once(name, gamma_r, encoders, decoders, forward_flops):
    config, shapes = full_size(name, gamma_r=gamma_r)
    e, d = forward_flops
    assert flops(make_update(config), *shapes) == pytest.approx(encoders * e + decoders * d, rel=0.03)


def test_a_resting_generator_meets_its_milestone_at_the_step_of_the_run():
    # The generator moves for the first time at step 4, behind the milestone; Adam's first move is the rate itself.
    config = tiny_toy("wgan_gp", optimizer__milestone_steps=(3,))
    state, images, noise = toy_inputs(config)
    new, _ = jax.jit(make_update(config))(state._replace(step=jnp.asarray(4, jnp.int32)), images, noise)
    moves = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), new.params, state.params)
    furthest = {name: max(map(float, jax.tree.leaves(moves[name]))) for name in moves}
    expected = config.optimizer.learning_rate * config.optimizer.milestone_factor
    assert furthest["decoder"] == pytest.approx(expected, rel=1e-2)
    assert furthest["encoder"] == pytest.approx(expected, rel=1e-2)
