"""A trained run as a value: what the commands and notebooks sample from, encode and decode with."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from asvae_jax import update
from asvae_jax.calibrate import statistics_shape
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.data.augment import from_value_range, to_value_range
from asvae_jax.data.images import ahead, padded_batches
from asvae_jax.distributed import local_mesh, over_batch, replicated
from asvae_jax.errors import CheckpointError, RunError
from asvae_jax.gaussians import Gaussian
from asvae_jax.models import make_networks
from asvae_jax.settings import Config, ImageData, WganGp

Weights = Literal["ema", "raw"]
WEIGHTS: tuple[Weights, ...] = ("ema", "raw")

CHECKPOINTS, BEST, METRICS = "checkpoints", "best", "metrics.jsonl"

# Fixed, so that all runs are judged by, and drawn from, the same latents.
SAMPLE_SEED = 1


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


def load_run(path: str | Path, step: int | Literal["latest", "best"] = "latest") -> Run:
    """Loads a checkpoint of a run; in a job of several processes all of them must.

    Args:
      path: a run's folder, its checkpoints folder, or the folder of one step within that.
      step: the newest that is whole, the one that was best by `evaluation.best` in training, or that of a number.

    Raises:
      CheckpointError: if there is none, or it is damaged.
    """
    folder, named = _find(Path(path).absolute())
    if named is not None:
        if step != "latest":
            raise CheckpointError(f"{path} is step {named} already; give the run's folder to choose step {step}.")
        step = named
    items, meta = _read_best(folder) if step == "best" else _read(folder, step)
    return Run(folder, meta["config"], meta["step"], items["params"], items["ema"], items.get("statistics", {}))


def _read(folder: Path, step: int | Literal["latest", "best"]) -> tuple[dict[str, Any], dict[str, Any]]:
    with CheckpointStore(folder / CHECKPOINTS) as store:
        if isinstance(step, int):
            if step not in (stored := store.steps()):
                raise CheckpointError(f"{store.folder} holds no step {step}; choose one of {stored}.")
            return store.read(step, _inference_templates)
        if found := store.read_newest(_inference_templates):
            return found
        raise CheckpointError(f"{store.folder} holds no checkpoint yet; train first, or give the folder of a run.")


def _read_best(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if (folder / BEST).is_dir():
        with CheckpointStore(folder / BEST) as store:
            if found := store.read_newest(_inference_templates):
                return found
    raise CheckpointError(
        f"{folder} has no best checkpoint; it is kept where evaluation.best and evaluation.every_steps are set."
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
    config = meta["config"]
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    state = state_template(config, sharding)
    return {"params": state.params, "ema": state.ema, "statistics": statistics_template(config, sharding)}


def on_this_process(run: Run) -> Run:
    """The run with its weights on the devices of this process alone, free to compute what others do not."""
    mesh = local_mesh(run.config.chunk_size)
    params, ema, statistics = jax.device_put(
        jax.tree.map(lambda leaf: np.asarray(leaf), (run.params, run.ema, run.statistics)), replicated(mesh)
    )
    return run._replace(params=params, ema=ema, statistics=statistics)


def sample_images(run: Run, key: jax.Array, n: int, *, weights: Weights = "ema") -> np.ndarray:
    """`n` decodings of the prior: images [n, H, W, C] clipped to [0, 1], or toy points [n, 2]."""
    return decode(run, jax.random.normal(key, (n, run.config.model.latent_dim)), weights=weights)


def make_autoencode(
    config: Config,
) -> tuple[Callable[[Any, jax.Array], Gaussian], Callable[[Any, jax.Array], jax.Array]]:
    """(encode, decode) of a batch as traceable functions of `Run.weights` and images in [0, 1], or posterior codes."""

    def encode_images(variables: Any, images: jax.Array) -> Gaussian:
        params, statistics = variables
        return _encoder(config)((params["encoder"], statistics.get("encoder", {})), images)

    def decode_codes(variables: Any, z: jax.Array) -> jax.Array:
        params, statistics = variables
        return _decoder(config)((params["decoder"], statistics.get("decoder_posterior", {})), z)

    return encode_images, decode_codes


def for_all_seeds(make: Callable[[Config], Callable]) -> Callable[[Config], Callable]:
    """`make`, whose programs are compiled once for all configs that differ in seed alone."""
    made = functools.lru_cache(make)
    return lambda config: made(dataclasses.replace(config, seed=0))


def make_generate(run: Run, key: jax.Array, weights: Weights) -> Callable[[np.ndarray], jax.Array]:
    """generate(indices [B]) -> uint8 images [B, H, W, C] on the devices of the weights.

    An image is a function of the key and its index alone: not of the batch, the device or the process it is made in.
    """
    params, statistics = run.weights(weights)
    variables = (params["decoder"], statistics.get("decoder_prior", {}))
    return lambda indices: _generator(run.config)(variables, key, spread_like(variables, indices))


@for_all_seeds
def _generator(config: Config) -> Callable:
    decode_batch = _decoder(config)

    def generate(variables: Any, key: jax.Array, indices: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
        z = jax.vmap(lambda key: jax.random.normal(key, (config.model.latent_dim,)))(keys)
        return to_uint8(decode_batch(variables, z))

    return jax.jit(generate)


def to_uint8(images: jax.Array) -> jax.Array:
    """Images in [0, 1], clipped and rounded to the nearest of 256 levels."""
    return jnp.round(255 * jnp.clip(images, 0, 1)).astype(jnp.uint8)


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


@for_all_seeds
def _encoder(config: Config) -> Callable:
    def encode_batch(weights: Any, images: jax.Array) -> Gaussian:
        if isinstance(config.data, ImageData):
            images = to_value_range(config.data, images)
        return make_networks(config).encode(weights[0], images, weights[1])

    return jax.jit(encode_batch)


@for_all_seeds
def _decoder(config: Config) -> Callable:
    def decode_batch(weights: Any, z: jax.Array) -> jax.Array:
        images = make_networks(config).decode(weights[0], z, weights[1])
        return from_value_range(config.data, images) if isinstance(config.data, ImageData) else images

    return jax.jit(decode_batch)


def _in_batches(function: Callable, weights: Any, inputs: np.typing.ArrayLike, config: Config) -> Any:
    """`function` over batches of one size (the last one padded), so that it is compiled once; the devices hold a few
    of them at a time."""
    inputs = np.asarray(inputs, np.float32)
    if not len(inputs):
        raise ValueError("At least one image (or code, or point) is needed, got none.")
    batches = ahead(
        (indices[mask], function(weights, spread_like(weights, inputs[indices])))
        for indices, mask in padded_batches(len(inputs), config.chunk_size)
    )
    whole: Any = None
    for indices, batch in batches:
        if whole is None:
            whole = jax.tree.map(lambda part: np.empty((len(inputs), *part.shape[1:]), part.dtype), batch)
        for rows, part in zip(jax.tree.leaves(whole), jax.tree.leaves(batch), strict=True):
            rows[indices] = np.asarray(part)[: len(indices)]
    return whole


def spread_like(weights: Any, batch: np.ndarray) -> np.typing.ArrayLike:
    """A batch shared out over the devices that the weights lie on, as far as they are this process's own."""
    sharding = jax.tree.leaves(weights)[0].sharding
    if isinstance(sharding, NamedSharding) and sharding.is_fully_addressable and len(batch) % sharding.mesh.size == 0:
        return jax.device_put(batch, over_batch(sharding.mesh))  # type: ignore[arg-type]
    return batch
