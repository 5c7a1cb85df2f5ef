"""Files that are there whole or not at all, whatever ends the writing, and files that one process holds at a time;
errors and sizes of files in words."""

import contextlib
import errno
import fcntl
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from asvae_jax.errors import DataError, StorageError

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


def write_whole(path: Path, content: str | bytes) -> None:
    """Puts `content` in the place of what `path` held; a full disk or a kill on the way leaves that as it was, and of
    two processes that write at once the last one counts."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Makes a DataError that ends in `remedy` of what a file that is gone, damaged or another's makes Python raise."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}); {remedy}.") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Makes a StorageError of what a file or folder that cannot be written makes Python raise."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error}); see to space and rights.") from error


def check_can_be_made(folder: Path) -> None:
    """Raises a StorageError if a folder is not there and cannot be made, or not be written to, as far as can be told
    without writing."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise StorageError(f"{folder} cannot be written: see to rights on {there}, or choose another folder.")


def make_writable(folder: Path) -> None:
    """Makes a folder and tries it, before there is something to lose.

    Raises:
      StorageError: if it cannot be made or written to.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def gib(size: int) -> str:
    """A number of bytes in words, "1.50 GiB"."""
    return f"{size / 2**30:.2f} GiB"


@contextlib.contextmanager
def held(path: Path, *, patience: float = math.inf) -> Iterator[None]:
    """Holds a file, made if need be, which no other process can hold before this block or this process ends; on a file
    system without locks, as some clusters have, nothing keeps others out.

    Args:
      path: the file.
      patience: seconds to wait for another that holds it.

    Raises:
      BlockingIOError: if it is not to be had in that time.
      OSError: if it cannot be made.
    """
    with path.open("w") as file:
        if not _taken(file):
            _log.warning("%s is held by another process; waiting for its end", path)
            give_up = time.monotonic() + patience
            while not _taken(file):
                if time.monotonic() >= give_up:
                    raise BlockingIOError(f"{path} is held by another process")
                time.sleep(_POLL_SECONDS)
        yield


def _taken(file: IO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
