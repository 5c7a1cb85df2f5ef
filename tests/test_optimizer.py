"""What becomes of a gradient: its clipping and its rate; and the moving average of the weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_runs import BATCH, assert_close, first_moments, tiny_toy, toy_inputs

from asvae_jax.config import resolve
from asvae_jax.presets.toy import toy_config
from asvae_jax.update import init_state, make_update


@pytest.mark.parametrize(
    ("half_life_images", "ramp_up", "step", "decay"),
    [
        # The published 0.999 per step.
        (BATCH * math.log(0.5) / math.log(0.999), 0.0, 0, 0.999),
        (BATCH * math.log(0.5) / math.log(0.999), 0.0, 1000, 0.999),
        # Half-life of one batch.
        (float(BATCH), 0.0, 5, 0.5),
        # A fifth of the ten batches seen by the end of step 9: two batches, 2^(-1/2).
        (1e9, 0.2, 9, 0.5**0.5),
        # The ramp ends where the half-life is reached.
        (float(BATCH), 0.2, 99, 0.5),
    ],
)
def test_moving_average(half_life_images, ramp_up, step, decay):
    config = tiny_toy("vae", ema__half_life_images=half_life_images, ema__ramp_up=ramp_up)
    state, images, noise = toy_inputs(config)
    # An average of zeros shows the new weights' share alone, one of ones what is kept.
    zeros, ones = (jax.tree.map(lambda p, value=value: jnp.full_like(p, value), state.params) for value in (0, 1))
    update = jax.jit(make_update(config))
    new, _ = update(state._replace(step=jnp.int32(step), ema=zeros), images, noise)
    # float32 keeps 1 - 0.999 to 3e-5.
    assert_close(new.ema, jax.tree.map(lambda p: (1 - decay) * p, new.params), rtol=1e-4)
    kept, _ = update(state._replace(step=jnp.int32(step), ema=ones), images, noise)
    shares = jax.tree.map(jnp.subtract, kept.ema, new.ema)
    assert_close(shares, jax.tree.map(lambda p: jnp.full_like(p, decay), new.params), rtol=1e-5)


def test_average_starts_at_the_initial_weights():
    state = init_state(tiny_toy("vae"), jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, state.ema, state.params)


def test_presets_average_is_the_published_decay():
    config = resolve(toy_config("vae", name="rings"))
    assert 0.5 ** (config.data.batch_size / config.ema.half_life_images) == pytest.approx(0.999, rel=1e-12)


def test_clipping_shortens_long_gradients_and_reports_their_length():
    norms = {}
    for clip_norm in (0.0, 1e-3, 1e6):
        config = tiny_toy("vae", optimizer__clip_norm=clip_norm)
        new, metrics = jax.jit(make_update(config))(*toy_inputs(config))
        norms[clip_norm] = {name: float(optax.tree.norm(m)) / 0.1 for name, m in first_moments(new).items()}
        reported = {name: float(metrics[f"{name}/gradient_norm"]) for name in new.params}
        assert min(reported.values()) > 1e-2
        expected = dict.fromkeys(reported, 1e-3) if clip_norm == 1e-3 else reported
        assert norms[clip_norm] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("fall", "rates"),
    [
        (dict(optimizer__milestone_steps=(1, 2), optimizer__milestone_factor=0.1), [2e-4, 2e-5, 2e-6]),
        (dict(training__steps=10, optimizer__final_factor=0.0), [2e-4, 1.8e-4, 1.6e-4]),
        # 0.9 ** 2 and 0.8 ** 2 of the way down to a half.
        (
            dict(training__steps=10, optimizer__final_factor=0.5, optimizer__fall_power=2.0),
            [2e-4, 1.81e-4, 1.64e-4],
        ),
    ],
)
def test_rate_falls_at_its_milestones_or_over_all_steps(fall, rates):
    config = tiny_toy("vae", **fall)
    state, images, noise = toy_inputs(config)
    update = jax.jit(make_update(config))
    lengths = []
    for _ in range(3):
        new, _ = update(state, images, noise)
        lengths.append(
            max(
                float(jnp.max(jnp.abs(x)))
                for x in jax.tree.leaves(jax.tree.map(jnp.subtract, new.params, state.params))
            )
        )
        state = new
    # The same gradient thrice: Adam's step is the rate. Weights near 1 round at 6e-8.
    assert lengths == pytest.approx(rates, rel=0.05)


@pytest.mark.parametrize("name", ["vae", "sintrovae"])
def test_encoder_moves_at_its_own_multiple_of_the_rate(name):
    config = tiny_toy(name, optimizer__encoder_factor=4.0)
    state, images, noise = toy_inputs(config)
    new, _ = jax.jit(make_update(config))(state, images, noise)
    moves = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), new.params, state.params)
    furthest = {network: max(jax.tree.leaves(moves[network])) for network in moves}
    # Adam's first move is the rate itself.
    assert furthest == pytest.approx({"encoder": 8e-4, "decoder": 2e-4}, rel=1e-2)


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (5, 2.5), (10, 4.0), (15, 4.0)])
def test_encoder_rate_rises_to_its_multiple(step, factor):
    # Of 20 steps.
    config = tiny_toy("vae", optimizer__encoder_factor=4.0, optimizer__encoder_rise=0.5)
    state, images, noise = toy_inputs(config)
    state = state._replace(step=jnp.int32(step))
    new, _ = jax.jit(make_update(config))(state, images, noise)
    moves = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), new.params, state.params)
    furthest = {network: max(jax.tree.leaves(moves[network])) for network in moves}
    assert furthest == pytest.approx({"encoder": factor * 2e-4, "decoder": 2e-4}, rel=1e-2)
