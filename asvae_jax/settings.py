"""What a run depends on, as typed dataclasses.

They hold no defaults: a config file (with `asvae_jax.presets`) gives every value. What a method never uses has no
field to go to, so that setting it is an error; of values that contradict each other `asvae_jax.checks` tells.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple


@dataclasses.dataclass(frozen=True)
class Vae:
    """Weights of reconstruction error and KL; `scale` is the size of one pixel, 1 / (H * W * C)."""

    name: Literal["vae"]
    b_rec: float
    b_kl: float
    scale: float


@dataclasses.dataclass(frozen=True)
class IntroVae:
    """`margin` is in nats. The method's own losses have no `scale`."""

    name: Literal["introvae"]
    b_rec: float
    b_kl: float
    b_neg: float
    margin: float


@dataclasses.dataclass(frozen=True)
class SIntroVae:
    """Weights of reconstruction error, KL and the KL within the exponential, `scale` as in `Vae`; `alpha` is how fast
    the exponential falls, `gamma_r` weighs the errors of re-decodings. `rec_target_gradient`: whether the encoder
    phase's err_rec also moves its target, the rec image."""

    name: Literal["sintrovae"]
    b_rec: float
    b_kl: float
    b_neg: float
    scale: float
    alpha: float
    gamma_r: float
    rec_target_gradient: bool


@dataclasses.dataclass(frozen=True)
class AsIntroVae:
    """S-IntroVAE's numbers, the annealing of the KL weight and the AS-Distance D; `docs/methods.md` has the equations.

    - The weight of KL: `kl_schedule` and `kl_rate`, which is 5 in the paper, the weight itself (at most 1) if constant.
    - How D is measured: `kernel`, `statistic`, `root_distance`, `squash_distance` and the reductions `over_pairs_...`
      and, of `per_dim` alone, `over_dims_...`. `bandwidth` is h^2, in squared units of codes, 0 for none;
      `means_bandwidths` are those of a second distance, of the codes' means, () for none.
    - Where D stands: between `distance_pairs`; for the encoder within the exponent or in the loss, `distance_in`, with
      the weight `w_enc`; for the decoder with `w_dec`. Both count beside a KL in nats; with `balance_pulls` that of the
      decoder is in proportion to the gradients of KL and D.
    - `w_exp` weighs the exponential. `late_from` (at most 0.5) is the share of the steps after which the second
      distance comes in, `alpha` goes to `late_alpha_factor` and `w_enc` to `late_w_enc_factor` of itself.
    - `slope_weight` bounds the slope of the codes and falls to nothing over the share `slope_until` of the steps.
    - `w_latent` weighs the squared error, summed over Z, of latents as the codes of their decodings tell them; both
      networks pay it, beside a KL in nats. It rises from nothing over the share `latent_rise` of the steps, 0 for at
      once.
    - `squash_decoder_kl`: whether the decoder sees the KL of squashed codes.
    """

    name: Literal["asintrovae"]
    b_rec: float
    b_kl: float
    b_neg: float
    scale: float
    alpha: float
    w_exp: float
    gamma_r: float
    rec_target_gradient: bool
    kl_schedule: Literal["linear", "tanh", "constant", "none"]
    kl_rate: float
    distance_in: Literal["exponent", "loss"]
    distance_pairs: Literal["rec_fake", "real_fake"]
    kernel: Literal["per_dim", "product", "prior", "means", "constant"]
    bandwidth: float
    means_bandwidths: tuple[float, ...]
    late_from: float
    late_alpha_factor: float
    late_w_enc_factor: float
    statistic: Literal["V", "U"]
    root_distance: bool
    squash_distance: bool
    over_pairs_encoder: Literal["mean", "sum"]
    over_dims_encoder: Literal["mean", "sum"]
    over_pairs_decoder: Literal["mean", "sum"]
    over_dims_decoder: Literal["mean", "sum"]
    w_enc: float
    w_dec: float
    balance_pulls: bool
    squash_decoder_kl: bool
    slope_weight: float
    slope_until: float
    w_latent: float
    latent_rise: float


@dataclasses.dataclass(frozen=True)
class WganGp:
    """`gp_weight` is lambda; the generator moves at every `critic_steps`-th step, the critic at each."""

    name: Literal["wgan_gp"]
    gp_weight: float
    critic_steps: int


