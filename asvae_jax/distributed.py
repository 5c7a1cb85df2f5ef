"""Processes, devices and requests to stop: one code path from one CPU to a pod."""

import hashlib
import itertools
import logging
import os
import re
import signal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from asvae_jax.errors import ConfigError, Preempted, first_line
from asvae_jax.settings import Config

_log = logging.getLogger(__name__)

_JOIN_SECONDS = 600
_NO_SUCH_DEVICES = (
    "See to the driver, to other processes that may hold the devices, and to the extra that JAX was installed with."
)


def setup(
    distributed: bool, coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of a cluster job, if it is `distributed`; must come before any other use of JAX.

    SLURM, Open MPI and TPU pods are recognised by JAX itself, Kubernetes with the package of `jax[k8s]` and the right
    to list pods; elsewhere a process must be told its place.

    Args:
      distributed: whether there are others.
      coordinator: host:port of the first process.
      processes: how many the job has.
      process_id: of this one, from 0.

    Raises:
      ConfigError: if a place is told in part, no cluster is recognised, or the job cannot be joined. If the others do
        not come in time JAX ends this process itself (SIGABRT).
    """
    place = {"--coordinator": coordinator, "--processes": processes, "--process-id": process_id}
    missing = [name for name, value in place.items() if value is None]
    if len(missing) < len(place) and (missing or not distributed):
        raise ConfigError(f"{', '.join(place)} belong together, and to --distributed; give all four or none.")
    if coordinator is not None and not re.fullmatch(r".+:\d+", coordinator):
        raise ConfigError(f"--coordinator={coordinator} must have the form host:port.")
    if processes is not None and process_id is not None and not 0 <= process_id < processes:
        raise ConfigError(f"--process-id={process_id} must lie in [0, {processes}), below --processes.")
    if not distributed:
        return
    # A process that waits for one which never comes has at least said so.
    told = "" if missing else f" as process {process_id} of {processes}, through {coordinator}"
    _log.info("Joining the other processes of this job%s; they are waited for %d s", told, _JOIN_SECONDS)
    try:
        jax.distributed.initialize(
            coordinator, num_processes=processes, process_id=process_id, initialization_timeout=_JOIN_SECONDS
        )
    except ValueError as error:
        raise ConfigError(
            f"--distributed found no cluster to join ({first_line(error)}). Leave it out to run as one process, or "
            f"give {', '.join(place)}."
        ) from error
    except RuntimeError as error:
        raise ConfigError(
            f"This job could not be joined ({first_line(error)}). See that the first process may listen at the "
            "coordinator's port, and that the others reach it."
        ) from error
    _log.info("Process %d of %d joined", jax.process_index(), jax.process_count())


def check_devices(count: int | None, platform: str | None) -> None:
    """Raises a ConfigError if JAX cannot start any devices, all processes together have not `count`, or they are of
    another platform, "cpu", "gpu" or "tpu"; None for whatever there is."""
    try:
        kind, found = jax.devices()[0].device_kind, jax.device_count()
    # An assertion is what the lack of a platform's plugin makes.
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"JAX has no devices of the platforms in JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r} "
            f"({first_line(error)}). {_NO_SUCH_DEVICES}"
        ) from error
    if count is not None and found != count:
        raise ConfigError(
            f"--expect-devices={count}, but {jax.process_count()} process(es) have {found} of kind {kind}; start as "
            "many processes as the job has, or mend the number."
        )
    if platform is not None and jax.default_backend() != platform:
        raise ConfigError(f"--expect-platform={platform}, but JAX found {found} of kind {kind}. {_NO_SUCH_DEVICES}")


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


def local_mesh(batch_size: int) -> Mesh:
    """This process's devices, or as many of them as share out a batch evenly, for what it computes without the
    others."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return Mesh(np.asarray(devices[:count]), ("data",), axis_types=(AxisType.Auto,))


def to_global(mesh: Mesh, local: np.ndarray, axis: int = 0) -> jax.Array:
    """The global batch that each process gives its own rows of."""
    return jax.make_array_from_process_local_data(over_batch(mesh, axis), local)


def holds_in_all_processes(condition: bool) -> bool:
    """Whether a condition holds in each process."""
    return bool(np.all(multihost_utils.process_allgather(np.asarray(condition))))


def same_in_all_processes(value: object) -> bool:
    """Whether the processes hold values of one `repr`."""
    digest = np.frombuffer(hashlib.sha256(repr(value).encode()).digest(), np.uint32)
    return bool(np.all(multihost_utils.process_allgather(digest) == digest))


def sum_over_processes(array: np.ndarray) -> np.ndarray:
    """The sum of the float64 arrays that the processes hold, the same in each."""
    if jax.process_count() == 1:
        return array
    # JAX would round float64 to float32 on the way.
    array = np.ascontiguousarray(array, np.float64)
    parts = multihost_utils.process_allgather(array.view(np.uint32), tiled=False)
    return np.asarray(parts).view(np.float64).reshape(-1, *array.shape).sum(axis=0)


def rows_of_all_processes(indices: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Rows 0 to `count` put together, the same in each process.

    Args:
      indices: [n] of the rows that this process has; n is the same in all processes, and an index may come twice.
      rows: float32 [n, ...].
    """
    whole = np.empty((count, *rows.shape[1:]), np.float32)
    if jax.process_count() > 1:
        indices, rows = (np.concatenate(multihost_utils.process_allgather(part)) for part in (indices, rows))
    whole[indices] = rows
    return whole


def is_main_process() -> bool:
    """Whether this process writes the run's files other than checkpoints."""
    return jax.process_index() == 0


# JAX counts on as long as the process lives, from the training on to the evaluation.
_turns = itertools.count()


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag for training and evaluation.

    In a job of several processes JAX watches for SIGTERM itself, and a handler of ours would silence that; there JAX is
    asked, which answers alike in all processes.
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

    def asked(self) -> bool:
        """Whether to stop. In a job of several processes all ask equally often, and get the same answers: JAX agrees on
        one of the calls, and a process that passes it over would never be told."""
        if jax.process_count() > 1:
            self.received |= multihost_utils.reached_preemption_sync_point(next(_turns))
        return self.received

    def poll(self) -> None:
        """Stops what has nothing left to save.

        Raises:
          Preempted: if that is asked for.
        """
        if self.asked():
            raise Preempted("Stopped as asked; what was finished is saved. Run the same command again to go on.")

    def _note(self, number: int, _frame) -> None:
        _log.warning("%s received: stopping as soon as all is saved", signal.Signals(number).name)
        self.received = True
