"""Training from end to end: what every method learns, what a run leaves behind, and what stops it."""

import dataclasses
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from training_runs import digits, records, toy
from twelve_steps import CONFIG, STEPS, steps_of, stored

from asvae_jax.distributed import StopRequest, make_mesh
from asvae_jax.dry_run import dry_run
from asvae_jax.errors import ConfigError, GameLostError, Preempted
from asvae_jax.evaluation import write_evaluation
from asvae_jax.progress import Progress
from asvae_jax.settings import Config
from asvae_jax.start import fresh_state
from asvae_jax.terminal import exit_code_of
from asvae_jax.train import _sheets_every, train
from asvae_jax.training_data import TrainingData
from asvae_jax.writers import Writers

METHODS = ("vae", "introvae", "sintrovae", "asintrovae", "wgan_gp")


def test_training_that_is_not_finite_exits_with_3_and_leaves_good_checkpoints(tmp_path, capsys):
    # The rate explodes at step 10, behind a good checkpoint.
    config = toy(
        "vae,tiny",
        training__steps=100,
        training__log_every_steps=5,
        training__max_skipped_steps=8,
        checkpoint__every_steps=10,
        optimizer__milestone_steps=(10,),
        optimizer__milestone_factor=1e34,
    )
    assert exit_code_of(lambda: train(config, tmp_path)) == 3
    message = capsys.readouterr().err
    assert "steps in a row were refused" in message and "optimizer.learning_rate" in message
    # The figure is one of those that the run logs.
    named = re.search(r"not finite: (\S+?)[,.] ", message).group(1)
    assert named in records(tmp_path)[0]
    assert steps_of(tmp_path)[0] == 10
    for step in steps_of(tmp_path):
        items = stored(tmp_path, step, config)
        leaves = jax.tree.leaves([items[name] for name in ("params", "ema", "opt_state")])
        assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_refused_steps_are_logged_and_warned_of(tmp_path, package_log):
    config = toy("vae,tiny", training__max_skipped_steps=1_000, optimizer__learning_rate=1e30, training__steps=20)
    train(config, tmp_path)
    refused = [record["skipped"] for record in records(tmp_path)]
    # The first step's own figures are finite, and no later one's.
    assert refused == [0.9, 1.0]
    assert any("90.0% of the steps were refused" in record.message for record in package_log.records)
    assert all(math.isfinite(value) for name, value in records(tmp_path)[0].items() if name != "step")


def test_a_game_that_stays_lost_exits_with_6_and_may_be_gone_on_with(tmp_path, capsys):
    # Nothing raises the KL of fake images.
    lost = dict(method__b_neg=0.0, training__log_every_steps=5, checkpoint__every_steps=10)
    config = toy("sintrovae,tiny", **lost, training__warmup_steps=0, training__max_negative_intervals=3)
    assert exit_code_of(lambda: train(config, tmp_path)) == 6
    said = capsys.readouterr().err
    assert "is below that of real ones" in said and "over 3 logging intervals in a row, up to step 15." in said
    assert [record["step"] for record in records(tmp_path)] == [5, 10, 15] and steps_of(tmp_path) == [10]
    patient = dataclasses.replace(config.training, max_negative_intervals=0)
    assert train(dataclasses.replace(config, training=patient), tmp_path).step == 20


def test_only_intervals_in_a_row_count_against_a_game():
    progress = Progress(toy("sintrovae,tiny", training__max_negative_intervals=2), first_step=0)

    def report(step: int, difference: float) -> None:
        figures = {"kl_fake": 2.0 + difference, "kl_real": 2.0, "kl_fake_minus_real": difference, "skipped": 0.0}
        progress.add({name: jnp.full(1, value) for name, value in figures.items()})
        progress.report(step, Writers([]))

    for step, difference in enumerate([-1.0, 1.0, -1.0], 1):
        report(step, difference)
    with pytest.raises(GameLostError, match="up to step 4"):
        report(4, -1.0)


