"""Which images come when, how they are read, and what becomes of them on the way to the networks."""

import dataclasses
import itertools
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
import training_runs
from training_runs import digits

from asvae_jax.config import resolve_data
from asvae_jax.data import records
from asvae_jax.data.augment import from_value_range, to_value_range, training_images
from asvae_jax.data.images import BatchOrder, ahead, padded_batches, read_batches
from asvae_jax.data.prepare import open_prepared
from asvae_jax.data.records import Split
from asvae_jax.distributed import make_mesh, over_batch
from asvae_jax.errors import ConfigError
from asvae_jax.evaluation import Examples, evaluate
from asvae_jax.models import make_networks
from asvae_jax.presets import image_data
from asvae_jax.run import Run, decode, encode, reconstruct, sample_images
from asvae_jax.settings import ImageData
from asvae_jax.train import TrainingData, dry_run, train

# 8 batches of 12, and 4 images over.
IMAGES, BATCH, PER_EPOCH = 100, 12, 8


class Numbered:
    """Images that are their own indices, read at such uneven speed that threads overtake each other."""

    def __init__(self):
        self._turns = itertools.count()

    def __len__(self) -> int:
        return IMAGES

    def rows(self, indices: np.ndarray) -> np.ndarray:
        time.sleep(0.002 * (next(self._turns) % 3 == 0))
        return indices


def taken(steps: int, *, first_step: int = 0, threads: int = 2, **share: int) -> np.ndarray:
    """Indices [steps, rows] as they are read."""
    order = BatchOrder(IMAGES, BATCH, seed=3)
    batches = read_batches(Numbered(), order, first_step=first_step, group=1, threads=threads, **share)
    return np.concatenate(list(itertools.islice(batches, steps)))


def section(name: str) -> ImageData:
    return resolve_data(image_data(name, batch_size=16, data_dir=training_runs.DATA_DIR))


@pytest.fixture(scope="module")
def order() -> np.ndarray:
    """Three epochs and a batch of the next, [3 * PER_EPOCH + 1, BATCH]."""
    order = BatchOrder(IMAGES, BATCH, seed=3)
    return np.stack([order[step] for step in range(3 * PER_EPOCH + 1)])


# The order


def test_every_epoch_takes_no_image_twice_and_drops_what_fills_no_batch(order):
    epochs = order[: 3 * PER_EPOCH].reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == PER_EPOCH * BATCH and set(epoch) <= set(range(IMAGES))
    # Other images are dropped in each, and the others come in another order.
    assert len({frozenset(epoch) for epoch in epochs}) == 3
    assert all(np.mean(one == other) < 0.1 for one, other in itertools.combinations(epochs, 2))


@pytest.mark.parametrize(("images", "batch_size"), [(96, 12), (12, 12), (5, 1)])
def test_every_epoch_is_a_permutation_where_batches_fill_it(images, batch_size):
    order = BatchOrder(images, batch_size, seed=0)
    assert order.batches_per_epoch == images // batch_size
    for epoch in range(5):
        steps = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
        np.testing.assert_array_equal(np.sort(np.concatenate([order[step] for step in steps])), np.arange(images))


def test_batch_is_a_function_of_seed_and_step_alone(order):
    # From another object, and whatever was asked for before.
    other = BatchOrder(IMAGES, BATCH, seed=3)
    for step in np.random.default_rng(0).permutation(len(order)):
        np.testing.assert_array_equal(other[int(step)], order[step])


def test_order_is_the_same_from_version_to_version():
    # Whoever changes these changes what every stored run goes on with.
    order = BatchOrder(10, 3, seed=1)
    assert [order[step].tolist() for step in range(4)] == [[2, 9, 8], [3, 6, 7], [1, 4, 0], [0, 6, 2]]


def test_order_changes_with_the_seed():
    one, other = (BatchOrder(IMAGES, BATCH, seed=seed) for seed in (3, 4))
    assert np.mean([one[step] == other[step] for step in range(2 * PER_EPOCH)]) < 0.1


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ConfigError, match=r"batch of 1,001 is more than the 1,000 training images"):
        BatchOrder(1_000, 1_001, seed=0)


# Reading


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_do_not_change_the_order(threads, order):
    np.testing.assert_array_equal(taken(len(order), threads=threads), order)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_rows_of_all_processes_together_are_the_batch(processes, order):
    shares = [taken(len(order), process=process, processes=processes) for process in range(processes)]
    assert all(share.shape == (len(order), BATCH // processes) for share in shares)
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), order)


@pytest.mark.parametrize("first_step", [1, PER_EPOCH - 1, PER_EPOCH, 2 * PER_EPOCH + 3])
def test_reading_begins_at_exactly_the_step_asked_for(first_step, order):
    np.testing.assert_array_equal(taken(4, first_step=first_step), order[first_step : first_step + 4])


