"""Cells of toy tables: what a run is known by, what is kept of it, and what damage does."""

import contextlib
import dataclasses
import hashlib
import json

import numpy as np
import pytest
from command_line import terminal  # noqa: F401
from toy_cells import BUDGET, tiny  # noqa: F401
from training_runs import toy

from asvae_jax.config import resolve
from asvae_jax.errors import DataError
from asvae_jax.evaluation import evaluate, toy_figures
from asvae_jax.experiments import toy_cells, toy_training
from asvae_jax.experiments.toy_cells import OWN_BETAS, Budget, Cell, Results, key, read_samples
from asvae_jax.experiments.toy_training import train_missing
from asvae_jax.presets.toy import TABLE1_BETAS, toy_config
from asvae_jax.train import train


def test_a_cell_is_its_run(table, tmp_path):
    table("--betas", "c2", "--toys", "--variants", "asintrovae,released", "--seeds", 0, 7)
    cell = Cell("8gaussians", "c2", "asintrovae,released", (), 7)
    config = cell.config(BUDGET)
    assert (config.method.b_kl, config.method.b_rec, config.method.b_neg) == TABLE1_BETAS["c2"]
    assert (config.seed, config.training.steps, config.data.batch_size) == (7, *BUDGET)
    alone = evaluate(train(config, tmp_path / "alone"))
    record = Results(tmp_path / "toys.jsonl").find(cell, BUDGET)
    for weights in ("raw", "ema"):
        expected = {name: value for name, value in alone[weights].items() if name != "gn_elbo"}
        assert record[weights] == pytest.approx(expected, rel=0.02)
    assert record["curve"]["step"] == [*range(5, 21, 5)]
    assert record["curve"]["kl_paper"][-1] == record["ema"]["kl_paper"]
    # And what is drawn is what was measured.
    points = read_samples(cell, BUDGET, Results(tmp_path / "toys.jsonl"))
    assert toy_figures(config, points)["kl"] == pytest.approx(record["ema"]["kl"], rel=0.02)


def test_a_run_is_known_by_its_settings_whatever_it_was_called(table, tmp_path):
    table("--betas", "c1", "--toys", "--variants", "vae", "--seeds", 0)
    results = Results(tmp_path / "toys.jsonl")
    cell = Cell("8gaussians", "c1", "vae", (), 0)
    beta = cell.config(BUDGET).optimizer.b1
    renamed, other = (cell._replace(changes=(("optimizer.b1", b1),)) for b1 in (beta, beta / 2))
    assert results.find(renamed, BUDGET) is results.find(cell, BUDGET) is not None
    assert results.find(other, BUDGET) is None


def test_a_setting_that_a_later_version_adds_loses_neither_a_run_nor_its_points(table, tmp_path):
    table("--betas", "c1", "--toys", "--variants", "vae", "--seeds", 0)
    file, folder, cell = tmp_path / "toys.jsonl", tmp_path / "samples", Cell("8gaussians", "c1", "vae", (), 0)
    points = read_samples(cell, BUDGET, Results(file))
    # As a version without `fall_power` wrote them.
    record = json.loads(file.read_text())
    del record["settings"]["optimizer"]["fall_power"]
    file.write_text(json.dumps(record) + "\n")
    digest = hashlib.sha256(json.dumps(record["settings"], sort_keys=True).encode()).hexdigest()[:16]
    (only,) = folder.iterdir()
    assert digest not in only.name
    old = folder / f"8gaussians-vae-s0-{digest}.npy"
    only.rename(old)
    np.testing.assert_array_equal(read_samples(cell, BUDGET, Results(file)), points)
    # Points that are gone are drawn again under that name, and the record stays.
    old.unlink()
    train_missing([cell], BUDGET, Results(file), with_samples=True)
    np.testing.assert_array_equal(read_samples(cell, BUDGET, Results(file)), points)
    assert file.read_text() == json.dumps(record) + "\n"


