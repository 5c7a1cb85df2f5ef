"""Preparations that are killed, run out of room or may not write: none leaves half a set, spoils another or stands in
the way of the next."""

import contextlib
import dataclasses
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from prepared_sets import SHAPES, SIZES, assert_nothing_there, prepare_small, refused, small_folder
from stand_ins import data_section
from training_runs import ROOT, environment, started, wait_until

from asvae_jax.data.prepare import make_builder, open_prepared, prepare
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError, StorageError


@pytest.fixture(scope="module")
def small_set(tmp_path_factory) -> Path:
    """A data folder with a small image folder in it, prepared from `originals` beside."""
    return prepare_small(tmp_path_factory.mktemp("small"))


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
