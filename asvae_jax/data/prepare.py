"""From a data section to a prepared set on disk: prepared once, checked whenever it is opened, fetched from a bucket
if it lies in one."""

import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from etils import epath

from asvae_jax.data.builders import PreparedImages, Recipe
from asvae_jax.data.folder import ImageFolder
from asvae_jax.data.packaged import Digits, Faces25, Mnist5k, Photos
from asvae_jax.data.published import CelebA, CelebAHQ, Cifar10, Mnist, OxfordBuildings
from asvae_jax.errors import DataError, StorageError, first_line
from asvae_jax.files import gib, held
from asvae_jax.settings import IMAGE_SETS, ImageData

_log = logging.getLogger(__name__)

BUILDERS: dict[str, type[PreparedImages]] = {
    "digits": Digits, "mnist5k": Mnist5k, "faces25": Faces25,
    "photos32": Photos, "photos64": Photos, "photos128": Photos,
    "mnist": Mnist, "cifar10": Cifar10, "oxford_buildings": OxfordBuildings,
    "celeba128": CelebA, "celeba256": CelebA, "celebahq1024": CelebAHQ, "image_folder": ImageFolder,
}  # fmt: skip
assert BUILDERS.keys() == IMAGE_SETS.keys()

# Sets that come with a package are made at first use; all others wait for `prepare`.
AT_FIRST_USE = ("digits", "mnist5k", "faces25", "photos32", "photos64", "photos128")

_FORMAT = "array_record"
_INFO = "dataset_info.json"


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """A whole set on a local disk: its shards and number of images by split, and the facts kept beside it."""

    folder: Path
    shards: dict[str, list[Path]]
    sizes: dict[str, int]
    metadata: dict[str, Any]

    @property
    def bytes(self) -> int:
        """What it takes of the disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


def open_prepared(data: ImageData) -> PreparedSet:
    """The set of a data section, checked to be whole; one that lies in a bucket is copied to this machine first, one
    that comes with a package is prepared.

    Raises:
      DataError: if it is not prepared (with the command that does it), damaged, or in another format.
      StorageError: if there is no room for it.
    """
    builder = make_builder(data)
    if not _is_there(builder) and _is_bucket(data.data_dir):
        _fetch(builder, data)
    if not _is_there(builder) and data.name in AT_FIRST_USE:
        _build(builder)
    if not _is_there(builder):
        others = _other_recipes(builder)
        raise DataError(
            f"{data.name} is not prepared under {data.data_dir} as the settings want it "
            f"({builder.builder_config.name}{others}). Run: {prepare_command(data)}"
        )
    return _opened(builder, data)


def prepare(data: ImageData, *, manual_dir: Path | None = None, refuse_unreadable: bool = False) -> PreparedSet:
    """Prepares a set, unless it is there already.

    Args:
      data: what is wanted, and where.
      manual_dir: where files that were downloaded by hand lie, or the folder of images; TFDS's own place for them,
        downloads/manual under the data folder, if not given.
      refuse_unreadable: stop at a file that cannot be read, instead of passing it over and keeping its name.

    Raises:
      DataError: if files are missing, damaged or not the published ones, each named with what to do.
      StorageError: if the disk is full or cannot be written; nothing that was there is lost.
    """
    builder = make_builder(data, manual_dir, refuse_unreadable)
    if not _is_there(builder) and _is_bucket(data.data_dir):
        _fetch(builder, data)
    if _is_there(builder):
        _log.info("%s is prepared already; to prepare it anew, remove %s", data.name, builder.data_path)
    else:
        _build(builder)
    prepared = _opened(builder, data)
    # Sets of older versions do not say, or have a path with links and dots in it.
    source = prepared.metadata.get("source")
    if manual_dir and source and str(Path(source).resolve()) != builder.source():
        raise DataError(
            f"{prepared.folder} holds the images of {source}, not of {manual_dir}; give these a --label of their own, "
            "or remove that."
        )
    if _is_bucket(data.data_dir):
        _push(builder, data)
    return prepared


def default_manual_dir(data: ImageData) -> Path:
    """Where TFDS looks for files that were downloaded by hand."""
    return local_data_dir(data.data_dir) / "downloads" / "manual"


def prepare_command(data: ImageData) -> str:
    """The command line that prepares exactly this."""
    from asvae_jax.presets.image import image_data

    usual = image_data(data.name)
    words = [f"python -m asvae_jax prepare {data.name}"]
    if data.name == "image_folder":
        words.append("--manual-dir FOLDER")
    if data.shape != usual["shape"]:
        words.append(f"--shape {'x'.join(map(str, data.shape))}")
    words += [
        f"--{setting} {getattr(data, setting)}"
        for setting in ("crop", "resize", "partition", "label")
        if hasattr(data, setting) and getattr(data, setting) != usual[setting]
    ]
    if data.data_dir != usual["data_dir"]:
        words.append(f"--data-dir {shlex.quote(data.data_dir)}")
    return " ".join(words)


def make_builder(data: ImageData, manual_dir: Path | None = None, refuse_unreadable: bool = False) -> PreparedImages:
    """The TFDS builder of a data section, on the local disk."""
    recipe = Recipe.of(data, manual_dir or default_manual_dir(data), refuse_unreadable)
    builder, place = BUILDERS[data.name], local_data_dir(data.data_dir)
    folder = place / builder.name / recipe.name / str(builder.VERSION)
    if (folder / _INFO).is_file():
        # TFDS reads what is there when it makes a builder, and has many words for what it does not like.
        _checked_metadata(folder, data)
    return builder(config=recipe, data_dir=place, file_format=_FORMAT)


def _checked_metadata(folder: Path, data: ImageData) -> dict[str, Any]:
    """What metadata.json says, after a look at TFDS's own file beside it."""
    try:
        info = json.loads((folder / _INFO).read_text())
        metadata = json.loads((folder / "metadata.json").read_text())
        written = info["fileFormat"]
        if written == _FORMAT and not {"train", "test"} <= {split["name"] for split in info["splits"]}:
            raise ValueError("no splits")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} has damaged metadata. {remedy(folder, data)}") from error
    if written != _FORMAT:
        raise DataError(
            f"{folder} is in the format {written}, and training reads {_FORMAT} alone. {remedy(folder, data)}"
        )
    return metadata


