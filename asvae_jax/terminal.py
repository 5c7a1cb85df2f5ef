"""What the two command lines share: readable logs, one-line errors, exit codes, compiled programs."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import logging as absl_logging

from asvae_jax.errors import (
    EXIT_BAD_REQUEST,
    EXIT_DONE,
    EXIT_PREEMPTED,
    EXIT_STORAGE,
    ConfigError,
    RunError,
    first_line,
)


def exit_code_of(action: Callable[[], None]) -> int:
    """Carries out `action`; a failure that the user can mend is printed in one line and becomes its exit code."""
    try:
        action()
    except ConfigError as error:
        return _report(error, EXIT_BAD_REQUEST)
    except RunError as error:
        return _report(error, error.exit_code)
    except OSError as error:
        return _report(f"{error}. See to space and rights, then run the same command again.", EXIT_STORAGE)
    except KeyboardInterrupt:
        return _report("Interrupted; run the same command again.", EXIT_PREEMPTED)
    except Exception as error:
        # Of the devices, which jax is not imported here to name, or of this machine.
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        advice = "Make data.batch_size, evaluation.batch_size, --batch-size, --together or --n smaller."
        return _report(f"Out of memory: {first_line(error)}. {advice}", EXIT_BAD_REQUEST)
    return EXIT_DONE


def stop_at_once(*_: object) -> None:
    """A handler of signals for what leaves nothing half done. It raises nothing: an exception that comes up in a
    library's callback would be lost, and the signal with it."""
    os.write(sys.stderr.fileno(), b"error: Stopped by a signal; run the same command again.\n")
    os._exit(EXIT_PREEMPTED)


def log_to_terminal() -> None:
    """This project's own lines on standard output, and of the libraries errors alone."""
    absl_logging.set_verbosity(absl_logging.ERROR)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("asvae_jax")
    if logger.handlers:
        return
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False


def errors_alone_to_terminal() -> None:
    """For the other processes of a job, which would repeat each line of the first."""
    logging.getLogger("asvae_jax").setLevel(logging.ERROR)


def keep_compiled_programs() -> None:
    """Spares a restarted run the compiling; JAX_COMPILATION_CACHE_DIR names another place, or none if it is empty."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/asvae_jax/xla").expanduser()))


def _report(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
