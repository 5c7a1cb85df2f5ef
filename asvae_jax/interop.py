"""Weights from the PyTorch networks that the papers' authors train: the same layers under other names, with other axes.

Images: `SoftIntroVAE` of https://github.com/taldatech/soft-intro-vae-pytorch, 2-D points: `SoftIntroVAESimple`.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from asvae_jax.errors import ConfigError
from asvae_jax.models import make_networks
from asvae_jax.settings import Config, ConvModel, WganGp

# Entries that have no place among the parameters: batch norm's averages over training, and a number that nothing uses.
_LEFT_OUT = re.compile(r"(running_mean|running_var|num_batches_tracked|loggamma)$")
_OF_A_BLOCK = {"conv1": "conv1", "conv2": "conv2", "shortcut": "conv_expand", "norm1": "bn1", "norm2": "bn2"}
_FIRST_DECODER_SIZE = 4


def from_torch_state_dict(state_dict: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Parameters {"encoder", "decoder"} of our networks, float32, that compute what the PyTorch ones do in training
    mode, where batch norm uses each batch's own statistics. Their averages over training are left out: ours are
    measured for given weights (`asvae_jax.calibrate`).

    Args:
      state_dict: arrays, or tensors on the CPU, by names like "encoder.main.res_in_64.conv1.weight".
      config: whose `data` and `model` say what the networks look like.

    Raises:
      ConfigError: if an entry is missing, left over or of another shape than these networks have.
    """
    if isinstance(config.method, WganGp):
        raise ConfigError("wgan_gp has a critic in the encoder's place, which no such state dict holds.")
    if isinstance(config.model, ConvModel) and config.model.norm != "batch":
        raise ConfigError(
            f"These weights are for batch norm, not for model.norm={config.model.norm!r}; set it to 'batch'."
        )
    template = flatten_dict(jax.eval_shape(make_networks(config).init, jax.random.key(0)))
    names = {path: _name(path, config) for path in template}
    if missing := [name for name in names.values() if name not in state_dict]:
        raise ConfigError(f"The state dict has no {missing[0]}; see model and data.shape of the config.")
    wanted = set(names.values())
    if left := [name for name in state_dict if name not in wanted and not _LEFT_OUT.search(name)]:
        raise ConfigError(f"The networks of this config have no place for {left[0]}; see model and data.shape.")
    params = {}
    for path, leaf in template.items():
        entry, shape = np.asarray(state_dict[names[path]], np.float32), _shape_in_torch(leaf.shape)
        if entry.shape != shape:
            raise ConfigError(
                f"{names[path]} has the shape {entry.shape}, these networks have {shape}; see model and data.shape."
            )
        params[path] = _converted(entry, path, config)
    return unflatten_dict(params)


def _name(path: tuple[str, ...], config: Config) -> str:
    """What the PyTorch networks call one of our parameters."""
    network, *layers, kind = (part for part in path if part not in ("trunk", "BatchNorm_0"))
    if isinstance(config.model, ConvModel):
        place = _place_in_images(network, layers, len(config.model.channels), config.example_shape[0])
    else:
        place = _place_in_points(*layers)
    return f"{network}.{place}.{'bias' if kind == 'bias' else 'weight'}"


def _place_in_points(layer: str) -> str:
    if layer == "head":
        return "main.output"
    number = int(layer.removeprefix("layer"))
    return f"main.hidden_{number}" if number else "main.input"


def _place_in_images(network: str, layers: list[str], channels: int, size: int) -> str:
    layer, *within = layers
    if not within:
        of_dense = {"encoder": "fc", "decoder": "fc.0"}[network]
        return {"head": of_dense, "stem": "main.0", "stem_norm": "main.1", "output": "main.predict"}[layer]
    # A block is named by the size of what it sees, the decoder's as if its first were of four pixels.
    last = channels - (network == "encoder")
    number = last if layer == "last_block" else int(layer.removeprefix("block"))
    seen = size // 2 >> number if network == "encoder" else _FIRST_DECODER_SIZE << number
    return f"main.res_in_{seen}.{_OF_A_BLOCK[within[0]]}"


def _shape_in_torch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _converted(entry: np.ndarray, path: tuple[str, ...], config: Config) -> np.ndarray:
    """An entry with our axes: [out, in, height, width] become [height, width, in, out], [out, in] become [in, out], and
    what a dense layer sees of an image has its channels last."""
    if path[1] == "head" and isinstance(config.model, ConvModel):
        channels = config.model.channels[-1]
        if path[0] == "encoder" and path[-1] == "kernel":
            entry = entry.reshape(len(entry), channels, -1).swapaxes(1, 2).reshape(len(entry), -1)
        if path[0] == "decoder":
            entry = entry.reshape(channels, -1, *entry.shape[1:]).swapaxes(0, 1).reshape(entry.shape)
    return entry.transpose(2, 3, 1, 0) if entry.ndim == 4 else entry.T
