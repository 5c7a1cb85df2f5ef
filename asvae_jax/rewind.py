"""Going back to an earlier checkpoint of a run."""

import itertools
import shutil
from functools import partial
from pathlib import Path

from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.distributed import local_mesh
from asvae_jax.errors import CheckpointError
from asvae_jax.files import writing
from asvae_jax.run import BEST, CHECKPOINTS, METRICS
from asvae_jax.start import hold, training_templates


def rewind(folder: Path, step: int) -> Path:
    """Sets aside what a run has behind an earlier checkpoint, so that training goes on from there: later checkpoints,
    the best one if it is later, evaluations, and a copy of the figures, of which training drops the later ones.

    Returns:
      The folder within the run's that has it all.

    Raises:
      CheckpointError: if there is no such checkpoint, it is not whole, or there is none behind it.
      BusyError, StorageError: as `hold` does.
    """
    if not (folder / CHECKPOINTS).is_dir():
        raise CheckpointError(f"{folder} is no run: it has no {CHECKPOINTS}/.")
    with hold(folder):
        with CheckpointStore(folder / CHECKPOINTS) as store:
            steps = store.steps()
            if step not in steps[:-1]:
                raise CheckpointError(f"{folder} cannot go back to step {step}; choose one of {steps[:-1]}.")
            store.read(step, partial(training_templates, mesh=local_mesh(1)))
        aside = next(
            path
            for number in itertools.count()
            if not (path := folder / f"set-aside-{steps[-1]}{f'-{number}' if number else ''}").exists()
        )
        with writing(aside):
            later = [path for kept in (CHECKPOINTS, BEST) for path in _later_steps(folder / kept, step)]
            for path in [*later, *folder.glob("evaluation*.json")]:
                target = aside / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
            if (folder / METRICS).exists():
                shutil.copy(folder / METRICS, aside)
    return aside


def _later_steps(folder: Path, step: int) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.isdecimal() and int(path.name) > step)
