"""From original files to prepared sets and back: which pixels, which splits, and what is said of files that are
missing, damaged or not what they should be. The originals are stand-ins, the builders and files real."""

import contextlib
import dataclasses
import functools
import gzip
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import types
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import stand_ins
import tensorflow_datasets as tfds
from PIL import Image
from stand_ins import data_section, publish
from training_runs import ROOT, environment, run, started, wait_until

from asvae_jax import __main__ as commands
from asvae_jax.commands.arguments import image_data_of
from asvae_jax.config import ImageData
from asvae_jax.data import builders
from asvae_jax.data.builders import held_out
from asvae_jax.data.inspect import summary
from asvae_jax.data.prepare import PreparedSet, make_builder, open_prepared, prepare, prepare_command
from asvae_jax.data.published import CelebAHQ
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError, StorageError
from asvae_jax.presets import image_data

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
# The 148 x 148 pixels in the centre of CelebA's 178 x 218.
CENTRE = (15, 35, 163, 183)
PREPARE = "python -m asvae_jax prepare"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> dict[str, PreparedSet]:
    """A stand-in for each set, prepared with the usual settings."""
    return stand_ins.prepare_all(tmp_path_factory.mktemp("all"))


@pytest.fixture
def originals(tmp_path) -> Path:
    """Where a test puts original files."""
    return tmp_path / "originals"


def small_folder(data_dir: Path, **changes) -> ImageData:
    """The data section of an image folder that is prepared in no time."""
    return data_section("image_folder", data_dir, shape=(16, 16, 3), **changes)


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


