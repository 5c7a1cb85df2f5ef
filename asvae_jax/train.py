"""The training loop: one straight line from a config to a trained run."""

import contextlib
import errno
import itertools
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh

from asvae_jax import distributed, update
from asvae_jax.best import BestCheckpoint
from asvae_jax.calibrate import make_calibrate
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.config import resolve
from asvae_jax.continuation import depends_on_length, differences
from asvae_jax.data.augment import to_value_range
from asvae_jax.data.images import BatchOrder, ahead, read_batches
from asvae_jax.distributed import is_main_process, over_batch, replicated, to_global
from asvae_jax.errors import CheckpointError, ConfigError, Preempted, RunError, StorageError
from asvae_jax.evaluation import Evaluator
from asvae_jax.examples import preview_examples
from asvae_jax.files import held, write_whole
from asvae_jax.progress import Profiling, Progress
from asvae_jax.run import BEST, CHECKPOINTS, WEIGHTS, Run, Weights, state_template, statistics_template
from asvae_jax.settings import Config, ImageData, ImageEvaluation, ToyEvaluation
from asvae_jax.sheets import sheet
from asvae_jax.update import TrainState
from asvae_jax.writers import JsonLinesWriter, TensorBoardWriter, Writers

_log = logging.getLogger(__name__)

# About so many in a run at most: thousands of sheets of large images would fill a disk.
_SHEETS = 100

# Seconds to wait for a run folder: a network file system may take a machine that is gone for alive so long.
_PATIENCE = 120.0

# (state, pixels [n, B, H, W, C], or nothing for a toy) -> (state, metrics [n]); one compiled call
Dispatch = jax.stages.Wrapped


def train(config: Config, workdir: Path, *, profile: bool = False, stop: distributed.StopRequest | None = None) -> Run:
    """Trains to `config.training.steps`, going on from the newest whole checkpoint in `workdir` if there is one.

    Args:
      config: the settings.
      workdir: the run's folder: checkpoints/, sheets/, tensorboard/, metrics.jsonl, config.json.
      profile: write a profile of the steps after the first logging interval, for TensorBoard.
      stop: the caller's, who has more to do that may be stopped; None to heed signals in training alone.

    Returns:
      The finished run.

    Raises:
      ConfigError, DataError, CheckpointError, NotFiniteError, StorageError: see `errors`; what was saved stays.
      Preempted: after SIGTERM or SIGINT, once the state is saved.
    """
    # Devices, data, networks.
    mesh = distributed.make_mesh(config)
    data = TrainingData(config, mesh)
    run_method = data.compiled_steps(config)
    run_warmup = data.compiled_steps(config.warmup()) if config.training.warmup_steps else run_method
    calibrate = make_calibrate(config, mesh)
    # Opened now, so that what it lacks is told before training and not after.
    evaluator = Evaluator(config)

    with contextlib.ExitStack() as closing:
        _hold(workdir, closing)
        # A fresh state, or the newest whole checkpoint.
        store = closing.enter_context(CheckpointStore(workdir / CHECKPOINTS, config.checkpoint))
        state, statistics = _restore(config, store, mesh) or (fresh_state(config, mesh), {})
        step = first_step = int(state.step)
        _check_length(config, workdir, step)
        _describe(config, workdir, state, mesh)
        writers = closing.enter_context(contextlib.closing(_make_writers(config, workdir, first_step)))
        writers.write_texts(step, {"config": f"```\n{json.dumps(config.to_dict(), indent=2)}\n```"})
        preview = preview_examples(config)

        # The loop.
        progress = Progress(config, first_step)
        sheets_every = _sheets_every(config)
        profiling = closing.enter_context(Profiling(workdir if profile else None))
        best = closing.enter_context(_best_checkpoint(config, workdir, first_step))
        stop = stop or closing.enter_context(distributed.StopRequest())
        per_dispatch, batches = config.training.steps_per_dispatch, data.batches(first_step)
        while step < config.training.steps:
            run_steps = run_warmup if step < config.training.warmup_steps else run_method
            state, metrics = run_steps(state, *next(batches))
            step += per_dispatch
            progress.add(metrics)
            last = step == config.training.steps
            stopping = stop.asked()
            if step % config.training.log_every_steps == 0 or last or stopping:
                progress.report(step, writers)
                profiling.interval_done()

            if step % config.checkpoint.every_steps == 0 or last or stopping:
                weights = {"raw": state.params, "ema": state.ema}
                statistics = {name: calibrate(w, data.calibration_batches()) for name, w in weights.items()}
                store.save(state, statistics, config)
                run = Run(workdir, config, step, state.params, state.ema, statistics)
                if step % sheets_every == 0 or last:
                    _draw_sheets(run, preview, writers)
            if stopping and not last:
                _stop(store, step)
            if config.evaluation.every_steps and step % config.evaluation.every_steps == 0:
                # The state is saved, so that evaluation may be stopped at any batch.
                result = evaluator.evaluate(run, weights=("ema",), poll=partial(_stop_if, stop, store, step))
                _report_evaluation(result, writers)
                if best:
                    best.offer(state, statistics, result["ema"])

        # The last checkpoint must be on disk before anyone hears of success.
        store.wait()
        if step not in store.steps():
            raise StorageError(
                f"The checkpoint of the last step, {step}, is not in {store.folder}; run the same command again."
            )
    return Run(workdir, config, step, state.params, state.ema, statistics)


