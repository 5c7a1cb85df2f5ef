"""Tables 2 and 3 of arXiv 2206.13903: how well methods generate and reconstruct images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asvae_jax import comparison
from asvae_jax.comparison import Group
from asvae_jax.experiments.image_requests import METHODS, PAPERS_SETS, SEEDS, SETS, Request, has_encoder, title
from asvae_jax.experiments.image_runs import SHOWN_WEIGHTS, ImageRuns, images_seen, training_seconds
from asvae_jax.experiments.report import CONFIGS, markdown, write_csv, write_json, write_section, writing_to
from asvae_jax.features.networks import is_figure
from asvae_jax.metrics.intervals import with_interval
from asvae_jax.settings import BY_FEATURES, HIGHER_IS_BETTER, IMAGE_MEASURES


class Table(NamedTuple):
    """What a table shows.

    Fields:
      title: of the page.
      figures: that it has columns for, as `evaluate` names them, without what is added for features and counts.
      extra: figures that do not fit into it, and stand in the files of numbers alone.
      methods: that have these figures.
      sets: that it is made of unless told otherwise.
      by_features: whether all hangs on a network of features.
      needs_encoder: whether a method without one has nothing to show.
      published: figures of the paper by data set and method, in the order of `figures`.
    """

    title: str
    figures: tuple[str, ...]
    extra: tuple[str, ...]
    methods: tuple[str, ...]
    sets: tuple[str, ...]
    by_features: bool
    needs_encoder: bool
    published: dict[str, dict[str, tuple[float, ...]]]


# The paper has one row for AS-IntroVAE; it stands beside each of our readings.
TABLES = {
    2: Table(
        title="Table 2: generated images",
        figures=("fid", "kid"),
        extra=("precision", "recall", "density", "coverage"),
        methods=METHODS,
        sets=tuple(name for name in SETS if name != "oxford_buildings"),
        by_features=True,
        needs_encoder=False,
        published={
            "mnist": {"wgan_gp": (139.02,), "sintrovae": (98.84,), "asintrovae": (96.16,)},
            "cifar10": {"wgan_gp": (434.11,), "sintrovae": (275.20,), "asintrovae": (271.69,)},
            "celeba128": {"wgan_gp": (160.53,), "sintrovae": (140.35,), "asintrovae": (130.74,)},
            "celeba256": {"wgan_gp": (170.79,), "sintrovae": (143.33,), "asintrovae": (129.61,)},
        },
    ),
    3: Table(
        title="Table 3: reconstructed images",
        figures=("psnr", "ssim", "mse"),
        extra=("kl_real", "active_units"),
        methods=tuple(filter(has_encoder, METHODS)),
        sets=SETS,
        by_features=False,
        needs_encoder=True,
        published={
            "mnist": {"sintrovae": (20.282, 0.885, 0.011), "asintrovae": (21.014, 0.898, 0.009)},
            "cifar10": {"sintrovae": (19.300, 0.599, 0.019), "asintrovae": (19.445, 0.620, 0.019)},
            "oxford_buildings": {"sintrovae": (15.372, 0.348, 0.049), "asintrovae": (20.168, 0.604, 0.013)},
            "celeba128": {"sintrovae": (17.818, 0.561, 0.018), "asintrovae": (22.924, 0.801, 0.006)},
            "celeba256": {"sintrovae": (22.422, 0.790, 0.007), "asintrovae": (23.156, 0.758, 0.006)},
        },
    ),
}

# Which way is better; what codes tell says nothing by itself.
_ARROWS = {
    name: " ↑" if name in HIGHER_IS_BETTER else " ↓"
    for measure in ("reconstruction", *BY_FEATURES)
    for name in IMAGE_MEASURES[measure]
}


def make(number: int, request: Request, out: Path) -> str:
    """Trains what is missing and, after each run, writes table2.md, .csv and .json (or table3) to `out`.

    Returns:
      The text of the page.

    Raises:
      DataError, ConfigError, Preempted: see `ImageRuns.complete` and `groups`.
    """
    table = TABLES[number]
    runs = ImageRuns(request, by_features=table.by_features)
    _write(number, runs, out)
    for _ in runs.complete():
        _write(number, runs, out)
    # Once more: what could not be had is known now.
    return _write(number, runs, out)


def command_line(words: str, request: Request, methods: Sequence[str], seeds: Sequence[int]) -> str:
    """What makes the same anew from nothing; `methods` and `seeds` are those that it takes without being told."""
    line = f"python -m asvae_jax {words} --sets {' '.join(request.sets)}"
    if request.methods != tuple(methods):
        line += f" --methods {' '.join(request.methods)}"
    if request.seeds != tuple(seeds):
        line += f" --seeds {' '.join(map(str, request.seeds))}"
    if request.steps:
        line += f" --steps {request.steps}"
    # An absolute folder is one machine's own.
    usual = request.configs == CONFIGS or request.configs.is_absolute()
    return line if usual else f"{line} --configs {request.configs}"


def _write(number: int, runs: ImageRuns, out: Path) -> str:
    table, groups = TABLES[number], {data: runs.groups(data) for data in runs.request.sets}
    command = writing_to(out, command_line(f"table {number}", runs.request, table.methods, SEEDS))
    text = _page(table, runs, groups, command)
    name = f"table{number}"
    write_section(out / f"{name}.md", name, text)
    write_csv(out / f"{name}.csv", list(_lines(table, groups)))
    write_json(out / f"{name}.json", _values(table, runs, groups, command))
    return text


_Groups = dict[str, dict[str, Group]]


def _page(table: Table, runs: ImageRuns, groups: _Groups, command: str) -> str:
    request, there = runs.request, [data for data, of_set in groups.items() if of_set or data not in runs.missing]
    parts = [
        f"# {table.title}",
        f"`{command}`",
        "Means over the seeds with their 95 % interval (of one seed: over its images); averaged weights; in round "
        "brackets what arXiv 2206.13903 prints. All methods of a data set see equally many images.",
        markdown(*_figure_table(table, request, groups, there, table.figures)),
    ]
    if any(_named(group, figure) for data in there for group in groups[data].values() for figure in table.extra):
        parts.append(markdown(*_figure_table(table, request, groups, there, table.extra)))
    parts += ["## Runs", markdown(*_run_table(runs, groups, there))]
    notes = [note for data in there if groups[data] for note in _notes(table, runs, data, groups[data])]
    parts.append("\n".join(f"- {note}" for note in notes))
    if runs.missing:
        parts += ["## Missing", "\n".join(f"- {what}: {why}" for what, why in runs.missing.items())]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _figure_table(
    table: Table, request: Request, groups: _Groups, there: Sequence[str], figures: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: methods down, the figures of each data set across."""
    columns = [(data, figure) for data in there for figure in figures]
    header = ["method"]
    for data, figure in columns:
        named = next((name for group in groups[data].values() if (name := _named(group, figure))), figure)
        header.append(f"{data} `{named}`{_ARROWS.get(figure, '')}")
    rows = [
        [title(method), *(_cell(table, request, data, groups[data].get(method), figure) for data, figure in columns)]
        for method in request.methods
    ]
    return header, rows


