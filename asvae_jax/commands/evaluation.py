"""Commands that measure runs, and prepare what measuring needs."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from asvae_jax.commands.arguments import (
    add_image_set_arguments,
    add_run_arguments,
    checked_out,
    count,
    image_data_of,
    load,
    shape,
)
from asvae_jax.config import resolve
from asvae_jax.errors import ConfigError
from asvae_jax.presets.image import INCEPTION_FILE, usual_file
from asvae_jax.settings import IMAGE_MEASURES, Config, ImageEvaluation

# The options of `evaluate` and the settings that they stand in for.
_SETTINGS = {
    "metrics": "measures",
    "samples": "samples",
    "features": "features",
    "features_file": "features_file",
    "reference": "reference_file",
    "batch_size": "batch_size",
}


def add(commands) -> None:
    """Adds them to the parser."""
    evaluate = commands.add_parser("evaluate", help=_evaluate.__doc__, description=_evaluate.__doc__)
    add_run_arguments(evaluate)
    _add_features(evaluate, default=None)
    evaluate.add_argument("--weights", choices=("ema", "raw"), help="averaged or raw (default: both)")
    evaluate.add_argument("--metrics", nargs="+", metavar="METRIC", help=", ".join(IMAGE_MEASURES))
    evaluate.add_argument("--samples", type=count, help="images to generate (default: the config's)")
    evaluate.add_argument("--reference", help="statistics of the training split, by fid-stats (default: measure it)")
    evaluate.add_argument("--out", type=Path, help="JSON file (default: RUN/evaluation.json, -best or -STEP added)")
    _add_distributed(evaluate)
    evaluate.set_defaults(command=_evaluate)

    compare = commands.add_parser("compare", help=_compare.__doc__, description=_compare.__doc__)
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of evaluated runs")
    compare.add_argument("--against", nargs="+", type=Path, metavar="RUN", help="does RUN differ from these?")
    compare.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw (default: ema)")
    compare.add_argument("--file", default="evaluation.json", help="of each run (default: evaluation.json)")
    compare.add_argument("--out", type=Path, help="file to write: .md, or .json for every seed's figures")
    compare.set_defaults(command=_compare)

    foreign = commands.add_parser("foreign", help=_foreign.__doc__, description=_foreign.__doc__)
    add_run_arguments(foreign)
    foreign.add_argument("--against", nargs="+", metavar="NAME", required=True, help="other image sets")
    foreign.add_argument("--split", choices=("train", "test"), default="test", help="of all sets (default: test)")
    foreign.add_argument("--weights", choices=("ema", "raw"), default="ema", help="averaged or raw (default: ema)")
    foreign.add_argument("--out", type=Path, help="npz file of all scores (default: RUN/scores.npz)")
    foreign.set_defaults(command=_foreign)

    statistics = commands.add_parser("fid-stats", help=_fid_stats.__doc__, description=_fid_stats.__doc__)
    add_image_set_arguments(statistics)
    _add_features(statistics, default="inception")
    statistics.add_argument("--split", choices=("train", "test"), default="train", help="(default: train)")
    statistics.add_argument("--out", type=Path, help="npz file to write (default: fid-stats-NAME.npz)")
    _add_distributed(statistics)
    statistics.set_defaults(command=_fid_stats)

    convert = commands.add_parser("convert-inception", help=_convert.__doc__, description=_convert.__doc__)
    convert.add_argument("source", type=Path, metavar="FILE", help="pt_inception-2015-12-05-6726825d.pth")
    convert.add_argument("--out", type=Path, default=Path("inception.safetensors"), help="(default: %(default)s)")
    convert.set_defaults(command=_convert)

    benchmark = commands.add_parser("benchmark-features", help=_benchmark.__doc__, description=_benchmark.__doc__)
    _add_features(benchmark, default="inception", without_file="random weights, as fast as any")
    benchmark.add_argument("--shape", type=shape, default=(32, 32, 3), help="of the images (default: 32x32x3)")
    benchmark.add_argument("--images", type=count, default=256, help="and four times as many (default: 256)")
    benchmark.add_argument("--out", type=Path, help="JSON file to write")
    benchmark.set_defaults(command=_benchmark)

    digits = commands.add_parser("train-digit-features", help=_digits.__doc__, description=_digits.__doc__)
    digits.add_argument("--out", type=Path, default=Path("digits.safetensors"), help="(default: %(default)s)")
    digits.set_defaults(command=_digits)


def _add_features(command: argparse.ArgumentParser, default: str | None, without_file: str = INCEPTION_FILE) -> None:
    usual = default or "the config's"
    command.add_argument(
        "--features", default=default,
        help=f"inception, inception_tf, inception_clean, inception_batchstat or digits (default: {usual})",
    )  # fmt: skip
    command.add_argument("--features-file", help=f"Inception's converted weights (default: {without_file})")
    command.add_argument("--batch-size", type=count, help="images at a time (default: the config's, or 64)")


def _add_distributed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--distributed", action="store_true", help="join the other processes of the cluster job")
    command.add_argument("--coordinator", help="host:port of its first process, where JAX knows no such cluster")
    command.add_argument("--processes", type=count, help="how many it has, with --coordinator")
    command.add_argument("--process-id", type=int, help="which of them this is, from 0, with --coordinator")


def _evaluate(arguments: argparse.Namespace) -> None:
    """Measure a run, and keep the figures with their intervals and protocol as JSON."""
    from asvae_jax.distributed import StopRequest, is_main_process, setup
    from asvae_jax.evaluation import EVALUATION_FILE, table, write_evaluation
    from asvae_jax.run import BEST, CHECKPOINTS, WEIGHTS

    setup(arguments.distributed, arguments.coordinator, arguments.processes, arguments.process_id)
    run = load(arguments)
    settings = _settings(run.config, arguments)
    stem, suffix = EVALUATION_FILE.split(".")
    # The latest step's figures are the run's; any other's say whose they are.
    is_step = arguments.step == "latest" and Path(arguments.run).absolute().parent == run.folder / CHECKPOINTS
    which = run.step if is_step else arguments.step
    marked = EVALUATION_FILE if which == "latest" else f"{stem}-{which}.{suffix}"
    path = checked_out(arguments.out or run.folder / marked, ".json")
    weights = (arguments.weights,) if arguments.weights else WEIGHTS
    with StopRequest() as stop:
        path, result = write_evaluation(
            run, settings, weights=weights, path=path, poll=stop.poll, is_best=arguments.step == BEST
        )
    if is_main_process():
        print(table(result))
        print(f"wrote {path}")


def _settings(config: Config, arguments: argparse.Namespace) -> ImageEvaluation | None:
    """The run's evaluation section with what the command line changes in it; None for a toy."""
    given = [option for option in _SETTINGS if getattr(arguments, option) is not None]
    if not isinstance(config.evaluation, ImageEvaluation):
        if given:
            options = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise ConfigError(f"A toy has its own measures; leave out {options}.")
        return None
    changes = {_SETTINGS[option]: getattr(arguments, option) for option in given}
    # The file is this machine's, whatever it was in training.
    usual = usual_file(arguments.features or config.evaluation.features)
    if "features_file" not in changes and (usual or arguments.features):
        changes["features_file"] = usual
    # What was judged in training is no question any more.
    evaluation: dict[str, Any] = {**dataclasses.asdict(config.evaluation), **changes, "best": "none"}
    settings = resolve({**config.to_dict(), "evaluation": evaluation}).evaluation
    assert isinstance(settings, ImageEvaluation)
    return settings


