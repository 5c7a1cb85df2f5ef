"""A reference file that is damaged is refused by its name."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from reference_files import arrays_of, expected

from asvae_jax.errors import DataError
from asvae_jax.generation import read_reference


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5_000])


def flipped(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        at = file.getinfo("sigma.npy").header_offset + 500
    content = bytearray(path.read_bytes())
    content[at] ^= 0x40
    path.write_bytes(content)


def without_means(path: Path) -> None:
    arrays = arrays_of(path)
    del arrays["mu"]
    np.savez(path, **arrays)


def without_features(path: Path) -> None:
    arrays = arrays_of(path)
    del arrays["features"]
    np.savez(path, **arrays)


def of_another_shape(path: Path) -> None:
    arrays = arrays_of(path)
    np.savez(path, **{**arrays, "sigma": arrays["sigma"][:-1]})


def not_finite(path: Path) -> None:
    arrays = arrays_of(path)
    arrays["sigma"][3, 3] = np.nan
    np.savez(path, **arrays)


def text(path: Path) -> None:
    path.write_text("This is no archive.")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


DAMAGE = [
    cut_off, flipped, without_means, without_features, of_another_shape, not_finite, text, empty, one_array, Path.unlink
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=[damage.__name__ for damage in DAMAGE])
def test_file_that_cannot_be_read_is_refused_by_name(damage, train_file, tmp_path):
    path = tmp_path / "damaged.npz"
    path.write_bytes(train_file.read_bytes())
    damage(path)
    with pytest.raises(DataError, match=r"damaged\.npz") as error:
        read_reference(path, expected())
    assert error.value.exit_code == 2
