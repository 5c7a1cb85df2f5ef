"""Which evaluated runs are one group, and which may stand side by side, on evaluations that are made up."""

import itertools
import math

import pytest
from made_up_evaluations import CRITIC_FIGURES, evaluation, of_seeds, written
from scipy import stats

from asvae_jax.comparison import read_groups
from asvae_jax.errors import DataError


def test_runs_that_differ_by_seed_alone_are_one_group(tmp_path):
    folders = of_seeds(tmp_path, "vae,tiny", [10.0, 11.0, 12.0]) + of_seeds(tmp_path, "sintrovae,tiny", [20.0, 22.0])
    vae, sintrovae = read_groups(folders, "ema")
    assert (vae.name, vae.seeds) == ("vae", [0, 1, 2]) and (sintrovae.name, sintrovae.seeds) == ("sintrovae", [0, 1])
    assert vae.values("psnr", "ema") == [10, 11, 12] and vae.mean("psnr", "ema") == 11
    assert vae.values("psnr", "raw") == [100, 110, 120]
    half = stats.t.ppf(0.975, 2) * 1 / math.sqrt(3)
    assert vae.interval("psnr", "ema") == pytest.approx((11 - half, 11 + half))


def test_groups_are_the_same_in_any_order_of_folders(tmp_path):
    folders = of_seeds(tmp_path, "vae,tiny", [10.0, 11.0, 12.0]) + of_seeds(tmp_path, "sintrovae,tiny", [20.0, 22.0])
    mixed = [folders[i] for i in (3, 0, 4, 2, 1)]
    first, second = read_groups(mixed, "ema")
    assert (first.name, second.name) == ("sintrovae", "vae")
    assert first.mean("psnr", "ema") == 21 and second.mean("psnr", "ema") == 11 and second.seeds == [0, 2, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation__every_steps": 2},
        {"data__data_dir": "/elsewhere"},
        {"data__read_threads": 1},
        {"checkpoint__keep_last": 7},
        {"training__log_every_steps": 2},
    ],
    ids=["evaluation", "data_dir", "threads", "checkpoints", "log"],
)
def test_what_changes_no_weights_makes_no_other_group(changes, tmp_path):
    one = evaluation("vae,tiny", 0, {"psnr": 1.0})
    other = evaluation("vae,tiny", 1, {"psnr": 2.0}, **changes)
    [group] = read_groups(written(tmp_path, one, other), "ema")
    assert group.name == "vae" and group.seeds == [0, 1]


def test_groups_of_one_method_are_told_apart_by_the_setting_that_differs(tmp_path):
    folders = of_seeds(tmp_path, "vae,tiny", [10.0, 11.0])
    folders += of_seeds(tmp_path, "vae,tiny", [12.0, 13.0], optimizer__learning_rate=5e-3)
    folders += of_seeds(tmp_path, "sintrovae,tiny", [12.0])
    names = [group.name for group in read_groups(folders, "ema")]
    assert names == ["vae optimizer.learning_rate=0.001", "vae optimizer.learning_rate=0.005", "sintrovae"]


def test_readings_of_one_method_have_names_of_their_own(tmp_path):
    folders = of_seeds(tmp_path, "asintrovae,paper,tiny", [1.0]) + of_seeds(
        tmp_path, "asintrovae,released,tiny", [2.0]
    )  # fmt: skip
    assert [group.name for group in read_groups(folders, "ema")] == ["asintrovae,paper", "asintrovae,released"]


def test_critics_protocol_without_features_is_no_other_protocol(tmp_path):
    one, other = evaluation("vae,tiny", 0, {"psnr": 12.0}), evaluation("wgan_gp,tiny", 0, CRITIC_FIGURES)
    del one["protocol"]["generation"]
    assert len(read_groups(written(tmp_path, one, other), "ema")) == 2


def test_one_seed_twice_is_refused(tmp_path):
    result = evaluation("vae,tiny", 3, {"psnr": 1.0})
    with pytest.raises(DataError, match=r"Two of the runs of vae have one seed: \[3, 3\]"):
        read_groups(written(tmp_path, result, result), "ema")


