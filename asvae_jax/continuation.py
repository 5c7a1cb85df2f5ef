"""Whether settings are those of a run: what may change when it goes on, and what makes it another run."""

from collections.abc import Mapping
from typing import Any

from asvae_jax.settings import AsIntroVae, Config

# Settings that may differ when a run goes on: they change how closely it is watched, not what it computes or reports.
_MAY_CHANGE = (
    "training.log_every_steps",
    "training.max_skipped_steps",
    "training.max_negative_intervals",
    "checkpoint",
    "data.data_dir",
    "data.read_threads",
    *(f"evaluation.{name}" for name in ("samples", "measures", "features", "features_file", "reference_file")),
    "evaluation.every_steps",
    "evaluation.best",
)


def differences(was: Config, now: Config, may_change: tuple[str, ...] = ()) -> list[str]:
    """Settings that differ, in words, but for those that change nothing of what a run is."""
    old, new = _flat(was.to_dict()), _flat(now.to_dict())
    return [
        f"{path} {old.get(path)!r} -> {new.get(path)!r}"
        for path in old | new
        if old.get(path) != new.get(path) and not _is_one_of(path, _MAY_CHANGE + may_change)
    ]


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a run computes or reports, by their dotted paths."""
    return {path: value for path, value in _flat(settings).items() if not _is_one_of(path, _MAY_CHANGE)}


def _flat(settings: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat


def _is_one_of(path: str, settings: tuple[str, ...]) -> bool:
    return any(path == setting or path.startswith(f"{setting}.") for setting in settings)


def depends_on_length(config: Config) -> bool:
    """Whether the total number of steps is part of what each step computes, so that a longer run is another run."""
    optimizer, method = config.optimizer, config.method
    if optimizer.final_factor != 1 or optimizer.encoder_rise:
        return True
    if not isinstance(method, AsIntroVae):
        return False
    annealed = method.kl_schedule in ("linear", "tanh")
    return bool(annealed or method.late_from or method.slope_weight or method.latent_rise)
