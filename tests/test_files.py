"""Files that are there whole or not at all, and files that one process holds."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from asvae_jax.files import held, write_whole

WRITER = """
import sys
from pathlib import Path
from asvae_jax.files import write_whole
for _ in range(400):
    write_whole(Path(sys.argv[1]), sys.argv[2] * 100_000)
"""


def test_two_processes_may_write_one_file(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "page.md", letter]) for letter in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert (tmp_path / "page.md").read_text() in ("a" * 100_000, "b" * 100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "page.md", "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_keeps_nobody_out(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path / ".lock"):
        pass


def test_a_lock_that_fails_otherwise_is_told_of(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken disk"), held(tmp_path / ".lock"):
        pass
