"""What carries AS-IntroVAE: its readings with a setting or a few changed, on 8 Gaussians under C1, C2 and C3 and on the
other toys."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asvae_jax.experiments.report import markdown, write_json, write_section
from asvae_jax.experiments.table1 import Row, about, all_modes, places, rows, spread, values
from asvae_jax.experiments.toy_cells import OWN_BETAS, Budget, Cell, Results
from asvae_jax.experiments.toy_training import write_trained
from asvae_jax.presets.toy import TOY_MILESTONES
from asvae_jax.run import Weights
from asvae_jax.settings import TOYS_WITH_MODES

BASES = ("asintrovae,paper", "asintrovae,released", "asintrovae,recommended")

_SIGNS = (
    "`-` stands for a cell without a run, `=` for one in which a change is none: the settings have that value there.\n"
)

Changes = Mapping[str, Any]
"""Values by the settings' full names; one may be a function of the method section that it changes."""

_CONSTANT_KL = {"method.kl_schedule": "constant"}
_ONE_ALPHA = {"method.late_alpha_factor": 1.0}
_ALPHA_AN_EIGHTH = {"method.late_alpha_factor": 0.0625}
_HALF_THE_RATE = {"optimizer.learning_rate": 4.5e-4}
_TO_NINE_TIMES = {"optimizer.encoder_factor": 9.0, "optimizer.encoder_rise": 1.0}
_TO_THREE_TIMES = {"optimizer.encoder_factor": 3.0, "optimizer.encoder_rise": 0.5}
_THRICE = {"method.w_dec": 3.0}
_WEIGHT_ONE = {"method.w_exp": 1.0, "method.slope_weight": 1e-3}
# What was recommended before stands on these; pages call `_FALLING_WEIGHT` of `_SLOWER` `falling w_enc`, and
# `_D_ALONE_LINEAR_FALL` `D alone`.
_SLOWER = {**_WEIGHT_ONE, **_TO_THREE_TIMES, **_THRICE}
_FALLING_WEIGHT = {
    "method.w_enc": lambda preset: 2.5 if preset.b_kl >= 0.5 else preset.w_enc,
    "method.late_w_enc_factor": lambda preset: 4 * preset.b_kl / 3 if preset.b_kl >= 0.5 else 1.0,
}
_GREATER_WEIGHT = {"method.w_enc": 2.5, **_SLOWER}
_NO_MEANS = {"method.means_bandwidths": ()}
_NOTHING_LATE = {**_NO_MEANS, **_ONE_ALPHA, "method.late_from": 0.0}
_CONSTANT_D = {**_NOTHING_LATE, "method.kernel": "constant", "method.bandwidth": 0.0, "method.balance_pulls": False}
_ANY_SLOPE = {"method.slope_weight": 0.0, "method.slope_until": 0.0}
_LATENTS_TOLD = {"method.w_latent": 0.4}
_FROM_LATENTS = {"model.initial_gain": 1.0, **_LATENTS_TOLD}
_SHORTER_AVERAGE = {"ema.ramp_up": 0.02}
_THIRD_KERNEL = {"method.means_bandwidths": (0.1, 0.0125, 0.0016)}
_LINEAR_FALL = {"optimizer.learning_rate": 6e-4, "optimizer.fall_power": 1.0, "optimizer.final_factor": 0.02}
_BEFORE = {**_LINEAR_FALL, **_GREATER_WEIGHT, **_ONE_ALPHA}
_D_ALONE = {**_GREATER_WEIGHT, **_NOTHING_LATE}
_D_ALONE_LINEAR_FALL = {**_D_ALONE, **_LINEAR_FALL}
_FIXED_WEIGHT = {"method.balance_pulls": False, "method.w_dec": 10.0}
_FIXED_D = {**_D_ALONE_LINEAR_FALL, **_FIXED_WEIGHT}
_FIXED_D_ONE_RATE = {**_FIXED_D, "optimizer.encoder_factor": 1.0, "optimizer.encoder_rise": 0.0}
_FIXED_D_ANY_SLOPE = {**_FIXED_D_ONE_RATE, **_ANY_SLOPE, "optimizer.learning_rate": 4e-4}
_OF_BOTH_READINGS: dict[str, Changes] = {
    "no annealing: KL and D both at full weight": {"method.kl_schedule": "none", "method.kl_rate": 0.0},
    "no warm-up": {"training.warmup_steps": 0},
    "re-decodings at full weight": {"method.gamma_r": 1.0},
    "D outside the exponential": {"method.distance_in": "loss"},
    "D between real and fake": {"method.distance_pairs": "real_fake"},
    "root of D": {"method.root_distance": True},
    "kernel product": {"method.kernel": "product"},
    "kernel prior": {"method.kernel": "prior"},
    "statistic U": {"method.statistic": "U"},
    "no squash": {"method.squash_distance": False},
}
ABLATIONS: dict[str, dict[str, Changes]] = {
    "asintrovae,paper": {
        "as it is": {},
        "encoder's D a sum over pairs": {"method.over_pairs_encoder": "sum"},
        "annealing tanh": {"method.kl_schedule": "tanh"},
        "decoder's KL of squashed codes": {"method.squash_decoder_kl": True},
        "D a constant 1: the gate alone": _CONSTANT_D,
        **_OF_BOTH_READINGS,
    },
    "asintrovae,released": {
        "as it is": {},
        "encoder's D a mean over pairs": {"method.over_pairs_encoder": "mean"},
        "decoder's D a sum over dimensions": {"method.over_dims_decoder": "sum"},
        "annealing linear": {"method.kl_schedule": "linear"},
        "annealing constant, c = 0.5": {**_CONSTANT_KL, "method.kl_rate": 0.5},
        "decoder's KL of raw codes": {"method.squash_decoder_kl": False},
        "D outside, a mean over pairs": {"method.distance_in": "loss", "method.over_pairs_encoder": "mean"},
        "D a constant, 1 a pair: the gate alone": _CONSTANT_D,
        "D a constant 1: the gate alone": {**_CONSTANT_D, "method.over_pairs_encoder": "mean"},
        "kernel product, bandwidth 1": {"method.kernel": "product", "method.bandwidth": 1.0},
        **_OF_BOTH_READINGS,
    },
    "asintrovae,recommended": {
        "as it is": {},
        "D inside the exponential": {"method.distance_in": "exponent"},
        "D between rec and fake": {"method.distance_pairs": "rec_fake"},
        "the encoder's rate rising to three times": _TO_THREE_TIMES,
        "w_exp 1, w_enc falling where KL is heavy": {**_WEIGHT_ONE, **_FALLING_WEIGHT},
        "w_exp 1, to three times: w_enc falling where KL is heavy": {**_SLOWER, **_FALLING_WEIGHT},
        "w_exp 1, to three times": _SLOWER,
        "w_exp 1, to three times: moving average of a half-life of a fiftieth": {**_SLOWER, **_SHORTER_AVERAGE},
        "w_exp 1, to three times: a third, narrower kernel of the means": {**_SLOWER, **_THIRD_KERNEL},
        "w_exp 1, to three times: rate of 6e-4 falling linearly": {**_SLOWER, **_LINEAR_FALL},
        "w_exp 1, to three times: w_enc 2.5 falling to 10/3 of b_kl": {
            **_GREATER_WEIGHT,
            "method.late_w_enc_factor": lambda preset: 4 * preset.b_kl / 3,
        },
        "w_exp 1, to three times: w_enc 5 of b_kl falling to 10/3 of it": {
            **_SLOWER,
            "method.w_enc": lambda preset: 5 * preset.b_kl,
            "method.late_w_enc_factor": 2 / 3,
        },
        "w_exp 1, to three times: w_enc 1": {**_SLOWER, "method.w_enc": 1.0},
        "w_exp 1, to three times: w_enc 2.5": _GREATER_WEIGHT,
        "w_enc 1": {"method.w_enc": 1.0},
        "w_enc 2.5": {"method.w_enc": 2.5},
        "w_enc 10": {"method.w_enc": 10.0},
        "w_enc falling to a quarter of it": {"method.late_w_enc_factor": 0.25},
        "D pulls as hard as KL": {"method.w_dec": 1.0},
        "D pulls twice as hard": {"method.w_dec": 2.0},
        "D pulls twice as hard; a third, narrower kernel of the means": {"method.w_dec": 2.0, **_THIRD_KERNEL},
        "D pulls three times as hard": _THRICE,
        "D pulls three times as hard; a third, narrower kernel of the means": {**_THRICE, **_THIRD_KERNEL},
        "D pulls three times as hard; half the rate": {**_THRICE, **_HALF_THE_RATE},
        "D pulls three times as hard; the encoder at nine times the rate": {**_THRICE, **_TO_NINE_TIMES},
        "D pulls four times as hard; a third, narrower kernel of the means": {"method.w_dec": 4.0, **_THIRD_KERNEL},
        "D pulls ten times as hard": {"method.w_dec": 10.0},
        "D of fixed weight, 10 for the decoder": _FIXED_WEIGHT,
        "only the decoder plays for D": {"method.w_enc": 0.0},
        "only the encoder plays for D": {"method.w_dec": 0.0},
        "no distance at all": {"method.w_enc": 0.0, "method.w_dec": 0.0, **_NO_MEANS},
        "no KL game: c = 0": {**_CONSTANT_KL, "method.kl_rate": 0.0},
        "annealing linear": {"method.kl_schedule": "linear", "method.kl_rate": 5.0},
        "annealing linear over all steps": {"method.kl_schedule": "linear", "method.kl_rate": 1.0},
        "annealing tanh": {"method.kl_schedule": "tanh", "method.kl_rate": 5.0},
        "2,000 steps of warm-up": {"training.warmup_steps": 2_000},
        "decoder's KL of squashed codes": {"method.squash_decoder_kl": True},
        "D itself, not its root": {"method.root_distance": False},
        "Adam with 0.9, 0.999": {"optimizer.b1": 0.9, "optimizer.b2": 0.999},
        "Adam with 0, 0.999": {"optimizer.b2": 0.999},
        "constant rate": {"optimizer.final_factor": 1.0, "optimizer.fall_power": 1.0},
        "rate of 6e-4 falling linearly": _LINEAR_FALL,
        "the encoder at the decoder's rate": {"optimizer.encoder_factor": 1.0, "optimizer.encoder_rise": 0.0},
        "the encoder at its last rate from the start": {"optimizer.encoder_rise": 0.0},
        "half the rate": _HALF_THE_RATE,
        "constant rate of a third, a tenth of it in the last quarter": {
            "optimizer.learning_rate": 3e-4,
            "optimizer.fall_power": 1.0,
            "optimizer.final_factor": 1.0,
            "optimizer.milestone_steps": TOY_MILESTONES,
        },
        "codes of any slope": _ANY_SLOPE,
        "codes of bounded slope to the end": {"method.slope_until": 1.0},
        "codes of bounded slope for a quarter of the steps": {"method.slope_until": 0.25},
        "a tenth of the slope's weight": {"method.slope_weight": lambda preset: preset.slope_weight / 10},
        "ten times the slope's weight": {"method.slope_weight": lambda preset: 10 * preset.slope_weight},
        "moving average of a fixed half-life": {"ema.half_life_images": 9e4, "ema.ramp_up": 0.0},
        "moving average of a half-life of a fiftieth": _SHORTER_AVERAGE,
        "D a constant 1: the gate alone": _CONSTANT_D,
        "kernel per_dim of squashed codes": {
            "method.kernel": "per_dim",
            "method.bandwidth": 0.0,
            "method.squash_distance": True,
        },
        # Without a bandwidth D has a bound on squashed codes alone.
        "kernel prior of squashed codes": {
            "method.kernel": "prior",
            "method.bandwidth": 0.0,
            "method.squash_distance": True,
        },
        "no bandwidth, squashed codes": {"method.bandwidth": 0.0, "method.squash_distance": True},
        "bandwidth a quarter": {"method.bandwidth": 0.25},
        "bandwidth fourfold": {"method.bandwidth": 4.0},
        "alpha 2 to the end": _ONE_ALPHA,
        "alpha 0.5 from the first step on": {**_ONE_ALPHA, "method.alpha": 0.5},
        "alpha falling to 1": {"method.late_alpha_factor": 0.5},
        "alpha falling to 0.25": {"method.late_alpha_factor": 0.125},
        "alpha falling to 0.125": _ALPHA_AN_EIGHTH,
        "the late game from the first step on": {**_ONE_ALPHA, "method.alpha": 0.5, "method.late_from": 0.0},
        "no distance of the means": _NO_MEANS,
        "a third, narrower kernel of the means": _THIRD_KERNEL,
        "squashed codes": {"method.squash_distance": True},
        "statistic U": {"method.statistic": "U"},
        "latents told at 0.4": _LATENTS_TOLD,
        "latents told at 0.4; D a constant 1: the gate alone": {**_LATENTS_TOLD, **_CONSTANT_D},
        "latents told at 0.4, rising over a fifth of the steps": {**_LATENTS_TOLD, "method.latent_rise": 0.2},
        "latents told at 0.4, rising over half of the steps": {**_LATENTS_TOLD, "method.latent_rise": 0.5},
        "a decoder that begins near its latents": {"model.initial_gain": 1.0},
        "a decoder that begins near its latents, which are told at 0.4": _FROM_LATENTS,
        "a decoder that begins near its latents, which are told at 0.4; codes of any slope": {
            **_FROM_LATENTS,
            **_ANY_SLOPE,
        },
        "a decoder that begins near its latents, which are told at 0.4; the encoder at three times": {
            **_FROM_LATENTS,
            **_TO_THREE_TIMES,
        },
        "before: w_enc 2.5, 6e-4 falling linearly, alpha 2 throughout": _BEFORE,
        "before, shorter average": {**_BEFORE, **_SHORTER_AVERAGE},
        "before, shorter average; alpha 1 throughout": {**_BEFORE, **_SHORTER_AVERAGE, "method.alpha": 1.0},
        "before, shorter average; alpha 0.5 throughout": {**_BEFORE, **_SHORTER_AVERAGE, "method.alpha": 0.5},
        "before, shorter average; alpha 0.25 throughout": {**_BEFORE, **_SHORTER_AVERAGE, "method.alpha": 0.25},
        "D alone": _D_ALONE_LINEAR_FALL,
        "fixed D, one rate": _FIXED_D_ONE_RATE,
        "fixed D, three times the rate from the start": {**_FIXED_D, "optimizer.encoder_rise": 0.0},
        "fixed D, one rate; bounded slope to the end": {**_FIXED_D_ONE_RATE, "method.slope_until": 1.0},
        "fixed D, one rate; moving average over three times as many images": {
            **_FIXED_D_ONE_RATE,
            "ema.ramp_up": 0.15,
        },
        "fixed D, one rate; any slope, rate 4e-4": _FIXED_D_ANY_SLOPE,
        "fixed D, one rate; any slope, rate 4e-4; D a constant 1": {**_FIXED_D_ANY_SLOPE, **_CONSTANT_D},
        "fixed D, one rate; any slope, rate 4e-4; D itself, not its root": {
            **_FIXED_D_ANY_SLOPE,
            "method.root_distance": False,
        },
        "fixed D, one rate; any slope, rate 4e-4; annealing linear over all steps": {
            **_FIXED_D_ANY_SLOPE,
            "method.kl_schedule": "linear",
            "method.kl_rate": 1.0,
        },
        "fixed D, one rate; any slope, rate 4e-4; Adam with 0, 0.999": {**_FIXED_D_ANY_SLOPE, "optimizer.b2": 0.999},
    },
}
"""For each reading, the settings changed, by what a reader would call the change."""


