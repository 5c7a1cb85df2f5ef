"""What is saved comes back bit for bit, as a whole or in parts, and what cannot be saved is an error."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from saved_states import DIGITS, ITEMS, KEEP_ALL, TOY, save, some_state, some_statistics, templates
from training_runs import assert_bit_equal, run

from asvae_jax import checkpoint
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.errors import CheckpointError, NotFiniteError, StorageError
from asvae_jax.run import load_run
from asvae_jax.settings import Checkpoint


def test_everything_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, 7, config=DIGITS)
    with CheckpointStore(tmp_path) as store:
        items, meta = store.read(7, templates(DIGITS))
    state = some_state(DIGITS, 7)
    expected = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state, "key": {"key": state.key}}
    expected["statistics"] = some_statistics(DIGITS)
    # Structure too: optax's own types, and not lists and dictionaries that look like them.
    assert_bit_equal(items, expected)
    assert isinstance(items["opt_state"]["encoder"][0], optax.ScaleByAdamState)
    assert jax.dtypes.issubdtype(items["key"]["key"].dtype, jax.dtypes.prng_key)
    assert meta["step"] == 7
    assert meta["config"] == DIGITS
    assert meta["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("item", ITEMS)
def test_each_item_restores_alone(item, tmp_path):
    save(tmp_path, 3, config=DIGITS)
    # The others need not even be there.
    for other in set(ITEMS) - {item}:
        shutil.rmtree(tmp_path / "3" / other)
    items, _ = CheckpointStore(tmp_path).read(3, templates(DIGITS, item))
    assert list(items) == [item]
    state = some_state(DIGITS, 3)
    expected = {"key": {"key": state.key}, "statistics": some_statistics(DIGITS), **state._asdict()}
    if item == "key":
        expected["key"] = {"key": state.key}
    assert_bit_equal(items[item], expected[item])


def test_networks_without_batch_norm_keep_no_statistics(tmp_path):
    save(tmp_path, 1)
    items, _ = CheckpointStore(tmp_path).read(1, templates(TOY))
    assert "statistics" not in items


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4)])
def test_saved_on_some_devices_restores_on_others(before, after, tmp_path):
    save(tmp_path, 5, config=DIGITS, devices=before)
    items, _ = CheckpointStore(tmp_path).read(5, templates(DIGITS, devices=after))
    state = some_state(DIGITS, 5, devices=before)
    assert_bit_equal(items["params"], state.params)
    assert_bit_equal(items["opt_state"], state.opt_state)
    assert_bit_equal(items["key"]["key"], state.key)
    assert all(len(leaf.sharding.device_set) == after for leaf in jax.tree.leaves(items))


def test_no_checkpoint_at_all_is_none(tmp_path):
    assert CheckpointStore(tmp_path, KEEP_ALL).read_newest(templates(TOY)) is None


@pytest.mark.parametrize("step", [5, 4])
def test_saving_at_or_below_the_newest_step_is_an_error(step, tmp_path):
    save(tmp_path, 5)
    store = CheckpointStore(tmp_path, KEEP_ALL)
    with pytest.raises(StorageError, match=rf"Step {step} was not saved.*\[5\]"):
        store.save(some_state(TOY, step), {}, TOY)
    assert store.steps() == [5]


@pytest.mark.parametrize("item", ["params", "ema", "opt_state"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_state_that_is_not_finite_is_refused(item, value, tmp_path):
    save(tmp_path, 1)
    state = some_state(TOY, 2)
    leaves, structure = jax.tree.flatten(getattr(state, item))
    # One number of the last matrix is enough.
    last = max(i for i, leaf in enumerate(leaves) if leaf.ndim == 2)
    leaves[last] = leaves[last].at[1, 1].set(value)
    with pytest.raises(NotFiniteError, match="step 2 is not finite"), CheckpointStore(tmp_path, KEEP_ALL) as store:
        store.save(state._replace(**{item: structure.unflatten(leaves)}), {}, TOY)
    assert CheckpointStore(tmp_path).steps() == [1]


def test_another_layout_is_refused_with_the_version_that_reads_it(tmp_path, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr(checkpoint, "LAYOUT", checkpoint.LAYOUT + 1)
        save(tmp_path, 1)
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match="layout 4, this version reads 3; use asvae_jax "):
        store.read(1, templates(TOY))
    with pytest.raises(CheckpointError, match="layout 4"):
        store.read_newest(templates(TOY))


def test_relative_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("run/checkpoints"), 1)
    assert CheckpointStore(tmp_path / "run/checkpoints").steps() == [1]
    assert load_run("run").step == 1


def test_the_last_ones_and_every_so_many_are_kept(tmp_path):
    save(tmp_path, *range(1, 10), setting=Checkpoint(every_steps=1, keep_last=2, keep_every_steps=3))
    assert CheckpointStore(tmp_path).steps() == [3, 6, 8, 9]
    # Nothing of the others is left, in the trash or anywhere else.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "6", "8", "9"]


def test_half_written_step_is_no_step(tmp_path):
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
    assert CheckpointStore(tmp_path).steps() == [1]
    # The next run that writes clears it away.
    save(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


# Files may not grow beyond some size, as on a disk with no more room; needs no rights that a test may lack.
NO_ROOM = """
import resource, sys
import saved_states as t
from asvae_jax.errors import StorageError
store = t.CheckpointStore(sys.argv[1], t.KEEP_ALL)
store.save(t.some_state(t.TOY, 1), {}, t.TOY)
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    store.save(t.some_state(t.TOY, 2), {}, t.TOY)
    store.wait()
except StorageError as error:
    print("StorageError:", error)
"""


def test_no_room_is_a_storage_error_and_earlier_steps_are_intact(tmp_path):
    finished = run(["-c", NO_ROOM, str(tmp_path)], env={"PYTHONPATH": str(Path(__file__).parent)})
    lines = finished.stdout.splitlines()
    assert lines and lines[-1].startswith(f"StorageError: A checkpoint could not be written to {tmp_path}: "), finished
    assert "Earlier ones are intact" in lines[-1]
    items, meta = CheckpointStore(tmp_path).read_newest(templates(TOY))
    assert meta["step"] == 1
    assert_bit_equal(items["params"], some_state(TOY, 1).params)


def test_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot be written.*--workdir"):
        CheckpointStore(tmp_path / "file" / "checkpoints", KEEP_ALL)


def test_digest_tells_values_types_shapes_and_names_apart():
    base = {"a": np.zeros(4, np.float32)}
    others = [
        {"b": np.zeros(4, np.float32)},
        {"a": np.zeros(4, np.int32)},
        {"a": np.zeros((2, 2), np.float32)},
        {"a": np.array([0, 0, 0, -0.0], np.float32)},
        {"a": np.zeros(4, np.float32), "b": np.zeros(0, np.float32)},
    ]
    digests = {checkpoint.digest(tree) for tree in [base, *others]}
    assert len(digests) == 1 + len(others)
    assert checkpoint.digest({"a": jnp.zeros(4)}) == checkpoint.digest(base)
