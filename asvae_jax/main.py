"""Train or evaluate a run.

  python -m asvae_jax.main --config=configs/mnist5k.py --workdir=runs/mnist5k
  python -m asvae_jax.main --config=configs/mnist5k.py:sintrovae --workdir=runs/s --config.training.steps=3000
  python -m asvae_jax.main --config=configs/8gaussians.py:released,c1 --workdir=runs/toy
  python -m asvae_jax.main --config=configs/digits.py --workdir=runs/digits --dry-run
  python -m asvae_jax.main --config=configs/digits.py --workdir=runs/digits --mode=evaluate

Running the same command again goes on from the newest checkpoint. Exit codes: 0 done, 2 bad request, 3 training not
finite, 4 storage failed, 5 another process trains in the folder, 75 stopped by a signal and saved.
"""

import signal
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from asvae_jax.config import check_overrides, load_file, resolve
from asvae_jax.continuation import differences
from asvae_jax.errors import ConfigError
from asvae_jax.settings import Config, ImageData
from asvae_jax.terminal import (
    errors_alone_to_terminal,
    exit_code_of,
    keep_compiled_programs,
    log_to_terminal,
    stop_at_once,
)

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with its variant: configs/digits.py:sintrovae,tiny."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "benchmark"], "What to do.")
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "Check config, data and devices, trace one step and print the plan.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes of the cluster job.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of the job's first process, with --distributed where JAX knows no such cluster."
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes the job has, with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process-id", None, "Which of them this is, from 0, with --coordinator.")
_EXPECT_DEVICES = flags.DEFINE_integer(
    "expect-devices", None, "Refuse to run on another number of devices in all: no job runs on a part of its nodes."
)
_EXPECT_PLATFORM = flags.DEFINE_enum(
    "expect-platform", None, ["cpu", "gpu", "tpu"], "Refuse to run on another one: no slow run on a CPU by mistake."
)
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profile of the second logging interval for TensorBoard.")


def main() -> None:
    """Entry point: parses flags, does what `--mode` says and exits with a documented code."""
    # Until training heeds signals itself there is nothing to save.
    signal.signal(signal.SIGTERM, stop_at_once)
    app.run(lambda _: sys.exit(exit_code_of(_run)), flags_parser=_parse)


def _run() -> None:
    if _CONFIG.value is None:
        raise ConfigError("--config is needed; --help shows examples.")
    config = resolve(_CONFIG.value)
    if _WORKDIR.value is None and _MODE.value != "benchmark":
        raise ConfigError("--workdir is needed; --help shows examples.")
    if "://" in (_WORKDIR.value or ""):
        raise ConfigError(
            f"--workdir={_WORKDIR.value} is no folder; mount the bucket, or give one that all hosts share."
        )
    workdir = Path(_WORKDIR.value or ".").expanduser().absolute()
    log_to_terminal()
    if isinstance(config.data, ImageData):
        # Before any device is taken: whoever lacks the data shall know at once.
        from asvae_jax.data.prepare import open_prepared

        open_prepared(config.data)
    _carry_out(config, workdir)


def _carry_out(config: Config, workdir: Path) -> None:
    # These take seconds to import: a mistake is answered before.
    from asvae_jax import benchmark, distributed
    from asvae_jax.dry_run import dry_run
    from asvae_jax.evaluation import table, write_evaluation
    from asvae_jax.run import WEIGHTS, load_run
    from asvae_jax.train import sheet_path, train

    distributed.setup(_DISTRIBUTED.value, _COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
    distributed.check_devices(_EXPECT_DEVICES.value, _EXPECT_PLATFORM.value)
    if not distributed.is_main_process():
        errors_alone_to_terminal()
    if _MODE.value == "benchmark":
        print(benchmark.table(benchmark.benchmark(config)))
        return
    keep_compiled_programs()
    if _DRY_RUN.value:
        print(dry_run(config, workdir))
        return
    with distributed.StopRequest() as stop:
        if _MODE.value == "train":
            run = train(config, workdir, profile=_PROFILE.value, stop=stop)
        else:
            run = load_run(workdir)
            if changed := differences(run.config, config):
                raise ConfigError(
                    f"{workdir} was trained with other settings ({'; '.join(changed)}); a run is evaluated with its "
                    "own: python -m asvae_jax evaluate."
                )
            run = run._replace(config=config)
        # Every process evaluates, since the weights lie on the devices of all; one of them writes.
        path, result = write_evaluation(run, poll=stop.poll)
    if distributed.is_main_process():
        print(table(result))
        print(f"wrote {path}")
        if _MODE.value == "train":
            for picture in (sheet_path(run, weights) for weights in WEIGHTS):
                if picture.exists():
                    print(f"wrote {picture}")


def _parse(argv: list[str]) -> list[str]:
    """Flags, with every mistake in a config or an override in one line and exit code 2."""
    if {"--help", "-h"} & set(argv[1:]):
        print(__doc__)
        print(flags.FLAGS.main_module_help())
        sys.exit(0)
    rest: list[str] = []

    def parse() -> None:
        # config_flags would answer a mistake in the file or in a key with a traceback.
        following = [*argv[1:], ""]
        split = [(name, value or after) for (name, value), after in zip(map(_split_flag, argv), following, strict=True)]
        configs = [value for name, value in split if name == "config"]
        for argument in configs[-1:]:
            overrides = [
                name.removeprefix("config.") for name, _ in map(_split_flag, argv) if name.startswith("config.")
            ]
            check_overrides(load_file(argument), overrides)
        try:
            rest.extend(flags.FLAGS(argv))
        except (flags.Error, TypeError, ValueError) as error:
            raise ConfigError(str(error)) from error
        if rest[1:]:
            raise ConfigError(f"{rest[1]!r} is not understood; flags have the form --name=value.")

    if code := exit_code_of(parse):
        sys.exit(code)
    return rest


def _split_flag(argument: str) -> tuple[str, str]:
    name, _, value = argument.partition("=")
    return name.lstrip("-"), value


if __name__ == "__main__":
    main()
