"""Any folder of images."""

import os
from pathlib import Path

from PIL import Image

from asvae_jax.data.builders import Example, Examples, PreparedImages, held_out
from asvae_jax.errors import DataError


class ImageFolder(PreparedImages):
    """The image files of a folder and of all folders below it."""

    name = "asvae_image_folder"
    NOTE = "A tenth of the images is held out by the digests of their paths within the folder."

    def source(self) -> str:
        return str(self.builder_config.manual_dir.resolve())

    def splits(self, files: list[Path]) -> dict[str, Examples]:
        (folder,) = files
        names = image_files(folder)
        test = held_out(names)

        def examples(chosen: list[str]) -> Examples:
            return Examples(
                len(chosen),
                (Example(folder / name, os.fsencode(name).decode(errors="backslashreplace")) for name in chosen),
            )

        return {"train": examples([name for name in names if name not in test]), "test": examples(sorted(test))}


def image_files(folder: Path) -> list[str]:
    """Paths within the folder, by name; hidden files and folders are not looked at, links to folders are not
    followed.

    Raises:
      DataError: if there are fewer than two.
    """
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder}; give the one that holds your images (prepare --manual-dir, benchmark-data "
            "--source)."
        )
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    names = [name for name in names if (folder / name).is_file()]
    if len(names) < 2:
        raise DataError(
            f"{folder} holds {len(names)} image files (.jpg, .png, .webp and what else Pillow reads, in all folders "
            "below it), and a training and a test split need at least two."
        )
    return names