def _compare(arguments: argparse.Namespace) -> None:
    """Put evaluated runs side by side, seeds averaged, or say whether two groups of runs differ by more than chance."""
    from asvae_jax.comparison import difference_table, read_groups, read_sides, summary, values

    out = arguments.out and checked_out(arguments.out, ".md", ".json")
    if arguments.against is None:
        groups = read_groups(arguments.runs, arguments.weights, arguments.file)
        text = summary(groups, arguments.weights)
    else:
        groups = read_sides(arguments.against, arguments.runs, arguments.weights, arguments.file)
        text = difference_table(groups[0], groups[1], arguments.weights)
    print(text, end="")
    if out:
        as_json = out.suffix == ".json"
        out.write_text(json.dumps(values(groups, arguments.weights), indent=2) + "\n" if as_json else text)
        print(f"wrote {out}")


def _foreign(arguments: argparse.Namespace) -> None:
    """Score each image of a run's own set and of others by ELBO, KL and reconstruction, and say how well that tells
    them apart (AUROC)."""
    from asvae_jax.foreign import score_sets, separation, table, write_scores

    run = load(arguments)
    path = checked_out(arguments.out or run.folder / "scores.npz", ".npz")
    scores = score_sets(
        run, arguments.against, split=arguments.split, weights=arguments.weights, data_dir=arguments.data_dir
    )
    found = separation(scores)
    print(table(scores, found))
    write_scores(path, scores)
    protocol = {"step": run.step, "split": arguments.split, "weights": arguments.weights}
    # Not the name with another ending: in a run's folder that may be a file of its own.
    table_path = path.with_name(f"{path.stem}-auroc.json")
    table_path.write_text(json.dumps({**protocol, "auroc": found}, indent=2) + "\n")
    print(f"wrote {path} and {table_path}")


