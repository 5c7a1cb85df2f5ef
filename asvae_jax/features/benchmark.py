"""How fast features are computed and compared, and in how much memory: `python -m asvae_jax benchmark-features`."""

import platform
import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asvae_jax.checks import check_shape
from asvae_jax.config import check_word
from asvae_jax.distributed import local_mesh, over_batch, replicated
from asvae_jax.features.inception import SIDE, Inception
from asvae_jax.features.networks import NAMES, FeatureNetwork, inception_network, open_network
from asvae_jax.generation import feature_statistics
from asvae_jax.metrics.frechet import frechet_distance
from asvae_jax.provenance import commit, device_name, versions


def benchmark(
    features: str, features_file: str, *, shape: tuple[int, ...], images: int, batch_size: int
) -> dict[str, Any]:
    """Streams random images through a network as evaluation does.

    Args:
      features: a name of `networks.NAMES`.
      features_file: Inception's weights; "" for random ones, which take the same time.
      shape: of the images, [H, W, C].
      images: how many; once more four times as many, which must take no more memory.
      batch_size: images at a time.

    Returns:
      Images a second through the network alone and with all sums, seconds of one Frechet distance, the highest resident
      memory of the process after either number of images, and the device's own figure where it has one.

    Raises:
      ConfigError: if no image has this shape.
    """
    check_shape(shape, "shape")
    network = _open(features, features_file)
    random = np.random.default_rng(0)
    batch = random.integers(256, size=(batch_size, *shape), dtype=np.uint8)

    def stream(count: int) -> tuple[float, float]:
        began = time.perf_counter()
        feature_statistics(network, lambda indices: batch[indices % batch_size], count, batch_size, blocks=10)
        return count / (time.perf_counter() - began), _peak_bytes()

    alone = _rate_alone(network, batch)
    stream(batch_size)
    few, many = stream(images), stream(4 * images)
    covariances = [np.cov(random.normal(size=(2 * network.dim, network.dim)), rowvar=False) for _ in range(2)]
    mean, began = np.zeros(network.dim), time.perf_counter()
    frechet_distance(mean, covariances[0], mean, covariances[1])
    distance_seconds = time.perf_counter() - began
    device = jax.devices()[0]
    return {
        "features": features,
        "weights": "random" if features != "digits" and not features_file else network.sha256,
        "shape": list(shape),
        "batch_size": batch_size,
        "images_per_second_network": alone,
        "images_per_second_streamed": many[0],
        "images": [images, 4 * images],
        "peak_resident_bytes": [few[1], many[1]],
        "device_peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
        "frechet_distance_seconds": distance_seconds,
        "device": f"{jax.local_device_count()} x {device_name()}",
        "machine": platform.machine(),
        "versions": versions(),
        "commit": commit(),
    }


def table(result: dict[str, Any]) -> str:
    """The figures as lines of text."""
    low, high = (size / 2**20 for size in result["peak_resident_bytes"])
    few, many = result["images"]
    return "\n".join(
        [
            f"{result['features']} features of {'x'.join(map(str, result['shape']))} images on {result['device']}",
            f"network alone       {result['images_per_second_network']:,.1f} images/s",
            f"with all sums       {result['images_per_second_streamed']:,.1f} images/s",
            f"memory, at most     {low:,.0f} MiB after {few:,} images, {high:,.0f} MiB after {many:,} more",
            f"Frechet distance    {result['frechet_distance_seconds']:.2f} s",
        ]
    )


def _open(features: str, features_file: str) -> FeatureNetwork:
    if features == "digits" or features_file:
        return open_network(features, features_file)
    check_word("--features", features, NAMES)
    variables: Any = Inception().init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    return inception_network(features, variables, "random")


def _rate_alone(network: FeatureNetwork, batch: np.ndarray, repeats: int = 5) -> float:
    mesh = local_mesh(len(batch))
    variables = jax.device_put(network.variables, replicated(mesh))
    images = jax.device_put(batch, over_batch(mesh))
    apply = jax.jit(network.apply)
    apply(variables, images).block_until_ready()
    began = time.perf_counter()
    for _ in range(repeats):
        apply(variables, images).block_until_ready()
    return repeats * len(batch) / (time.perf_counter() - began)


def _peak_bytes() -> int:
    # In KiB, but on macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
