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
  python -m asvae_jax evaluate runs/mnist5k
  python -m asvae_jax benchmark --config=configs/mnist5k.py
  python -m asvae_jax benchmark-data
  python -m asvae_jax table 1 --steps 20000 --batch-size 128

RUN is a run's folder, its checkpoints folder, or one step within that. Training is `python -m asvae_jax.main`.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from asvae_jax.config import IMAGE_SETS, ConfigError, ImageData, check_word, resolve_data
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

    def add(
        name: str,
        function: Callable[[argparse.Namespace], None],
        default_out: str | None,
        reads_data: bool = True,
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.add_argument(
            "run", metavar="RUN", help="a run's folder, its checkpoints folder, or one step within that"
        )
        command.set_defaults(command=function, data_dir=None)
        if reads_data:
            command.add_argument("--data-dir", help="where its data lie now (default: where they were in training)")
        if default_out:
            command.add_argument(
                "--weights", choices=("ema", "raw"), default="ema", help="averaged or raw (default: ema)"
            )
            command.add_argument("--seed", type=int, default=0, help="of all random choices (default: 0)")
            command.add_argument("--out", type=Path, help=f"file to write (default: RUN/{default_out})")
            command.set_defaults(default_out=default_out)
        return command

    sample = add("sample", _sample, "samples.png", reads_data=False)
    sample.add_argument("--n", type=_count, default=64, help="how many (default: 64)")
    add("reconstruct", _reconstruct, "reconstructions.png").add_argument(
        "--n", type=_count, default=12, help="images (default: 12)"
    )
    interpolate = add("interpolate", _interpolate, "interpolation.png")
    interpolate.add_argument("--n", type=_count, default=6, help="pairs of images (default: 6)")
    interpolate.add_argument("--steps", type=_count, default=10, help="images from one end to the other (default: 10)")
    traverse = add("traverse", _traverse, "traversal.png")
    traverse.add_argument(
        "--dims", type=_count, default=10, help="code dimensions, the most active first (default: 10)"
    )
    traverse.add_argument("--steps", type=_count, default=9, help="images from -3 to +3 (default: 9)")
    encode = add("encode", _encode, "codes.npz")
    encode.add_argument(
        "--split", choices=("train", "test"), default="test", help="of the run's own data (default: test)"
    )
    add("evaluate", _evaluate, None)

    _add_data_commands(commands)

    table = commands.add_parser("table", help=_table.__doc__, description=_table.__doc__)
    table.add_argument("number", type=int, choices=(1,), help="1: the 2-D toy of arXiv 2206.13903")
    table.add_argument("--steps", type=_count, default=20_000, help="training steps (default: 20,000)")
    table.add_argument("--batch-size", type=_count, default=128, help="(default: 128)")
    table.add_argument("--seed", type=int, default=0, help="(default: 0)")
    table.add_argument("--combinations", nargs="+", choices=("c1", "c2", "c3"), default=["c1"], help="(default: c1)")
    table.add_argument("--out", type=Path, default=Path("docs/results"), help="folder (default: docs/results)")
    table.add_argument(
        "--workdir", type=Path, default=Path("runs/table1"), help="folder of its runs (default: runs/table1)"
    )
    table.set_defaults(command=_table)
    return parser


def _add_data_commands(commands) -> None:
    """`prepare`, `inspect` and `benchmark-data`."""
    prepare = commands.add_parser("prepare", help=_prepare.__doc__, description=_prepare.__doc__)
    prepare.add_argument(
        "--manual-dir", type=Path, help="files downloaded by hand, or your images (default: DATA_DIR/downloads/manual)"
    )
    prepare.add_argument(
        "--unreadable",
        choices=("skip", "refuse"),
        default="skip",
        help="image files that cannot be read: name and pass over, or stop (default: skip)",
    )
    prepare.set_defaults(command=_prepare)
    inspect = commands.add_parser("inspect", help=_inspect.__doc__, description=_inspect.__doc__)
    inspect.add_argument("--batch-size", type=_count, default=64, help="(default: 64)")
    inspect.add_argument("--read-threads", type=_count, help="(default: the config's)")
    inspect.add_argument("--out", type=Path, help="picture to write (default: inspect-NAME.png)")
    inspect.set_defaults(command=_inspect)
    for command in (prepare, inspect):
        command.add_argument("name", metavar="NAME", help=", ".join(IMAGE_SETS))
        command.add_argument("--data-dir", help="folder or bucket (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)")
        command.add_argument("--shape", type=_shape, help="of image_folder: 128x128x3 (height, width, 1 or 3 channels)")
        command.add_argument("--label", help="of image_folder: tells several folders apart")
        command.add_argument("--crop", help="of photographs: none, square or centre148 (default: the config's)")
        command.add_argument("--resize", help="of photographs: box, bilinear, bicubic or lanczos (likewise)")
        command.add_argument("--partition", help="of CelebA: official or all (likewise)")

    benchmark = commands.add_parser("benchmark-data", help=_benchmark_data.__doc__, description=_benchmark_data.__doc__)
    benchmark.add_argument("--source", type=Path, help="folder of JPEG files (default: made from real photographs)")
    benchmark.add_argument("--shape", type=_shape, default=(128, 128, 3), help="(default: 128x128x3)")
    benchmark.add_argument("--images", type=_count, default=4_000, help="to make, without --source (default: 4,000)")
    benchmark.add_argument("--batch-size", type=_count, default=32, help="(default: 32)")
    benchmark.add_argument("--threads", type=_count, nargs="+", default=[1, 2], help="(default: 1 2)")
    benchmark.add_argument("--seconds", type=_count, default=8, help="of each measurement (default: 8)")
    benchmark.add_argument("--out", type=Path, help="JSON file to write")
    benchmark.set_defaults(command=_benchmark_data)


def _prepare(arguments: argparse.Namespace) -> None:
    """Make an image set ready for training, from the files it is published as: downloaded, or placed by hand."""
    from asvae_jax.data.inspect import summary
    from asvae_jax.data.prepare import prepare

    data = _image_data(arguments)
    prepared = prepare(
        data,
        manual_dir=arguments.manual_dir and arguments.manual_dir.expanduser().absolute(),
        refuse_unreadable=arguments.unreadable == "refuse",
    )
    print(summary(data.name, prepared))


def _inspect(arguments: argparse.Namespace) -> None:
    """Show a prepared set as the trainer will see it: sizes, range, a sheet of images, images/s of the pipeline."""
    from asvae_jax.data.inspect import inspect

    out = arguments.out or Path(f"inspect-{arguments.name}.png")
    text, picture = inspect(_image_data(arguments))
    print(text)
    picture.save(out)
    print(f"wrote {out}")


def _benchmark_data(arguments: argparse.Namespace) -> None:
    """Measure the pipeline against decoding JPEG files and, where TensorFlow is installed, against tf.data."""
    from asvae_jax.data.benchmark import benchmark, table

    result = benchmark(
        source=arguments.source,
        shape=arguments.shape,
        images=arguments.images,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
        seconds=arguments.seconds,
    )
    print(table(result))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
        print(f"wrote {arguments.out}")


def _image_data(arguments: argparse.Namespace) -> ImageData:
    """The usual data section of a set with what the command line changes in it."""
    from asvae_jax.presets import image_data

    check_word("NAME", arguments.name, IMAGE_SETS)
    settings = ("data_dir", "shape", "label", "crop", "resize", "partition", "batch_size", "read_threads")
    changes = {name: getattr(arguments, name, None) for name in settings}
    given = {name: value for name, value in changes.items() if value is not None}
    return resolve_data({**image_data(arguments.name, batch_size=1), **given})


def _sample(arguments: argparse.Namespace) -> None:
    """Draw images (or toy points) from the prior."""
    import jax

    from asvae_jax.run import sample_images

    run = _load(arguments)
    images = sample_images(run, jax.random.key(arguments.seed), arguments.n, weights=arguments.weights)
    _write_images(arguments, run, images, columns=math.ceil(math.sqrt(arguments.n)))


def _reconstruct(arguments: argparse.Namespace) -> None:
    """Show test images above their reconstructions."""
    from asvae_jax.run import reconstruct

    run = _load(arguments)
    images = _chosen_examples(run, arguments.n, arguments.seed)
    decoded = reconstruct(run, images, weights=arguments.weights)
    _write_images(arguments, run, np.concatenate([images, decoded]), columns=len(images))


def _interpolate(arguments: argparse.Namespace) -> None:
    """Walk between the mean codes of pairs of test images, one pair a row."""
    from asvae_jax.run import decode, encode

    run = _load(arguments)
    images = _chosen_examples(run, 2 * arguments.n, arguments.seed)
    first, last = np.split(encode(run, images, weights=arguments.weights).mean, 2)
    way = np.linspace(0, 1, arguments.steps)[None, :, None]
    z = (1 - way) * first[:, None] + way * last[:, None]
    walk = decode(run, z.reshape(-1, z.shape[-1]), weights=arguments.weights, posterior=True)
    _write_images(arguments, run, walk, columns=arguments.steps)


def _traverse(arguments: argparse.Namespace) -> None:
    """Move one code dimension at a time from -3 to +3 around a test image, the most active dimension first."""
    from asvae_jax.run import decode, encode

    run = _load(arguments)
    examples = _chosen_examples(run, 100, arguments.seed, or_fewer=True)
    means = encode(run, examples, weights=arguments.weights).mean
    dims = np.argsort(-means.var(axis=0))[: arguments.dims]
    z = np.broadcast_to(means[0], (len(dims), arguments.steps, means.shape[1])).copy()
    for row, dim in enumerate(dims):
        z[row, :, dim] = np.linspace(-3, 3, arguments.steps)
    walk = decode(run, z.reshape(-1, z.shape[-1]), weights=arguments.weights, posterior=True)
    _write_images(arguments, run, walk, columns=arguments.steps)


def _encode(arguments: argparse.Namespace) -> None:
    """Write the codes of a split as npz: mean and logvar, [N, Z] each."""
    from asvae_jax.data.images import padded_batches
    from asvae_jax.evaluation import Examples
    from asvae_jax.run import encode

    run = _load(arguments)
    path, examples = _out(arguments, run), Examples(run.config, arguments.split)
    means, logvars = [], []
    for indices, mask in padded_batches(len(examples), run.config.chunk_size):
        codes = encode(run, examples.rows(indices), weights=arguments.weights)
        means.append(codes.mean[mask])
        logvars.append(codes.logvar[mask])
    mean, logvar = np.concatenate(means), np.concatenate(logvars)
    with path.open("wb") as file:
        np.savez(file, mean=mean, logvar=logvar)
    print(f"wrote {path}: mean and logvar {mean.shape}")


def _evaluate(arguments: argparse.Namespace) -> None:
    """Measure a run on its test split and keep the figures as JSON."""
    from asvae_jax.evaluation import table, write_evaluation

    path, result = write_evaluation(_load(arguments))
    print(table(result))
    print(f"wrote {path}")


def _table(arguments: argparse.Namespace) -> None:
    """Train what is missing of a table of the paper, and write it with the paper's figures beside ours."""
    from asvae_jax.experiments import table1

    settings = table1.Settings(arguments.steps, arguments.batch_size, arguments.seed, tuple(arguments.combinations))
    print(table1.make(settings, workdir=arguments.workdir, out=arguments.out))


def _load(arguments: argparse.Namespace):
    """The run, with its data where they lie now."""
    from asvae_jax.run import load_run

    run = load_run(arguments.run)
    if arguments.data_dir is None or run.config.is_toy:
        return run
    data = dataclasses.replace(run.config.data, data_dir=arguments.data_dir)
    return run._replace(config=dataclasses.replace(run.config, data=data))


def _chosen_examples(run, n: int, seed: int, or_fewer: bool = False) -> np.ndarray:
    """`n` test images (or toy points) chosen by seed, or all if there are fewer."""
    from asvae_jax.evaluation import Examples

    examples = Examples(run.config)
    if n > len(examples) and not or_fewer:
        raise ConfigError(f"{run.config.data.name} has {len(examples)} test examples, {n} were asked for; lower --n.")
    return examples.rows(np.random.default_rng(seed).permutation(len(examples))[:n])


def _write_images(arguments: argparse.Namespace, run, images: np.ndarray, columns: int) -> None:
    """Images as a grid, toy points as a plot, either as npz where the file name says so."""
    from asvae_jax.config import TOY_LIMITS
    from asvae_jax.figures import image_grid, points_sheet

    path = _out(arguments, run)
    if path.suffix == ".npz":
        np.savez(path, images=images)
    elif run.config.is_toy:
        name = run.config.data.name
        points_sheet({path.stem: images}, TOY_LIMITS[name], f"{name}, {run.config.method.name}").save(path)
    else:
        image_grid(images, columns).save(path)
    print(f"wrote {path}: {len(images)} of shape {images.shape[1:]}")


def _out(arguments: argparse.Namespace, run) -> Path:
    path = arguments.out or run.folder / arguments.default_out
    if path.suffix not in (".png", ".npz"):
        raise ConfigError(f"{path.name} must end in .png or .npz.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; make it first, or give another --out.")
    return path


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must look like 128x128x3, got {text}") from None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _train_with(argv: list[str]) -> int:
    os.execv(sys.executable, [sys.executable, "-m", "asvae_jax.main", *argv])


if __name__ == "__main__":
    sys.exit(main())
