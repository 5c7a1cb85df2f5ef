"""Everything Orbax: what a run keeps, how it is checked, and how a damaged checkpoint is passed over.

A checkpoint has the items `params`, `ema`, `opt_state`, `key`, `statistics` (batch norm's, where there are any) and
`meta`, JSON with the step, which is also the position in the data, the config, versions and a digest of each item and
of itself: Orbax does not notice a flipped byte.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from asvae_jax.config import of_this_version, resolve
from asvae_jax.distributed import holds_in_all_processes, same_in_all_processes
from asvae_jax.errors import CheckpointError, ConfigError, NotFiniteError, StorageError, first_line
from asvae_jax.provenance import commit, versions
from asvae_jax.settings import Checkpoint, Config
from asvae_jax.update import TrainState

_log = logging.getLogger(__name__)

LAYOUT = 3
_TRASH = "trash"
# What TensorStore calls a want of rights, of open files, and errors of a file system that it knows no better.
_PASSING = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")

Items = dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run, in `folder`; without a `setting` they are only read."""

    def __init__(self, folder: Path, setting: Checkpoint | None = None):
        # Orbax accepts a relative path here and rejects it at the first save.
        self.folder = Path(folder).absolute()
        reading = ocp.CheckpointManagerOptions(read_only=True)
        writing = setting and ocp.CheckpointManagerOptions(
            max_to_keep=setting.keep_last,
            keep_period=setting.keep_every_steps or None,
            todelete_subdir=_TRASH,  # deleting in place leaves half-deleted steps behind when the process is killed
            cleanup_tmp_directories=True,
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=writing or reading)
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {error}. Choose another --workdir.") from error

    def steps(self) -> list[int]:
        """Steps that are stored whole, as far as their names tell, oldest first."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        state: TrainState,
        statistics: Mapping[str, Any],
        config: Config,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Begins to write a checkpoint, with the figures that were measured of it, if any; an error of the one before
        surfaces here.

        Raises:
          NotFiniteError: if the state is not finite; it is not saved.
          StorageError: if writing fails or a checkpoint of this or a later step exists already.
        """
        step = int(state.step)
        items: Items = {
            "params": state.params,
            "ema": state.ema,
            "opt_state": state.opt_state,
            "key": {"key": state.key},
        }
        if jax.tree.leaves(statistics):
            items["statistics"] = statistics
        if not _all_finite({name: items[name] for name in ("params", "ema", "opt_state")}):
            raise NotFiniteError(
                f"The state at step {step} is not finite and is not saved; the checkpoints before it are intact."
            )
        meta = {
            "layout": LAYOUT,
            "step": step,
            "config": config.to_dict(),
            "versions": versions(),
            "commit": commit(),
            "digests": {name: digest(item) for name, item in items.items()},
            "figures": dict(figures or {}),
        }
        meta["digest"] = _digest_of_meta(meta)
        arguments = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        if step <= max(self.steps(), default=-1):
            raise StorageError(
                f"Step {step} was not saved: {self.folder} already holds steps {self.steps()}. Use a new --workdir."
            )
        with _storage_errors(self.folder):
            # Forced: when to save is the loop's decision, and Orbax's own would poll for preemption in between.
            self._manager.save(step, args=ocp.args.Composite(**arguments, meta=ocp.args.JsonSave(meta)), force=True)
        self._empty_trash()

    def wait(self) -> None:
        """Returns once the last checkpoint is on disk.

        Raises:
          StorageError: if it could not be written.
        """
        with _storage_errors(self.folder):
            self._manager.wait_until_finished()
        self._empty_trash()

    def read_meta(self, step: int) -> dict[str, Any]:
        """The JSON item of a step, with its "config" typed and checked.

        Raises:
          CheckpointError: if it is damaged or of a layout that this version does not know.
          ConfigError: if it has settings that this version does not take.
          StorageError: if this machine cannot read it, which says nothing of the checkpoint.
        """
        with self._damage_named(step):
            meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
            layout, version = meta["layout"], meta["versions"]["asvae_jax"]
        if layout != LAYOUT:
            raise CheckpointError(
                f"{self.folder} step {step} has layout {layout}, this version reads {LAYOUT}; use asvae_jax {version}."
            )
        # Those of earlier versions have no digest of their own.
        if meta.get("digest") not in (None, _digest_of_meta(meta)):
            raise CheckpointError(f"{self.folder} step {step}: the item 'meta' is not what was saved.")
        with self._damage_named(step):
            settings = of_this_version(meta["config"])
        try:
            return {**meta, "config": resolve(settings)}
        except ConfigError as error:
            raise ConfigError(
                f"{self.folder} step {step} was saved by asvae_jax {version} ({meta['commit']}) with settings that "
                f"this version does not take: {error}"
            ) from error

    def read(self, step: int, templates: Callable[[dict[str, Any]], Items]) -> tuple[Items, dict[str, Any]]:
        """(items, meta) of a step, checked against its digests.

        Args:
          step: one of `steps()`.
          templates: from `meta`, trees of `jax.ShapeDtypeStruct` with shardings, one for each item wanted.

        Raises:
          CheckpointError: if anything is missing or its bytes are not those that were saved.
          ConfigError, StorageError: as `read_meta` does.
        """
        meta = self.read_meta(step)
        with self._damage_named(step):
            wanted = {name: template for name, template in templates(meta).items() if name in meta["digests"]}
            arguments = {name: ocp.args.StandardRestore(template) for name, template in wanted.items()}
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        for name in wanted:
            if digest(restored[name]) != meta["digests"][name]:
                raise CheckpointError(f"{self.folder} step {step}: the bytes of item {name!r} are not those saved.")
        return {name: restored[name] for name in wanted}, meta

    def read_newest(self, templates: Callable[[dict[str, Any]], Items]) -> tuple[Items, dict[str, Any]] | None:
        """`read` of the newest step that is whole, in all processes, with a loud line for each that is not; None if
        there are no steps. To be called by all processes.

        Raises:
          CheckpointError: if there are steps and none of them is whole.
          ConfigError, StorageError: as `read_meta` does; no step is passed over for that. Or if not all processes see
            the same steps.
        """
        steps, problems = self.steps(), []
        if not same_in_all_processes(steps):
            raise StorageError(
                f"{self.folder} does not hold the same steps for all processes; this one sees {steps}. The run's "
                "folder must be one that all of them share."
            )
        for step in reversed(steps):
            found, problem = None, f"step {step} cannot be restored by another process."
            try:
                found = self.read(step, templates)
            except CheckpointError as error:
                problem = str(error)
            # Else each process would go on from a step of its own.
            if holds_in_all_processes(found is not None):
                return found
            problems.append(problem)
            _log.error("CHECKPOINT DAMAGED, falling back to the one before it: %s", problem)
        if problems:
            raise CheckpointError(f"None of the checkpoints in {self.folder} can be restored: {' '.join(problems)}")
        return None

    @contextlib.contextmanager
    def _damage_named(self, step: int) -> Iterator[None]:
        """Makes one kind of error of the many that Orbax raises for damage, and another of this machine's trouble."""
        try:
            yield
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise  # the devices'
        except Exception as error:
            if _is_of_the_machine(error):
                raise StorageError(
                    f"{self.folder} step {step} cannot be read now: {first_line(error)}. It stays as it is; see "
                    "to rights, network and open files (ulimit -n), then run the same command again."
                ) from error
            raise CheckpointError(f"{self.folder} step {step} cannot be restored: {first_line(error)}.") from error

    def set_aside_after(self, step: int) -> None:
        """Renames the steps later than `step` to `set-aside-N`: training will write those steps anew, and Orbax would
        refuse to."""
        for later in [s for s in self.steps() if s > step]:
            if jax.process_index() == 0:
                target = self.folder / f"set-aside-{later}"
                shutil.rmtree(target, ignore_errors=True)
                (self.folder / str(later)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("set aside")
        self._manager.reload()

    def __enter__(self) -> "CheckpointStore":
        return self

    def __exit__(self, kind, *_) -> None:
        """Waits for what is being written and frees the manager's threads; a first error is not hidden by a second."""
        try:
            with _storage_errors(self.folder):
                self._manager.close()
        except StorageError:
            if kind is None:
                raise

    def _empty_trash(self) -> None:
        if jax.process_index() == 0:
            shutil.rmtree(self.folder / _TRASH, ignore_errors=True)


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    """Turns what Orbax raises when it cannot write into one line that says so."""
    try:
        yield
    except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
        raise StorageError(
            f"A checkpoint could not be written to {folder}: {first_line(error)}. Earlier ones are intact; "
            "see to space and rights, then run the same command again."
        ) from error


def _is_of_the_machine(error: Exception) -> bool:
    """Whether reading failed for another reason than what lies on the disk: Orbax passes on Python's errors and, as a
    ValueError that begins with a word for it, TensorStore's."""
    if isinstance(error, OSError):
        return not isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
    return isinstance(error, ValueError) and str(error).startswith(_PASSING)


def digest(tree: Any) -> str:
    """SHA-256 over path, type, shape and bytes of every leaf."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _digest_of_meta(meta: Mapping[str, Any]) -> str:
    """SHA-256 over all of `meta` but this digest."""
    content = {name: value for name, value in meta.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@jax.jit
def _finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _all_finite(tree: Any) -> bool:
    return bool(_finite(tree))
