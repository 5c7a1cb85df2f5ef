"""Commands that remake the papers' tables."""

import argparse
from pathlib import Path

from asvae_jax.commands.arguments import count


def add(commands) -> None:
    """Adds them to the parser."""
    table = commands.add_parser("table", help=_table.__doc__, description=_table.__doc__)
    table.add_argument("number", type=int, choices=(1,), help="1: the 2-D toy of arXiv 2206.13903")
    table.add_argument("--steps", type=count, default=20_000, help="training steps (default: 20,000)")
    table.add_argument("--batch-size", type=count, default=128, help="(default: 128)")
    table.add_argument("--seed", type=int, default=0, help="(default: 0)")
    table.add_argument("--combinations", nargs="+", choices=("c1", "c2", "c3"), default=["c1"], help="(default: c1)")
    table.add_argument("--out", type=Path, default=Path("docs/results"), help="folder (default: docs/results)")
    table.add_argument(
        "--workdir", type=Path, default=Path("runs/table1"), help="folder of its runs (default: runs/table1)"
    )
    table.set_defaults(command=_table)


def _table(arguments: argparse.Namespace) -> None:
    """Train what is missing of a table of the paper, and write it with the paper's figures beside ours."""
    from asvae_jax.experiments import table1

    settings = table1.Settings(arguments.steps, arguments.batch_size, arguments.seed, tuple(arguments.combinations))
    print(table1.make(settings, workdir=arguments.workdir, out=arguments.out))