def make(
    bases: Sequence[str],
    betas: Sequence[str],
    toys: Sequence[str],
    seeds: Sequence[int],
    budget: Budget,
    *,
    command: str,
    out: Path,
    together: int | None,
    train: bool,
) -> str:
    """Trains what is missing, if `train`, and after each program writes ablations.md and ablations.json to `out`;
    returns the tables. Cells are shared with Table 1.

    Raises:
      ConfigError: if nothing is to be trained and none of the cells is there.
    """
    results = Results(out / "toys.jsonl")
    cells = [
        cell._replace(seed=seed)
        for base in bases
        for changes in _fitting(base, budget).values()
        for toy, word in places(betas, toys)
        for cell in [changed(Cell(toy, word, base, (), 0), changes, budget)]
        for seed in seeds
    ]

    def write() -> str:
        found = rows(cells, budget, results)
        groups = [("8 Gaussians", places(betas, ())), ("other toys", places((), toys))]
        text = (
            about(found, budget, command)
            + _SIGNS
            + "".join(
                f"\n**{base}, {group}, {weights} weights**\n\n{table}"
                for base in bases
                for group, columns in groups
                for weights in ("ema", "raw")
                if (table := _table(base, columns, found, budget, weights))
            )
        )
        write_section(out / "ablations.md", "ablations", text)
        # Of the many changes most have no run.
        trained = values([row for row in found if row.records])
        write_json(out / "ablations.json", {"command": command, "budget": budget._asdict(), "rows": trained})
        return text

    return write_trained(write, cells, budget, results, together=together, train=train)


