"""The files that a data set is published as: found where the user has put them, checked, or downloaded."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asvae_jax.errors import DataError

_log = logging.getLogger(__name__)

_CONNECT_SECONDS = 20
_CHUNK = 1 << 20


class SourceFile(NamedTuple):
    """A published file.

    Fields:
      name: as published; or several names, separated by "|", of which the first that is there is taken.
      size: in bytes; None where it is not known.
      sha256: None where it is not known.
      url: None if a program cannot download it.
    """

    name: str
    size: int | None = None
    sha256: str | None = None
    url: str | None = None

    def __str__(self) -> str:
        return self.name.replace("|", " or ") + (f" ({self.size:,} bytes)" if self.size else "")


def find_files(files: Sequence[SourceFile], folder: Path, homepage: str) -> list[Path]:
    """The files in `folder`, in order; those that are missing and can be downloaded are, into that folder.

    Raises:
      DataError: names each file that is missing, or is not the published one, and where it belongs.
    """
    found: dict[SourceFile, Path] = {}
    missing: dict[SourceFile, str] = {}
    silent: dict[str, str] = {}
    for file in files:
        if path := _existing(file, folder):
            found[file] = path
        elif file.url is None:
            missing[file] = "a program cannot download it"
        elif (host := str(urllib.parse.urlsplit(file.url).hostname)) in silent:
            missing[file] = silent[host]
        else:
            try:
                found[file] = _download(file, folder)
            except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
                # One wait for each host is enough.
                missing[file] = silent[host] = f"{host} does not answer: {str(getattr(error, 'reason', error)).strip()}"
    if missing:
        why = "; ".join(sorted(set(missing.values())))
        raise DataError(
            f"Missing: {', '.join(map(str, missing))}. Download by hand ({why}); see {homepage}. Place in {folder}, or "
            "name another folder with --manual-dir, and run the same command again."
        )
    for file, path in found.items():
        _check(file, path)
    return [found[file] for file in files]


def _existing(file: SourceFile, folder: Path) -> Path | None:
    return next((folder / name for name in file.name.split("|") if (folder / name).is_file()), None)


def _check(file: SourceFile, path: Path) -> None:
    remedy = "The download was cut short, or it is another file: remove it, get it again and run the same command."
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise DataError(f"{path} has {size:,} bytes, the published file {file.size:,}. {remedy}")
    if file.sha256 is not None:
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        if sha256 != file.sha256:
            raise DataError(f"{path} has SHA-256 {sha256}, the published file {file.sha256}. {remedy}")


def _download(file: SourceFile, folder: Path) -> Path:
    """Only a whole and right file ever has the published name."""
    assert file.url is not None
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / file.name, folder / f"{file.name}.part"
    try:
        with urllib.request.urlopen(file.url, timeout=_CONNECT_SECONDS) as answer, part.open("wb") as out:
            _log.info("Downloading %s", file)
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
        _check(file, part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.rename(path)
    return path
