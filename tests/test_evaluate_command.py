"""The `evaluate` command: its options, what it (and training, for its sake) refuses, and where it writes."""

import json
import shutil

import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401
from training_runs import digits

from asvae_jax.dry_run import dry_run
from asvae_jax.errors import DataError
from asvae_jax.examples import Examples
from asvae_jax.presets.image import INCEPTION_FILE
from asvae_jax.run import load_run, reconstruct
from asvae_jax.settings import Config
from asvae_jax.train import train

TEST = 359


@pytest.mark.parametrize(
    ("measures", "names"),
    [
        (["reconstruction"], ["psnr", "ssim", "mse"]),
        (["codes"], ["elbo", "kl_real", "active_units"]),
        (["fid", "reconstruction"], ["psnr", "ssim", "mse", "fid_digits_n30"]),
        (["kid"], ["kid_digits"]),
    ],
)
def test_metrics_choose_among_the_figures(measures, names, digits_run, tmp_path, capsys):
    out = tmp_path / "few.json"
    printed = command(capsys, "evaluate", digits_run.folder, "--metrics", *measures, "--samples", 30, "--out", out)
    kept = json.loads(out.read_text())
    assert list(kept["ema"]) == names and list(kept["raw"]) == names
    assert ("generation" in kept["protocol"]) == bool({"fid", "kid"} & set(measures))
    assert printed.endswith(f"wrote {out}\n") and all(name in printed for name in names)


def test_toys_have_intervals_and_modes_hit_has_none(toy_run, tmp_path, capsys):
    command(capsys, "evaluate", toy_run.folder)
    kept = json.loads((toy_run.folder / "evaluation.json").read_text())
    assert {"kl", "jsd", "modes_hit", "gn_elbo"} <= set(kept["ema"])
    for weights in ("raw", "ema"):
        assert set(kept["intervals"][weights]) == set(kept[weights]) - {"modes_hit"}
        for name, (low, high) in kept["intervals"][weights].items():
            assert low <= kept[weights][name] <= high, name
    assert kept["protocol"]["samples"] == 500 and kept["protocol"]["real_seed"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--metrics", "reconstuction"], ["reconstuction", "Did you mean 'reconstruction'"]),
        (["--metrics", "fidd"], ["fidd", "Did you mean 'fid'"]),
        (["--features", "digit"], ["digit", "Did you mean 'digits'"]),
        (["--samples", "10"], ["evaluation.samples=10"]),
        (["--step", "7"], ["7"]),
        (["--step", "best"], ["no best checkpoint", "evaluation.every_steps"]),
        (["--out", "figures.txt"], ["figures.txt", ".json"]),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(options, words, digits_run, capsys):
    said = refusal(capsys, "evaluate", digits_run.folder, *options)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("options", [["--metrics", "fid"], ["--samples", "100"], ["--features", "digits"]])
def test_toys_take_no_options_of_images(options, toy_run, capsys):
    said = refusal(capsys, "evaluate", toy_run.folder, *options)
    assert "toy" in said and options[0] in said


def test_inception_without_weights_is_refused_before_anything_is_measured(digits_run, capsys, monkeypatch):
    def never(*_):
        raise AssertionError("Something was measured.")

    monkeypatch.delenv(INCEPTION_FILE, raising=False)
    monkeypatch.setattr("asvae_jax.evaluation.score", never)
    monkeypatch.setattr("asvae_jax.evaluation.measure_generated", never)
    said = refusal(capsys, "evaluate", digits_run.folder, "--features", "inception")
    assert "convert-inception" in said and "--features-file" in said and INCEPTION_FILE in said


def test_weights_of_inception_are_found_where_the_environment_says(digits_run, capsys, monkeypatch, tmp_path):
    # What --help of --features-file calls the default, for a run whose config was made without it.
    monkeypatch.setenv(INCEPTION_FILE, str(tmp_path / "absent.safetensors"))
    said = refusal(capsys, "evaluate", digits_run.folder, "--features", "inception")
    assert "there is no file" in said and "absent.safetensors" in said


def test_other_features_do_not_look_into_the_file_of_the_first(tmp_path, capsys):
    config = digits(
        "vae,tiny",
        evaluation__features="inception",
        evaluation__features_file=str(tmp_path / "inception.safetensors"),
        evaluation__measures=("reconstruction",),
    )
    train(config, tmp_path)
    command(capsys, "evaluate", tmp_path, "--features", "digits", "--metrics", "fid", "--weights", "ema")
    assert list(json.loads((tmp_path / "evaluation.json").read_text())["ema"]) == ["fid_digits_n100"]


def needs_inception() -> Config:
    return digits("vae,tiny", evaluation__features="inception", evaluation__measures=("fid",))


def test_training_that_could_not_be_evaluated_is_refused_before_its_first_step(tmp_path):
    with pytest.raises(DataError, match="convert-inception") as error:
        train(needs_inception(), tmp_path / "run")
    assert error.value.exit_code == 2 and not (tmp_path / "run").exists()


def test_dry_run_says_what_evaluation_lacks(tmp_path):
    with pytest.raises(DataError, match="convert-inception"):
        dry_run(needs_inception(), tmp_path)
    missing = digits("vae,tiny", evaluation__reference_file=str(tmp_path / "absent.npz"))
    with pytest.raises(DataError, match=r"absent\.npz"):
        dry_run(missing, tmp_path)


def test_steps_are_evaluated_into_files_of_their_own(digits_run, capsys):
    command(capsys, "evaluate", digits_run.folder, "--step", 40, "--weights", "ema", "--metrics", "reconstruction")
    kept = json.loads((digits_run.folder / "evaluation-40.json").read_text())
    assert kept["step"] == 40 and "raw" not in kept and list(kept["intervals"]) == ["ema"]
    images = Examples(digits_run.config).rows(np.arange(TEST))
    at_step, at_end = (
        np.mean(np.square(images - reconstruct(run, images))) for run in (load_run(digits_run.folder, 40), digits_run)
    )
    assert kept["ema"]["mse"] == pytest.approx(at_step, rel=1e-5) and at_step != pytest.approx(at_end, rel=1e-3)


def test_folder_of_a_step_is_evaluated_into_a_file_of_its_own(digits_run, capsys):
    before = json.dumps({"step": 60})
    (digits_run.folder / "evaluation.json").write_text(before)
    command(
        capsys, "evaluate", digits_run.folder / "checkpoints" / "40", "--weights", "ema", "--metrics", "reconstruction"
    )
    assert (digits_run.folder / "evaluation.json").read_text() == before


def test_runs_may_lie_in_a_folder_called_checkpoints(digits_run, tmp_path, capsys):
    folder = tmp_path / "checkpoints" / "digits"
    shutil.copytree(digits_run.folder / "checkpoints", folder / "checkpoints")
    command(capsys, "evaluate", folder, "--weights", "ema", "--metrics", "reconstruction")
    assert [path.name for path in folder.glob("*.json")] == ["evaluation.json"]


def test_folder_of_a_run_may_have_the_name_of_a_step(digits_run, tmp_path, capsys):
    shutil.copytree(digits_run.folder / "checkpoints", tmp_path / "3" / "checkpoints")
    command(capsys, "evaluate", tmp_path / "3", "--weights", "ema", "--metrics", "reconstruction")
    assert json.loads((tmp_path / "3" / "evaluation.json").read_text())["step"] == 60
