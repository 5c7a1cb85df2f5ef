"""`prepare` and `inspect` as commands: what they show, what they refuse, and the command that other messages advise."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from PIL import Image
from prepared_sets import small_folder, spoilt_folder
from stand_ins import data_section
from training_runs import run

from asvae_jax import __main__ as commands
from asvae_jax.commands.arguments import image_data_of
from asvae_jax.data.prepare import open_prepared, prepare_command
from asvae_jax.presets.image import image_data
from asvae_jax.provenance import commit

WITHOUT_TENSORFLOW = """
import sys
from asvae_jax.__main__ import main
code = main(sys.argv[1:])
print("imported", [name for name in sys.modules if name.split(".")[0] == "tensorflow"])
sys.exit(code)
"""


@pytest.fixture
def spoilt(originals) -> Path:
    """An image folder with two files that cannot be read."""
    return spoilt_folder(originals)


def test_prepare_and_inspect_show_what_was_made(tmp_path, spoilt):
    options = ["image_folder", "--shape", "16x16x3", "--label", "holidays", "--data-dir", str(tmp_path / "data")]
    made = run(["-c", WITHOUT_TENSORFLOW, "prepare", *options, "--manual-dir", str(spoilt)], devices=1)
    assert made.returncode == 0 and made.stderr == ""
    assert "imported []" in made.stdout and "2 files passed over" in made.stdout
    place = open_prepared(small_folder(tmp_path / "data", label="holidays"))
    assert str(place.folder) in made.stdout
    assert f"train {place.sizes['train']}, test {place.sizes['test']}" in made.stdout

    picture = tmp_path / "sheet.png"
    shown = run(["-m", "asvae_jax", "inspect", *options, "--batch-size", "8", "--out", str(picture)], devices=1)
    assert shown.returncode == 0 and "Traceback" not in shown.stderr
    assert f"train {place.sizes['train']}" in shown.stdout and "(8, 16, 16, 3)" in shown.stdout
    with Image.open(picture) as sheet:
        assert sheet.format == "PNG" and len(np.unique(np.asarray(sheet))) > 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "celeb128"], "Did you mean 'celeba128'?"),
        (["prepare", "oxford_buildings"], "oxbuild_images.tgz"),
        (["inspect", "celeba128"], "python -m asvae_jax prepare celeba128"),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_refused_in_one_line(words, said, tmp_path):
    finished = run(["-m", "asvae_jax", *words, "--data-dir", str(tmp_path)], devices=1)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ") and said in line


def test_benchmark_reads_the_jpeg_files_that_were_prepared(tmp_path, spoilt):
    # Beside them lie PNG files, two that cannot be read and one that is hidden.
    jpegs = {f"{i}.jpg": stand_ins.jpeg(i, 40, 30) for i in range(6)}
    stand_ins.write_files(spoilt, {**jpegs, "._0.jpg": b"no image"})
    command = ["-m", "asvae_jax", "benchmark-data", "--source", str(spoilt), "--shape", "16x16x3", "--threads", "1"]
    out = tmp_path / "rates.json"
    finished = run([*command, "--batch-size", "6", "--seconds", "1", "--out", str(out)], devices=1)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(out.read_text())
    assert result["images"] == 6 and result["jpeg_bytes"] == sum(map(len, jpegs.values()))
    assert result["images_per_second"]["JPEG"]["1"] > 0
    assert result["commit"] == commit() and {"jax", "grain", "pillow"} <= set(result["versions"])
    refused = run([*command, "--batch-size", "7"], devices=1)
    assert refused.returncode == 2 and "more than the 6 JPEG files" in refused.stderr


def test_the_command_that_is_advised_prepares_just_what_was_wanted(tmp_path):
    sections = [
        data_section("celeba128", tmp_path, crop="none", partition="all", resize="lanczos"),
        data_section("image_folder", tmp_path / "with a space", shape=(64, 32, 1), label="cats"),
        data_section("mnist", tmp_path / "it's"),
        data_section("cifar10", Path(image_data("cifar10")["data_dir"])),
    ]
    for data in sections:
        python, module, package, *words = shlex.split(prepare_command(data))
        assert [python, module, package, words[0]] == ["python", "-m", "asvae_jax", "prepare"]
        assert image_data_of(commands._parser().parse_args(words)) == data
