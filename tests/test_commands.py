"""What commands make of a run: what they write and print, and what they refuse of it."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401
from PIL import Image
from training_runs import ROOT, digits, run, toy

from asvae_jax import figures
from asvae_jax.__main__ import main
from asvae_jax.config import resolve
from asvae_jax.errors import EXIT_STORAGE
from asvae_jax.examples import Examples
from asvae_jax.run import Run, encode, load_run, reconstruct, sample_images
from asvae_jax.train import train


@pytest.fixture(scope="module")
def image_run(tmp_path_factory) -> Run:
    return train(digits(), tmp_path_factory.mktemp("digits"))


# (command, options, name of its file, images across, images down); digits are drawn 8 times as large, 3 pixels apart.
PICTURES = [
    ("sample", ["--n", 5], "samples.png", 3, 2),
    ("reconstruct", ["--n", 4], "reconstructions.png", 4, 2),
    ("interpolate", ["--n", 2, "--steps", 5], "interpolation.png", 5, 2),
    ("traverse", ["--dims", 3, "--steps", 5], "traversal.png", 5, 3),
]


@pytest.mark.parametrize(("name", "options", "file", "across", "down"), PICTURES, ids=[row[0] for row in PICTURES])
def test_pictures_lie_in_the_runs_folder(name, options, file, across, down, image_run, capsys):
    printed = command(capsys, name, image_run.folder, *options)
    path = image_run.folder / file
    number = 5 if name == "sample" else across * down
    assert printed.splitlines()[-1] == f"wrote {path}: {number} of shape (8, 8, 1)"
    with Image.open(path) as picture:
        assert picture.size == (3 + 67 * across, 3 + 67 * down)


def npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as stored:
        return dict(stored)


def test_samples_as_numbers_are_those_of_seed_and_weights(image_run, tmp_path, capsys):
    out = tmp_path / "samples.npz"
    arguments = ("sample", image_run.folder, "--n", 7, "--out", out)
    assert command(capsys, *arguments).splitlines()[-1] == f"wrote {out}: 7 of shape (8, 8, 1)"
    drawn = npz(out)["images"]
    assert drawn.shape == (7, 8, 8, 1) and drawn.min() >= 0 and drawn.max() <= 1
    expected = sample_images(load_run(image_run.folder), jax.random.key(0), 7)
    np.testing.assert_array_equal(drawn, expected)
    command(capsys, *arguments, "--seed", 1)
    assert not np.array_equal(npz(out)["images"], drawn)
    command(capsys, *arguments, "--weights", "raw")
    assert not np.array_equal(npz(out)["images"], drawn)


def test_reconstructions_stand_below_real_test_images(image_run, tmp_path, capsys):
    out = tmp_path / "pairs.npz"
    command(capsys, "reconstruct", image_run.folder, "--n", 6, "--out", out)
    pairs = npz(out)
    test = Examples(image_run.config).rows(np.arange(359))
    assert pairs["images"].shape == pairs["reconstructions"].shape == (6, 8, 8, 1)
    assert all(any(np.array_equal(image, other) for other in test) for image in pairs["images"])
    expected = reconstruct(load_run(image_run.folder), pairs["images"])
    np.testing.assert_allclose(pairs["reconstructions"], expected, atol=1e-6)


def test_reconstructions_of_a_toy_stand_beside_the_real_points(toy_run, capsys, monkeypatch):
    drawn = {}
    draw = figures.points_sheet
    monkeypatch.setattr(figures, "points_sheet", lambda panels, *rest: drawn.update(panels) or draw(panels, *rest))
    command(capsys, "reconstruct", toy_run.folder, "--n", 50)
    assert list(drawn) == ["points", "reconstructions"] and drawn["points"].shape == (50, 2)
    np.testing.assert_allclose(drawn["reconstructions"], reconstruct(toy_run, drawn["points"]), atol=1e-6)
    assert "no splits" in refusal(capsys, "encode", toy_run.folder, "--split", "train")


def test_traversal_moves_one_dimension_a_row(image_run, tmp_path, capsys):
    out = tmp_path / "walk.npz"
    command(capsys, "traverse", image_run.folder, "--dims", 2, "--steps", 3, "--out", out)
    walk = npz(out)["images"].reshape(2, 3, 64)
    # Both ends differ, in every row, and no two rows are the same walk.
    assert np.all(np.abs(walk[:, 0] - walk[:, -1]).max(axis=-1) > 0)
    assert not np.array_equal(walk[0], walk[1])


@pytest.mark.parametrize(("split", "number"), [("test", 359), ("train", 1_438)])
def test_codes_of_a_split_as_numbers(split, number, image_run, tmp_path, capsys):
    out = tmp_path / "codes.npz"
    printed = command(capsys, "encode", image_run.folder, "--split", split, "--out", out)
    assert printed.splitlines()[-1] == f"wrote {out}: mean and logvar ({number}, 4)"
    codes = npz(out)
    assert set(codes) == {"mean", "logvar"}
    assert all(values.shape == (number, 4) and np.isfinite(values).all() for values in codes.values())


def test_data_may_lie_elsewhere_than_in_training(image_run, tmp_path, capsys):
    here, there = tmp_path / "here.npz", tmp_path / "there.npz"
    command(capsys, "encode", image_run.folder, "--out", here)
    command(capsys, "encode", image_run.folder, "--out", there, "--data-dir", tmp_path / "data")
    assert (tmp_path / "data" / "asvae_digits").is_dir()
    np.testing.assert_array_equal(npz(there)["mean"], npz(here)["mean"])


def test_evaluation_is_printed_and_kept(image_run, capsys):
    printed = command(capsys, "evaluate", image_run.folder)
    kept = json.loads((image_run.folder / "evaluation.json").read_text())
    assert kept["step"] == 4 and kept["protocol"]["split"] == "test"
    assert kept["config"] == json.loads(json.dumps(image_run.config.to_dict()))
    for weights in ("raw", "ema"):
        assert {"psnr", "ssim", "mse", "elbo", "fid_digits_n100", "kid_digits"} < set(kept[weights])
    # PSNR and MSE are means of the same images, and Jensen's inequality orders them.
    assert kept["raw"]["psnr"] > -10 * np.log10(kept["raw"]["mse"])
    figures = re.search(r"^mse +(\S+) \[.*?\] +(\S+) \[.*\]$", printed, re.MULTILINE).groups()
    assert [float(figure) for figure in figures] == pytest.approx([kept["raw"]["mse"], kept["ema"]["mse"]], rel=1e-3)


def test_points_of_a_toy(toy_run, tmp_path, capsys):
    out = tmp_path / "points.npz"
    assert command(capsys, "sample", toy_run.folder, "--n", 30, "--out", out).splitlines()[-1] == (
        f"wrote {out}: 30 of shape (2,)"
    )
    assert npz(out)["images"].shape == (30, 2)
    command(capsys, "sample", toy_run.folder)
    with Image.open(toy_run.folder / "samples.png") as picture:
        assert picture.width > 300 and picture.height > 300


@pytest.mark.parametrize("name", ["encode", "reconstruct", "interpolate", "traverse"])
def test_critic_cannot_do_what_needs_an_encoder(name, critic_run, capsys):
    assert "wgan_gp has a critic and no encoder" in refusal(capsys, name, critic_run.folder)


def test_critics_run_can_be_sampled_and_evaluated(critic_run, capsys):
    command(capsys, "sample", critic_run.folder, "--n", 4)
    assert (critic_run.folder / "samples.png").is_file()
    command(capsys, "evaluate", critic_run.folder)
    figures = json.loads((critic_run.folder / "evaluation.json").read_text())["ema"]
    assert "fid_digits_n100" in figures and not {"psnr", "elbo", "active_units"} & set(figures)


@pytest.mark.parametrize(("inside", "step"), [("", 4), ("checkpoints", 4), ("checkpoints/2", 2), ("checkpoints/4", 4)])
def test_a_run_is_found_by_its_folder_its_checkpoints_or_one_step(inside, step, image_run):
    found = load_run(image_run.folder / inside)
    assert (found.step, found.folder, found.config) == (step, image_run.folder, image_run.config)


def test_path_that_is_no_run_is_refused(image_run, tmp_path, capsys):
    assert "is no run: expected a folder with checkpoints/" in refusal(capsys, "sample", tmp_path / "nothing")
    # One level too deep.
    assert "is no run" in refusal(capsys, "sample", image_run.folder / "checkpoints" / "4" / "params")
    (tmp_path / "checkpoints").mkdir()
    assert "holds no checkpoint yet" in refusal(capsys, "sample", tmp_path)


def test_step_that_was_not_kept_is_refused(image_run, capsys):
    refusal(capsys, "sample", image_run.folder / "checkpoints" / "3")
    said = refusal(capsys, "sample", image_run.folder, "--step", 3)
    assert re.search(r"holds no step 3; choose one of \[.*4.*\]", said)


def test_out_in_no_folder_is_refused(image_run, tmp_path, capsys):
    assert "is no folder" in refusal(capsys, "sample", image_run.folder, "--out", tmp_path / "no" / "samples.png")


def test_out_of_no_known_kind_is_refused(image_run, tmp_path, capsys):
    assert "samples.abc" in refusal(capsys, "sample", image_run.folder, "--out", tmp_path / "samples.abc")
    assert "must end in .npz" in refusal(capsys, "encode", image_run.folder, "--out", tmp_path / "codes.png")
    assert "must end in .png" in refusal(capsys, "inspect", "digits", "--out", tmp_path / "sheet.foo")
    assert "NAME='no/such'" in refusal(capsys, "inspect", "no/such")
    assert "must end in .json" in refusal(capsys, "benchmark-features", "--out", tmp_path / "speed.txt")


def test_no_images_at_all_are_refused(image_run):
    with pytest.raises(ValueError, match="At least one"):
        sample_images(image_run, jax.random.key(0), 0)
    with pytest.raises(ValueError, match="At least one"):
        encode(image_run, np.zeros((0, 8, 8, 1)))


@pytest.mark.parametrize(("name", "n"), [("reconstruct", 360), ("interpolate", 180)])
def test_more_images_than_there_are_are_refused(name, n, image_run, capsys):
    # 359 images are 179 pairs.
    assert main([name, str(image_run.folder), "--n", str(n)]) == 2
    assert "359" in capsys.readouterr().err


def test_folder_without_rights_is_told_of_before_anything_is_made(capsys, image_run, monkeypatch):
    monkeypatch.setattr("asvae_jax.run.encode", lambda *_, **__: pytest.fail("images were encoded"))
    # Nobody can write there, whatever the rights of who runs the tests.
    assert "cannot be written" in command(
        capsys, "encode", image_run.folder, "--out", "/proc/codes.npz", code=EXIT_STORAGE
    )


def test_benchmark_prints_its_figures_as_json():
    finished = run(["-m", "asvae_jax", "benchmark", f"--config={ROOT}/configs/8gaussians.py:vae,tiny"])
    assert finished.returncode == 0, finished.stderr
    figures = json.loads(finished.stdout.splitlines()[-1])
    assert resolve(figures["config"]) == toy("vae,tiny")
    assert figures["device"].startswith("4 x ")
    assert 0 < figures["step_seconds_p10"] <= figures["step_seconds_median"] <= figures["step_seconds_p90"]
    assert figures["images_per_second"] == pytest.approx(32 / figures["step_seconds_median"])
    assert figures["flop_per_step"] > 0 and figures["argument_bytes"] > 0
