"""The paper's tables of images: cells trained once and read ever after, and what a page says of them."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401
from image_cells import METHODS, made_up, options, row, stored, times
from reference_files import fake_network
from training_runs import DATA_DIR, ROOT

from asvae_jax import evaluation
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.config import load_file, resolve
from asvae_jax.errors import EXIT_PREEMPTED, GameLostError, NotFiniteError
from asvae_jax.experiments import image_runs
from asvae_jax.experiments.image_requests import Cell, make_request, title
from asvae_jax.experiments.image_runs import ImageRuns, training_seconds
from asvae_jax.files import held

pytestmark = pytest.mark.usefixtures("prepared")


def test_cells_are_the_evaluations_of_their_runs(configs, workdir, no_training, tmp_path, capsys):
    page = command(capsys, "table", 2, *options(configs, workdir, tmp_path))
    kept = json.loads((tmp_path / "table2.json").read_text())
    assert "table 2 --sets digits --methods vae sintrovae --seeds 0 1`" in page
    assert kept["command"] in page and kept["missing"] == {}
    with (tmp_path / "table2.csv").open() as file:
        lines = list(csv.DictReader(file))
    for method in METHODS:
        ema, raw = ([stored(workdir, method, seed)[weights] for seed in (0, 1)] for weights in ("ema", "raw"))
        for figure in ("fid_digits_n100", "kid_digits", "precision_digits", "coverage_digits"):
            values = [figures[figure] for figures in ema]
            assert kept["sets"]["digits"]["runs"][method][figure] == values
            assert kept["sets"]["digits"]["raw_weights"][method][figure] == [figures[figure] for figures in raw]
            [line] = [line for line in lines if (line["method"], line["figure"]) == (method, figure)]
            assert float(line["mean"]) == pytest.approx(np.mean(values), rel=1e-5) and line["seeds"] == "2"
        assert row(page, title(method))[0].split(" ")[0] == f"{np.mean([f['fid_digits_n100'] for f in ema]):.4g}"
    assert str(tmp_path.parent) not in (tmp_path / "table2.md").read_text() + json.dumps(kept)


def test_second_call_trains_and_writes_nothing_anew(configs, workdir, no_training, tmp_path, capsys):
    command(capsys, "table", 3, *options(configs, workdir, tmp_path))
    runs, pages = times(workdir), {path: path.read_bytes() for path in tmp_path.iterdir()}
    command(capsys, "table", 3, *options(configs, workdir, tmp_path))
    assert times(workdir) == runs
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == pages and len(pages) == 3


def test_table_says_how_long_and_on_what(configs, workdir, tmp_path, capsys):
    page = command(capsys, "table", 3, *options(configs, workdir, tmp_path))
    folders = [workdir / "digits" / f"vae-t4-s{seed}" for seed in (0, 1)]
    seconds = json.loads((tmp_path / "table3.json").read_text())["sets"]["digits"]["training_seconds"]
    assert seconds["vae"] == pytest.approx(np.mean([training_seconds(folder) for folder in folders]), abs=0.051)
    assert "| digits | VAE | 2 of 2 | 64 |" in page and "| cpu (" in page


def test_seconds_of_an_interrupted_run_are_those_of_its_parts(tmp_path):
    header = {"config": {"data": {"batch_size": 16}}}
    lines = [
        {"step": 0, **header}, {"step": 2, "images_per_second": 16.0}, {"step": 2, "evaluation/psnr": 1.0},
        {"step": 3, **header}, {"step": 4, "images_per_second": 32.0},
    ]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert training_seconds(tmp_path) == pytest.approx(2 + 0.5)


def test_interrupted_cell_goes_on_and_an_unmeasured_one_is_measured(configs, workdir, tmp_path, capsys):
    folder, whole = tmp_path / "runs" / "digits" / "vae-t4-s0", stored(workdir, "vae", 0)
    by_hand = (["--metrics", "codes"], ["--weights", "raw"], ["--samples", 60])
    shutil.copytree(workdir / "digits" / "vae-t4-s0", folder)
    arguments = ["--sets", "digits", "--methods", "vae", "--seeds", 0, "--configs", configs]
    arguments += ["--workdir", tmp_path / "runs", "--out", tmp_path]

    (folder / "evaluation.json").unlink()
    checkpoints = times(folder / "checkpoints" / "4")
    command(capsys, "table", 3, *arguments)
    assert times(folder / "checkpoints" / "4") == checkpoints
    assert stored(tmp_path / "runs", "vae", 0) == whole

    # Evaluated by hand, for some of its measures, for one set of weights, by fewer images.
    for words in by_hand:
        command(capsys, "evaluate", folder, *words)
        assert stored(tmp_path / "runs", "vae", 0) != whole
        command(capsys, "table", 3, *arguments)
        assert stored(tmp_path / "runs", "vae", 0) == whole

    (folder / "evaluation.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "4")
    command(capsys, "table", 3, *arguments)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "config" in line] == [0, 2]
    assert stored(tmp_path / "runs", "vae", 0)["ema"] == pytest.approx(whole["ema"])


def test_cell_that_another_process_trains_is_left_to_it(configs, workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("asvae_jax.start._PATIENCE", 0.0)
    folders = {method: tmp_path / "runs" / "digits" / f"{method}-t4-s0" for method in ("vae", "sintrovae")}
    for folder in folders.values():
        shutil.copytree(workdir / "digits" / folder.name, folder)
    (folders["vae"] / "evaluation.json").unlink()
    arguments = ["--sets", "digits", "--methods", *folders, "--seeds", 0, "--configs", configs]
    with held(folders["vae"] / ".lock"):
        page = command(capsys, "table", 3, *arguments, "--workdir", tmp_path / "runs", "--out", tmp_path)
    assert "another process trains it" in page and len(row(page, "S-IntroVAE")[0]) > 1


def test_signal_behind_the_last_step_of_a_cell_is_heeded(configs, workdir, tmp_path, monkeypatch, capsys):
    folder, wait = tmp_path / "runs" / "digits" / "vae-t4-s0", CheckpointStore.wait
    shutil.copytree(workdir / "digits" / "vae-t4-s0", folder)
    (folder / "evaluation.json").unlink()
    arguments = ["--sets", "digits", "--methods", "vae", "sintrovae", "--seeds", 0, "--configs", configs]
    arguments += ["--workdir", tmp_path / "runs", "--out", tmp_path]

    def wait_and_be_asked_to_stop(store):
        wait(store)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CheckpointStore, "wait", wait_and_be_asked_to_stop)
    said = command(capsys, "table", 3, *arguments, code=EXIT_PREEMPTED)
    assert "Stopped as asked; what was finished is saved." in said
    assert not (folder / "evaluation.json").exists() and not (folder.parent / "sintrovae-t4-s0").exists()
    monkeypatch.undo()
    monkeypatch.setenv("TFDS_DATA_DIR", DATA_DIR)
    command(capsys, "table", 3, *arguments[:3], "vae", *arguments[5:])
    assert stored(tmp_path / "runs", "vae", 0) == stored(workdir, "vae", 0)


def test_features_by_batch_leave_no_cell_unfinished(configs, workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "open_network", lambda *_: fake_network(by_batch=True, name="inception_batchstat"))
    by_batch = '52\n    config.evaluation.features = "inception_batchstat"\n'
    (tmp_path / "digits.py").write_text((configs / "digits.py").read_text().replace("52\n", by_batch))
    shutil.copytree(workdir / "digits" / "vae-t4-s0", tmp_path / "runs" / "digits" / "vae-t4-s0")
    arguments = ["--sets", "digits", "--methods", "vae", "--seeds", 0, "--configs", tmp_path]
    arguments += ["--workdir", tmp_path / "runs", "--out", tmp_path]
    page = command(capsys, "table", 2, *arguments)
    # Of 100 images that were asked for.
    assert "52 generated images" in page and "-" not in row(page, "VAE")
    measured = times(tmp_path / "runs")
    command(capsys, "table", 2, *arguments)
    assert times(tmp_path / "runs") == measured


def test_cell_compared_with_another_programs_statistics_is_measured_against_its_own(configs, workdir, tmp_path, capsys):
    folder = tmp_path / "runs" / "digits" / "vae-t4-s0"
    shutil.copytree(workdir / "digits" / "vae-t4-s0", folder)
    own = stored(workdir, "vae", 0)["ema"]["fid_digits_n100"]
    # A set that is measured by FID alone, for which such statistics serve.
    (tmp_path / "digits.py").write_text(
        (configs / "digits.py").read_text().replace("52\n", '52\n    config.evaluation.measures = ("fid",)\n')
    )
    np.savez(tmp_path / "pytorch.npz", mu=np.zeros(64), sigma=np.eye(64))
    arguments = ["--sets", "digits", "--methods", "vae", "--seeds", 0, "--configs", tmp_path]
    arguments += ["--workdir", tmp_path / "runs", "--out", tmp_path]

    command(capsys, "evaluate", folder, "--metrics", "fid", "--reference", tmp_path / "pytorch.npz")
    assert stored(tmp_path / "runs", "vae", 0)["ema"]["fid_digits_n100"] != pytest.approx(own, rel=0.01)
    command(capsys, "table", 2, *arguments)
    assert stored(tmp_path / "runs", "vae", 0)["ema"]["fid_digits_n100"] == pytest.approx(own)


def test_steps_stretch_what_happens_on_the_way(tmp_path):
    request = make_request(
        sets=["digits"], methods=["vae"], seeds=[7], steps=400, configs=ROOT / "configs", workdir=tmp_path, runs=[],
        default_sets=(), default_methods=(), default_seeds=(), needs_encoder=False,
    )  # fmt: skip
    [cell] = ImageRuns(request)._cells()
    config, usual = request.config(cell), resolve(load_file(f"{ROOT}/configs/digits.py:vae"))
    assert (config.training.steps, config.seed) == (400, 7) and usual.training.steps == 2_000
    assert config.optimizer.milestone_steps == (300,) and usual.optimizer.milestone_steps == (1_500,)
    # As many checkpoints on the way as the usual run has, and none rarer in a longer one.
    assert config.ema.half_life_images == usual.ema.half_life_images / 5
    assert config.checkpoint.every_steps == 100 and usual.checkpoint.every_steps == 500
    assert request._replace(steps=4_000).config(cell).checkpoint.every_steps == 500
    assert request.folder(cell).name == "vae-t400-s7"


def test_missing_sets_are_named_with_what_mends_them(configs, workdir, no_training, tmp_path, capsys):
    arguments = options(configs, workdir, tmp_path)
    arguments[1:2] = ["digits", "mnist", "photos32"]
    page = command(capsys, "table", 2, *arguments)
    assert "- mnist: not prepared: `python -m asvae_jax prepare mnist`\n" in page
    assert "- photos32: FID needs Inception's weights" in page and "ASVAE_JAX_INCEPTION" in page
    assert float(row(page, "VAE")[0].split(" ")[0]) > 0
    assert set(json.loads((tmp_path / "table2.json").read_text())["missing"]) == {"mnist", "photos32"}


def test_inception_measures_the_papers_sets_where_its_weights_are(configs, tmp_path, monkeypatch):
    request = make_request(
        sets=["mnist", "digits"], methods=["vae"], seeds=[0], steps=None, configs=configs, workdir=tmp_path, runs=[],
        default_sets=(), default_methods=(), default_seeds=(), needs_encoder=False,
    )  # fmt: skip
    mnist, digits = (Cell(data, "vae", 0) for data in request.sets)
    assert request.config(mnist).evaluation.features == "digits"
    monkeypatch.setenv("ASVAE_JAX_INCEPTION", "inception.safetensors")
    assert request.config(mnist).evaluation.features == "inception"
    assert request.config(mnist).evaluation.features_file == "inception.safetensors"
    # Half a day of Inception on a CPU is no part of a training run.
    assert request.config(mnist).evaluation.every_steps == 0 and request.config(digits).evaluation.every_steps == 2
    assert request.config(digits).evaluation.features == "digits"


def test_runs_stand_for_cells_and_what_they_lack_is_shown(configs, workdir, no_training, tmp_path, capsys):
    given = [workdir / "digits" / name for name in ("vae-t4-s0", "vae-t4-s1", "sintrovae-t4-s1")]
    page = command(capsys, "table", 3, "--runs", *given, "--configs", configs, "--out", tmp_path)
    assert "`python -m asvae_jax table 3 --sets digits --methods vae sintrovae --seeds 0 1`" in page
    assert "seeds" not in row(page, "VAE")[0] and row(page, "S-IntroVAE")[0].endswith(", 1 of 2 seeds")
    assert "- digits sintrovae seed 0: not among the runs given" in page
    assert row(page, "S-IntroVAE")[0].startswith(f"{stored(workdir, 'sintrovae', 1)['ema']['psnr']:.4g} [")

    arguments = ["--methods", "vae", "introvae", "--configs", configs, "--out", tmp_path]
    page = command(capsys, "table", 3, "--runs", *given, *arguments)
    assert row(page, "IntroVAE") == ["-"] * 3
    # Runs of a method without an encoder may be given, and have no row.
    critic = made_up(tmp_path, "digits", "wgan_gp", 0, {"fid_digits": 1.0})
    page = command(capsys, "table", 3, "--runs", *given, critic, "--configs", configs, "--out", tmp_path)
    assert "WGAN-GP" not in page


def test_the_command_leads_to_the_folder_of_its_page(configs, workdir, no_training, tmp_path, monkeypatch, capsys):
    given = [workdir / "digits" / "vae-t4-s0"]
    monkeypatch.chdir(tmp_path)
    command(capsys, "table", 3, "--runs", *given, "--configs", configs, "--out", "pages/few")
    page = Path("pages/few/table3.md").read_text()
    assert "`python -m asvae_jax table 3 --sets digits --methods vae --seeds 0 --out pages/few`" in page


def test_given_run_that_is_not_evaluated_is_evaluated(configs, workdir, no_training, tmp_path, capsys):
    folder = tmp_path / "elsewhere"
    shutil.copytree(workdir / "digits" / "vae-t4-s0", folder, ignore=shutil.ignore_patterns("evaluation.json"))
    page = command(capsys, "table", 3, "--runs", folder, "--configs", configs, "--out", tmp_path)
    assert json.loads((folder / "evaluation.json").read_text())["ema"] == stored(workdir, "vae", 0)["ema"]
    assert f"{stored(workdir, 'vae', 0)['ema']['psnr']:.4g} [" in page

    # Half a file says what to do.
    (folder / "evaluation.json").write_text('{"step": 4, "conf')
    assert "remove it, and the run is evaluated anew" in refusal(capsys, "table", 3, "--runs", folder)

    # One that has gone on since its evaluation has no figures yet, nor has one that is still in training.
    (folder / "evaluation.json").unlink()
    command(capsys, "evaluate", folder)
    settings = json.loads((folder / "config.json").read_text())
    longer = {**settings, "training": {**settings["training"], "steps": 8}}
    (folder / "config.json").write_text(json.dumps(longer))
    assert "seed 0: step 4 of 8" in command(
        capsys, "table", 3, "--runs", folder, "--configs", configs, "--out", tmp_path / "longer"
    )
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "evaluation.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "4")
    page = command(capsys, "table", 3, "--runs", folder, "--configs", configs, "--out", tmp_path)
    assert "- digits vae seed 0: step 2 of 4" in page and row(page, "VAE") == ["-"] * 3


@pytest.mark.parametrize(
    ("error", "said"), [(NotFiniteError, "training did not stay finite"), (GameLostError, "the game was lost")]
)
def test_cell_whose_training_gives_up_is_named_and_the_others_are_made(
    error, said, configs, workdir, tmp_path, monkeypatch, capsys
):
    def diverge(config, folder, **_):
        raise error("20 in a row")

    monkeypatch.setattr(image_runs, "train", diverge)
    given = ["--runs", workdir / "digits" / "vae-t4-s0", "--sets", "digits", "--methods", "introvae", "vae"]
    page = command(capsys, "table", 3, *given, "--configs", configs, "--workdir", tmp_path / "runs", "--out", tmp_path)
    assert f"- digits introvae seed 0: {said}" in page
    assert row(page, "IntroVAE") == ["-"] * 3 and float(row(page, "VAE")[0].split(" ")[0]) > 0


def test_mistakes_are_refused_in_a_line(configs, workdir, no_training, tmp_path, capsys):
    run = workdir / "digits" / "vae-t4-s0"
    common = ["--configs", configs, "--out", tmp_path]
    assert "takes the folders of finished runs" in refusal(capsys, "table", 3, "--runs", tmp_path, *common)
    for content in ("[]", '{"method": "vae"}', '{"method": 1, "model": 2}'):
        (tmp_path / "config.json").write_text(content)
        assert "takes the folders of finished runs" in refusal(capsys, "table", 3, "--runs", tmp_path, *common)
    assert "both digits vae seed 0" in refusal(capsys, "table", 3, "--runs", run, run, *common)
    assert "--configs" in refusal(capsys, "table", 3, "--runs", run, "--configs", tmp_path, "--out", tmp_path)
    twice = ["--sets", "digits", "--methods", "asintrovae", "vae", "asintrovae,paper", *common]
    assert "asintrovae and asintrovae,paper are the same" in refusal(capsys, "table", 3, *twice)
    for made in (("table", 3), ("figure", 5), ("figure", 6)):
        critic = ["--sets", "digits", "--methods", "vae", "wgan_gp", *common]
        assert "wgan_gp has no encoder" in refusal(capsys, *made, *critic)
    # The same folder, but of another learning rate.
    elsewhere = tmp_path / "configs"
    elsewhere.mkdir()
    text = (configs / "digits.py").read_text().replace("return", "config.optimizer.learning_rate = 0.5\n    return")
    (elsewhere / "digits.py").write_text(text)
    said = refusal(capsys, "table", 3, *options(elsewhere, workdir, tmp_path, ["vae"]))
    assert "optimizer.learning_rate 0.001 -> 0.5" in said and "--workdir" in said


def test_papers_figures_stand_beside_ours_on_its_sets_alone(tmp_path, capsys):
    figures = {"psnr": 20.0, "ssim": 0.7, "mse": 0.01}
    runs = [
        made_up(tmp_path, data, words, 0, figures)
        for data in ("cifar10", "digits")
        for words in ("vae", "sintrovae", "asintrovae,released")
    ]
    page = command(capsys, "table", 3, "--runs", *runs, "--configs", ROOT / "configs", "--out", tmp_path)
    # Sets in the order of the table: digits, then the paper's.
    assert row(page, "VAE") == ["20", "0.7", "0.01"] * 2
    assert row(page, "S-IntroVAE") == ["20", "0.7", "0.01", "20 (19.3)", "0.7 (0.599)", "0.01 (0.019)"]
    assert row(page, "AS-IntroVAE (released)")[3:] == ["20 (19.445)", "0.7 (0.62)", "0.01 (0.019)"]


@pytest.mark.parametrize(("name", "cell"), [("fid", "30 (98.84)"), ("fid_digits", "30")])
def test_papers_fid_stands_beside_inceptions_alone(name, cell, tmp_path, capsys):
    run = made_up(tmp_path, "mnist", "sintrovae", 0, {name: 30.0})
    page = command(capsys, "table", 2, "--runs", run, "--configs", ROOT / "configs", "--out", tmp_path)
    assert row(page, "S-IntroVAE") == [cell, "-"]
    assert ("the paper prints FID, by other features: WGAN-GP 139.02, S-IntroVAE 98.84" in page) is (cell == "30")


def test_unequal_budgets_are_refused_and_other_settings_named(tmp_path, capsys):
    runs = [made_up(tmp_path, "cifar10", words, 0, {"psnr": 20.0}) for words in ("vae", "introvae")]
    longer = made_up(tmp_path, "cifar10", "sintrovae", 0, {"psnr": 20.0}, steps=200_000)
    arguments = ["--configs", ROOT / "configs", "--out", tmp_path]
    assert "equal budgets" in refusal(capsys, "table", 3, "--runs", *runs, longer, *arguments)
    page = command(capsys, "table", 3, "--runs", longer, *arguments)
    assert "--steps 200000`" in page and "not the settings" not in page
    logged = made_up(tmp_path / "other", "cifar10", "vae", 1, {"psnr": 20.0}, warmup_steps=7)
    page = command(capsys, "table", 3, "--runs", logged, *arguments)
    assert "not the settings of configs/cifar10.py: training.warmup_steps 0 -> 7." in page


def test_words_around_a_table_stay(configs, workdir, tmp_path, capsys):
    command(capsys, "table", 3, *options(configs, workdir, tmp_path, ["vae"]))
    page = tmp_path / "table3.md"
    page.write_text(page.read_text() + "\nWhat we make of it.\n")
    command(capsys, "table", 3, *options(configs, workdir, tmp_path))
    assert page.read_text().endswith("What we make of it.\n") and "S-IntroVAE" in page.read_text()


def test_table_without_fid_says_so_though_its_runs_are_there(tmp_path, no_training, capsys):
    run = made_up(tmp_path, "cifar10", "vae", 0, {"psnr": 20.0})
    request = make_request(
        sets=["cifar10"], methods=["vae"], seeds=[0], steps=None, configs=ROOT / "configs", workdir=tmp_path / "runs",
        runs=[], default_sets=(), default_methods=(), default_seeds=(), needs_encoder=False,
    )  # fmt: skip
    result = json.loads((run / "evaluation.json").read_text())
    result["config"] = json.loads(json.dumps(request.config(Cell("cifar10", "vae", 0)).to_dict()))
    result["measures"] = result["config"]["evaluation"]["measures"]
    folder = request.folder(Cell("cifar10", "vae", 0))
    shutil.copytree(run, folder)
    arguments = ["--sets", "cifar10", "--methods", "vae", "--seeds", 0, "--configs", ROOT / "configs"]
    arguments += ["--workdir", tmp_path / "runs", "--out", tmp_path]
    for name, missing in (("psnr", True), ("fid", False)):
        result["ema"] = {name: 20.0}
        (folder / "evaluation.json").write_text(json.dumps(result))
        page = command(capsys, "table", 2, *arguments)
        assert ("- cifar10: FID needs Inception's weights" in page) is missing


@pytest.mark.parametrize(
    ("method", "name"),
    [("wgan_gp", "WGAN-GP"), ("asintrovae,released", "AS-IntroVAE (released)"), ("vae,tiny", "VAE (tiny)")],
)
def test_titles(method, name):
    assert title(method) == name
