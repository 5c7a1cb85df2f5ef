"""The two commands of a fresh clone, each in an environment of its own under .venv/.

  python3 bootstrap.py demo     trains the embedded MNIST digits with AS-IntroVAE and says where the sheet is
  python3 bootstrap.py test     style, types and the whole test suite

Needs Linux or macOS and Python 3.11 or newer with pip and venv, and nothing else.
"""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
EXTRAS = {"demo": "samples", "test": "samples,test"}


def environment(name: str) -> Path:
    """The python of this command's environment, made and brought up to date if need be."""
    folder = ROOT / ".venv" / name
    python = folder / "bin/python"
    if not _has_pip(python):
        try:
            venv.create(folder, with_pip=True, clear=True)
        except subprocess.CalledProcessError as error:
            sys.exit(f"No environment with pip can be made in {folder} ({error}); on Debian: apt install python3-venv.")
    # Not compiled ahead: most modules of these packages are never imported, and the others compile when they are.
    run(
        python,
        "-m",
        "pip",
        "install",
        "--no-compile",
        "--quiet",
        "--disable-pip-version-check",
        "--editable",
        f"{ROOT}[{EXTRAS[name]}]",
    )
    return python


def _has_pip(python: Path) -> bool:
    """Whether an environment is there and whole."""
    return python.exists() and not subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode


def run(*command: object) -> None:
    """Runs a command in the root of the clone; its failure is ours."""
    code = subprocess.run([str(part) for part in command], cwd=ROOT).returncode
    if code:
        sys.exit(code)


def demo() -> None:
    """The embedded default, to its end."""
    python = environment("demo")
    run(python, "-m", "asvae_jax.main", "--config=configs/mnist5k.py", "--workdir=runs/mnist5k")


def test() -> None:
    """What continuous integration runs."""
    python = environment("test")
    run(python, "-m", "ruff", "check", ".")
    run(python, "-m", "ruff", "format", "--check", ".")
    run(python, "-m", "mypy")
    # Whole files, as the tests of one share what they trained and compiled; tests/conftest.py has the order.
    run(python, "-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


if __name__ == "__main__":
    commands = {"demo": demo, "test": test}
    if sys.argv[1:] not in [[name] for name in commands]:
        sys.exit(__doc__)
    commands[sys.argv[1]]()
