"""Which images come when: an order that is a function of seed, epoch and index, read by threads and copied to the
devices ahead of use."""

import functools
from collections import deque
from collections.abc import Iterator
from typing import Protocol, TypeVar

import grain
import numpy as np

from asvae_jax.errors import ConfigError

T = TypeVar("T")


class Images(Protocol):
    """What `records.Split` offers: `rows` gives uint8 [n, H, W, C] of indices [n]."""

    def __len__(self) -> int: ...
    def rows(self, indices: np.ndarray) -> np.ndarray: ...


# Batches read ahead by threads, and batches copied to the devices ahead.
_READ_AHEAD, _COPIED_AHEAD = 8, 2
_NO_END = 2**40


class BatchOrder:
    """Which images make up each global batch: every epoch a fresh permutation, of which the last images that fill no
    batch are dropped.

    A pure function of (images, batch size, seed, step), so that the position in the data is the step itself.

    Raises:
      ConfigError: if there are fewer images than a batch holds.
    """

    def __init__(self, images: int, batch_size: int, seed: int):
        if images < batch_size:
            raise ConfigError(
                f"A batch of {batch_size:,} is more than the {images:,} training images there are; lower "
                "data.batch_size and evaluation.batch_size."
            )
        self._images, self._batch_size, self._seed = images, batch_size, seed
        self.batches_per_epoch = images // batch_size
        # Threads that read ahead stand in two epochs at once.
        self._permutation = functools.lru_cache(maxsize=2)(self._new_permutation)

    def __getitem__(self, step: int) -> np.ndarray:
        """Indices [B] of the batch of a step."""
        epoch, batch = divmod(step, self.batches_per_epoch)
        return self._permutation(epoch)[batch * self._batch_size : (batch + 1) * self._batch_size]

    def _new_permutation(self, epoch: int) -> np.ndarray:
        # Of NumPy's generators the one whose numbers never change from version to version.
        return np.random.RandomState([self._seed, epoch]).permutation(self._images)


def read_batches(
    images: Images,
    order: BatchOrder,
    *,
    first_step: int,
    group: int,
    threads: int,
    process: int = 0,
    processes: int = 1,
) -> Iterator[np.ndarray]:
    """This process's rows of the batches from `first_step` on, `group` steps together, without end.

    Threads read ahead; what is yielded depends neither on them nor, put together, on the number of processes.

    Yields:
      uint8 [group, B / processes, H, W, C].
    """

    def own_rows(turn: int) -> np.ndarray:
        steps = range(first_step + turn * group, first_step + (turn + 1) * group)
        own = np.stack([np.split(order[step], processes)[process] for step in steps])
        rows = images.rows(own.reshape(-1))
        return rows.reshape(*own.shape, *rows.shape[1:])

    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(_READ_AHEAD, threads))
    return iter(grain.MapDataset.range(_NO_END).map(own_rows).to_iter_dataset(reading))


def ahead(items: Iterator[T], count: int = _COPIED_AHEAD) -> Iterator[T]:
    """The same items, of which `count` are asked for before they are needed: copies to a device start then."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def padded_batches(
    count: int, batch_size: int, process: int = 0, processes: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every index below `count` once, over all processes, which all get the same number of batches.

    Yields:
      (indices [batch_size], mask [batch_size]); what the mask leaves out repeats an index.
    """
    together = batch_size * processes
    for start in range(process * batch_size, -(-count // together) * together, together):
        indices = np.arange(start, start + batch_size)
        yield np.minimum(indices, count - 1), indices < count
