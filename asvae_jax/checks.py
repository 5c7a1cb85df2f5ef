"""What no type says of settings: their ranges, and which of them contradict each other."""

import dataclasses
import math
import re

from asvae_jax.errors import ConfigError
from asvae_jax.settings import (
    BY_FEATURES,
    FEWEST_IMAGES,
    IMAGE_MEASURES,
    IMAGE_SETS,
    SEED_LIMIT,
    TOY_BLOCKS,
    TOYS_WITH_MODES,
    WITH_ENCODER,
    AsIntroVae,
    Config,
    ConvModel,
    FolderData,
    ImageData,
    ImageEvaluation,
    IntroVae,
    MlpModel,
    Optimizer,
    SIntroVae,
    WganGp,
)


def check(config: Config) -> None:
    """Checks a config as a whole.

    Raises:
      ConfigError: for the first setting that is out of its range or goes with no other.
    """
    _check_signs(config)
    _check_model(config.model)
    if isinstance(config.data, ImageData):
        check_images(config.data)
    if isinstance(config.data, FolderData):
        _check_scale(config)
    _check_optimizer(config.optimizer, config.training.steps)
    _check_steps(config)
    _check_evaluation(config)
    _check_method(config)


def _check_signs(config: Config) -> None:
    method, optimizer, training = config.method, config.optimizer, config.training
    checkpoint, ema, evaluation = config.checkpoint, config.ema, config.evaluation
    positive = {
        "data.batch_size": config.data.batch_size, "model.latent_dim": config.model.latent_dim,
        "training.steps": training.steps, "training.steps_per_dispatch": training.steps_per_dispatch,
        "training.log_every_steps": training.log_every_steps,
        "training.max_skipped_steps": training.max_skipped_steps, "checkpoint.every_steps": checkpoint.every_steps,
        "checkpoint.keep_last": checkpoint.keep_last, "ema.half_life_images": ema.half_life_images,
        "optimizer.learning_rate": optimizer.learning_rate, "optimizer.encoder_factor": optimizer.encoder_factor,
        "evaluation.samples": evaluation.samples, "evaluation.batch_size": config.chunk_size,
    }  # fmt: skip
    # Without it a loss is nothing. IntroVAE and WGAN-GP have none.
    if (scale := getattr(method, "scale", None)) is not None:
        positive["method.scale"] = scale
    for path, value in positive.items():
        _require(value > 0, f"{path} must be positive, got {value}.")
    not_negative = {
        "training.warmup_steps": training.warmup_steps, "checkpoint.keep_every_steps": checkpoint.keep_every_steps,
        "ema.ramp_up": ema.ramp_up, "optimizer.clip_norm": optimizer.clip_norm, "seed": config.seed,
        "evaluation.every_steps": evaluation.every_steps,
        "training.max_negative_intervals": training.max_negative_intervals,
        **{f"method.{k}": v for k, v in dataclasses.asdict(method).items() if isinstance(v, int | float)},
    }  # fmt: skip
    for path, value in not_negative.items():
        _require(value >= 0, f"{path} must not be negative, got {value}.")
    _require(config.seed < SEED_LIMIT, f"seed must be below 2**32, got {config.seed}.")


def _check_model(model: ConvModel | MlpModel) -> None:
    widths = model.channels if isinstance(model, ConvModel) else model.widths
    _require(len(widths) > 0 and min(widths) > 0, f"model needs at least one layer of positive width, got {widths}.")
    low_high = model.logvar_range
    _require(
        len(low_high) == 2 and low_high[0] < low_high[1], f"model.logvar_range must be (low, high), got {low_high}."
    )
    if isinstance(model, MlpModel):
        _require(model.initial_gain >= 0, f"model.initial_gain must not be negative, got {model.initial_gain}.")


