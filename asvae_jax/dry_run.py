"""What a training would need and do, without training."""

from pathlib import Path

import jax
from clu import parameter_overview

from asvae_jax import distributed, update
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.evaluation import Evaluator
from asvae_jax.files import check_can_be_made, gib
from asvae_jax.run import CHECKPOINTS
from asvae_jax.settings import Config, ImageEvaluation
from asvae_jax.start import check_length, check_same_run
from asvae_jax.training_data import TrainingData, program_memory


def dry_run(config: Config, workdir: Path) -> str:
    """Checks what training needs - data, devices, the step itself - and returns the plan as text. Nothing is trained,
    and nothing written to `workdir`; data that training would prepare or copy from a bucket at first use are there
    afterwards.

    Raises:
      ConfigError, DataError, StorageError: as `train` would.
    """
    check_can_be_made(workdir)
    mesh = distributed.make_mesh(config)
    data = TrainingData(config, mesh)
    state = jax.eval_shape(lambda: update.init_state(config, jax.random.key(0)))
    compiled = data.lower_steps(config).compile()
    memory, training = program_memory(compiled), config.training
    Evaluator(config)
    stored = _stored_steps(config, workdir)
    counts = {name: parameter_overview.count_parameters(state.params[name]) for name in state.params}
    lines = [
        f"data        {config.data.name}: {data.size}, batches of {config.data.batch_size}",
        f"method      {config.method.name}, after {training.warmup_steps:,} warm-up steps of a plain VAE",
        f"parameters  encoder {counts['encoder']:,}, decoder {counts['decoder']:,}",
        f"devices     {mesh.size} x {mesh.devices.flat[0].device_kind}, {config.data.batch_size // mesh.size} each",
        f"memory      {gib(memory[0])} state and images, {gib(memory[1])} temporaries a device",
        f"plan        {training.steps:,} steps, a checkpoint every {config.checkpoint.every_steps:,}",
        f"evaluation  {_evaluation_plan(config)}",
        f"workdir     {workdir}: " + (f"would go on from step {stored[-1]:,}" if stored else "would start afresh"),
    ]
    return "\n".join(lines)


def _evaluation_plan(config: Config) -> str:
    evaluation = config.evaluation
    what = ", ".join(evaluation.measures) if isinstance(evaluation, ImageEvaluation) else "2-D measures"
    when = f"every {evaluation.every_steps:,} steps and " if evaluation.every_steps else ""
    kept = "" if evaluation.best == "none" else f"; the best by {evaluation.best} is kept"
    return f"{what}, {when}at the end{kept}"


def _stored_steps(config: Config, workdir: Path) -> list[int]:
    if not (workdir / CHECKPOINTS).is_dir():
        return []
    with CheckpointStore(workdir / CHECKPOINTS) as store:
        steps = store.steps()
        check_same_run(config, store, steps)
        if steps:
            check_length(config, workdir, steps[-1])
        return steps
