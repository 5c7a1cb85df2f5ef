"""A trained run as a value: what the commands and notebooks sample from, encode and decode with."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from asvae_jax import update
from asvae_jax.calibrate import statistics_shape
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.config import Config, ImageData, WganGp, resolve
from asvae_jax.data.augment import from_value_range, to_value_range
from asvae_jax.data.images import padded_batches
from asvae_jax.errors import CheckpointError, RunError
from asvae_jax.gaussians import Gaussian
from asvae_jax.models import make_networks

Weights = Literal["ema", "raw"]
WEIGHTS: tuple[Weights, ...] = ("ema", "raw")

CHECKPOINTS = "checkpoints"


class Run(NamedTuple):
    """Weights of one step with the batch-norm statistics calibrated for them, {"raw": ..., "ema": ...}."""

    folder: Path
    config: Config
    step: int
    params: dict[str, Any]
    ema: dict[str, Any]
    statistics: dict[str, Any]

    def weights(self, which: Weights) -> tuple[dict[str, Any], dict[str, Any]]:
        """(parameters, statistics)."""
        return (self.ema if which == "ema" else self.params), self.statistics.get(which, {})


def load_run(path: str | Path) -> Run:
    """Loads the newest whole checkpoint of a run folder or of its checkpoints folder, or the one step that `path` is
    the folder of.

    Raises:
      CheckpointError: if there is none, or it is damaged.
    """
    path = Path(path).absolute()
    folder, step = _find(path)
    with CheckpointStore(folder / CHECKPOINTS) as store:
        found = store.read_newest(_inference_templates) if step is None else store.read(step, _inference_templates)
    if found is None:
        raise CheckpointError(f"{store.folder} holds no checkpoint yet; train first, or give the folder of a run.")
    items, meta = found
    return Run(
        folder, resolve(meta["config"]), meta["step"], items["params"], items["ema"], items.get("statistics", {})
    )


def _find(path: Path) -> tuple[Path, int | None]:
    """(run folder, step or None) of a run folder, a checkpoints folder or a step's folder."""
    if (path / CHECKPOINTS).is_dir():
        return path, None
    if path.name == CHECKPOINTS and path.is_dir():
        return path.parent, None
    if path.name.isdecimal() and path.parent.name == CHECKPOINTS and path.is_dir():
        return path.parent.parent, int(path.name)
    raise CheckpointError(
        f"{path} is no run: expected a folder with {CHECKPOINTS}/ in it, that folder, or one step within it."
    )


def state_template(config: Config, sharding: jax.sharding.Sharding) -> update.TrainState:
    """Shapes, types and placement of a training state."""
    return _placed(jax.eval_shape(lambda: update.init_state(config, jax.random.key(0))), sharding)


def statistics_template(config: Config, sharding: jax.sharding.Sharding) -> dict[str, Any]:
    """The same of the statistics of both sets of weights."""
    one = _placed(statistics_shape(config), sharding)
    return {"raw": one, "ema": one}


def _placed(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _inference_templates(meta: dict[str, Any]) -> dict[str, Any]:
    config = resolve(meta["config"])
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    state = state_template(config, sharding)
    return {"params": state.params, "ema": state.ema, "statistics": statistics_template(config, sharding)}


def on_this_process(run: Run) -> Run:
    """The run with its weights on one device of this process alone, free to compute what others do not."""
    device = jax.local_devices()[0]
    params, ema, statistics = jax.device_put(
        jax.tree.map(lambda leaf: np.asarray(leaf), (run.params, run.ema, run.statistics)), device
    )
    return run._replace(params=params, ema=ema, statistics=statistics)


def sample_images(run: Run, key: jax.Array, n: int, *, weights: Weights = "ema") -> np.ndarray:
    """`n` decodings of the prior: images [n, H, W, C] clipped to [0, 1], or toy points [n, 2]."""
    return decode(run, jax.random.normal(key, (n, run.config.model.latent_dim)), weights=weights)


def decode(run: Run, z: np.typing.ArrayLike, *, weights: Weights = "ema", posterior: bool = False) -> np.ndarray:
    """Images [N, ...] of codes [N, Z], clipped to [0, 1]; toy points are not clipped.

    `posterior` says that the codes are those of images, for which batch norm has its own statistics.
    """
    params, statistics = run.weights(weights)
    chosen = statistics.get("decoder_posterior" if posterior else "decoder_prior", {})
    images = _in_batches(_decoder(run.config), (params["decoder"], chosen), z, run.config)
    return images if run.config.is_toy else np.clip(images, 0, 1)


def encode(run: Run, images: np.typing.ArrayLike, *, weights: Weights = "ema") -> Gaussian:
    """Codes, fields [N, Z], of images [N, H, W, C] in [0, 1] or of toy points [N, 2].

    Raises:
      RunError: for a WGAN-GP run, which has no encoder.
    """
    if isinstance(run.config.method, WganGp):
        raise RunError("wgan_gp has a critic and no encoder: it can sample, but not encode or reconstruct.")
    params, statistics = run.weights(weights)
    return _in_batches(_encoder(run.config), (params["encoder"], statistics.get("encoder", {})), images, run.config)


def reconstruct(run: Run, images: np.typing.ArrayLike, *, weights: Weights = "ema") -> np.ndarray:
    """Decodings of the mean codes of images; shapes, range and errors as in `encode` and `decode`."""
    return decode(run, encode(run, images, weights=weights).mean, weights=weights, posterior=True)


@functools.lru_cache
def _encoder(config: Config) -> Callable:
    def encode_batch(weights: Any, images: jax.Array) -> Gaussian:
        if isinstance(config.data, ImageData):
            images = to_value_range(config.data, images)
        return make_networks(config).encode(weights[0], images, weights[1])

    return jax.jit(encode_batch)


@functools.lru_cache
def _decoder(config: Config) -> Callable:
    def decode_batch(weights: Any, z: jax.Array) -> jax.Array:
        images = make_networks(config).decode(weights[0], z, weights[1])
        return from_value_range(config.data, images) if isinstance(config.data, ImageData) else images

    return jax.jit(decode_batch)


def _in_batches(function: Callable, weights: Any, inputs: np.typing.ArrayLike, config: Config) -> Any:
    """`function` over batches of one size (the last one padded), so that it is compiled once and memory stays
    bounded."""
    inputs = np.asarray(inputs, np.float32)
    batches = [function(weights, inputs[indices]) for indices, _ in padded_batches(len(inputs), config.chunk_size)]
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts])[: len(inputs)], *batches)
