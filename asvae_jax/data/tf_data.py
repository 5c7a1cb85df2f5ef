"""The same files read by tf.data: the measure that the pipeline is compared with, and the only use of TensorFlow."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from asvae_jax.data.images import ahead
from asvae_jax.data.records import Split
from asvae_jax.settings import FolderData

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

# Before anything else: TensorFlow would take all memory of an accelerator that JAX needs.
tf.config.set_visible_devices([], "GPU")


def from_jpeg(paths: list[Path], data: FolderData) -> Iterator[jax.Array]:
    """Files decoded, cropped to the largest square and resized when they are needed."""

    def decode(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=data.shape[2])
        side = tf.reduce_min(tf.shape(image)[:2])
        image = tf.image.resize_with_crop_or_pad(image, side, side)
        resized = tf.image.resize(image, data.shape[:2], data.resize, antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

    files = tf.data.Dataset.from_tensor_slices([str(path) for path in paths]).shuffle(len(paths), seed=0).repeat()
    return _fed(files.map(decode, num_parallel_calls=data.read_threads), data)


def from_records(split: Split, data: FolderData, path: Path) -> Iterator[jax.Array]:
    """The pixels of a prepared split, written to `path` as TFRecord if that has not been done."""
    if not path.exists():
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in range(len(split)):
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[split.rows(np.array([index])).tobytes()]))
                example = tf.train.Example(features=tf.train.Features(feature={"image": image}))
                writer.write(example.SerializeToString())

    def parse(record: tf.Tensor) -> tf.Tensor:
        parsed = tf.io.parse_single_example(record, {"image": tf.io.FixedLenFeature([], tf.string)})
        return tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), data.shape)

    # The shuffle buffer that tf.data's users give to a set of this size.
    records = tf.data.TFRecordDataset(str(path)).shuffle(1_000, seed=0).repeat()
    return _fed(records.map(parse, num_parallel_calls=data.read_threads), data)


def _fed(images: "tf.data.Dataset", data: FolderData) -> Iterator[jax.Array]:
    options = tf.data.Options()
    options.threading.private_threadpool_size = data.read_threads
    batches = images.batch(data.batch_size, drop_remainder=True).prefetch(4).with_options(options)
    return ahead(jax.device_put(batch) for batch in batches.as_numpy_iterator())
