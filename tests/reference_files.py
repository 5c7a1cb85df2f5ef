"""A reference of digits on disk, and what it should say, for the tests of reading it."""

from pathlib import Path

import numpy as np
import pytest
from training_runs import digits

from asvae_jax.features.networks import open_network
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
