"""Real examples to measure and to draw: images of a prepared split, or toy points."""

import jax
import numpy as np

from asvae_jax.data import toys
from asvae_jax.figures import sheet_columns
from asvae_jax.settings import Config, ImageData

# Fixed, so that all runs are compared with the same real points.
REAL_SEED = 2


class Examples:
    """Real examples by index: images in [0, 1] of a split, read when asked for, or toy points."""

    def __init__(self, config: Config, split: str = "test"):
        if isinstance(config.data, ImageData):
            # TFDS takes a second to import, and a toy needs none of it.
            from asvae_jax.data.records import Split

            self._images = Split(config.data, split)
            self._count = len(self._images)
        else:
            self._count = config.chunk_size
            self._points = np.asarray(toys.draw(config.data.name, jax.random.key(REAL_SEED), self._count))
        self._is_toy = config.is_toy

    def __len__(self) -> int:
        return self._count

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """float32 [n, H, W, C] or [n, 2]."""
        return self._points[indices] if self._is_toy else self._images.rows(indices).astype(np.float32) / 255


def preview_examples(config: Config) -> np.ndarray:
    """What a run's pictures show: toy points, or a row of images spread over the test split."""
    examples = Examples(config)
    count = len(examples) if config.is_toy else min(len(examples), sheet_columns(config.example_shape))
    return examples.rows(np.linspace(0, len(examples) - 1, count).astype(int))
