"""Trains the digits' feature network, and says how well it tells digits apart."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asvae_jax.config import resolve_data
from asvae_jax.data.records import Split
from asvae_jax.features import weights
from asvae_jax.features.digits import NETWORK, SIDE, DigitNetwork, to_input
from asvae_jax.presets.image import image_data

SETS = ("mnist5k", "digits")
STEPS, BATCH_SIZE, LEARNING_RATE, SEED = 2_000, 128, 2e-3, 0
# How far training images are moved and scaled, so that features know the shape of a digit and not its place.
_SHIFT, _SCALE = 2.0, 0.15


def train_digits(out: Path, *, steps: int = STEPS) -> dict[str, float]:
    """Trains on the training splits of SETS and writes the weights.

    Returns:
      The share of held-out digits of each set that are recognised; kept with the weights.
    """
    sets = {name: _labelled(name) for name in SETS}
    images, labels = (jnp.concatenate([sets[name]["train"][part] for name in SETS]) for part in (0, 1))
    variables: Any = DigitNetwork().init(jax.random.key(SEED), images[:1])
    optimizer = optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, steps), weight_decay=1e-3)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, key):
        variables, opt_state = state
        chosen, moved = jax.random.split(key)
        rows = jax.random.randint(chosen, (BATCH_SIZE,), 0, len(images))
        batch = jax.vmap(_moved)(jax.random.split(moved, BATCH_SIZE), images[rows])
        gradient = jax.grad(_cross_entropy)(variables, batch, labels[rows])
        updates, opt_state = optimizer.update(gradient, opt_state, variables)
        return optax.apply_updates(variables, updates), opt_state

    state = (variables, optimizer.init(variables))
    for key in jax.random.split(jax.random.key(SEED + 1), steps):
        state = step(state, key)
    variables = _of_unit_variance(state[0], images)
    accuracies = {name: accuracy(variables, *sets[name]["test"]) for name in SETS}
    facts = {f"accuracy_{name}": f"{share:.4f}" for name, share in accuracies.items()}
    weights.write(out, NETWORK, variables, {**facts, "steps": str(steps)})
    return accuracies


def accuracy(variables: dict[str, Any], images: jax.Array, labels: jax.Array) -> float:
    """The share of images [N, 28, 28, 1] that are recognised."""
    _, logits = jax.jit(DigitNetwork().apply)(variables, images)
    return float(jnp.mean(jnp.argmax(logits, axis=-1) == labels))


def _labelled(name: str) -> dict[str, tuple[jax.Array, jax.Array]]:
    data = resolve_data(image_data(name, batch_size=BATCH_SIZE))
    splits = {split: Split(data, split) for split in ("train", "test")}
    return {
        name: (to_input(jnp.asarray(split.rows(np.arange(len(split)))) / 255.0), jnp.asarray(split.labels()))
        for name, split in splits.items()
    }


def _of_unit_variance(variables: dict[str, Any], images: jax.Array) -> dict[str, Any]:
    """The same classifier with features of variance 1 over the training images: what one layer divides by, the next
    multiplies by, and the rectifier between them lets a positive factor through."""
    features, _ = jax.jit(DigitNetwork().apply)(variables, images)
    size = jnp.std(features, axis=0)
    layers = variables["params"]
    scaled = {"kernel": layers["features"]["kernel"] / size[None, :], "bias": layers["features"]["bias"] / size}
    classes = {**layers["classes"], "kernel": layers["classes"]["kernel"] * size[:, None]}
    return {"params": {**layers, "features": scaled, "classes": classes}}


def _moved(key: jax.Array, image: jax.Array) -> jax.Array:
    """An image shifted by up to two pixels and scaled by up to 15 %, about its centre."""
    shift_key, scale_key = jax.random.split(key)
    scale = 1 + jax.random.uniform(scale_key, (2,), minval=-_SCALE, maxval=_SCALE)
    shift = jax.random.uniform(shift_key, (2,), minval=-_SHIFT, maxval=_SHIFT) + (1 - scale) * SIDE / 2
    return jax.image.scale_and_translate(image, image.shape, (0, 1), scale, shift, "linear")


def _cross_entropy(variables: dict[str, Any], images: jax.Array, labels: jax.Array) -> jax.Array:
    _, logits = DigitNetwork().apply(variables, images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
