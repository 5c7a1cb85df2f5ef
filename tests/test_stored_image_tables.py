"""The tables of images in docs/results: page, CSV and prose say what the JSON beside them holds of each seed."""

import csv
import json
import shlex

import numpy as np
import pytest
from scipy import stats
from training_runs import ROOT

from asvae_jax.__main__ import _parser

RESULTS = ROOT / "docs" / "results"
TABLES = sorted(path.relative_to(RESULTS).as_posix() for path in RESULTS.glob("**/table[23].json"))


def test_the_tables_of_digits_are_there():
    assert {"table2.json", "table3.json"} <= set(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_lines_and_cells_are_those_of_the_seeds(table):
    stored = json.loads((RESULTS / table).read_text())
    page = (RESULTS / table).with_suffix(".md").read_text()
    with (RESULTS / table).with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    assert sorted((data, run) for data, of_set in stored["sets"].items() for run in of_set["runs"]) == sorted(
        {(line["data"], line["method"]) for line in lines}
    )
    for line in lines:
        values = np.array(stored["sets"][line["data"]]["runs"][line["method"]][line["figure"]])
        mean = float(line["mean"])
        assert int(line["seeds"]) == len(values) and mean == pytest.approx(values.mean(), rel=1e-5), line
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
            expected = (values.mean() - half, values.mean() + half)
            assert (float(line["low"]), float(line["high"])) == pytest.approx(expected, rel=1e-4, abs=1e-5), line
        elif line["low"]:
            # Over the images, of which the JSON has no figures; a count of units has none.
            assert float(line["low"]) <= mean <= float(line["high"]), line
        assert f"{values.mean():.4g}" in page, line


@pytest.mark.parametrize("table", TABLES)
def test_the_command_of_a_table_is_one(table):
    printed = json.loads((RESULTS / table).read_text())["command"]
    assert f"`{printed}`" in (RESULTS / table).with_suffix(".md").read_text()
    program, _, module, *words = shlex.split(printed)
    assert (program, module) == ("python", "asvae_jax")
    arguments = _parser().parse_args(words)
    assert (ROOT / arguments.out).resolve() == (RESULTS / table).parent


def test_the_digits_of_the_prose_are_those_of_their_table():
    table = _rows((RESULTS / "digits.md").read_text(), "| run | seeds |")
    prose = _rows((RESULTS / "README.md").read_text(), "| run | psnr |")
    assert prose.keys() == table.keys()
    for run, figures in prose.items():
        assert figures == {name: table[run][name] for name in figures}, run


def _rows(text: str, header: str) -> dict[str, dict[str, str]]:
    """The cells of the table that begins with `header`, by the name of the row and the column."""
    lines = text[text.index(header) :].split("\n\n")[0].splitlines()
    [names, _, *rows] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in rows}
