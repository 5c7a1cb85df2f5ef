"""Images of another set: brought to the run's shape, scored, and told from the run's own."""

import json

import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401
from training_runs import digits, toy

from asvae_jax.config import resolve_data
from asvae_jax.data.records import Split
from asvae_jax.errors import RunError
from asvae_jax.examples import Examples
from asvae_jax.foreign import FOREIGNNESS, fit, score_sets, separation, table
from asvae_jax.presets.image import image_data
from asvae_jax.run import Run
from asvae_jax.scores import score
from asvae_jax.train import train

TEST = 359


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return train(digits("vae,tiny", training__steps=40), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def scores(run) -> dict[str, dict[str, np.ndarray]]:
    return score_sets(run, ["faces25", "mnist5k"])


def test_images_of_the_runs_own_shape_stay_as_they_are():
    for shape in ((8, 8, 1), (5, 7, 3)):
        images = np.random.default_rng(0).random((2, *shape), np.float32)
        np.testing.assert_array_equal(fit(images, shape), images)


def test_grey_is_the_luminance_of_colour_and_colour_repeats_grey():
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32).reshape(1, 2, 2, 3)
    np.testing.assert_allclose(fit(colours, (2, 2, 1)).ravel(), [0.299, 0.587, 0.114, 1], rtol=1e-6)
    grey = np.random.default_rng(0).random((2, 4, 4, 1), np.float32)
    np.testing.assert_array_equal(fit(grey, (4, 4, 3)), np.concatenate([grey] * 3, axis=-1))


def test_sizes_are_scaled_without_aliasing():
    stripes = np.zeros((1, 8, 8, 1), np.float32)
    stripes[:, ::2] = 1
    # Half the size: every other line alone would be all black or all white.
    smaller = fit(stripes, (4, 4, 1))
    assert smaller.shape == (1, 4, 4, 1)
    assert np.abs(smaller[:, 1:3] - 0.5).max() < 0.1
    for shape in ((3, 5, 1), (16, 12, 3)):
        np.testing.assert_allclose(fit(np.full((2, 8, 8, 1), 0.25, np.float32), shape), 0.25, rtol=1e-6)
    # Linear from one to the other, height first.
    step = np.array([0.0, 1.0], np.float32).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(fit(step, (4, 1, 1)).ravel(), [0, 0.25, 0.75, 1], atol=1e-6)


