"""From original files to prepared sets and back: which pixels, which splits and which shards. The originals are
stand-ins, the builders and files real."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from PIL import Image
from prepared_sets import SHAPES, SIZES, all_by_file, assert_equal_images, by_file, read, small_folder
from stand_ins import data_section, publish

from asvae_jax.data import builders
from asvae_jax.data.builders import held_out
from asvae_jax.data.inspect import summary
from asvae_jax.data.prepare import PreparedSet, open_prepared, prepare
from asvae_jax.data.published import CelebAHQ
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError

# The 148 x 148 pixels in the centre of CelebA's 178 x 218.
CENTRE = (15, 35, 163, 183)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> dict[str, PreparedSet]:
    """A stand-in for each set, prepared with the usual settings."""
    return stand_ins.prepare_all(tmp_path_factory.mktemp("all"))


def resized(content: bytes, side: int, box=None, resize=Image.Resampling.BILINEAR) -> np.ndarray:
    """An image file cropped, then resized, by Pillow alone."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB").crop(box or (0, 0, *image.size)).resize((side, side), resize))


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


def test_what_is_prepared_is_not_prepared_again(tmp_path, originals, monkeypatch):
    publish("mnist", originals, monkeypatch)
    data = data_section("mnist", tmp_path)
    first = prepare(data, manual_dir=originals)
    written = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    # Nor are its originals needed any longer.
    shutil.rmtree(originals)
    assert prepare(data, manual_dir=originals) == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == written


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
