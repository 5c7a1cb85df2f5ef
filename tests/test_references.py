"""Statistics of real images on disk give what measuring the split gives; those of anything else are refused."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401
from reference_files import DIGITS, arrays_of, expected, fake_network
from training_runs import DATA_DIR, digits

from asvae_jax import generation
from asvae_jax.config import resolve_data
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError
from asvae_jax.evaluation import Evaluator, evaluate
from asvae_jax.features.networks import open_network
from asvae_jax.generation import (
    about_split,
    check_reference,
    compare,
    feature_statistics,
    measure_generated,
    measure_split,
    read_reference,
    write_reference,
)
from asvae_jax.presets.image import image_data
from asvae_jax.run import Run
from asvae_jax.train import train

TRAIN, TEST = 1_438, 359


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return train(digits("vae,tiny"), tmp_path_factory.mktemp("run"))


def rewritten(path: Path, out: Path, **about) -> Path:
    """The same file with other facts."""
    arrays = arrays_of(path)
    np.savez(out, **{**arrays, "about": np.asarray(json.dumps({**json.loads(str(arrays["about"])), **about}))})
    return out


def test_command_writes_statistics_and_what_they_are_of(tmp_path, capsys):
    out = tmp_path / "stats.npz"
    said = command(capsys, "fid-stats", "digits", "--features", "digits", "--data-dir", DATA_DIR, "--out", out)
    assert "digits train: 1,438 images, 64 features (digits)" in said and said.endswith(f"wrote {out}\n")
    arrays = arrays_of(out)
    assert set(arrays) == {"mu", "sigma", "features", "about"}
    assert arrays["mu"].shape == (64,) and arrays["sigma"].shape == (64, 64) and arrays["mu"].dtype == np.float64
    assert arrays["features"].shape == (TRAIN, 64)
    np.testing.assert_allclose(arrays["mu"], arrays["features"].mean(axis=0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(
        arrays["sigma"], np.cov(arrays["features"].astype(np.float64), rowvar=False), rtol=1e-6, atol=1e-6
    )
    about = json.loads(str(arrays["about"]))
    assert about["number"] == TRAIN and about["data"] == "digits" and about["split"] == "train"
    assert about["shape"] == [8, 8, 1] and about["network_sha256"] == open_network("digits").sha256
    assert "batch_size" not in about


def test_batch_size_of_statistics_does_not_matter_to_features_of_single_images(train_file, tmp_path, capsys):
    out = tmp_path / "stats.npz"
    command(
        capsys, "fid-stats", "digits", "--features", "digits", "--data-dir", DATA_DIR, "--batch-size", 40, "--out", out
    )
    got, other = arrays_of(out), arrays_of(train_file)
    assert got["about"] == other["about"]
    for name in ("mu", "sigma", "features"):
        np.testing.assert_allclose(got[name], other[name], rtol=1e-4, atol=1e-5)


def test_reference_gives_the_figures_that_measuring_the_split_gives(run, train_file, tmp_path, capsys):
    outs = [tmp_path / "with.json", tmp_path / "without.json"]
    options = ["--metrics", "fid", "kid", "precision_recall", "--weights", "ema"]
    command(capsys, "evaluate", run.folder, *options, "--reference", train_file, "--out", outs[0])
    command(capsys, "evaluate", run.folder, *options, "--out", outs[1])
    one, other = (json.loads(out.read_text()) for out in outs)
    assert one["ema"] == pytest.approx(other["ema"], rel=1e-9) and len(one["ema"]) == 6
    assert one["protocol"] == other["protocol"]
    for name, interval in one["intervals"]["ema"].items():
        assert interval == pytest.approx(other["intervals"]["ema"][name], rel=1e-9)


def test_reference_of_the_test_split_is_refused(run, tmp_path, capsys):
    out = tmp_path / "test.npz"
    command(
        capsys, "fid-stats", "digits", "--features", "digits", "--data-dir", DATA_DIR, "--split", "test", "--out", out
    )
    assert json.loads(str(arrays_of(out)["about"]))["number"] == TEST
    said = refusal(capsys, "evaluate", run.folder, "--reference", out)
    assert "split 'test', not 'train'" in said and str(out) in said


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [
        ("shape", [28, 28, 1], "shape [28, 28, 1], not [8, 8, 1]"),
        ("data", "mnist5k", "data 'mnist5k', not 'digits'"),
        ("features", "inception", "features 'inception', not 'digits'"),
        ("network_sha256", "abc", "network_sha256 'abc', not '"),
        ("resize", "none", "resize 'none', not '28x28"),
        ("batch_statistics", True, "batch_statistics True, not False"),
    ],
)
def test_statistics_of_something_else_are_refused_in_words(fact, value, words, train_file, tmp_path):
    path = rewritten(train_file, tmp_path / "other.npz", **{fact: value})
    with pytest.raises(DataError) as error:
        read_reference(path, expected())
    assert words in str(error.value) and "fid-stats" in str(error.value) and error.value.exit_code == 2


def test_all_that_differs_is_named(train_file, tmp_path):
    path = rewritten(train_file, tmp_path / "other.npz", shape=[1, 2, 3], split="test")
    with pytest.raises(DataError, match=r"split 'test', not 'train'; shape \[1, 2, 3\], not \[8, 8, 1\]"):
        read_reference(path, expected())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": "square"}, "crop 'centre148', not 'square'"),
        ({"resize": "lanczos"}, "resize_images 'bilinear', not 'lanczos'"),
        ({"partition": "all"}, "partition 'official', not 'all'"),
    ],
)
def test_photographs_cropped_or_scaled_otherwise_are_refused(changes, words, train_file, tmp_path):
    network, usual = open_network("digits"), image_data("celeba128", batch_size=1, data_dir=str(tmp_path))
    kept = about_split(resolve_data(usual), "train", network, 52)
    path = rewritten(train_file, tmp_path / "celeba.npz", **kept)
    assert read_reference(path, kept).about["crop"] == "centre148"
    with pytest.raises(DataError) as error:
        read_reference(path, about_split(resolve_data({**usual, **changes}), "train", network, 52))
    assert words in str(error.value)


def test_folders_of_ones_own_are_told_apart_by_their_label(tmp_path):
    network = open_network("digits")
    settings = [image_data("image_folder", batch_size=1, data_dir=str(tmp_path), label=label) for label in ("a", "b")]
    one, other = (about_split(resolve_data(setting), "train", network, 52) for setting in settings)
    assert one["label"] == "a" and {**one, "label": "b"} == other


def test_missing_reference_is_refused_before_anything_is_measured(run, tmp_path, capsys, monkeypatch):
    def never(*_):
        raise AssertionError("Something was measured.")

    monkeypatch.setattr("asvae_jax.evaluation.score", never)
    said = refusal(capsys, "evaluate", run.folder, "--reference", tmp_path / "absent.npz")
    assert "absent.npz" in said and "fid-stats" in said


def test_statistics_of_another_program_serve_fid_alone_and_are_marked(run, train_file, tmp_path):
    arrays = arrays_of(train_file)
    path = tmp_path / "pytorch.npz"
    np.savez(path, mu=arrays["mu"], sigma=arrays["sigma"])

    def config_with(**changes):
        evaluation = dataclasses.replace(run.config.evaluation, reference_file=str(path), **changes)
        return run._replace(config=dataclasses.replace(run.config, evaluation=evaluation))

    result = evaluate(config_with(measures=("fid",)), weights=("ema",))
    own = evaluate(run, weights=("ema",))
    # The name says how many images were compared, as far as that is known.
    assert result["ema"] == {"fid_digits_n100": pytest.approx(own["ema"]["fid_digits_n100"], rel=1e-9)}
    assert result["protocol"]["generation"]["reference"] == {"unchecked_file": "pytorch.npz"}
    for measure in ("kid", "precision_recall"):
        with pytest.raises(DataError, match="mean and a covariance alone"):
            evaluate(config_with(measures=("fid", measure)))


def test_reference_of_another_number_of_features_is_refused(tmp_path):
    path = tmp_path / "two.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(DataError, match="2 features, digits has 64"):
        check_reference(path, read_reference(path, expected()), open_network("digits"), needs_features=False)


def test_what_is_written_is_what_is_read(tmp_path):
    network = fake_network()
    reference = measure_split(DIGITS, "test", network, 40)
    write_reference(tmp_path / "fake.npz", reference)
    read = read_reference(tmp_path / "fake.npz", about_split(DIGITS, "test", network, 40))
    assert read.number == TEST and read.about == reference.about
    for name in ("mean", "covariance", "kept"):
        np.testing.assert_array_equal(getattr(read, name), getattr(reference, name))


def test_incomplete_batch_is_left_out_where_features_depend_on_the_batch(tmp_path):
    network = fake_network(by_batch=True)
    images = Split(DIGITS, "test").rows(np.arange(TEST))
    found = feature_statistics(network, lambda indices: images[indices], TEST, 50)
    pixels = images.reshape(TEST, -1)[:350, 26:30].astype(np.float64) / 16
    features = (pixels.reshape(7, 50, 4) - pixels.reshape(7, 50, 4).mean(axis=1, keepdims=True)).reshape(350, 4)
    assert found.number == 350 and found.kept.shape == (350, 4)
    np.testing.assert_allclose(found.kept, features, atol=1e-5)
    np.testing.assert_allclose(found.whole().mean_and_covariance()[1], np.cov(features, rowvar=False), atol=1e-5)
    whole = feature_statistics(fake_network(), lambda indices: images[indices], TEST, 50)
    assert whole.number == TEST


def test_batch_size_is_part_of_what_statistics_by_batch_are_of(tmp_path):
    network = fake_network(by_batch=True)
    reference = measure_split(DIGITS, "train", network, 50)
    assert reference.number == 1_400 and reference.about["batch_size"] == 50
    assert reference.about["batch_statistics"] is True
    write_reference(tmp_path / "fake.npz", reference)
    assert read_reference(tmp_path / "fake.npz", about_split(DIGITS, "train", network, 50)).number == 1_400
    with pytest.raises(DataError, match="batch_size 50, not 40"):
        read_reference(tmp_path / "fake.npz", about_split(DIGITS, "train", network, 40))


def test_padding_of_one_process_leaves_the_features_of_another_alone(monkeypatch):
    # Three batches for two processes: the second one's last batch is padding alone, of which other features come.
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    network, gathered = fake_network(by_batch=True), []
    whole = feature_statistics(network, lambda indices: images[indices], 60, 20).kept

    def gather(indices: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
        gathered.append((indices, rows))
        return np.zeros((count, 4))

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(generation, "sum_over_processes", lambda sums: sums)
    monkeypatch.setattr(generation, "rows_of_all_processes", gather)
    for process in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        feature_statistics(network, lambda indices: images[indices], 60, 20)
    together = np.full((61, 4), np.nan, np.float32)
    for indices, rows in gathered:
        together[indices] = rows
    np.testing.assert_array_equal(together[:60], whole)


def test_fewer_images_than_a_batch_have_no_features_by_batch():
    images = np.zeros((30, 8, 8, 1), np.uint8)
    with pytest.raises(DataError, match="whole batch of 50"):
        feature_statistics(fake_network(by_batch=True), lambda indices: images[indices], 30, 50)


@pytest.mark.parametrize(
    ("samples", "batch_size", "message"),
    [(30, 52, "30 generated images are too few.*need 52"), (1_440, 1_440, "1438 train images of digits are too few")],
    ids=["generated", "training"],
)
def test_fewer_images_than_a_batch_are_refused_before_anything_is_trained(samples, batch_size, message, monkeypatch):
    monkeypatch.setattr("asvae_jax.evaluation.open_network", lambda *_: fake_network(by_batch=True))
    config = digits("vae,tiny", evaluation__samples=samples, evaluation__batch_size=batch_size)
    with pytest.raises(DataError, match=message):
        Evaluator(config)


def test_runs_one_after_another_share_what_was_measured_of_their_split(run, monkeypatch):
    measured = []

    def measure(data, split, network, batch_size, poll):
        measured.append(batch_size)
        return measure_split(data, split, network, batch_size, poll)

    monkeypatch.setattr("asvae_jax.evaluation.measure_split", measure)
    settings = dataclasses.replace(run.config.evaluation, measures=("fid",))
    # None that another test may have left measured.
    for batch_size in (36, 36, 44, 44, 36):
        evaluate(run, dataclasses.replace(settings, batch_size=batch_size), weights=("ema",))
    assert measured == [36, 44, 36]


def test_poll_may_stop_the_streaming():
    images, seen = np.zeros((100, 8, 8, 1), np.uint8), []

    def poll():
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feature_statistics(fake_network(), lambda indices: images[indices], 100, 20, poll=poll)
    assert len(seen) == 3 and jax.process_count() == 1


def test_poll_may_stop_the_comparison_between_the_blocks_that_are_left_out(run):
    network, seen = fake_network(), []
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1), np.uint8)
    reference = measure_split(run.config.data, "train", network, 36)
    generated = measure_generated(network, lambda indices: images[indices], 100, 20, poll=lambda: None)

    def poll():
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(("fid",), reference, generated, network, poll)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["digts", "--features", "digits"], "Did you mean 'digits'"),
        (["digts"], "Did you mean 'digits'"),
        (["digits", "--features", "digit"], "Did you mean 'digits'"),
        (["digits", "--features", "digits", "--out", "/absent/stats.npz"], "/absent is no folder"),
        (["digits", "--features", "inception"], "convert-inception"),
    ],
)
def test_command_refuses_what_it_does_not_know(options, words, capsys, monkeypatch):
    monkeypatch.delenv("ASVAE_JAX_INCEPTION", raising=False)
    assert words in refusal(capsys, "fid-stats", *options, "--data-dir", DATA_DIR)
