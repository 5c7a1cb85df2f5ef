"""The words of a config's variant, `configs/digits.py:sintrovae,tiny`, and the sections of a config that go with them
whatever the data.

`docs/methods.md` sets the sources side by side: arXiv 2206.13903 (`paper`), the code that its authors released
(`released`) and arXiv 2012.13253 (the optimizer, `alpha`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asvae_jax.config import check_word
from asvae_jax.errors import ConfigError
from asvae_jax.settings import METHOD_SETTINGS

EMA_DECAY_PUBLISHED = 0.999
"""Per step, in the papers and their code."""

_BOTH = dict(distance_in="exponent", distance_pairs="rec_fake", kl_rate=5.0, w_enc=1.0, w_dec=1.0)
_DISTANCE = dict(
    kernel="per_dim", bandwidth=0.0, means_bandwidths=(), late_from=0.0, late_alpha_factor=1.0,
    late_w_enc_factor=1.0, w_exp=1.0, statistic="V", root_distance=False, squash_distance=True, balance_pulls=False,
    slope_weight=0.0, slope_until=0.0, w_latent=0.0, latent_rise=0.0,
)  # fmt: skip
_REDUCTIONS = dict(
    over_pairs_encoder="mean", over_dims_encoder="sum", over_pairs_decoder="mean", over_dims_decoder="sum",
)  # fmt: skip
READINGS: dict[str, dict[str, Any]] = {
    # The equations of arXiv 2206.13903.
    "paper": dict(**_BOTH, **_DISTANCE, **_REDUCTIONS, kl_schedule="linear", squash_decoder_kl=False),
    # The arithmetic of its released code.
    "released": dict(
        **_BOTH, **_DISTANCE, kl_schedule="tanh", over_pairs_encoder="sum", over_dims_encoder="sum",
        over_pairs_decoder="mean", over_dims_decoder="mean", squash_decoder_kl=True,
    ),
    # Ours: docs/methods.md, why: docs/results/recommended.md. The rest is `Recommended`, or `Words.method_section`'s.
    "recommended": dict(
        **_REDUCTIONS, distance_in="loss", distance_pairs="real_fake", kernel="product", statistic="V",
        root_distance=True, squash_distance=False, kl_schedule="none", kl_rate=0.0, squash_decoder_kl=False,
        late_w_enc_factor=1.0,
    ),
}  # fmt: skip


class Betas(NamedTuple):
    """Weights of KL, reconstruction error and the fake side's KL, in the order of the papers' tables."""

    b_kl: float
    b_rec: float
    b_neg: float


class IntroVaeBetas(NamedTuple):
    """IntroVAE's own weights and its margin in nats."""

    b_kl: float
    b_rec: float
    b_neg: float
    margin: float


class Recommended(NamedTuple):
    """What `recommended` does not share between toys and images.

    Fields:
      method, optimizer: settings of these sections.
    """

    method: Mapping[str, float | bool | tuple[float, ...]]
    optimizer: Mapping[str, float]


def variant_of(method: Mapping[str, Any]) -> str:
    """The words for a method's settings, as far as a reading has a name: "asintrovae,released", "vae"."""
    for word, reading in READINGS.items():
        if method["name"] == "asintrovae" and reading.items() <= dict(method).items():
            return f"asintrovae,{word}"
    return str(method["name"])


class Words:
    """A variant taken apart: at most one method, one reading, one of the words in `extra`, and `tiny`.

    Raises:
      ConfigError: if a word is not known, two exclude each other, or a reading is of another method.
    """

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

    def method_section(
        self, betas: Betas, introvae: IntroVaeBetas, recommended: Recommended, *, scale: float, latent_dim: int
    ) -> dict[str, Any]:
        """The method that the words name, with those of the weights that it has; `scale` as in `settings.Vae`."""
        if self.method == "vae":
            return dict(name="vae", b_rec=betas.b_rec, b_kl=betas.b_kl, scale=scale)
        if self.method == "introvae":
            return dict(name="introvae", **introvae._asdict())
        if self.method == "wgan_gp":
            return dict(name="wgan_gp", gp_weight=10.0, critic_steps=5)
        soft = dict(name=self.method, **betas._asdict(), scale=scale, alpha=2.0, gamma_r=1e-8, rec_target_gradient=True)
        if self.method == "sintrovae":
            return soft
        if self.reading == "recommended":
            # The bandwidth is a quarter of the mean squared distance of two standard normal codes, whatever Z.
            soft |= dict(bandwidth=latent_dim / 2, **recommended.method)
        return {**soft, **READINGS[self.reading]}

    def optimizer_section(
        self, recommended: Recommended, milestone_steps: Sequence[int], learning_rate: float = 2e-4
    ) -> dict[str, Any]:
        """Adam; WGAN-GP has a rate of its own, `recommended` one that falls without milestones."""
        adam = dict(
            learning_rate=learning_rate, encoder_factor=1.0, encoder_rise=0.0, b1=0.9, b2=0.999, final_factor=1.0,
            fall_power=1.0,
        )  # fmt: skip
        if self.method == "wgan_gp":
            adam |= dict(learning_rate=1e-4, b1=0.0, b2=0.9)
        elif self.reading == "recommended":
            # Momentum carries a game past its equilibrium. How far it swings about it goes with the rate, how sharply
            # modes are parted with the sum of all rates: a high one at first, that falls without a jump. An encoder
            # that is fast from the start loses modes.
            adam |= dict(b1=0.0, b2=0.99, **recommended.optimizer)
            milestone_steps = ()
        return dict(**adam, milestone_steps=tuple(milestone_steps), milestone_factor=0.1, clip_norm=0.0)

    def ema_section(self, batch_size: int) -> dict[str, float]:
        """The published half-life, in images, of a fixed decay per step; for `recommended` a share of the images seen,
        as swings become slow when the rate falls."""
        if self.reading == "recommended":
            return dict(half_life_images=1e9, ramp_up=0.05)
        return dict(half_life_images=batch_size * math.log(0.5) / math.log(EMA_DECAY_PUBLISHED), ramp_up=0.0)

    @staticmethod
    def _one(words: list[str], among: tuple[str, ...]) -> str | None:
        found = [word for word in words if word in among]
        if len(found) > 1:
            raise ConfigError(f"variant words {' and '.join(found)} exclude each other; keep one.")
        return found[0] if found else None