def _check_optimizer(optimizer: Optimizer, steps: int) -> None:
    for path, value in {"optimizer.b1": optimizer.b1, "optimizer.b2": optimizer.b2}.items():
        _require(0 <= value < 1, f"{path} must lie in [0, 1), got {value}.")
    _require(
        optimizer.milestone_factor > 0,
        f"optimizer.milestone_factor must be positive, got {optimizer.milestone_factor}.",
    )
    _require(
        0 <= optimizer.final_factor <= 1, f"optimizer.final_factor must lie in [0, 1], got {optimizer.final_factor}."
    )
    _require(optimizer.fall_power > 0, f"optimizer.fall_power must be positive, got {optimizer.fall_power}.")
    _require(
        not (optimizer.fall_power != 1 and optimizer.final_factor == 1),
        f"optimizer.fall_power={optimizer.fall_power} shapes no fall if final_factor=1; set it to 1.",
    )
    _require(
        0 <= optimizer.encoder_rise <= 1, f"optimizer.encoder_rise must lie in [0, 1], got {optimizer.encoder_rise}."
    )
    _require(
        not (optimizer.encoder_rise and optimizer.encoder_factor == 1),
        f"optimizer.encoder_rise={optimizer.encoder_rise} has nothing to rise to if encoder_factor=1; set it to 0.",
    )
    _require(
        len(set(optimizer.milestone_steps)) == len(optimizer.milestone_steps),
        f"optimizer.milestone_steps={optimizer.milestone_steps} names a step twice, which acts once; name it once.",
    )
    for step in optimizer.milestone_steps:
        _require(
            0 < step < steps,
            f"optimizer.milestone_steps has {step}, which never acts in training.steps={steps}; remove it.",
        )


