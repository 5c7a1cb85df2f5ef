"""Settings: a `ConfigDict` from a config file becomes typed dataclasses here, once, and every mistake in it is found
here.

The dataclasses hold no defaults: a config file (with `asvae_jax.presets`) gives every value. A value that a method does
not use has no field to go to, so that setting it is an error.
"""

import dataclasses
import difflib
import math
import re
import runpy
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from ml_collections import ConfigDict


class ConfigError(ValueError):
    """A request that cannot be carried out; the command line turns it into exit code 2."""


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
    """`rec_target_gradient`: whether the encoder phase's err_rec also moves its target, the rec image."""

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
    """S-IntroVAE's numbers, the annealing of the KL weight and the AS-Distance; see `docs/methods.md` for each."""

    name: Literal["asintrovae"]
    b_rec: float
    b_kl: float
    b_neg: float
    scale: float
    alpha: float
    gamma_r: float
    rec_target_gradient: bool
    kl_schedule: Literal["linear", "tanh", "constant", "none"]
    kl_rate: float
    distance_in: Literal["exponent", "loss"]
    distance_pairs: Literal["rec_fake", "real_fake"]
    kernel: Literal["per_dim", "product", "prior", "constant"]
    bandwidth: float
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
    """ReLU layers of the given widths, for encoder and decoder alike."""

    kind: Literal["mlp"]
    widths: tuple[int, ...]
    latent_dim: int
    compute_dtype: Literal["float32", "bfloat16"]
    logvar_range: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ToyData:
    """Points drawn on the device within the step; `batch_size` is global."""

    name: str
    batch_size: int


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images [H, W, C] as `shape`, prepared under `data_dir` (a folder or a bucket); `batch_size` is global.

    Networks see pixels scaled to `value_range` (low, high). `flip` mirrors each training image, left to right, at every
    second sight on average. `read_threads` read ahead of the device; they do not change the order.
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
    linearly over `training.steps` to `final_factor` of itself, 1 for not at all. The encoder (or critic) moves at
    `encoder_factor` times that rate (two time scales: arXiv 1706.08500), towards which it rises linearly from the
    decoder's own over the first `encoder_rise` of the steps, 0 for at once. `clip_norm` 0 clips nothing."""

    learning_rate: float
    encoder_factor: float
    encoder_rise: float
    b1: float
    b2: float
    milestone_steps: tuple[int, ...]
    milestone_factor: float
    final_factor: float
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
    """All counts are steps in total, warm-up included. One compiled call runs `steps_per_dispatch` of them."""

    steps: int
    warmup_steps: int
    steps_per_dispatch: int
    log_every_steps: int
    max_skipped_steps: int


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
    features: Literal["inception", "inception_tf", "inception_batchstat", "digits"]
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
TOY_LIMITS = {"8gaussians": 2.0, "2spirals": 4.0, "checkerboard": 4.0, "rings": 4.0, "25gaussians": 8.0}
"""The toys and the half-width of the square that they are evaluated on."""


IMAGE_MEASURES = {
    "reconstruction": ("psnr", "ssim", "mse"),
    "codes": ("elbo", "kl_real", "active_units"),
    "fid": ("fid",),
    "kid": ("kid",),
    "precision_recall": ("precision", "recall", "density", "coverage"),
}
"""What `evaluation.measures` can ask for, and the figures that each gives."""

