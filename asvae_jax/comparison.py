"""Several evaluated runs side by side: groups of runs that differ by seed alone, and whether groups differ by more than
chance."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asvae_jax.config import of_this_version
from asvae_jax.continuation import decisive
from asvae_jax.errors import ConfigError, DataError
from asvae_jax.evaluation import EVALUATION_FILE
from asvae_jax.files import reading
from asvae_jax.metrics import intervals
from asvae_jax.metrics.intervals import Interval, with_interval
from asvae_jax.presets.variants import variant_of
from asvae_jax.run import Weights

# Entries of a protocol that name code and machine: they may differ between runs.
_CIRCUMSTANCES = ("versions", "commit", "device")
# Settings of the data section that change no image.
_READING = ("data_dir", "read_threads", "batch_size")


class Group(NamedTuple):
    """Evaluations of runs that differ by their seeds alone, and what they are called."""

    name: str
    results: list[dict[str, Any]]

    @property
    def seeds(self) -> list[int]:
        return [result["config"]["seed"] for result in self.results]

    def values(self, figure: str, weights: Weights) -> list[float]:
        return [result[weights][figure] for result in self.results]

    def mean(self, figure: str, weights: Weights) -> float:
        return float(np.mean(self.values(figure, weights)))

    def interval(self, figure: str, weights: Weights) -> Interval | None:
        """Over the seeds; for one run alone that of its evaluation, which knows nothing of seeds."""
        if len(self.results) > 1:
            return intervals.over_seeds(self.values(figure, weights))
        own = self.results[0]["intervals"][weights].get(figure)
        return Interval(*own) if own else None


def read_groups(folders: Sequence[Path], weights: Weights, file: str = EVALUATION_FILE) -> list[Group]:
    """The evaluations in run folders, in groups of runs that differ by seed alone.

    Raises:
      DataError: if a folder has no evaluation, two are of one seed, or they were measured under different protocols or
        at different steps, unless those are each run's best.
    """
    return _grouped(_read_alike(folders, weights, file))


def _read_alike(folders: Sequence[Path], weights: Weights, file: str) -> list[dict[str, Any]]:
    paths = [folder / file for folder in folders]
    results = [_read(path, weights) for path in paths]
    _check_protocols(paths, results)
    return results


def _grouped(results: Sequence[dict[str, Any]]) -> list[Group]:
    grouped: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        grouped.setdefault(json.dumps(_kind(result), sort_keys=True), []).append(result)
    groups = [Group(variant_of(members[0]["config"]["method"]), members) for members in grouped.values()]
    for group in groups:
        if len(set(group.seeds)) < len(group.seeds):
            raise DataError(f"Two of the runs of {group.name} have one seed: {sorted(group.seeds)}; give each once.")
        each_its_best = all("best_by" in result for result in group.results)
        if len(steps := {result["step"] for result in group.results}) > 1 and not each_its_best:
            raise DataError(f"The runs of {group.name} were evaluated at steps {sorted(steps)}; evaluate them at one.")
    return _told_apart(groups)


def read_sides(
    first: Sequence[Path], second: Sequence[Path], weights: Weights, file: str = EVALUATION_FILE
) -> list[Group]:
    """`read_groups` of two sides, each of runs of one kind, which are not the other's: the first and the second.

    Raises:
      DataError: as `read_groups` does.
      ConfigError: if a side has runs of several kinds, or both have the same.
    """
    results = _read_alike([*first, *second], weights, file)
    for side in (results[: len(first)], results[len(first) :]):
        if len(groups := _grouped(side)) > 1:
            names = "; ".join(group.name for group in groups)
            raise ConfigError(f"Each side is to be runs of one kind; one has {names}.")
    groups = _grouped(results)
    if len(groups) == 1:
        raise ConfigError(f"Both sides are runs of {groups[0].name}; give two kinds.")
    return groups


def summary(groups: Sequence[Group], weights: Weights) -> str:
    """A Markdown table: a row for each group, a column for each figure, mean and 95 % interval over the seeds."""
    figures = _figures(groups, weights)
    data = groups[0].results[0]["config"]["data"]["name"]
    lines = [f"{data}, {weights} weights: mean and 95 % interval over the seeds (of one seed, over its images).", ""]
    lines += ["| run | seeds | " + " | ".join(figures) + " |", "|" + "---|" * (len(figures) + 2)]
    for group in groups:
        cells = [
            with_interval(group.mean(figure, weights), group.interval(figure, weights))
            if _has(group, figure, weights)
            else "-"
            for figure in figures
        ]
        lines.append(f"| {group.name} | {len(group.results)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def values(groups: Sequence[Group], weights: Weights) -> dict[str, Any]:
    """All that a table is made of, for JSON: the protocol, and each figure of each seed of each group."""
    runs = {
        group.name: {
            "seeds": group.seeds,
            **{name: group.values(name, weights) for name in _figures([group], weights) if _has(group, name, weights)},
        }
        for group in groups
    }
    return {"weights": weights, "protocol": groups[0].results[0]["protocol"], "runs": runs}


class Difference(NamedTuple):
    """Of a figure between two groups: second minus first."""

    figure: str
    first: float
    second: float
    interval: Interval | None

    @property
    def exceeds_chance(self) -> bool | None:
        """Whether the interval leaves out 0; None where there is no interval."""
        return None if self.interval is None else not self.interval.low <= 0 <= self.interval.high


def differences(first: Group, second: Group, weights: Weights) -> list[Difference]:
    """Every figure that all runs of both groups have. With two seeds or more on both sides the interval is Welch's over
    the seeds; otherwise it combines those of the two groups (of one run alone: over its images, which says nothing of
    other seeds)."""
    shared = [name for name in _figures([first], weights) if all(_has(side, name, weights) for side in (first, second))]
    return [
        Difference(
            name, first.mean(name, weights), second.mean(name, weights), _of_difference(first, second, name, weights)
        )
        for name in shared
    ]


def difference_table(first: Group, second: Group, weights: Weights) -> str:
    """`differences` as Markdown, with a verdict.

    Raises:
      DataError: if there are none.
    """
    verdicts = {True: "yes", False: "no", None: "not known"}
    found = differences(first, second, weights)
    if not found:
        raise DataError(f"{first.name} and {second.name} have no figure in common; evaluate them alike.")
    title = f"{second.name} ({_seeds(second)}) minus {first.name} ({_seeds(first)}), {weights} weights"
    header = f"| figure | {first.name} | {second.name} | difference | exceeds chance |"
    lines = [title, "", header, "|---|---|---|---|---|"]
    lines += [
        f"| {d.figure} | {d.first:.4g} | {d.second:.4g} | {with_interval(d.second - d.first, d.interval)} | "
        f"{verdicts[d.exceeds_chance]} |"
        for d in found
    ]
    return "\n".join(lines) + "\n"


def _read(path: Path, weights: Weights) -> dict[str, Any]:
    with reading(path, "run python -m asvae_jax evaluate on its run"):
        result = json.loads(path.read_text())
        result = {**result, "config": of_this_version(result["config"])}
    if weights not in result or "intervals" not in result:
        raise DataError(f"{path} has no figures of {weights} weights; run python -m asvae_jax evaluate anew.")
    return result


def _protocol(result: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in result["config"]["data"].items() if name not in _READING}
    return {
        "data": data, **{name: value for name, value in result["protocol"].items() if name not in _CIRCUMSTANCES}
    }  # fmt: skip


def _check_protocols(paths: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> None:
    """Raises a DataError for the first run whose protocol is not that of those before it, where both say something:
    what cannot be measured of one method is no other protocol."""
    known: dict[str, tuple[Any, Path]] = {}
    for path, result in zip(paths, results, strict=True):
        with reading(path, "run python -m asvae_jax evaluate anew"):
            protocol = _protocol(result)
        if differing := [name for name in protocol if name in known and known[name][0] != protocol[name]]:
            raise DataError(
                f"{known[differing[0]][1]} and {path} were measured under different protocols "
                f"({', '.join(differing)}); evaluate them alike."
            )
        known |= {name: (value, path) for name, value in protocol.items() if name not in known}


def _told_apart(groups: list[Group]) -> list[Group]:
    """Groups of one name get the settings in which they differ added to it."""
    named = []
    for group in groups:
        rivals = [other for other in groups if other.name == group.name and other is not group]
        own = _kind(group.results[0])
        differing = sorted(
            {key for rival in rivals for key, value in _kind(rival.results[0]).items() if own.get(key) != value}
        )
        words = " ".join(f"{key}={own.get(key)}" for key in differing)
        named.append(group._replace(name=f"{group.name} {words}".strip()))
    return named


def _kind(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that runs of one kind share; how each was measured is its protocol's to say."""
    return {
        path: value
        for path, value in decisive(result["config"]).items()
        if path != "seed" and not path.startswith("evaluation.")
    }


def _figures(groups: Sequence[Group], weights: Weights) -> list[str]:
    """All that a group has, first those of the group that has most, in its order."""
    by_number = sorted((list(group.results[0][weights]) for group in groups), key=len, reverse=True)
    return list(dict.fromkeys(name for names in by_number for name in names))


def _has(group: Group, figure: str, weights: Weights) -> bool:
    return all(figure in result[weights] for result in group.results)


def _of_difference(first: Group, second: Group, figure: str, weights: Weights) -> Interval | None:
    if min(len(first.results), len(second.results)) > 1:
        return intervals.of_difference(first.values(figure, weights), second.values(figure, weights))
    own = [group.interval(figure, weights) for group in (first, second)]
    if None in own:
        return None
    middle = second.mean(figure, weights) - first.mean(figure, weights)
    half = math.hypot(*((interval.high - interval.low) / 2 for interval in own if interval))
    return Interval(middle - half, middle + half)


def _seeds(group: Group) -> str:
    return f"{len(group.results)} seeds" if len(group.results) > 1 else "1 seed"
