"""Failures that a user can mend, and the exit codes that tell a scheduler which kind it was."""

EXIT_DONE = 0
EXIT_BAD_REQUEST = 2
EXIT_NOT_FINITE = 3
EXIT_STORAGE = 4
EXIT_BUSY = 5
EXIT_GAME_LOST = 6
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: run the same command again to go on


class ConfigError(ValueError):
    """A request that cannot be carried out; the command line turns it into exit code 2."""


class RunError(Exception):
    """A failure whose message says what to do; the command line prints it in one line and exits with `exit_code`."""

    exit_code = EXIT_BAD_REQUEST


class DataError(RunError):
    """Data that are missing or not what they should be."""


class CheckpointError(RunError):
    """No checkpoint here can be restored, or it belongs to another kind of run."""


class NotFiniteError(RunError):
    """Training has met non-finite figures too often, or weights that are to be saved or calibrated are not finite."""

    exit_code = EXIT_NOT_FINITE


class GameLostError(RunError):
    """The KL of fake images has been below that of real ones for longer than the settings allow."""

    exit_code = EXIT_GAME_LOST


class BusyError(RunError):
    """Another process trains in the same folder: the same command may succeed later."""

    exit_code = EXIT_BUSY


class StorageError(RunError):
    """Something could not be written, or what is stored could not be read, for want of space, of rights or of a
    connection; what was saved stays as it is."""

    exit_code = EXIT_STORAGE


class Preempted(RunError):
    """Training or an evaluation was asked to stop; what training had reached is saved."""

    exit_code = EXIT_PREEMPTED


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 200 characters."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
