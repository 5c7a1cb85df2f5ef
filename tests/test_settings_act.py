"""Every setting of a method changes its step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from toy_runs import METHODS, tiny_toy, toy_inputs

from asvae_jax.settings import METHOD_SETTINGS
from asvae_jax.update import make_update

# Another value for each, from which the step must differ. Half way through the annealing, at the generator's turn.
OTHER_VALUES = dict(
    b_rec=0.3, b_kl=0.5, b_neg=0.2, scale=0.3, alpha=3.0, gamma_r=1.0, margin=0.0, gp_weight=5.0, critic_steps=5,
    rec_target_gradient=False, kl_schedule="tanh", kl_rate=3.0, kernel="prior", bandwidth=1.0, statistic="U",
    distance_in="loss", distance_pairs="real_fake", root_distance=True, squash_distance=False,
    over_pairs_encoder="sum", over_dims_encoder="mean", over_pairs_decoder="sum",
    over_dims_decoder="mean", w_enc=3.0, w_dec=3.0, squash_decoder_kl=True, slope_weight=3.0,
    slope_until=0.8, balance_pulls=True, means_bandwidths=(0.1,),
    late_from=0.25, late_alpha_factor=0.25, late_w_enc_factor=0.25, w_exp=3.0, w_latent=3.0,
    latent_rise=0.8,
)  # fmt: skip
STEP = 1
# Of 20 steps: the late game is all there.
LATE_STEP = dict(late_alpha_factor=15, late_w_enc_factor=15)
# What a value needs to act, and what a method needs for its hinges and exponentials not to have run dry.
NEEDS = dict(
    bandwidth=dict(kernel="product"), late_from=dict(means_bandwidths=(0.1,)),
    late_alpha_factor=dict(late_from=0.25, means_bandwidths=(0.1,)),
    late_w_enc_factor=dict(late_from=0.25, means_bandwidths=(0.1,), kl_rate=0.5),
    critic_steps=dict(critic_steps=2), statistic=dict(w_dec=3.0),
    slope_weight=dict(slope_weight=1.0, slope_until=0.5), slope_until=dict(slope_weight=1.0, slope_until=0.5),
    latent_rise=dict(w_latent=1.0),
)  # fmt: skip
ALIVE = dict(introvae=dict(margin=30.0), sintrovae=dict(b_neg=0.1), asintrovae=dict(b_neg=0.1))
ACTING = [(name, f.name) for name in METHODS for f in dataclasses.fields(METHOD_SETTINGS[name]) if f.name != "name"]


@functools.cache
def gradients_after_one_step(variant, step, **changes):
    """Adam's moments, which hold the gradients: Adam itself hides a gradient's size."""
    config = tiny_toy(variant, **changes)
    state, images, noise = toy_inputs(config)
    state, _ = make_update(config)(state._replace(step=jnp.int32(step)), images, noise)
    return state.opt_state


@pytest.mark.parametrize(("method", "key"), ACTING)
def test_every_setting_of_a_method_changes_its_step(method, key):
    base = ALIVE.get(method, {}) | NEEDS.get(key, {})
    step = LATE_STEP.get(key, STEP)
    before = gradients_after_one_step(method, step, **base)
    after = gradients_after_one_step(method, step, **{**base, key: OTHER_VALUES[key]})
    changes = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)) / (jnp.max(jnp.abs(a)) + 1e-12), before, after)
    assert max(float(change) for change in jax.tree.leaves(changes)) > 1e-3
