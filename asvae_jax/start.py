"""Where training begins: a fresh state, or the newest checkpoint of the same run."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from asvae_jax import update
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.continuation import depends_on_length, differences
from asvae_jax.distributed import is_main_process, replicated
from asvae_jax.errors import BusyError, CheckpointError, ConfigError, StorageError
from asvae_jax.files import held
from asvae_jax.run import state_template, statistics_template
from asvae_jax.settings import Config
from asvae_jax.update import TrainState

# Seconds to wait for a run folder: a network file system may take a machine that is gone for alive so long.
_PATIENCE = 120.0


def fresh_state(config: Config, mesh: Mesh) -> TrainState:
    """The state that `config.seed` gives, the same on every device."""
    return jax.jit(lambda key: update.init_state(config, key), out_shardings=replicated(mesh))(
        jax.random.key(config.seed)
    )


def restore(config: Config, store: CheckpointStore, mesh: Mesh) -> tuple[TrainState, dict[str, Any]] | None:
    """State and statistics of the newest whole checkpoint; None if there is none. Later ones, which are damaged, are
    set aside.

    Raises:
      ConfigError: if the checkpoints come from other settings than these, or are past their end.
      CheckpointError: if none of them is whole.
    """
    check_same_run(config, store, store.steps())
    found = store.read_newest(partial(training_templates, mesh=mesh))
    if found is None:
        return None
    items, meta = found
    check_length(config, store.folder.parent, meta["step"])
    store.set_aside_after(meta["step"])
    reached = jax.device_put(jnp.asarray(meta["step"], jnp.int32), replicated(mesh))
    state = TrainState(reached, items["params"], items["opt_state"], items["ema"], items["key"]["key"])
    return state, items.get("statistics", {})


def training_templates(meta: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Those of all that a checkpoint holds, for `CheckpointStore.read`."""
    config, placement = meta["config"], replicated(mesh)
    state = state_template(config, placement)
    items = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state, "key": {"key": state.key}}
    return {**items, "statistics": statistics_template(config, placement)}


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Keeps others from training in this folder: they would delete the checkpoints that this run is writing.

    Raises:
      BusyError: if another process does so already.
      StorageError: if nothing can be written there.
    """
    with contextlib.ExitStack() as closing:
        if is_main_process():
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                closing.enter_context(held(workdir / ".lock", patience=_PATIENCE))
            except BlockingIOError as error:
                raise BusyError(
                    f"Another process trains in {workdir}; wait for its end, or choose another --workdir."
                ) from error
            except OSError as error:
                raise StorageError(f"{workdir} cannot be written: {error}. Choose another --workdir.") from error
        yield


def check_same_run(config: Config, store: CheckpointStore, steps: list[int]) -> None:
    """Raises a ConfigError if the checkpoints come from other settings than these."""
    for step in reversed(steps):
        try:
            stored = store.read_meta(step)["config"]
        except CheckpointError:  # `read_newest` is to report it
            continue
        if changed := differences(stored, config, () if depends_on_length(config) else ("training.steps",)):
            raise ConfigError(
                f"{store.folder.parent} holds a run with other settings ({'; '.join(changed)}); choose a new --workdir."
            )
        return


def check_length(config: Config, workdir: Path, step: int) -> None:
    """Raises a ConfigError if a run is past the end that these settings ask for."""
    if step > config.training.steps:
        raise ConfigError(f"{workdir} is at step {step:,} already, past training.steps={config.training.steps:,}.")
