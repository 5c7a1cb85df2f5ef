"""Prepared sets that were damaged since: each is refused with its remedy, and no pixel changes unnoticed."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from prepared_sets import cut_in_half, prepare_small, put_a_web_page_there, small_folder

from asvae_jax.data.prepare import PreparedSet, open_prepared, prepare
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError

PREPARE = "python -m asvae_jax prepare"


@pytest.fixture(scope="module")
def small_set(tmp_path_factory) -> Path:
    """A data folder with a small image folder in it, prepared from `originals` beside."""
    return prepare_small(tmp_path_factory.mktemp("small"))


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
