"""A run of twelve tiny steps on digits, and what lies in its folder: what a run that stopped on its way is held
against."""

import shutil
from pathlib import Path

from training_runs import digits

from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.distributed import make_mesh, replicated
from asvae_jax.run import CHECKPOINTS, Run, state_template
from asvae_jax.settings import Config

STEPS = 12
# Three checkpoints, every step logged.
CONFIG = digits(training__steps=STEPS, training__log_every_steps=1, checkpoint__every_steps=4)


def copy_of(run: Run, folder: Path, *, last: int) -> Path:
    """What lay in a run's folder when a kill struck after its checkpoint of step `last`."""
    shutil.copytree(run.folder, folder)
    for step in steps_of(folder):
        if step > last:
            shutil.rmtree(folder / CHECKPOINTS / str(step))
    return folder


def stored(folder: Path, step: int, config: Config = CONFIG):
    """Everything that a checkpoint holds of the training state."""
    state = state_template(config, replicated(make_mesh(config)))
    templates = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state, "key": {"key": state.key}}
    with CheckpointStore(folder / CHECKPOINTS) as store:
        return store.read(step, lambda meta: templates)[0]


def steps_of(folder: Path) -> list[int]:
    with CheckpointStore(folder / CHECKPOINTS) as store:
        return store.steps()
