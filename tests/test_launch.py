"""How a job of several processes begins: what each is told, what is refused, and the scripts in launch/, which run here
with a scheduler that only notes what it was asked for."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from training_runs import ROOT, ended, free_port, run, started

LAUNCH = ROOT / "launch"
TRAIN = ["-m", "asvae_jax.main", f"--config={ROOT}/configs/8gaussians.py:vae,tiny"]


def scheduler(folder: Path, name: str, code: int = 0) -> None:
    """A command that appends its arguments, one in a line, to a file of its name, and ends with `code`."""
    command = folder / "bin" / name
    command.parent.mkdir(exist_ok=True)
    command.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >> {folder}/{name}\nexit {code}\n')
    command.chmod(0o755)


def launched(script: str, folder: Path, *arguments: str, **variables: str) -> int:
    path = f"{folder}/bin:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", LAUNCH / script, *arguments], env={**os.environ, "PATH": path, **variables}
    ).returncode


def noted(folder: Path, name: str) -> list[str]:
    file = folder / name
    return file.read_text().splitlines() if file.exists() else []


def test_processes_that_are_told_their_place_find_each_other(tmp_path):
    # Joined they are two, and one too few for this job, which therefore ends before anything is compiled.
    words = [
        *TRAIN,
        f"--workdir={tmp_path}/run",
        "--distributed",
        f"--coordinator=127.0.0.1:{free_port(20_000, 30_000)}",
    ]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                started([*words, "--processes=2", f"--process-id={number}", "--expect-devices=3"], devices=1)
            )
            for number in range(2)
        ]
        finished = [ended(process) for process in processes]
    assert [process.returncode for process in finished] == [2, 2], finished
    for number, process in enumerate(finished):
        assert f"as process {number} of 2, through 127.0.0.1:" in process.stdout
        assert "--expect-devices=3, but 2 process(es) have 2 of kind cpu" in process.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--distributed", "--processes=2"], "--coordinator, --processes, --process-id belong together"),
        (["--coordinator=a:1", "--processes=2", "--process-id=0"], "belong together, and to --distributed"),
        (
            ["--distributed", "--coordinator=a:1", "--processes=2", "--process-id=2"],
            "--process-id=2 must lie in [0, 2), below --processes",
        ),
        (
            ["--distributed", "--coordinator=a", "--processes=2", "--process-id=1"],
            "--coordinator=a must have the form host:port",
        ),
        (["--distributed"], "--distributed found no cluster to join"),
        (["--expect-devices=8"], "--expect-devices=8, but 1 process(es) have 4 of kind cpu"),
        (["--expect-platform=gpu"], "--expect-platform=gpu, but JAX found 4 of kind cpu. See to the driver"),
    ],
)
def test_place_or_devices_that_cannot_be_are_refused(flags, said, tmp_path):
    finished = run([*TRAIN, f"--workdir={tmp_path}/run", *flags])
    assert finished.returncode == 2 and said in finished.stderr
    assert not (tmp_path / "run").exists()


def test_platform_that_is_not_there_is_told_of_in_one_line(tmp_path):
    finished = run([*TRAIN, f"--workdir={tmp_path}/run"], env={"JAX_PLATFORMS": "tpu"})
    assert finished.returncode == 2 and "Traceback" not in finished.stderr
    assert "error: JAX has no devices of the platforms in JAX_PLATFORMS='tpu'" in finished.stderr


def test_devices_as_expected_are_no_trouble(tmp_path):
    flags = ["--dry-run", "--expect-devices=4", "--expect-platform=cpu"]
    assert run([*TRAIN, f"--workdir={tmp_path}/run", *flags]).returncode == 0


@pytest.mark.parametrize(("code", "again"), [(0, []), (2, []), (75, ["requeue", "17"])])
def test_slurm_job_runs_on_gpus_alone_and_is_queued_again_if_it_was_stopped(code, again, tmp_path):
    scheduler(tmp_path, "srun", code)
    scheduler(tmp_path, "scontrol")
    job = dict(SLURM_NTASKS="8", SLURM_CPUS_PER_TASK="4", SLURM_JOB_ID="17")
    assert launched("slurm.sbatch", tmp_path, "configs/digits.py", "runs/digits", **job) == code
    asked = noted(tmp_path, "srun")
    assert asked[:3] == ["python", "-m", "asvae_jax.main"]
    assert {
        "--distributed", "--expect-platform=gpu", "--expect-devices=8", "--config=configs/digits.py",
        "--workdir=runs/digits",
    } == set(asked[3:])  # fmt: skip
    assert noted(tmp_path, "scontrol") == again


def test_slurm_job_gets_the_signal_in_time_and_keeps_its_log():
    options = [line.split()[1] for line in (LAUNCH / "slurm.sbatch").read_text().splitlines() if "#SBATCH" in line]
    # Without B:, which would give the signal to the script alone.
    assert {"--requeue", "--open-mode=append", "--signal=TERM@120", "--gres=gpu:4", "--ntasks-per-node=4"} <= set(
        options
    )
    assert not [option for option in options if "gpus-per-task" in option]


def test_tpu_job_starts_on_all_workers_and_is_the_process_that_signals_reach(tmp_path):
    scheduler(tmp_path, "gcloud")
    assert launched("tpu_pod.sh", tmp_path, "pod", "zone", "configs/digits.py", "/shared/digits") == 0
    asked = "\n".join(noted(tmp_path, "gcloud"))
    assert (
        "--worker=all" in asked and "JAX_PLATFORMS=tpu exec .venv/bin/python -m asvae_jax.main --distributed" in asked
    )
    assert "--expect-platform=tpu --config=configs/digits.py --workdir=/shared/digits" in asked


def test_kubernetes_job_has_as_many_pods_and_devices_as_it_says():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == ["python", "-m", "asvae_jax.main"]
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in container["args"])
    pods = int(flags["processes"])
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == pods
    assert flags["process-id"] == "$(JOB_COMPLETION_INDEX)"
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(flags["expect-devices"]) == pods * gpus and flags["expect-platform"] == "gpu"
    # Pod 0 of the job, by the service that the pods are a subdomain of.
    name = job["metadata"]["name"]
    assert flags["coordinator"].startswith(f"{name}-0.{pod['subdomain']}:") and service["metadata"]["name"] == name
    assert service["spec"]["selector"] == {"job-name": name} and service["spec"]["clusterIP"] == "None"
    rules = spec["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes == {"FailJob": [2, 3, 6], "Ignore": [75]}
    known = run(["-m", "asvae_jax.main", "--help"]).stdout
    for flag in flags.keys() - {"config", "workdir"}:
        assert f"--{flag}:" in known or f"--[no]{flag}:" in known, flag
