"""Cells of image tables and figures for the tests: tiny runs on digits, trained once for a module, and made-up ones."""

import json
from pathlib import Path

import pytest
from training_runs import DATA_DIR, ROOT

from asvae_jax.config import load_file, resolve
from asvae_jax.experiments import image_runs
from asvae_jax.experiments.image_requests import make_request
from asvae_jax.experiments.image_runs import ImageRuns

METHODS = ("vae", "sintrovae")
# The sets' own, but tiny, and for the four devices of the tests.
CONFIG = """
from asvae_jax.config import load_file

def get_config(variant=""):
    config = load_file(f"{root}/configs/{name}.py:{{variant}},tiny")
    config.evaluation.batch_size = 52
    return config
"""


@pytest.fixture
def prepared(monkeypatch):
    """The tests' data, and no weights of Inception."""
    monkeypatch.setenv("TFDS_DATA_DIR", DATA_DIR)
    monkeypatch.delenv("ASVAE_JAX_INCEPTION", raising=False)


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    for name in ("digits", "mnist", "photos32"):
        (folder / f"{name}.py").write_text(CONFIG.format(root=ROOT, name=name))
    return folder


@pytest.fixture(scope="module")
def workdir(configs, tmp_path_factory):
    """Two seeds of two methods on digits, 4 steps each."""
    folder = tmp_path_factory.mktemp("runs")
    request = make_request(
        sets=["digits"], methods=METHODS, seeds=[0, 1], steps=None, configs=configs, workdir=folder, runs=[],
        default_sets=(), default_methods=(), default_seeds=(), needs_encoder=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", DATA_DIR)
        assert len(list(ImageRuns(request).complete())) == 4
    return folder


@pytest.fixture
def no_training(monkeypatch):
    """A cell that would be trained is an error."""

    def refuse(config, folder, **_):
        raise AssertionError(f"{folder} is trained")

    monkeypatch.setattr(image_runs, "train", refuse)


def options(configs: Path, workdir: Path, out: Path, methods=METHODS) -> list:
    """A command's that asks for the cells of `workdir`."""
    return [
        "--sets", "digits", "--methods", *methods, "--seeds", 0, 1, "--configs", configs, "--workdir", workdir,
        "--out", out,
    ]  # fmt: skip


def stored(workdir: Path, method: str, seed: int) -> dict:
    return json.loads((workdir / "digits" / f"{method}-t4-s{seed}" / "evaluation.json").read_text())


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def row(page: str, name: str) -> list[str]:
    """The cells of the first row of a page that begins with `name`."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
    return line.strip("| ").split(" | ")[1:]


def made_up(folder: Path, data: str, words: str, seed: int, figures: dict[str, float], **training) -> Path:
    """A finished run's folder, as far as a table reads it."""
    config = load_file(f"{ROOT}/configs/{data}.py:{words}")
    config.seed = seed
    config.training.update(training)
    settings = json.loads(json.dumps(resolve(config).to_dict()))
    features = "digits" if any("digits" in name for name in figures) else "inception"
    generation = {"n_generated": 50_000, "n_reference": 60_000, "features": features, "network_sha256": "a" * 64}
    result = {
        "step": config.training.steps,
        "config": settings,
        "protocol": {"versions": {"jax": "1"}, "commit": "c" * 40, "device": "cpu", "generation": generation},
        "raw": figures,
        "ema": figures,
        "intervals": {"raw": {}, "ema": {}},
    }
    run = folder / f"{data}-{words}-{seed}".replace(",", "-")
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(settings))
    (run / "evaluation.json").write_text(json.dumps(result))
    log = [{"step": 0, "config": settings}, {"step": config.training.steps, "images_per_second": 100.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return run
