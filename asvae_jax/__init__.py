"""Introspective variational autoencoders in functional JAX.

`asvae_jax.gaussians`, `.distance` and `.losses` are pure functions of arrays that import nothing but jax and chex. The names below load
the rest of the package when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asvae_jax.evaluate import evaluate
    from asvae_jax.run import Run, encode, load_run, reconstruct, sample_images

__all__ = ["Run", "encode", "evaluate", "load_run", "reconstruct", "sample_images"]

__version__ = "0.1.0"

_HOME = {name: "asvae_jax.run" for name in ("Run", "encode", "load_run", "reconstruct", "sample_images")}


def __getattr__(name: str) -> Any:
    # `evaluate` is both a module and the function that it is named for: the function is what the top level means.
    if name == "evaluate":
        return importlib.import_module("asvae_jax.evaluate").evaluate
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'asvae_jax' has no attribute {name!r}")
