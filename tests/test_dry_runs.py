"""Every image config plans its training on stand-in data, at full size, as a real process."""

import pytest
import stand_ins
from training_runs import run, toy

from asvae_jax.dry_run import dry_run
from asvae_jax.settings import IMAGE_SETS
from asvae_jax.terminal import exit_code_of

# (encoder, decoder) in millions, from arXiv 2206.13903's networks at the settings of its table.
PARAMETERS = {"mnist": (0.93, 0.70), "cifar10": (3.38, 2.38), "celeba128": (18.46, 14.12), "celeba256": (23.18, 18.84)}
# The stand-ins have fewer images than one batch of theirs.
SMALLER_BATCHES = ("mnist", "cifar10")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand-ins")
    stand_ins.prepare_all(folder)
    return folder


@pytest.mark.parametrize("name", stand_ins.WRITERS)
def test_config_of_a_prepared_set_plans_one_step_at_full_size(name, data_dir, tmp_path):
    command = ["-m", "asvae_jax.main", f"--config=configs/{name}.py", f"--workdir={tmp_path}/run", "--dry-run"]
    if name in SMALLER_BATCHES:
        command += ["--config.data.batch_size=32", "--config.evaluation.batch_size=32"]
    finished = run(command, devices=1, env={"TFDS_DATA_DIR": str(data_dir)})
    assert finished.returncode == 0, finished.stderr
    plan = dict(line.split(maxsplit=1) for line in finished.stdout.splitlines())
    shape = IMAGE_SETS[name].shape or (128, 128, 3)
    assert plan["data"].startswith(f"{name}: ") and str(shape) in plan["data"]
    assert "asintrovae" in plan["method"]
    if name in PARAMETERS:
        encoder, decoder = (f"{count:.2f}" for count in PARAMETERS[name])
        counts = [
            f"{int(word.replace(',', '')) / 1e6:.2f}" for word in plan["parameters"].replace(",  ", " ").split()[1::2]
        ]
        assert counts == [encoder, decoder]
    assert not (tmp_path / "run").exists()


def test_folder_that_cannot_be_made_is_refused_before_anything_is_planned(tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert exit_code_of(lambda: dry_run(toy("vae,tiny"), tmp_path / "taken" / "run")) == 4
    assert f"see to rights on {tmp_path}/taken" in capsys.readouterr().err


def test_set_that_is_not_prepared_is_named_with_its_command_before_any_device_is_taken(tmp_path):
    command = ["-m", "asvae_jax.main", "--config=configs/celeba128.py:full_frame", f"--workdir={tmp_path}/run"]
    # A platform that does not exist: touching a device would be another error.
    finished = run(command, env={"TFDS_DATA_DIR": str(tmp_path), "JAX_PLATFORMS": "none_such"})
    assert finished.returncode == 2
    assert "python -m asvae_jax prepare celeba128 --crop none --partition all" in finished.stderr
    assert "Traceback" not in finished.stderr and len(finished.stderr.splitlines()) == 1
