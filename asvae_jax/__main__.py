"""Commands that prepare data, start from a trained run, or measure.

  python -m asvae_jax prepare mnist
  python -m asvae_jax prepare celeba128 --manual-dir ~/Downloads
  python -m asvae_jax prepare image_folder --manual-dir ~/pictures --shape 64x64x3
  python -m asvae_jax inspect celeba128
  python -m asvae_jax sample runs/mnist5k --n 64
  python -m asvae_jax reconstruct runs/mnist5k
  python -m asvae_jax interpolate runs/mnist5k
  python -m asvae_jax traverse runs/mnist5k --dims 8
  python -m asvae_jax encode runs/mnist5k --split train --out codes.npz
  python -m asvae_jax rewind runs/mnist5k 3000
  python -m asvae_jax evaluate runs/mnist5k
  python -m asvae_jax evaluate runs/cifar10 --step best --metrics fid kid --features-file inception.safetensors
  python -m asvae_jax compare runs/as-* --against runs/s-*
  python -m asvae_jax foreign runs/mnist5k --against faces25
  python -m asvae_jax convert-inception pt_inception-2015-12-05-6726825d.pth
  python -m asvae_jax fid-stats cifar10 --features-file inception.safetensors
  python -m asvae_jax train-digit-features
  python -m asvae_jax benchmark --config=configs/mnist5k.py
  python -m asvae_jax benchmark-data
  python -m asvae_jax benchmark-features
  python -m asvae_jax table 1 --seeds 0 1 2
  python -m asvae_jax table ablations --seeds 0
  python -m asvae_jax table 2 --sets digits
  python -m asvae_jax figure 3 --seeds 0 1 2
  python -m asvae_jax figure gradients

RUN is a run's folder, its checkpoints folder, or one step within that. Training is `python -m asvae_jax.main`.
"""

import argparse
import os
import signal
import sys

from asvae_jax.commands import data, evaluation, runs, tables
from asvae_jax.terminal import exit_code_of, log_to_terminal


def main(argv: list[str] | None = None) -> int:
    """Parses the command line, runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["benchmark"]:
        # It takes what the trainer takes, so the trainer's own flags parse it.
        return _train_with(["--mode=benchmark", *argv[1:]])
    arguments = _parser().parse_args(argv)
    log_to_terminal()
    return exit_code_of(lambda: arguments.command(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m asvae_jax", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=""
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, prog="python -m asvae_jax")
    for group in (runs, evaluation, data, tables):
        group.add(commands)
    return parser


def _train_with(argv: list[str]) -> int:
    os.execv(sys.executable, [sys.executable, "-m", "asvae_jax.main", *argv])


if __name__ == "__main__":
    # As Ctrl-C does, so that a preempted job is told to run again; what heeds signals itself puts its own in the place.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
