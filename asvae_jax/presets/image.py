"""The image sets' configs: what is common to their data, evaluation and training; a file in configs/ adds the rest."""

import math
import os
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from asvae_jax.presets.variants import Betas, IntroVaeBetas, Recommended, Words
from asvae_jax.settings import IMAGE_SETS, CelebAData

DIGITS = {"digits": 5_000, "mnist5k": 5_000, "mnist": 50_000}
"""The sets that the digits' own feature network is for, and how many images are generated to compare with them."""

INCEPTION_FILE = "ASVAE_JAX_INCEPTION"
"""The environment variable that names Inception's converted weights."""

_PHOTOGRAPHS = dict(flip=True, crop="none", resize="bilinear")
IMAGE_DATA: dict[str, dict[str, Any]] = {
    "digits": dict(flip=False),
    "mnist5k": dict(flip=False),
    "faces25": dict(flip=True),
    "photos32": dict(flip=True),
    "photos64": dict(flip=True),
    "photos128": dict(flip=True),
    "mnist": dict(flip=False),
    "cifar10": dict(flip=False),
    "oxford_buildings": dict(_PHOTOGRAPHS),
    "celeba128": dict(_PHOTOGRAPHS, crop="centre148", partition="official"),
    "celeba256": dict(_PHOTOGRAPHS, crop="centre148", partition="official"),
    "celebahq1024": dict(_PHOTOGRAPHS),
    "image_folder": dict(_PHOTOGRAPHS, crop="square", shape=(128, 128, 3), label="images"),
}
"""What the configs, `prepare` and `inspect` start from, for each image set."""

FULL_FRAME = dict(crop="none", partition="all")
"""CelebA as arXiv 2206.13903 seems to have used it: every file, the whole frame resized to a square."""


def image_data(name: str, **changes: Any) -> dict[str, Any]:
    """The data section of an image set, but for the batch size."""
    shape = IMAGE_SETS[name].shape
    known = {} if shape is None else dict(shape=shape)
    common = dict(name=name, value_range=(0.0, 1.0), read_threads=4, data_dir=_data_dir())
    return {**common, **known, **IMAGE_DATA[name], **changes}


def image_config(
    variant: str,
    *,
    name: str,
    channels: Sequence[int],
    latent_dim: int,
    batch_size: int,
    steps: int,
    betas: Betas,
    introvae: IntroVaeBetas,
    shape: Sequence[int] | None = None,
    learning_rate: float = 2e-4,
    milestone_steps: Sequence[int] = (),
    short: bool = False,
) -> ConfigDict:
    """An image set. Words: a method (default asintrovae), `paper`, `released` or `recommended` (default paper), `tiny`;
    for CelebA `full_frame`. `shape` is for a set that may have any. A `short` run is averaged over a share of its own
    images, by every method: after 2,000 steps the published average still holds 14 % of the initial weights."""
    is_celeba = IMAGE_SETS[name].settings is CelebAData
    words = Words(variant, extra=("full_frame",) if is_celeba else ())
    data = image_data(name, batch_size=batch_size, **(FULL_FRAME if words.extra else {}))
    if shape is not None:
        data["shape"] = tuple(shape)
    # Beside the many nats of an image's code a toy's stake would drown the reconstruction: docs/results/README.md.
    # Balanced pulls, a distance of the means, a lasting exponential, a bound on the codes' slope and a rate of the
    # encoder's own are untried on images.
    recommended = Recommended(
        method=dict(
            w_enc=0.25, w_dec=1.0, balance_pulls=False, means_bandwidths=(), late_from=0.0, late_alpha_factor=1.0,
            w_exp=1.0, slope_weight=0.0, slope_until=0.0, w_latent=0.0, latent_rise=0.0,
        ),
        optimizer=dict(learning_rate=2 * learning_rate, final_factor=0.02),
    )  # fmt: skip
    scale = 1 / math.prod(data["shape"])
    method = words.method_section(betas, introvae, recommended, scale=scale, latent_dim=latent_dim)
    ema = words.ema_section(batch_size)
    if short:
        ema = dict(half_life_images=batch_size * steps / 16, ramp_up=0.05)
    config = ConfigDict(
        dict(
            seed=0,
            method=method,
            model=dict(
                kind="conv", channels=tuple(channels), latent_dim=latent_dim, norm="batch", compute_dtype="float32",
                logvar_range=(-30.0, 20.0),
            ),
            data=data,
            optimizer=words.optimizer_section(recommended, milestone_steps, learning_rate),
            ema=ema,
            training=dict(
                steps=steps, warmup_steps=0, steps_per_dispatch=1, log_every_steps=50,
                max_skipped_steps=20, max_negative_intervals=0,
            ),
            checkpoint=dict(every_steps=500, keep_last=3, keep_every_steps=0),
            evaluation=_image_evaluation(name, batch_size),
        )
    )  # fmt: skip
    if words.tiny:
        config.model.update(channels=(4, 4), latent_dim=4)
        config.data.batch_size = 16
        config.ema.update(words.ema_section(16))
        config.optimizer.milestone_steps = ()
        config.training.update(steps=4, log_every_steps=2)
        config.checkpoint.every_steps = 2
        config.evaluation.update(batch_size=50, calibration_batches=2, samples=100)
    return config


def _image_evaluation(name: str, batch_size: int) -> dict[str, Any]:
    """Sets of digits are compared by the small network that comes with the package. Inception is to be asked for: its
    weights are the user's to supply."""
    is_digits = name in DIGITS
    features = "digits" if is_digits else "inception"
    by_features = ("fid", "kid", "precision_recall") if is_digits else ()
    return dict(
        batch_size=batch_size, calibration_batches=16, samples=DIGITS[name] if is_digits else 50_000,
        measures=("reconstruction", "codes", *by_features), features=features, features_file=usual_file(features),
        reference_file="", every_steps=0, best="none",
    )  # fmt: skip


def usual_file(features: str) -> str:
    """Where a feature network's weights lie, if the environment says so; the digits' come with the package."""
    return "" if features == "digits" else os.environ.get(INCEPTION_FILE, "")


def _data_dir() -> str:
    """Where TFDS itself looks."""
    return os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))
