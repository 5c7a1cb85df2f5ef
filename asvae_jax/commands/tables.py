"""Commands that remake the paper's tables and figures."""

from asvae_jax.commands import image_experiments, toy_experiments


def add(commands) -> None:
    """Adds them to the parser."""
    tables = commands.add_parser("table", help=_TABLE, description=_TABLE).add_subparsers(
        metavar="TABLE", required=True
    )
    figures = commands.add_parser("figure", help=_FIGURE, description=_FIGURE).add_subparsers(
        metavar="FIGURE", required=True
    )
    toy_experiments.add(tables, figures)
    image_experiments.add(tables, figures)


_TABLE = "Train what is missing of a table of the paper, and write it with the paper's figures beside ours."
_FIGURE = "Train what is missing of a figure of the paper, and draw it."