def _fid_stats(arguments: argparse.Namespace) -> None:
    """Measure the features of a prepared set once, for `evaluate --reference` and for pytorch-fid."""
    from asvae_jax.distributed import StopRequest, is_main_process, setup
    from asvae_jax.features.networks import open_network
    from asvae_jax.generation import measure_split, write_reference

    setup(arguments.distributed, arguments.coordinator, arguments.processes, arguments.process_id)
    batch_size, arguments.batch_size = arguments.batch_size or 64, None
    data = image_data_of(arguments)
    path = checked_out(arguments.out or Path(f"fid-stats-{arguments.name}.npz"), ".npz")
    network = open_network(arguments.features, arguments.features_file or usual_file(arguments.features))
    with StopRequest() as stop:
        reference = measure_split(data, arguments.split, network, batch_size, stop.poll)
    if not is_main_process():
        return
    write_reference(path, reference)
    print(f"{arguments.name} {arguments.split}: {reference.number:,} images, {network.dim} features ({network.name})")
    print(f"wrote {path}")


def _convert(arguments: argparse.Namespace) -> None:
    """Turn the PyTorch port of the FID Inception into a safetensors file; needs PyTorch, once."""
    from asvae_jax.features.weights import convert_inception

    convert_inception(arguments.source, checked_out(arguments.out, ".safetensors"))
    print(f"wrote {arguments.out}")


def _benchmark(arguments: argparse.Namespace) -> None:
    """Measure images/s and memory of a feature network, and the time of a Frechet distance."""
    from asvae_jax.features.benchmark import benchmark, table

    out = arguments.out and checked_out(arguments.out, ".json")
    result = benchmark(
        arguments.features,
        arguments.features_file or "",
        shape=arguments.shape,
        images=arguments.images,
        batch_size=arguments.batch_size or 64,
    )
    print(table(result))
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
        print(f"wrote {out}")


def _digits(arguments: argparse.Namespace) -> None:
    """Train the small network behind `fid_digits` anew, and say how many held-out digits it recognises."""
    from asvae_jax.features.train_digits import train_digits

    for name, share in train_digits(checked_out(arguments.out, ".safetensors")).items():
        print(f"{name}: {share:.1%} of the held-out digits recognised")
    print(f"wrote {arguments.out}")