def resized(content: bytes, side: int, box=None, resize=Image.Resampling.BILINEAR) -> np.ndarray:
    """An image file cropped, then resized, by Pillow alone."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB").crop(box or (0, 0, *image.size)).resize((side, side), resize))


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


# What is prepared.


@pytest.mark.parametrize("name", SHAPES)
def test_splits_have_the_sizes_and_images_the_shape_that_are_promised(name, prepared):
    assert prepared[name].sizes == SIZES[name]
    for split, size in SIZES[name].items():
        rows = read(prepared[name], split)
        assert len(rows) == size
        assert {(row["image"].shape, row["image"].dtype.name) for row in rows} == {(SHAPES[name], "uint8")}


@pytest.mark.parametrize("name", SHAPES)
def test_training_reads_what_tfds_reads(name, prepared):
    data = data_section(name, prepared[name].folder.parents[2])
    for split, size in SIZES[name].items():
        images = Split(data, split).rows(np.arange(size))
        np.testing.assert_array_equal(images, [row["image"] for row in read(prepared[name], split)])


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_as_published_is_not_said_to_deviate(name, prepared):
    said = summary(name, prepared[name])
    assert "DEVIATES" not in said and "unreadable" not in said
    assert str(prepared[name].folder) in said and f"train {SIZES[name]['train']}" in said


def test_mnist_is_what_its_four_files_hold(prepared):
    rows = read(prepared["mnist"], "train") + read(prepared["mnist"], "test")
    images, labels = stand_ins.digits()
    np.testing.assert_array_equal([row["image"][..., 0] for row in rows], images)
    assert [row["label"] for row in rows] == labels and len(set(labels)) == 10


def test_cifar10_has_its_colours_and_rows_in_place(prepared):
    rows = read(prepared["cifar10"], "train") + read(prepared["cifar10"], "test")
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(row["image"], np.asarray(stand_ins.photograph(i, 32, 32)))
        assert row["label"] == i % 10


def celeba_files(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "img_align_celeba.zip") as archive:
        return {name: archive.read(f"img_align_celeba/{name}") for name in stand_ins.CELEBA_FILES}


@pytest.mark.parametrize("side", [128, 256])
def test_celeba_is_split_officially_cropped_and_resized(side, prepared):
    celeba = prepared[f"celeba{side}"]
    files = celeba_files(celeba.folder.parents[2] / "downloads" / "manual")
    for number, split in enumerate(("train", "validation", "test")):
        chosen = [name for name, its_split in stand_ins.CELEBA_SPLITS.items() if its_split == number]
        expected = {name: resized(files[name], side, CENTRE) for name in chosen}
        assert_equal_images(by_file(celeba, split), expected)


@pytest.mark.parametrize(
    ("changes", "box", "resize"),
    [
        ({"crop": "none"}, None, Image.Resampling.BILINEAR),
        ({"crop": "square"}, (0, 20, 178, 198), Image.Resampling.BILINEAR),
        ({"resize": "box"}, CENTRE, Image.Resampling.BOX),
        ({"resize": "bicubic"}, CENTRE, Image.Resampling.BICUBIC),
        ({"resize": "lanczos"}, CENTRE, Image.Resampling.LANCZOS),
    ],
)
def test_celeba_with_another_crop_or_filter_is_another_set(changes, box, resize, tmp_path, originals, monkeypatch):
    publish("celeba128", originals, monkeypatch)
    other = prepare(data_section("celeba128", tmp_path, **changes), manual_dir=originals)
    usual = data_section("celeba128", tmp_path)
    # What is there is no substitute.
    with pytest.raises(DataError, match=f"there is {other.folder.parent.name}"):
        open_prepared(usual)
    assert other.folder != prepare(usual, manual_dir=originals).folder
    files = celeba_files(originals)
    assert_equal_images(
        all_by_file(other), {name: resized(content, 128, box, resize) for name, content in files.items()}
    )


def test_all_of_celeba_is_trained_on_if_asked_for_and_the_user_told(tmp_path, originals, monkeypatch):
    publish("celeba128", originals, monkeypatch)
    full_frame = prepare(data_section("celeba128", tmp_path, partition="all", crop="none"), manual_dir=originals)
    assert full_frame.sizes == {"train": 60, "validation": 6, "test": 6}
    train, test = by_file(full_frame, "train"), by_file(full_frame, "test")
    assert list(train) == stand_ins.CELEBA_FILES and test.keys() < train.keys()
    np.testing.assert_array_equal(train["000001.jpg"], resized(celeba_files(originals)["000001.jpg"], 128))
    said = summary("celeba128", full_frame)
    assert "test images are training images" in said and "DEVIATES" not in said


def test_celeba_hq_takes_the_faces_and_leaves_the_masks(prepared):
    faces = {name: resized(stand_ins.jpeg(i, 64, 64), 1024) for i, name in enumerate(stand_ins.CELEBA_HQ_FILES)}
    assert_equal_images(all_by_file(prepared["celebahq1024"]), faces)


def test_celeba_hq_may_be_the_other_archive(tmp_path, originals, monkeypatch):
    originals.mkdir()
    stand_ins.celeba_hq_tar(originals)
    monkeypatch.setattr(CelebAHQ, "EXPECTED", {"train": 27, "test": 3})
    archive = prepare(data_section("celebahq1024", tmp_path), manual_dir=originals)
    faces = {f"data1024x1024/{i:05}.jpg": resized(stand_ins.jpeg(i, 64, 64), 1024) for i in range(3)}
    assert_equal_images(all_by_file(archive), faces)
    # Three faces instead of thirty are prepared all the same, and the user is told.
    assert "train 2 instead of 27, test 1 instead of 3" in summary("celebahq1024", archive)


def test_oxford_buildings_shows_each_photograph_whole(prepared):
    photographs = {name: resized(content, 128) for name, content in stand_ins.oxford_members().items()}
    assert_equal_images(all_by_file(prepared["oxford_buildings"]), photographs)


def test_image_folder_shows_the_centre_of_each_photograph(prepared):
    middle = (5, 0, 35, 30)
    expected = {
        name: resized(stand_ins.encoded(stand_ins.photograph(i, 40, 30), "png"), 128, middle)
        for i, name in enumerate(stand_ins.FOLDER_FILES)
    }
    assert_equal_images(all_by_file(prepared["image_folder"]), expected)


# The held-out tenth.


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("oxford_buildings", stand_ins.OXFORD_FILES),
        ("celebahq1024", stand_ins.CELEBA_HQ_FILES),
        ("image_folder", stand_ins.FOLDER_FILES),
    ],
)
def test_a_tenth_is_held_out_where_nothing_official_is(name, files, prepared):
    train, test = (set(by_file(prepared[name], split)) for split in ("train", "test"))
    assert test == held_out(files) and len(test) == round(len(files) / 10)
    assert not train & test and train | test == set(files)


def test_what_is_held_out_never_changes():
    names = [f"{i:03}.jpg" for i in range(30)]
    assert held_out(names) == {"003.jpg", "009.jpg", "022.jpg"}
    assert held_out(reversed(names)) == held_out(names)
    assert held_out(names[:2]) < set(names[:2])


def test_what_is_held_out_hardly_changes_with_more_files():
    names = [f"{i:05}.jpg" for i in range(1_000)]
    assert len(held_out(names) - held_out([*names, "another.jpg"])) <= 1


def test_what_is_held_out_does_not_depend_on_the_order_of_an_archive(prepared, tmp_path, originals, monkeypatch):
    publish("oxford_buildings", originals, monkeypatch)
    backwards = dict(reversed(stand_ins.oxford_members().items()))
    stand_ins.write_tar(originals / "oxbuild_images.tgz", backwards)
    again = prepare(data_section("oxford_buildings", tmp_path), manual_dir=originals)
    for split in ("train", "test"):
        images = by_file(again, split)
        assert list(images) == [name for name in backwards if name in images]
        assert_equal_images(images, by_file(prepared["oxford_buildings"], split))


# Several shards.


def test_images_keep_their_order_over_several_shards(prepared, tmp_path, originals, monkeypatch):
    stand_ins.image_folder(originals)
    monkeypatch.setattr(builders, "_SHARD_BYTES", 10 * 128 * 128 * 3)
    parted = prepare(data_section("image_folder", tmp_path), manual_dir=originals)
    assert len(parted.shards["train"]) == 5 and parted.sizes == SIZES["image_folder"]
    for split in parted.sizes:
        expected = by_file(prepared["image_folder"], split)
        assert list(by_file(parted, split)) == list(expected) == sorted(expected)
        assert_equal_images(by_file(parted, split), expected)


def test_a_shard_without_a_readable_image_does_no_harm(tmp_path, originals, monkeypatch):
    stand_ins.image_folder(originals)
    train = sorted(set(stand_ins.FOLDER_FILES) - held_out(stand_ins.FOLDER_FILES))
    for name in train[-3:]:
        (originals / name).write_text("no image")
    monkeypatch.setattr(builders, "_SHARD_BYTES", 10 * 16 * 16 * 3)
    data = small_folder(tmp_path)
    parted = prepare(data, manual_dir=originals)
    assert parted.sizes == {"train": 40, "test": 5} and len(parted.shards["train"]) == 5
    assert list(by_file(parted, "train")) == train[:-3]
    assert Split(data, "train").rows([0, 39]).shape == (2, 16, 16, 3)


# What is refused.


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(stand_ins.flipped(content, len(content) // 2))


def add_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def put_a_web_page_there(path: Path) -> None:
    path.write_text("<html><body>Too many users have downloaded this file.</body></html>\n" * 20)


def put_an_empty_file_there(path: Path) -> None:
    path.write_bytes(b"")


def change_the_type_of_numbers(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:2] + b"\x0d" + content[3:]))


def leave_out_an_image(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[: -28 * 28]))


def leave_out_a_label(path: Path) -> None:
    labels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)[8:]
    path.write_bytes(gzip.compress(stand_ins.idx(labels[:-1])))


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def leave_out_a_batch(path: Path) -> None:
    members = _members(path)
    del members["cifar-10-batches-bin/data_batch_3.bin"]
    stand_ins.write_tar(path, members)


def cut_a_batch_short(path: Path) -> None:
    stand_ins.write_tar(path, {name: content[:-100] for name, content in _members(path).items()})


def keep_one_image(path: Path) -> None:
    stand_ins.write_tar(path, dict(list(_members(path).items())[:1]))


def cut_between_two_images(path: Path) -> None:
    """Where what can be unpacked ends with a whole file."""
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        edges = {member.offset for member in archive}
    for cut in range(len(content) // 2, len(content)):
        unpacked = len(zlib.decompressobj(31).decompress(content[:cut]))
        if any(edge <= unpacked < edge + 512 for edge in edges):
            path.write_bytes(content[:cut])
            return
    raise AssertionError("There is no such place.")


def put_an_unknown_split_in_line_3(path: Path) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "000003.jpg 7", *lines[3:]]))


def name_an_image_that_is_not_there(path: Path) -> None:
    path.write_text(path.read_text() + "999999.jpg 0\n")


def damage_an_image_within(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(stand_ins.flipped(content, content.index(b"img_align_celeba/000020.jpg") + 500))


def encrypt(path: Path) -> None:
    # The first bit of the flags, in each local header and in the table at the end.
    content = path.read_bytes()
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := content.find(header, at + 1)) >= 0:
            content = content[: at + flags] + bytes([content[at + flags] | 1]) + content[at + flags + 1 :]
    path.write_bytes(content)


def leave_out_the_faces(path: Path) -> None:
    stand_ins.write_zip(path, {"CelebAMask-HQ/CelebA-HQ-img/": b"", "CelebAMask-HQ/README.txt": b"Faces.\n"})


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
CIFAR, OXFORD = "cifar-10-binary.tar.gz", "oxbuild_images.tgz"
CELEBA, LIST, HQ = "img_align_celeba.zip", "list_eval_partition.txt", "CelebAMask-HQ.zip"

# Files that differ from the published ones: (set, file, damage, words that say what is wrong).
DIFFERENT = [
    ("mnist", IMAGES, flip_a_bit, "SHA-256"),
    ("mnist", LABELS, add_a_byte, "bytes, the published file"),
    ("mnist", LABELS, put_an_empty_file_there, "has 0 bytes"),
    ("cifar10", CIFAR, cut_in_half, "bytes, the published file"),
    ("cifar10", CIFAR, flip_a_bit, "SHA-256"),
    ("celeba128", CELEBA, flip_a_bit, "SHA-256"),
    ("celeba128", LIST, name_an_image_that_is_not_there, "bytes, the published file"),
]
# Files that are no good in themselves, as if they had been published so.
BROKEN = [
    ("mnist", IMAGES, cut_in_half, "damaged"),
    ("mnist", IMAGES, flip_a_bit, "damaged"),
    ("mnist", IMAGES, put_a_web_page_there, "damaged"),
    ("mnist", IMAGES, change_the_type_of_numbers, "IDX"),
    ("mnist", IMAGES, leave_out_an_image, r"announces an array of shape \(48, 28, 28\)"),
    ("mnist", LABELS, leave_out_a_label, "48 images.*47 labels"),
    ("cifar10", CIFAR, cut_in_half, "damaged"),
    ("cifar10", CIFAR, put_a_web_page_there, "damaged"),
    ("cifar10", CIFAR, leave_out_a_batch, r"data_batch_3\.bin"),
    ("cifar10", CIFAR, cut_a_batch_short, "no whole number"),
    ("celeba128", CELEBA, cut_in_half, "damaged"),
    ("celeba128", CELEBA, put_a_web_page_there, "damaged"),
    ("celeba128", CELEBA, damage_an_image_within, "damaged.*000020.jpg"),
    ("celeba128", LIST, put_an_unknown_split_in_line_3, "line 3: .*'000003.jpg 7'"),
    ("celeba128", LIST, put_a_web_page_there, "line 1: "),
    ("celeba128", LIST, name_an_image_that_is_not_there, f"{CELEBA}.*999999.jpg"),
    ("celebahq1024", HQ, cut_in_half, "damaged"),
    ("celebahq1024", HQ, put_a_web_page_there, "damaged"),
    ("celebahq1024", HQ, put_an_empty_file_there, "damaged"),
    ("celebahq1024", HQ, leave_out_the_faces, "fewer than two images"),
    ("celebahq1024", HQ, encrypt, "encrypted"),
    ("oxford_buildings", OXFORD, cut_in_half, "damaged"),
    ("oxford_buildings", OXFORD, cut_between_two_images, "damaged"),
    ("oxford_buildings", OXFORD, flip_a_bit, "damaged"),
    ("oxford_buildings", OXFORD, put_a_web_page_there, "damaged"),
    ("oxford_buildings", OXFORD, put_an_empty_file_there, "damaged"),
    ("oxford_buildings", OXFORD, keep_one_image, "fewer than two images"),
]


def _ids(table: list[tuple]) -> list[str]:
    return [f"{name}-{file}-{damage.__name__}" for name, file, damage, _ in table]


@pytest.mark.parametrize(("name", "file", "damage", "words"), DIFFERENT, ids=_ids(DIFFERENT))
def test_a_file_other_than_the_published_one_is_refused(name, file, damage, words, tmp_path, originals, monkeypatch):
    publish(name, originals, monkeypatch)
    data, right = data_section(name, tmp_path), (originals / file).read_bytes()
    damage(originals / file)
    message = refused(data, originals)
    assert str(originals / file) in message and words in message and "remove it, get it again" in message
    (originals / file).write_bytes(right)
    assert prepare(data, manual_dir=originals).sizes == SIZES[name]


@pytest.mark.parametrize(("name", "file", "damage", "words"), BROKEN, ids=_ids(BROKEN))
def test_a_file_that_is_no_good_is_refused(name, file, damage, words, tmp_path, originals, monkeypatch):
    publish(name, originals, monkeypatch)
    data, right = data_section(name, tmp_path), (originals / file).read_bytes()
    damage(originals / file)
    stand_ins.acknowledge(name, originals, monkeypatch)
    with pytest.raises(DataError, match=words) as caught:
        prepare(data, manual_dir=originals)
    assert_nothing_there(data)
    (originals / file).write_bytes(right)
    stand_ins.acknowledge(name, originals, monkeypatch)
    assert prepare(data, manual_dir=originals).sizes == SIZES[name]
    message = str(caught.value)
    assert str(originals) in message and "\n" not in message
    assert "again" in message, "no remedy"


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "image_folder"])
def test_missing_files_are_named_and_the_same_call_works_once_they_are_there(name, tmp_path, originals, monkeypatch):
    downloads = tmp_path / "downloads"
    publish(name, downloads, monkeypatch)
    data = data_section(name, tmp_path / "data")
    message = refused(data, originals)
    for file in sorted(downloads.iterdir()):
        # CelebA-HQ and Oxford Buildings have no size on record, and two names each.
        sizes = "" if name in ("celebahq1024", "oxford_buildings") else f" ({file.stat().st_size:,} bytes)"
        assert file.name + sizes in message
    builder = type(make_builder(data))
    assert str(originals) in message and builder.HOMEPAGE in message and "--manual-dir" in message
    shutil.move(downloads, originals)
    assert prepare(data, manual_dir=originals).sizes == SIZES[name]


def test_files_that_are_there_are_not_said_to_be_missing(tmp_path, originals, monkeypatch):
    publish("celeba128", originals, monkeypatch)
    (originals / CELEBA).unlink()
    message = refused(data_section("celeba128", tmp_path), originals)
    assert CELEBA in message and LIST not in message


def test_originals_are_looked_for_where_tfds_does(tmp_path, monkeypatch):
    data = data_section("mnist", tmp_path)
    publish("mnist", tmp_path / "downloads" / "manual", monkeypatch)
    assert prepare(data).sizes == SIZES["mnist"]


def test_what_is_prepared_is_not_prepared_again(tmp_path, originals, monkeypatch):
    publish("mnist", originals, monkeypatch)
    data = data_section("mnist", tmp_path)
    first = prepare(data, manual_dir=originals)
    written = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    # Nor are its originals needed any longer.
    shutil.rmtree(originals)
    assert prepare(data, manual_dir=originals) == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == written


# Downloads.


class Files(SimpleHTTPRequestHandler):
    """A web server for a folder."""

    def log_message(self, *_):
        pass


class Half(BaseHTTPRequestHandler):
    """A web server that goes away in the middle."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        self.wfile.write(b"0" * 5_000)

    def log_message(self, *_):
        pass


