"""Theorem 1, measured: the gradients that `figure gradients` draws."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from command_line import refusal, terminal  # noqa: F401
from toy_cells import BUDGET, draw, stops_after, tiny, width_of  # noqa: F401
from toy_runs import toy_inputs

from asvae_jax import sweep
from asvae_jax.config import resolve
from asvae_jax.errors import EXIT_PREEMPTED, ConfigError
from asvae_jax.experiments import gradients
from asvae_jax.experiments.toy_cells import Cell
from asvae_jax.gaussians import kl_to_standard_normal
from asvae_jax.models import make_networks
from asvae_jax.presets.toy import toy_config
from asvae_jax.update import draw_noise


def test_gradients_die_with_distance_but_through_kl():
    wide = gradients.clouds(1.0)
    narrow = gradients.clouds(0.05)
    # The slope of a mean of |mu|^2 / 2 is the distance itself, up to the middle of 64 codes spread by 0.1.
    np.testing.assert_allclose(wide["KL of fake"].values[0], wide["KL of fake"].x, atol=0.05)
    # At 2, 10 standard deviations of a pair: 4 exp(-2^2 / (2 * 0.1)) / 0.1^1.5 is below 1e-6.
    at_two = np.argmin(np.abs(narrow["D per_dim"].x - 2))
    assert narrow["D per_dim"].values[0, at_two] < 1e-4 < 1e-2 < wide["D per_dim"].values[0, at_two]
    for name in gradients.DIVERGENCES.keys() - {"KL of fake"}:
        assert narrow[name].values[0, -1] < 1e-3 * narrow[name].values[0].max(), name


def test_gradients_are_drawn_with_their_values(capsys, tmp_path):
    picture, values = draw(capsys, tmp_path, "gradients", "--seeds", 0, 1, "--until", 15)
    assert width_of(picture) > 500
    written = json.loads(Path(values).read_text())
    assert "figure gradients" in written["command"] and "--seeds 0 1 --betas c1" in written["command"]
    assert [run["settings"]["seed"] for run in written["runs"]] == [0, 1] * len(gradients.VARIANTS)
    for run in written["runs"]:
        assert run["steps"] == list(range(1, 16)) and run["seconds"] > 0
        assert run["norms"].keys() == set(gradients.PAIRS)
        for norms in run["norms"].values():
            assert norms.keys() == gradients.DIVERGENCES.keys()
            assert len(norms["D product"]) == 15 and min(norms["D product"]) > 0
        of_rec, of_real = (run["norms"][pair] for pair in gradients.PAIRS)
        assert of_rec["KL of fake"] == of_real["KL of fake"] and of_rec["D product"] != of_real["D product"]


def test_gradients_go_on_where_they_stopped(capsys, tmp_path, monkeypatch):
    file, train_together = tmp_path / "figure-gradients.json", sweep.train_together
    # One is enough here, and is compiled sooner.
    monkeypatch.setattr(gradients, "DIVERGENCES", {"KL of fake": gradients.DIVERGENCES["KL of fake"]})
    monkeypatch.setattr(sweep, "train_together", stops_after(1))
    draw(capsys, tmp_path, "gradients", "--seeds", 0, "--until", 20, code=EXIT_PREEMPTED)
    [first] = json.loads(file.read_text())["runs"]
    partial = (tmp_path / "figure-gradients.png").read_bytes()
    monkeypatch.setattr(sweep, "train_together", train_together)
    draw(capsys, tmp_path, "gradients", "--seeds", 0, "--until", 20)
    runs = json.loads(file.read_text())["runs"]
    assert runs[0] == first and [run["settings"]["method"]["name"] for run in runs] == [
        "sintrovae", "asintrovae", "asintrovae"
    ]  # fmt: skip
    assert (tmp_path / "figure-gradients.png").read_bytes() != partial
    # What is there is only drawn.
    monkeypatch.setattr(sweep, "train_together", lambda *_, **__: pytest.fail("trained again"))
    draw(capsys, tmp_path, "gradients", "--seeds", 0, "--until", 20)
    assert json.loads(file.read_text())["runs"] == runs


def test_steps_that_are_no_part_of_a_training_are_refused(capsys, tmp_path):
    said = refusal(capsys, "figure", "gradients", "--steps", 20, "--until", 21, "--out", tmp_path)
    assert "--until 21 must be a multiple of 1, " in said and "at most the --steps of a training, 20." in said
    # What is not tiny is looked at every hundred steps.
    config = toy_config("vae", name="8gaussians")
    config.training.steps_per_dispatch = 100
    with pytest.raises(ConfigError, match="--until 5050 must be a multiple of 100"):
        gradients._check_until(5_050, resolve(config))


def test_damaged_values_of_gradients_are_named(capsys, tmp_path):
    for content in ('{"runs": [{', '{"runs": [{"settings": {}, "norms": []}]}'):
        (tmp_path / "figure-gradients.json").write_text(content)
        assert "figure-gradients.json cannot be read" in refusal(capsys, "figure", "gradients", "--out", tmp_path)


def test_gradient_norms_are_those_of_the_decoder_phase():
    config = Cell("8gaussians", "c1", "sintrovae", (), 0).config(BUDGET)
    state, _, _ = toy_inputs(config)
    networks, key = make_networks(config), jax.random.key(0)
    measured = gradients._gradient_norms(config)(jax.tree.map(lambda leaf: leaf[None], state.params), 3)
    noise = draw_noise(key, 3, 32, 2)

    def kl_fake(decoder):
        return jnp.mean(
            kl_to_standard_normal(networks.encode(state.params["encoder"], networks.decode(decoder, noise.prior)))
        )

    expected = optax.tree.norm(jax.grad(kl_fake)(state.params["decoder"]))
    assert measured["rec and fake"]["KL of fake"].tolist() == pytest.approx([float(expected)], rel=1e-4)
