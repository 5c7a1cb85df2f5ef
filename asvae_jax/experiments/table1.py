"""Table 1 of arXiv 2206.13903 - 8 Gaussians under the weights C1, C2, C3 - and beside it the toys of arXiv 2012.13253,
by all methods and over many seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from asvae_jax.data.toys import MIXTURES, draw
from asvae_jax.evaluation import toy_figures
from asvae_jax.experiments.report import markdown, write_csv, write_json, write_section
from asvae_jax.experiments.toy_cells import OWN_BETAS, Budget, Cell, Results
from asvae_jax.experiments.toy_training import write_trained
from asvae_jax.metrics import intervals
from asvae_jax.run import Weights

VARIANTS = (
    "vae", "introvae", "sintrovae", "wgan_gp", "asintrovae,paper", "asintrovae,released", "asintrovae,recommended",
)  # fmt: skip

# (kl_paper, jsd_paper) as printed; the paper has one row for AS-IntroVAE.
PUBLISHED = {
    "c1": {"vae": (220.2, 110.1), "introvae": (192.4, 56.0), "sintrovae": (50.2, 16.9), "asintrovae": (3.4, 5.6)},
    "c2": {"vae": (220.3, 110.0), "introvae": (191.1, 68.0), "sintrovae": (136.5, 36.6), "asintrovae": (1.3, 4.4)},
    "c3": {"vae": (220.2, 109.8), "introvae": (64.0, 53.0), "sintrovae": (46.2, 9.6), "asintrovae": (2.0, 7.1)},
}


# Not the seed of the reference points.
_PERFECT_SEEDS = range(100, 105)


class Row(NamedTuple):
    """Cells that differ by seed alone, as far as they are trained."""

    cells: tuple[Cell, ...]
    records: tuple[dict[str, Any], ...]

    @property
    def first(self) -> Cell:
        return self.cells[0]

    def values(self, figure: str, weights: Weights) -> list[float]:
        return [record[weights][figure] for record in self.records if figure in record[weights]]


def places(betas: Sequence[str], toys: Sequence[str]) -> list[tuple[str, str]]:
    """Toys and the weights that they are under: 8 Gaussians under each of `betas`, the others under their own."""
    return [("8gaussians", word) for word in betas] + [(toy, OWN_BETAS) for toy in toys]


def table_cells(betas: Sequence[str], toys: Sequence[str], variants: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Table 1's cells."""
    return [
        Cell(toy, word, variant, (), seed)
        for toy, word in places(betas, toys)
        for variant in variants
        for seed in seeds
    ]


def rows(cells: Iterable[Cell], budget: Budget, results: Results) -> list[Row]:
    """The cells in rows, in their order; one that is named twice counts once."""
    groups: dict[Cell, list[Cell]] = {}
    for cell in dict.fromkeys(cells):
        groups.setdefault(cell._replace(seed=0), []).append(cell)
    found = [[(cell, results.find(cell, budget)) for cell in group] for group in groups.values()]
    return [
        Row(tuple(cell for cell, _ in group), tuple(record for _, record in group if record is not None))
        for group in found
    ]


def make(
    cells: Sequence[Cell],
    budget: Budget,
    *,
    command: str,
    out: Path,
    together: int | None,
    train: bool,
) -> str:
    """Trains what is missing, if `train`, and after each program writes table1.md, table1.csv and table1.json to `out`;
    returns the table. Finished cells are kept in `out`/toys.jsonl.

    Raises:
      ConfigError: if nothing is to be trained and none of the cells is there.
    """
    results = Results(out / "toys.jsonl")

    def write() -> str:
        found = rows(cells, budget, results)
        text = _page(found, budget, command)
        write_section(out / "table1.md", "table 1", text)
        write_csv(out / "table1.csv", [line for row in found for line in _lines(row, budget)])
        write_json(out / "table1.json", {"command": command, "budget": budget._asdict(), "rows": values(found)})
        return text

    return write_trained(write, cells, budget, results, together=together, train=train)


def _page(found: Sequence[Row], budget: Budget, command: str) -> str:
    gaussians = [row for row in found if row.first.betas != OWN_BETAS]
    others = [row for row in found if row.first.betas == OWN_BETAS]
    beside = "; the paper's own in brackets" if gaussians else ""
    text = [about(found, budget, command, beside)]
    titles: dict[Weights, str] = {"ema": "averaged weights", "raw": "raw weights"}
    for weights, title in titles.items():
        if gaussians:
            text.append(f"\n**8 Gaussians, {title}**\n\n{_gaussians_table(gaussians, weights)}")
        if others:
            text.append(f"\n**Other toys, {title}**\n\n{_others_table(others, weights)}")
    if gaussians:
        text.append(
            "\n**8 Gaussians, run by run**: modes hit (at how many points of the course all were, if not at each); "
            f"`kl_paper` / `jsd_paper` (those of the raw weights); strays\n\n{_runs_table(gaussians)}"
        )
    return "".join(text)


