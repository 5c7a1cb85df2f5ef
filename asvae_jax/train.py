"""The training loop: one straight line from a config to a trained run."""

import contextlib
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh

from asvae_jax import distributed
from asvae_jax.best import BestCheckpoint
from asvae_jax.calibrate import make_calibrate
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.distributed import is_main_process
from asvae_jax.errors import Preempted, StorageError
from asvae_jax.evaluation import Evaluator
from asvae_jax.examples import preview_examples
from asvae_jax.files import write_whole
from asvae_jax.progress import Profiling, Progress
from asvae_jax.run import BEST, CHECKPOINTS, METRICS, WEIGHTS, Run, Weights
from asvae_jax.settings import Config
from asvae_jax.sheets import sheet
from asvae_jax.start import fresh_state, hold, restore
from asvae_jax.training_data import TrainingData
from asvae_jax.update import TrainState
from asvae_jax.writers import JsonLinesWriter, TensorBoardWriter, Writers

_log = logging.getLogger(__name__)

# About so many in a run at most: thousands of sheets of large images would fill a disk.
_SHEETS = 100


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
      ConfigError, DataError, CheckpointError, NotFiniteError, GameLostError, StorageError: see `errors`; what was saved
        stays.
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
        closing.enter_context(hold(workdir))
        # A fresh state, or the newest whole checkpoint.
        store = closing.enter_context(CheckpointStore(workdir / CHECKPOINTS, config.checkpoint))
        state, statistics = restore(config, store, mesh) or (fresh_state(config, mesh), {})
        step = first_step = int(state.step)
        _describe(config, workdir, state, mesh)
        writers = closing.enter_context(contextlib.closing(_make_writers(config, workdir, first_step)))
        writers.write_texts(step, {"config": f"```\n{json.dumps(config.to_dict(), indent=2)}\n```"})
        preview = preview_examples(config)

        # The loop.
        progress = Progress(config, first_step)
        sheets_every = _sheets_every(config)
        profiling = closing.enter_context(Profiling(workdir if profile else None))
        best = closing.enter_context(_best_checkpoint(config, workdir))
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
                    # Whatever is called best is of a step that the run has behind it for good.
                    store.wait()
                    best.offer(state, statistics, result["ema"])

        # The last checkpoint must be on disk before anyone hears of success.
        store.wait()
        if step not in store.steps():
            raise StorageError(
                f"The checkpoint of the last step, {step}, is not in {store.folder}; run the same command again."
            )
    return Run(workdir, config, step, state.params, state.ema, statistics)


def _stop_if(stop: distributed.StopRequest, store: CheckpointStore, step: int) -> None:
    if stop.asked():
        _stop(store, step)


def _stop(store: CheckpointStore, step: int) -> NoReturn:
    store.wait()
    raise Preempted(f"Stopped at step {step:,} as asked; the state is saved. Run the same command again to go on.")


def _best_checkpoint(config: Config, workdir: Path) -> contextlib.AbstractContextManager:
    """Of a BestCheckpoint, or of None if none is to be kept."""
    if config.evaluation.best == "none":
        return contextlib.nullcontext()
    return BestCheckpoint(workdir / BEST, config)


def _report_evaluation(result: dict[str, Any], writers: Writers) -> None:
    figures = result["ema"]
    writers.write_scalars(result["step"], {f"evaluation/{name}": value for name, value in figures.items()})
    writers.flush()
    shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
    _log.info("evaluation at step %d  %s", result["step"], shown)


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
    json_lines = JsonLinesWriter(workdir / METRICS, first_step, config.to_dict())
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
