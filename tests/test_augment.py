"""What becomes of images on their way to the networks, and back: their range, and mirroring."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import digits

from asvae_jax.data.augment import from_value_range, to_value_range, training_images
from asvae_jax.distributed import make_mesh, over_batch
from asvae_jax.evaluation import Examples, evaluate
from asvae_jax.models import make_networks
from asvae_jax.run import Run, decode, encode, reconstruct, sample_images
from asvae_jax.settings import ImageData
from asvae_jax.train import train


def changed(**changes) -> ImageData:
    return dataclasses.replace(digits().data, **changes)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """1,000 images, none of which is its own mirror image."""
    return np.random.default_rng(0).integers(256, size=(1_000, 8, 8, 1), dtype=np.uint8)


def as_seen(data: ImageData, pixels: np.ndarray, seed: int = 0, step: int = 0) -> np.ndarray:
    return np.asarray(jax.jit(training_images, static_argnums=0)(data, pixels, jax.random.key(seed), step))


def mirrored(pixels: np.ndarray, **stream: int) -> np.ndarray:
    """Which images [N] come mirrored; all others come as they are."""
    images, plain = (as_seen(changed(flip=flip), pixels, **stream) for flip in (True, False))
    turned = np.all(images == plain[:, :, ::-1], axis=(1, 2, 3))
    np.testing.assert_array_equal(images[~turned], plain[~turned])
    return turned


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (0.0, 255.0)])
def test_value_range_is_what_black_and_white_become(value_range):
    data = changed(value_range=value_range)
    grey = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    images = as_seen(data, grey)
    assert images.dtype == np.float32 and (images.ravel()[0], images.ravel()[-1]) == value_range
    low, high = value_range
    np.testing.assert_allclose(images, low + grey * ((high - low) / 255), rtol=0, atol=1e-6 * (high - low))
    np.testing.assert_allclose(from_value_range(data, images), grey / 255, rtol=0, atol=1e-6)
    np.testing.assert_allclose(to_value_range(data, grey / 255), images, rtol=0, atol=1e-6 * (high - low))


def test_range_of_zero_to_one_leaves_images_bit_for_bit_as_they_are(pixels):
    data = changed(value_range=(0.0, 1.0))
    images = np.asarray(jax.jit(lambda pixels: pixels.astype(jnp.float32) / 255)(pixels))
    np.testing.assert_array_equal(as_seen(data, pixels), images)
    for there_or_back in (to_value_range, from_value_range):
        np.testing.assert_array_equal(jax.jit(there_or_back, static_argnums=0)(data, images), images)


def test_flip_mirrors_about_half_left_to_right(pixels):
    # Five standard deviations of a fair coin.
    assert abs(np.mean(mirrored(pixels)) - 0.5) < 5 * 0.5 / np.sqrt(len(pixels))


def test_without_flip_nothing_is_mirrored(pixels):
    for step in range(3):
        np.testing.assert_allclose(as_seen(changed(flip=False), pixels, step=step), pixels / 255, rtol=1e-6)


def test_which_images_are_mirrored_is_a_function_of_key_and_step_alone(pixels):
    first = mirrored(pixels, seed=5, step=7)
    np.testing.assert_array_equal(mirrored(pixels[::-1], seed=5, step=7), first)
    for other in (dict(seed=5, step=8), dict(seed=6, step=7)):
        assert 0.4 < np.mean(mirrored(pixels, **other) == first) < 0.6


def test_the_same_images_are_mirrored_on_four_devices_as_on_one(pixels):
    data = changed(flip=True, value_range=(-1.0, 1.0))
    spread = over_batch(make_mesh(digits()))
    on_four = jax.jit(training_images, static_argnums=0, out_shardings=spread)
    images = on_four(data, jax.device_put(pixels, spread), jax.random.key(0), 0)
    assert len(images.sharding.device_set) == 4
    np.testing.assert_array_equal(images, as_seen(data, pixels))


# A run whose networks see another range


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Run:
    """A short run between -1 and 1, for which every example is alone."""
    config = digits("vae,tiny", data__value_range=(-1.0, 1.0), data__flip=True, model__norm="none")
    return train(config, tmp_path_factory.mktemp("wide"))


def test_range_of_the_networks_does_not_show_outside(wide):
    real = Examples(wide.config).rows(np.arange(40))
    assert (real.min(), real.max()) == (0, 1)
    networks = make_networks(wide.config)
    codes = networks.encode(wide.ema["encoder"], jnp.asarray(2 * real - 1))
    np.testing.assert_allclose(encode(wide, real).mean, codes.mean, rtol=0, atol=1e-5)
    raw = networks.decode(wide.ema["decoder"], codes.mean)
    for decoded in (decode(wide, codes.mean), reconstruct(wide, real)):
        np.testing.assert_allclose(decoded, np.clip((raw + 1) / 2, 0, 1), rtol=0, atol=1e-5)
    assert decoded.std() > 0.01
    drawn = sample_images(wide, jax.random.key(0), 20)
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_twice_the_contrast_between_minus_one_and_one_is_the_same_image(wide):
    z = np.asarray(jax.random.normal(jax.random.key(0), (40, wide.config.model.latent_dim)))
    narrow = wide._replace(config=dataclasses.replace(wide.config, data=changed(value_range=(0.0, 1.0))))
    # 2 x - 1 of all that the last layer gives.
    output = wide.ema["decoder"]["output"]
    twice = {"kernel": 2 * output["kernel"], "bias": 2 * output["bias"] - 1}
    wide = wide._replace(ema={**wide.ema, "decoder": {**wide.ema["decoder"], "output": twice}})
    np.testing.assert_allclose(decode(wide, z), decode(narrow, z), rtol=0, atol=1e-6)


def test_measures_are_those_of_images_between_zero_and_one(wide):
    examples = Examples(wide.config)
    real = examples.rows(np.arange(len(examples)))
    expected = np.mean(np.square(reconstruct(wide, real) - real))
    assert evaluate(wide)["ema"]["mse"] == pytest.approx(expected, rel=1e-5)
