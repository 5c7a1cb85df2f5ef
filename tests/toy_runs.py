"""Tiny toy runs that several test files look at."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asvae_jax.config import resolve
from asvae_jax.data import toys
from asvae_jax.presets.toy import toy_config
from asvae_jax.settings import Config
from asvae_jax.streams import StepNoise
from asvae_jax.update import draw_noise, init_state

METHODS = ("vae", "introvae", "sintrovae", "asintrovae", "wgan_gp")
BATCH, LATENT = 32, 2


def tiny_toy(variant: str, **changes) -> Config:
    """A tiny 8-Gaussians run; `changes` are keys of its method, or `section__key`."""
    config = toy_config(f"{variant},tiny", name="8gaussians")
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        config[section or "method"][name] = value
    return resolve(config)


def toy_inputs(config: Config, seed: int = 0):
    """(state, images, noise) of a first step.

    The weights are 2.5 times the initial ones, so that codes and images vary with their inputs, and so far that D
    is not lost in the rounding of the means which it is the difference of.
    """
    state = init_state(config, jax.random.key(seed))
    state = state._replace(params=jax.tree.map(lambda w: 2.5 * w, state.params))
    images = toys.draw("8gaussians", jax.random.key(seed + 1), BATCH)
    return state, images, draw_noise(jax.random.key(seed + 2), 0, BATCH, LATENT)


def first_moments(state):
    """Adam's, which after one step are (1 - b1) times the gradients."""
    return {name: optax.tree.get(state.opt_state[name], "mu") for name in state.params}


def is_zero(tree) -> bool:
    return all(bool(jnp.all(leaf == 0)) for leaf in jax.tree.leaves(tree))


def assert_close(got, expected, rtol: float) -> None:
    """Equal leaf by leaf, to `rtol` of the largest number of each leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(1e-30, np.max(np.abs(b))))


def poisoned(noise: StepNoise, field: str) -> StepNoise:
    return noise._replace(**{field: getattr(noise, field).at[0].set(jnp.nan)})