def _hold(workdir: Path, closing: contextlib.ExitStack) -> None:
    """Keeps others from training in this folder: they would delete the checkpoints that this run is writing.

    Raises:
      RunError: if another process does so already.
      StorageError: if nothing can be written there.
    """
    if not is_main_process():
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        closing.enter_context(held(workdir / ".lock", patience=_PATIENCE))
    except BlockingIOError as error:
        raise RunError(
            f"Another process trains in {workdir}; wait for its end, or choose another --workdir."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks
            raise StorageError(f"{workdir} cannot be written: {error}. Choose another --workdir.") from error


def _stop_if(stop: distributed.StopRequest, store: CheckpointStore, step: int) -> None:
    if stop.asked():
        _stop(store, step)


def _stop(store: CheckpointStore, step: int) -> NoReturn:
    store.wait()
    raise Preempted(f"Stopped at step {step:,} as asked; the state is saved. Run the same command again to go on.")


def _best_checkpoint(config: Config, workdir: Path, first_step: int) -> contextlib.AbstractContextManager:
    """Of a BestCheckpoint, or of None if none is to be kept."""
    if config.evaluation.best == "none":
        return contextlib.nullcontext()
    return contextlib.closing(BestCheckpoint(workdir / BEST, config, first_step))


def _report_evaluation(result: dict[str, Any], writers: Writers) -> None:
    figures = result["ema"]
    writers.write_scalars(result["step"], {f"evaluation/{name}": value for name, value in figures.items()})
    writers.flush()
    shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    _log.info("evaluation at step %d  %s", result["step"], shown)


def dry_run(config: Config, workdir: Path) -> str:
    """Checks what training needs - data, devices, the step itself - and returns the plan as text; nothing is trained
    or written.

    Raises:
      ConfigError, DataError: as `train` would.
    """
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
        f"memory      {_gib(memory[0])} state and images, {_gib(memory[1])} temporaries a device",
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
        _check_same_run(config, store, steps)
        if steps:
            _check_length(config, workdir, steps[-1])
        return steps


def program_memory(compiled: jax.stages.Compiled) -> tuple[int, int]:
    """Bytes of a program's arguments and of its temporaries on one device."""
    memory = compiled.memory_analysis()
    return (memory.argument_size_in_bytes, memory.temp_size_in_bytes) if memory else (0, 0)


class TrainingData:
    """Where a step's images come from: drawn on the device for a toy, read from a prepared set otherwise."""

    def __init__(self, config: Config, mesh: Mesh):
        self._config, self._mesh = config, mesh
        if isinstance(config.data, ImageData):
            # TFDS takes a second to import, and a toy needs none of it.
            from asvae_jax.data.records import Split

            self._images = Split(config.data, "train").held()
            self._order = BatchOrder(len(self._images), config.data.batch_size, config.seed)
            self._calibration_order = BatchOrder(len(self._images), config.chunk_size, config.seed)

    @property
    def size(self) -> str:
        """How much there is of it, for people."""
        if self._config.is_toy:
            return "drawn on the device"
        return f"{len(self._images):,} training images {self._config.example_shape}"

    def compiled_steps(self, config: Config) -> Dispatch:
        """`steps_per_dispatch` steps of `config.method` as one program with donated state."""
        whole = replicated(self._mesh)
        if config.is_toy:
            toy_steps = update.make_toy_steps(config, over_batch(self._mesh))
            return jax.jit(
                lambda state: toy_steps(state, config.training.steps_per_dispatch),
                donate_argnums=0,
                in_shardings=(whole,),
                out_shardings=whole,
            )
        image_steps = update.make_steps(config, over_batch(self._mesh))
        return jax.jit(
            image_steps,
            donate_argnums=0,
            in_shardings=(whole, over_batch(self._mesh, axis=1)),
            out_shardings=whole,
        )

    def lower_steps(self, config: Config) -> jax.stages.Lowered:
        """The same program, traced for inspection."""
        state = state_template(config, replicated(self._mesh))
        if config.is_toy:
            return self.compiled_steps(config).lower(state)
        pixels = (config.training.steps_per_dispatch, config.data.batch_size, *config.example_shape)
        return self.compiled_steps(config).lower(state, jax.ShapeDtypeStruct(pixels, jnp.uint8))

    def batches(self, first_step: int) -> Iterator[tuple[jax.Array, ...]]:
        """What each dispatch from `first_step` on takes beside the state, without end: nothing for a toy, else
        uint8 pixels [n, B, H, W, C], on the devices before they are needed."""
        if not isinstance(self._config.data, ImageData):
            return itertools.repeat(())
        read = read_batches(
            self._images,
            self._order,
            first_step=first_step,
            group=self._config.training.steps_per_dispatch,
            threads=self._config.data.read_threads,
            process=jax.process_index(),
            processes=jax.process_count(),
        )
        return ahead((to_global(self._mesh, pixels, axis=1),) for pixels in read)

    def calibration_batches(self) -> Iterator[jax.Array]:
        """Training images for batch-norm statistics, the same at each call; none for a toy."""
        evaluation, data = self._config.evaluation, self._config.data
        if isinstance(evaluation, ToyEvaluation) or not isinstance(data, ImageData):
            return
        for step in range(evaluation.calibration_batches):
            own = np.split(self._calibration_order[step], jax.process_count())[jax.process_index()]
            pixels = to_global(self._mesh, self._images.rows(own))
            yield to_value_range(data, pixels.astype(jnp.float32) / 255)


def fresh_state(config: Config, mesh: Mesh) -> TrainState:
    """The state that `config.seed` gives, the same on every device."""
    return jax.jit(lambda key: update.init_state(config, key), out_shardings=replicated(mesh))(
        jax.random.key(config.seed)
    )


def _restore(config: Config, store: CheckpointStore, mesh: Mesh) -> tuple[TrainState, dict[str, Any]] | None:
    """State and statistics of the newest whole checkpoint; None if there is none."""

    def templates(meta: dict[str, Any]) -> dict[str, Any]:
        state = state_template(config, replicated(mesh))
        items = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state, "key": {"key": state.key}}
        return {**items, "statistics": statistics_template(config, replicated(mesh))}

    if steps := store.steps():
        _check_same_run(config, store, steps)
    found = store.read_newest(templates)
    if found is None:
        return None
    items, meta = found
    store.set_aside_after(meta["step"])
    step = jax.device_put(jnp.asarray(meta["step"], jnp.int32), replicated(mesh))
    state = TrainState(step, items["params"], items["opt_state"], items["ema"], items["key"]["key"])
    return state, items.get("statistics", {})


