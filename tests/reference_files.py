"""A reference of digits on disk, and what it should say, for the tests of reading it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import digits

from asvae_jax.features.networks import FeatureNetwork, open_network
from asvae_jax.generation import about_split, measure_split, write_reference

DIGITS = digits("vae,tiny").data


@pytest.fixture(scope="module")
def train_file(tmp_path_factory) -> Path:
    """The reference that tiny runs on digits need."""
    path = tmp_path_factory.mktemp("reference") / "train.npz"
    write_reference(path, measure_split(DIGITS, "train", open_network("digits"), 52))
    return path


def expected(split: str = "train") -> dict:
    return about_split(DIGITS, split, open_network("digits"), 52)


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def fake_network(by_batch: bool = False, name: str = "fake") -> FeatureNetwork:
    """Four pixels of an image; with `by_batch` their distance from the batch's mean."""

    def apply(variables, images):
        pixels = images.reshape(len(images), -1)[:, 26:30] / variables["scale"]
        return pixels - jnp.mean(pixels, axis=0, keepdims=True) if by_batch else pixels

    return FeatureNetwork(name, "", 4, {"scale": jnp.float32(16)}, apply, "0" * 64, "none", by_batch)
