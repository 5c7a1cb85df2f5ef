"""The images of a prepared set, by index."""

import math

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from asvae_jax.config import ImageData
from asvae_jax.data.prepare import open_prepared, prepare_command
from asvae_jax.errors import DataError

# Splits up to this size (MNIST's and CIFAR-10's) are better held than read again and again.
_HELD_BYTES = 512 << 20


class Split:
    """The images of one split ("train", "test") of a prepared set, by index, read when asked for.

    Raises:
      DataError: if the set is not prepared or damaged; see `prepare.open_prepared`.
    """

    def __init__(self, data: ImageData, split: str):
        prepared = open_prepared(data)
        self._data, self._folder = data, prepared.folder
        self._records = ArrayRecordDataSource(prepared.shards[split])
        self._held: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._records)

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

    def held(self) -> "Split":
        """The same; a small split now stays in memory, a large one goes on being read from disk."""
        if len(self) * math.prod(self._data.shape) <= _HELD_BYTES:
            self._held = self.rows(np.arange(len(self)))
        return self

    def _pixels(self, index: int) -> np.ndarray:
        try:
            # One at a time: it is faster than asking for many, which starts threads for each request.
            record = self._records[index]
            features = tf_example_pb2.Example.FromString(record).features.feature
            pixels = np.frombuffer(features["image"].bytes_list.value[0], np.uint8)
        except Exception as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"{self._folder}: image {index} cannot be read ({first_line}). Remove that folder and run: "
                f"{prepare_command(self._data)}"
            ) from error
        return pixels
