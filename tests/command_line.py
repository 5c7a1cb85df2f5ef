"""The commands as the tests call them: in this process, with the loggers put back afterwards."""

import logging

import pytest
from absl import logging as absl_logging

from asvae_jax.__main__ import main


@pytest.fixture(autouse=True)
def terminal():
    """A command sets the loggers up for a terminal; they are put back as they were."""
    logger, verbosity = logging.getLogger("asvae_jax"), absl_logging.get_verbosity()
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
    absl_logging.set_verbosity(verbosity)


def command(capsys, *argv: object, code: int = 0) -> str:
    """What a command that succeeds prints, or the error of one that exits with another `code`."""
    capsys.readouterr()
    assert main([str(argument) for argument in argv]) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def refusal(capsys, *argv: object) -> str:
    """The one line of a command that is refused with exit code 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said
