"""Runs on image sets as cells of a table: which are wanted, which are there already, and the training of the others.

A cell is a run in a folder of its own. One that is finished and evaluated is read, one that was interrupted goes on.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from asvae_jax.comparison import Group, read_groups
from asvae_jax.config import load_file, of_this_version, resolve
from asvae_jax.continuation import differences
from asvae_jax.data.prepare import open_prepared, prepare_command
from asvae_jax.errors import ConfigError, DataError, NotFiniteError
from asvae_jax.evaluation import EVALUATION_FILE, write_evaluation
from asvae_jax.presets import INCEPTION_FILE, READINGS, usual_file, variant_of
from asvae_jax.run import Weights, load_run
from asvae_jax.settings import BY_FEATURES, Config, ImageData, ImageEvaluation
from asvae_jax.train import train

_log = logging.getLogger(__name__)

SETS = ("digits", "mnist5k", "faces25", "photos32", "mnist", "cifar10", "oxford_buildings", "celeba128", "celeba256")
"""Those that a table is made of unless told otherwise: some that need no download, then the paper's own."""

PAPERS_SETS = ("mnist", "cifar10", "oxford_buildings", "celeba128", "celeba256")

METHODS = ("wgan_gp", "vae", "introvae", "sintrovae", *(f"asintrovae,{reading}" for reading in READINGS))
"""In the order of the paper's tables."""


def has_encoder(method: str) -> bool:
    """Whether images have codes by a method, given as its config's words."""
    return method.partition(",")[0] != "wgan_gp"


SEEDS = (0, 1, 2)
"""Of every cell, unless told otherwise."""

WEIGHTS: Weights = "ema"
"""Which all tables and figures are of."""

# How often a run is evaluated on its way: the points of a curve.
_CURVE_POINTS = 10


class Cell(NamedTuple):
    """One run.

    Fields:
      data: an image set.
      method: words of its config: "sintrovae", "asintrovae,released".
      seed: of the run.
    """

    data: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data} {self.method} seed {self.seed}"


class Request(NamedTuple):
    """What a table or a figure is to be made of.

    Fields:
      sets, methods, seeds: a cell for each combination of these.
      steps: of every run; None for those of each config file.
      configs: the folder of the config files.
      workdir: the folder that holds the cells' own.
      given: finished runs that lie elsewhere, by the cell that each stands for.
      train: whether cells that are not there are trained.
    """

    sets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int | None
    configs: Path
    workdir: Path
    given: dict[Cell, Path]
    train: bool

    def config(self, cell: Cell) -> Config:
        """The settings of a cell that is trained here."""
        file = self.configs / f"{cell.data}.py"
        if not file.is_file():
            raise ConfigError(
                f"There is no {file}; run this in a checkout, or say with --configs where its configs are."
            )
        config = load_file(f"{file}:{cell.method}")
        config.seed = cell.seed
        if self.steps:
            _set_steps(config, self.steps)
        _set_measures(config)
        return resolve(config)

    def folder(self, cell: Cell) -> Path:
        """Where the run of a cell lies, or is to lie."""
        if cell in self.given:
            return self.given[cell]
        steps = self.config(cell).training.steps
        return self.workdir.absolute() / cell.data / f"{cell.method.replace(',', '-')}-t{steps}-s{cell.seed}"


