"""What the commands share: how they read their arguments and find their run."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asvae_jax.config import check_word, resolve_data
from asvae_jax.errors import ConfigError
from asvae_jax.files import make_writable
from asvae_jax.settings import IMAGE_SETS, SEED_LIMIT, ImageData

if TYPE_CHECKING:
    from asvae_jax.run import Run  # imports jax, which takes seconds: only in `load`


def add_run_arguments(command: argparse.ArgumentParser, *, reads_data: bool = True) -> None:
    """RUN, and where its data lie."""
    command.add_argument("run", metavar="RUN", help="a run's folder, its checkpoints folder, or one step within that")
    command.add_argument(
        "--step", type=step, default="latest", help="latest, best, or the number of a step (default: latest)"
    )
    command.set_defaults(data_dir=None)
    if reads_data:
        command.add_argument("--data-dir", help="where its data lie now (default: where they were in training)")


def load(arguments: argparse.Namespace) -> "Run":
    """The run, with its data where they lie now."""
    from asvae_jax.run import load_run

    run = load_run(arguments.run, arguments.step)
    if arguments.data_dir is None or run.config.is_toy:
        return run
    data = dataclasses.replace(run.config.data, data_dir=arguments.data_dir)
    return run._replace(config=dataclasses.replace(run.config, data=data))


def add_image_set_arguments(command: argparse.ArgumentParser) -> None:
    """NAME of an image set, and the settings that say which pixels it has."""
    command.add_argument("name", metavar="NAME", help=", ".join(IMAGE_SETS))
    command.add_argument("--data-dir", help="folder or bucket (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)")
    command.add_argument("--shape", type=shape, help="of image_folder: 128x128x3 (height, width, 1 or 3 channels)")
    command.add_argument("--label", help="of image_folder: tells several folders apart")
    command.add_argument("--crop", help="of photographs: none, square or centre148 (default: the config's)")
    command.add_argument("--resize", help="of photographs: box, bilinear, bicubic or lanczos (likewise)")
    command.add_argument("--partition", help="of CelebA: official or all (likewise)")


def image_data_of(arguments: argparse.Namespace) -> ImageData:
    """The usual data section of a set with what the command line changes in it."""
    from asvae_jax.presets.image import image_data

    check_word("NAME", arguments.name, IMAGE_SETS)
    settings = ("data_dir", "shape", "label", "crop", "resize", "partition", "batch_size", "read_threads")
    changes = {name: getattr(arguments, name, None) for name in settings}
    given = {name: value for name, value in changes.items() if value is not None}
    return resolve_data({**image_data(arguments.name, batch_size=1), **given})


def checked_out(path: Path, *suffixes: str) -> Path:
    """A file to write, where there is a folder for it.

    Raises:
      ConfigError: for another suffix, or if there is no such folder.
      StorageError: if the folder cannot be written to.
    """
    if path.suffix not in suffixes:
        raise ConfigError(f"{path.name} must end in {' or '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; make it first, or give another --out.")
    make_writable(path.parent)
    return path


def shape(text: str) -> tuple[int, ...]:
    """An argument like 128x128x3."""
    try:
        return tuple(int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 128x128x3, got {text}") from None


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def seed(text: str) -> int:
    """An argument that starts a random generator."""
    if not text.isdecimal() or int(text) >= SEED_LIMIT:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {SEED_LIMIT - 1}, got {text}")
    return int(text)


class Once(argparse.Action):
    """Keeps each of several values once, in the order given."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, list(dict.fromkeys(values)))


def step(text: str) -> int | Literal["latest", "best"]:
    """An argument that chooses a checkpoint."""
    words: dict[str, Literal["latest", "best"]] = {"latest": "latest", "best": "best"}
    if text in words:
        return words[text]
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be latest, best or a number, got {text}")
    return int(text)