def step_metrics(config: Config, steps: int, devices: int = 4) -> dict[str, np.ndarray]:
    """The metrics of every step, on the first `devices` devices."""
    mesh = Mesh(np.asarray(jax.devices()[:devices]), ("data",))
    data = TrainingData(config, mesh)
    run_steps, batches = data.compiled_steps(config), data.batches(0)
    state, series = fresh_state(config, mesh), []
    for _ in range(0, steps, config.training.steps_per_dispatch):
        state, metrics = run_steps(state, *next(batches))
        series.append(metrics)
    return {name: np.concatenate([np.asarray(metrics[name]) for metrics in series]) for name in series[0]}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_alike_on_one_device_and_on_four(method, tmp_path):
    config = digits(f"{method},tiny", training__steps=10, training__log_every_steps=1, checkpoint__every_steps=10)
    finished = train(config, tmp_path)
    assert make_mesh(config).size == 4
    on_one = step_metrics(config, steps=10, devices=1)
    # A record has no figure for a network whose turn it was not.
    on_four = {name: [record.get(name, math.nan) for record in records(tmp_path)] for name in on_one}
    assert on_four["skipped"] == [0] * 10
    for name, values in on_four.items():
        # Float32 rounding, which ten steps of Adam make larger.
        scale = max(1e-3, np.nanmax(np.abs(on_one[name])))
        np.testing.assert_allclose(values, on_one[name], rtol=0, atol=2e-4 * scale, err_msg=name)
    # Something was learnt, by both networks, and the average follows behind.
    start = fresh_state(config, make_mesh(config)).params
    for network in ("encoder", "decoder"):
        moved = distance(finished.params[network], start[network])
        assert 0 < distance(finished.ema[network], start[network]) < moved
    for weights in ("raw", "ema"):
        assert (tmp_path / "sheets" / f"{weights}-0000010.png").is_file()


def distance(one, other) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return math.sqrt(sum(float(np.sum(np.square(np.asarray(a) - np.asarray(b)))) for a, b in pairs))


def test_figures_of_a_record(straight):
    for record in records(straight.folder):
        assert {
            "step", "images_per_second", "skipped", "encoder/loss", "decoder/loss", "encoder/gradient_norm",
            "decoder/gradient_norm", "err_real", "kl_real", "kl_rec", "kl_fake", "kl_fake_minus_real", "saturated",
            "active_units", "clamped_logvars", "as_distance",
        } <= set(record)  # fmt: skip
        assert all(math.isfinite(value) for value in record.values())
        assert record["encoder/gradient_norm"] > 0 and record["decoder/gradient_norm"] > 0
        assert record["kl_fake_minus_real"] == pytest.approx(record["kl_fake"] - record["kl_real"], abs=1e-4)
        assert 0 <= record["saturated"] <= 1 and 0 <= record["clamped_logvars"] <= 1
        assert 0 <= record["active_units"] <= CONFIG.model.latent_dim


def test_steps_before_a_stop_are_logged_too(tmp_path):
    config = digits("vae,tiny", training__log_every_steps=4)
    per = config.training.steps_per_dispatch
    stop = StopRequest()
    stop.received = True
    with pytest.raises(Preempted, match=f"Stopped at step {per} "):
        train(config, tmp_path, stop=stop)
    train(config, tmp_path)
    assert config.training.steps == 4 > per
    assert [record["step"] for record in records(tmp_path)] == [per, 4]


@pytest.mark.parametrize(("every", "steps", "sheets"), [(500, 20_000, 40), (500, 762_500, 101), (4, 12, 3)])
def test_a_long_run_has_a_hundred_sheets(every, steps, sheets):
    config = digits("vae,tiny", training__steps=steps, checkpoint__every_steps=every)
    assert steps // _sheets_every(config) == sheets
    assert _sheets_every(config) % every == 0


