"""The stored pixels of a split, from memory and from its files, and what training and calibration take of them."""

import dataclasses
import os
import resource
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
import training_runs
from training_runs import digits

from asvae_jax.config import resolve_data
from asvae_jax.data import records
from asvae_jax.data.images import BatchOrder, ahead, read_batches
from asvae_jax.data.prepare import open_prepared
from asvae_jax.data.records import Split
from asvae_jax.distributed import make_mesh
from asvae_jax.dry_run import dry_run
from asvae_jax.errors import ConfigError, DataError
from asvae_jax.presets.image import image_data
from asvae_jax.settings import ImageData
from asvae_jax.training_data import TrainingData


def section(name: str) -> ImageData:
    return resolve_data(image_data(name, batch_size=16, data_dir=training_runs.DATA_DIR))


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


def test_a_file_that_cannot_be_opened_is_not_an_empty_one(monkeypatch):
    data, opened = section("photos128"), records._reader
    shards = open_prepared(data).shards["train"]
    assert len(shards) == 2
    monkeypatch.setattr(
        records, "_reader", lambda path, size: opened(path.with_name("gone") if path == shards[1] else path, size)
    )
    with pytest.raises(DataError, match=f"{shards[1]} cannot be opened, one of 2 files of the train split.*ulimit -n"):
        Split(data, "train")


def test_as_many_files_may_be_open_as_the_system_allows():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
    try:
        assert len(Split(section("photos128"), "train")) > 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


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