def _check_same_run(config: Config, store: CheckpointStore, steps: list[int]) -> None:
    """Raises a ConfigError if the checkpoints come from other settings than these."""
    for step in reversed(steps):
        try:
            stored = resolve(store.read_meta(step)["config"])
        except CheckpointError:  # `read_newest` is to report it
            continue
        if changed := differences(stored, config, () if depends_on_length(config) else ("training.steps",)):
            raise ConfigError(
                f"{store.folder.parent} holds a run with other settings ({'; '.join(changed)}); choose a new --workdir."
            )
        return


def _check_length(config: Config, workdir: Path, step: int) -> None:
    if step > config.training.steps:
        raise ConfigError(f"{workdir} is at step {step:,} already, past training.steps={config.training.steps:,}.")


def _describe(config: Config, workdir: Path, state: TrainState, mesh: Mesh) -> None:
    """Prints what is about to be trained, and keeps the settings beside the run."""
    _log.info("Parameters:\n%s", parameter_overview.get_parameter_overview(state.params, include_stats=False))
    step, total = int(state.step), config.training.steps
    _log.info("%s %s on %d x %s", config.data.name, config.method.name, mesh.size, mesh.devices.flat[0].device_kind)
    _log.info("Going on from step %d of %d" if step else "Starting at step %d of %d", step, total)
    if is_main_process():
        write_whole(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")


def _make_writers(config: Config, workdir: Path, first_step: int) -> Writers:
    if not is_main_process():
        return Writers([])
    json_lines = JsonLinesWriter(workdir / "metrics.jsonl", first_step, config.to_dict())
    return Writers([json_lines, TensorBoardWriter(workdir / "tensorboard", first_step)])


def _sheets_every(config: Config) -> int:
    """Steps from one sheet to the next: those of a checkpoint, or several, as sheets are kept where checkpoints go."""
    every, steps = config.checkpoint.every_steps, config.training.steps
    return every * max(1, round(steps / every / _SHEETS))


def _draw_sheets(run: Run, preview: np.ndarray, writers: Writers) -> None:
    """The pictures of both sets of weights, as files and for TensorBoard."""
    pictures = {weights: sheet(run, weights, preview) for weights in WEIGHTS}
    if is_main_process():
        (run.folder / "sheets").mkdir(exist_ok=True)
        for weights, picture in pictures.items():
            picture.save(sheet_path(run, weights))
    writers.write_images(run.step, {f"sheet/{weights}": np.asarray(picture) for weights, picture in pictures.items()})


def sheet_path(run: Run, weights: Weights) -> Path:
    """Where the picture of a step lies."""
    return run.folder / "sheets" / f"{weights}-{run.step:07d}.png"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
