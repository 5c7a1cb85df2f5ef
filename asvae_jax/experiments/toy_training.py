"""The training of those cells of a table that are not done, many at once."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from asvae_jax import sweep
from asvae_jax.evaluation import Figures, toy_figures, toy_points
from asvae_jax.experiments.toy_cells import (
    Budget,
    Cell,
    Results,
    check_any_stored,
    describe,
    key,
    read_samples,
    samples_name,
    write_samples,
)
from asvae_jax.files import held, make_writable
from asvae_jax.models import make_networks
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
            name = found["samples"] if found else samples_name(record["settings"])
            write_samples(results.samples / name, points)
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
            figures = {"step": step, **rounded(toy_figures(first, points))}
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
            **{which: rounded(toy_figures(config, points[which])) for which in WEIGHTS},
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


def rounded(figures: Figures) -> Figures:
    """Figures as they are stored, of five digits."""
    return {name: float(f"{value:.5g}") for name, value in figures.items()}
