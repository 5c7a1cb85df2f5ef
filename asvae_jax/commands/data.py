"""Commands that start from data: prepare, inspect, benchmark-data."""

import argparse
import json
from pathlib import Path

from asvae_jax.commands.arguments import add_image_set_arguments, checked_out, count, image_data_of, shape


def add(commands) -> None:
    """Adds them to the parser."""
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
    inspect.add_argument("--batch-size", type=count, default=64, help="(default: 64)")
    inspect.add_argument("--read-threads", type=count, help="(default: the config's)")
    inspect.add_argument("--out", type=Path, help="picture to write (default: inspect-NAME.png)")
    inspect.set_defaults(command=_inspect)
    for command in (prepare, inspect):
        add_image_set_arguments(command)

    benchmark = commands.add_parser("benchmark-data", help=_benchmark_data.__doc__, description=_benchmark_data.__doc__)
    benchmark.add_argument("--source", type=Path, help="folder of JPEG files (default: made from real photographs)")
    benchmark.add_argument("--shape", type=shape, default=(128, 128, 3), help="(default: 128x128x3)")
    benchmark.add_argument("--images", type=count, default=4_000, help="to make, without --source (default: 4,000)")
    benchmark.add_argument("--batch-size", type=count, default=32, help="(default: 32)")
    benchmark.add_argument("--threads", type=count, nargs="+", default=[1, 2], help="(default: 1 2)")
    benchmark.add_argument("--seconds", type=count, default=8, help="of each measurement (default: 8)")
    benchmark.add_argument("--out", type=Path, help="JSON file to write")
    benchmark.set_defaults(command=_benchmark_data)


def _prepare(arguments: argparse.Namespace) -> None:
    """Make an image set ready for training, from the files it is published as: downloaded, or placed by hand."""
    from asvae_jax.data.inspect import summary
    from asvae_jax.data.prepare import prepare

    data = image_data_of(arguments)
    prepared = prepare(
        data,
        manual_dir=arguments.manual_dir and arguments.manual_dir.expanduser().absolute(),
        refuse_unreadable=arguments.unreadable == "refuse",
    )
    print(summary(data.name, prepared))


def _inspect(arguments: argparse.Namespace) -> None:
    """Show a prepared set as the trainer will see it: sizes, range, a sheet of images, images/s of the pipeline."""
    from asvae_jax.data.inspect import inspect

    data = image_data_of(arguments)
    out = checked_out(arguments.out or Path(f"inspect-{arguments.name}.png"), ".png")
    text, picture = inspect(data)
    print(text)
    picture.save(out)
    print(f"wrote {out}")


def _benchmark_data(arguments: argparse.Namespace) -> None:
    """Measure the pipeline against decoding JPEG files and, where TensorFlow is installed, against tf.data."""
    from asvae_jax.data.benchmark import benchmark, table

    out = arguments.out and checked_out(arguments.out, ".json")
    result = benchmark(
        source=arguments.source,
        shape=arguments.shape,
        images=arguments.images,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
        seconds=arguments.seconds,
    )
    print(table(result))
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
        print(f"wrote {out}")