@pytest.mark.parametrize("first_step", [0, 5])
def test_group_puts_steps_together(first_step, order):
    seeded = BatchOrder(IMAGES, BATCH, seed=3)
    batches = read_batches(Numbered(), seeded, first_step=first_step, group=5, threads=2, process=1, processes=2)
    # Across the seams of epochs, too.
    for start in range(first_step, first_step + 20, 5):
        np.testing.assert_array_equal(next(batches), order[start : start + 5, BATCH // 2 :])


def test_ahead_yields_the_same_and_asks_for_two_more_than_are_needed():
    asked = []

    def items():
        for item in range(6):
            asked.append(item)
            yield item

    items_ahead = ahead(items())
    for item in range(6):
        assert next(items_ahead) == item
        assert asked == list(range(min(item + 3, 6)))
    assert list(items_ahead) == []
    assert list(ahead(iter([7]))) == [7] and list(ahead(iter([]))) == []


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (12, 4), (3, 4), (1, 1), (359, 52)])
def test_padded_batches_take_each_index_exactly_once_over_all_processes(count, batch_size, processes):
    shares = [list(padded_batches(count, batch_size, process, processes)) for process in range(processes)]
    # As many for each process, and no more than it takes.
    assert {len(share) for share in shares} == {-(-count // (batch_size * processes))}
    batches = list(itertools.chain(*shares))
    assert all(indices.shape == mask.shape == (batch_size,) for indices, mask in batches)
    kept = np.concatenate([indices[mask] for indices, mask in batches])
    # One process takes them in order.
    np.testing.assert_array_equal(kept if processes == 1 else np.sort(kept), np.arange(count))
    # The padding is real images, so that no figure of it can be other than finite.
    assert all(np.all((indices >= 0) & (indices < count)) for indices, _ in batches)


# Records


# Of two shards the last.
@pytest.mark.parametrize("name", ["digits", "faces25", "photos128"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_the_stored_pixels(name, split):
    data = section(name)
    stored = tfds.builder_from_directory(open_prepared(data).folder).as_data_source(split)
    images = Split(data, split)
    assert len(images) == len(stored)
    indices = np.random.default_rng(0).integers(len(images), size=50)
    rows = images.rows(indices)
    assert rows.dtype == np.uint8 and rows.shape == (50, *data.shape)
    for image, index in zip(rows, indices, strict=True):
        np.testing.assert_array_equal(image, stored[int(index)]["image"])
    np.testing.assert_array_equal(images.held().rows(indices), rows)


@pytest.mark.parametrize("room", [0, 1])
def test_split_stays_in_memory_where_it_has_room_and_goes_on_being_read_where_not(room, monkeypatch):
    monkeypatch.setattr(records, "_HELD_BYTES", 359 * 64 - 1 + room)
    images = Split(section("digits"), "test").held()
    asked, read = [], Split._pixels
    monkeypatch.setattr(Split, "_pixels", lambda split, index: asked.append(index) or read(split, index))
    images.rows(np.array([5, 3]))
    assert asked == ([] if room else [5, 3])


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_may_read_the_same_records(threads):
    images, held = Split(section("photos32"), "train"), Split(section("photos32"), "train").held()
    order = BatchOrder(len(images), 64, seed=0)
    batches = read_batches(images, order, first_step=0, group=1, threads=threads)
    for step in range(2 * order.batches_per_epoch):
        np.testing.assert_array_equal(next(batches)[0], held.rows(order[step]))


def test_memory_does_not_grow_while_images_are_read():
    data = section("photos128")
    images = Split(data, "train")
    order = BatchOrder(len(images), data.batch_size, seed=0)
    read = read_batches(images, order, first_step=0, group=1, threads=data.read_threads)
    batches = ahead(jax.device_put(pixels) for pixels in read)

    def resident_after_an_epoch() -> int:
        for _ in range(order.batches_per_epoch):
            next(batches).block_until_ready()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    first, second = resident_after_an_epoch(), resident_after_an_epoch()
    # Of the 187 MiB that have passed through.
    assert second - first < 0.1 * len(images) * np.prod(data.shape)


def test_training_takes_the_order_of_its_seed_from_the_step_on_that_it_is_at():
    config = dataclasses.replace(digits(training__steps_per_dispatch=2), seed=3)
    images, order = Split(config.data, "train"), BatchOrder(1_438, 16, seed=3)
    # The second epoch begins with step 89.
    batches = TrainingData(config, make_mesh(config)).batches(88)
    for step in (88, 90):
        (pixels,) = next(batches)
        assert pixels.dtype == np.uint8 and len(pixels.sharding.device_set) == 4
        np.testing.assert_array_equal(pixels, [images.rows(order[step]), images.rows(order[step + 1])])


def test_calibration_takes_the_same_training_images_each_time():
    config = digits(data__value_range=(-1.0, 1.0), data__flip=True)
    data = TrainingData(config, make_mesh(config))
    first, again = (np.stack(list(data.calibration_batches())) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    images, order = Split(config.data, "train"), BatchOrder(1_438, 52, seed=0)
    expected = np.stack([images.rows(order[step]) for step in range(2)]) / 127.5 - 1
    np.testing.assert_allclose(first, expected, rtol=0, atol=1e-6)


def test_fewer_images_than_calibration_takes_are_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"1,440 .* 1,438 training images"):
        dry_run(digits(evaluation__batch_size=1_440), tmp_path)


# On the device


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
