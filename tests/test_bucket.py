"""Prepared sets in a bucket: a real S3 server (moto's), real processes, no shared disk; a folder in its place
where a disk is to be full."""

import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from etils import epath
from training_runs import run

from asvae_jax.config import resolve_data
from asvae_jax.data.prepare import prepare
from asvae_jax.errors import StorageError
from asvae_jax.presets.image import image_data

SET = "faces25"
SERVER = ["-m", "moto.server", "-H", "127.0.0.1", "-p"]


@pytest.fixture
def bucket(tmp_path):
    """Environment variables for an S3 server of this test's own, with a bucket `data` on it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    variables = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with subprocess.Popen([sys.executable, *SERVER, str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port, server)
            made = run(["-c", "import boto3; boto3.client('s3').create_bucket(Bucket='data')"], env=variables)
            assert made.returncode == 0, made.stderr
            yield variables
        finally:
            server.send_signal(signal.SIGKILL)


def _wait_for(port: int, server: subprocess.Popen) -> None:
    while server.poll() is None:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("The server ended.")


def test_one_machine_prepares_into_a_bucket_and_another_trains_from_it(bucket, tmp_path):
    def on_machine(name: str, *command: str):
        # Another cache folder is another machine, as far as prepared data go.
        return run(["-m", *command], devices=1, env={**bucket, "XDG_CACHE_HOME": str(tmp_path / name)})

    prepared = on_machine("one", "asvae_jax", "prepare", SET, "--data-dir", "s3://data/sets")
    assert prepared.returncode == 0, prepared.stderr
    assert "Copying" in prepared.stdout
    again = on_machine("one", "asvae_jax", "prepare", SET, "--data-dir", "s3://data/sets")
    assert again.returncode == 0 and "prepared already" in again.stdout and "Copying" not in again.stdout

    # What was left there by a copying that was killed.
    [info] = (tmp_path / "one").rglob("dataset_info.json")
    left = tmp_path / "two" / info.parents[1].relative_to(tmp_path / "one") / "incomplete.killed"
    left.mkdir(parents=True)
    planned = on_machine(
        "two",
        "asvae_jax.main",
        f"--config=configs/{SET}.py:tiny",
        f"--workdir={tmp_path}/run",
        "--config.data.data_dir=s3://data/sets",
        "--dry-run",
    )
    assert planned.returncode == 0, planned.stderr
    assert "80 training images (25, 25, 1)" in planned.stdout
    assert "Copying s3://data/sets" in planned.stdout and "Preparing" not in planned.stdout
    assert not left.exists()


def test_bucket_that_does_not_answer_is_one_line_and_exit_code_4(bucket, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    finished = run(
        ["-m", "asvae_jax", "prepare", SET, "--data-dir", "s3://data/sets"],
        env={**bucket, "AWS_ENDPOINT_URL": nobody, "AWS_MAX_ATTEMPTS": "1", "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert finished.returncode == 4
    assert "s3://data/sets cannot be used" in finished.stderr and "Traceback" not in finished.stderr


def test_a_set_that_the_disk_has_no_room_for_is_not_copied(tmp_path, monkeypatch):
    data = resolve_data(image_data("digits", batch_size=16, data_dir="s3://data/sets"))
    monkeypatch.setattr("asvae_jax.data.prepare._in_bucket", lambda local, _: epath.Path(tmp_path / "bucket"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    prepare(data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    usage = shutil.disk_usage
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda folder: usage(folder)._replace(free=1_000))
        with pytest.raises(StorageError, match=r"takes 0\.00 GiB, and 0\.00 GiB are free in .*XDG_CACHE_HOME"):
            prepare(data)
    assert prepare(data).sizes == {"train": 1_438, "test": 359}
