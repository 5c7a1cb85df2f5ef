"""Files that are there whole or not at all, whatever ends the writing."""

from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Puts `content` in the place of what `path` held; a full disk or a kill on the way leaves that as it was."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)
