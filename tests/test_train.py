"""Training from end to end: it goes on where a kill, a signal or damage left it, and says what stops it."""

import dataclasses
import gc
import json
import logging
import math
import os
import re
import resource
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from training_runs import arguments, assert_bit_equal, assert_close, digits, ended, job, records, run, started, toy
from training_runs import wait_until as wait

from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.distributed import StopRequest, make_mesh, replicated
from asvae_jax.errors import CheckpointError
from asvae_jax.evaluation import evaluate, write_evaluation
from asvae_jax.run import CHECKPOINTS, Run, load_run, state_template
from asvae_jax.settings import Config
from asvae_jax.terminal import exit_code_of
from asvae_jax.train import TrainingData, dry_run, fresh_state, train

METHODS = ("vae", "introvae", "sintrovae", "asintrovae", "wgan_gp")
STEPS = 12
# Twelve steps with three checkpoints, every step logged.
CONFIG = digits(training__steps=STEPS, training__log_every_steps=1, checkpoint__every_steps=4)


# Orbax leaves the reads beside one that failed to the garbage collector, which complains of each.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _complaints_come_within_the_test(monkeypatch):
    # A command line that ran before in this process may have switched propagation off.
    monkeypatch.setattr(logging.getLogger("asvae_jax"), "propagate", True)
    yield
    gc.collect()


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Run:
    """`CONFIG` in one go."""
    return train(CONFIG, tmp_path_factory.mktemp("straight"))


def copy_of(run: Run, folder: Path, *, last: int) -> Path:
    """What lay in a run's folder when a kill struck after its checkpoint of step `last`."""
    shutil.copytree(run.folder, folder)
    for step in steps_of(folder):
        if step > last:
            shutil.rmtree(folder / CHECKPOINTS / str(step))
    return folder


def stored(folder: Path, step: int, config: Config = CONFIG):
    """Everything that a checkpoint holds of the training state."""
    state = state_template(config, replicated(make_mesh(config)))
    templates = {"params": state.params, "ema": state.ema, "opt_state": state.opt_state, "key": {"key": state.key}}
    with CheckpointStore(folder / CHECKPOINTS) as store:
        return store.read(step, lambda meta: templates)[0]


def steps_of(folder: Path) -> list[int]:
    with CheckpointStore(folder / CHECKPOINTS) as store:
        return store.steps()


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


def test_damaged_newest_checkpoint_is_passed_over_loudly_and_written_again(straight, tmp_path, caplog):
    folder = copy_of(straight, tmp_path / "run", last=8)
    damage(folder, 8)
    with caplog.at_level(logging.INFO):
        train(CONFIG, folder)
    messages = [record.message for record in caplog.records]
    assert any("CHECKPOINT DAMAGED" in message and "step 8" in message for message in messages)
    assert any("Going on from step 4 of 12" in message for message in messages)
    assert steps_of(folder) == [4, 8, 12] and (folder / CHECKPOINTS / "damaged-8").is_dir()
    for step in (8, 12):
        assert_bit_equal(stored(folder, step), stored(straight.folder, step))
    assert [record["step"] for record in records(folder)] == list(range(1, STEPS + 1))


def test_run_with_nothing_but_damaged_checkpoints_does_not_start_afresh(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=4)
    damage(folder, 4)
    with pytest.raises(CheckpointError, match="None of the checkpoints"):
        train(CONFIG, folder)
    assert steps_of(folder) == [4]


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


def test_length_of_an_annealed_run_is_part_of_what_it_computes(straight, tmp_path, capsys):
    folder = copy_of(straight, tmp_path / "run", last=4)
    longer = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, steps=STEPS + 2))
    assert exit_code_of(lambda: train(longer, folder)) == 2
    assert "training.steps 12 -> 14" in capsys.readouterr().err


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


def test_refused_steps_are_logged_and_warned_of(tmp_path, caplog):
    config = toy("vae,tiny", training__max_skipped_steps=1_000, optimizer__learning_rate=1e30, training__steps=20)
    train(config, tmp_path)
    refused = [record["skipped"] for record in records(tmp_path)]
    # The first step's own figures are finite, and no later one's.
    assert refused == [0.9, 1.0]
    assert any("90.0% of the steps were refused" in record.message for record in caplog.records)
    assert all(math.isfinite(value) for name, value in records(tmp_path)[0].items() if name != "step")


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


def test_tensorboard_forgets_what_a_killed_run_logged_behind_its_checkpoint(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=4)
    assert records(folder)[-1]["step"] == STEPS
    # Another file for the second process, named after the time in whole seconds.
    [first] = (folder / "tensorboard").iterdir()
    first.rename(first.with_name(first.name.replace("tfevents.", "tfevents.0")))
    train(CONFIG, folder)
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("kl_real")] == list(range(1, STEPS + 1))


def test_profile_is_written_for_tensorboard(tmp_path):
    train(toy("vae,tiny", training__log_every_steps=5), tmp_path, profile=True)
    assert list((tmp_path / "tensorboard").rglob("*.xplane.pb"))


@pytest.mark.parametrize("config", [CONFIG, toy()], ids=["digits", "toy"])
def test_dry_run_says_what_would_happen_and_writes_nothing(config, tmp_path):
    plan = dry_run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for said in (config.data.name, config.method.name, "would start afresh", f"{config.training.steps:,} steps"):
        assert said in plan


