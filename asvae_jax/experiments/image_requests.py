"""What tables and figures of image sets are made of: cells, each a set, a method and a seed, and their settings."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from asvae_jax.config import load_file, of_this_version, resolve
from asvae_jax.errors import ConfigError, DataError
from asvae_jax.files import reading
from asvae_jax.presets.image import usual_file
from asvae_jax.presets.variants import READINGS, variant_of
from asvae_jax.settings import BY_FEATURES, Config, ImageData

SETS = ("digits", "mnist5k", "faces25", "photos32", "mnist", "cifar10", "oxford_buildings", "celeba128", "celeba256")
"""Those that a table is made of unless told otherwise: some that need no download, then the paper's own."""

PAPERS_SETS = ("mnist", "cifar10", "oxford_buildings", "celeba128", "celeba256")

METHODS = ("wgan_gp", "vae", "introvae", "sintrovae", *(f"asintrovae,{reading}" for reading in READINGS))
"""In the order of the paper's tables."""

SEEDS = (0, 1, 2)
"""Of every cell, unless told otherwise."""

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
        settings = stored_settings(folder)
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


def has_encoder(method: str) -> bool:
    """Whether images have codes by a method, given as its config's words."""
    return method.partition(",")[0] != "wgan_gp"


def title(method: str) -> str:
    """A method as people write it."""
    name, _, rest = method.partition(",")
    names = {"wgan_gp": "WGAN-GP", "vae": "VAE", "introvae": "IntroVAE", "sintrovae": "S-IntroVAE"}
    return names.get(name, "AS-IntroVAE") + (f" ({rest.replace(',', ', ')})" if rest else "")


def stored_settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    with reading(path, "--runs takes the folders of finished runs"):
        settings = of_this_version(json.loads(path.read_text()))
    if not isinstance(resolve(settings).data, ImageData):
        raise DataError(f"{folder} is a run on {settings['data']['name']}, which has no images.")
    return settings


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
    milestones = dict.fromkeys(round(share * step) for step in config.optimizer.milestone_steps)
    config.optimizer.milestone_steps = tuple(step for step in milestones if 0 < step < steps)
    config.training.warmup_steps = round(share * config.training.warmup_steps)
    # An average over a share of the images, which that of a fixed number of steps is not.
    if config.ema.ramp_up:
        config.ema.half_life_images *= share
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


def _of_given(given: Iterable[Cell], wanted: Iterable[str]) -> list[str]:
    """The methods of given runs that a table has a row for, and all that have no name of their own."""
    found = {cell.method for cell in given}
    return [method for method in _in_order(found, METHODS) if method in wanted or method not in METHODS]


def _in_order(words: Iterable[str], order: Sequence[str]) -> list[str]:
    """Each once: first those of `order`, then the others."""
    found = set(words)
    return [word for word in order if word in found] + sorted(found - set(order))
