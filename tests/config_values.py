"""Configs and sections as plain values that several test files look at."""

from asvae_jax.presets.image import image_config, image_data
from asvae_jax.presets.toy import toy_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas

BETAS = Betas(0.3, 0.2, 0.9)


def raw(variant="asintrovae", **changes):
    """A toy config as plain values; `changes` are `section__key`."""
    values = toy_config(variant, name="8gaussians").to_dict()
    for path, value in changes.items():
        section, _, key = path.rpartition("__")
        (values[section] if section else values)[key] = value
    return values


def data_section(name):
    """The usual data section of an image set as plain values."""
    return image_data(name, batch_size=32, data_dir="data")


def digits(variant=""):
    return image_config(
        variant, name="digits", shape=(8, 8, 1), channels=(16, 32), latent_dim=8, batch_size=64, steps=1000,
        betas=BETAS, introvae=IntroVaeBetas(1.0, 0.05, 0.5, 10.0),
    )  # fmt: skip
