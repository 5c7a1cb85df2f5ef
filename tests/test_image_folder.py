"""Folders of the user's own images: which files are taken, which are passed over and which folders are refused."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import stand_ins
from prepared_sets import SIZES, all_by_file, assert_equal_images, refused, small_folder, spoilt_folder
from stand_ins import data_section

from asvae_jax.data.inspect import summary
from asvae_jax.data.prepare import open_prepared, prepare
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError


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
    return spoilt_folder(originals)


def test_unreadable_files_are_counted_named_and_passed_over(spoilt, tmp_path):
    folder = prepare(small_folder(tmp_path), manual_dir=spoilt)
    assert all_by_file(folder).keys() == set(stand_ins.FOLDER_FILES)
    assert sorted(json.loads((folder.folder / "metadata.json").read_text())["unreadable"]) == ["cut.jpg", "text.jpg"]
    said = summary("image_folder", folder)
    assert "2 files passed over" in said and "cut.jpg" in said and "text.jpg" in said


def test_a_file_that_cannot_be_opened_is_passed_over_by_name(tmp_path, originals):
    stand_ins.image_folder(originals)
    # Its reading fails, whoever reads.
    (originals / "broken.png").symlink_to("/proc/self/mem")
    folder = prepare(small_folder(tmp_path), manual_dir=originals)
    assert folder.metadata["unreadable"] == ["broken.png"] and sum(folder.sizes.values()) == 48


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


def test_another_folder_under_one_label_is_refused(tmp_path, originals):
    stand_ins.image_folder(originals / "one")
    stand_ins.image_folder(originals / "other")
    data = small_folder(tmp_path)
    prepared = prepare(data, manual_dir=originals / "one")
    assert f"{originals}/one" in summary("image_folder", prepared)
    assert prepare(data, manual_dir=originals / "one") == prepare(data) == prepared
    assert prepare(data, manual_dir=originals / "other" / ".." / "one") == prepared
    with pytest.raises(DataError, match=f"holds the images of {originals}/one, not of {originals}/other; .*--label"):
        prepare(data, manual_dir=originals / "other")
