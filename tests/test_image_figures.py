"""The paper's figures of images: a row for each method, the way between two images, the course of training."""

import json

import numpy as np
import pytest
from command_line import command, terminal  # noqa: F401
from image_cells import made_up, options
from PIL import Image
from training_runs import ROOT, records

from asvae_jax.errors import DataError
from asvae_jax.experiments import image_figures
from asvae_jax.experiments.image_figures import course_of, course_panels, interpolate
from asvae_jax.run import load_run, reconstruct

pytestmark = pytest.mark.usefixtures("prepared")


@pytest.mark.parametrize(("number", "rows"), [(4, 1 + 2), (5, 1 + 2), (6, 2)])
def test_pictures_have_a_row_for_each_method(number, rows, configs, workdir, no_training, tmp_path, capsys):
    said = command(capsys, "figure", number, *options(configs, workdir, tmp_path))
    assert said.endswith(f"wrote {tmp_path / f'figure{number}-digits.png'}\n")
    with Image.open(tmp_path / f"figure{number}-digits.png") as picture:
        # A row is 64 pixels high and 6 apart, below 32 of title; 12 images stand in it.
        assert picture.height == 32 + rows * 70 and picture.width > 12 * 67


def test_interpolation_goes_from_one_reconstruction_to_the_other(workdir):
    run = load_run(workdir / "digits" / "vae-t4-s0")
    images = np.random.default_rng(0).random((2, 8, 8, 1)).astype(np.float32)
    walk = interpolate(run, *images, steps=5)
    assert walk.shape == (5, 8, 8, 1)
    np.testing.assert_allclose(walk[[0, -1]], reconstruct(run, images), atol=1e-6)
    assert not np.allclose(walk[2], walk[0]) and not np.allclose(walk[2], walk[-1])


def test_figure7_shows_what_runs_logged(configs, workdir, no_training, tmp_path, capsys, monkeypatch):
    drawn = {}
    draw = image_figures.courses_sheet
    monkeypatch.setattr(
        image_figures, "courses_sheet", lambda panels, **words: drawn.update(panels) or draw(panels, **words)
    )
    command(capsys, "figure", 7, *options(configs, workdir, tmp_path))
    folders = [workdir / "digits" / f"sintrovae-t4-s{seed}" for seed in (0, 1)]
    x, values = drawn["KL of generated images, nats"]["S-IntroVAE"]
    np.testing.assert_array_equal(x, [32, 64])
    expected = [[record["kl_fake"] for record in records(folder) if "kl_fake" in record] for folder in folders]
    np.testing.assert_array_equal(values, expected)
    # What is measured on the way is there, too, and a method has no panel of what it does not log.
    assert {
        "squared error of a training image",
        "PSNR of test images, dB",
        "fid_digits_n100 of generated images",
    } <= set(drawn)
    assert set(drawn["fid_digits_n100 of generated images"]) == {"VAE", "S-IntroVAE"}
    with Image.open(tmp_path / "figure7-digits.png") as picture:
        assert min(picture.size) > 500


def test_figure7_of_methods_that_log_nothing_of_it_is_missing(tmp_path, capsys):
    critic = made_up(tmp_path, "digits", "wgan_gp", 0, {"fid_digits": 1.0})
    arguments = ["--methods", "wgan_gp", "--configs", ROOT / "configs", "--out", tmp_path]
    said = command(capsys, "figure", 7, "--runs", critic, *arguments)
    assert said == "missing: digits: these methods log nothing that this figure shows\n"


def test_course_is_of_the_steps_that_all_runs_logged_and_of_the_exact_name():
    header = {"step": 0, "config": {"data": {"batch_size": 10}}}
    one = [header, *({"step": step, "kl": 1.0 * step, "kl_fake": -1.0} for step in (2, 4, 6))]
    other = [header, *({"step": step, "kl": 10.0 * step} for step in (4, 6, 8))]
    x, values = course_of([one, other], "kl")
    np.testing.assert_array_equal(x, [40, 60])
    np.testing.assert_array_equal(values, [[4, 6], [40, 60]])
    assert course_of([one, other], "kl_fake") is None and course_of([one], "psnr") is None
    # A log whose head is lost goes on with that of the next process.
    headless = [one[1], {**header, "step": 2}, *one[2:]]
    np.testing.assert_array_equal(course_of([headless], "kl").x, [20, 40, 60])


def test_figure6_of_one_test_image_is_refused(workdir, monkeypatch):
    monkeypatch.setattr(image_figures, "preview_examples", lambda config: np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(DataError, match="has one test image, and a way needs two"):
        image_figures.draw_interpolations("digits", {"vae": [workdir / "digits" / "vae-t4-s0"]})


def test_panels_are_those_of_what_was_logged(tmp_path):
    run = made_up(tmp_path, "digits", "introvae", 0, {"psnr": 1.0})
    (run / "metrics.jsonl").write_text(
        json.dumps({"step": 0, "config": {"data": {"batch_size": 10}}})
        + "\n"
        + json.dumps({"step": 5, "err_real": 2.0})
    )
    panels = course_panels({"introvae": [run]})
    assert list(panels) == ["squared error of a training image"]
    assert panels["squared error of a training image"]["IntroVAE"].values.tolist() == [[2.0]]
