"""The images of a prepared set, by index."""

import contextlib
import math
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.proto import tf_example_pb2

from asvae_jax.data.prepare import open_prepared, remedy
from asvae_jax.errors import DataError, first_line
from asvae_jax.settings import ImageData

T = TypeVar("T")

# Splits up to this size (MNIST's and CIFAR-10's) are better held than read again and again.
_HELD_BYTES = 512 << 20
_RECORD_OVERHEAD, _LARGEST_BUFFER = 16 << 10, 1 << 20


class Split:
    """The images of one split ("train", "test") of a prepared set, by index, read when asked for.

    Raises:
      DataError: if the set is not prepared or damaged (see `prepare.open_prepared`), or a file of it cannot be opened.
    """

    def __init__(self, data: ImageData, split: str):
        _allow_open_files()
        prepared = open_prepared(data)
        self._data, self._folder = data, prepared.folder
        image_bytes = math.prod(data.shape)
        self._readers = [_reader(path, image_bytes) for path in prepared.shards[split]]
        sizes = [reader.num_records() for reader in self._readers]
        # A reader that could not open its file says nothing but that it holds no records.
        if sum(sizes) != prepared.sizes[split]:
            unopened = prepared.shards[split][int(np.argmin(sizes))]
            raise DataError(
                f"{unopened} cannot be opened, one of {len(sizes)} files of the {split} split. If its rights and the "
                "file system are well, allow more open files (ulimit -n)."
            )
        self._ends = np.cumsum(sizes)
        self._starts = self._ends - sizes
        self._held: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, indices: np.typing.ArrayLike) -> np.ndarray:
        """The images of some indices [n], uint8 [n, H, W, C].

        Raises:
          DataError: if the bytes on disk are not those that were written.
        """
        indices = np.asarray(indices)
        if self._held is not None:
            return self._held[indices]
        images = np.empty((len(indices), *self._data.shape), np.uint8)
        for image, index in zip(images, indices, strict=True):
            image.reshape(-1)[:] = self._pixels(int(index))
        return images

    def labels(self) -> np.ndarray:
        """The classes of all images, int32 [N].

        Raises:
          DataError: if the set has none, or is damaged.
        """
        labels = [self._read(index, lambda features: features["label"].int64_list.value) for index in range(len(self))]
        if not all(labels):
            raise DataError(f"The images of {self._data.name} have no labels.")
        return np.asarray(labels, np.int32)[:, 0]

    def held(self) -> "Split":
        """The same; a small split now stays in memory, a large one goes on being read from disk."""
        if len(self) * math.prod(self._data.shape) <= _HELD_BYTES:
            self._held = self.rows(np.arange(len(self)))
        return self

    def _pixels(self, index: int) -> np.ndarray:
        return self._read(index, lambda features: np.frombuffer(features["image"].bytes_list.value[0], np.uint8))

    def _read(self, index: int, part: Callable[[Any], T]) -> T:
        """What `part` takes of the features of an image."""
        try:
            shard = int(np.searchsorted(self._ends, index, side="right"))
            (record,) = self._readers[shard].read([index - int(self._starts[shard])])
            return part(tf_example_pb2.Example.FromString(record).features.feature)
        except Exception as error:
            advice = remedy(self._folder, self._data)
            raise DataError(f"{self._folder}: image {index} cannot be read ({first_line(error)}). {advice}") from error


def _allow_open_files() -> None:
    """As many as the system lets this process have: each file of a set stays open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS names no limit and refuses to go without
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _reader(path: Path, image_bytes: int) -> ArrayRecordReader:
    """Fit for records asked for at random: nothing read ahead, and a buffer that takes a record in one piece."""
    buffer = min(_LARGEST_BUFFER, image_bytes + _RECORD_OVERHEAD)
    return ArrayRecordReader(str(path), options="readahead_buffer_size:0", file_reader_buffer_size=buffer)
