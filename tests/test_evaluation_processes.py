"""Evaluation by two real processes gives what one process gives, written once."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from training_runs import DATA_DIR, digits, ended, job, wait_until

from asvae_jax.distributed import rows_of_all_processes, sum_over_processes
from asvae_jax.evaluation import evaluate
from asvae_jax.features.networks import open_network
from asvae_jax.generation import measure_split, write_reference
from asvae_jax.run import Run, load_run
from asvae_jax.train import train

# 101 generated images are two batches of 52, 359 test images seven: the last ones are partly or wholly padding.
OPTIONS = ["--samples", "101", "--batch-size", "52"]

# The command line, which says when it begins to measure.
MARKED = """
import sys
from pathlib import Path
from asvae_jax.__main__ import main
from asvae_jax.evaluation import Evaluator
begun, evaluate = Path(sys.argv.pop(1)), Evaluator.evaluate
def marked(*arguments, **options):
    begun.touch()
    return evaluate(*arguments, **options)
Evaluator.evaluate = marked
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return train(digits("vae,tiny", training__steps=40), tmp_path_factory.mktemp("run"))


def together(command: list[object], processes: int) -> list[str]:
    """What each process of a job printed."""
    with job(["-m", "asvae_jax", *map(str, command), "--distributed"], processes) as running:
        finished = [ended(process) for process in running]
    assert [process.returncode for process in finished] == [0] * processes, finished
    return [process.stdout for process in finished]


@pytest.fixture(scope="module")
def evaluations(run, tmp_path_factory) -> dict[int, dict]:
    """The figures by the number of processes that measured them."""
    folder, found = tmp_path_factory.mktemp("evaluations"), {}
    for processes in (1, 2):
        out = folder / f"{processes}.json"
        printed = together(["evaluate", run.folder, *OPTIONS, "--out", out], processes)
        assert [f"wrote {out}" in text for text in printed] == [True, False][:processes]
        found[processes] = json.loads(out.read_text())
    return found


def assert_alike(got: dict, expected: dict, rel: float) -> None:
    """Every figure and interval, an interval to the size of its figure."""
    for weights in ("raw", "ema"):
        assert list(got[weights]) == list(expected[weights])
        assert got[weights] == pytest.approx(expected[weights], rel=rel, abs=0)
        for name, interval in got["intervals"][weights].items():
            size = abs(expected[weights][name])
            assert interval == pytest.approx(expected["intervals"][weights][name], abs=10 * rel * size), name


def test_two_processes_agree_with_one_on_every_figure(evaluations):
    one, two = evaluations[1], evaluations[2]
    assert {"psnr", "ssim", "mse", "elbo", "kl_real", "active_units", "fid_digits_n101", "kid_digits"} <= set(
        one["ema"]
    )
    assert {f"{name}_digits" for name in ("precision", "recall", "density", "coverage")} <= set(one["ema"])
    assert_alike(two, one, rel=1e-6)
    assert one["config"] == two["config"] and one["protocol"] == two["protocol"]


def test_sums_over_processes_are_no_rounder_than_one_process_makes_them(evaluations):
    # FID is a small difference of large sums: float32 on the way would show at 1e-7 of the traces.
    for weights in ("raw", "ema"):
        one, two = (evaluations[n][weights]["fid_digits_n101"] for n in (1, 2))
        assert two == pytest.approx(one, rel=1e-9, abs=0)


def test_processes_agree_with_this_one_and_its_four_devices(run, evaluations):
    loaded = load_run(run.folder)
    config = digits("vae,tiny", training__steps=40, evaluation__samples=101)
    assert_alike(evaluations[2], evaluate(loaded._replace(config=config)), rel=1e-5)


def test_statistics_of_a_split_are_those_of_one_process(tmp_path):
    # 359 images in batches of 20: twenty for two processes, of which the last two are partly and wholly padding.
    write_reference(tmp_path / "one.npz", measure_split(digits().data, "test", open_network("digits"), 20))
    options = ["--features", "digits", "--data-dir", DATA_DIR, "--split", "test", "--batch-size", 20]
    printed = together(["fid-stats", "digits", *options, "--out", tmp_path / "two.npz"], 2)
    assert [text.count("wrote") for text in printed] == [1, 0]
    one, two = (arrays_of(tmp_path / name) for name in ("one.npz", "two.npz"))
    assert one["about"] == two["about"] and json.loads(str(two["about"]))["number"] == 359
    assert two["features"].shape == (359, 64)
    for name in ("features", "mu", "sigma"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5)
    # The sums are those of the features, to float64.
    features = two["features"].astype(np.float64)
    np.testing.assert_allclose(two["mu"], features.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(two["sigma"], np.cov(features, rowvar=False), rtol=1e-10, atol=1e-10)


def test_signal_to_one_of_two_processes_stops_both(run, tmp_path):
    begun, out = tmp_path / "begun", tmp_path / "evaluation.json"
    command = [str(begun), "evaluate", str(run.folder), "--samples", "10000000", "--distributed", "--out", str(out)]
    with job(["-c", MARKED, *command], 2) as (first, second):
        wait_until(begun.exists, first)
        second.send_signal(signal.SIGTERM)
        stopped = [ended(process) for process in (first, second)]
    assert [finished.returncode for finished in stopped] == [75, 75], stopped
    assert not out.exists()


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def test_one_process_sums_and_puts_together_what_it_has():
    array = np.array([1 / 3, 1e-17, 1e300])
    np.testing.assert_array_equal(sum_over_processes(array), array)
    rows = rows_of_all_processes(np.array([2, 0, 1, 2]), np.array([[3.0], [1], [2], [3]], np.float32), 3)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[1], [2], [3]])


def test_sums_of_two_processes_keep_every_bit_of_float64(monkeypatch):
    # What the gathering does to two processes' arrays, of which JAX would keep 32 bits of each number.
    arrays = [np.array([[1 / 3, 1e-12], [2.0**40 + 1, -7.5]]), np.array([[2 / 3, 1.0], [1.0, 1 / 7]])]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.process_allgather",
        lambda own, tiled=False: np.asarray(jax.numpy.stack([own, arrays[1].view(own.dtype)])),
    )
    np.testing.assert_array_equal(sum_over_processes(arrays[0]), arrays[0] + arrays[1])
