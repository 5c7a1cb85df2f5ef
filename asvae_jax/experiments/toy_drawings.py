"""Figure 3 of arXiv 2206.13903 - samples of 8 Gaussians by all methods - with the other toys and the courses of the
measures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from asvae_jax.data.toys import MIXTURES
from asvae_jax.evaluation import toy_figures
from asvae_jax.examples import preview_examples
from asvae_jax.experiments.report import write_picture
from asvae_jax.experiments.table1 import Row, rows
from asvae_jax.experiments.toy_cells import OWN_BETAS, Budget, Cell, Results, check_any_stored, read_samples
from asvae_jax.experiments.toy_training import train_missing
from asvae_jax.figures import Course, Panel, courses_sheet, points_grid
from asvae_jax.settings import TOY_LIMITS, Config

_REAL = "data"
# The measures look farther out than the 25 modes need to be seen well.
_DRAWN = {**TOY_LIMITS, "25gaussians": 5.0}
# How much of a mode's surroundings is drawn, in its widths to each side of its centre.
_WIDTHS_DRAWN = 5.0


def draw(cells: Sequence[Cell], budget: Budget, *, out: Path, together: int | None, train: bool) -> list[Path]:
    """Trains what is missing, if `train`, and writes figure3.png, the samples of the first seed's 8 Gaussians,
    figure3-modes.png, each mode of these from near where a method has them all, figure3-TOY.png, the samples of each
    other toy, and figure3-curves.png, the course of all seeds, as far as `cells` have them. A picture of which no
    samples are stored is left as it is.

    Returns:
      The files written.

    Raises:
      ConfigError: if nothing is to be trained and none of the cells is there.
    """
    results = Results(out / "toys.jsonl")
    first = [cell for cell in cells if cell.seed == cells[0].seed]
    if train:
        train_missing(first, budget, results, together=together, with_samples=True)
        train_missing(cells, budget, results, together=together)
    else:
        check_any_stored(cells, budget, results)
    of_picture: dict[str, list[Cell]] = {}
    for cell in first:
        of_picture.setdefault("figure3" if cell.betas != OWN_BETAS else f"figure3-{cell.toy}", []).append(cell)
    written = []
    for name, drawn in of_picture.items():
        points = {cell: of_cell for cell in drawn if (of_cell := read_samples(cell, budget, results)) is not None}
        if not points:
            continue
        # Of the very points that are drawn: those on record may be another program's.
        figures = {cell: toy_figures(cell.config(budget), of_cell) for cell, of_cell in points.items()}
        path = out / f"{name}.png"
        write_picture(path, _samples_grid(drawn, points, figures, budget))
        written.append(path)
        if name == "figure3" and (whole := _with_all_modes(figures, budget)):
            write_picture(out / "figure3-modes.png", _modes_grid({cell: points[cell] for cell in whole}, budget))
            written.append(out / "figure3-modes.png")
    found = [row for row in rows(cells, budget, results) if row.first.betas != OWN_BETAS and row.records]
    if found:
        write_picture(out / "figure3-curves.png", _curves(found))
        written.append(out / "figure3-curves.png")
    return written


def _samples_grid(
    cells: Sequence[Cell],
    points_of: Mapping[Cell, np.ndarray],
    figures_of: Mapping[Cell, Mapping[str, float]],
    budget: Budget,
):
    """A row for each of the weights' combinations, or for the toy with weights of its own; of one seed."""
    panels: dict[str, dict[str, Panel]] = {}
    limits = {}
    for cell in cells:
        label = cell.toy if cell.betas == OWN_BETAS else cell.betas.upper()
        limits[label] = _DRAWN[cell.toy]
        row = panels.setdefault(label, {_REAL: Panel(preview_examples(cell.config(budget)))})
        row[_two_lines(cell.variant)] = Panel(
            points_of.get(cell), _measured(figures_of[cell]) if cell in figures_of else ""
        )
    title = f"samples of the averaged weights, {budget.steps:,} steps of {budget.batch_size} points"
    return points_grid(panels, limits, f"{title}, seed {cells[0].seed}")


def _with_all_modes(figures_of: Mapping[Cell, Mapping[str, float]], budget: Budget) -> list[Cell]:
    """Those cells of 8 Gaussians whose points hit all modes, a run once: under other betas WGAN-GP, which has none, is
    the same."""
    runs: dict[Config, Cell] = {}
    for cell, figures in figures_of.items():
        if figures["modes_hit"] == len(MIXTURES[cell.toy].centres):
            runs.setdefault(cell.config(budget), cell)
    return list(runs.values())


def _modes_grid(points_of: Mapping[Cell, np.ndarray], budget: Budget):
    """A row for the data and for each cell of 8 Gaussians, a column for each mode."""
    first = next(iter(points_of))
    drawn = {_REAL: preview_examples(first.config(budget))}
    drawn |= {f"{_two_lines(cell.variant)}\n{cell.betas.upper()}": points for cell, points in points_of.items()}
    mixture = MIXTURES[first.toy]
    panels = {
        label: {f"mode {i}": _from_near(points, centre, mixture.width) for i, centre in enumerate(mixture.centres, 1)}
        for label, points in drawn.items()
    }
    title = (
        "the modes of 8 Gaussians from near, in widths of a mode, and the share of all samples: averaged weights, "
        f"{budget.steps:,} steps of {budget.batch_size} points, seed {first.seed}"
    )
    return points_grid(panels, dict.fromkeys(panels, _WIDTHS_DRAWN), title)


def _from_near(points: np.ndarray, centre: np.ndarray, width: float) -> Panel:
    """What of the points lies about one mode, in the mode's widths from its centre."""
    offsets = (points - centre) / width
    near = np.all(np.abs(offsets) <= _WIDTHS_DRAWN, axis=1)
    return Panel(offsets[near], f"{np.mean(near):.1%}")


def _measured(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {figures[name]:.3g}" for name in ("kl_paper", "jsd_paper"))


def _curves(found: Sequence[Row]):
    """For each of the weights' combinations kl_paper and modes hit of every variant over training; of trained rows."""
    betas = list(dict.fromkeys(row.first.betas for row in found))
    of_figure = {"kl_paper": "kl_paper", "modes_hit": "modes hit, of 8"}
    panels = {
        f"{word.upper()}: {label}": {
            row.first.variant: _course(row, figure) for row in found if row.first.betas == word
        }
        for figure, label in of_figure.items()
        for word in betas
    }
    seeds = sorted({len(row.records) for row in found})
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    of_seeds = "one seed" if seeds == [1] else f"median and range of {span} seeds"
    return courses_sheet(panels, "step", f"8 Gaussians, averaged weights: {of_seeds}")


def _course(row: Row, figure: str) -> Course:
    curves = [record["curve"] for record in row.records]
    return Course(np.array(curves[0]["step"]), np.array([curve[figure] for curve in curves]))


def _two_lines(variant: str) -> str:
    return variant.replace(",", ",\n")