def test_colour_of_another_size_becomes_both():
    images = np.random.default_rng(0).random((3, 10, 6, 3), np.float32)
    got = fit(images, (5, 5, 1))
    assert got.shape == (3, 5, 5, 1) and got.min() >= 0 and got.max() <= 1
    grey = (images @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    np.testing.assert_allclose(got, fit(grey, (5, 5, 1)), rtol=1e-6)


def test_every_image_of_every_set_is_scored(scores, run):
    assert list(scores) == ["digits", "faces25", "mnist5k"]
    faces = resolve_data(image_data("faces25", batch_size=1, data_dir=run.config.data.data_dir))
    assert len(scores["digits"]["elbo"]) == TEST and len(scores["mnist5k"]["elbo"]) == 1_000
    assert len(scores["faces25"]["elbo"]) == len(Split(faces, "test"))
    for values in scores.values():
        assert set(FOREIGNNESS) < set(values) and all(np.isfinite(v).all() for v in values.values())


def test_own_scores_are_those_of_an_evaluation(scores, run):
    expected = score(run, "ema", Examples(run.config).rows, TEST).per_image
    for name in FOREIGNNESS:
        np.testing.assert_allclose(scores["digits"][name], expected[name], rtol=1e-4)


def test_foreign_scores_are_those_of_images_in_the_runs_shape(scores, run):
    mnist = resolve_data(image_data("mnist5k", batch_size=1, data_dir=run.config.data.data_dir))
    images = fit(Split(mnist, "test").rows(np.arange(70)).astype(np.float32) / 255, (8, 8, 1))
    expected = score(run, "ema", lambda indices: images[indices], 70).per_image
    for name in FOREIGNNESS:
        np.testing.assert_allclose(scores["mnist5k"][name][:70], expected[name], rtol=1e-4)


def test_set_is_not_told_from_itself(scores):
    found = separation({"digits": scores["digits"], "again": scores["digits"]})["again"]
    for name in FOREIGNNESS:
        assert found[name]["auroc"] == 0.5 and found[name]["low"] < 0.5 < found[name]["high"]


def test_more_foreign_is_lower_elbo_higher_kl_and_higher_error():
    own = {"elbo": np.arange(-50.0, -40), "kl_real": np.arange(10.0), "err": np.arange(10.0)}
    other = {"elbo": own["elbo"] - 100, "kl_real": own["kl_real"] + 100, "err": own["err"] - 100}
    found = separation({"own": own, "other": other})
    assert {name: values["auroc"] for name, values in found["other"].items()} == {"elbo": 1, "kl_real": 1, "err": 0}
    assert separation({"other": other, "own": own})["own"]["elbo"] == {"auroc": 0, "low": 0, "high": 0}


def test_faces_are_told_from_digits_with_an_interval(scores):
    found = separation(scores)
    assert list(found) == ["faces25", "mnist5k"]
    for by_score in found.values():
        for values in by_score.values():
            assert 0 <= values["low"] <= values["auroc"] <= values["high"] <= 1
    own, other = scores["digits"]["err"], scores["faces25"]["err"]
    wins = (other[None, :] > own[:, None]).mean() + (other[None, :] == own[:, None]).mean() / 2
    assert found["faces25"]["err"]["auroc"] == pytest.approx(wins, abs=1e-12)
    text = table(scores, found)
    assert "AUROC of faces25: elbo" in text and f"{scores['digits']['err'].mean():.4g}" in text


def test_command_writes_all_scores_and_what_they_say(run, scores, capsys):
    said = command(capsys, "foreign", run.folder, "--against", "faces25")
    path = run.folder / "scores.npz"
    assert said.splitlines()[-1] == f"wrote {path} and {run.folder / 'scores-auroc.json'}"
    with np.load(path) as file:
        stored = dict(file)
    assert {"digits/elbo", "digits/err", "faces25/elbo", "faces25/kl_real"} <= set(stored)
    np.testing.assert_allclose(stored["faces25/elbo"], scores["faces25"]["elbo"], rtol=1e-6)
    kept = json.loads((run.folder / "scores-auroc.json").read_text())
    assert (kept["step"], kept["split"], kept["weights"]) == (40, "test", "ema")
    assert kept["auroc"]["faces25"] == separation(scores)["faces25"]
    assert f"elbo {kept['auroc']['faces25']['elbo']['auroc']:.4f}" in said


def test_split_weights_and_file_are_the_commands(run, tmp_path, capsys):
    out = tmp_path / "raw.npz"
    command(capsys, "foreign", run.folder, "--against", "faces25", "--split", "train", "--weights", "raw", "--out", out)
    with np.load(out) as file:
        stored = dict(file)
    assert len(stored["digits/elbo"]) == 1_438
    expected = score(run, "raw", Examples(run.config, "train").rows, 60).per_image
    np.testing.assert_allclose(stored["digits/elbo"][:60], expected["elbo"], rtol=1e-4)
    assert json.loads((tmp_path / "raw-auroc.json").read_text())["split"] == "train"


def test_unknown_sets_and_files_are_refused(run, tmp_path, capsys):
    assert "Did you mean 'faces25'" in refusal(capsys, "foreign", run.folder, "--against", "faces52")
    assert ".npz" in refusal(capsys, "foreign", run.folder, "--against", "faces25", "--out", tmp_path / "x.txt")


@pytest.mark.parametrize("config", [digits("wgan_gp,tiny"), toy("vae,tiny")], ids=["wgan_gp", "toy"])
def test_runs_that_score_no_images_are_refused(config, tmp_path):
    untrained = Run(tmp_path, config, 0, {}, {}, {})
    with pytest.raises(RunError, match="take an image run of another method") as error:
        score_sets(untrained, ["faces25"])
    assert error.value.exit_code == 2
