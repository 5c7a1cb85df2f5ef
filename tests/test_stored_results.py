"""The tables of toys in docs/results, made again from the runs stored beside them."""

import shlex
import shutil

import numpy as np
import pytest
from command_line import command, terminal  # noqa: F401
from training_runs import ROOT

from asvae_jax.experiments import table1
from asvae_jax.experiments.toy_cells import Budget, Results, read_samples
from asvae_jax.presets.toy import TABLE1_BETAS

RESULTS = ROOT / "docs" / "results"


PAGES = [
    "table1.md", "ablations.md", "paper-budget/ablations.md", "batch-64/table1.md", "batch-64/ablations.md",
    "batch-512/table1.md", "steps-40000/table1.md", "steps-80000/table1.md", "limits.md",
    "steps-40000/limits.md",
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_the_command_on_a_page_makes_it_again_of_stored_runs(page, capsys, monkeypatch, tmp_path):
    stored = RESULTS / page
    made = tmp_path / stored.relative_to(ROOT)
    made.parent.mkdir(parents=True)
    runs = "limits.json" if page.endswith("limits.md") else "toys.jsonl"
    for file in (stored, stored.with_name(runs)):
        shutil.copy(file, made.parent)
    printed = stored.read_text().partition("<!-- ")[2].splitlines()[1].strip("`")
    monkeypatch.chdir(tmp_path)
    command(capsys, *shlex.split(printed)[3:])
    tables = [path for path in made.parent.iterdir() if path.name != "toys.jsonl"]
    assert len(tables) > 1
    for path in tables:
        assert path.read_text() == stored.with_name(path.name).read_text(), path.name


@pytest.mark.parametrize(
    ("betas", "toys", "seed"),
    [(tuple(TABLE1_BETAS), (), 7), *(((), (toy,), 1) for toy in ("2spirals", "checkerboard", "rings", "25gaussians"))],
)
def test_all_panels_of_a_stored_picture_have_their_points(betas, toys, seed):
    records = Results(RESULTS / "toys.jsonl")
    for cell in table1.table_cells(betas, toys, table1.VARIANTS, [seed]):
        assert read_samples(cell, Budget(20_000, 128), records) is not None, cell


@pytest.mark.parametrize("folder", [".", "steps-40000", "steps-80000"])
def test_stored_samples_are_those_of_stored_runs(folder):
    records = Results(RESULTS / folder / "toys.jsonl")
    names = {record["samples"] for record in records._by_settings.values()}
    for path in records.samples.iterdir():
        assert path.name in names
        assert np.load(path).shape == (5_000, 2)
