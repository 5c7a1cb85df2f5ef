"""The paper's tables and figures of images."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from asvae_jax.commands.arguments import Once, count, seed
from asvae_jax.experiments.report import CONFIGS, OUT
from asvae_jax.settings import IMAGE_SETS
from asvae_jax.terminal import keep_compiled_programs

if TYPE_CHECKING:
    # At run time each command imports what it needs.
    from asvae_jax.experiments.image_figures import Figure
    from asvae_jax.experiments.image_requests import Request
    from asvae_jax.experiments.image_tables import Table

_TABLES = {
    2: "Generated images: FID, KID, precision, recall, coverage of all methods (Table 2).",
    3: "Reconstructed images: PSNR, SSIM and MSE of all methods with an encoder (Table 3).",
}
_FIGURES = {
    4: "Generated images of all methods, from the same latents.",
    5: "Test images and what each method makes of them.",
    6: "The way between two test images in each method's codes.",
    7: "The course of training: errors, divergences and measures of several seeds.",
}


def add(tables, figures) -> None:
    """Adds them to the parsers of `table` and `figure`."""
    for commands, function, found in ((tables, _table, _TABLES), (figures, _figure, _FIGURES)):
        for number, description in found.items():
            command = commands.add_parser(str(number), help=description, description=description)
            _add_arguments(command)
            command.set_defaults(command=function, number=number)


def _add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sets", nargs="+", action=Once, choices=[*IMAGE_SETS], metavar="SET",
        help="image sets (default: digits, mnist5k, faces25, photos32 and the paper's own, as far as they are "
        "prepared; with --runs, theirs)",
    )  # fmt: skip
    command.add_argument(
        "--methods", nargs="+", action=Once, metavar="WORDS",
        help="words of a config, as in asintrovae,released (default: all)",
    )  # fmt: skip
    command.add_argument(
        "--seeds", type=seed, nargs="+", action=Once, metavar="SEED", help="(default: 0 1 2; where one is shown, 0)"
    )
    command.add_argument("--steps", type=count, help="of training (default: the config's)")
    command.add_argument(
        "--runs", type=Path, nargs="+", metavar="RUN", default=[],
        help="finished runs to take instead of training; without --sets nothing else is trained",
    )  # fmt: skip
    command.add_argument(
        "--workdir", type=Path, default=Path("runs/images"), help="folder of the runs (default: runs/images)"
    )
    command.add_argument(
        "--configs", type=Path, default=CONFIGS, help=f"folder of the config files (default: {CONFIGS})"
    )
    command.add_argument("--out", type=Path, default=OUT, help=f"folder to write to (default: {OUT})")


def _table(arguments: argparse.Namespace) -> None:
    from asvae_jax.experiments import image_tables
    from asvae_jax.experiments.image_requests import SEEDS

    keep_compiled_programs()
    table = image_tables.TABLES[arguments.number]
    request = _request(arguments, table, SEEDS)
    print(image_tables.make(arguments.number, request, arguments.out), end="")
    print(f"wrote table{arguments.number}.md, .csv and .json in {arguments.out}")


def _figure(arguments: argparse.Namespace) -> None:
    from asvae_jax.experiments import image_figures

    keep_compiled_programs()
    figure = image_figures.FIGURES[arguments.number]
    request = _request(arguments, figure, figure.seeds)
    for path in image_figures.make(arguments.number, request, arguments.out):
        print(f"wrote {path}")


def _request(arguments: argparse.Namespace, made: "Table | Figure", seeds: tuple[int, ...]) -> "Request":
    from asvae_jax.experiments.image_requests import make_request

    return make_request(
        sets=arguments.sets,
        methods=arguments.methods,
        seeds=arguments.seeds,
        steps=arguments.steps,
        configs=arguments.configs,
        workdir=arguments.workdir,
        runs=arguments.runs,
        default_sets=made.sets,
        default_methods=made.methods,
        default_seeds=seeds,
        needs_encoder=made.needs_encoder,
    )
