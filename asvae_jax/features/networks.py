"""The feature networks by the name that `evaluation.features` gives them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asvae_jax.config import check_word
from asvae_jax.errors import DataError
from asvae_jax.features import digits, weights
from asvae_jax.features.inception import FEATURES, Inception, Resampling, resize
from asvae_jax.presets.image import INCEPTION_FILE


class FeatureNetwork(NamedTuple):
    """Images in, features out.

    `apply(variables, images)` takes uint8 [B, H, W, 1 or 3] to float32 [B, dim]. `suffix` ends the names of figures
    made with it, `sha256` says which weights they are, `resize` how images come to the network's size. With
    `by_batch` an image's features depend on the batch that it is in.
    """

    name: str
    suffix: str
    dim: int
    variables: dict[str, Any]
    apply: Callable[[dict[str, Any], jax.Array], jax.Array]
    sha256: str
    resize: str
    by_batch: bool

    def protocol(self) -> dict[str, Any]:
        """What a figure's reader needs to know of it."""
        return {
            "features": self.name,
            "network_sha256": self.sha256,
            "resize": self.resize,
            "batch_statistics": self.by_batch,
        }


class _Reading(NamedTuple):
    """One way to use Inception."""

    suffix: str
    resampling: Resampling
    by_batch: bool


_INCEPTION = {
    "inception": _Reading("", "half_pixel", False),
    "inception_tf": _Reading("_tf", "corner", False),
    "inception_clean": _Reading("_clean", "antialiased", False),
    "inception_batchstat": _Reading("_batchstat_legacy", "half_pixel", True),
}
_DIGITS_SUFFIX = "_digits"
NAMES = (*_INCEPTION, "digits")
_RESIZE = {
    "half_pixel": "299x299, bilinear without antialiasing, pixel centres at halves (as pytorch-fid)",
    "corner": "299x299, bilinear without antialiasing, pixel centres at corners (as TensorFlow 1)",
    "antialiased": "299x299, bicubic with antialiasing (as clean-fid)",
}


def open_network(name: str, file: str = "") -> FeatureNetwork:
    """The network of a name, with its weights.

    Args:
      name: one of NAMES.
      file: Inception's converted weights; "digits" takes those of the package, or of another file.

    Raises:
      ConfigError: for an unknown name.
      DataError: if the weights are absent, damaged or another network's.
    """
    check_word("features", name, NAMES)
    if name == "digits":
        variables, facts = digits.read(Path(file) if file else digits.SHIPPED_WEIGHTS)
        side = f"{digits.SIDE}x{digits.SIDE}, linear, antialiased where it shrinks"
        return FeatureNetwork(
            name, _DIGITS_SUFFIX, digits.FEATURES, variables, _digit_features, facts["digest"], side, by_batch=False
        )
    path = Path(file).expanduser()
    if not file or not path.is_file():
        raise DataError(
            f"{name} features need Inception's weights, and "
            + (f"there is no file {path}. " if file else "no file was named. ")
            + "Convert pytorch-fid's pt_inception-2015-12-05-6726825d.pth once, python -m asvae_jax convert-inception "
            f"FILE.pth --out inception.safetensors, and name the result: evaluation.features_file, --features-file or "
            f"the environment variable {INCEPTION_FILE}. Or leave out what needs features."
        )
    variables, facts = weights.read_inception(path)
    return inception_network(name, variables, facts["source_sha256"])


def inception_network(name: str, variables: dict[str, Any], sha256: str) -> FeatureNetwork:
    """Inception by one of its names, with given weights."""
    reading = _INCEPTION[name]

    def features(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return _inception_features(variables, images, reading)

    return FeatureNetwork(
        name, reading.suffix, FEATURES, variables, features, sha256, _RESIZE[reading.resampling], reading.by_batch
    )


def figure_name(figure: str, network: FeatureNetwork, count: int) -> str:
    """The name that a figure bears: FID says so where fewer than 10,000 images were compared, since its bias grows as
    they become fewer, and every figure names features other than the standard ones.

    >>> figure_name("fid", open_network("digits"), 5_000)
    'fid_digits_n5000'
    """
    few = f"_n{count}" if figure == "fid" and count < 10_000 else ""
    return f"{figure}{network.suffix}{few}"


def is_figure(shown: str, figure: str) -> bool:
    """Whether a name that `figure_name` gave is of that figure.

    >>> is_figure("fid_digits_n5000", "fid"), is_figure("kl_paper", "kl")
    (True, False)
    """
    suffixes = [*(reading.suffix for reading in _INCEPTION.values()), _DIGITS_SUFFIX]
    return any(re.fullmatch(rf"{figure}{suffix}(_n\d+)?", shown) for suffix in suffixes)


def _digit_features(variables: dict[str, Any], images: jax.Array) -> jax.Array:
    features, _ = digits.DigitNetwork().apply(variables, digits.to_input(images / 255.0))
    return features


def _inception_features(variables: dict[str, Any], images: jax.Array, reading: _Reading) -> jax.Array:
    colour = resize(jnp.broadcast_to(images, (*images.shape[:-1], 3)) / 255.0, reading.resampling)
    # clean-fid takes 128 for the middle, and has what the filter makes stay among the pixels.
    clean = reading.resampling == "antialiased"
    inputs = (255 * jnp.clip(colour, 0, 1) - 128) / 128 if clean else 2 * colour - 1
    # Only statistics of the batch want to be written down; they are thrown away.
    features, _ = Inception(reading.by_batch).apply(variables, inputs, mutable=["batch_stats"])
    return features
