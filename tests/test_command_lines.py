"""What both command lines say of help, mistakes and signals."""

import os

import pytest
from command_line import command, refusal, terminal  # noqa: F401
from training_runs import ROOT, run

from asvae_jax.__main__ import main
from asvae_jax.errors import EXIT_PREEMPTED

WRONG = [
    [], ["sample"], ["no-such-command"], ["sample", "run", "--n", "0"], ["reconstruct", "run", "--seed", "-1"],
    ["sample", "run", "--seed", "4294967296"], ["benchmark-features", "--shape", "32xx3"],
    ["table", "1", "--seeds", "0", "x"],
]  # fmt: skip


@pytest.mark.parametrize("shape", ["32x32", "32x32x4", "32x0x3"])
def test_features_of_no_images_are_not_timed(shape, capsys):
    said = refusal(capsys, "benchmark-features", "--features", "digits", "--shape", shape)
    assert "shape must be (height, width, 1 or 3 channels)" in said


@pytest.mark.parametrize("argv", WRONG, ids=" ".join)
def test_wrong_command_lines_exit_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert capsys.readouterr().err


def test_help_of_the_commands_begins_with_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    examples = [line for line in text.splitlines() if line.strip().startswith("python -m asvae_jax ")]
    assert len(examples) >= 8 and text.index(examples[0]) < text.index("COMMAND")


def test_help_of_the_trainer_begins_with_examples_and_names_the_exit_codes():
    finished = run(["-m", "asvae_jax.main", "--help"])
    assert finished.returncode == 0
    lines = finished.stdout.splitlines()
    assert lines[2].startswith("  python -m asvae_jax.main --config=")
    assert "75" in finished.stdout and "--workdir" in finished.stdout


DIGITS = f"--config={ROOT}/configs/digits.py"
# (command line, what its one line says)
MISTAKES = {
    "key": ([f"{DIGITS}:tiny", "--config.trainin.steps=5"], "'training'"),
    "key of a section": ([f"{DIGITS}:tiny", "--config.training.step=5"], "'steps'"),
    "key of another method": ([f"{DIGITS}:vae,tiny", "--config.method.b_neg=5"], "method 'vae'"),
    "key of a value": ([f"{DIGITS}:tiny", "--config.seed.first=1"], "seed is a value and not a section"),
    "method": ([f"{DIGITS}:tiny", "--config.method.name=vae"], "by a word after the config file's name"),
    "value": ([f"{DIGITS}:tiny", "--config.training.steps=many"], "many"),
    "word for a value": ([f"{DIGITS}:tiny", "--config.model.norm=bach"], "'batch'"),
    "value out of range": ([f"{DIGITS}:tiny", "--config.training.steps=-4"], "training.steps must be positive"),
    "word": ([f"{DIGITS}:sintrove,tiny"], "'sintrovae'"),
    "words": ([f"{DIGITS}:vae,introvae"], "vae and introvae exclude each other"),
    "file": ([f"--config={ROOT}/configs/digit.py"], "no config file"),
    "flag": ([f"{DIGITS}:tiny", "--worldir=x"], "workdir"),
    "mode": ([f"{DIGITS}:tiny", "--mode=trian"], "train"),
    "argument": ([f"{DIGITS}:tiny", "workdir=x"], "'workdir=x' is not understood"),
    "no config": ([], "--config is needed"),
    "bucket for a workdir": ([f"{DIGITS}:tiny", "--workdir=gs://bucket/run"], "is no folder"),
    "no workdir": ([f"{DIGITS}:tiny"], "--workdir is needed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_before_data_or_devices_are_touched(mistake, tmp_path):
    arguments, said = MISTAKES[mistake]
    if "workdir" not in mistake:
        arguments = [*arguments, f"--workdir={tmp_path}/run"]
    (tmp_path / "file").write_text("")
    # Neither a device nor a data folder could be had, were they asked for.
    nothing = {"JAX_PLATFORMS": "no_such_platform", "TFDS_DATA_DIR": f"{tmp_path}/file/data"}
    finished = run(["-m", "asvae_jax.main", *arguments], env=nothing)
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith("error: ") and finished.stderr.count("\n") == 1
    assert said in finished.stderr
    assert os.listdir(tmp_path) == ["file"]


def test_a_mistake_is_answered_before_jax_is_imported(tmp_path):
    mistakes = (
        ["asvae_jax.main", f"{DIGITS}:tiny", f"--workdir={tmp_path}/run", "--config.training.steps=-4"],
        ["asvae_jax", "table", "1", "--steps", "0"],
    )
    for words in mistakes:
        finished = run(["-X", "importtime", "-m", *words])
        assert finished.returncode == 2, words
        imported = {line.split("|")[-1].strip() for line in finished.stderr.splitlines()}
        assert "asvae_jax.presets" in imported and "jax" not in imported, words


def test_flag_and_value_may_be_two_words(tmp_path):
    finished = run(["-m", "asvae_jax.main", "--config", f"{ROOT}/configs/8gaussians.py:vae,tiny", "--workdir",
                    str(tmp_path / "run"), "--dry-run"])  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "would start afresh" in finished.stdout


def test_batch_that_does_not_divide_by_the_devices_is_refused(tmp_path):
    finished = run(
        ["-m", "asvae_jax.main", f"{DIGITS}:tiny", f"--workdir={tmp_path}/run", "--config.data.batch_size=6"]
    )
    assert finished.returncode == 2
    assert "data.batch_size=6 does not divide by the 4 devices" in finished.stderr


def test_what_does_not_fit_into_memory_is_told_in_one_line(tmp_path):
    finished = run(
        ["-m", "asvae_jax.main", f"--config={ROOT}/configs/8gaussians.py:vae,tiny", f"--workdir={tmp_path}/run",
         f"--config.data.batch_size={10**12}"],
        devices=1,
    )  # fmt: skip
    assert finished.returncode == 2, finished.stderr
    assert "error: Out of memory: " in finished.stderr and "Make data.batch_size" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_signal_before_training_exits_with_75_even_in_a_callback_that_swallows_what_is_raised():
    script = (
        "import gc, os, signal; from asvae_jax.terminal import stop_at_once; "
        "signal.signal(signal.SIGTERM, stop_at_once); "
        "gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGTERM)); gc.collect(); print('went on')"
    )
    finished = run(["-c", script])
    assert finished.returncode == EXIT_PREEMPTED and "went on" not in finished.stdout
    assert "error: Stopped by a signal; run the same command again." in finished.stderr
