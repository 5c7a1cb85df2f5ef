"""Runs of 2-D toys as cells of a table: which are wanted, which are there already, and the training of the others,
many at once."""

import dataclasses
import functools
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from asvae_jax import sweep
from asvae_jax.config import of_this_version, resolve
from asvae_jax.errors import ConfigError
from asvae_jax.evaluation import Figures, toy_figures, toy_points
from asvae_jax.files import held, make_writable, reading, write_whole, writing
from asvae_jax.models import make_networks
from asvae_jax.presets.toy import toy_config
from asvae_jax.provenance import commit, device_name, versions
from asvae_jax.run import SAMPLE_SEED, WEIGHTS
from asvae_jax.settings import Config

_log = logging.getLogger(__name__)

# Points of a cell's curve over training.
_CURVE_POINTS = 20
_CURVE_FIGURES = ("kl_paper", "jsd_paper", "modes_hit", "strays", "kl", "jsd")
# At once on a CPU's device: more gain nothing there, and an interruption loses what is in training.
_TOGETHER_ON_CPU = 4
_TOGETHER_AT_MOST = 256


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
        samples, settings = _samples_name(record["settings"]), of_this_version(record["settings"])
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


def train_missing(
    cells: Iterable[Cell],
    budget: Budget,
    results: Results,
    *,
    together: int | None = None,
    with_samples: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """Trains the cells that `results` lacks and writes each down when its program is done. Another process that does so
    in the same folder is waited for.

    Args:
      cells: those wanted.
      budget: theirs.
      results: grows by what is trained, and by the points that each run's averaged weights generate, [N, 2] float16.
      together: how many runs one program holds; None for as many as pay on these devices.
      with_samples: train a cell whose points are gone again; its record stays, as another program may end elsewhere.
      progress: is called after each program.

    Raises:
      StorageError: if a folder cannot be written to, before anything is trained, or a record or its points.
    """
    make_writable(results.samples)
    make_writable(results.path.parent)
    with held(results.path.with_name(".lock")):
        results.refresh()
        _train_missing(list(cells), budget, results, together, with_samples, progress)


def _train_missing(
    cells: Sequence[Cell],
    budget: Budget,
    results: Results,
    together: int | None,
    with_samples: bool,
    progress: Callable[[], object],
) -> None:
    # Under other betas WGAN-GP, which has none, is the same run.
    missing: dict[Config, list[Cell]] = {}
    for cell in cells:
        if results.find(cell, budget) is None or (with_samples and read_samples(cell, budget, results) is None):
            missing.setdefault(cell.config(budget), []).append(cell)
    at_most, mixed = (together, True) if together else _what_pays()
    programs = sweep.grouped(missing, at_most=at_most, mixed=mixed)
    for number, configs in enumerate(programs, 1):
        described = "; ".join(describe(cell) for config in configs for cell in missing[config])
        _log.info("program %d of %d: %s", number, len(programs), described)
        for config, (record, points) in zip(configs, _train(configs), strict=True):
            cell = missing[config][0]
            found = results.find(cell, budget)
            name = found["samples"] if found else _samples_name(record["settings"])
            _write_points(results.samples / name, points)
            if found:
                drawn, kept = record["ema"]["kl_paper"], found["ema"]["kl_paper"]
                _log.info("%s: kl_paper %s for the points to be drawn, %s on record", describe(cell), drawn, kept)
            else:
                results.add({"key": key(cell, budget), **record})
        progress()


def write_trained(
    write: Callable[[], str],
    cells: Sequence[Cell],
    budget: Budget,
    results: Results,
    *,
    together: int | None,
    train: bool,
) -> str:
    """What `write` says of `cells`, which writes a page of those that are done: after each program of the missing ones,
    if they are to be trained.

    Raises:
      ConfigError: if nothing is to be trained and nothing is done.
      StorageError: as `train_missing` does.
    """
    if train:
        # A folder or a page that cannot be written shall be told of before anything is trained.
        write()
        train_missing(cells, budget, results, together=together, progress=write)
    else:
        check_any_stored(cells, budget, results)
    return write()


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


def _write_points(path: Path, points: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, points.astype(np.float16))
    with writing(path):
        write_whole(path, buffer.getvalue())


def _samples_name(settings: dict[str, Any]) -> str:
    """Points belong to settings as records do: those of another preset never stand in for today's."""
    digest = hashlib.sha256(identity(settings).encode()).hexdigest()[:16]
    return f"{settings['data']['name']}-{settings['method']['name']}-s{settings['seed']}-{digest}.npy"


def _what_pays() -> tuple[int, bool]:
    """How many runs a program should hold on these devices, and whether of several kernels: on a CPU such a one takes
    longer than one of each."""
    if jax.default_backend() == "cpu":
        return _TOGETHER_ON_CPU * jax.local_device_count(), False
    return _TOGETHER_AT_MOST, True


def _train(configs: Sequence[Config]) -> Iterable[tuple[dict[str, Any], np.ndarray]]:
    """(record, points of the averaged weights) of each run."""
    first, per_dispatch = configs[0], configs[0].training.steps_per_dispatch
    curves: list[dict[str, list[float]]] = [{} for _ in configs]
    generate = _generator(first)

    def watch(step: int, weights: dict[str, Any]) -> None:
        for curve, points in zip(curves, np.asarray(generate(weights["ema"]["decoder"])), strict=True):
            figures = {"step": step, **_rounded(toy_figures(first, points))}
            for name in ("step", *_CURVE_FIGURES):
                if name in figures:
                    curve.setdefault(name, []).append(figures[name])

    began = time.perf_counter()
    every = max(1, first.training.steps // _CURVE_POINTS // per_dispatch) * per_dispatch
    members = sweep.train_together(configs, watch_every=every, watch=watch)
    seconds = time.perf_counter() - began
    for config, (run, refused), curve in zip(configs, members, curves, strict=True):
        points = {which: toy_points(run, which) for which in WEIGHTS}
        record: dict[str, Any] = {
            **{which: _rounded(toy_figures(config, points[which])) for which in WEIGHTS},
            "curve": curve,
            "refused_steps": refused,
            **origin(config, seconds, together=len(members)),
        }
        yield record, points["ema"]


def origin(config: Config, seconds: float, *, together: int) -> dict[str, Any]:
    """Where a run comes from, for its record: one of some that took `seconds` together."""
    return {
        "seconds": round(seconds / together, 1),
        "together": together,
        "device": f"{jax.local_device_count()} x {device_name()}",
        "versions": versions(),
        "commit": commit(),
        "settings": config.to_dict(),
    }


def _generator(config: Config) -> Callable[[Any], jax.Array]:
    """Decoder weights of all members -> the points [members, N, 2] that each is judged by."""
    networks = make_networks(config)
    latents = jax.random.normal(jax.random.key(SAMPLE_SEED), (config.chunk_size, config.model.latent_dim))
    return jax.jit(jax.vmap(lambda decoder: networks.decode(decoder, latents, {})))


def _rounded(figures: Figures) -> Figures:
    return {name: float(f"{value:.5g}") for name, value in figures.items()}
