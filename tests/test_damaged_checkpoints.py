"""Damage of every kind to a saved step is noticed, and passed over where there is an earlier one."""

import errno
import gc
import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from saved_states import KEEP_ALL, TOY, save, some_state, templates
from training_runs import assert_bit_equal

from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.errors import CheckpointError, ConfigError, StorageError
from asvae_jax.run import load_run

# Orbax leaves the reads beside one that failed to the garbage collector, which complains of each.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _complaints_come_within_the_test():
    yield
    gc.collect()


def array_files(folder: Path, item: str) -> list[Path]:
    """The files of an item's numbers, the largest first: Orbax writes several, and may not need each."""
    return sorted((folder / item).rglob("d/*"), key=lambda path: -path.stat().st_size)


def flip_byte(step: Path) -> None:
    """Changes a byte that Orbax does not miss, but makes a wrong number of."""
    numbers = restored_bytes(step)
    for file in array_files(step, "params"):
        whole = file.read_bytes()
        # The file's layout differs from time to time, and some of its bytes are of no use to anyone.
        for place in np.linspace(0.1, 0.9, 33):
            content = bytearray(whole)
            content[int(len(content) * place)] ^= 0x40
            file.write_bytes(content)
            if restored_bytes(step) not in (None, numbers):
                return
        file.write_bytes(whole)
    raise AssertionError("No byte of the file makes a wrong number.")


def restored_bytes(step: Path) -> list[bytes] | None:
    """The parameters as Orbax alone restores them; None if it cannot."""
    template = templates(TOY, "params")(None)["params"]
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            params = checkpointer.restore(step / "params", template)
        except Exception:
            return None
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]


def truncate(step: Path) -> None:
    for file in array_files(step, "params"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def remove_item(step: Path) -> None:
    shutil.rmtree(step / "opt_state")


def cut_metadata(step: Path) -> None:
    file = step / "params" / "_METADATA"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_meta_item(step: Path) -> None:
    file = step / "meta" / "metadata"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change_meta_item(step: Path) -> None:
    """Still JSON, of another step and another run."""
    file = step / "meta" / "metadata"
    content = json.loads(file.read_text())
    content["step"] += 7
    content["config"]["seed"] += 1
    file.write_text(json.dumps(content))


def misspell_meta_item(step: Path) -> None:
    file = step / "meta" / "metadata"
    file.write_text(file.read_text().replace('"method"', '"mezhod"'))


def empty_step(step: Path) -> None:
    for path in step.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES = [
    flip_byte, truncate, remove_item, cut_metadata, cut_meta_item, change_meta_item, misspell_meta_item, empty_step,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_step_is_passed_over_with_a_loud_line(damage, tmp_path, package_log):
    save(tmp_path, 1, 2, 3)
    damage(tmp_path / "3")
    with CheckpointStore(tmp_path) as store:
        items, meta = store.read_newest(templates(TOY))
    assert meta["step"] == 2
    assert_bit_equal(items["params"], some_state(TOY, 2).params)
    loud = [record for record in package_log.records if record.levelno >= logging.ERROR and "DAMAGED" in record.message]
    assert len(loud) == 1 and "step 3" in loud[0].message


def test_flipped_byte_is_noticed_by_the_digest_alone(tmp_path):
    save(tmp_path, 1)
    flip_byte(tmp_path / "1")
    # Orbax itself restores it, with a wrong number in it.
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match="step 1: the bytes of item 'params' are not those saved"):
        store.read(1, templates(TOY))
    # The other items are as good as ever.
    assert_bit_equal(store.read(1, templates(TOY, "ema"))[0]["ema"], some_state(TOY, 1).ema)


def test_settings_of_another_version_are_no_damage(tmp_path, package_log):
    save(tmp_path / "checkpoints", 1, 2)
    for step in (1, 2):
        file = tmp_path / "checkpoints" / str(step) / "meta" / "metadata"
        meta = json.loads(file.read_text())
        meta["config"]["method"]["w_dec_growth"] = 2.5
        del meta["digest"]  # as earlier versions had none
        file.write_text(json.dumps(meta))
    with pytest.raises(ConfigError, match=r"step 2 was saved by asvae_jax .*w_dec_growth is no setting"):
        load_run(tmp_path)
    assert not [record for record in package_log.records if "DAMAGED" in record.message]


def test_several_damaged_steps_are_passed_over(tmp_path):
    save(tmp_path, 1, 2, 3)
    truncate(tmp_path / "3")
    flip_byte(tmp_path / "2")
    assert CheckpointStore(tmp_path).read_newest(templates(TOY))[1]["step"] == 1


def test_nothing_whole_is_an_error_and_not_a_fresh_start(tmp_path):
    save(tmp_path, 1, 2)
    truncate(tmp_path / "1")
    flip_byte(tmp_path / "2")
    with pytest.raises(CheckpointError, match=r"None of the checkpoints.*step 2: .*step 1 "):
        CheckpointStore(tmp_path).read_newest(templates(TOY))


# Sampling needs no optimiser, and does not mind if that is missing.
@pytest.mark.parametrize(
    "damage", [damage for damage in DAMAGES if damage is not remove_item], ids=lambda damage: damage.__name__
)
def test_damaged_step_that_was_asked_for_by_name_is_a_checkpoint_error(damage, tmp_path):
    save(tmp_path / "checkpoints", 1, 2)
    damage(tmp_path / "checkpoints" / "2")
    with pytest.raises(CheckpointError):
        load_run(tmp_path / "checkpoints" / "2")


def test_set_aside_steps_can_be_written_again(tmp_path):
    save(tmp_path, 1, 2, 3)
    truncate(tmp_path / "3")
    store = CheckpointStore(tmp_path, KEEP_ALL)
    store.set_aside_after(1)
    assert store.steps() == [1]
    # Not deleted: somebody may want to look.
    assert (tmp_path / "set-aside-2").is_dir() and (tmp_path / "set-aside-3").is_dir()
    for step in (2, 3):
        store.save(some_state(TOY, step)._replace(params=some_state(TOY, 50).params), {}, TOY)
        store.wait()
    assert store.steps() == [1, 2, 3]
    assert_bit_equal(store.read(3, templates(TOY, "params"))[0]["params"], some_state(TOY, 50).params)
    # And a second time.
    store.set_aside_after(2)
    assert store.steps() == [1, 2]


def test_reading_writes_nothing(tmp_path):
    save(tmp_path, 1, 2)
    flip_byte(tmp_path / "2")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with CheckpointStore(tmp_path) as store:
        store.read_newest(templates(TOY))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# What a network's file system says at times, and TensorStore in its own words where files may not be opened: raised by
# hand, as these cannot be had at will.
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.EMFILE, "Too many open files"),
        PermissionError(errno.EACCES, "Permission denied"),
        ValueError('RESOURCE_EXHAUSTED: Error opening "cast" driver'),
    ],
    ids=lambda error: str(error)[:14],
)
def test_trouble_of_the_machine_is_no_damage(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    save(tmp_path, 1, 2)
    store = CheckpointStore(tmp_path)
    monkeypatch.setattr(store._manager, "restore", fail)
    with pytest.raises(StorageError, match=r"step 2 cannot be read now.*run the same command again"):
        store.read_newest(templates(TOY))
    assert store.steps() == [1, 2]