def about(found: Sequence[Row], budget: Budget, command: str, beside: str = "") -> str:
    """What is to be known of the figures of a page's tables; `beside` says what else stands in a cell."""
    # One run may stand in several cells: WGAN-GP knows no betas.
    records = list({record["samples"]: record for row in found for record in row.records}.values())
    done, wanted = len(records), len({cell.config(budget) for row in found for cell in row.cells})
    trains = "without `--stored` it trains" if "--stored" in command.split() else "the command trains"
    partial = "" if done == wanted else f" **Partial: {done} of {wanted} runs are done; {trains} the others.**"
    hours = sum(record["seconds"] for record in records) / 3600
    frozen = sum(record.get("refused_steps", 0) > 0 for record in records)
    refused = f" **In {frozen} of them steps were refused, as losses or gradients were not finite.**" if frozen else ""
    devices = "; ".join(sorted({f"{record['device']}, {_together(record['together'])}" for record in records}))
    return (
        f"`{command}`\n\n"
        f"{done} run{'' if done == 1 else 's'} of {budget.steps:,} steps of {budget.batch_size} points, "
        f"{_schedules(found, budget)}; 5,000 samples each.{partial}{refused} {hours:.1f} h in all on "
        f"{devices or 'no device yet'}.\n"
        f"Each figure is the median over the seeds [smallest, largest]{beside}. "
        f"Fresh real points instead of samples score {_of_real_points(found, budget)}.\n"
    )


def _together(runs: int) -> str:
    return "one run a program" if runs == 1 else f"{runs} runs a program"


def _schedules(found: Sequence[Row], budget: Budget) -> str:
    """How the learning rates of the variants go, whatever their ablations change."""
    presets = {row.first.variant: row.first._replace(changes=()).config(budget) for row in found}
    falling = [variant for variant, config in presets.items() if config.optimizer.final_factor < 1]
    if falling and len(falling) == len(presets):
        return "at a rate that falls all along"
    exception = f" (but for {', '.join(falling)}, whose rate falls all along)" if falling else ""
    milestones = max(config.optimizer.milestone_steps for config in presets.values())
    if len(milestones) > 1:
        first, second = milestones
        return f"at a tenth of the learning rate from step {first:,} on and a hundredth from {second:,} on{exception}"
    return f"the last quarter at a tenth of the learning rate{exception}"


def _of_real_points(found: Sequence[Row], budget: Budget) -> str:
    """What a perfect sampler scores on each toy: medians over some draws."""
    scores = []
    for toy, row in {row.first.toy: row for row in found}.items():
        config = row.first.config(budget)
        drawn = [
            toy_figures(config, np.asarray(draw(toy, jax.random.key(seed), config.chunk_size)))
            for seed in _PERFECT_SEEDS
        ]
        kl, jsd = (np.median([figures[name] for figures in drawn]) for name in ("kl_paper", "jsd_paper"))
        scores.append(f"{kl:.2f} / {jsd:.2f} on {toy}")
    return "`kl_paper` / `jsd_paper` " + ", ".join(scores)


def _gaussians_table(found: Sequence[Row], weights: Weights) -> str:
    header = [
        "weights",
        "method",
        "seeds",
        "all 8 modes",
        "modes",
        "strays",
        "kl_paper",
        "jsd_paper",
        "kl",
        "jsd",
        "time",
    ]
    lines = []
    for row in found:
        published = PUBLISHED[row.first.betas].get(row.first.variant.partition(",")[0], (None, None))
        spreads = {name: spread(row.values(name, weights)) for name in ("modes_hit", "strays", "kl", "jsd")}
        lines.append([
            row.first.betas.upper(), row.first.variant, _seeds(row), all_modes(row, weights), spreads["modes_hit"],
            spreads["strays"], spread(row.values("kl_paper", weights), published[0]),
            spread(row.values("jsd_paper", weights), published[1]), spreads["kl"], spreads["jsd"], _time(row),
        ])  # fmt: skip
    return markdown(header, lines)


