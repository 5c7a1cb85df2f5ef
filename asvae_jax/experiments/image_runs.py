"""Runs on image sets as cells of a table: which are there already, and the training of the others.

A cell is a run in a folder of its own. One that is finished and evaluated is read, one that was interrupted goes on.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asvae_jax.comparison import Group, read_groups
from asvae_jax.config import of_this_version, resolve
from asvae_jax.continuation import differences
from asvae_jax.data.prepare import open_prepared, prepare_command
from asvae_jax.distributed import StopRequest
from asvae_jax.errors import BusyError, ConfigError, DataError, GameLostError, NotFiniteError
from asvae_jax.evaluation import EVALUATION_FILE, write_evaluation
from asvae_jax.experiments.image_requests import Cell, Request, stored_settings
from asvae_jax.features.networks import is_figure
from asvae_jax.files import reading
from asvae_jax.presets.image import INCEPTION_FILE
from asvae_jax.run import METRICS, Weights, load_run
from asvae_jax.settings import BY_FEATURES, Config, ImageData, ImageEvaluation
from asvae_jax.train import train

_log = logging.getLogger(__name__)

SHOWN_WEIGHTS: Weights = "ema"
"""Which all tables and figures are of."""


class ImageRuns:
    """The cells of a request: `complete` trains and evaluates what is missing, the others tell what there is."""

    def __init__(self, request: Request, *, by_features: bool = False):
        """`by_features` says that a set without FID is not worth training on, nor a run of it finished."""
        self.request = request
        self.missing: dict[str, str] = {}
        """What could not be had, a set or a cell, and what mends it."""
        self._by_features = by_features
        self._trainable = [data for data in request.sets if self._is_trainable(data)]

    def complete(self) -> Iterator[Cell]:
        """Trains and evaluates what is missing, as far as that can be done, and names each cell that it has dealt with.

        A cell that does not stay finite is noted as missing, and the next one is begun.

        Raises:
          Preempted: after SIGTERM or SIGINT; what was trained is saved, and the next call goes on there.
          ConfigError: if a folder holds a run with other settings than the request's.
          DataError: if the files of a run cannot be read.
        """
        with StopRequest() as stop:
            for cell in self._cells():
                stop.poll()
                if self._is_finished(cell):
                    continue
                if cell in self.request.given:
                    self._evaluate(cell, stop)
                elif cell.data in self._trainable:
                    self._train(cell, stop)
                else:
                    if not self.request.train:
                        self.missing[str(cell)] = "not among the runs given"
                    continue
                yield cell

    def finished(self, data: str, method: str) -> list[Path]:
        """The folders of what is there, in the order of the seeds."""
        cells = (Cell(data, method, seed) for seed in self.request.seeds)
        return [self.request.folder(cell) for cell in cells if self._is_finished(cell)]

    def groups(self, data: str) -> dict[str, Group]:
        """The evaluations of a set, by method; a method without any is left out.

        Raises:
          DataError: if they cannot be compared: other protocols, other budgets, seeds of one method that differ in
            more than their seed.
        """
        folders = {method: self.finished(data, method) for method in self.request.methods}
        # All at once, so that all are of one protocol.
        everything = read_groups([folder for of_method in folders.values() for folder in of_method], SHOWN_WEIGHTS)
        budgets = {images_seen(group.results[0]["config"]) for group in everything}
        if len(budgets) > 1:
            raise DataError(f"The runs on {data} saw {sorted(budgets)} images; give runs of equal budgets.")
        found: dict[str, Group] = {}
        for method, of_method in folders.items():
            groups = read_groups(of_method, SHOWN_WEIGHTS)
            if len(groups) > 1:
                names = "; ".join(group.name for group in groups)
                raise DataError(f"The runs of {method} on {data} differ in more than the seed: {names}.")
            if groups:
                found[method] = groups[0]
        return found

    def departures(self, data: str, method: str) -> list[str]:
        """Settings of a given run that are not those of its config file."""
        cells = [Cell(data, method, seed) for seed in self.request.seeds]
        given = next((cell for cell in cells if cell in self.request.given), None)
        if given is None:
            return []
        return differences(self.request.config(given), resolve(stored_settings(self.request.given[given])))

    def _cells(self) -> list[Cell]:
        """Seed by seed, so that an early end leaves all methods equally far."""
        request = self.request
        return [Cell(d, m, s) for d in request.sets for s in request.seeds for m in request.methods]

    def _is_trainable(self, data: str) -> bool:
        request = self.request
        cells = [cell for cell in self._cells() if cell.data == data and cell not in request.given]
        if not request.train or all(self._is_finished(cell) for cell in cells):
            return False
        config = request.config(cells[0])
        assert isinstance(config.data, ImageData)
        if self._by_features and "fid" not in config.evaluation.measures:  # type: ignore[union-attr]
            self.missing[data] = (
                f"FID needs Inception's weights; `docs/evaluation.md` says where they come from, {INCEPTION_FILE} "
                "where they lie"
            )
            return False
        try:
            open_prepared(config.data)
        except DataError as error:
            _log.warning("%s", error)
            self.missing[data] = f"not prepared: `{prepare_command(config.data)}`"
            return False
        return True

    def _is_finished(self, cell: Cell) -> bool:
        folder = self.request.folder(cell)
        file = folder / EVALUATION_FILE
        if not file.is_file():
            return False
        with reading(file, "remove it, and the run is evaluated anew"):
            result = json.loads(file.read_text())
            step, settings = result["step"], of_this_version(result["config"])
        # A run may have been evaluated by hand, and for one set of weights only.
        if SHOWN_WEIGHTS not in result:
            return False
        if cell in self.request.given:
            # It may have gone on since.
            return step >= _steps(folder)
        config, stored = self.request.config(cell), resolve(settings)
        if changed := differences(stored, config):
            raise ConfigError(
                f"{folder} holds a run with other settings ({'; '.join(changed)}); choose a new --workdir."
            )
        if self._by_features and not any(is_figure(name, "fid") for name in result[SHOWN_WEIGHTS]):
            return False
        return step >= config.training.steps and _is_measured(config, result)

    def _evaluate(self, cell: Cell, stop: StopRequest) -> None:
        folder = self.request.given[cell]
        run, steps = load_run(folder), _steps(folder)
        if run.step < steps:
            self.missing[str(cell)] = f"step {run.step:,} of {steps:,}"
        else:
            write_evaluation(run, poll=stop.poll)

    def _train(self, cell: Cell, stop: StopRequest) -> None:
        _log.info("%s", cell)
        try:
            run = train(self.request.config(cell), self.request.folder(cell), stop=stop)
            write_evaluation(run, poll=stop.poll)
        except (NotFiniteError, GameLostError) as error:
            _log.error("%s: %s", cell, error)
            lost = isinstance(error, GameLostError)
            self.missing[str(cell)] = "the game was lost" if lost else "training did not stay finite"
        except BusyError as error:
            _log.warning("%s: %s", cell, error)
            self.missing[str(cell)] = "another process trains it"


def _is_measured(config: Config, result: dict[str, Any]) -> bool:
    """Whether an evaluation has all that a config asks for, by the features, of as many images and against the
    reference that it says."""
    wanted = config.evaluation
    assert isinstance(wanted, ImageEvaluation)
    if not set(wanted.measures) <= set(result.get("measures", ())):
        return False
    if not set(wanted.measures) & set(BY_FEATURES):
        return True
    generation = result["protocol"]["generation"]
    # Where features depend on the batch, images that fill none are left out.
    left_out = wanted.samples % wanted.batch_size if generation["batch_statistics"] else 0
    if (generation["features"], generation["n_generated"]) != (wanted.features, wanted.samples - left_out):
        return False
    # The others were found to be of the training split when they were read.
    unchecked = generation["reference"].get("unchecked_file")
    return unchecked is None or unchecked == Path(wanted.reference_file).name


def read_records(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged, in order; a record has its "step". Those with "config" head what one process logged.

    Raises:
      DataError: if the run has no such file, or a damaged one.
    """
    path = folder / METRICS
    with reading(path, "give runs with their logs"):
        return [json.loads(line) for line in path.read_text().splitlines()]


def training_seconds(folder: Path) -> float:
    """How long a run trained, by its log: with compiling, checkpoints and evaluations on the way, without the last of
    these and without what was lost to interruptions."""
    seconds, step, batch_size = 0.0, 0.0, 0
    for record in read_records(folder):
        if "config" in record:
            batch_size = record["config"]["data"]["batch_size"]
        elif "images_per_second" in record:
            seconds += (record["step"] - step) * batch_size / record["images_per_second"]
        step = record["step"]
    return seconds


def _steps(folder: Path) -> int:
    """How many a given run is to have."""
    return stored_settings(folder)["training"]["steps"]


def images_seen(settings: dict[str, Any]) -> int:
    """How many images a run trains on, each as often as it comes."""
    return settings["training"]["steps"] * settings["data"]["batch_size"]