def _check_steps(config: Config) -> None:
    training, checkpoint, evaluation = config.training, config.checkpoint, config.evaluation
    _require(
        training.warmup_steps < training.steps,
        f"training.warmup_steps={training.warmup_steps} leaves nothing of training.steps={training.steps}.",
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


def _check_method(config: Config) -> None:
    method = config.method
    _require(
        not config.training.max_negative_intervals or isinstance(method, IntroVae | SIntroVae | AsIntroVae),
        f"{method.name} measures no KL of fake images: set training.max_negative_intervals=0.",
    )
    if isinstance(method, WganGp):
        _require(config.training.warmup_steps == 0, "wgan_gp has no VAE warm-up: set training.warmup_steps=0.")
        _require(method.critic_steps > 0, "method.critic_steps must be positive.")
    if isinstance(method, SIntroVae | AsIntroVae):
        _require(method.alpha > 0, f"method.alpha must be positive, got {method.alpha}.")
    if isinstance(method, AsIntroVae):
        _check_asintrovae(method, config.data.batch_size)


def _check_asintrovae(method: AsIntroVae, batch_size: int) -> None:
    _require(
        method.kernel in ("product", "means") or method.bandwidth == 0,
        f"method.bandwidth={method.bandwidth} belongs to kernel='product' or 'means'; set it to 0 for "
        f"{method.kernel!r}.",
    )
    _require(
        method.kernel != "means" or method.bandwidth > 0,
        f"method.kernel='means' needs a positive method.bandwidth, got {method.bandwidth}.",
    )
    _require(
        method.kernel != "constant" or not method.means_bandwidths,
        f"method.means_bandwidths={method.means_bandwidths} stand beside a D that measures; set them to () for "
        "kernel='constant'.",
    )
    _require(
        all(h2 > 0 for h2 in method.means_bandwidths),
        f"method.means_bandwidths={method.means_bandwidths} must be positive.",
    )
    _require(
        0 <= method.late_from <= 0.5,
        f"method.late_from={method.late_from} is the share of training.steps after which the late game begins; "
        "must lie in [0, 0.5].",
    )
    _require(
        method.late_alpha_factor > 0,
        f"method.late_alpha_factor={method.late_alpha_factor} multiplies method.alpha; must be positive.",
    )
    _require(
        method.w_exp > 0,
        f"method.w_exp={method.w_exp} weighs the exponential, without which nothing parts real from fake images; "
        "must be positive.",
    )
    _require(
        method.late_w_enc_factor == 1 or method.w_enc > 0,
        f"method.late_w_enc_factor={method.late_w_enc_factor} has nothing to multiply if w_enc=0; set it to 1.",
    )
    for factor in ("late_alpha_factor", "late_w_enc_factor"):
        value = getattr(method, factor)
        _require(
            bool(method.late_from) or value == 1,
            f"method.{factor}={value} belongs to a late game; set it to 1, or method.late_from to when it begins.",
        )
    _require(
        not method.late_from
        or bool(method.means_bandwidths)
        or not method.late_alpha_factor == method.late_w_enc_factor == 1,
        f"method.late_from={method.late_from} begins a late game in which nothing changes; set it to 0, or give "
        "method.means_bandwidths, or another method.late_alpha_factor or late_w_enc_factor than 1.",
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
        0 <= method.latent_rise <= 1 if method.w_latent else method.latent_rise == 0,
        f"method.latent_rise={method.latent_rise} is the share of training.steps over which method.w_latent="
        f"{method.w_latent} rises from nothing; it must lie in [0, 1], and be 0 for a weight of 0.",
    )
    _require(
        not (method.balance_pulls and method.kernel == "constant"),
        "method.balance_pulls weighs D by its pull, and kernel='constant' has none; set it to False.",
    )
    _require(
        not method.balance_pulls or method.over_pairs_decoder == "mean",
        "method.balance_pulls weighs D by its pull, whatever its size; over_pairs_decoder='sum' would change "
        "nothing. Set it to 'mean'.",
    )
    _require(
        method.statistic == "V" or batch_size >= 2,
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
        _require(
            "codes" not in evaluation.measures or isinstance(config.method, WganGp) or config.method.b_kl > 0,
            "evaluation.measures has codes, whose elbo divides by method.b_kl=0; leave codes out.",
        )
    else:
        _require(
            evaluation.samples >= TOY_BLOCKS,
            f"evaluation.samples={evaluation.samples} gives no interval; draw at least {TOY_BLOCKS}.",
        )
    if evaluation.best == "none":
        return
    _require(
        0 < evaluation.every_steps <= config.training.steps,
        f"evaluation.best={evaluation.best!r} is judged every evaluation.every_steps={evaluation.every_steps}, which "
        f"is at no time in training.steps={config.training.steps}; set it to a part of them.",
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
    else:
        _require(
            evaluation.best != "modes_hit" or config.data.name in TOYS_WITH_MODES,
            f"evaluation.best='modes_hit': {config.data.name} has no modes; choose jsd.",
        )


def check_images(data: ImageData) -> None:
    """Checks the data section of an image set, which some commands have alone.

    Raises:
      ConfigError: as `check` does.
    """
    _require(data.read_threads > 0, f"data.read_threads must be positive, got {data.read_threads}.")
    _require(
        len(data.value_range) == 2 and data.value_range[0] < data.value_range[1],
        f"data.value_range must be (low, high), got {data.value_range}.",
    )
    only = IMAGE_SETS[data.name].shape
    _require(only in (None, data.shape), f"data.shape of {data.name} is {only}, got {data.shape}.")
    check_shape(data.shape, "data.shape")
    if isinstance(data, FolderData):
        _require(
            re.fullmatch(r"\w+", data.label) is not None,
            f"data.label names a folder; use letters, digits and underscores, not {data.label!r}.",
        )


def check_shape(shape: tuple[int, ...], path: str) -> None:
    """Checks the shape of an image, given as `path`.

    Raises:
      ConfigError: if no image has it.
    """
    _require(
        len(shape) == 3 and min(shape) > 0 and shape[2] in (1, 3),
        f"{path} must be (height, width, 1 or 3 channels), got {shape}.",
    )


def _check_scale(config: Config) -> None:
    """Where the shape is free it may be set without the size of a pixel, which goes with it."""
    scale, pixel = getattr(config.method, "scale", None), 1 / math.prod(config.example_shape)
    _require(
        scale is None or math.isclose(scale, pixel, rel_tol=1e-3),
        f"method.scale={scale} is not the size of a pixel of data.shape={config.example_shape}; set it to {pixel:.6g}.",
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