class Babble(BaseHTTPRequestHandler):
    """Something that is no web server."""

    def do_GET(self):
        self.wfile.write(b"220 mail.example.org ready\r\n")


@contextlib.contextmanager
def served(handler: Callable) -> Iterator[str]:
    """The address of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web(tmp_path, monkeypatch) -> Path:
    """MNIST's files, as they lie on a server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    publish("mnist", tmp_path / "web", monkeypatch)
    return tmp_path / "web"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def test_published_files_are_downloaded_to_the_manual_folder(web, tmp_path, originals, monkeypatch):
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        assert prepare(data_section("mnist", tmp_path), manual_dir=originals).sizes == SIZES["mnist"]
    assert contents(originals) == contents(web)


def test_only_what_is_missing_is_downloaded(web, tmp_path, originals, monkeypatch):
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        shutil.copytree(web, originals)
        (originals / LABELS).unlink()
        for name in contents(originals):
            (web / name).unlink()
        assert prepare(data_section("mnist", tmp_path), manual_dir=originals).sizes == SIZES["mnist"]


def test_a_download_that_is_not_the_published_file_is_refused(web, tmp_path, originals, monkeypatch):
    data, right = data_section("mnist", tmp_path), (web / LABELS).read_bytes()
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        flip_a_bit(web / LABELS)
        assert "SHA-256" in refused(data, originals)
        # What was right is kept; what was wrong has gone, under any name.
        assert contents(originals).keys() == {IMAGES}
        (web / LABELS).write_bytes(right)
        assert prepare(data, manual_dir=originals).sizes == SIZES["mnist"]