BY_FEATURES = ("fid", "kid", "precision_recall")
"""The measures that compare the features of generated and of real images, and the fewest images that they take."""
FEWEST_IMAGES = 20

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
        """The plain VAE that a method starts with, in the same units (per pixel) as all others."""
        b_rec, b_kl = self.method.b_rec, self.method.b_kl  # type: ignore[union-attr]
        setting = Vae(name="vae", b_rec=b_rec, b_kl=b_kl, scale=1 / math.prod(self.example_shape))
        return dataclasses.replace(self, method=setting)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `resolve` takes them back."""
        return dataclasses.asdict(self)


def resolve(config: Config | ConfigDict | Mapping[str, Any]) -> Config:
    """Types and checks a config.

    Raises:
      ConfigError: for an unknown or missing key, a wrong type, an unknown word or an impossible combination.
    """
    if isinstance(config, Config):
        return config
    values = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    name = _name_in(values, "data")
    check_word("data.name", name, [*TOY_LIMITS, *IMAGE_SETS])
    is_toy = name in TOY_LIMITS
    method = _name_in(values, "method")
    check_word("method.name", method, METHOD_SETTINGS)
    choices = {
        "method": METHOD_SETTINGS[method],
        "model": MlpModel if is_toy else ConvModel,
        "data": ToyData if is_toy else IMAGE_SETS[name].settings,
        "evaluation": ToyEvaluation if is_toy else ImageEvaluation,
    }
    typed = _typed_section(Config, values, "", choices)
    _check(typed)
    return typed


def of_this_version(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as an older version stored them, with those that it had no choice in."""
    method = dict(settings["method"])
    if method["name"] == "asintrovae":
        without = dict(
            distance_in="exponent", distance_pairs="rec_fake", root_distance=False, slope_weight=0.0,
            balance_pulls=False,
        )  # fmt: skip
        method = {**without, **method}
        # The bound on the codes' slope used to last to the end.
        method.setdefault("slope_until", 1.0 if method["slope_weight"] else 0.0)
    optimizer = {"final_factor": 1.0, "encoder_factor": 1.0, "encoder_rise": 0.0, **settings["optimizer"]}
    return {**settings, "method": method, "optimizer": optimizer}


def resolve_data(values: Mapping[str, Any]) -> ImageData:
    """The data section of an image set alone, typed and checked.

    Raises:
      ConfigError: as `resolve` does.
    """
    name = _name_in({"data": values}, "data")
    check_word("data.name", name, IMAGE_SETS)
    data = _typed_section(IMAGE_SETS[name].settings, values, "data", {})
    _check_images(data)
    return data


def _name_in(values: Mapping[str, Any], section: str) -> Any:
    """The `name` that decides what else a section holds."""
    if not isinstance(values.get(section), Mapping) or "name" not in values[section]:
        raise ConfigError(f"{section} must be a section with a name, got {values.get(section)!r}.")
    return values[section]["name"]


def load_file(argument: str) -> ConfigDict:
    """The ConfigDict of a config file and its variant, as `--config` takes them: `configs/digits.py:sintrovae,tiny`.

    Raises:
      ConfigError: if there is no such file, it has no `get_config`, or it does not know a word of the variant.
    """
    path, _, variant = argument.partition(":")
    if not Path(path).is_file():
        raise ConfigError(f"There is no config file {path}.")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise ConfigError(f"{path} defines no get_config(variant).")
    return get_config(variant)


def check_overrides(config: ConfigDict, paths: Iterable[str]) -> None:
    """Raises a ConfigError for a dotted path that is no setting of `config`."""
    for path in paths:
        section: Any = config
        for depth, key in enumerate(path.split(".")):
            if not isinstance(section, ConfigDict) or key not in section:
                parent = ".".join(path.split(".")[:depth])
                owner = f" of method {section.name!r}" if parent == "method" else ""
                _unknown(f"{path} is no setting{owner}", key, list(section) if isinstance(section, ConfigDict) else [])
            section = section[key]


def check_word(path: str, word: Any, allowed: Iterable[str]) -> None:
    """Raises a ConfigError that names the nearest allowed word."""
    if word not in list(allowed):
        _unknown(f"{path}={word!r} is not known", str(word), allowed)


