"""What the networks come to without a game: the map it is told, the table, and that it goes on where it stopped."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import command, refusal
from toy_cells import tiny  # noqa: F401

from asvae_jax.data.toys import MIXTURES
from asvae_jax.errors import EXIT_PREEMPTED
from asvae_jax.experiments import limits
from asvae_jax.gaussians import Gaussian


def test_the_map_carries_the_prior_onto_the_mixture():
    centres, width = MIXTURES["8gaussians"]
    points = np.asarray(limits.transported(jax.random.normal(jax.random.key(0), (80_000, 2))))
    offsets = points[:, None] - centres
    mode = np.linalg.norm(offsets, axis=-1).argmin(axis=1)
    assert np.bincount(mode) / len(points) == pytest.approx(np.full(8, 1 / 8), abs=0.005)
    for number in range(8):
        within = offsets[mode == number, number] / width
        np.testing.assert_allclose(within.mean(axis=0), 0, atol=0.05)
        np.testing.assert_allclose(np.cov(within.T), np.eye(2), atol=0.06)
        # A Gaussian's share beyond the radius that leaves 5 % out.
        assert np.mean(np.linalg.norm(within, axis=1) > 2.4477) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("objective", limits.OBJECTIVES.values())
def test_an_objective_is_least_where_points_are_as_they_should_be(objective):
    latents = jax.random.normal(jax.random.key(0), (64, 2))
    right = limits.transported(latents)
    networks = SimpleNamespace(
        decode=lambda offset, z: limits.transported(z) + offset,
        # An encoder that tells each latent from its decoding.
        encode=lambda offset, x: Gaussian(latents + jnp.mean(x - right - offset), jnp.zeros_like(x)),
    )
    assert objective(networks, 0.0, 0.0, right, latents) < 0.01 < objective(networks, 0.1, 0.1, right, latents)


def test_a_decoder_that_folds_pays_for_it():
    latents = jax.random.normal(jax.random.key(0), (64, 2))
    networks = SimpleNamespace(decode=lambda _, z: jnp.abs(z), encode=lambda _, x: Gaussian(x, jnp.zeros_like(x)))
    error = jnp.mean(jnp.square(jnp.abs(latents) - latents))
    of_points = limits.between_points(networks, None, None, latents, latents)
    assert limits.unfolded(networks, None, None, latents, latents) == pytest.approx(float(of_points + 0.5 * error))


def test_the_table_says_what_its_runs_scored_and_trains_none_twice(capsys, tmp_path, monkeypatch):
    make(capsys, tmp_path, "--seeds", 0)
    first = (tmp_path / "limits.md").read_text()
    monkeypatch.setattr(limits, "init_state", interrupted)
    # Whatever the weights of the game would have been.
    file = tmp_path / "limits.json"
    values = json.loads(file.read_text())
    for run in values["runs"]:
        run["settings"]["method"]["w_latent"] += 1.0
    file.write_text(json.dumps(values))
    make(capsys, tmp_path, "--seeds", 0)
    assert (tmp_path / "limits.md").read_text() == first
    command(capsys, "table", "limits", *SMALL, "--seeds", 0, 1, "--out", tmp_path, code=EXIT_PREEMPTED)
    assert "Partial: 3 of 6 runs are done." in (tmp_path / "limits.md").read_text()

    written = json.loads(file.read_text())
    assert [run["objective"] for run in written["runs"]] == list(limits.OBJECTIVES)
    for run in written["runs"]:
        assert f"| {run['objective']} | 1 | {run['ema']['kl_paper']:.3g} |" in first
        assert run["raw"].keys() == run["ema"].keys()
    assert 0.5 < np.median(written["perfect"]["kl_paper"]) < 0.9
    assert len((tmp_path / "limits.csv").read_text().splitlines()) == 1 + 3 * 2


def test_damaged_runs_are_named(capsys, tmp_path):
    for content in ("[", "{}", '{"runs": [{}]}'):
        (tmp_path / "limits.json").write_text(content)
        assert "limits.json cannot be read" in refusal(capsys, "table", "limits", "--out", tmp_path)


SMALL = ("--steps", 20, "--batch-size", 32)


def make(capsys, tmp_path, *options: object) -> None:
    command(capsys, "table", "limits", *SMALL, *options, "--out", tmp_path)


def interrupted(*_):
    raise KeyboardInterrupt