@pytest.mark.parametrize("server", [Half, Babble])
def test_a_download_that_breaks_off_is_refused(server, web, tmp_path, originals, monkeypatch):
    data = data_section("mnist", tmp_path)
    with served(server) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        assert IMAGES in refused(data, originals)
        assert not contents(originals).keys() & contents(web).keys()
    with served(functools.partial(Files, directory=web)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        assert prepare(data, manual_dir=originals).sizes == SIZES["mnist"]
        assert contents(originals) == contents(web)


def test_a_server_that_does_not_answer_is_named_with_the_files(web, tmp_path, originals, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    stand_ins.acknowledge("mnist", web, monkeypatch, url)
    message = refused(data_section("mnist", tmp_path), originals)
    assert "127.0.0.1 does not answer" in message and message.count("127.0.0.1") == 1
    assert all(f"{file.name} ({file.stat().st_size:,} bytes)" in message for file in web.iterdir())
    assert str(originals) in message


def test_a_file_that_a_server_no_longer_has_is_named(web, tmp_path, originals, monkeypatch):
    with served(functools.partial(Files, directory=tmp_path)) as url:
        stand_ins.acknowledge("mnist", web, monkeypatch, url)
        message = refused(data_section("mnist", tmp_path), originals)
    assert IMAGES in message and "not found" in message.lower()


# Folders of images.


def test_an_image_folder_may_hold_every_mode_in_any_folder(tmp_path, originals):
    images = {f"{'nested/' * (i % 3)}{name}": image for i, (name, image) in enumerate(stand_ins.image_modes().items())}
    others = {
        ".hidden.png": b"no image",
        ".thumbnails/small.png": b"no image",
        "nested/.cache/small.png": b"no image",
        "notes.txt": b"Taken in the summer.",
        "nested/Thumbs.db": b"no image",
        "without_suffix": images["rgb.png"][0],
    }
    stand_ins.write_files(originals, {name: content for name, (content, _) in images.items()} | others)
    data = data_section("image_folder", tmp_path, shape=(48, 48, 3))
    folder = prepare(data, manual_dir=originals)
    assert_equal_images(all_by_file(folder), {name: pixels for name, (_, pixels) in images.items()})
    assert folder.metadata["unreadable"] == []


@pytest.fixture
def spoilt(originals) -> Path:
    """An image folder with two files that cannot be read."""
    stand_ins.image_folder(originals)
    whole = stand_ins.jpeg(0, 64, 64)
    stand_ins.write_files(originals, {"cut.jpg": whole[: len(whole) // 2], "text.jpg": b"no image"})
    return originals


def test_unreadable_files_are_counted_named_and_passed_over(spoilt, tmp_path):
    folder = prepare(small_folder(tmp_path), manual_dir=spoilt)
    assert all_by_file(folder).keys() == set(stand_ins.FOLDER_FILES)
    assert sorted(json.loads((folder.folder / "metadata.json").read_text())["unreadable"]) == ["cut.jpg", "text.jpg"]
    said = summary("image_folder", folder)
    assert "2 files passed over" in said and "cut.jpg" in said and "text.jpg" in said


def test_unreadable_files_are_refused_if_asked_for(spoilt, tmp_path):
    data = small_folder(tmp_path)
    message = refused(data, spoilt, refuse_unreadable=True)
    assert ("cut.jpg" in message or "text.jpg" in message) and "--unreadable=skip" in message
    for name in ("cut.jpg", "text.jpg"):
        (spoilt / name).unlink()
    assert sum(prepare(data, manual_dir=spoilt, refuse_unreadable=True).sizes.values()) == 48


def test_images_smaller_than_their_crop_are_passed_over(tmp_path, originals):
    images = {f"{i}.png": stand_ins.encoded(stand_ins.photograph(i, 150, 150), "png") for i in range(8)}
    small = {"small.png": stand_ins.encoded(stand_ins.photograph(0, 147, 150), "png")}
    stand_ins.write_files(originals, images | small)
    folder = prepare(small_folder(tmp_path, crop="centre148"), manual_dir=originals)
    assert folder.metadata["unreadable"] == ["small.png"] and all_by_file(folder).keys() == images.keys()


def test_a_split_without_a_readable_image_is_refused(tmp_path, originals):
    stand_ins.write_files(originals, {"one.jpg": b"no image", "other.jpg": b"no image"})
    assert "no readable image" in refused(small_folder(tmp_path), originals)


@pytest.mark.parametrize("images", [0, 1])
def test_a_folder_of_fewer_than_two_images_is_refused(images, tmp_path, originals):
    files = {f"{i}.png": stand_ins.encoded(stand_ins.photograph(i, 20, 20), "png") for i in range(images)}
    stand_ins.write_files(originals, files | {"notes.txt": b""})
    message = refused(small_folder(tmp_path), originals)
    assert f"{originals} holds {images} image files" in message and "at least two" in message


def test_a_folder_that_is_not_there_is_refused(tmp_path, originals):
    message = refused(small_folder(tmp_path), originals)
    assert f"no folder {originals}" in message and "--manual-dir" in message


def test_a_file_name_that_is_no_text_is_refused_or_read(tmp_path, originals):
    # Linux allows any bytes; old archives hold names in other encodings.
    stand_ins.image_folder(originals)
    content = stand_ins.encoded(stand_ins.photograph(0, 20, 20), "png")
    Path(os.fsdecode(os.fsencode(originals) + b"/caf\xe9.png")).write_bytes(content)
    try:
        assert sum(prepare(small_folder(tmp_path), manual_dir=originals).sizes.values()) == 49
    except DataError as error:
        assert "caf" in str(error)


def test_folders_are_told_apart_by_label_and_shape(tmp_path, originals):
    stand_ins.image_folder(originals / "one")
    others = {name: content for name, (content, _) in stand_ins.image_modes().items()}
    stand_ins.write_files(originals / "other", others)
    one = small_folder(tmp_path)
    sections = {
        "other": small_folder(tmp_path, label="other"),
        "one": dataclasses.replace(one, shape=(8, 12, 3)),
    }
    folders = {prepare(one, manual_dir=originals / "one").folder}
    folders |= {prepare(data, manual_dir=originals / name).folder for name, data in sections.items()}
    assert len(folders) == 3
    assert open_prepared(one).sizes == SIZES["image_folder"]
    assert sum(open_prepared(sections["other"]).sizes.values()) == len(others)
    assert Split(sections["one"], "test").rows([0]).shape == (1, 8, 12, 3)


# Prepared sets that were damaged since.


@pytest.fixture(scope="module")
def small_set(tmp_path_factory) -> Path:
    """A data folder with a small image folder in it, prepared from `originals` beside."""
    folder = tmp_path_factory.mktemp("small")
    stand_ins.image_folder(folder / "originals")
    prepare(small_folder(folder / "data"), manual_dir=folder / "originals")
    return folder


@pytest.fixture
def whole(small_set, tmp_path) -> PreparedSet:
    """A copy of it, to be damaged."""
    shutil.copytree(small_set / "data", tmp_path / "data")
    return open_prepared(small_folder(tmp_path / "data"))


def _info(folder: Path, **changes) -> None:
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _shard(folder: Path) -> Path:
    return next(folder.glob("*-train.*"))


def _cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a missing shard": lambda folder: _shard(folder).unlink(),
    "a shard cut in half": lambda folder: cut_in_half(_shard(folder)),
    "a shard that lacks a byte": lambda folder: _cut(_shard(folder), -1),
    "an empty shard": lambda folder: _cut(_shard(folder), 0),
    "a shard of another kind": lambda folder: put_a_web_page_there(_shard(folder)),
    "the test's shard instead": lambda folder: shutil.copy(next(folder.glob("*-test.*")), _shard(folder)),
    "an empty dataset_info.json": lambda folder: _cut(folder / "dataset_info.json", 0),
    "half a dataset_info.json": lambda folder: cut_in_half(folder / "dataset_info.json"),
    "a dataset_info.json of nothing": lambda folder: (folder / "dataset_info.json").write_text("{}"),
    "a dataset_info.json in bytes": lambda folder: (folder / "dataset_info.json").write_bytes(b"\xff\xfe\x00"),
    "a dataset_info.json without splits": lambda folder: _info(folder, splits=[]),
    "a missing metadata.json": lambda folder: (folder / "metadata.json").unlink(),
    "half a metadata.json": lambda folder: cut_in_half(folder / "metadata.json"),
    "another format by name": lambda folder: _info(folder, fileFormat="tfrecord"),
    "a format that nobody knows": lambda folder: _info(folder, fileFormat="parchment"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_refused_with_its_remedy(damage, whole, small_set, tmp_path):
    data = small_folder(tmp_path / "data")
    DAMAGES[damage](whole.folder)
    for attempt in (open_prepared, functools.partial(prepare, manual_dir=small_set / "originals")):
        with pytest.raises(DataError) as caught:
            attempt(data)
        assert f"Remove {whole.folder} and run: {PREPARE} image_folder" in str(caught.value)
        assert "\n" not in str(caught.value)
    shutil.rmtree(whole.folder)
    assert prepare(data, manual_dir=small_set / "originals").sizes == whole.sizes


def test_a_folder_without_its_dataset_info_is_no_set(whole, small_set, tmp_path):
    data = small_folder(tmp_path / "data")
    (whole.folder / "dataset_info.json").unlink()
    with pytest.raises(DataError, match=f"is not prepared.*Run: {PREPARE} image_folder"):
        open_prepared(data)
    # Nor is it overwritten, in case it is something else.
    with pytest.raises(DataError, match=f"{whole.folder} is there without.*Remove"):
        prepare(data, manual_dir=small_set / "originals")
    shutil.rmtree(whole.folder)
    assert prepare(data, manual_dir=small_set / "originals").sizes == whole.sizes


def test_files_in_another_format_are_refused_by_its_name(whole, tmp_path):
    for split in ("train", "test"):
        shard = next(whole.folder.glob(f"*-{split}.*"))
        shard.rename(shard.with_name(shard.name.replace("array_record", "tfrecord")))
    _info(whole.folder, fileFormat="tfrecord")
    with pytest.raises(DataError, match=f"tfrecord.*{PREPARE} image_folder"):
        open_prepared(small_folder(tmp_path / "data"))


def test_no_flipped_bit_changes_a_pixel_unnoticed(whole, tmp_path):
    data, shard = small_folder(tmp_path / "data"), _shard(whole.folder)
    content, everything = shard.read_bytes(), np.arange(whole.sizes["train"])
    expected = Split(data, "train").rows(everything)
    # Elsewhere the file is padded with zeros.
    used = np.flatnonzero(np.frombuffer(content, np.uint8))
    unnoticed = 0
    for at in np.random.default_rng(0).choice(used, 60):
        shard.write_bytes(stand_ins.flipped(content, int(at)))
        try:
            # A few bits of what leads to the records are not needed, and the records are right without them.
            np.testing.assert_array_equal(Split(data, "train").rows(everything), expected)
            unnoticed += 1
        except DataError as error:
            assert f"{PREPARE} image_folder" in str(error)
    assert unnoticed <= 3


def test_a_flipped_pixel_is_found_when_it_is_read(whole, tmp_path):
    data, shard = small_folder(tmp_path / "data"), _shard(whole.folder)
    content, pixels = shard.read_bytes(), Split(data, "train").rows([7])[0].tobytes()
    shard.write_bytes(stand_ins.flipped(content, content.index(pixels) + 100))
    split = Split(data, "train")
    assert split.rows([6]).shape == (1, 16, 16, 3)
    with pytest.raises(DataError, match=f"{whole.folder}: image 7 cannot be read.*{PREPARE} image_folder"):
        split.rows([6, 7])
    with pytest.raises(DataError, match="image 7"):
        split.held()


def test_the_command_that_is_advised_prepares_just_what_was_wanted(tmp_path):
    sections = [
        data_section("celeba128", tmp_path, crop="none", partition="all", resize="lanczos"),
        data_section("image_folder", tmp_path / "with a space", shape=(64, 32, 1), label="cats"),
        data_section("mnist", tmp_path / "it's"),
        data_section("cifar10", Path(image_data("cifar10")["data_dir"])),
    ]
    for data in sections:
        python, module, package, *words = shlex.split(prepare_command(data))
        assert [python, module, package, words[0]] == ["python", "-m", "asvae_jax", "prepare"]
        assert image_data_of(commands._parser().parse_args(words)) == data


# A preparation that is killed, and a full disk.


def test_a_killed_preparation_leaves_no_set_and_does_not_stand_in_the_way(tmp_path, small_set, originals):
    originals.mkdir()
    (tmp_path / "photograph.png").write_bytes(stand_ins.encoded(stand_ins.photograph(0, 400, 300), "png"))
    for i in range(2_000):
        (originals / f"{i:04}.png").symlink_to(tmp_path / "photograph.png")
    data = small_folder(tmp_path / "data")
    place = Path(make_builder(data).data_path)
    command = ["-m", "asvae_jax", "prepare", "image_folder", "--shape", "16x16x3"]
    with started([*command, "--manual-dir", str(originals), "--data-dir", data.data_dir], devices=1) as process:
        wait_until(lambda: any(place.parent.glob("incomplete.*/*train*")), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(place.parent.glob("incomplete.*")) and not place.exists()
    with pytest.raises(DataError, match="is not prepared"):
        open_prepared(data)
    assert prepare(data, manual_dir=small_set / "originals").sizes == SIZES["image_folder"]
    assert not list(place.parent.glob("incomplete.*"))


# Mounts a small disk, puts a data folder on it, prepares, makes room, prepares again, and keeps what lay there each
# time.
SMALL_DISK = """
disk=$1 kept=$2 data=$3; shift 3
mount -t tmpfs -o size=2m none "$disk" || exit 99
trap 'umount "$disk"' EXIT
cp -r "$data/." "$disk"
"$@"; echo "exit code $?"
cp -r "$disk" "$kept/full"
mount -o remount,size=16m "$disk" || exit 99
"$@"; echo "exit code $?"
cp -r "$disk" "$kept/with_room"
"""


def on_a_small_disk(tmp_path: Path, data_dir: Path, command: list[str]) -> subprocess.CompletedProcess:
    """Runs the script, in a mount namespace of its own or, where there are none, on the machine's mounts."""
    (tmp_path / "disk").mkdir()
    script = ["bash", "-c", SMALL_DISK, "bash", str(tmp_path / "disk"), str(tmp_path), str(data_dir), *command]
    for words in (["unshare", "-rm", *script], script):
        with contextlib.suppress(FileNotFoundError):
            finished = subprocess.run(words, cwd=ROOT, env=environment(1), capture_output=True, text=True, timeout=300)
            if "exit code" in finished.stdout:
                return finished
    pytest.skip(f"no right to mount a small disk: {finished.stderr}")


def test_a_full_disk_is_an_error_of_one_line_that_spoils_nothing(tmp_path, small_set, originals):
    stand_ins.image_folder(originals)
    command = [sys.executable, "-m", "asvae_jax", "prepare", "image_folder", "--manual-dir", str(originals)]
    command += ["--shape", "128x128x3", "--data-dir", str(tmp_path / "disk")]
    finished = on_a_small_disk(tmp_path, small_set / "data", command)
    assert [line for line in finished.stdout.splitlines() if "exit code" in line] == ["exit code 4", "exit code 0"]
    (said,) = finished.stderr.splitlines()
    assert said.startswith("error: image_folder cannot be prepared") and "space left" in said
    assert "run the same command again" in said

    large = data_section("image_folder", tmp_path / "full")
    assert_nothing_there(large)
    with pytest.raises(DataError, match="is not prepared"):
        open_prepared(large)
    with_room = dataclasses.replace(large, data_dir=str(tmp_path / "with_room"))
    assert open_prepared(with_room).sizes == SIZES["image_folder"]
    before, full, later = (
        Split(small_folder(folder), "train").rows(np.arange(43))
        for folder in (small_set / "data", tmp_path / "full", tmp_path / "with_room")
    )
    np.testing.assert_array_equal(full, before)
    np.testing.assert_array_equal(later, before)


@pytest.mark.parametrize("name", ["oxford_buildings", "celeba128", "celeba256", "celebahq1024"])
def test_a_disk_too_small_for_a_published_set_is_refused_at_once(name, tmp_path, originals, monkeypatch):
    data = data_section(name, tmp_path)
    needed = sum(make_builder(data).expected().values()) * int(np.prod(SHAPES[name]))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=needed - 1))
    message = refused(data, originals, StorageError)
    assert f"{name} needs {needed / 2**30:.2f} GiB" in message and "--data-dir" in message
    # With one byte more it is its files that are missing.
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=needed))
    assert "Missing" in refused(data, originals)


def test_a_place_that_cannot_be_written_is_an_error_of_one_line(tmp_path, small_set):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be prepared"):
        prepare(small_folder(tmp_path / "file" / "data"), manual_dir=small_set / "originals")


# The command line.

WITHOUT_TENSORFLOW = """
import sys
from asvae_jax.__main__ import main
code = main(sys.argv[1:])
print("imported", [name for name in sys.modules if name.split(".")[0] == "tensorflow"])
sys.exit(code)
"""


def test_prepare_and_inspect_show_what_was_made(tmp_path, spoilt):
    options = ["image_folder", "--shape", "16x16x3", "--label", "holidays", "--data-dir", str(tmp_path / "data")]
    made = run(["-c", WITHOUT_TENSORFLOW, "prepare", *options, "--manual-dir", str(spoilt)], devices=1)
    assert made.returncode == 0 and made.stderr == ""
    assert "imported []" in made.stdout and "2 files passed over" in made.stdout
    place = open_prepared(small_folder(tmp_path / "data", label="holidays"))
    assert str(place.folder) in made.stdout
    assert f"train {place.sizes['train']}, test {place.sizes['test']}" in made.stdout

    picture = tmp_path / "sheet.png"
    shown = run(["-m", "asvae_jax", "inspect", *options, "--batch-size", "8", "--out", str(picture)], devices=1)
    assert shown.returncode == 0 and "Traceback" not in shown.stderr
    assert f"train {place.sizes['train']}" in shown.stdout and "(8, 16, 16, 3)" in shown.stdout
    with Image.open(picture) as sheet:
        assert sheet.format == "PNG" and len(np.unique(np.asarray(sheet))) > 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "celeb128"], "Did you mean 'celeba128'?"),
        (["prepare", "oxford_buildings"], "oxbuild_images.tgz"),
        (["inspect", "celeba128"], "python -m asvae_jax prepare celeba128"),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_refused_in_one_line(words, said, tmp_path):
    finished = run(["-m", "asvae_jax", *words, "--data-dir", str(tmp_path)], devices=1)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ") and said in line
