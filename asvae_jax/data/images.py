"""Image sets: prepared by TFDS as ArrayRecord, decoded once into memory, served in an order that is a function of
seed and step."""

import logging
from pathlib import Path

import grain
import numpy as np

from asvae_jax.config import ImageData
from asvae_jax.errors import DataError

_log = logging.getLogger(__name__)


def load_split(data: ImageData, split: str) -> np.ndarray:
    """All images of a split ("train" or "test"), uint8 [N, H, W, C]; prepares the set first if that has not been done.

    Raises:
      DataError: if the set cannot be prepared, or what is prepared has another shape.
    """
    builder = _prepared_builder(data)
    source = builder.as_data_source(split=split)
    images = np.stack([example["image"] for example in source])
    if images.shape[1:] != data.shape:
        raise DataError(
            f"{builder.data_path} holds images of shape {images.shape[1:]}, the config expects {data.shape}; "
            "remove that folder."
        )
    return images


def _prepared_builder(data: ImageData):
    # TFDS takes a second to import, and a toy needs none of it.
    from asvae_jax.data.builders import BUILDERS

    builder = BUILDERS[data.name](data_dir=Path(data.data_dir).expanduser(), file_format="array_record")
    if not builder.is_prepared():
        _log.info("Preparing %s under %s", data.name, builder.data_path)
        try:
            builder.download_and_prepare()
        except OSError as error:
            # Another process may have been faster; what it prepared is the same.
            builder = BUILDERS[data.name](data_dir=Path(data.data_dir).expanduser(), file_format="array_record")
            if builder.is_prepared():
                return builder
            raise DataError(f"{data.name} cannot be prepared under {data.data_dir}: {error}.") from error
    return builder


class BatchOrder:
    """Which images make up each global batch: every epoch a fresh shuffle, batches running on over the seam between
    epochs.

    A pure function of (images, batch size, seed, step), so that the position in the data is the step itself.
    """

    def __init__(self, images: int, batch_size: int, seed: int):
        shuffled = grain.MapDataset.range(images).seed(seed).shuffle().repeat()
        self._batches = shuffled.batch(batch_size, drop_remainder=True)

    def __getitem__(self, step: int) -> np.ndarray:
        """Indices [B] of the batch of a step."""
        return self._batches[step]


def local_batch(images: np.ndarray, order: BatchOrder, step: int, process: int = 0, processes: int = 1) -> np.ndarray:
    """This process's rows of the global batch of a step, uint8 [B / processes, H, W, C]."""
    rows = np.split(order[step], processes)[process]
    return images[rows]


def padded_batches(images: np.ndarray, batch_size: int):
    """All images once, in order: yields (batch [batch_size, ...], mask [batch_size]), the last batch padded with its
    own last image."""
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        missing = batch_size - len(batch)
        mask = np.arange(batch_size) < len(batch)
        yield np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]), mask
