"""The paper's tables and figures of 2-D toys."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from asvae_jax.commands.arguments import count
from asvae_jax.config import TOY_LIMITS, check_word
from asvae_jax.experiments.toy_cells import Budget
from asvae_jax.presets import TABLE1_BETAS

_OTHER_TOYS = tuple(name for name in TOY_LIMITS if name != "8gaussians")


def add(tables, figures) -> None:
    """Adds them to the parsers of `table` and `figure`."""
    table = tables.add_parser("1", help=_table.__doc__, description=_table.__doc__)
    _add_cell_arguments(table)
    table.add_argument(
        "--toys", nargs="*", choices=_OTHER_TOYS, default=_OTHER_TOYS, help="beside 8 Gaussians (default: all)"
    )
    table.set_defaults(command=_table)
    ablations = tables.add_parser("ablations", help=_ablations.__doc__, description=_ablations.__doc__)
    _add_cell_arguments(ablations)
    ablations.set_defaults(command=_ablations)


def _add_cell_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    command.add_argument(
        "--betas", nargs="*", choices=tuple(TABLE1_BETAS), default=list(TABLE1_BETAS), help="(default: all)"
    )
    command.add_argument("--variants", nargs="+", metavar="VARIANT", help="such as vae asintrovae,paper (default: all)")
    command.add_argument("--steps", type=count, default=20_000, help="training steps (default: 20,000)")
    command.add_argument("--batch-size", type=count, default=128, help="(default: 128)")
    command.add_argument("--together", type=count, help="runs in one program (default: what pays on these devices)")
    command.add_argument("--out", type=Path, default=Path("docs/results"), help="folder (default: docs/results)")
    command.add_argument("--workdir", type=Path, default=Path("runs/toys"), help="of samples (default: runs/toys)")


def _table(arguments: argparse.Namespace) -> None:
    """The 2-D toys of arXiv 2206.13903 and of arXiv 2012.13253 by all methods."""
    from asvae_jax.experiments import table1

    variants = _checked(arguments.variants, table1.VARIANTS)
    cells = table1.table_cells(arguments.betas, arguments.toys, variants, arguments.seeds)
    print(table1.make(
        cells, _budget(arguments), command=_command("table 1", arguments), workdir=arguments.workdir,
        out=arguments.out, together=arguments.together,
    ))  # fmt: skip


def _ablations(arguments: argparse.Namespace) -> None:
    """What decides whether AS-IntroVAE works: one setting at a time."""
    from asvae_jax.experiments import ablations

    print(ablations.make(
        _checked(arguments.variants, ablations.BASES), arguments.betas, arguments.seeds, _budget(arguments),
        command=_command("table ablations", arguments), workdir=arguments.workdir, out=arguments.out,
        together=arguments.together,
    ))  # fmt: skip


def _checked(variants: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    for variant in variants or ():
        check_word("--variants", variant, known)
    return variants or known


def _budget(arguments: argparse.Namespace) -> Budget:
    return Budget(arguments.steps, arguments.batch_size)


def _command(name: str, arguments: argparse.Namespace) -> str:
    """What a reader types to get the same."""
    words = [f"--steps {arguments.steps}", f"--batch-size {arguments.batch_size}"]
    words.append("--seeds " + " ".join(map(str, arguments.seeds)))
    for option in ("betas", "toys", "variants"):
        if getattr(arguments, option, None) is not None:
            words.append(" ".join([f"--{option}", *getattr(arguments, option)]))
    return " ".join(["python -m asvae_jax", name, *words])