def test_dry_run_of_a_run_that_exists_says_where_it_would_go_on(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=8)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert "would go on from step 8" in dry_run(CONFIG, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_wgan_gp_on_a_toy_is_evaluated_without_an_encoder(tmp_path):
    finished = train(toy("wgan_gp,tiny"), tmp_path)
    path, result = write_evaluation(finished)
    assert json.loads(path.read_text()) == result
    assert "modes_hit" in result["ema"] and "gn_elbo" not in result["ema"]


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


def run_together(command: list[str], processes: int) -> None:
    """A job to its good end."""
    with job(command, processes) as running:
        for process in running:
            finished = ended(process)
            assert finished.returncode == 0, finished.stderr


def assert_evaluated_alike(folder: Path, run: Run) -> None:
    """What lies in a run's folder is what this process measures, but for the rounding of sums."""
    kept, measured = json.loads((folder / "evaluation.json").read_text()), evaluate(run)
    for weights in ("raw", "ema"):
        assert {"psnr", "kl_real", "fid_digits_n100"} < set(kept[weights])
        assert kept[weights] == pytest.approx(measured[weights], rel=1e-6, abs=0)
    assert kept["protocol"] == json.loads(json.dumps(measured["protocol"]))


def test_two_processes_train_one_run(straight, tmp_path):
    run_together([*arguments(CONFIG, "tiny", tmp_path), "--distributed"], 2)
    # One set of files, as from one process.
    assert steps_of(tmp_path) == [4, 8, 12]
    assert [record["step"] for record in records(tmp_path)] == list(range(1, STEPS + 1))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == sorted(
        path.name for path in (straight.folder / "sheets").iterdir()
    )
    # What two processes saved, one can load; and it is what one process trained.
    together = load_run(tmp_path)
    assert_close(together.params, straight.params, rtol=1e-4)
    assert_close(together.ema, straight.ema, rtol=1e-4)
    assert_close(together.statistics, straight.statistics, rtol=1e-3)
    assert_evaluated_alike(tmp_path, together)


def test_two_processes_evaluate_a_run_as_one_does(straight, tmp_path):
    # 359 images are 7 batches of 52, so that the last batch of the second process is padding alone.
    folder = copy_of(straight, tmp_path / "run", last=STEPS)
    run_together([*arguments(CONFIG, "tiny", folder), "--distributed", "--mode=evaluate"], 2)
    assert_evaluated_alike(folder, load_run(folder))


def test_signal_to_one_of_two_processes_stops_both_at_the_same_step(tmp_path):
    endless = digits(
        "vae,tiny", training__steps=1_000_000, training__log_every_steps=1, checkpoint__every_steps=1_000_000
    )
    with job([*arguments(endless, "vae,tiny", tmp_path), "--distributed"], 2) as (first, second):
        wait(lambda: len(records(tmp_path)) >= 1, first)
        second.send_signal(signal.SIGTERM)
        stopped = [ended(process) for process in (first, second)]
    assert [finished.returncode for finished in stopped] == [75, 75], stopped
    [step] = steps_of(tmp_path)
    assert all(f"Stopped at step {step:,} as asked" in finished.stderr for finished in stopped)


# The trainer's own command line, with every row that it takes from its data kept: (step, first row) names the file.
RECORDED = """
import sys
from pathlib import Path
import numpy as np
from asvae_jax import main, train
folder, taken = Path(sys.argv.pop(1)), train.TrainingData.batches
def recorded(data, first_step):
    for step, (pixels,) in enumerate(taken(data, first_step), first_step):
        for shard in pixels.addressable_shards:
            np.save(folder / f"{step:03}-{shard.index[1].start or 0:03}.npy", shard.data[0])
        yield (pixels,)
train.TrainingData.batches = recorded
main.main()
"""


def test_run_resumed_on_other_numbers_of_processes_sees_the_same_images_and_learns_the_same(tmp_path, monkeypatch):
    def config(steps: int) -> Config:
        # 11 batches an epoch: the seams at 11 and 22 lie within the second and the third part.
        return digits(
            "vae,tiny", data__batch_size=128, training__steps=steps, training__log_every_steps=1,
            checkpoint__every_steps=8,
        )  # fmt: skip

    served = tmp_path / "served"
    served.mkdir()
    for steps, processes in ((8, 1), (16, 2), (24, 1)):
        _, _, *flags = arguments(config(steps), "vae,tiny", tmp_path / "run")
        run_together(["-c", RECORDED, str(served), *flags, *["--distributed"] * (processes > 1)], processes)
        assert len(list(served.iterdir())) == {8: 8, 16: 24, 24: 32}[steps]
    assert [record["step"] for record in records(tmp_path / "run")] == list(range(1, 25))

    whole = config(24)
    batches = TrainingData(whole, make_mesh(whole)).batches(0)
    for step in range(24):
        parts = [np.load(path) for path in sorted(served.glob(f"{step:03}-*"))]
        np.testing.assert_array_equal(np.concatenate(parts), next(batches)[0][0])
    for epoch in (range(11), range(11, 22)):
        images = [image for step in epoch for path in served.glob(f"{step:03}-*") for image in np.load(path)]
        assert len(images) == len({image.tobytes() for image in images}) == 11 * 128

    straight = train(whole, tmp_path / "straight")
    resumed = load_run(tmp_path / "run")
    # Rounding makes a difference of 2e-6, a single image upside down at the very last step one of 3e-4.
    assert_close(resumed.params, straight.params, rtol=1e-5)
    assert_close(resumed.ema, straight.ema, rtol=1e-5)
    taken = TrainingData.batches

    def with_one_wrong_image(data: TrainingData, first_step: int):
        for step, (pixels,) in enumerate(taken(data, first_step), first_step):
            yield (pixels.at[0, 0].set(pixels[0, 0, ::-1]) if step == 23 else pixels,)

    monkeypatch.setattr(TrainingData, "batches", with_one_wrong_image)
    wrong = train(whole, tmp_path / "wrong")
    with pytest.raises(AssertionError):
        assert_close(wrong.params, straight.params, rtol=1e-4)
