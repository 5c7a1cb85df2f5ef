"""The values that config files share, and the words of a config's variant: `configs/digits.py:sintrovae,tiny`.

Sources: arXiv 2206.13903 (Section 5, Table 1), arXiv 2012.13253 (appendix) and, where a word says `released`, the code
that the AS-IntroVAE authors released. `docs/methods.md` sets them side by side.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from asvae_jax.config import check_word
from asvae_jax.errors import ConfigError
from asvae_jax.settings import IMAGE_SETS, METHOD_SETTINGS, TOYS_WITH_MODES, CelebAData

TABLE1_BETAS = {"c1": (0.3, 0.1, 0.9), "c2": (0.5, 0.1, 0.9), "c3": (0.7, 0.2, 0.9)}
"""The hyper-parameter combinations of Table 1 of arXiv 2206.13903 as (b_kl, b_rec, b_neg)."""

TOY_BETAS = {
    "8gaussians": (0.3, 0.2, 0.9), "2spirals": (0.5, 0.2, 1.0), "checkerboard": (0.1, 0.2, 0.2),
    "rings": (0.2, 0.2, 1.0), "25gaussians": (0.3, 0.2, 0.9),
}  # fmt: skip
"""The same of each toy in arXiv 2012.13253; its authors do not have 25 Gaussians, which take those of 8."""

TOY_MILESTONES = (10_000, 15_000)
"""Steps, of 30,000, at which the rate of the toys' Adam falls to a tenth, in the code of arXiv 2012.13253."""

EMA_DECAY_PUBLISHED = 0.999
"""Per step, in the papers and their code."""

DIGITS = {"digits": 5_000, "mnist5k": 5_000, "mnist": 50_000}
"""The sets that the digits' own feature network is for, and how many images are generated to compare with them."""

INCEPTION_FILE = "ASVAE_JAX_INCEPTION"
"""The environment variable that names Inception's converted weights."""

_BOTH = dict(distance_in="exponent", distance_pairs="rec_fake", kl_rate=5.0, w_enc=1.0, w_dec=1.0, w_dec_growth=1.0)
_DISTANCE = dict(
    kernel="per_dim", bandwidth=0.0, means_bandwidths=(), late_from=0.0, late_alpha_factor=1.0,
    late_w_enc_factor=1.0, w_exp=1.0, statistic="V", root_distance=False, squash_distance=True, balance_pulls=False,
    slope_weight=0.0, slope_until=0.0,
)  # fmt: skip
_MEANS = dict(
    over_pairs_encoder="mean", over_dims_encoder="sum", over_pairs_decoder="mean", over_dims_decoder="sum",
)  # fmt: skip
READINGS: dict[str, dict[str, Any]] = {
    # The equations of arXiv 2206.13903.
    "paper": dict(**_BOTH, **_DISTANCE, **_MEANS, kl_schedule="linear", squash_decoder_kl=False),
    # The arithmetic of its released code.
    "released": dict(
        **_BOTH, **_DISTANCE, kl_schedule="tanh", over_pairs_encoder="sum", over_dims_encoder="sum",
        over_pairs_decoder="mean", over_dims_decoder="mean", squash_decoder_kl=True,
    ),
    # Ours: docs/methods.md, why: docs/results/recommended.md. The rest is `_Recommended`, or `_method`'s.
    "recommended": dict(
        **_MEANS, distance_in="loss", distance_pairs="real_fake", kernel="product", statistic="V", root_distance=True,
        squash_distance=False, kl_schedule="none", kl_rate=0.0, squash_decoder_kl=False, w_dec_growth=1.0,
        late_w_enc_factor=1.0,
    ),
}  # fmt: skip


class Betas(NamedTuple):
    """Weights of KL, reconstruction error and the fake side's KL, in the order of the papers' tables."""

    b_kl: float
    b_rec: float
    b_neg: float


def toy_betas(name: str, word: str | None) -> Betas:
    """The weights of a toy under a word of Table 1 ("c1"), or its own under none."""
    return Betas(*(TABLE1_BETAS[word] if word else TOY_BETAS[name]))


def kl_to_c1(betas: Betas) -> float:
    """b_kl as a multiple of C1's."""
    return betas.b_kl / Betas(*TABLE1_BETAS["c1"]).b_kl


class IntroVaeBetas(NamedTuple):
    """IntroVAE's own weights and its margin in nats."""

    b_kl: float
    b_rec: float
    b_neg: float
    margin: float


class _Recommended(NamedTuple):
    """What `recommended` does not share between toys and images.

    Fields:
      method, optimizer: settings of these sections.
    """

    method: Mapping[str, float | bool | tuple[float, ...]]
    optimizer: Mapping[str, float]


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


