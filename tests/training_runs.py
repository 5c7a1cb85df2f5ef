"""Tiny runs, and the command lines as real processes, for the tests from end to end."""

import atexit
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from compiler import xla_flags

from asvae_jax.config import load_file, resolve
from asvae_jax.settings import Config

ROOT = Path(__file__).parents[1]

# TFDS prepares the digits here when a test first asks for them, once for this process and those that it starts.
_DATA = tempfile.TemporaryDirectory(prefix="asvae_jax-data-")
atexit.register(_DATA.cleanup)
DATA_DIR = _DATA.name


def digits(words: str = "tiny", **changes) -> Config:
    """`configs/digits.py:words` with `section__key=value` changes, for the four devices of the tests."""
    return _config("digits", words, {"data__data_dir": DATA_DIR, "evaluation__batch_size": 52, **changes})


def toy(words: str = "tiny", **changes) -> Config:
    """`configs/8gaussians.py:words`, likewise."""
    return _config("8gaussians", words, changes)


def _config(name: str, words: str, changes: dict) -> Config:
    config = load_file(f"{ROOT}/configs/{name}.py:{words}")
    for path, value in changes.items():
        section, key = path.split("__")
        config[section][key] = value
    return resolve(config)


def arguments(config: Config, words: str, workdir: Path) -> list[str]:
    """The command line of `asvae_jax.main` that trains `config`, made from `words`, in `workdir`."""
    path = f"{ROOT}/configs/{config.data.name}.py:{words}"
    plain = resolve(load_file(path)).to_dict()
    changed = [
        f"--config.{section}.{key}={value}"
        for section, values in config.to_dict().items()
        if isinstance(values, dict)
        for key, value in values.items()
        if plain[section][key] != value
    ]
    return ["-m", "asvae_jax.main", f"--config={path}", f"--workdir={workdir}", *changed]


def environment(devices: int = 4, **variables: str) -> dict[str, str]:
    """That of a new process which shares the tests' programs and data."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": xla_flags(devices),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TFDS_DATA_DIR": DATA_DIR,
        **variables,
    }


@contextlib.contextmanager
def started(command: list[str], devices: int = 4, **options) -> Iterator[subprocess.Popen]:
    """A python process that runs beside the test, and not longer."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(devices, **options.pop("env", {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def job(command: list[str], processes: int) -> Iterator[list[subprocess.Popen]]:
    """A python command as Open MPI starts it, for `--distributed`: so many processes of one device each.

    One, since two devices a process can wait for each other for ever in XLA's collectives on a CPU.
    """
    # JAX reads the coordinator's port, one of the last 2**12 there are, out of the job's number.
    number = (free_port(65_536 - 2**12, 65_536) - (65_536 - 2**12)) * 2**12
    ranks = [
        {
            "OMPI_MCA_orte_hnp_uri": f"{number}.0;tcp://127.0.0.1:1",
            "OMPI_COMM_WORLD_SIZE": str(processes),
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        }
        for rank in range(processes)
    ]
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(started(command, devices=1, env=rank)) for rank in ranks]


def free_port(first: int, end: int) -> int:
    """One that other workers will hardly find at the same time."""
    while True:
        port = random.SystemRandom().randrange(first, end)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def run(command: list[str], devices: int = 4, **options) -> subprocess.CompletedProcess:
    """A python process to its end."""
    with started(command, devices, **options) as process:
        return ended(process)


def ended(process: subprocess.Popen) -> subprocess.CompletedProcess:
    """Waits for the end of a process."""
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def wait_until(holds: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits for something that a running process does."""
    while not holds():
        if process.poll() is not None:
            raise AssertionError(f"It ended first, with {process.returncode}: {process.communicate()}")
        time.sleep(0.002)


def records(workdir: Path) -> list[dict]:
    """The whole lines of figures in a run's metrics.jsonl; none if there is no such file yet."""
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [record for record in whole if "config" not in record]


def assert_bit_equal(got, expected) -> None:
    """The same tree of the same types with the same bits."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        assert _bytes(a) == _bytes(b)


def _bytes(leaf) -> bytes:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def assert_close(got, expected, rtol: float) -> None:
    """Equal leaf by leaf, to `rtol` of the largest number of each leaf."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * max(1e-30, np.max(np.abs(b))))
