"""What is saved comes back bit for bit, and damage of every kind is noticed and passed over."""

import gc
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from training_runs import assert_bit_equal, digits, run, toy

from asvae_jax import checkpoint
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.distributed import make_mesh, replicated
from asvae_jax.errors import CheckpointError, NotFiniteError, StorageError
from asvae_jax.run import load_run, state_template, statistics_template
from asvae_jax.settings import Checkpoint, Config
from asvae_jax.update import TrainState

KEEP_ALL = Checkpoint(every_steps=1, keep_last=100, keep_every_steps=0)
# Wide enough for a file of numbers only: the small ones lie within an index, which Orbax does check.
DIGITS, TOY = digits(), toy(model__widths=(128, 128))
# Orbax leaves the reads beside one that failed to the garbage collector, which complains of each.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
ITEMS = ("params", "ema", "opt_state", "key", "statistics")


@pytest.fixture(autouse=True)
def _complaints_come_within_the_test():
    yield
    gc.collect()


def random_like(tree, seed: int):
    """Numbers in the place of every shape, all different; a typed key in the place of a key."""
    generator = np.random.default_rng(seed)

    def fill(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.device_put(jax.random.key(seed), leaf.sharding)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jax.device_put(generator.integers(1, 99, leaf.shape).astype(leaf.dtype), leaf.sharding)
        return jax.device_put(generator.random(leaf.shape, np.float32).astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(fill, tree)


def on_devices(config: Config, n: int):
    """The sharding of a state on the first `n` devices."""
    mesh = make_mesh(config)
    return replicated(jax.sharding.Mesh(mesh.devices[:n], mesh.axis_names))


def some_state(config: Config, step: int, devices: int = 4) -> TrainState:
    state = random_like(state_template(config, on_devices(config, devices)), seed=step)
    return state._replace(step=jnp.asarray(step, jnp.int32))


def some_statistics(config: Config, devices: int = 4):
    return random_like(statistics_template(config, on_devices(config, devices)), seed=99)


def templates(config: Config, *names: str, devices: int = 4):
    """Templates of the named items, or of all."""
    sharding = on_devices(config, devices)
    state = state_template(config, sharding)
    items = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state, "key": {"key": state.key}}
    items["statistics"] = statistics_template(config, sharding)
    return lambda meta: {name: items[name] for name in names or ITEMS}


def save(folder: Path, *steps: int, config: Config = TOY, setting: Checkpoint = KEEP_ALL, devices: int = 4) -> None:
    """Saves `some_state` at each step."""
    with CheckpointStore(folder, setting) as store:
        for step in steps:
            statistics = {} if config.is_toy else some_statistics(config, devices)
            store.save(some_state(config, step, devices), statistics, config)
            store.wait()


def array_files(folder: Path, item: str) -> list[Path]:
    """The files of an item's numbers, the largest first: Orbax writes several, and may not need each."""
    return sorted((folder / item).rglob("d/*"), key=lambda path: -path.stat().st_size)


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
    assert meta["step"] == meta["data_position"] == 7
    assert meta["config"] == DIGITS.to_dict()
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


def empty_step(step: Path) -> None:
    for path in step.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


DAMAGES = [flip_byte, truncate, remove_item, cut_metadata, cut_meta_item, empty_step]


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


def test_no_checkpoint_at_all_is_none(tmp_path):
    assert CheckpointStore(tmp_path, KEEP_ALL).read_newest(templates(TOY)) is None


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
    assert (tmp_path / "damaged-2").is_dir() and (tmp_path / "damaged-3").is_dir()
    for step in (2, 3):
        store.save(some_state(TOY, step)._replace(params=some_state(TOY, 50).params), {}, TOY)
        store.wait()
    assert store.steps() == [1, 2, 3]
    assert_bit_equal(store.read(3, templates(TOY, "params"))[0]["params"], some_state(TOY, 50).params)
    # And a second time.
    store.set_aside_after(2)
    assert store.steps() == [1, 2]


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


def test_reading_writes_nothing(tmp_path):
    save(tmp_path, 1, 2)
    flip_byte(tmp_path / "2")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with CheckpointStore(tmp_path) as store:
        store.read_newest(templates(TOY))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# Files may not grow beyond some size, as on a disk with no more room; needs no rights that a test may lack.
NO_ROOM = """
import resource, sys
import test_checkpoint as t
store = t.CheckpointStore(sys.argv[1], t.KEEP_ALL)
store.save(t.some_state(t.TOY, 1), {}, t.TOY)
store.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    store.save(t.some_state(t.TOY, 2), {}, t.TOY)
    store.wait()
except t.StorageError as error:
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