def toys(variant: str, *, name: str) -> ConfigDict:
    """A 2-D toy: the settings of arXiv 2012.13253, appendix, and the warm-up of the released AS-IntroVAE code.

    Words: a method (default asintrovae), `paper`, `released` or `recommended` (default paper), `c1`, `c2`, `c3` for
      Table 1's betas, `tiny`.
    """
    words = _Words(variant, extra=tuple(TABLE1_BETAS))
    betas = toy_betas(name, words.extra)
    batch_size = 512
    # Where modes lie apart the game is that of C1 whatever b_kl: the encoder's weight of D, its exponential and the
    # bound on the slope go with KL's. Beside a light KL a greater weight of D leaves strays, beside a heavy one the
    # game may break down with a smaller; and with an exponential of weight 1 the encoder is then content with next to
    # no KL where samples are too many.
    apart = name in TOYS_WITH_MODES
    stake = kl_to_c1(betas) if apart else 1.0
    # On 8 Gaussians the encoder gets ever faster, since the decoder may outrun it near the end. On 25, some of which
    # are found late, it leaves a few unfound then; it does harm on the checkerboard, and changes little elsewhere.
    encoder_factor, encoder_rise = (9.0, 1.0) if name == "8gaussians" else (3.0, 0.5)
    recommended = _Recommended(
        method=dict(
            w_enc=stake if apart else 2.5,
            # How hard KL pulls differs between toys and falls in training; a D of fixed weight drowns it where it is
            # weak. Where no mode is in danger a D that pulls harder than KL blurs, unless KL has next to nothing to
            # tell: the encoder learns to tell fake points apart by b_neg.
            w_dec=3.0 if apart else 1 / betas.b_neg, balance_pulls=True,
            # D parts the modes; the distance of the means, which sees their shape, comes when they are parted. It pulls
            # at the encoder as hard as ever, so the exponential must last from then on: only by the KL of its code does
            # the encoder tell a sample between modes from a real point. One that lasts from the start loses modes.
            means_bandwidths=(0.1, 0.0125), late_from=0.25, late_alpha_factor=0.25,
            w_exp=stake, slope_weight=1e-3 * stake, slope_until=0.5,
        ),
        optimizer=dict(
            learning_rate=9e-4, fall_power=2.0, final_factor=0.01,
            encoder_factor=encoder_factor, encoder_rise=encoder_rise,
        ),
    )  # fmt: skip
    # The papers give no margin for the toys; real codes end up between 2 and 5 nats.
    introvae = IntroVaeBetas(*betas, margin=5.0)
    method = _method(words, betas, introvae, recommended, scale=0.5, latent_dim=2)
    config = ConfigDict(
        dict(
            seed=0,
            method=method,
            model=dict(
                kind="mlp", widths=(256,) * 4, latent_dim=2, compute_dtype="float32", logvar_range=(-30.0, 20.0)
            ),
            data=dict(name=name, batch_size=batch_size),
            optimizer=_optimizer(words, recommended, TOY_MILESTONES),
            ema=_ema(words, batch_size),
            training=dict(
                steps=30_000, warmup_steps=2_000 if words.warms_up else 0,
                steps_per_dispatch=500, log_every_steps=1_000, max_skipped_steps=20,
            ),
            checkpoint=dict(every_steps=5_000, keep_last=2, keep_every_steps=0),
            evaluation=dict(samples=5_000, every_steps=0, best="none"),
        )
    )  # fmt: skip
    if words.tiny:
        config.model.widths = (16, 16)
        config.data.batch_size = 32
        config.ema.update(_ema(words, 32))
        config.evaluation.samples = 500
        config.optimizer.milestone_steps = ()
        config.training.update(
            steps=20, warmup_steps=min(config.training.warmup_steps, 10), steps_per_dispatch=5, log_every_steps=10
        )
        config.checkpoint.every_steps = 10
    return config


def images(
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
    warmup_steps: int = 0,
    short: bool = False,
) -> ConfigDict:
    """An image set. Words: a method (default asintrovae), `paper`, `released` or `recommended` (default paper), `tiny`;
    for CelebA `full_frame`. `shape` is for a set that may have any. A `short` run is averaged over a share of its own
    images, by every method: after 2,000 steps the published average still holds 14 % of the initial weights."""
    is_celeba = IMAGE_SETS[name].settings is CelebAData
    words = _Words(variant, extra=("full_frame",) if is_celeba else ())
    data = image_data(name, batch_size=batch_size, **(FULL_FRAME if words.extra else {}))
    if shape is not None:
        data["shape"] = tuple(shape)
    # Beside the many nats of an image's code a toy's stake would drown the reconstruction: docs/results/README.md.
    # Balanced pulls, a distance of the means, a lasting exponential, a bound on the codes' slope and a rate of the
    # encoder's own are untried on images.
    recommended = _Recommended(
        method=dict(
            w_enc=0.25, w_dec=1.0, balance_pulls=False, means_bandwidths=(), late_from=0.0, late_alpha_factor=1.0,
            w_exp=1.0, slope_weight=0.0, slope_until=0.0,
        ),
        optimizer=dict(learning_rate=2 * learning_rate, final_factor=0.02),
    )  # fmt: skip
    scale = 1 / math.prod(data["shape"])
    method = _method(words, betas, introvae, recommended, scale=scale, latent_dim=latent_dim)
    ema = _ema(words, batch_size)
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
            optimizer=_optimizer(words, recommended, milestone_steps, learning_rate),
            ema=ema,
            training=dict(
                steps=steps, warmup_steps=warmup_steps if words.warms_up else 0,
                steps_per_dispatch=1, log_every_steps=50, max_skipped_steps=20,
            ),
            checkpoint=dict(every_steps=500, keep_last=3, keep_every_steps=0),
            evaluation=_image_evaluation(name, batch_size),
        )
    )  # fmt: skip
    if words.tiny:
        config.model.update(channels=(4, 4), latent_dim=4)
        config.data.batch_size = 16
        config.ema.update(_ema(words, 16))
        config.optimizer.milestone_steps = ()
        config.training.update(steps=4, warmup_steps=min(config.training.warmup_steps, 2), log_every_steps=2)
        config.checkpoint.every_steps = 2
        config.evaluation.update(batch_size=50, calibration_batches=2, samples=100)
    return config


