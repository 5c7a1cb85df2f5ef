"""States to save and to compare with what is restored: made-up numbers in the shapes of tiny runs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from training_runs import digits, toy

from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.distributed import make_mesh, replicated
from asvae_jax.run import state_template, statistics_template
from asvae_jax.settings import Checkpoint, Config
from asvae_jax.update import TrainState

KEEP_ALL = Checkpoint(every_steps=1, keep_last=100, keep_every_steps=0)
# Wide enough for a file of numbers only: the small ones lie within an index, which Orbax does check.
DIGITS, TOY = digits(), toy(model__widths=(128, 128))
ITEMS = ("params", "ema", "opt_state", "key", "statistics")


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
