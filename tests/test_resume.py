"""A run goes on where a kill, a signal or damage left it, and says what keeps it from going on."""

import dataclasses
import gc
import logging
import os
import re
import resource
import signal
from functools import partial
from pathlib import Path
from shutil import copytree

import pytest
from command_line import command, refusal, terminal  # noqa: F401
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from training_runs import arguments, assert_bit_equal, ended, records, run, started, toy
from training_runs import wait_until as wait
from twelve_steps import CONFIG, STEPS, copy_of, steps_of, stored

from asvae_jax.continuation import depends_on_length
from asvae_jax.distributed import StopRequest
from asvae_jax.dry_run import dry_run
from asvae_jax.errors import BusyError, CheckpointError
from asvae_jax.files import held
from asvae_jax.run import CHECKPOINTS
from asvae_jax.terminal import exit_code_of
from asvae_jax.train import train

# Orbax leaves the reads beside one that failed to the garbage collector, which complains of each.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _complaints_come_within_the_test():
    yield
    gc.collect()


SAME_ALL_ALONG = dict(
    optimizer__final_factor=1.0, optimizer__fall_power=1.0, optimizer__encoder_rise=0.0, method__late_from=0.0,
    method__late_alpha_factor=1.0, method__late_w_enc_factor=1.0, method__slope_weight=0.0, method__slope_until=0.0,
)  # fmt: skip