def variant_of(method: Mapping[str, Any]) -> str:
    """The words for a method's settings, as far as a reading has a name: "asintrovae,released", "vae"."""
    for word, reading in READINGS.items():
        if method["name"] == "asintrovae" and reading.items() <= dict(method).items():
            return f"asintrovae,{word}"
    return str(method["name"])


class _Words:
    """A variant taken apart: at most one method, one reading, one extra word, and `tiny`."""

    def __init__(self, variant: str, extra: tuple[str, ...]):
        words = [word.strip() for word in (variant or "").split(",") if word.strip()]
        for word in words:
            check_word("variant", word, [*METHOD_SETTINGS, *READINGS, *extra, "tiny"])
        self.method = self._one(words, tuple(METHOD_SETTINGS)) or "asintrovae"
        reading = self._one(words, tuple(READINGS))
        if reading and self.method != "asintrovae":
            raise ConfigError(
                f"variant word {reading!r} is a reading of asintrovae; {self.method} has one reading only."
            )
        self.reading = reading or "paper"
        self.extra = self._one(words, extra)
        self.tiny = "tiny" in words
        # A plain VAE is one; a GAN has none; D outside the exponential needs none.
        self.warms_up = self.method not in ("vae", "wgan_gp") and self.reading != "recommended"

    @staticmethod
    def _one(words: list[str], among: tuple[str, ...]) -> str | None:
        found = [word for word in words if word in among]
        if len(found) > 1:
            raise ConfigError(f"variant words {' and '.join(found)} exclude each other; keep one.")
        return found[0] if found else None


def _method(
    words: _Words, betas: Betas, introvae: IntroVaeBetas, recommended: _Recommended, *, scale: float, latent_dim: int
) -> dict[str, Any]:
    if words.method == "vae":
        return dict(name="vae", b_rec=betas.b_rec, b_kl=betas.b_kl, scale=scale)
    if words.method == "introvae":
        return dict(name="introvae", **introvae._asdict())
    if words.method == "wgan_gp":
        return dict(name="wgan_gp", gp_weight=10.0, critic_steps=5)
    soft = dict(name=words.method, **betas._asdict(), scale=scale, alpha=2.0, gamma_r=1e-8, rec_target_gradient=True)
    if words.method == "sintrovae":
        return soft
    if words.reading == "recommended":
        # The bandwidth is a quarter of the mean squared distance of two standard normal codes, whatever Z.
        soft |= dict(bandwidth=latent_dim / 2, **recommended.method)
    return {**soft, **READINGS[words.reading]}


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


def _optimizer(
    words: _Words, recommended: _Recommended, milestone_steps: Sequence[int], learning_rate: float = 2e-4
) -> dict[str, Any]:
    adam = dict(
        learning_rate=learning_rate, encoder_factor=1.0, encoder_rise=0.0, b1=0.9, b2=0.999, final_factor=1.0,
        fall_power=1.0,
    )  # fmt: skip
    if words.method == "wgan_gp":
        adam |= dict(learning_rate=1e-4, b1=0.0, b2=0.9)
    elif words.reading == "recommended":
        # Momentum carries a game past its equilibrium. How far it swings about it goes with the rate, how sharply modes
        # are parted with the sum of all rates: a high one at first, that falls without a jump. An encoder that is fast
        # from the start loses modes.
        adam |= dict(b1=0.0, b2=0.99, **recommended.optimizer)
        milestone_steps = ()
    return dict(**adam, milestone_steps=tuple(milestone_steps), milestone_factor=0.1, clip_norm=0.0)


def _ema(words: _Words, batch_size: int) -> dict[str, float]:
    """The published half-life, in images, of a fixed decay per step; for `recommended` a share of the images seen, as
    swings become slow when the rate falls."""
    if words.reading == "recommended":
        return dict(half_life_images=1e9, ramp_up=0.05)
    return dict(half_life_images=batch_size * math.log(0.5) / math.log(EMA_DECAY_PUBLISHED), ramp_up=0.0)


def usual_file(features: str) -> str:
    """Where a feature network's weights lie, if the environment says so; the digits' come with the package."""
    return "" if features == "digits" else os.environ.get(INCEPTION_FILE, "")


def _data_dir() -> str:
    """Where TFDS itself looks."""
    return os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))