def _unknown(what: str, word: str, allowed: Iterable[str]) -> NoReturn:
    near = difflib.get_close_matches(word, list(allowed), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{what}.{hint} Choose from: {', '.join(sorted(allowed))}.")


def _typed_section(section: type, values: Any, path: str, choices: Mapping[str, type]) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a section with keys, got {values!r}.")
    hints = {**typing.get_type_hints(section), **choices}
    names = [field.name for field in dataclasses.fields(section)]
    where = f"{path}." if path else ""
    owner = f" of method {values['name']!r}" if path == "method" else ""
    for key in values:
        if key not in names:
            _unknown(f"{where}{key} is no setting{owner}", key, names)
    missing = [name for name in names if name not in values]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing; give it a value.")
    return section(**{name: _typed(hints[name], values[name], where + name) for name in names})


def _typed(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _typed_section(hint, value, path, {})
    origin = typing.get_origin(hint)
    if origin is Literal:
        check_word(path, value, typing.get_args(hint))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} must be a tuple, got {value!r}.")
        return tuple(_typed(typing.get_args(hint)[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) is not (hint is bool) or not isinstance(value, hint):
        raise ConfigError(f"{path} must be {_a_type(hint)}, got {value!r}.")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{path} must be finite, got {value!r}.")
    return value


def _a_type(hint: type | types.UnionType) -> str:
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    return names.get(hint, str(hint))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _check(config: Config) -> None:
    """What no type says: ranges, and settings that contradict each other."""
    method, model, data, training = config.method, config.model, config.data, config.training
    optimizer, ema, checkpoint = config.optimizer, config.ema, config.checkpoint
    evaluation = config.evaluation

    positive = {
        "data.batch_size": data.batch_size, "model.latent_dim": model.latent_dim, "training.steps": training.steps,
        "training.steps_per_dispatch": training.steps_per_dispatch,
        "training.log_every_steps": training.log_every_steps,
        "training.max_skipped_steps": training.max_skipped_steps, "checkpoint.every_steps": checkpoint.every_steps,
        "checkpoint.keep_last": checkpoint.keep_last, "ema.half_life_images": ema.half_life_images,
        "optimizer.learning_rate": optimizer.learning_rate, "optimizer.encoder_factor": optimizer.encoder_factor,
        "evaluation.samples": evaluation.samples, "evaluation.batch_size": config.chunk_size,
    }  # fmt: skip
    for path, value in positive.items():
        _require(value > 0, f"{path} must be positive, got {value}.")
    not_negative = {
        "training.warmup_steps": training.warmup_steps, "checkpoint.keep_every_steps": checkpoint.keep_every_steps,
        "ema.ramp_up": ema.ramp_up, "optimizer.clip_norm": optimizer.clip_norm, "seed": config.seed,
        "evaluation.every_steps": evaluation.every_steps,
        **{f"method.{k}": v for k, v in dataclasses.asdict(method).items() if isinstance(v, int | float)},
    }  # fmt: skip
    for path, value in not_negative.items():
        _require(value >= 0, f"{path} must not be negative, got {value}.")

    widths = model.channels if isinstance(model, ConvModel) else model.widths
    _require(len(widths) > 0 and min(widths) > 0, f"model needs at least one layer of positive width, got {widths}.")
    low_high = model.logvar_range
    _require(
        len(low_high) == 2 and low_high[0] < low_high[1], f"model.logvar_range must be (low, high), got {low_high}."
    )
    if isinstance(data, ImageData):
        _check_images(data)
    _require(
        training.warmup_steps < training.steps,
        f"training.warmup_steps={training.warmup_steps} leaves nothing of training.steps={training.steps}.",
    )
    for path, value in {"optimizer.b1": optimizer.b1, "optimizer.b2": optimizer.b2}.items():
        _require(0 <= value < 1, f"{path} must lie in [0, 1), got {value}.")
    _require(
        optimizer.milestone_factor > 0,
        f"optimizer.milestone_factor must be positive, got {optimizer.milestone_factor}.",
    )
    _require(
        0 <= optimizer.final_factor <= 1, f"optimizer.final_factor must lie in [0, 1], got {optimizer.final_factor}."
    )
    _require(
        0 <= optimizer.encoder_rise <= 1, f"optimizer.encoder_rise must lie in [0, 1], got {optimizer.encoder_rise}."
    )
    _require(
        not (optimizer.encoder_rise and optimizer.encoder_factor == 1),
        f"optimizer.encoder_rise={optimizer.encoder_rise} has nothing to rise to if encoder_factor=1; set it to 0.",
    )
    for step in optimizer.milestone_steps:
        _require(
            0 < step < training.steps,
            f"optimizer.milestone_steps has {step}, which never acts in training.steps={training.steps}; remove it.",
        )
    multiples = {
        "training.steps": training.steps, "training.warmup_steps": training.warmup_steps,
        "training.log_every_steps": training.log_every_steps, "checkpoint.every_steps": checkpoint.every_steps,
        "checkpoint.keep_every_steps": checkpoint.keep_every_steps,
    }  # fmt: skip
    for path, value in multiples.items():
        per = training.steps_per_dispatch
        _require(value % per == 0, f"{path}={value} must be a multiple of training.steps_per_dispatch={per}.")
    every = checkpoint.every_steps
    for path, value in {
        "checkpoint.keep_every_steps": checkpoint.keep_every_steps,
        "evaluation.every_steps": evaluation.every_steps,
    }.items():
        _require(value % every == 0, f"{path}={value} must be a multiple of checkpoint.every_steps={every}.")
    _check_evaluation(config)
    if isinstance(method, WganGp):
        _require(training.warmup_steps == 0, "wgan_gp has no VAE warm-up: set training.warmup_steps=0.")
        _require(method.critic_steps > 0, "method.critic_steps must be positive.")
    if isinstance(method, SIntroVae | AsIntroVae):
        _require(method.alpha > 0, "method.alpha must be positive.")
    if isinstance(method, AsIntroVae):
        _require(
            method.kernel == "product" or method.bandwidth == 0,
            f"method.bandwidth={method.bandwidth} belongs to kernel='product'; set it to 0 for {method.kernel!r}.",
        )
        _require(
            method.kl_schedule != "constant" or method.kl_rate <= 1,
            f"method.kl_rate={method.kl_rate} is the KL weight itself if kl_schedule='constant'; must lie in [0, 1].",
        )
        _require(
            method.kl_schedule != "none" or method.kl_rate == 0,
            f"method.kl_rate={method.kl_rate} has nothing to anneal if kl_schedule='none'; set it to 0.",
        )
        _require(
            0 < method.slope_until <= 1 if method.slope_weight else method.slope_until == 0,
            f"method.slope_until={method.slope_until} is the share of training.steps over which method.slope_weight="
            f"{method.slope_weight} falls to nothing; it must lie in (0, 1], and be 0 for a weight of 0.",
        )
        _require(
            not (method.balance_pulls and method.kernel == "constant"),
            "method.balance_pulls weighs D by its pull, and kernel='constant' has none; set it to False.",
        )
        _require(
            method.statistic == "V" or data.batch_size >= 2,
            "method.statistic='U' needs a batch of at least two; use 'V'.",
        )


def _check_evaluation(config: Config) -> None:
    evaluation = config.evaluation
    if isinstance(evaluation, ImageEvaluation):
        _require(
            evaluation.calibration_batches > 0,
            f"evaluation.calibration_batches must be positive, got {evaluation.calibration_batches}.",
        )
        _require(
            evaluation.samples >= FEWEST_IMAGES or not set(BY_FEATURES) & set(evaluation.measures),
            f"evaluation.samples={evaluation.samples} is too few to compare; generate at least {FEWEST_IMAGES}.",
        )
    if evaluation.best == "none":
        return
    _require(
        evaluation.every_steps > 0,
        f"evaluation.best={evaluation.best!r} is judged every evaluation.every_steps, which is 0; set it.",
    )
    if isinstance(evaluation, ImageEvaluation):
        given = [figure for measure in evaluation.measures for figure in IMAGE_MEASURES[measure]]
        _require(
            evaluation.best in given,
            f"evaluation.best={evaluation.best!r} is measured by none of evaluation.measures={evaluation.measures}.",
        )
        _require(
            not isinstance(config.method, WganGp) or evaluation.best not in WITH_ENCODER,
            f"evaluation.best={evaluation.best!r} needs an encoder, and wgan_gp has none; choose fid.",
        )


def _check_images(data: ImageData) -> None:
    _require(data.read_threads > 0, f"data.read_threads must be positive, got {data.read_threads}.")
    _require(
        len(data.value_range) == 2 and data.value_range[0] < data.value_range[1],
        f"data.value_range must be (low, high), got {data.value_range}.",
    )
    only = IMAGE_SETS[data.name].shape
    _require(only in (None, data.shape), f"data.shape of {data.name} is {only}, got {data.shape}.")
    _require(
        len(data.shape) == 3 and min(data.shape) > 0 and data.shape[2] in (1, 3),
        f"data.shape must be (height, width, 1 or 3 channels), got {data.shape}.",
    )
    if isinstance(data, FolderData):
        _require(
            re.fullmatch(r"\w+", data.label) is not None,
            f"data.label names a folder; use letters, digits and underscores, not {data.label!r}.",
        )