def _others_table(found: Sequence[Row], weights: Weights) -> str:
    figures = ("kl", "jsd", "kl_paper", "jsd_paper", "out_of_range")
    lines = [
        [
            row.first.toy, row.first.variant, _seeds(row), *(spread(row.values(name, weights)) for name in figures),
            spread(row.values("modes_hit", weights)), _time(row),
        ]
        for row in found
    ]  # fmt: skip
    return markdown(["toy", "method", "seeds", *figures, "modes", "time"], lines)


def _runs_table(found: Sequence[Row]) -> str:
    """A line for each method and seed with a finished run, a column for each of Table 1's weights."""
    runs: dict[tuple[str, int], dict[str, str]] = {}
    for row in found:
        for record in row.records:
            runs.setdefault((row.first.variant, record["settings"]["seed"]), {})[row.first.betas] = _run(record)
    words = list(dict.fromkeys(row.first.betas for row in found))
    variants = list(dict.fromkeys(row.first.variant for row in found))
    lines = [
        [variant, str(seed), *(runs[variant, seed].get(word, "-") for word in words)]
        for variant, seed in sorted(runs, key=lambda run: (variants.index(run[0]), run[1]))
    ]
    return markdown(["method", "seed", *(word.upper() for word in words)], lines)


def _run(record: Mapping[str, Any]) -> str:
    """A run of 8 Gaussians in a cell."""
    averaged, raw = record["ema"], record["raw"]
    complete = [modes == 8 for modes in record["curve"]["modes_hit"]]
    came = f" ({sum(complete)} of {len(complete)})" if averaged["modes_hit"] == 8 and not all(complete) else ""
    pairs = [f"{weights['kl_paper']:.3g} / {weights['jsd_paper']:.3g}" for weights in (averaged, raw)]
    return f"{averaged['modes_hit']:.0f}{came}; {pairs[0]} ({pairs[1]}); {100 * averaged['strays']:.1f} %"


def all_modes(row: Row, weights: Weights) -> str:
    hit = row.values("modes_hit", weights)
    if row.first.toy not in MIXTURES or not hit:
        return "-"
    return f"{sum(modes == len(MIXTURES[row.first.toy].centres) for modes in hit)} of {len(hit)}"


def _seeds(row: Row) -> str:
    done, wanted = len(row.records), len(row.cells)
    return str(done) if done == wanted else f"{done} of {wanted}"


def _time(row: Row) -> str:
    return f"{np.mean([record['seconds'] for record in row.records]):.0f} s" if row.records else "-"


def spread(values: Sequence[float], published: float | None = None) -> str:
    """Median [smallest, largest] (published)."""
    beside = "" if published is None else f" ({published})"
    if not values:
        return "-" + beside
    median, low, high = np.median(values), min(values), max(values)
    ours = f"{median:.3g}" if low == high else f"{median:.3g} [{low:.3g}, {high:.3g}]"
    return ours + beside


def values(found: Sequence[Row]) -> list[dict[str, Any]]:
    """Everything of each row, for JSON."""
    return [
        {
            **{name: value for name, value in row.first._asdict().items() if name != "seed"},
            "seeds": [record["settings"]["seed"] for record in row.records],
            "missing_seeds": len(row.cells) - len(row.records),
            "raw": {name: row.values(name, "raw") for name in _figures(row)},
            "ema": {name: row.values(name, "ema") for name in _figures(row)},
            "seconds": [record["seconds"] for record in row.records],
            "devices": sorted({record["device"] for record in row.records}),
            "commits": sorted({record["commit"] for record in row.records}),
        }
        for row in found
    ]


def _lines(row: Row, budget: Budget) -> list[dict[str, Any]]:
    """A line for each figure and set of weights, for CSV."""
    cell = row.first
    published = dict(
        zip(
            ("kl_paper", "jsd_paper"),
            PUBLISHED.get(cell.betas, {}).get(cell.variant.partition(",")[0], ()),
            strict=False,
        )
    )
    return [
        {
            "toy": cell.toy,
            "betas": cell.betas,
            "variant": cell.variant,
            "changes": " ".join(f"{path}={value}" for path, value in cell.changes),
            **budget._asdict(),
            "weights": weights,
            "figure": name,
            "seeds": len(values),
            "median": np.median(values),
            "min": min(values),
            "max": max(values),
            "mean": np.mean(values),
            **_interval(values),
            "published": published.get(name, ""),
        }
        for weights in ("ema", "raw")
        for name in _figures(row)
        for values in [row.values(name, weights)]
    ]


def _interval(values: Sequence[float]) -> dict[str, float]:
    interval = intervals.over_seeds(values)
    return {} if math.isinf(interval.low) else interval._asdict()


def _figures(row: Row) -> list[str]:
    return list(row.records[0]["ema"]) if row.records else []
