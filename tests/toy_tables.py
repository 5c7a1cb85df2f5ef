"""The commands of toy tables for the tests, and what they train."""

import pytest
from command_line import command

from asvae_jax import sweep


@pytest.fixture
def table(tmp_path, capsys):
    """table(option, ...) -> what `table 1` prints (with another exit code, as an error), with its files under
    `tmp_path`."""

    def run(*options: object, name: str = "1", code: int = 0) -> str:
        words = [*options, "--steps", 20, "--batch-size", 32, "--out", tmp_path]
        return command(capsys, "table", name, *words, code=code)

    return run


@pytest.fixture
def trained(monkeypatch):
    """The seeds of every program trained in the test."""
    programs = []
    train_together = sweep.train_together

    def spy(configs, **options):
        programs.append([config.seed for config in configs])
        return train_together(configs, **options)

    monkeypatch.setattr(sweep, "train_together", spy)
    return programs