def _cell(table: Table, request: Request, data: str, group: Group | None, figure: str) -> str:
    name = group and _named(group, figure)
    if not group or not name:
        return "-"
    text = with_interval(group.mean(name, SHOWN_WEIGHTS), group.interval(name, SHOWN_WEIGHTS))
    published = _published(table, data, group, figure, name)
    if published is not None:
        text += f" ({published:g})"
    if len(group.results) < len(request.seeds):
        text += f", {len(group.results)} of {len(request.seeds)} seeds"
    return text


def _run_table(runs: ImageRuns, groups: _Groups, there: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for data in there:
        for method, group in groups[data].items():
            images = images_seen(group.results[0]["config"])
            rows.append([
                data, title(method), f"{len(group.results)} of {len(runs.request.seeds)}", f"{images:,}",
                _duration(_seconds(runs, data, method)), group.results[0]["protocol"]["device"],
            ])  # fmt: skip
    return ["data", "method", "seeds", "images seen", "training, mean", "device"], rows


def _notes(table: Table, runs: ImageRuns, data: str, groups: dict[str, Group]) -> Iterator[str]:
    protocols = [result["protocol"] for group in groups.values() for result in group.results]
    # Rows of one table may have been evaluated at different times.
    jax_versions = ", ".join(dict.fromkeys(protocol["versions"]["jax"] for protocol in protocols))
    commits = ", ".join(dict.fromkeys(protocol["commit"][:10] for protocol in protocols))
    versions = f"jax {jax_versions}, commit {commits}"
    generation = next((p["generation"] for p in protocols if "generation" in p), None)
    if not table.by_features:
        yield f"{data}: mean codes of the whole test split; {versions}."
    elif generation:
        yield (
            f"{data}: {generation['n_generated']:,} generated images against {generation['n_reference']:,} of the "
            f"training split, features `{generation['features']}` (sha256 {generation['network_sha256'][:10]}); "
            f"{versions}."
        )
        if generation["features"] == "digits":
            yield (
                f"{data}: `fid_digits` and its like are distances of the features of a small network for digits; they "
                "compare rows, and mean nothing beside any published FID."
            )
        if generation["features"] == "digits" and data in table.published:
            printed = ", ".join(f"{title(method)} {value:g}" for method, (value,) in table.published[data].items())
            yield f"{data}: the paper prints FID, by other features: {printed}."
    for method in groups:
        if changed := runs.departures(data, method):
            file = f"{runs.request.configs.name}/{data}.py"
            yield f"{data}, {title(method)}: not the settings of {file}: {'; '.join(changed)}."
    if table.by_features and data in PAPERS_SETS:
        yield f"{data}: the paper's FID is far above what others measure for the same methods; its protocol is unknown."


def _lines(table: Table, groups: _Groups) -> Iterator[dict[str, Any]]:
    for data, of_set in groups.items():
        for method, group in of_set.items():
            for figure in (*table.figures, *table.extra):
                if name := _named(group, figure):
                    interval = group.interval(name, SHOWN_WEIGHTS)
                    published = _published(table, data, group, figure, name)
                    yield {
                        "data": data,
                        "method": method,
                        "figure": name,
                        "seeds": len(group.results),
                        "mean": f"{group.mean(name, SHOWN_WEIGHTS):.6g}",
                        "low": f"{interval.low:.6g}" if interval else "",
                        "high": f"{interval.high:.6g}" if interval else "",
                        "published": "" if published is None else published,
                    }


def _values(table: Table, runs: ImageRuns, groups: _Groups, command: str) -> dict[str, Any]:
    """Every seed's figures, and all that they were measured under."""
    sets = {}
    for data, of_set in groups.items():
        if of_set:
            seconds = {method: round(_seconds(runs, data, method), 1) for method in of_set}
            named = [group._replace(name=method) for method, group in of_set.items()]
            sets[data] = {
                **comparison.values(named, SHOWN_WEIGHTS),
                # Runs that are given may have been evaluated without.
                "raw_weights": {
                    group.name: comparison.values([group], "raw")["runs"][group.name]
                    for group in named
                    if all("raw" in result for result in group.results)
                },
                "training_seconds": seconds,
                "published": table.published.get(data, {}),
            }
    return {"command": command, "seeds": runs.request.seeds, "missing": runs.missing, "sets": sets}


def _seconds(runs: ImageRuns, data: str, method: str) -> float:
    return float(np.mean([training_seconds(folder) for folder in runs.finished(data, method)]))


def _named(group: Group, figure: str) -> str | None:
    """The figure's whole name, "fid" may be "fid_digits_n1438", if all runs of the group have it."""
    names = (name for name in group.results[0][SHOWN_WEIGHTS] if is_figure(name, figure))
    return next((name for name in names if all(name in result[SHOWN_WEIGHTS] for result in group.results)), None)


def _published(table: Table, data: str, group: Group, figure: str, name: str) -> float | None:
    """The paper's figure where ours can stand beside it."""
    values = table.published.get(data, {}).get(group.results[0]["config"]["method"]["name"], ())
    if "digits" in name or figure not in table.figures[: len(values)]:
        return None
    return values[table.figures.index(figure)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
