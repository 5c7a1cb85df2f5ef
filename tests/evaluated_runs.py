"""Finished tiny runs that tests evaluate, sample and encode, trained once for all of them."""

import pytest
from training_runs import digits, toy

from asvae_jax.run import Run
from asvae_jax.train import train


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Run:
    """Trained long enough for its averaged weights to differ from the raw ones, and for some reconstruction."""
    config = digits(
        "vae,tiny", training__steps=60, checkpoint__every_steps=20, optimizer__learning_rate=5e-3,
        ema__half_life_images=160.0,
    )  # fmt: skip
    return train(config, tmp_path_factory.mktemp("digits_run"))


@pytest.fixture(scope="session")
def critic_run(tmp_path_factory) -> Run:
    return train(digits("wgan_gp,tiny"), tmp_path_factory.mktemp("critic_run"))


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory) -> Run:
    return train(toy("vae,tiny"), tmp_path_factory.mktemp("toy_run"))
