"""Train or evaluate a run.

  python -m asvae_jax.main --config=configs/mnist5k.py --workdir=runs/mnist5k
  python -m asvae_jax.main --config=configs/mnist5k.py:sintrovae --workdir=runs/s --config.training.steps=3000
  python -m asvae_jax.main --config=configs/8gaussians.py:released,c1 --workdir=runs/toy
  python -m asvae_jax.main --config=configs/digits.py --workdir=runs/digits --dry-run
  python -m asvae_jax.main --config=configs/digits.py --workdir=runs/digits --mode=evaluate

Running the same command again goes on from the newest checkpoint. Exit codes: 0 done, 2 bad request, 3 training not
finite, 4 a checkpoint could not be written, 75 stopped by a signal and saved.
"""

import logging
import os
import sys
from pathlib import Path

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from asvae_jax import benchmark, distributed
from asvae_jax.config import ConfigError, resolve
from asvae_jax.errors import EXIT_BAD_REQUEST, RunError
from asvae_jax.evaluation import table, write_evaluation
from asvae_jax.run import WEIGHTS, load_run
from asvae_jax.train import dry_run, sheet_path, train

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, with its variant: configs/digits.py:sintrovae,tiny."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "benchmark"], "What to do.")
_DRY_RUN = flags.DEFINE_bool("dry-run", False, "Check config, data and devices, trace one step and print the plan.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes of the cluster job.")
_PROFILE = flags.DEFINE_bool("profile", False, "Write a profile of the second logging interval for TensorBoard.")


def main() -> None:
    """Entry point: parses flags, does what `--mode` says and exits with a documented code."""
    app.run(lambda _: _guarded(_run), flags_parser=_parse)


def _run() -> None:
    if _CONFIG.value is None:
        raise ConfigError("--config is needed; --help shows examples.")
    config = resolve(_CONFIG.value)
    _log_to_terminal()
    distributed.setup(_DISTRIBUTED.value)
    _keep_compiled_programs()
    if _MODE.value == "benchmark":
        print(benchmark.table(benchmark.benchmark(config)))
        return
    if _WORKDIR.value is None:
        raise ConfigError("--workdir is needed; --help shows examples.")
    workdir = Path(_WORKDIR.value).expanduser().absolute()
    if _DRY_RUN.value:
        print(dry_run(config, workdir))
        return
    run = train(config, workdir, profile=_PROFILE.value) if _MODE.value == "train" else load_run(workdir)
    if distributed.is_main_process():
        path, result = write_evaluation(run)
        print(table(result))
        print(f"wrote {path}")
        if _MODE.value == "train":
            print("\n".join(f"wrote {sheet_path(run, weights)}" for weights in WEIGHTS))


def _parse(argv: list[str]) -> list[str]:
    """Flags, with every mistake in a config or an override in one line and exit code 2."""
    if {"--help", "-h"} & set(argv[1:]):
        print(__doc__)
        print(flags.FLAGS.main_module_help())
        sys.exit(0)
    rest: list[str] = []

    def parse() -> None:
        try:
            rest.extend(flags.FLAGS(argv))
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
            raise ConfigError(str(error).strip("'\"")) from error
        if rest[1:]:
            raise ConfigError(f"{rest[1]!r} is not understood; flags begin with --.")

    _guarded(parse)
    return rest


def _guarded(action) -> None:
    try:
        action()
    except (ConfigError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", EXIT_BAD_REQUEST))


def _log_to_terminal() -> None:
    """This project's own lines, and of the libraries only warnings."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("asvae_jax")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False


def _keep_compiled_programs() -> None:
    """A restarted run need not compile again; JAX_COMPILATION_CACHE_DIR chooses another place, or none if it is
    empty."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/asvae_jax/xla").expanduser()))


if __name__ == "__main__":
    main()
