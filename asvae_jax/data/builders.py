"""The base class of our TFDS builders: images of the training resolution, as plain pixels in ArrayRecord files.

TFDS keeps the folders, the metadata and the promise that a set is there whole or not at all. We write without
compression, so that reading is copying, and shard by shard, so that memory and disk hold nothing twice. None of it
needs TensorFlow.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import PIL
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from asvae_jax.data.pixels import UnreadableImageError, image_from_bytes
from asvae_jax.data.sources import SourceFile, find_files
from asvae_jax.errors import DataError, first_line
from asvae_jax.settings import ImageData, PhotographData

_log = logging.getLogger(__name__)

_SHARD_BYTES = 128 << 20
_CHUNK = 64
_LOG_SECONDS = 10
_HOLD_OUT = 0.1

# Settings that decide the pixels of a prepared set, and so its folder; the others act in training alone.
_DECISIVE = ("crop", "resize", "partition", "label")


class Example(NamedTuple):
    """One image on its way: pixels as they are to be stored, or an image file or its bytes; a label or a file name."""

    image: np.ndarray | bytes | Path
    tag: int | str


class Examples(NamedTuple):
    """A split: how many examples, and the examples, in an order that never changes; asked for once."""

    number: int
    examples: Iterable[Example]


@dataclasses.dataclass(eq=False, kw_only=True)
class Recipe(tfds.core.BuilderConfig):
    """What a set is prepared with; `name` says all of it that decides the pixels."""

    data: ImageData
    manual_dir: Path
    refuse_unreadable: bool

    @classmethod
    def of(cls, data: ImageData, manual_dir: Path, refuse_unreadable: bool) -> "Recipe":
        decisive = [getattr(data, setting) for setting in _DECISIVE if hasattr(data, setting)]
        name = "-".join(["x".join(map(str, data.shape)), *decisive])
        return cls(name=name, data=data, manual_dir=manual_dir, refuse_unreadable=refuse_unreadable)


class _PlainWriter(tfds.core.ExampleWriter):
    """Records without compression, each of which can be read alone."""

    def write(self, path, examples) -> None:
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")
        for _, example in examples:
            with _os_errors():
                writer.write(example)
        with _os_errors():
            writer.close()


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """ArrayRecord says RuntimeError where the disk is full."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(error) from error


class PreparedImages(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Features `image`, uint8 [H, W, C], and `label` (with CLASSES) or `file`."""

    VERSION = tfds.core.Version("2.0.0")

    FILES: ClassVar[tuple[SourceFile, ...]] = ()
    """What it is made from; empty for sets that come with a package."""
    HOMEPAGE: ClassVar[str] = ""
    EXPECTED: ClassVar[Mapping[str, int]] = {}
    CLASSES: ClassVar[int] = 0
    NOTE: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        # Out of TFDS's own registry, whose names ours must not take.
        super().__init_subclass__(skip_registration=True)  # type: ignore[call-arg]

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        """The examples of each split, from FILES as they were found (for an image folder: from the folder)."""
        raise NotImplementedError

    def expected(self) -> Mapping[str, int]:
        """Images of each split of the published set; empty where nothing is published."""
        return self.EXPECTED

    def note(self) -> str:
        """What a user of the set should know."""
        return self.NOTE

    def source(self) -> str:
        """The folder of the user's own images; empty for a set that is published."""
        return ""

    @property
    def data(self) -> ImageData:
        return self.builder_config.data

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=self.data.shape, dtype=np.uint8, encoding="bytes")
        tag: dict[str, Any] = {"file": tfds.features.Text()}
        if self.CLASSES:
            tag = {"label": tfds.features.ClassLabel(num_classes=self.CLASSES)}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict({"image": image, **tag}),
            metadata=tfds.core.MetadataDict(),
        )

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _PlainWriter(self.info.file_format)

    def _shard_iterators_per_split(self, dl_manager):
        self._unreadable: list[str] = []
        folder = self.builder_config.manual_dir
        splits = self.splits(find_files(self.FILES, folder, self.HOMEPAGE) if self.FILES else [folder])
        return {name: self._shards(name, examples) for name, examples in splits.items()}

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        for name, split in self.info.splits.items():
            if not split.num_examples:
                raise DataError(f"{self.data.name} has no readable image for its {name} split.")
        self.info.metadata.update(
            expected=dict(self.expected()),
            unreadable=self._unreadable,
            note=self.note(),
            source=self.source(),
            pillow=PIL.__version__,
        )

    def _shards(self, split: str, examples: Examples) -> list[Callable[[], Iterator[tuple[int, dict[str, Any]]]]]:
        per_shard = max(1, _SHARD_BYTES // int(np.prod(self.data.shape)))
        source = iter(examples.examples)
        progress = _Progress(f"{self.data.name} {split}", examples.number)
        shards = max(1, -(-examples.number // per_shard))
        return [lambda: self._shard(itertools.islice(source, per_shard), progress) for _ in range(shards)]

    def _shard(self, examples: Iterator[Example], progress: "_Progress") -> Iterator[tuple[int, dict[str, Any]]]:
        tag = "label" if self.CLASSES else "file"
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while chunk := list(itertools.islice(examples, _CHUNK)):
                for example, image in zip(chunk, pool.map(self._image_or_error, chunk), strict=True):
                    progress.count()
                    if isinstance(image, UnreadableImageError):
                        self._pass_over(example, image)
                    else:
                        yield progress.done, {"image": image, tag: example.tag}

    def _image_or_error(self, example: Example) -> np.ndarray | UnreadableImageError:
        if isinstance(example.image, np.ndarray):
            return example.image
        assert isinstance(self.data, PhotographData)
        try:
            encoded = example.image.read_bytes() if isinstance(example.image, Path) else example.image
            return image_from_bytes(encoded, self.data.shape, crop=self.data.crop, resize=self.data.resize)
        except UnreadableImageError as error:
            return error
        except OSError as error:
            return UnreadableImageError(first_line(error))

    def _pass_over(self, example: Example, error: UnreadableImageError) -> None:
        if self.builder_config.refuse_unreadable:
            raise DataError(
                f"{example.tag} cannot be read: {error}. Mend or remove it, or prepare with --unreadable=skip."
            )
        _log.warning("Skipping %s: %s", example.tag, error)
        self._unreadable.append(str(example.tag))


class _Progress:
    """A line every few seconds."""

    def __init__(self, what: str, total: int):
        self._what, self._total, self.done = what, total, 0
        self._next = time.monotonic() + _LOG_SECONDS

    def count(self) -> None:
        self.done += 1
        if time.monotonic() >= self._next:
            _log.info("%s: %s of %s images", self._what, f"{self.done:,}", f"{self._total:,}")
            self._next = time.monotonic() + _LOG_SECONDS


def held_out(names: Iterable[str]) -> set[str]:
    """A tenth of the names, at least one, chosen by their digests: fixed, and hardly changed by files that come or
    go."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    return set(ordered[: max(1, round(_HOLD_OUT * len(ordered)))])