def test_runs_of_one_group_evaluated_at_different_steps_are_refused(tmp_path):
    one, other = evaluation("vae,tiny", 0, {"psnr": 1.0}), evaluation("vae,tiny", 1, {"psnr": 1.0})
    with pytest.raises(DataError, match=r"The runs of vae were evaluated at steps \[2, 4\]"):
        read_groups(written(tmp_path, one, {**other, "step": 2}), "ema")


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ({"samples": 5_000}, r"\(samples\)"),
        ({"sample_seed": 2, "split": "train"}, r"\(sample_seed, split\)"),
        ({"generation": {"features": "inception"}}, r"\(generation\)"),
    ],
)
def test_other_protocols_are_refused_by_name(protocol, said, tmp_path):
    one, other = evaluation("vae,tiny", 0, {"psnr": 1.0}), evaluation("vae,tiny", 1, {"psnr": 1.0}, protocol)
    with pytest.raises(DataError, match=said) as error:
        read_groups(written(tmp_path, one, other), "ema")
    assert error.value.exit_code == 2


def test_protocols_are_those_of_all_runs_in_any_order(tmp_path):
    one = evaluation("vae,tiny", 0, {"psnr": 1.0})
    del one["protocol"]["generation"]
    other = evaluation("vae,tiny", 1, {"psnr": 1.0})
    third = evaluation("vae,tiny", 2, {"psnr": 1.0}, {"generation": {"features": "inception"}})
    folders = written(tmp_path, one, other, third)
    for order in itertools.permutations(folders):
        with pytest.raises(DataError, match="different protocols") as error:
            read_groups(order, "ema")
        # Those that differ are named, the run without features is not.
        assert str(folders[1]) in str(error.value) and str(folders[2]) in str(error.value)
        assert str(folders[0]) not in str(error.value)


def test_seeds_may_be_best_at_steps_of_their_own(tmp_path):
    one, other = evaluation("vae,tiny", 0, {"psnr": 1.0}), evaluation("vae,tiny", 1, {"psnr": 3.0})
    folders = written(tmp_path, {**one, "best_by": "psnr"}, {**other, "best_by": "psnr", "step": 2})
    [group] = read_groups(folders, "ema")
    assert group.mean("psnr", "ema") == 2


def test_other_images_are_another_protocol(tmp_path):
    one, other = evaluation("vae,tiny", 0, {"psnr": 1.0}), evaluation("vae,tiny", 1, {"psnr": 1.0})
    other["config"]["data"]["name"] = "mnist5k"
    with pytest.raises(DataError, match=r"\(data\)"):
        read_groups(written(tmp_path, one, other), "ema")


def test_commit_machine_and_versions_are_no_other_protocol(tmp_path):
    elsewhere = {"versions": {"jax": "2"}, "commit": "c" * 40, "device": "TPU v4"}
    one, other = evaluation("vae,tiny", 0, {"psnr": 1.0}), evaluation("vae,tiny", 1, {"psnr": 1.0}, elsewhere)
    assert len(read_groups(written(tmp_path, one, other), "ema")) == 1


def test_batch_size_of_training_is_no_other_protocol_but_another_group(tmp_path):
    one = evaluation("vae,tiny", 0, {"psnr": 1.0})
    other = evaluation("vae,tiny", 0, {"psnr": 1.0}, data__batch_size=32)
    names = [group.name for group in read_groups(written(tmp_path, one, other), "ema")]
    assert names == ["vae data.batch_size=16", "vae data.batch_size=32"]


@pytest.mark.parametrize(
    "content",
    [
        None, "", "{", "[]", "7", "null", '{"ema": {}}', '{"raw": {}, "intervals": {}}',
        '{"ema": {}, "intervals": {}}', '{"ema": {}, "intervals": {}, "config": {"method": 1}}',
        '{"ema": {}, "intervals": {}, "config": {"method": {"name": "vae"}, "optimizer": {}}}',
    ],
)  # fmt: skip
def test_file_that_is_no_evaluation_is_refused_by_name(content, tmp_path):
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(DataError, match=r"evaluation\.json") as error:
        read_groups([tmp_path], "ema")
    assert "python -m asvae_jax evaluate" in str(error.value)
