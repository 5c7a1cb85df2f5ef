"""Training and evaluation by several processes: one run, whatever their number."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from training_runs import arguments, assert_close, digits, ended, job, records
from training_runs import wait_until as wait
from twelve_steps import CONFIG, STEPS, copy_of, steps_of

from asvae_jax.distributed import make_mesh
from asvae_jax.evaluation import evaluate
from asvae_jax.run import Run, load_run
from asvae_jax.settings import Config
from asvae_jax.train import train
from asvae_jax.training_data import TrainingData


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
        # SSIM ends at 1, whatever size it is of here: its rounding is that of 1.
        ssim = measured[weights].pop("ssim")
        assert kept[weights].pop("ssim") == pytest.approx(ssim, rel=0, abs=1e-7)
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


def test_signal_to_one_of_two_processes_stops_both_in_the_last_evaluation(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=STEPS)
    command = [*arguments(CONFIG, "tiny", folder), "--distributed", "--config.evaluation.samples=10000000"]
    with job(command, 2) as (first, second):
        # The settings are written after the last thing that is restored, and there is nothing left to train.
        written = (folder / "config.json").stat().st_mtime_ns
        wait(lambda: (folder / "config.json").stat().st_mtime_ns > written, first)
        second.send_signal(signal.SIGTERM)
        stopped = [ended(process) for process in (first, second)]
    assert [finished.returncode for finished in stopped] == [75, 75], stopped
    assert all("Stopped as asked; what was finished" in finished.stderr for finished in stopped)
    assert not (folder / "evaluation.json").exists()


# The trainer's own command line, with a checkpoint of which the second process alone reads other bytes.
DAMAGED_FOR_ONE = """
import os, sys
from asvae_jax import checkpoint, main
from asvae_jax.errors import CheckpointError
whole = checkpoint.CheckpointStore.read
def read(store, step, templates):
    found = whole(store, step, templates)
    if os.environ["OMPI_COMM_WORLD_RANK"] == "1" and step == 12:
        raise CheckpointError("step 12 is not what was saved")
    return found
checkpoint.CheckpointStore.read = read
main.main()
"""


def test_checkpoint_that_one_of_two_processes_cannot_read_is_passed_over_by_both(straight, tmp_path):
    folder = copy_of(straight, tmp_path / "run", last=STEPS)
    _, _, *flags = arguments(CONFIG, "tiny", folder)
    run_together(["-c", DAMAGED_FOR_ONE, *flags, "--distributed"], 2)
    assert (folder / "checkpoints" / "set-aside-12").is_dir()
    assert steps_of(folder) == [4, 8, 12]
    assert_close(load_run(folder).params, straight.params, rtol=1e-4)


# The trainer's own command line, with every row that it takes from its data kept: (step, first row) names the file.
RECORDED = """
import sys
from pathlib import Path
import numpy as np
from asvae_jax import main
from asvae_jax.training_data import TrainingData
folder, taken = Path(sys.argv.pop(1)), TrainingData.batches
def recorded(data, first_step):
    for step, (pixels,) in enumerate(taken(data, first_step), first_step):
        for shard in pixels.addressable_shards:
            np.save(folder / f"{step:03}-{shard.index[1].start or 0:03}.npy", shard.data[0])
        yield (pixels,)
TrainingData.batches = recorded
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
