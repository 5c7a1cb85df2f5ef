"""The pipeline against its alternatives, on the same files: `python -m asvae_jax benchmark-data`.

Every row feeds uint8 batches of the training resolution to the device in a shuffled order:

  prepared            this project's pipeline, from prepared records that are not held in memory
  JPEG                the same order and threads, each file decoded, cropped and resized when it is needed (Pillow)
  tf.data, JPEG       tf.data doing the same (antialiased resize)
  tf.data, TFRecord   tf.data on the very pixels of the prepared records, stored as TFRecord
"""

import dataclasses
import functools
import importlib.util
import io
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from asvae_jax.config import resolve_data
from asvae_jax.data.folder import image_files
from asvae_jax.data.images import BatchOrder, Images, ahead, read_batches
from asvae_jax.data.inspect import images_per_second
from asvae_jax.data.packaged import packaged_file
from asvae_jax.data.pixels import image_from_bytes
from asvae_jax.data.prepare import prepare
from asvae_jax.data.records import Split
from asvae_jax.errors import ConfigError
from asvae_jax.presets.image import image_data
from asvae_jax.provenance import commit, device_name, versions
from asvae_jax.settings import FolderData

# CelebA's files: their size and, in the mean, their 7 kB.
_MADE_SIZE, _MADE_QUALITY = (218, 178), 85


class _JpegFiles:
    """Images by index, decoded each time they are asked for."""

    def __init__(self, paths: list[Path], data: FolderData):
        self._paths, self._data = paths, data

    def __len__(self) -> int:
        return len(self._paths)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        decode = functools.partial(
            image_from_bytes, shape=self._data.shape, crop=self._data.crop, resize=self._data.resize
        )
        return np.stack([decode(self._paths[index].read_bytes()) for index in indices])


def benchmark(
    *,
    source: Path | None,
    shape: tuple[int, ...],
    images: int,
    batch_size: int,
    threads: Sequence[int],
    seconds: float,
) -> dict[str, Any]:
    """Prepares the JPEG files of `source` (or `images` of CelebA's size, cut from photographs) in a temporary folder
    and measures.

    Returns:
      Images/s of each row of the table, {row: {threads: rate}}; seconds and bytes of the preparation; and by how many
      MiB the process grew over the second epoch of reading, where the first had been the same (None where the system
      does not say).

    Raises:
      ConfigError: if there are fewer training images, or JPEG files, than one batch.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = source or _make_jpegs(Path(scratch, "jpeg"), images)
        values = image_data("image_folder", batch_size=batch_size, data_dir=f"{scratch}/data", shape=shape)
        data = resolve_data(values)
        assert isinstance(data, FolderData)
        began = time.perf_counter()
        prepared = prepare(data, manual_dir=folder)
        preparation = time.perf_counter() - began
        split = Split(data, "train")
        # Those that were prepared, and no others.
        names = [name for name in image_files(folder) if name not in prepared.metadata["unreadable"]]
        paths = [folder / name for name in names if name.lower().endswith((".jpg", ".jpeg"))]
        if (fewest := min(len(split), len(paths))) < batch_size:
            raise ConfigError(
                f"--batch-size {batch_size} is more than the {fewest} JPEG files to read from; lower it, or give more."
            )
        rates: dict[str, dict[int, float]] = {}
        for number in threads:
            setting = dataclasses.replace(data, read_threads=number)
            rows: dict[str, Iterator[Any]] = {
                "prepared": _fed(split, setting),
                "JPEG": _fed(_JpegFiles(paths, setting), setting),
            }
            if importlib.util.find_spec("tensorflow"):
                from asvae_jax.data import tf_data

                rows["tf.data, JPEG"] = tf_data.from_jpeg(paths, setting)
                rows["tf.data, TFRecord"] = tf_data.from_records(split, setting, Path(scratch, "pixels.tfrecord"))
            for name, batches in rows.items():
                rates.setdefault(name, {})[number] = images_per_second(batches, batch_size, seconds)
        return {
            "images": len(paths),
            "shape": shape,
            "batch_size": batch_size,
            "jpeg_bytes": sum(path.stat().st_size for path in paths),
            "prepared_bytes": prepared.bytes,
            "preparation_seconds": preparation,
            "images_per_second": rates,
            "growth_in_an_epoch_mib": _growth_in_an_epoch(split, data),
            "cpu_count": os.cpu_count(),
            "machine": platform.machine(),
            "device": device_name(),
            "versions": versions("grain", "array-record", "pillow", "tensorflow-cpu", "tensorflow"),
            "commit": commit(),
        }


def table(result: dict[str, Any]) -> str:
    """The rates as lines of text, one column for each number of threads."""
    threads = list(next(iter(result["images_per_second"].values())))
    lines = [f"{'images/s, threads:':<20}" + "".join(f"{number:>10}" for number in threads)]
    for name, rates in result["images_per_second"].items():
        lines.append(f"{name:<20}" + "".join(f"{rates[number]:>10,.0f}" for number in threads))
    if "tf.data, JPEG" not in result["images_per_second"]:
        lines.append("tf.data is not measured: pip install 'asvae_jax[tensorflow]'")
    per_second, growth = result["images"] / result["preparation_seconds"], result["growth_in_an_epoch_mib"]
    lines += [
        f"preparation         {result['preparation_seconds']:.1f} s ({per_second:,.0f} images/s), "
        f"{result['jpeg_bytes'] / 2**20:,.0f} MiB of JPEG -> {result['prepared_bytes'] / 2**20:,.0f} MiB",
        f"memory              {'unknown growth' if growth is None else f'{growth:+.1f} MiB'} over an epoch of "
        f"{result['images']:,} images of {'x'.join(map(str, result['shape']))}",
    ]
    return "\n".join(lines)


def _fed(images: Images, data: FolderData) -> Iterator[jax.Array]:
    order = BatchOrder(len(images), data.batch_size, seed=0)
    read = read_batches(images, order, first_step=0, group=1, threads=data.read_threads)
    return ahead(jax.device_put(batch) for batch in read)


def _growth_in_an_epoch(split: Split, data: FolderData) -> float | None:
    """MiB of resident memory that a second epoch adds to the first; None where the system does not say."""
    batches, epoch = _fed(split, data), len(split) // data.batch_size
    for _ in range(epoch):
        next(batches).block_until_ready()
    before = _resident_bytes()
    for _ in range(epoch):
        next(batches).block_until_ready()
    after = _resident_bytes()
    return None if before is None or after is None else (after - before) / 2**20


def _resident_bytes() -> int | None:
    """None where the system does not say, as macOS does not."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else None


def _make_jpegs(folder: Path, number: int) -> Path:
    """JPEG files of CelebA's size, cut from scikit-image's photographs."""
    names = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")
    photographs = [
        np.asarray(Image.open(packaged_file("skimage", "scikit-image", f"data/{n}")).convert("RGB")) for n in names
    ]
    random = np.random.default_rng(0)
    folder.mkdir()
    for i in range(number):
        photograph = photographs[i % len(photographs)]
        top, left = (
            int(random.integers(side - cut + 1)) for side, cut in zip(photograph.shape, _MADE_SIZE, strict=False)
        )
        piece = Image.fromarray(photograph[top : top + _MADE_SIZE[0], left : left + _MADE_SIZE[1]])
        buffer = io.BytesIO()
        piece.save(buffer, "jpeg", quality=_MADE_QUALITY)
        (folder / f"{i:06}.jpg").write_bytes(buffer.getvalue())
    return folder