def remedy(folder: Path, data: ImageData) -> str:
    """What to do about a set that is not whole."""
    return f"Remove {folder} and run: {prepare_command(data)}"


def local_data_dir(data_dir: str) -> Path:
    """`data_dir` itself, or the place on this machine that stands for a bucket."""
    if not _is_bucket(data_dir):
        return Path(data_dir).expanduser().absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return cache / "asvae_jax" / "data" / re.sub(r"\W+", "_", data_dir)


def _is_bucket(data_dir: str) -> bool:
    return "://" in data_dir


def _is_there(builder: PreparedImages) -> bool:
    return Path(builder.data_path, _INFO).is_file()


def _other_recipes(builder: PreparedImages) -> str:
    folder = Path(builder.data_path).parents[1]
    found = sorted(path.parents[1].name for path in folder.glob(f"*/*/{_INFO}"))
    return f"; there is {', '.join(found)}" if found else ""


def _opened(builder: PreparedImages, data: ImageData) -> PreparedSet:
    """Checks a set without reading its pixels."""
    folder = Path(builder.data_path)
    advice, metadata = remedy(folder, data), _checked_metadata(folder, data)
    builder.info.read_from_directory(folder)
    shards = {name: [Path(path) for path in split.filepaths] for name, split in builder.info.splits.items()}
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    for name, paths in shards.items():
        if missing := [path.name for path in paths if not path.is_file()]:
            raise DataError(f"{folder} lacks {missing[0]}. {advice}")
        try:
            stored = len(ArrayRecordDataSource(paths))
        except (ValueError, RuntimeError, OSError) as error:
            raise DataError(
                f"{folder} has a shard that is no whole {_FORMAT} file ({first_line(error)}). {advice}"
            ) from error
        if stored != sizes[name]:
            raise DataError(f"{folder} holds {stored:,} {name} images instead of {sizes[name]:,}. {advice}")
    return PreparedSet(folder, shards, sizes, metadata)


