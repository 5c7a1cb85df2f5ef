"""Introspective variational autoencoders in functional JAX.

`asvae_jax.gaussians`, `.distance` and `.losses` are pure functions of arrays that import nothing but jax and chex.
The names below load the rest of the package when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asvae_jax.evaluation import evaluate
    from asvae_jax.run import Run, encode, load_run, reconstruct, sample_images

__all__ = ["Run", "encode", "evaluate", "load_run", "reconstruct", "sample_images"]

__version__ = "0.1.0"

_HOME = {
    "Run": "run",
    "encode": "run",
    "evaluate": "evaluation",
    "load_run": "run",
    "reconstruct": "run",
    "sample_images": "run",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"asvae_jax.{_HOME[name]}"), name)
    raise AttributeError(f"module 'asvae_jax' has no attribute {name!r}")
