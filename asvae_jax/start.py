"""Where training begins: a fresh state, or a checkpoint of the same run."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from asvae_jax import update
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.continuation import depends_on_length, differences
from asvae_jax.distributed import replicated
from asvae_jax.errors import CheckpointError, ConfigError
from asvae_jax.run import state_template, statistics_template
from asvae_jax.settings import Config
from asvae_jax.update import TrainState


def fresh_state(config: Config, mesh: Mesh) -> TrainState:
    """The state that `config.seed` gives, the same on every device."""
    return jax.jit(lambda key: update.init_state(config, key), out_shardings=replicated(mesh))(
        jax.random.key(config.seed)
    )


def restore(
    config: Config, store: CheckpointStore, mesh: Mesh, step: int | None = None
) -> tuple[TrainState, dict[str, Any]] | None:
    """State and statistics of the newest whole checkpoint, or None if there is none; or of `step`. Later ones are set
    aside.

    Raises:
      ConfigError: if the checkpoints come from other settings than these, or none is of `step`.
      CheckpointError: if none of them is whole, or that of `step` is not.
    """

    def templates(meta: dict[str, Any]) -> dict[str, Any]:
        state = state_template(config, replicated(mesh))
        items = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state, "key": {"key": state.key}}
        return {**items, "statistics": statistics_template(config, replicated(mesh))}

    steps = store.steps()
    if step is not None and step not in steps:
        raise ConfigError(f"{store.folder} holds no step {step} to go on from; choose one of {steps}.")
    check_same_run(config, store, steps)
    found = store.read_newest(templates) if step is None else store.read(step, templates)
    if found is None:
        return None
    items, meta = found
    store.set_aside_after(meta["step"])
    reached = jax.device_put(jnp.asarray(meta["step"], jnp.int32), replicated(mesh))
    state = TrainState(reached, items["params"], items["opt_state"], items["ema"], items["key"]["key"])
    return state, items.get("statistics", {})


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
