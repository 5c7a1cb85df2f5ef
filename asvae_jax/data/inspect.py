"""What is in a prepared set, as the trainer will see it."""

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from PIL import Image

from asvae_jax.data.augment import from_value_range, training_images
from asvae_jax.data.images import BatchOrder, ahead, read_batches
from asvae_jax.data.prepare import PreparedSet, open_prepared
from asvae_jax.data.records import Split
from asvae_jax.figures import image_sheet, sheet_columns
from asvae_jax.settings import ImageData

_SECONDS = 4.0
_MOMENTS_OF = 512
# Of pixels, whose standard deviation takes eight times as many more.
_MOMENTS_BYTES = 2**26
_LISTED = 20


def summary(name: str, prepared: PreparedSet) -> str:
    """Where a prepared set lies, its splits and what is particular about it, as lines of text."""
    rows = {
        name: f"{prepared.folder} ({prepared.bytes / 2**20:,.1f} MiB)",
        "splits": ", ".join(f"{split} {size:,}" for split, size in prepared.sizes.items()),
    }
    if deviations := [
        f"{split} {prepared.sizes[split]:,} instead of {size:,}"
        for split, size in prepared.metadata["expected"].items()
        if prepared.sizes[split] != size
    ]:
        rows["DEVIATES"] = f"from the published set: {', '.join(deviations)}"
    if unreadable := prepared.metadata["unreadable"]:
        more = f" and {len(unreadable) - _LISTED:,} more in metadata.json" if len(unreadable) > _LISTED else ""
        rows["unreadable"] = f"{len(unreadable):,} files passed over: {', '.join(unreadable[:_LISTED])}{more}"
    if source := prepared.metadata.get("source"):
        rows["source"] = source
    if prepared.metadata["note"]:
        rows["note"] = prepared.metadata["note"]
    return _lines(rows)


def inspect(data: ImageData) -> tuple[str, Image.Image]:
    """A report and a sheet of training and test images; the batches are those of `data.batch_size` and
    `data.read_threads`.

    Raises:
      DataError: as `open_prepared` does.
    """
    prepared = open_prepared(data)
    train, test = Split(data, "train").held(), Split(data, "test")
    data = dataclasses.replace(data, batch_size=min(data.batch_size, len(train)))
    measured = min(len(train), _MOMENTS_OF, max(1, _MOMENTS_BYTES // math.prod(data.shape)))
    pixels = train.rows(np.linspace(0, len(train) - 1, measured).astype(int))
    seen = np.asarray(training_images(data, _first_pixels(train, data), jax.random.key(0), 0))
    low, high = data.value_range
    rows = {
        "shape": f"{data.shape}, uint8 on disk, float32 in [{low:g}, {high:g}] for the networks"
        + (", mirrored at random" if data.flip else ""),
        "pixels": f"{pixels.min()} to {pixels.max()}, mean {_by_channel(pixels.mean(axis=(0, 1, 2)))}, standard "
        f"deviation {_by_channel(pixels.std(axis=(0, 1, 2)))} ({len(pixels)} training images)",
        "first batch": f"{seen.shape}, {seen.min():.3f} to {seen.max():.3f}",
        "pipeline": f"{images_per_second(_on_device(train, data), data.batch_size, _SECONDS):,.0f} images/s to the "
        f"device in batches of {data.batch_size}, {data.read_threads} reading threads",
    }
    columns = sheet_columns(data.shape)
    sheet = image_sheet(
        {
            "train": np.asarray(from_value_range(data, jax.numpy.asarray(seen)))[: 2 * columns],
            "test": test.rows(np.linspace(0, len(test) - 1, min(columns, len(test))).astype(int)) / 255,
        },
        f"{data.name}, {len(train):,} training and {len(test):,} test images of {'x'.join(map(str, data.shape))}",
    )
    return f"{summary(data.name, prepared)}\n{_lines(rows)}", sheet


def images_per_second(batches: Iterator[Any], batch_size: int, seconds: float) -> float:
    """The rate at which an endless iterator yields, once it has begun."""
    next(batches)
    began = time.perf_counter()
    for count in itertools.count(1):
        next(batches)
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            return count * batch_size / elapsed
    raise AssertionError


def _first_pixels(train: Split, data: ImageData) -> jax.Array:
    return jax.device_put(train.rows(BatchOrder(len(train), data.batch_size, seed=0)[0]))


def _on_device(train: Split, data: ImageData) -> Iterator[jax.Array]:
    """As training reads: in its order, by its threads, ahead of use."""
    order = BatchOrder(len(train), data.batch_size, seed=0)
    read = read_batches(train, order, first_step=0, group=1, threads=data.read_threads)
    return ahead(jax.device_put(pixels) for pixels in read)


def _by_channel(values: np.ndarray) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def _lines(rows: dict[str, str]) -> str:
    return "\n".join(f"{name:<17}{text}" for name, text in rows.items())
