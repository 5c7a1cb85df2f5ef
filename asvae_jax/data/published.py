"""The published image sets, made from their original files without TensorFlow: MNIST, CIFAR-10, CelebA, CelebA-HQ and
Oxford Buildings.

Sizes and digests are those that TensorFlow Datasets 4.9.10 has on record for the same files.
"""

import contextlib
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from asvae_jax.data.builders import Example, Examples, PreparedImages, held_out
from asvae_jax.data.sources import SourceFile
from asvae_jax.errors import DataError
from asvae_jax.settings import CelebAData

_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"


class Mnist(PreparedImages):
    """MNIST: 70,000 handwritten digits, 28x28."""

    name = "asvae_mnist"
    CLASSES = 10
    HOMEPAGE = "http://yann.lecun.com/exdb/mnist/"
    EXPECTED: ClassVar = {"train": 60_000, "test": 10_000}
    FILES = tuple(
        SourceFile(name, size, sha256, _MNIST_URL + name)
        for name, size, sha256 in (
            (
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            (
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            (
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        )
    )

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        return {"train": _idx_examples(*files[:2]), "test": _idx_examples(*files[2:])}


def _idx_examples(images_file: Path, labels_file: Path) -> Examples:
    images, labels = _idx(images_file)[..., None], _idx(labels_file)
    if len(images) != len(labels):
        raise _bad(images_file, f"has {len(images):,} images, {labels_file} {len(labels):,} labels")
    return Examples(len(images), map(Example, images, labels.tolist()))


def _idx(path: Path) -> np.ndarray:
    """An array in the IDX format of MNIST: two zeros, the type (8: unsigned bytes), the rank, the sides, the data."""
    with _archive_errors(path), gzip.open(path) as file:
        content = file.read()
    zeros, kind, rank = struct.unpack_from(">HBB", content) if len(content) >= 4 else (1, 0, 0)
    if zeros or kind != 8 or len(content) < 4 + 4 * rank:
        raise _bad(path, "is not in MNIST's IDX format")
    shape = struct.unpack_from(f">{rank}I", content, 4)
    start = 4 + 4 * rank
    if len(content) - start != np.prod(shape, dtype=np.int64):
        raise _bad(path, f"announces an array of shape {shape} and holds {len(content) - start:,} bytes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


class Cifar10(PreparedImages):
    """CIFAR-10: 60,000 photographs of ten kinds of things, 32x32, in colour."""

    name = "asvae_cifar10"
    CLASSES = 10
    HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
    EXPECTED: ClassVar = {"train": 50_000, "test": 10_000}
    FILES = (
        SourceFile(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        ),
    )
    _BATCHES: ClassVar = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        (archive,) = files
        found = {PurePosixPath(name).name: content for name, content in _tar_members(archive, (".bin",))}
        missing = [name for names in self._BATCHES.values() for name in names if name not in found]
        if missing:
            raise _bad(archive, f"lacks {', '.join(missing)}")
        return {
            split: self._examples(archive, b"".join(found[name] for name in names))
            for split, names in self._BATCHES.items()
        }

    def _examples(self, archive: Path, content: bytes) -> Examples:
        height, width, channels = self.data.shape
        size = 1 + height * width * channels
        if len(content) % size:
            raise _bad(archive, f"has batches that are no whole number of records of {size:,} bytes")
        records = np.frombuffer(content, np.uint8).reshape(-1, size)
        images = records[:, 1:].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
        return Examples(len(images), map(Example, images, records[:, 0].tolist()))


class CelebA(PreparedImages):
    """CelebA, aligned and cropped: 202,599 faces of celebrities, 178x218, in colour."""

    name = "asvae_celeba"
    HOMEPAGE = "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html (Google Drive: Img and Eval)"
    FILES = (
        SourceFile(
            "img_align_celeba.zip",
            1_443_490_838,
            "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
        ),
        SourceFile(
            "list_eval_partition.txt",
            2_836_386,
            "fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7",
        ),
    )
    EXPECTED: ClassVar = {"train": 162_770, "validation": 19_867, "test": 19_962}

    def expected(self) -> Mapping[str, int]:
        return {**self.EXPECTED, "train": sum(self.EXPECTED.values())} if self._all_files else self.EXPECTED

    def note(self) -> str:
        return "The test images are training images, too: partition is 'all'." if self._all_files else ""

    @property
    def _all_files(self) -> bool:
        assert isinstance(self.data, CelebAData)
        return self.data.partition == "all"

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        archive, partition = files
        names: dict[str, list[str]] = {split: [] for split in self.EXPECTED}
        for number, line in enumerate(partition.read_text(errors="replace").splitlines(), start=1):
            match line.split():
                case [name, ("0" | "1" | "2") as split]:
                    names[list(names)[int(split)]].append(name)
                case _:
                    raise _bad(partition, f"has in line {number}: {line!r} instead of a file name and 0, 1 or 2")
        if self._all_files:
            names["train"] = sorted(name for split in names.values() for name in split)
        return {split: _zip_examples(archive, "img_align_celeba/", chosen) for split, chosen in names.items()}


class CelebAHQ(PreparedImages):
    """CelebA-HQ: 30,000 faces of celebrities, 1024x1024, in colour."""

    name = "asvae_celebahq"
    HOMEPAGE = "https://github.com/switchablenorms/CelebAMask-HQ"
    EXPECTED: ClassVar = {"train": 27_000, "test": 3_000}
    FILES = (SourceFile("CelebAMask-HQ.zip|data1024x1024.tar"),)
    NOTE = "A tenth of the faces is held out by the digests of their file names; there is no official split."

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        (archive,) = files
        if archive.suffix == ".tar":
            return _tar_hold_out(archive, (".jpg", ".png"))
        folder = "CelebAMask-HQ/CelebA-HQ-img/"
        with _opened_zip(archive) as opened:
            names = sorted(n.removeprefix(folder) for n in opened.namelist() if n.startswith(folder) and n != folder)
        _require_images(names, archive)
        test = held_out(names)
        return {
            "train": _zip_examples(archive, folder, [name for name in names if name not in test]),
            "test": _zip_examples(archive, folder, sorted(test)),
        }


class OxfordBuildings(PreparedImages):
    """Oxford Buildings: 5,062 photographs of Oxford landmarks from Flickr, of about 1024x768 pixels."""

    name = "asvae_oxford_buildings"
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/"
    EXPECTED: ClassVar = {"train": 4_556, "test": 506}
    FILES = (SourceFile("oxbuild_images.tgz|oxbuild_images-v1.tgz"),)
    NOTE = (
        "The archive that the papers used was withdrawn. Today's has people's faces blurred, so that figures on it "
        "differ from the papers'. The photographs are subject to Flickr's terms of use. A tenth of them is held out by "
        "the digests of their file names."
    )

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        return _tar_hold_out(files[0], (".jpg",))


def _tar_hold_out(archive: Path, suffixes: tuple[str, ...]) -> dict[str, Examples]:
    """The images of an archive that can only be read from its start: once to list them, once for each split."""
    names = [name for name, _ in _tar_members(archive, suffixes)]
    _require_images(names, archive)
    test = held_out(names)

    def examples(held_out: bool) -> Iterator[Example]:
        for name, image in _tar_members(archive, suffixes):
            if (name in test) is held_out:
                yield Example(image, name)

    return {
        "train": Examples(len(names) - len(test), examples(held_out=False)),
        "test": Examples(len(test), examples(held_out=True)),
    }


def _require_images(names: Iterable[str], archive: Path) -> None:
    if len(list(names)) < 2:
        raise _bad(archive, "holds fewer than two images")


def _tar_members(archive: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files with one of the suffixes, in the order of the archive."""
    with _archive_errors(archive), _unpacked(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as opened:
        for member in opened:
            if member.isfile() and member.name.lower().endswith(suffixes):
                file = opened.extractfile(member)
                assert file is not None
                yield member.name, file.read()
        # To the very end, where gzip keeps its checksum, of which tarfile takes no notice.
        while stream.read(1 << 20):
            pass


def _unpacked(archive: Path) -> io.BufferedIOBase:
    return archive.open("rb") if archive.suffix == ".tar" else gzip.open(archive)


def _zip_examples(archive: Path, folder: str, names: list[str]) -> Examples:
    with _opened_zip(archive) as opened:
        missing = [name for name in names if folder + name not in opened.NameToInfo]
    if missing:
        raise _bad(archive, f"lacks {folder}{missing[0]} and {len(missing) - 1:,} more of {len(names):,} images")

    def examples() -> Iterator[Example]:
        with _opened_zip(archive) as opened:
            for name in names:
                yield Example(opened.read(folder + name), name)

    return Examples(len(names), examples())


@contextlib.contextmanager
def _opened_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    with _archive_errors(archive), zipfile.ZipFile(archive) as opened:
        yield opened


@contextlib.contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    """Makes one error of those that the archive formats raise."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, zlib.error, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _bad(path, f"is damaged or no such archive ({error})") from error


def _bad(path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}. Remove it, get it again and run the same command.")
