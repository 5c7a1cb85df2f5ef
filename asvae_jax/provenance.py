"""Which code made a figure, and on what."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import jax

_PACKAGES = ("asvae_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


def versions(*optional: str) -> dict[str, str]:
    """The versions of the packages that figures depend on, and of those of `optional` that are installed."""
    found = {package: importlib.metadata.version(package) for package in _PACKAGES}
    for package in optional:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def device_name() -> str:
    """The kind of jax's devices here; of a CPU also its model, and how many cores this process may use."""
    kind = jax.devices()[0].device_kind
    if jax.default_backend() != "cpu":
        return kind
    cores = _cores()
    return f"{kind} ({_processor()}, {cores} core{'' if cores == 1 else 's'})"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    # Not every system tells what a process is held to.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def commit() -> str:
    """The git commit of this code, with "+changes" where files under version control differ from it, or "unknown" for
    an installed package. As it was when first asked for."""
    here = Path(__file__).parent
    try:
        # A package that lies in somebody else's repository is not that repository's code.
        tracked = _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        return _git(here, "rev-parse", "HEAD") + ("+changes" if tracked and _git(here, "diff", "HEAD", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()