def damage(folder: Path, step: int) -> None:
    """Cuts all files of a checkpoint's numbers in half: Orbax writes several, of which it may not need each. What
    single bytes do is tested with the store itself."""
    files = list((folder / CHECKPOINTS / str(step) / "params").rglob("d/*"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_killed_run_goes_on_bit_for_bit(straight, tmp_path):
    command = arguments(CONFIG, "tiny", tmp_path)
    with started(command) as process:
        # A checkpoint is on disk and training has gone on behind it, with two more checkpoints to come.
        wait(lambda: (tmp_path / CHECKPOINTS / "4").is_dir() and records(tmp_path)[-1]["step"] >= 4, process)
        os.kill(process.pid, signal.SIGKILL)
        assert ended(process).returncode == -signal.SIGKILL
    assert STEPS not in steps_of(tmp_path)

    again = run(command)
    assert again.returncode == 0, again.stderr
    assert re.search(rf"Going on from step [48] of {STEPS}", again.stdout)
    assert_bit_equal(stored(tmp_path, STEPS), stored(straight.folder, STEPS))
    assert [record["step"] for record in records(tmp_path)] == list(range(1, STEPS + 1))
    for got, expected in zip(records(tmp_path), records(straight.folder), strict=True):
        assert without_speed(got) == without_speed(expected)


def without_speed(record: dict) -> dict:
    return {name: value for name, value in record.items() if name != "images_per_second"}


def test_stopped_run_saves_exits_with_75_and_goes_on_bit_for_bit(straight, tmp_path):
    command = arguments(CONFIG, "tiny", tmp_path)
    with started(command) as process:
        # Three checkpoints lie between the first step and the last.
        wait(lambda: len(records(tmp_path)) >= 1, process)
        process.send_signal(signal.SIGTERM)
        finished = ended(process)
    assert finished.returncode == 75, finished.stderr
    assert "SIGTERM received" in finished.stdout
    step = steps_of(tmp_path)[-1]
    assert step < STEPS and records(tmp_path)[-1]["step"] == step
    assert f"error: Stopped at step {step} as asked; the state is saved." in finished.stderr

    train(CONFIG, tmp_path)
    assert_bit_equal(stored(tmp_path, STEPS), stored(straight.folder, STEPS))
    assert [record["step"] for record in records(tmp_path)] == list(range(1, STEPS + 1))


def test_signal_in_the_last_evaluation_exits_with_75_and_the_command_evaluates_again(tmp_path):
    command = arguments(CONFIG, "tiny", tmp_path)
    with started([*command, "--config.evaluation.samples=200000"]) as process:
        wait(lambda: (tmp_path / CHECKPOINTS / str(STEPS)).is_dir(), process)
        process.terminate()
        assert ended(process).returncode == 75
    assert not (tmp_path / "evaluation.json").exists()
    again = run(command)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_noted_while_training_and_no_longer(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.received
        os.kill(os.getpid(), number)
        assert stop.received
    assert signal.getsignal(number) is before


def test_finished_run_is_not_trained_again(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=STEPS)
    again = train(CONFIG, folder)
    assert_bit_equal(again.params, straight.params)
    assert_bit_equal(again.statistics, straight.statistics)
    assert records(folder) == records(straight.folder)


def test_damaged_newest_checkpoint_is_passed_over_loudly_and_written_again(straight, tmp_path, package_log):
    folder = copy_of(straight, tmp_path / "run", last=8)
    damage(folder, 8)
    with package_log.at_level(logging.INFO):
        train(CONFIG, folder)
    messages = [record.message for record in package_log.records]
    assert any("CHECKPOINT DAMAGED" in message and "step 8" in message for message in messages)
    assert any("Going on from step 4 of 12" in message for message in messages)
    assert steps_of(folder) == [4, 8, 12] and (folder / CHECKPOINTS / "set-aside-8").is_dir()
    for step in (8, 12):
        assert_bit_equal(stored(folder, step), stored(straight.folder, step))
    assert [record["step"] for record in records(folder)] == list(range(1, STEPS + 1))


def test_run_with_nothing_but_damaged_checkpoints_does_not_start_afresh(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=4)
    damage(folder, 4)
    with pytest.raises(CheckpointError, match="None of the checkpoints"):
        train(CONFIG, folder)
    assert steps_of(folder) == [4]


def test_run_that_is_taken_back_goes_on_from_there_and_loses_nothing(straight, tmp_path, capsys):
    folder = copy_of(straight, tmp_path / "run", last=STEPS)
    (folder / "evaluation.json").write_text("{}")
    copytree(folder / CHECKPOINTS, folder / "best")
    for number, name in enumerate(("set-aside-12", "set-aside-12-1")):
        whole = records(folder)
        assert f"set aside in {folder}/{name}" in command(capsys, "rewind", str(folder), "4")
        aside = folder / name
        assert steps_of(folder) == [4] and steps_of(aside) == [8, 12]
        assert records(aside) == whole
        assert sorted(path.name for path in (folder / "best").iterdir()) == ["4"]
        if number == 0:
            assert (aside / "evaluation.json").read_text() == "{}" and (aside / "best" / "12").is_dir()
        assert not (folder / "evaluation.json").exists()
        train(CONFIG, folder)
        assert steps_of(folder) == [4, 8, 12]
        assert_bit_equal(stored(folder, STEPS), stored(straight.folder, STEPS))
        assert [record["step"] for record in records(folder)] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(
    ("step", "said"),
    [(6, "cannot go back to step 6; choose one of [4, 8]"), (12, "back to step 12"), (8, "cannot be restored")],
)
def test_run_cannot_be_taken_back_to_a_step_that_is_not_there_the_last_or_damaged(
    step, said, straight, tmp_path, capsys
):
    folder = copy_of(straight, tmp_path / "run", last=STEPS)
    damage(folder, 8)
    before = sorted(folder.rglob("*"))
    assert said in refusal(capsys, "rewind", str(folder), str(step))
    assert sorted(folder.rglob("*")) == before


def test_length_that_a_run_is_past_is_refused_before_anything_is_set_aside(straight, tmp_path, capsys):
    vae = partial(toy, "vae,tiny", checkpoint__every_steps=5)
    train(vae(training__steps=15), tmp_path)
    damage(tmp_path, 15)
    assert exit_code_of(lambda: train(vae(training__steps=5), tmp_path)) == 2
    assert "is at step 10 already, past training.steps=5" in capsys.readouterr().err
    assert steps_of(tmp_path) == [10, 15]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("method", "b_kl", 2.0),
        ("model", "latent_dim", 5),
        ("data", "batch_size", 32),
        ("data", "flip", True),
        ("data", "value_range", (-1.0, 1.0)),
        ("training", "warmup_steps", 2),
    ],
)
def test_other_settings_in_the_same_folder_exit_with_2_and_name_the_key(
    section, key, value, straight, tmp_path, capsys
):
    folder = copy_of(straight, tmp_path / "run", last=4)
    was = getattr(getattr(CONFIG, section), key)
    other = dataclasses.replace(getattr(CONFIG, section), **{key: value})
    assert exit_code_of(lambda: train(dataclasses.replace(CONFIG, **{section: other}), folder)) == 2
    message = capsys.readouterr().err
    assert f"{section}.{key} {was} -> {value}" in message and "--workdir" in message
    assert steps_of(folder) == [4]


def test_other_threads_and_another_folder_of_the_same_data_go_on_bit_for_bit(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=8)
    data = dataclasses.replace(CONFIG.data, read_threads=4, data_dir=str(tmp_path / "data"))
    train(dataclasses.replace(CONFIG, data=data), folder)
    assert_bit_equal(stored(folder, STEPS), stored(straight.folder, STEPS))


def test_steps_per_dispatch_that_step_over_the_end_are_refused(tmp_path, capsys):
    # Dispatches of 5 up to step 10, and then of 20 to step 20, which cannot be met.
    train(toy("vae,tiny", training__steps=10), tmp_path)
    large = dict(training__steps_per_dispatch=20, training__log_every_steps=20, checkpoint__every_steps=20)
    assert exit_code_of(lambda: train(toy("vae,tiny", **large), tmp_path)) == 2
    assert "training.steps_per_dispatch" in capsys.readouterr().err


def test_more_steps_go_on_as_if_they_had_been_asked_for_at_first(tmp_path):
    settings = dict(training__warmup_steps=5, training__log_every_steps=5)
    whole = train(toy("sintrovae,tiny", **settings), tmp_path / "whole")
    train(toy("sintrovae,tiny", training__steps=10, **settings), tmp_path / "run")
    longer = train(toy("sintrovae,tiny", **settings), tmp_path / "run")
    assert longer.step == whole.step == 20
    assert_bit_equal(longer.params, whole.params)
    assert [record["step"] for record in records(tmp_path / "run")] == [5, 10, 15, 20]


def test_length_of_a_run_whose_rate_falls_is_part_of_what_it_computes(tmp_path, capsys):
    falling = partial(toy, "vae,tiny", optimizer__final_factor=0.1)
    train(falling(training__steps=10), tmp_path)
    assert exit_code_of(lambda: train(falling(), tmp_path)) == 2
    assert "training.steps 10 -> 20" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "changes", "depends"),
    [
        ("sintrovae", {}, False),
        ("sintrovae", dict(optimizer__encoder_factor=3.0), False),
        ("sintrovae", dict(optimizer__encoder_factor=3.0, optimizer__encoder_rise=0.5), True),
        ("asintrovae,paper", {}, True),
        ("asintrovae,paper", dict(method__kl_schedule="constant", method__kl_rate=0.5), False),
        ("asintrovae,released", {}, True),
        ("asintrovae,recommended", {}, True),
        ("asintrovae,recommended", SAME_ALL_ALONG, False),
        ("asintrovae,recommended", {**SAME_ALL_ALONG, "method__late_from": 0.5}, True),
        ("asintrovae,recommended", {**SAME_ALL_ALONG, "method__w_latent": 0.4}, False),
        ("asintrovae,recommended", {**SAME_ALL_ALONG, "method__w_latent": 0.4, "method__latent_rise": 0.5}, True),
        ("asintrovae,recommended", {**SAME_ALL_ALONG, "method__slope_weight": 1.0, "method__slope_until": 1.0}, True),
    ],
)
def test_which_settings_make_a_longer_run_another_run(words, changes, depends):
    assert depends_on_length(toy(f"{words},tiny", **changes)) == depends


