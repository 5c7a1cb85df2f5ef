"""What tests share: four virtual CPU devices, a compilation cache and, on demand, float64 or a place for originals."""

import logging
import os
from pathlib import Path

from compiler import xla_flags

# Read by jax when it is imported.
os.environ.setdefault("XLA_FLAGS", xla_flags(devices=4))
os.environ["JAX_PLATFORMS"] = "cpu"
# Four virtual devices on fewer cores wait for each other in collectives, and XLA aborts when its threads run out: NPROC
# gives it enough of them, here and in subprocesses, and below one program runs at a time.
os.environ["NPROC"] = "16"

import jax
import pytest

# Fixtures: cells of image tables and figures; runs to evaluate; a reference file; tables of toys.
pytest_plugins = ["image_cells", "evaluated_runs", "reference_files", "toy_tables"]

# One for all workers of pytest-xdist, as many files compile the same programs.
_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "xla"
_CACHE.mkdir(parents=True, exist_ok=True)
jax.config.update("jax_cpu_enable_async_dispatch", False)
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# An unmeant [B] + [B, Z] is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Of the slowest files; a worker takes whole ones, and one of these begun last would leave the other worker idle.
_FIRST = (
    "test_train_processes.py",
    "test_toy_experiments.py",
    "test_toy_cells.py",
    "test_dry_runs.py",
    "test_evaluation_processes.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]):
    """The slowest files first."""
    items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.fixture
def x64():
    """float64 within one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """`twelve_steps.CONFIG` in one go, a `Run`."""
    from twelve_steps import CONFIG

    from asvae_jax.train import train

    return train(CONFIG, tmp_path_factory.mktemp("straight"))


@pytest.fixture
def package_log(caplog, monkeypatch):
    """`caplog` that hears the package, although a command line which ran before in this process keeps its lines from
    the root logger."""
    monkeypatch.setattr(logging.getLogger("asvae_jax"), "propagate", True)
    return caplog


@pytest.fixture
def originals(tmp_path) -> Path:
    """Where a test puts original files."""
    return tmp_path / "originals"
