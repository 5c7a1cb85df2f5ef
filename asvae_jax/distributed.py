"""Processes, devices and requests to stop: one code path from one CPU to a pod."""

import logging
import signal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asvae_jax.config import Config, ConfigError

_log = logging.getLogger(__name__)


def setup(distributed: bool) -> None:
    """Joins the other processes of a cluster job; must come before any other use of JAX.

    SLURM, Open MPI, Kubernetes and TPU pods are recognised by JAX itself.

    Raises:
      ConfigError: if no cluster is recognised.
    """
    if not distributed:
        return
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--distributed found no cluster to join ({error}). Leave it out to run as one process."
        ) from error
    _log.info("Process %d of %d joined", jax.process_index(), jax.process_count())


def make_mesh(config: Config) -> Mesh:
    """All devices of all processes on one axis, `data`.

    Raises:
      ConfigError: if the global batch cannot be shared out evenly.
    """
    devices = jax.devices()
    sizes = {"data.batch_size": config.data.batch_size}
    if not config.is_toy:
        sizes["evaluation.batch_size"] = config.chunk_size
    for name, size in sizes.items():
        if size % len(devices):
            raise ConfigError(f"{name}={size} does not divide by the {len(devices)} devices; choose a multiple.")
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """An array whose `axis` is the global batch."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def to_global(mesh: Mesh, local: np.ndarray, axis: int = 0) -> jax.Array:
    """The global batch that each process gives its own rows of."""
    return jax.make_array_from_process_local_data(over_batch(mesh, axis), local)


def is_main_process() -> bool:
    """Whether this process writes the run's files other than checkpoints."""
    return jax.process_index() == 0


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag for the training loop.

    In a job of several processes JAX watches for SIGTERM itself, and a handler of ours would silence that; there the
    checkpoint manager is asked instead, which answers alike in all processes.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _frame) -> None:
        _log.warning("%s received: saving after this step", signal.Signals(number).name)
        self.received = True
