"""Runs of 2-D toys as cells of a table: their settings, and the records and points of those that are done."""

import dataclasses
import functools
import hashlib
import io
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asvae_jax.config import of_this_version, resolve
from asvae_jax.errors import ConfigError
from asvae_jax.files import reading, write_whole, writing
from asvae_jax.presets.toy import toy_config
from asvae_jax.settings import Config

_log = logging.getLogger(__name__)

OWN_BETAS = "own"
"""Instead of Table 1's: those of the toy's config file."""


class Budget(NamedTuple):
    """What all cells of a table share."""

    steps: int
    batch_size: int


class Cell(NamedTuple):
    """One run.

    Fields:
      toy: a name of `TOY_LIMITS`.
      betas: "c1", "c2", "c3" of Table 1, or `OWN_BETAS`.
      variant: words of a config: "sintrovae", "asintrovae,released".
      changes: settings that differ from the variant's, ("method.kernel", "product"): an ablation.
      seed: of the run.
    """

    toy: str
    betas: str
    variant: str
    changes: tuple[tuple[str, Any], ...]
    seed: int

    def config(self, budget: Budget) -> Config:
        """The settings of the run.

        Raises:
          ConfigError: if the budget has no steps left after the warm-up.
        """
        return dataclasses.replace(_config_of_any_seed(self._replace(seed=0), budget), seed=self.seed)


# A page asks for those of thousands of cells, which differ by seed for the most part.
@functools.cache
def _config_of_any_seed(cell: Cell, budget: Budget) -> Config:
    words = cell.variant if cell.betas == OWN_BETAS else f"{cell.variant},{cell.betas}"
    config = toy_config(words, name=cell.toy)
    # The published average is one over steps.
    config.ema.half_life_images *= budget.batch_size / config.data.batch_size
    config.data.batch_size = budget.batch_size
    published = config.training.steps, config.optimizer.milestone_steps
    config.training.steps = budget.steps
    config.checkpoint.every_steps = budget.steps
    for path, value in cell.changes:
        section, _, name = path.partition(".")
        config[section][name] = value
    if budget.steps % config.training.steps_per_dispatch:
        raise ConfigError(f"--steps {budget.steps} must be a multiple of {config.training.steps_per_dispatch}.")
    # The published milestones, 10,000 and 15,000 of 30,000 steps, would stop most of a shorter game half-way.
    if config.optimizer.milestone_steps and (budget.steps, config.optimizer.milestone_steps) != published:
        config.optimizer.milestone_steps = (budget.steps * 3 // 4,)
    if config.training.warmup_steps >= budget.steps:
        raise ConfigError(
            f"--steps {budget.steps} ends within the warm-up of {cell.variant}, {config.training.warmup_steps} steps; "
            "give more, or leave this variant out."
        )
    return resolve(config)


class Results:
    """Finished cells as lines of JSON, one file for all tables, which only ever grows, and their points in `samples`,
    the folder beside it.

    A run is known by its settings, whatever it was called when it was trained: what a preset says and what is a change
    of it may move.

    Raises:
      DataError: if a line of the file cannot be read.
    """

    def __init__(self, path: Path):
        self.path = path
        self.samples = path.with_name("samples")
        self._by_settings: dict[str, dict[str, Any]] = {}
        self._keys: set[str] = set()
        self._passed_over: set[str] = set()
        self._lines = 0
        self.refresh()

    def refresh(self) -> None:
        """Reads the lines that another process may have added. A last one without an end was cut short, and is no
        line.

        Raises:
          DataError: if one of them cannot be read.
        """
        if not self.path.exists():
            return
        with reading(self.path, "move it away"):
            *lines, _ = self.path.read_text().split("\n")
        for number, line in enumerate(lines[self._lines :], self._lines + 1):
            with reading(self.path, f"line {number} is no finished cell: remove it"):
                self._remember(json.loads(line))
        self._lines = len(lines)

    def find(self, cell: Cell, budget: Budget) -> dict[str, Any] | None:
        """The record of a cell: "raw" and "ema" figures, "curve" (a list for "step" and for each figure),
        "refused_steps" (older ones have none), "seconds", "device", "versions", "commit", and "samples", the file of
        its points; None if it was never trained, or under other settings than today's."""
        record = self._by_settings.get(identity(cell.config(budget).to_dict()))
        if record is None and (name := key(cell, budget)) in self._keys and name not in self._passed_over:
            self._passed_over.add(name)
            _log.warning("%s was trained under other settings and is passed over", describe(cell))
        return record

    def add(self, record: dict[str, Any]) -> None:
        """Writes a record down at once.

        Raises:
          StorageError: if that fails.
        """
        self._remember(record)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                file.seek(0)
                content = file.read()
                # Without what a full disk or a kill has cut short.
                file.truncate(content.rfind(b"\n") + 1)
                file.write(json.dumps(record).encode() + b"\n")

    def _remember(self, record: dict[str, Any]) -> None:
        # The file is named by the settings as they were stored: one that a later version adds does not lose it.
        samples, settings = samples_name(record["settings"]), of_this_version(record["settings"])
        self._by_settings[identity(settings)] = {**record, "settings": settings, "samples": samples}
        self._keys.add(record["key"])


def identity(settings: dict[str, Any]) -> str:
    """What a run is known by, whatever it is called."""
    return json.dumps(settings, sort_keys=True)


def key(cell: Cell, budget: Budget) -> str:
    """What a cell's record is called, for readers."""
    changes = "".join(f"-{path.rpartition('.')[2]}={value}" for path, value in cell.changes)
    variant = cell.variant.replace(",", "-")
    return f"{cell.toy}-{cell.betas}-{variant}{changes}-b{budget.batch_size}-t{budget.steps}-s{cell.seed}"


def check_any_stored(cells: Iterable[Cell], budget: Budget, results: Results) -> None:
    """Refuses with a ConfigError what is to be made of finished runs where none is."""
    if not any(results.find(cell, budget) for cell in cells):
        raise ConfigError(
            f"{results.path} has none of these runs; leave out --stored to train them, or name another --out."
        )


def describe(cell: Cell) -> str:
    """A cell in a line."""
    changes = "".join(f" {path}={value}" for path, value in cell.changes)
    return f"{cell.toy} {cell.betas} {cell.variant}{changes} seed {cell.seed}"


def read_samples(cell: Cell, budget: Budget, results: Results) -> np.ndarray | None:
    """The points of a cell, [N, 2], or None if it was never trained or they are gone or damaged."""
    record = results.find(cell, budget)
    if record is None:
        return None
    try:
        return np.load(results.samples / record["samples"]).astype(np.float32)
    except (FileNotFoundError, ValueError, EOFError):
        return None


def write_samples(path: Path, points: np.ndarray) -> None:
    """Points [N, 2] for `read_samples`.

    Raises:
      StorageError: if that fails.
    """
    buffer = io.BytesIO()
    np.save(buffer, points.astype(np.float16))
    with writing(path):
        write_whole(path, buffer.getvalue())


def samples_name(settings: dict[str, Any]) -> str:
    """Points belong to settings as records do: those of another preset never stand in for today's."""
    digest = hashlib.sha256(identity(settings).encode()).hexdigest()[:16]
    return f"{settings['data']['name']}-{settings['method']['name']}-s{settings['seed']}-{digest}.npy"