def make_request(
    *,
    sets: Sequence[str] | None,
    methods: Sequence[str] | None,
    seeds: Sequence[int] | None,
    steps: int | None,
    configs: Path,
    workdir: Path,
    runs: Sequence[Path],
    default_sets: Sequence[str],
    default_methods: Sequence[str],
    default_seeds: Sequence[int],
    needs_encoder: bool,
) -> Request:
    """A request with what is left open filled in: by what the runs that are given have, else by the defaults.

    Given runs alone ask for no training; given runs and `sets` ask for what they lack of these.

    Raises:
      DataError: if a folder is no run on images, or two runs stand for one cell.
      ConfigError: if two of `methods` are one, or one has no encoder where `needs_encoder`.
    """
    given: dict[Cell, Path] = {}
    given_steps = set()
    for folder in runs:
        settings = _stored_settings(folder)
        cell = Cell(settings["data"]["name"], variant_of(settings["method"]), settings["seed"])
        if cell in given:
            raise DataError(f"{given[cell]} and {folder} are both {cell}; give one of them.")
        given[cell] = folder
        given_steps.add(settings["training"]["steps"])
    request = Request(
        sets=tuple(sets or _in_order((cell.data for cell in given), SETS) or default_sets),
        methods=tuple(methods or _of_given(given, default_methods) or default_methods),
        seeds=tuple(seeds or sorted({cell.seed for cell in given}) or default_seeds),
        steps=steps,
        configs=configs,
        workdir=workdir,
        given=given,
        train=bool(sets) or not given,
    )
    _check_methods(request, needs_encoder)
    if steps is None and len(given_steps) == 1:
        # Only worth a word where it is not the config's own.
        usual = {request.config(cell).training.steps for cell in given}
        return request if usual == given_steps else request._replace(steps=given_steps.pop())
    return request


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
        """
        for cell in self._cells():
            if self._is_finished(cell):
                continue
            if cell in self.request.given:
                self._evaluate(cell)
            elif cell.data in self._trainable:
                self._train(cell)
            elif not self.request.train:
                self.missing[str(cell)] = "not among the runs given"
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
        everything = read_groups([folder for of_method in folders.values() for folder in of_method], WEIGHTS)
        budgets = {_images(group.results[0]["config"]) for group in everything}
        if len(budgets) > 1:
            raise DataError(f"The runs on {data} saw {sorted(budgets)} images; give runs of equal budgets.")
        found: dict[str, Group] = {}
        for method, of_method in folders.items():
            groups = read_groups(of_method, WEIGHTS)
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
        return differences(self.request.config(given), resolve(_stored_settings(self.request.given[given])))

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
        try:
            result = json.loads(file.read_text())
        except ValueError as error:
            raise DataError(f"{file} cannot be read ({error}); remove it and the run is evaluated anew.") from error
        # A run may have been evaluated by hand, and for one set of weights only.
        if WEIGHTS not in result:
            return False
        if cell in self.request.given:
            # It may have gone on since.
            return result["step"] >= _steps(folder)
        config, stored = self.request.config(cell), resolve(of_this_version(result["config"]))
        if changed := differences(stored, config):
            raise ConfigError(
                f"{folder} holds a run with other settings ({'; '.join(changed)}); choose a new --workdir."
            )
        if self._by_features and not any(name.startswith("fid") for name in result[WEIGHTS]):
            return False
        return result["step"] >= config.training.steps and _is_measured(config, result)

    def _evaluate(self, cell: Cell) -> None:
        folder = self.request.given[cell]
        run, steps = load_run(folder), _steps(folder)
        if run.step < steps:
            self.missing[str(cell)] = f"step {run.step:,} of {steps:,}"
        else:
            write_evaluation(run)

    def _train(self, cell: Cell) -> None:
        _log.info("%s", cell)
        try:
            write_evaluation(train(self.request.config(cell), self.request.folder(cell)))
        except NotFiniteError as error:
            _log.error("%s: %s", cell, error)
            self.missing[str(cell)] = "training did not stay finite"


def _is_measured(config: Config, result: dict[str, Any]) -> bool:
    """Whether an evaluation has all that a config asks for, by the features and of as many images as it says."""
    wanted = config.evaluation
    assert isinstance(wanted, ImageEvaluation)
    if not set(wanted.measures) <= set(result.get("measures", ())):
        return False
    if not set(wanted.measures) & set(BY_FEATURES):
        return True
    generation = result["protocol"]["generation"]
    return (generation["features"], generation["n_generated"]) == (wanted.features, wanted.samples)


def title(method: str) -> str:
    """A method as people write it."""
    name, _, rest = method.partition(",")
    names = {"wgan_gp": "WGAN-GP", "vae": "VAE", "introvae": "IntroVAE", "sintrovae": "S-IntroVAE"}
    return names.get(name, "AS-IntroVAE") + (f" ({rest.replace(',', ', ')})" if rest else "")


def read_records(folder: Path) -> list[dict[str, float]]:
    """What a run has logged, in order; a record has its "step". Those with "config" head what one process logged.

    Raises:
      DataError: if the run has no such file.
    """
    path = folder / "metrics.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); give runs with their logs.") from error


def training_seconds(folder: Path) -> float:
    """How long a run trained, by its log: with compiling, checkpoints and evaluations on the way, without the last of
    these and without what was lost to interruptions."""
    seconds, step, batch_size = 0.0, 0.0, 0
    for record in read_records(folder):
        if "config" in record:
            batch_size = record["config"]["data"]["batch_size"]  # type: ignore[index]
        elif "images_per_second" in record:
            seconds += (record["step"] - step) * batch_size / record["images_per_second"]
        step = record["step"]
    return seconds


def _check_methods(request: Request, needs_encoder: bool) -> None:
    """Raises a ConfigError if a method has nothing to show, or if two that are to be trained have the same settings."""
    for method in request.methods:
        if needs_encoder and not has_encoder(method):
            raise ConfigError(f"This is made by way of codes, and {method} has no encoder; leave it out.")
    if not request.train:
        return
    known: dict[Config, str] = {}
    for method in request.methods:
        config = request.config(Cell(request.sets[0], method, request.seeds[0]))
        if config in known:
            raise ConfigError(f"--methods {known[config]} and {method} are the same; give one of them.")
        known[config] = method


def _set_steps(config: ConfigDict, steps: int) -> None:
    """Another length of training, with what happens on the way at the same share of it."""
    share = steps / config.training.steps
    config.optimizer.milestone_steps = tuple(round(share * step) for step in config.optimizer.milestone_steps)
    config.training.warmup_steps = round(share * config.training.warmup_steps)
    # So that a short run has a curve too, and a long one loses no more to an interruption.
    config.checkpoint.every_steps = max(1, round(min(1, share) * config.checkpoint.every_steps))
    config.training.steps = steps


def _set_measures(config: ConfigDict) -> None:
    """All measures that can be had, and those that are cheap on the way, too."""
    evaluation, inception = config.evaluation, usual_file("inception")
    if inception and (evaluation.features == "inception" or config.data.name in PAPERS_SETS):
        evaluation.update(features="inception", features_file=inception)
        evaluation.measures = ("reconstruction", "codes", *BY_FEATURES)
    if evaluation.features == "digits" or "fid" not in evaluation.measures:
        every = config.checkpoint.every_steps
        evaluation.every_steps = every * max(1, config.training.steps // (_CURVE_POINTS * every))


def _stored_settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        settings = of_this_version(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} is no run ({error}); --runs takes the folders of finished runs.") from error
    if not isinstance(resolve(settings).data, ImageData):
        raise DataError(f"{folder} is a run on {settings['data']['name']}, which has no images.")
    return settings


def _steps(folder: Path) -> int:
    """How many a given run is to have."""
    return _stored_settings(folder)["training"]["steps"]


def _images(settings: dict[str, Any]) -> int:
    """How many a run sees."""
    return settings["training"]["steps"] * settings["data"]["batch_size"]


def _of_given(given: Iterable[Cell], wanted: Iterable[str]) -> list[str]:
    """The methods of given runs that a table has a row for, and all that have no name of their own."""
    found = {cell.method for cell in given}
    return [method for method in _in_order(found, METHODS) if method in wanted or method not in METHODS]


def _in_order(words: Iterable[str], order: Sequence[str]) -> list[str]:
    """Each once: first those of `order`, then the others."""
    found = set(words)
    return [word for word in order if word in found] + sorted(found - set(order))