def changed(cell: Cell, changes: Changes, budget: Budget) -> Cell:
    """An unchanged cell with the changes as they are on its toy and under its weights."""
    preset = cell.config(budget).method
    return cell._replace(
        changes=tuple((name, value(preset) if callable(value) else value) for name, value in changes.items())
    )


def _fitting(base: str, budget: Budget) -> dict[str, Changes]:
    """The changes of a reading, without a warm-up that a short budget has no room for."""
    return {
        name: changes
        for name, changes in ABLATIONS[base].items()
        if changes.get("training.warmup_steps", 0) < budget.steps
    }


def _table(
    base: str, columns: Sequence[tuple[str, str]], found: Sequence[Row], budget: Budget, weights: Weights
) -> str:
    """A line for each change that has a finished run of its own in one of the columns, a toy and its weights each: the
    seeds that hit all modes, if the toy has any, and the median of both divergences. Empty without any line."""
    own = {row.first._replace(seed=0): row for row in found}
    unchanged = [Cell(toy, word, base, (), 0) for toy, word in columns]
    lines = []
    for name, changes in _fitting(base, budget).items():
        cells = [changed(cell, changes, budget) for cell in unchanged]
        # What a change says may be so anyhow on some toys.
        same = [
            changes and cell.config(budget) == was.config(budget) for cell, was in zip(cells, unchanged, strict=True)
        ]
        line = ["=" if repeats else _summary(own[cell], weights) for cell, repeats in zip(cells, same, strict=True)]
        if set(line) - {"=", "-"}:
            lines.append([name, *line])
    header = ["change", *(_title(toy, word) for toy, word in columns)]
    return markdown(header, lines) if lines else ""


def _title(toy: str, word: str) -> str:
    modes = "all modes, " if toy in TOYS_WITH_MODES else ""
    return f"{toy if word == OWN_BETAS else word.upper()}: {modes}kl_paper, jsd_paper"


def _summary(row: Row, weights: Weights) -> str:
    if not row.records:
        return "-"
    hit = [all_modes(row, weights)] if row.first.toy in TOYS_WITH_MODES else []
    divergences = ", ".join(spread(row.values(name, weights)) for name in ("kl_paper", "jsd_paper"))
    return "; ".join([*hit, divergences])