def test_settings_are_kept_beside_the_run(straight):
    settings = json.loads(json.dumps(CONFIG.to_dict()))
    assert json.loads((straight.folder / "config.json").read_text()) == settings
    # And at the head of the figures that were measured under them.
    first_line, _ = (straight.folder / "metrics.jsonl").read_text().split("\n", 1)
    assert json.loads(first_line) == {"step": 0, "config": settings}


def test_warmup_is_a_plain_vae_and_the_method_follows(tmp_path):
    config = toy(training__warmup_steps=10, training__log_every_steps=5, training__steps=20)
    train(config, tmp_path)
    first, second, third, fourth = records(tmp_path)
    for record in (first, second):
        assert not {"kl_fake", "kl_rec", "as_distance"} & set(record)
        assert {"encoder/loss", "err_real", "kl_real"} <= set(record)
    for record in (third, fourth):
        assert {"kl_fake", "kl_rec", "as_distance"} <= set(record)
    # The same steps by themselves, as the method `vae`.
    alone = dataclasses.replace(config.warmup(), training=dataclasses.replace(config.training, warmup_steps=0))
    expected = step_metrics(alone, steps=10)
    np.testing.assert_allclose(second["encoder/loss"], np.mean(expected["encoder/loss"][5:]), rtol=1e-6)
    np.testing.assert_allclose(second["kl_real"], np.mean(expected["kl_real"][5:]), rtol=1e-6)


def test_tensorboard_reads_scalars_pictures_and_settings(straight):
    events = EventAccumulator(str(straight.folder / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    for name in ("kl_real", "encoder/loss", "images_per_second"):
        read = {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(name)}
        written = {record["step"]: record[name] for record in records(straight.folder)}
        assert list(read) == list(range(1, STEPS + 1))
        np.testing.assert_allclose(list(read.values()), [written[step] for step in read], rtol=1e-6)
    for weights in ("raw", "ema"):
        pictures = events.Tensors(f"sheet/{weights}")
        assert [event.step for event in pictures] == [4, 8, 12]
        width, height, png = make_ndarray(pictures[-1].tensor_proto)
        assert png == (straight.folder / "sheets" / f"{weights}-0000012.png").read_bytes()
        assert int(width) > int(height) > 0
    [text] = make_ndarray(events.Tensors("config")[0].tensor_proto)
    assert json.loads(text.decode().strip("`\n")) == json.loads(json.dumps(CONFIG.to_dict()))


def test_profile_is_written_for_tensorboard(tmp_path):
    train(toy("vae,tiny", training__log_every_steps=5), tmp_path, profile=True)
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))


@pytest.mark.parametrize("config", [CONFIG, toy()], ids=["digits", "toy"])
def test_dry_run_says_what_would_happen_and_writes_nothing(config, tmp_path):
    plan = dry_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for said in (config.data.name, config.method.name, "would start afresh", f"{config.training.steps:,} steps"):
        assert said in plan


def test_dry_run_refuses_a_run_that_is_past_its_end(tmp_path):
    train(toy("vae,tiny"), tmp_path)
    with pytest.raises(ConfigError, match=r"at step 20 already, past training\.steps=10"):
        dry_run(toy("vae,tiny", training__steps=10), tmp_path)


def test_wgan_gp_on_a_toy_is_evaluated_without_an_encoder(tmp_path):
    finished = train(toy("wgan_gp,tiny"), tmp_path)
    path, result = write_evaluation(finished)
    assert json.loads(path.read_text()) == result
    assert "modes_hit" in result["ema"] and "gn_elbo" not in result["ema"]


def test_training_runs_two_dispatches_ahead_of_the_devices(monkeypatch):
    # A signal is heeded once these are done, however long the logging interval.
    waited = []
    monkeypatch.setattr(jax, "block_until_ready", waited.append)
    progress, dispatches = Progress(toy(), first_step=0), [{"skipped": jnp.zeros(1)} for _ in range(5)]
    for number, metrics in enumerate(dispatches):
        progress.add(metrics)
        assert [id(metrics) for metrics in waited] == [id(metrics) for metrics in dispatches[: max(0, number - 1)]]