@dataclasses.dataclass(frozen=True)
class ConvModel:
    """The papers' residual networks; `channels` from the image inwards. Codes' log-variances are clamped to
    `logvar_range`."""

    kind: Literal["conv"]
    channels: tuple[int, ...]
    latent_dim: int
    norm: Literal["batch", "group", "none"]
    compute_dtype: Literal["float32", "bfloat16"]
    logvar_range: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class MlpModel:
    """ReLU layers of the given widths, for encoder and decoder alike.

    Fields:
      initial_gain: the decoder begins near z -> initial_gain * z; 0 for the map that its random weights happen to make.
        1 spreads its first samples as widely as data of variance one.
    """

    kind: Literal["mlp"]
    widths: tuple[int, ...]
    latent_dim: int
    compute_dtype: Literal["float32", "bfloat16"]
    logvar_range: tuple[float, ...]
    initial_gain: float


@dataclasses.dataclass(frozen=True)
class ToyData:
    """Points drawn on the device within the step; `batch_size` is global."""

    name: str
    batch_size: int


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images [H, W, C] as `shape`, prepared under `data_dir` (a folder or a bucket); `batch_size` is global.

    Networks see pixels scaled to `value_range` (low, high). `flip` mirrors each training image, left to right, with
    probability one half each time it is read. `read_threads` read ahead of the device; they do not change the order.
    """

    name: str
    shape: tuple[int, ...]
    flip: bool
    value_range: tuple[float, ...]
    batch_size: int
    read_threads: int
    data_dir: str


@dataclasses.dataclass(frozen=True)
class PhotographData(ImageData):
    """Photographs of other sizes than `shape`: cropped to the whole frame, the largest centred square or the centred
    148 x 148 pixels, then resized by an antialiased filter (Pillow's)."""

    crop: Literal["none", "square", "centre148"]
    resize: Literal["box", "bilinear", "bicubic", "lanczos"]


@dataclasses.dataclass(frozen=True)
class CelebAData(PhotographData):
    """`partition` "official" trains on the official training images, "all" on every file, those of the test split
    included."""

    partition: Literal["official", "all"]


@dataclasses.dataclass(frozen=True)
class FolderData(PhotographData):
    """`label` tells the folders apart that were prepared under one `data_dir`."""

    label: str


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Adam for both networks; the rate is multiplied by `milestone_factor` at each of `milestone_steps` and falls
    over `training.steps` T to `final_factor` of itself, 1 for not at all, as (1 - step / T) ** `fall_power`: 1 is a
    straight line, 2 stays longer where it is low. The encoder (or critic) moves at `encoder_factor` times that rate
    (two time scales: arXiv 1706.08500), towards which it rises linearly from the decoder's own over the first
    `encoder_rise` of the steps, 0 for at once. `clip_norm` 0 clips nothing."""

    learning_rate: float
    encoder_factor: float
    encoder_rise: float
    b1: float
    b2: float
    milestone_steps: tuple[int, ...]
    milestone_factor: float
    final_factor: float
    fall_power: float
    clip_norm: float


@dataclasses.dataclass(frozen=True)
class Ema:
    """Average of the weights that halves the past every `half_life_images`, or every `ramp_up` times the images seen
    if that is less.

    `ramp_up` 0 switches the ramp off.
    """

    half_life_images: float
    ramp_up: float


@dataclasses.dataclass(frozen=True)
class Training:
    """All counts are steps in total, warm-up included. One compiled call runs `steps_per_dispatch` of them.

    Training gives up after `max_skipped_steps` refused ones in a row, and after `max_negative_intervals` intervals of
    `log_every_steps` in a row over which the KL of fake images is below that of real ones (0: never).
    """

    steps: int
    warmup_steps: int
    steps_per_dispatch: int
    log_every_steps: int
    max_skipped_steps: int
    max_negative_intervals: int


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Keeps the last `keep_last` and, for ever, those at multiples of `keep_every_steps` (0: none)."""

    every_steps: int
    keep_last: int
    keep_every_steps: int


@dataclasses.dataclass(frozen=True)
class ToyEvaluation:
    """`samples` points, real and generated each; `every_steps` and `best` as for images."""

    samples: int
    every_steps: int
    best: Literal["none", "kl", "jsd", "kl_paper", "jsd_paper", "modes_hit"]


@dataclasses.dataclass(frozen=True)
class ImageEvaluation:
    """`calibration_batches` of `batch_size` images give the batch-norm statistics.

    `samples` images are generated and compared with the training split by what `features` sees in them, as far as
    `measures` asks for it. `features_file` holds Inception's weights (`convert-inception` writes it; "digits" needs
    none), `reference_file` the statistics of the training split (`fid-stats` writes it; "" measures the split itself).
    The averaged weights are evaluated every `every_steps` in training, too (0: only at its end), and the checkpoint
    that is best by the measure `best` is kept.
    """

    batch_size: int
    calibration_batches: int
    samples: int
    measures: tuple[Literal["reconstruction", "codes", "fid", "kid", "precision_recall"], ...]
    features: Literal["inception", "inception_tf", "inception_clean", "inception_batchstat", "digits"]
    features_file: str
    reference_file: str
    every_steps: int
    best: Literal[
        "none", "psnr", "ssim", "mse", "elbo", "fid", "kid", "precision", "recall", "density", "coverage"
    ]  # fmt: skip


Method = Vae | IntroVae | SIntroVae | AsIntroVae | WganGp
METHOD_SETTINGS: dict[str, type] = {
    "vae": Vae, "introvae": IntroVae, "sintrovae": SIntroVae, "asintrovae": AsIntroVae, "wgan_gp": WganGp
}  # fmt: skip
TOYS_WITH_MODES = ("8gaussians", "25gaussians")
TOY_LIMITS = {"8gaussians": 2.0, "2spirals": 4.0, "checkerboard": 4.0, "rings": 4.0, "25gaussians": 8.0}
"""The toys and the half-width of the square that they are evaluated on."""

SEED_LIMIT = 2**32
"""Above all seeds: what JAX and NumPy both take."""

TOY_BLOCKS = 20
"""Into so many a toy's samples are split for the intervals of its figures."""


IMAGE_MEASURES = {
    "reconstruction": ("psnr", "ssim", "mse"),
    "codes": ("elbo", "kl_real", "active_units"),
    "fid": ("fid",),
    "kid": ("kid",),
    "precision_recall": ("precision", "recall", "density", "coverage"),
}
"""What `evaluation.measures` can ask for, and the figures that each gives."""

HIGHER_IS_BETTER = ("psnr", "ssim", "elbo", "precision", "recall", "density", "coverage", "modes_hit")
"""Of the figures that `evaluation.best` may name; of the others lower ones are."""

BY_FEATURES = ("fid", "kid", "precision_recall")
"""The measures that compare the features of generated and of real images."""

FEWEST_IMAGES = 20
"""The smallest number of images that those measures accept."""

WITH_ENCODER = (*IMAGE_MEASURES["reconstruction"], *IMAGE_MEASURES["codes"])
"""The figures that a method without an encoder cannot have."""


class ImageSet(NamedTuple):
    """The settings that an image set takes, and the one shape [H, W, C] that it has; None: any."""

    settings: type[ImageData]
    shape: tuple[int, int, int] | None


IMAGE_SETS = {
    "digits": ImageSet(ImageData, (8, 8, 1)),
    "mnist5k": ImageSet(ImageData, (28, 28, 1)),
    "faces25": ImageSet(ImageData, (25, 25, 1)),
    "photos32": ImageSet(ImageData, (32, 32, 3)),
    "photos64": ImageSet(ImageData, (64, 64, 3)),
    "photos128": ImageSet(ImageData, (128, 128, 3)),
    "mnist": ImageSet(ImageData, (28, 28, 1)),
    "cifar10": ImageSet(ImageData, (32, 32, 3)),
    "oxford_buildings": ImageSet(PhotographData, (128, 128, 3)),
    "celeba128": ImageSet(CelebAData, (128, 128, 3)),
    "celeba256": ImageSet(CelebAData, (256, 256, 3)),
    "celebahq1024": ImageSet(PhotographData, (1024, 1024, 3)),
    "image_folder": ImageSet(FolderData, None),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    seed: int
    method: Method
    model: ConvModel | MlpModel
    data: ToyData | ImageData
    optimizer: Optimizer
    ema: Ema
    training: Training
    checkpoint: Checkpoint
    evaluation: ToyEvaluation | ImageEvaluation

    @property
    def is_toy(self) -> bool:
        return isinstance(self.data, ToyData)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one data point: (2,) or (H, W, C)."""
        return self.data.shape if isinstance(self.data, ImageData) else (2,)

    @property
    def chunk_size(self) -> int:
        """How many examples go through a network at once outside training."""
        return self.evaluation.samples if isinstance(self.evaluation, ToyEvaluation) else self.evaluation.batch_size

    def warmup(self) -> "Config":
        """The plain VAE that a method starts with; its losses are per pixel, those of IntroVAE's warm-up too."""
        b_rec, b_kl = self.method.b_rec, self.method.b_kl  # type: ignore[union-attr]
        scale = getattr(self.method, "scale", 1 / math.prod(self.example_shape))
        setting = Vae(name="vae", b_rec=b_rec, b_kl=b_kl, scale=scale)
        return dataclasses.replace(self, method=setting)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `resolve` takes them back."""
        return dataclasses.asdict(self)
