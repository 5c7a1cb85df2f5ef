"""Which code made a figure."""

import contextlib
import functools
import importlib.metadata
import subprocess
from pathlib import Path

_PACKAGES = ("asvae_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


def versions(*optional: str) -> dict[str, str]:
    """The versions of the packages that figures depend on, and of those of `optional` that are installed."""
    found = {package: importlib.metadata.version(package) for package in _PACKAGES}
    for package in optional:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


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
