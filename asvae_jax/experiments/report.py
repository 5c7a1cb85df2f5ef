"""How tables reach files: Markdown within a page that may say more, CSV and JSON beside it."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from asvae_jax.errors import DataError
from asvae_jax.figures import png_bytes
from asvae_jax.files import reading, write_whole, writing

OUT = Path("docs/results")
"""Where tables and figures go unless told otherwise."""

CONFIGS = Path("configs")
"""Where the config files of image sets lie unless told otherwise."""


def writing_to(out: Path, command: str) -> str:
    """`command` with the option that makes it write to `out`, if it needs one. An absolute folder is one machine's own
    and is left out."""
    return command if out == OUT or out.is_absolute() else f"{command} --out {out}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write_section(path: Path, name: str, text: str) -> None:
    """Puts `text` between the comments `<!-- name -->` and `<!-- end of name -->` of a page, in the place of what was
    there; they are added at the end of a page that has none, so that words may be written around them.

    Raises:
      DataError: if the page has the first comment without the other, or cannot be read.
      StorageError: if the page cannot be written.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    with reading(path, "move it away"):
        page = path.read_text() if path.exists() else ""
    before, marked, rest = page.partition(begin)
    if marked and end not in rest:
        raise DataError(f"{path} has {begin.strip()} and no {end.strip()} below; put that where the table ends.")
    after = rest.partition(end)[2]
    if before and not before.endswith("\n\n") and not marked:
        before += "\n"
    _write(path, before + begin + text + end + after)


def write_json(path: Path, values: Any) -> None:
    """A JSON file."""
    _write(path, json.dumps(values, indent=1) + "\n")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A CSV file with the keys of all rows as its header; what a row lacks stays empty."""
    text = io.StringIO()
    header = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue())


def write_picture(path: Path, picture: Image.Image) -> None:
    """A PNG file."""
    _write(path, png_bytes(picture))


def _write(path: Path, content: str | bytes) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
