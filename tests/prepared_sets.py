"""What the tests of preparation share: small sets, images as TFDS itself reads them, damaged files and refusals."""

from pathlib import Path

import numpy as np
import pytest
import stand_ins
import tensorflow_datasets as tfds
from stand_ins import data_section

from asvae_jax.data.prepare import PreparedSet, make_builder, prepare
from asvae_jax.errors import DataError
from asvae_jax.settings import ImageData

SHAPES = {
    "mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "oxford_buildings": (128, 128, 3),
    "celeba128": (128, 128, 3),
    "celeba256": (256, 256, 3),
    "celebahq1024": (1024, 1024, 3),
    "image_folder": (128, 128, 3),
}
SIZES = {
    "mnist": {"train": 48, "test": 12},
    "cifar10": {"train": 50, "test": 10},
    "oxford_buildings": {"train": 43, "test": 5},
    "celeba128": {"train": 48, "validation": 6, "test": 6},
    "celeba256": {"train": 48, "validation": 6, "test": 6},
    "celebahq1024": {"train": 14, "test": 2},
    "image_folder": {"train": 43, "test": 5},
}
# Two of MNIST's four files.
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def small_folder(data_dir: Path, **changes) -> ImageData:
    """The data section of an image folder that is prepared in no time."""
    return data_section("image_folder", data_dir, shape=(16, 16, 3), **changes)


def prepare_small(folder: Path) -> Path:
    """Prepares a small image folder in `data` from `originals`, both within the folder, which is returned."""
    stand_ins.image_folder(folder / "originals")
    prepare(small_folder(folder / "data"), manual_dir=folder / "originals")
    return folder


def spoilt_folder(folder: Path) -> Path:
    """Writes an image folder with two files that cannot be read, and returns it."""
    stand_ins.image_folder(folder)
    whole = stand_ins.jpeg(0, 64, 64)
    stand_ins.write_files(folder, {"cut.jpg": whole[: len(whole) // 2], "text.jpg": b"no image"})
    return folder


def read(prepared_set: PreparedSet, split: str) -> list[dict]:
    """A split as TFDS itself reads it, without our builders."""
    source = tfds.builder_from_directory(prepared_set.folder).as_data_source(split)
    return [source[i] for i in range(len(source))]


def by_file(prepared_set: PreparedSet, split: str) -> dict[str, np.ndarray]:
    """Images by the names of their files."""
    rows = read(prepared_set, split)
    images = {row["file"].decode(): row["image"] for row in rows}
    assert len(images) == len(rows)
    return images


def all_by_file(prepared_set: PreparedSet) -> dict[str, np.ndarray]:
    """Those of all splits, none of which may be in two of them."""
    splits = [by_file(prepared_set, split) for split in prepared_set.sizes]
    images = {name: image for split in splits for name, image in split.items()}
    assert len(images) == sum(map(len, splits))
    return images


def assert_equal_images(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    for name, image in expected.items():
        np.testing.assert_array_equal(got[name], image, err_msg=name)


def refused(data: ImageData, manual_dir: Path, error: type[Exception] = DataError, **options) -> str:
    """The one line that is said when a set is refused, of which then nothing may be there."""
    with pytest.raises(error) as caught:
        prepare(data, manual_dir=manual_dir, **options)
    assert "\n" not in str(caught.value)
    assert_nothing_there(data)
    return str(caught.value)


def assert_nothing_there(data: ImageData) -> None:
    assert not Path(make_builder(data).data_path).exists()
    assert not list(Path(data.data_dir).rglob("incomplete.*"))


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(stand_ins.flipped(content, len(content) // 2))


def put_a_web_page_there(path: Path) -> None:
    path.write_text("<html><body>Too many users have downloaded this file.</body></html>\n" * 20)