def test_length_of_an_annealed_run_is_part_of_what_it_computes(straight, tmp_path, capsys):
    folder = copy_of(straight, tmp_path / "run", last=4)
    longer = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, steps=STEPS + 2))
    assert exit_code_of(lambda: train(longer, folder)) == 2
    assert "training.steps 12 -> 14" in capsys.readouterr().err


def test_dry_run_of_a_run_that_exists_says_where_it_would_go_on(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=8)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert "would go on from step 8" in dry_run(CONFIG, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_tensorboard_forgets_what_a_killed_run_logged_behind_its_checkpoint(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=4)
    assert records(folder)[-1]["step"] == STEPS
    # Another file for the second process, named after the time in whole seconds.
    [first] = (folder / "tensorboard").iterdir()
    first.rename(first.with_name(first.name.replace("tfevents.", "tfevents.0")))
    train(CONFIG, folder)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("kl_real")] == list(range(1, STEPS + 1))


def test_no_room_for_checkpoints_exits_with_4(tmp_path):
    # Pictures and figures fit below the limit, the weights do not.
    config = toy("vae,tiny", model__widths=(512, 512, 512))
    # Compiled programs would not fit either, and are not what this is about.
    with started(arguments(config, "vae,tiny", tmp_path), env={"JAX_COMPILATION_CACHE_DIR": ""}) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (600_000, 600_000))
        finished = ended(process)
    assert finished.returncode == 4, finished.stderr
    assert f"error: A checkpoint could not be written to {tmp_path}/checkpoints: " in finished.stderr
    assert steps_of(tmp_path) == []


def test_a_folder_that_another_process_trains_in_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr("asvae_jax.start._PATIENCE", 0.0)
    config = toy("vae,tiny")
    refused = pytest.raises(BusyError, match=f"Another process trains in {tmp_path}; .*--workdir")
    with held(tmp_path / ".lock"), refused as error:
        train(config, tmp_path)
    # A scheduler may try again, which a bad request (2) is not worth.
    assert error.value.exit_code == 5
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert train(config, tmp_path).step == config.training.steps
