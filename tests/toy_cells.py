"""Cells of toy tables and figures for the tests: tiny runs, the commands that draw them, and an interruption."""

from pathlib import Path

import pytest
from command_line import command
from PIL import Image

from asvae_jax import sweep
from asvae_jax.experiments import toy_cells
from asvae_jax.experiments.toy_cells import Budget
from asvae_jax.presets.toy import toy_config

BUDGET = Budget(steps=20, batch_size=32)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The presets with the word `tiny` added to each, and full evaluation."""

    def tiny_toys(variant: str, *, name: str):
        config = toy_config(f"{variant},tiny", name=name)
        config.evaluation.samples = 5_000
        return config

    monkeypatch.setattr(toy_cells, "toy_config", tiny_toys)
    # What is cached outlives a test: nothing tiny shall be.
    monkeypatch.setattr(toy_cells, "_config_of_any_seed", toy_cells._config_of_any_seed.__wrapped__)


def stops_after(programs: int):
    """`sweep.train_together`, but interrupted once so many programs are trained."""
    train_together, done = sweep.train_together, []

    def stop(configs, **options):
        if len(done) == programs:
            raise KeyboardInterrupt
        done.append(configs)
        return train_together(configs, **options)

    return stop


def draw(capsys, tmp_path, name: str, *options: object, code: int = 0) -> list[str]:
    """The paths that a figure's command prints."""
    words = [*options, "--steps", 20, "--batch-size", 32, "--out", tmp_path]
    printed = command(capsys, "figure", name, *words, code=code)
    return [line for line in printed.splitlines() if line.endswith((".png", ".json"))]


def width_of(picture: Path | str) -> int:
    """In pixels."""
    with Image.open(picture) as opened:
        return opened.width
