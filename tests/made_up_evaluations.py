"""Evaluations as `evaluate` writes them, made up."""

import copy
import json
from pathlib import Path

from training_runs import digits

PROTOCOL = {
    "sample_seed": 1, "samples": 100, "versions": {"jax": "1"}, "commit": "a" * 40, "device": "cpu", "split": "test",
    "code": "mean", "generation": {"features": "digits", "network_sha256": "b" * 64, "n_generated": 100},
}  # fmt: skip
# Of runs that have no encoder.
CRITIC_FIGURES = {"fid_digits_n100": 3.0}


def evaluation(words: str, seed: int, figures: dict[str, float], protocol: dict | None = None, **changes) -> dict:
    """What `evaluate` writes: raw figures are ten times the averaged ones, intervals reach 1 either way."""
    config = {**json.loads(json.dumps(digits(words, **changes).to_dict())), "seed": seed}
    raw = {name: 10 * value for name, value in figures.items()}
    return {
        "step": 4,
        "config": config,
        "protocol": {**copy.deepcopy(PROTOCOL), **(protocol or {})},
        "raw": raw,
        "ema": dict(figures),
        "intervals": {
            weights: {name: [value - 1, value + 1] for name, value in values.items() if name != "active_units"}
            for weights, values in (("raw", raw), ("ema", figures))
        },
    }


def written(folder: Path, *evaluations: dict) -> list[Path]:
    """A run's folder for each."""
    folders = [folder / f"run{len(list(folder.iterdir())) + i}" for i in range(len(evaluations))]
    for run, result in zip(folders, evaluations, strict=True):
        run.mkdir()
        (run / "evaluation.json").write_text(json.dumps(result))
    return folders


def of_seeds(folder: Path, words: str, psnr: list[float], **changes) -> list[Path]:
    return written(
        folder,
        *(
            evaluation(words, seed, {"psnr": v, "active_units": 2.0 + seed % 2}, **changes)
            for seed, v in enumerate(psnr)
        ),
    )
