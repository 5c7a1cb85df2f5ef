"""Files that are there whole or not at all."""

import subprocess
import sys

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
