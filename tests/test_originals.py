"""Original files that are missing, damaged or other than the published ones: what is said of them, and that the same
call works once they are right."""

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from prepared_sets import (
    IMAGES,
    LABELS,
    SHAPES,
    SIZES,
    assert_nothing_there,
    cut_in_half,
    flip_a_bit,
    put_a_web_page_there,
    refused,
)
from stand_ins import data_section, publish

from asvae_jax.data.prepare import make_builder, prepare
from asvae_jax.errors import DataError


def add_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


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
