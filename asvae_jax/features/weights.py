"""Feature networks' weights on disk: safetensors files that say what they are and are checked when they are read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from asvae_jax.errors import DataError
from asvae_jax.features.inception import SIDE, Inception

INCEPTION = "inception-2015-12-05"
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of pt_inception-2015-12-05-6726825d.pth (95,628,359 bytes), the PyTorch port that `pytorch-fid` uses."""


def write(path: Path, network: str, variables: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Keeps the variables of a network with its name, facts about it, and a digest of the numbers."""
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in flatten_dict(variables, sep="/").items()}
    save_file(arrays, path, metadata={**about, "network": network, "digest": _digest(arrays)})


def read(path: Path, network: str, template: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(variables, facts) of a file that `write` made.

    Args:
      path: the file.
      network: the name that it must bear.
      template: the shapes that the variables must have.

    Raises:
      DataError: if there is no such file, it is of another network, or its bytes are not those that were written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} holds no weights that can be read ({error}); make it anew.") from error
    if facts.get("network") != network:
        raise DataError(f"{path} holds the weights of {facts.get('network', 'no known network')}, not of {network}.")
    wanted = {name: leaf.shape for name, leaf in flatten_dict(template, sep="/").items()}
    if {name: array.shape for name, array in arrays.items()} != wanted or _digest(arrays) != facts.get("digest"):
        raise DataError(f"{path} is damaged: its weights are not those that were written; make it anew.")
    return unflatten_dict({name: jnp.asarray(array) for name, array in arrays.items()}, sep="/"), facts


def read_inception(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(variables, facts) of Inception's converted weights; raises as `read` does."""
    return read(path, INCEPTION, _inception_template())


def convert_inception(source: Path, out: Path, *, sha256: str = PUBLISHED_SHA256) -> None:
    """Turns the PyTorch port's weights into a safetensors file for `read_inception`.

    Args:
      source: the `.pth` file; reading it needs PyTorch.
      out: the file to write.
      sha256: what the source must hash to.

    Raises:
      DataError: if the source is absent, is another file, or PyTorch is not installed.
    """
    if not source.is_file():
        raise DataError(f"There is no file {source}. It is pt_inception-2015-12-05-6726825d.pth of pytorch-fid.")
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(f"{source} is not the published network: its sha256 is {found}, expected {sha256}.")
    try:
        import torch
    except ImportError as error:
        raise DataError("Reading a .pth file needs PyTorch: pip install 'asvae_jax[torch]'.") from error
    state = torch.load(source, map_location="cpu", weights_only=True)
    variables = inception_variables({name: tensor.numpy() for name, tensor in state.items()})
    write(out, INCEPTION, variables, {"source_sha256": sha256})


def inception_variables(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Flax variables of `Inception` from the entries of the PyTorch port: kernels [out, in, h, w] become
    [h, w, in, out]. The classifier behind the pooled features is left out.

    Raises:
      DataError: if an entry is missing or has another shape.
    """
    template = flatten_dict(_inception_template())
    leaves = {}
    for path, leaf in template.items():
        name = ".".join([*path[1:-1], _TORCH_NAMES[path[-2:]]])
        if name not in state:
            raise DataError(f"The weights lack {name}; they are not those of the FID Inception.")
        array = np.asarray(state[name], np.float32)
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        if array.shape != leaf.shape:
            raise DataError(f"{name} has shape {array.shape} (h, w, in, out), the FID Inception's is {leaf.shape}.")
        leaves[path] = array
    return unflatten_dict(leaves)


# The last two steps of a Flax path -> the last word of the PyTorch name.
_TORCH_NAMES = {
    ("conv", "kernel"): "weight",
    ("bn", "scale"): "weight",
    ("bn", "bias"): "bias",
    ("bn", "mean"): "running_mean",
    ("bn", "var"): "running_var",
}


def _inception_template() -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    variables = jax.eval_shape(Inception().init, jax.random.key(0), images)
    return {name: variables[name] for name in ("params", "batch_stats")}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(json.dumps([name, str(arrays[name].dtype), arrays[name].shape]).encode())
        sha.update(arrays[name].tobytes())
    return sha.hexdigest()
