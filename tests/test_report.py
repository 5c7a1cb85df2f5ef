"""How tables reach files: what stands around them stays, whatever happens."""

import csv
from pathlib import Path

import pytest

from asvae_jax.errors import DataError, StorageError
from asvae_jax.experiments.report import write_csv, write_section


def test_words_around_a_section_stay(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nBefore.\n")
    write_section(page, "part", "old\n")
    page.write_text(page.read_text() + "\nAfter.\n")
    write_section(page, "part", "new\n")
    assert page.read_text() == "# Title\n\nBefore.\n\n<!-- part -->\nnew\n<!-- end of part -->\n\nAfter.\n"


def test_a_page_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- part -->\nold\n<!-- end of part -->\n\nAfter.\n")
    before = page.read_text()

    def full(path, content):
        # As far as a full disk takes it.
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        write_section(page, "part", "new\n")
    assert page.read_text() == before
    monkeypatch.undo()
    page.write_text("<!-- part -->\nold\n\nMy words.\n")
    with pytest.raises(DataError, match="no <!-- end of part --> below"):
        write_section(page, "part", "new\n")
    assert "My words." in page.read_text()


def test_a_csv_has_room_for_what_only_some_rows_have(tmp_path):
    write_csv(tmp_path / "rows.csv", [{"seeds": 1, "median": 2.0}, {"seeds": 2, "median": 3.0, "low": 1.5}])
    with (tmp_path / "rows.csv").open() as file:
        assert list(csv.DictReader(file)) == [
            {"seeds": "1", "median": "2.0", "low": ""},
            {"seeds": "2", "median": "3.0", "low": "1.5"},
        ]