def test_cells_of_other_settings_are_passed_over(table, trained, tmp_path, monkeypatch):
    options = ("--betas", "c1", "--toys", "--variants", "vae", "--seeds", 0)
    table(*options)
    file = tmp_path / "toys.jsonl"
    record = json.loads(file.read_text())
    record["settings"]["optimizer"]["learning_rate"] = 0.5
    file.write_text(json.dumps(record) + "\n")
    said = []
    monkeypatch.setattr(toy_cells._log, "warning", lambda words, *_: said.append(words))
    table(*options)
    assert len(trained) == 2 and said == ["%s was trained under other settings and is passed over"]
    # The newer line counts from now on.
    table(*options)
    assert len(trained) == 2


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "toys.jsonl").write_text('{"key": "a", "sett\n')
    with pytest.raises(DataError, match=r"toys.jsonl cannot be read .*; line 1 is no finished cell: remove it"):
        Results(tmp_path / "toys.jsonl")
    (tmp_path / "toys.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"toys.jsonl cannot be read .*UnicodeDecodeError.*; move it away"):
        Results(tmp_path / "toys.jsonl")


def test_a_line_cut_short_is_no_line_and_gives_way_to_the_next(table, trained, tmp_path):
    options, file = ("--betas", "c1", "--toys", "--variants", "vae", "--seeds"), tmp_path / "toys.jsonl"
    table(*options, 0, 1)
    first, second = file.read_text().splitlines(keepends=True)
    file.write_text(first + second[:-30])
    table(*options, 0, 1)
    assert trained == [[0, 1], [1]]
    assert [json.loads(line)["settings"]["seed"] for line in file.read_text().splitlines()] == [0, 1]


def test_a_second_command_waits_for_the_first_and_trains_nothing_again(table, trained, tmp_path, monkeypatch):
    options = ("--betas", "c1", "--toys", "--variants", "vae", "--seeds", 0)
    table(*options)
    file = tmp_path / "toys.jsonl"
    record = file.read_text()
    file.unlink()

    @contextlib.contextmanager
    def ended(path):
        file.write_text(record)
        yield

    # What the other process has written when it ends.
    monkeypatch.setattr(toy_training, "held", ended)
    table(*options)
    assert trained == [[0]] and file.read_text() == record


def test_keys_tell_cells_apart():
    cell = Cell("8gaussians", "c1", "asintrovae,paper", (("method.kernel", "prior"),), 3)
    assert key(cell, BUDGET) == "8gaussians-c1-asintrovae-paper-kernel=prior-b32-t20-s3"


def test_damaged_points_are_gone_points(table, tmp_path):
    table("--betas", "c1", "--toys", "--variants", "vae", "--seeds", 0)
    results, cell = Results(tmp_path / "toys.jsonl"), Cell("8gaussians", "c1", "vae", (), 0)
    [file] = results.samples.iterdir()
    whole = file.read_bytes()
    for length in (0, 40, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert read_samples(cell, BUDGET, results) is None
    file.write_bytes(whole)
    assert read_samples(cell, BUDGET, results).shape == (5_000, 2)


def test_configs_of_toys_and_the_table_agree():
    config = Cell("8gaussians", OWN_BETAS, "vae", (), 0).config(BUDGET)
    assert config.method == toy("vae,tiny").method


def test_at_the_papers_budget_a_cell_is_its_config_file(monkeypatch):
    monkeypatch.undo()  # the presets of the tests are tiny
    for variant in ("vae,c1", "asintrovae,released,c2", "wgan_gp,c3", "asintrovae,recommended,c3"):
        preset = resolve(toy_config(variant, name="8gaussians"))
        word, _, betas = variant.rpartition(",")
        cell = Cell("8gaussians", betas, word, (), preset.seed)
        config = cell.config(Budget(preset.training.steps, preset.data.batch_size))
        assert dataclasses.replace(config, checkpoint=preset.checkpoint) == preset
        half = cell.config(Budget(preset.training.steps // 2, preset.data.batch_size)).optimizer.milestone_steps
        assert half == ((11_250,) if preset.optimizer.milestone_steps else ())