def _build(builder: PreparedImages) -> None:
    """`download_and_prepare` by one process at a time, with the errors of a full disk made into ours."""
    folder, data = Path(builder.data_path), builder.data
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.parent):
            if _is_there(builder):
                return
            _clear(folder.parent)
            if folder.exists():
                raise DataError(f"{folder} is there without {_INFO}: no whole set. Remove it and try again.")
            _require_room(builder, folder.parent)
            _log.info("Preparing %s in %s", data.name, folder)
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints that it knows no sizes
                builder.download_and_prepare()
    except OSError as error:
        raise StorageError(
            f"{data.name} cannot be prepared in {folder}: {first_line(error)}. See to space and "
            "rights, then run the same command again; nothing is left behind."
        ) from error


def _clear(folder: Path) -> None:
    """Removes what a process that was killed has left of a set."""
    for left_over in folder.glob("incomplete.*"):
        shutil.rmtree(left_over)


def _alone(folder: Path) -> contextlib.AbstractContextManager[None]:
    """One process at a time; the others wait and find the work done."""
    return held(folder / ".lock")


def _needed(builder: PreparedImages) -> int:
    """Bytes of the whole published set; 0 where its size is not known."""
    return math.prod(builder.data.shape) * sum(builder.expected().values())


def _require_room(builder: PreparedImages, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if builder.FILES and free < _needed(builder):
        raise StorageError(
            f"{builder.data.name} needs {gib(_needed(builder))} in {folder}, where {gib(free)} are free. "
            "Make room or choose another --data-dir."
        )


def _fetch(builder: PreparedImages, data: ImageData) -> None:
    """Copies a set from its bucket to this machine, if it is there."""
    local = Path(builder.data_path)
    with _bucket_errors(data):
        remote = _in_bucket(local, data)
        if not (remote / _INFO).exists():
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        with _alone(local.parent):
            if _is_there(builder):
                return
            _clear(local.parent)
            files = list(remote.iterdir())
            needed, free = sum(file.stat().length for file in files), shutil.disk_usage(local.parent).free
            if free < needed:
                raise StorageError(
                    f"{remote} takes {gib(needed)}, and {gib(free)} are free in {local.parent}. Make room or set "
                    "XDG_CACHE_HOME to a folder on a larger disk."
                )
            _log.info("Copying %s to %s", remote, local)
            fresh = local.with_name(f"incomplete.{uuid.uuid4().hex}")
            fresh.mkdir()
            try:
                for file in files:
                    file.copy(fresh / file.name)
                fresh.rename(local)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)


def _push(builder: PreparedImages, data: ImageData) -> None:
    """Copies a set to its bucket, unless it is there: last of all the file that says that it is whole."""
    local = Path(builder.data_path)
    with _bucket_errors(data):
        remote = _in_bucket(local, data)
        if (remote / _INFO).exists():
            return
        _log.info("Copying %s to %s", local, remote)
        remote.mkdir(parents=True, exist_ok=True)
        for file in sorted(local.iterdir(), key=lambda path: path.name == _INFO):
            epath.Path(file).copy(remote / file.name, overwrite=True)


def _in_bucket(local: Path, data: ImageData) -> epath.Path:
    return epath.Path(data.data_dir) / local.relative_to(local_data_dir(data.data_dir)).as_posix()


@contextlib.contextmanager
def _bucket_errors(data: ImageData) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DataError(
            f"{data.data_dir} needs a package that is not installed ({error}): pip install gcsfs for gs://, s3fs for "
            "s3://."
        ) from error
    except StorageError:
        raise
    except Exception as error:  # every kind of bucket has its own
        raise StorageError(
            f"{data.data_dir} cannot be used: {first_line(error)}. See to address and rights."
        ) from error
