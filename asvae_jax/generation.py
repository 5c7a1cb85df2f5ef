"""Generated images against real ones, by the features that a network sees in them: FID, KID, precision and recall.

Features are streamed: what is kept of them is sums, and at most 10,000 of the features themselves for the measures that
compare images one by one. All processes of a job share the images, and each holds the same result.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from asvae_jax.data.images import ahead, padded_batches
from asvae_jax.distributed import local_mesh, over_batch, replicated, rows_of_all_processes, sum_over_processes
from asvae_jax.errors import DataError
from asvae_jax.features.networks import FeatureNetwork, figure_name
from asvae_jax.metrics import intervals
from asvae_jax.metrics.frechet import Moments, frechet_distance, frechet_distances, kernel_distance
from asvae_jax.metrics.intervals import Interval
from asvae_jax.metrics.manifold import neighbourhoods
from asvae_jax.settings import FEWEST_IMAGES, CelebAData, ImageData, PhotographData

KEPT = 10_000
# Generated images are summed in so many parts, of which each is left out in turn to see how far the result moves.
_BLOCKS = 10
_ORDER_SEED = 0

Poll = Callable[[], None]
"""Called between batches; raises to stop."""


class FeatureStatistics(NamedTuple):
    """What is known of a set of images: sums in equal blocks, and the features [n, D] of a random part of them."""

    blocks: list[Moments]
    kept: np.ndarray

    @property
    def number(self) -> int:
        return sum(block.number for block in self.blocks)

    def whole(self) -> Moments:
        """The sums over all images."""
        return sum(self.blocks[1:], self.blocks[0])


class Reference(NamedTuple):
    """What generated images are compared with. `kept` is empty and `number` 0 for statistics of another program, which
    say neither."""

    mean: np.ndarray
    covariance: np.ndarray
    number: int
    kept: np.ndarray
    about: dict[str, Any]


def feature_statistics(
    network: FeatureNetwork,
    images: Callable[[np.ndarray], np.typing.ArrayLike],
    count: int,
    batch_size: int,
    *,
    blocks: int = 1,
    poll: Poll = lambda: None,
) -> FeatureStatistics:
    """Streams images through a network, each process its share of them.

    Args:
      network: whose features.
      images: uint8 [B, H, W, C] of indices [B] below `count`, in an order that says nothing.
      count: how many images; with features that depend on the batch the last ones that fill no batch are left out.
      batch_size: images at a time.
      blocks: in how many sums.
      poll: called between batches.
    """
    if network.by_batch:
        count -= count % batch_size
        if not count:
            raise DataError(f"{network.name} features need a whole batch of {batch_size} images, there are fewer.")
    mesh = local_mesh(batch_size)
    variables = jax.device_put(network.variables, replicated(mesh))
    apply = jax.jit(network.apply)
    process, processes = jax.process_index(), jax.process_count()

    def computed() -> Iterator[tuple[np.ndarray, np.ndarray, jax.Array]]:
        for indices, mask in padded_batches(count, batch_size, process, processes):
            yield indices, mask, apply(variables, jax.device_put(images(indices), over_batch(mesh)))

    kept = min(count, KEPT)
    turns_kept = -(-kept // (batch_size * processes))
    sums = [Moments.empty(network.dim) for _ in range(blocks)]
    rows, features_kept = [], []
    # The device goes on with the next batches while this one is summed.
    for turn, (indices, mask, on_device) in enumerate(ahead(computed())):
        poll()
        features = np.asarray(on_device)
        block = indices * blocks // count
        for chosen in np.unique(block[mask]):
            sums[chosen] = sums[chosen].add(features[mask & (block == chosen)])
        if turn < turns_kept:
            # Rows that are not kept, and repeated ones, all go to one extra row, which is dropped below.
            rows.append(np.where(mask, np.minimum(indices, kept), kept).astype(np.int32))
            features_kept.append(features)
    whole = rows_of_all_processes(np.concatenate(rows), np.concatenate(features_kept), kept + 1)
    return FeatureStatistics([_over_processes(block) for block in sums], whole[:kept])


def _over_processes(moments: Moments) -> Moments:
    flat = np.concatenate([[moments.number], moments.total, moments.outer.ravel()])
    flat, dim = sum_over_processes(flat), len(moments.total)
    return Moments(int(flat[0]), flat[1 : 1 + dim], flat[1 + dim :].reshape(dim, dim))


def measure_split(
    data: ImageData, split: str, network: FeatureNetwork, batch_size: int, poll: Poll = lambda: None
) -> Reference:
    """The reference that a split of a prepared set makes."""
    from asvae_jax.data.records import Split

    images = Split(data, split)
    check_enough(len(images), f"{split} images of {data.name}", network, batch_size)
    # Of NumPy's generators the one whose numbers never change from version to version.
    order = np.random.RandomState(_ORDER_SEED).permutation(len(images))
    found = feature_statistics(network, lambda i: images.rows(order[i]), len(images), batch_size, poll=poll)
    mean, covariance = found.whole().mean_and_covariance()
    return Reference(mean, covariance, found.number, found.kept, about_split(data, split, network, batch_size))


def check_enough(number: int, of_what: str, network: FeatureNetwork, batch_size: int) -> None:
    """Raises a DataError if so many images are too few to compare by their features."""
    fewest = max(FEWEST_IMAGES, batch_size if network.by_batch else 0)
    if number < fewest:
        raise DataError(f"{number} {of_what} are too few to compare: {network.name} features need {fewest} or more.")


def about_split(data: ImageData, split: str, network: FeatureNetwork, batch_size: int) -> dict[str, Any]:
    """What must agree for statistics of a split to be those that a run needs."""
    pixels: dict[str, Any] = {"data": data.name, "split": split, "shape": list(data.shape)}
    if isinstance(data, PhotographData):
        pixels |= {"crop": data.crop, "resize_images": data.resize}
    if isinstance(data, CelebAData):
        pixels["partition"] = data.partition
    if hasattr(data, "label"):
        pixels["label"] = data.label
    # Where features depend on the batch, its size is part of what they are.
    return {**pixels, **network.protocol(), **({"batch_size": batch_size} if network.by_batch else {})}


def write_reference(path: Path, reference: Reference) -> None:
    """Keeps a reference as npz: `mu` and `sigma` as `pytorch-fid` names them, and beside them what they are of."""
    about = json.dumps({**reference.about, "number": reference.number})
    with path.open("wb") as file:
        np.savez(
            file, mu=reference.mean, sigma=reference.covariance, features=reference.kept, about=np.asarray(about)
        )  # fmt: skip


def read_reference(path: Path, expected: dict[str, Any]) -> Reference:
    """A reference from disk.

    Args:
      path: what `write_reference` or `pytorch-fid` wrote; the latter's cannot be checked, and is marked so.
      expected: what it must be of, see `about_split`.

    Raises:
      DataError: if it cannot be read, or is of other images or features.
    """
    try:
        # Opened here, since NumPy leaves a damaged file open.
        with path.open("rb") as file, zipfile.ZipFile(file):
            file.seek(0)
            stored = np.load(file)
            arrays = {name: stored[name] for name in stored.files}
        mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
        unchecked: dict[str, Any] = {"number": 0, "unchecked_file": path.name}
        about = json.loads(str(arrays["about"])) if "about" in arrays else unchecked
        number = int(about.pop("number"))
        kept = arrays["features"] if "about" in arrays else np.empty((0, mean.size))
    except Exception as error:  # what NumPy and zipfile raise for damage is of a dozen kinds
        raise DataError(f"{path} holds no statistics that can be read ({error!r}); make it by fid-stats.") from error
    fits = mean.ndim == 1 and covariance.shape == 2 * mean.shape and kept.shape[1:] == mean.shape
    if not fits or not all(np.isfinite(array).all() for array in (mean, covariance, kept)):
        shapes = f"{mean.shape}, {covariance.shape} and {kept.shape}"
        raise DataError(f"{path} is damaged: its arrays, {shapes}, do not fit or are not finite; make it anew.")
    if "unchecked_file" in about:
        return Reference(mean, covariance, number, kept, about)
    wrong = [
        f"{name} {about.get(name)!r}, not {value!r}" for name, value in expected.items() if about.get(name) != value
    ]
    if wrong:
        raise DataError(f"{path} is of other images or features: {'; '.join(wrong)}. Make it by fid-stats.")
    return Reference(mean, covariance, number, kept, about)


def check_reference(path: Path, reference: Reference, network: FeatureNetwork, needs_features: bool) -> None:
    """Raises a DataError if a reference cannot serve the measures that are wanted."""
    if len(reference.mean) != network.dim:
        raise DataError(f"{path} has {len(reference.mean)} features, {network.name} has {network.dim}.")
    if needs_features and not len(reference.kept):
        raise DataError(f"{path} holds a mean and a covariance alone, which serve FID; make it by fid-stats for more.")


def compare(
    measures: tuple[str, ...],
    reference: Reference,
    generated: FeatureStatistics,
    network: FeatureNetwork,
    poll: Poll = lambda: None,
) -> tuple[dict[str, float], dict[str, Interval]]:
    """(figures, their intervals) of those of `measures` that compare features. `poll` is called between them, and for
    each block that is left out: with thousands of features one takes seconds."""
    figures: dict[str, float] = {}
    spread: dict[str, Interval] = {}
    if "fid" in measures:
        whole = generated.whole()
        figures["fid"] = frechet_distance(reference.mean, reference.covariance, *whole.mean_and_covariance())
        without = ((whole - block).mean_and_covariance() for block in generated.blocks)
        left_out = []
        for distance in frechet_distances(reference.mean, reference.covariance, without):
            poll()
            left_out.append(distance)
        spread["fid"] = intervals.jackknife(figures["fid"], left_out)
    poll()
    if "kid" in measures:
        kernel = kernel_distance(reference.kept, generated.kept)
        smaller = min(len(reference.kept), len(generated.kept))
        figures["kid"] = kernel.value
        spread["kid"] = intervals.subsampling(kernel.value, list(kernel.of_subsets), kernel.subset_size, smaller)
    poll()
    if "precision_recall" in measures:
        for name, values in neighbourhoods(reference.kept, generated.kept).items():
            figures[name], spread[name] = float(values.mean()), intervals.bootstrap_mean(values)
    number = min(generated.number, reference.number or generated.number)
    shown = {name: figure_name(name, network, number) for name in figures}
    return {shown[n]: v for n, v in figures.items()}, {shown[n]: v for n, v in spread.items()}


def measure_generated(
    network: FeatureNetwork,
    generate: Callable[[np.ndarray], np.typing.ArrayLike],
    count: int,
    batch_size: int,
    poll: Poll,
) -> FeatureStatistics:
    """The statistics of `count` generated images, in the blocks that `compare` leaves out in turn."""
    return feature_statistics(network, generate, count, batch_size, blocks=_BLOCKS, poll=poll)
