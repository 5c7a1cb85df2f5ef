"""Commands that draw from a trained run, encode by it, or take it back to an earlier step."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asvae_jax.commands.arguments import add_run_arguments, checked_out, count, load, seed
from asvae_jax.errors import ConfigError

if TYPE_CHECKING:
    # At run time each command imports what it needs.
    from asvae_jax.run import Run


def add(commands) -> None:
    """Adds them to the parser."""

    def add_command(
        name: str, function: Callable[[argparse.Namespace], None], default_out: str, reads_data: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        add_run_arguments(command, reads_data=reads_data)
        command.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw (default: ema)")
        command.add_argument("--seed", type=seed, default=0, help="of all random choices (default: 0)")
        command.add_argument("--out", type=Path, help=f"file to write (default: RUN/{default_out})")
        command.set_defaults(command=function, default_out=default_out)
        return command

    sample = add_command("sample", _sample, "samples.png", reads_data=False)
    sample.add_argument("--n", type=count, default=64, help="how many (default: 64)")
    add_command("reconstruct", _reconstruct, "reconstructions.png").add_argument(
        "--n", type=count, default=12, help="images (default: 12)"
    )
    interpolate = add_command("interpolate", _interpolate, "interpolation.png")
    interpolate.add_argument("--n", type=count, default=6, help="pairs of images (default: 6)")
    interpolate.add_argument("--steps", type=count, default=10, help="images from one end to the other (default: 10)")
    traverse = add_command("traverse", _traverse, "traversal.png")
    traverse.add_argument("--dims", type=count, default=10, help="code dimensions, the most active first (default: 10)")
    traverse.add_argument("--steps", type=count, default=9, help="images from -3 to +3 (default: 9)")
    encode = add_command("encode", _encode, "codes.npz")
    encode.add_argument(
        "--split", choices=("train", "test"), default="test", help="of the run's own data (default: test)"
    )

    rewind = commands.add_parser("rewind", help=_rewind.__doc__, description=_rewind.__doc__)
    rewind.add_argument("run", metavar="RUN", type=Path, help="a run's folder")
    rewind.add_argument("step", metavar="STEP", type=count, help="the checkpoint to go on from")
    rewind.set_defaults(command=_rewind)


def _rewind(arguments: argparse.Namespace) -> None:
    """Set aside what a run has behind an earlier checkpoint: training goes on from there."""
    from asvae_jax.rewind import rewind

    print(f"set aside in {rewind(arguments.run.absolute(), arguments.step)}")


def _sample(arguments: argparse.Namespace) -> None:
    """Draw images (or toy points) from the prior."""
    import jax

    from asvae_jax.run import sample_images

    run = load(arguments)
    images = sample_images(run, jax.random.key(arguments.seed), arguments.n, weights=arguments.weights)
    _write_images(arguments, run, {"images": images}, columns=math.ceil(math.sqrt(arguments.n)))


def _reconstruct(arguments: argparse.Namespace) -> None:
    """Show test images above their reconstructions."""
    from asvae_jax.run import reconstruct

    run = load(arguments)
    images = _chosen_examples(run, arguments.n, arguments.seed)
    decoded = reconstruct(run, images, weights=arguments.weights)
    _write_images(arguments, run, {"images": images, "reconstructions": decoded}, columns=len(images))


def _interpolate(arguments: argparse.Namespace) -> None:
    """Walk between the mean codes of pairs of test images, one pair a row."""
    from asvae_jax.run import decode, encode

    run = load(arguments)
    images = _chosen_examples(run, 2 * arguments.n, arguments.seed)
    first, last = np.split(encode(run, images, weights=arguments.weights).mean, 2)
    way = np.linspace(0, 1, arguments.steps)[None, :, None]
    z = (1 - way) * first[:, None] + way * last[:, None]
    walk = decode(run, z.reshape(-1, z.shape[-1]), weights=arguments.weights, posterior=True)
    _write_images(arguments, run, {"images": walk}, columns=arguments.steps)


def _traverse(arguments: argparse.Namespace) -> None:
    """Move one code dimension at a time from -3 to +3 around a test image, the most active dimension first."""
    from asvae_jax.run import decode, encode

    run = load(arguments)
    examples = _chosen_examples(run, 100, arguments.seed, or_fewer=True)
    means = encode(run, examples, weights=arguments.weights).mean
    dims = np.argsort(-means.var(axis=0))[: arguments.dims]
    z = np.broadcast_to(means[0], (len(dims), arguments.steps, means.shape[1])).copy()
    for row, dim in enumerate(dims):
        z[row, :, dim] = np.linspace(-3, 3, arguments.steps)
    walk = decode(run, z.reshape(-1, z.shape[-1]), weights=arguments.weights, posterior=True)
    _write_images(arguments, run, {"images": walk}, columns=arguments.steps)


def _encode(arguments: argparse.Namespace) -> None:
    """Write the codes of a split as npz: mean and logvar, [N, Z] each."""
    from asvae_jax.data.images import padded_batches
    from asvae_jax.examples import Examples
    from asvae_jax.run import encode

    run = load(arguments)
    if run.config.is_toy and arguments.split == "train":
        raise ConfigError(f"{run.config.data.name} is drawn and has no splits; leave out --split.")
    path, examples = _out(arguments, run, ".npz"), Examples(run.config, arguments.split)
    means, logvars = [], []
    for indices, mask in padded_batches(len(examples), run.config.chunk_size):
        codes = encode(run, examples.rows(indices), weights=arguments.weights)
        means.append(codes.mean[mask])
        logvars.append(codes.logvar[mask])
    mean, logvar = np.concatenate(means), np.concatenate(logvars)
    with path.open("wb") as file:
        np.savez(file, mean=mean, logvar=logvar)
    print(f"wrote {path}: mean and logvar {mean.shape}")


def _chosen_examples(run: "Run", n: int, seed: int, or_fewer: bool = False) -> np.ndarray:
    """`n` test images (or toy points) chosen by seed, or all if there are fewer."""
    from asvae_jax.examples import Examples

    examples = Examples(run.config)
    if n > len(examples) and not or_fewer:
        raise ConfigError(f"{run.config.data.name} has {len(examples)} test examples, {n} were asked for; lower --n.")
    return examples.rows(np.random.default_rng(seed).permutation(len(examples))[:n])


def _write_images(arguments: argparse.Namespace, run: "Run", named: dict[str, np.ndarray], columns: int) -> None:
    """Images as one grid, toy points as a plot for each name, either as npz where the file name says so."""
    from asvae_jax.figures import image_grid, points_sheet
    from asvae_jax.settings import TOY_LIMITS

    path = _out(arguments, run, ".png", ".npz")
    if path.suffix == ".npz":
        np.savez(path, **named)  # type: ignore[arg-type]
    elif run.config.is_toy:
        toy = run.config.data.name
        panels = {"points" if name == "images" else name: points for name, points in named.items()}
        points_sheet(panels, TOY_LIMITS[toy], f"{toy}, {run.config.method.name}").save(path)
    else:
        image_grid(np.concatenate(list(named.values())), columns).save(path)
    print(f"wrote {path}: {sum(map(len, named.values()))} of shape {named['images'].shape[1:]}")


def _out(arguments: argparse.Namespace, run: "Run", *suffixes: str) -> Path:
    return checked_out(arguments.out or run.folder / arguments.default_out, *suffixes)
