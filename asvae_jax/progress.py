"""What a person sees of a training run: progress lines, warnings, profiles."""

import logging
import time
from pathlib import Path

import jax
import numpy as np
from clu import profiler

from asvae_jax import health
from asvae_jax.errors import GameLostError, NotFiniteError
from asvae_jax.settings import Config
from asvae_jax.update import Metrics
from asvae_jax.writers import Writers

_log = logging.getLogger(__name__)

# Dispatches that may wait for the devices: enough to keep them busy. A signal is heeded after these, and a batch of
# images lies on the devices for each.
_IN_FLIGHT = 2
# The figures of the progress line, in this order, where a method has them.
_PROGRESS = ("encoder/loss", "decoder/loss", "err_real", "kl_real", "kl_rec", "kl_fake", "as_distance")


class Progress:
    """Gathers metrics on the device, and at each interval prints, writes and judges their means."""

    def __init__(self, config: Config, first_step: int):
        self._config, self._since = config, time.perf_counter()
        self._pending: list[Metrics] = []
        self._last_step, self._skipped_in_a_row, self._negative_in_a_row = first_step, 0, 0
        self._warned: set[str] = set()

    def add(self, metrics: Metrics) -> None:
        """Notes the metrics [n] of one dispatch; waits only if the devices are more than two behind."""
        self._pending.append(metrics)
        if len(self._pending) > _IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - _IN_FLIGHT])

    def report(self, step: int, writers: Writers) -> None:
        """One line for people, one record for machines, and a warning for each new trouble.

        Raises:
          NotFiniteError: after too many refused steps in a row.
          GameLostError: after too many intervals in a row over which the KL of fake images is below that of real ones.
        """
        series, self._pending = _series(self._pending), []
        seconds = time.perf_counter() - self._since
        steps, self._last_step = step - self._last_step, step
        images_per_second = steps * self._config.data.batch_size / seconds
        skipped = series["skipped"] > 0
        # A refused step's figures are not finite; they are named below, not averaged.
        kept = slice(None) if skipped.all() else ~skipped
        means = {
            name: float(np.nanmean(values[kept])) for name, values in series.items() if not np.isnan(values[kept]).all()
        }
        means["skipped"] = float(skipped.mean())
        writers.write_scalars(step, {**means, "images_per_second": images_per_second})
        writers.flush()
        self._print(step, means, images_per_second)
        warnings = health.warnings(means, self._config.method.name)
        for name in warnings.keys() - self._warned:
            _log.warning("%s", warnings[name])
        self._warned = set(warnings)
        self._judge_steps(step, series, skipped)
        self._judge_game(step, warnings.get("kl_fake_minus_real"))
        self._since = time.perf_counter()

    def _print(self, step: int, means: dict[str, float], images_per_second: float) -> None:
        total = self._config.training.steps
        remaining = (total - step) * self._config.data.batch_size / images_per_second
        figures = "  ".join(f"{name} {means[name]:.4g}" for name in _PROGRESS if name in means)
        images = step * self._config.data.batch_size
        _log.info(
            "step %d/%d  images %d  %.0f images/s  ETA %s  %s",
            step,
            total,
            images,
            images_per_second,
            _clock(remaining),
            figures,
        )

    def _judge_steps(self, step: int, series: dict[str, np.ndarray], skipped: np.ndarray) -> None:
        for refused in skipped:
            self._skipped_in_a_row = self._skipped_in_a_row + 1 if refused else 0
            if self._skipped_in_a_row >= self._config.training.max_skipped_steps:
                names = health.not_finite({name: values[np.argmax(skipped)] for name, values in series.items()})
                raise NotFiniteError(
                    f"{self._skipped_in_a_row} steps in a row were refused up to step {step:,}; "
                    f"not finite: {', '.join(names)}. The weights are those of the last good step, "
                    "and checkpoints are intact. Lower optimizer.learning_rate or set optimizer.clip_norm, "
                    "and train in a new --workdir."
                )

    def _judge_game(self, step: int, negative: str | None) -> None:
        """`negative` is what is to be said of an interval over which KL of fake images was below that of real ones."""
        self._negative_in_a_row = self._negative_in_a_row + 1 if negative else 0
        allowed = self._config.training.max_negative_intervals
        if negative and self._negative_in_a_row == allowed:
            raise GameLostError(
                f"{negative} It was so over {allowed} logging intervals in a row, up to step {step:,}. Checkpoints are "
                "intact: train in a new --workdir, or go on all the same with training.max_negative_intervals=0."
            )


def _series(dispatches: list[Metrics]) -> dict[str, np.ndarray]:
    """One value a step for each figure; NaN where the warm-up has no such figure."""
    names = dict.fromkeys(name for metrics in dispatches for name in metrics)
    absent = [np.full(len(metrics["skipped"]), np.nan) for metrics in dispatches]
    return {
        name: np.concatenate(
            [np.asarray(metrics.get(name, nothing)) for metrics, nothing in zip(dispatches, absent, strict=True)]
        )
        for name in names
    }


class Profiling:
    """A profile of the second logging interval, when everything has been compiled; without a folder it does nothing."""

    def __init__(self, workdir: Path | None):
        self._workdir, self._intervals, self._running = workdir, 0, False

    def __enter__(self) -> "Profiling":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def interval_done(self) -> None:
        """Starts after the first interval and stops after the second."""
        self._intervals += 1
        self._stop()
        if self._workdir and self._intervals == 1:
            profiler.start(str(self._workdir / "tensorboard"))
            self._running = True

    def _stop(self) -> None:
        if self._running:
            profiler.stop()
            self._running = False
            _log.info("Profile written to %s/tensorboard", self._workdir)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
