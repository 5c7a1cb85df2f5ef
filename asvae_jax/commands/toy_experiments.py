"""The paper's tables and figures of 2-D toys."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asvae_jax.commands.arguments import Once, count, seed
from asvae_jax.config import check_word
from asvae_jax.errors import ConfigError
from asvae_jax.experiments.report import OUT, writing_to
from asvae_jax.presets.toy import TABLE1_BETAS
from asvae_jax.settings import TOY_LIMITS
from asvae_jax.terminal import keep_compiled_programs

if TYPE_CHECKING:
    # At run time each command imports what it needs.
    from asvae_jax.experiments.toy_cells import Budget, Cell

_OTHER_TOYS = tuple(name for name in TOY_LIMITS if name != "8gaussians")


def add(tables, figures) -> None:
    """Adds them to the parsers of `table` and `figure`."""
    table = tables.add_parser("1", help=_table.__doc__, description=_table.__doc__)
    _add_cell_arguments(table)
    _add_betas(table)
    _add_toys(table)
    _add_stored(table)
    table.set_defaults(command=_table)
    ablations = tables.add_parser("ablations", help=_ablations.__doc__, description=_ablations.__doc__)
    _add_cell_arguments(ablations)
    _add_betas(ablations)
    _add_toys(ablations)
    _add_stored(ablations)
    ablations.set_defaults(command=_ablations)
    limits = tables.add_parser("limits", help=_limits.__doc__, description=_limits.__doc__)
    limits.add_argument("--seeds", type=seed, nargs="+", action=Once, default=[0, 1, 2], help="(default: 0 1 2)")
    limits.add_argument("--steps", type=count, default=20_000, help="training steps (default: 20,000)")
    limits.add_argument("--batch-size", type=count, default=128, help="(default: 128)")
    limits.add_argument("--out", type=Path, default=OUT, help=f"folder (default: {OUT})")
    limits.set_defaults(command=_limits)

    samples = figures.add_parser("3", help=_samples.__doc__, description=_samples.__doc__)
    _add_cell_arguments(samples)
    _add_betas(samples)
    _add_toys(samples)
    _add_stored(samples)
    samples.set_defaults(command=_samples)
    gradients = figures.add_parser("gradients", help=_gradients.__doc__, description=_gradients.__doc__)
    gradients.add_argument("--betas", choices=tuple(TABLE1_BETAS), default="c1", help="(default: c1)")
    gradients.add_argument("--seeds", type=seed, nargs="+", action=Once, default=[0, 1, 2], help="(default: 0 1 2)")
    gradients.add_argument("--steps", type=count, default=20_000, help="of a training (default: 20,000)")
    gradients.add_argument("--until", type=count, default=5_000, help="the last of them to be made (default: 5,000)")
    gradients.add_argument("--batch-size", type=count, default=128, help="(default: 128)")
    gradients.add_argument("--out", type=Path, default=OUT, help=f"folder (default: {OUT})")
    gradients.set_defaults(command=_gradients)


def _add_betas(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--betas", nargs="*", action=Once, choices=tuple(TABLE1_BETAS), default=list(TABLE1_BETAS),
        help="of 8 Gaussians (default: all)",
    )  # fmt: skip


def _add_toys(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--toys", nargs="*", action=Once, choices=_OTHER_TOYS, default=_OTHER_TOYS,
        help="beside 8 Gaussians (default: all)",
    )  # fmt: skip


def _add_stored(command: argparse.ArgumentParser) -> None:
    command.add_argument("--stored", action="store_true", help="train nothing: what finished runs say")


def _add_cell_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=seed, nargs="+", action=Once, default=[0], help="(default: 0)")
    command.add_argument(
        "--variants", nargs="+", action=Once, metavar="VARIANT", help="such as vae asintrovae,paper (default: all)"
    )
    command.add_argument("--steps", type=count, default=20_000, help="training steps (default: 20,000)")
    command.add_argument("--batch-size", type=count, default=128, help="(default: 128)")
    command.add_argument("--together", type=count, help="runs in one program (default: what pays on these devices)")
    command.add_argument("--out", type=Path, default=OUT, help=f"folder (default: {OUT})")


def _table(arguments: argparse.Namespace) -> None:
    """The 2-D toys of arXiv 2206.13903 and of arXiv 2012.13253 by all methods."""
    from asvae_jax.experiments import table1

    keep_compiled_programs()
    print(table1.make(
        _cells(arguments), _budget(arguments), command=_command("table 1", arguments), out=arguments.out,
        together=arguments.together, train=not arguments.stored,
    ))  # fmt: skip


def _ablations(arguments: argparse.Namespace) -> None:
    """What decides whether AS-IntroVAE works: one setting at a time."""
    from asvae_jax.experiments import ablations

    bases = _checked(arguments.variants, ablations.BASES)
    _check_toys(arguments)
    keep_compiled_programs()
    print(ablations.make(
        bases, arguments.betas, arguments.toys, arguments.seeds, _budget(arguments),
        command=_command("table ablations", arguments), out=arguments.out, together=arguments.together,
        train=not arguments.stored,
    ))  # fmt: skip


def _limits(arguments: argparse.Namespace) -> None:
    """How near to 8 Gaussians the networks get without a game."""
    from asvae_jax.experiments import limits

    keep_compiled_programs()
    print(limits.make(
        arguments.seeds, _budget(arguments), command=_command("table limits", arguments), out=arguments.out
    ))  # fmt: skip


def _samples(arguments: argparse.Namespace) -> None:
    """Samples of the 2-D toys by all methods, those of the first seed, and the course of training over all seeds."""
    from asvae_jax.experiments import toy_drawings

    keep_compiled_programs()
    _print(toy_drawings.draw(
        _cells(arguments), _budget(arguments), out=arguments.out, together=arguments.together,
        train=not arguments.stored,
    ))  # fmt: skip


def _gradients(arguments: argparse.Namespace) -> None:
    """What gradient the decoder gets through KL and through each kernel of the AS-Distance."""
    from asvae_jax.experiments import gradients

    keep_compiled_programs()
    _print(gradients.draw(
        arguments.betas, arguments.seeds, _budget(arguments), until=arguments.until,
        command=_command("figure gradients", arguments), out=arguments.out,
    ))  # fmt: skip


def _print(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)


def _cells(arguments: argparse.Namespace) -> "list[Cell]":
    from asvae_jax.experiments import table1

    variants = _checked(arguments.variants, table1.VARIANTS)
    _check_toys(arguments)
    return table1.table_cells(arguments.betas, arguments.toys, variants, arguments.seeds)


def _check_toys(arguments: argparse.Namespace) -> None:
    if not arguments.betas and not arguments.toys:
        raise ConfigError("Neither --betas nor --toys names anything; give one of them a name, or leave one out.")


def _checked(variants: Sequence[str] | None, known: Sequence[str]) -> Sequence[str]:
    for variant in variants or ():
        check_word("--variants", variant, known)
    return variants or known


def _budget(arguments: argparse.Namespace) -> "Budget":
    from asvae_jax.experiments.toy_cells import Budget

    return Budget(arguments.steps, arguments.batch_size)


def _command(name: str, arguments: argparse.Namespace) -> str:
    """What a reader types to get the same."""
    words = []
    for option in ("steps", "until", "batch-size", "seeds", "betas", "toys", "variants"):
        given = getattr(arguments, option.replace("-", "_"), None)
        if given is not None:
            values = [given] if isinstance(given, str | int) else given
            words.append(" ".join([f"--{option}", *map(str, values)]))
    if getattr(arguments, "stored", False):
        words.append("--stored")
    return writing_to(arguments.out, " ".join(["python -m asvae_jax", name, *words]))
