"""Evaluated runs side by side, on evaluations that are made up: groups, intervals, verdicts, refusals."""

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
from command_line import command, refusal, terminal  # noqa: F401
from scipy import stats
from training_runs import digits

from asvae_jax.comparison import Group, difference_table, differences, read_groups, summary
from asvae_jax.errors import DataError

PROTOCOL = {
    "sample_seed": 1, "samples": 100, "versions": {"jax": "1"}, "commit": "a" * 40, "device": "cpu", "split": "test",
    "code": "mean", "generation": {"features": "digits", "network_sha256": "b" * 64, "n_generated": 100},
}  # fmt: skip
# Of runs that have no encoder.
CRITIC_FIGURES = {"fid_digits_n100": 3.0}


def evaluation(words: str, seed: int, figures: dict[str, float], protocol: dict | None = None, **changes) -> dict:
    """What `evaluate` writes: raw figures are ten times the averaged ones, intervals reach 1 either way."""
    config = {**json.loads(json.dumps(digits(words, **changes).to_dict())), "seed": seed}
    raw = {name: 10 * value for name, value in figures.items()}
    return {
        "step": 4,
        "config": config,
        "protocol": {**copy.deepcopy(PROTOCOL), **(protocol or {})},
        "raw": raw,
        "ema": dict(figures),
        "intervals": {
            weights: {name: [value - 1, value + 1] for name, value in values.items() if name != "active_units"}
            for weights, values in (("raw", raw), ("ema", figures))
        },
    }


def written(folder: Path, *evaluations: dict) -> list[Path]:
    """A run's folder for each."""
    folders = [folder / f"run{len(list(folder.iterdir())) + i}" for i in range(len(evaluations))]
    for run, result in zip(folders, evaluations, strict=True):
        run.mkdir()
        (run / "evaluation.json").write_text(json.dumps(result))
    return folders


def of_seeds(folder: Path, words: str, psnr: list[float], **changes) -> list[Path]:
    return written(
        folder,
        *(
            evaluation(words, seed, {"psnr": v, "active_units": 2.0 + seed % 2}, **changes)
            for seed, v in enumerate(psnr)
        ),
    )


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


@pytest.mark.parametrize(
    ("first", "second", "exceeds"),
    [
        ([10.0, 10.1, 9.9], [12.0, 12.1, 11.8], True),
        ([12.0, 12.1, 11.8], [10.0, 10.1, 9.9], True),
        ([10.0, 11.0, 9.0], [10.1, 11.1, 9.1], False),
        ([10.0, 11.0, 9.0], [10.0, 11.0, 9.0], False),
        ([10.0, 12.0], [13.0, 14.0], False),
    ],
)
def test_verdict_is_welchs_over_the_seeds(first, second, exceeds, tmp_path):
    groups = read_groups(of_seeds(tmp_path, "vae,tiny", first) + of_seeds(tmp_path, "sintrovae,tiny", second), "ema")
    found = next(d for d in differences(*groups, "ema") if d.figure == "psnr")
    p = stats.ttest_ind(second, first, equal_var=False).pvalue
    assert found.exceeds_chance is exceeds is bool(p < 0.05)
    assert (found.first, found.second) == (
        pytest.approx(sum(first) / len(first)),
        pytest.approx(sum(second) / len(second)),
    )
    # Second minus first.
    assert found.interval.low < found.second - found.first < found.interval.high


@pytest.mark.parametrize(("apart", "exceeds"), [(1.3, False), (1.5, True), (-1.5, True)])
def test_single_seeds_combine_the_intervals_of_their_evaluations(apart, exceeds, tmp_path):
    # Both reach 1 either way: their difference reaches the root of 2.
    groups = read_groups(
        of_seeds(tmp_path, "vae,tiny", [10.0]) + of_seeds(tmp_path, "wgan_gp,tiny", [10 + apart]), "ema"
    )
    found = {d.figure: d for d in differences(*groups, "ema")}
    assert found["psnr"].interval == pytest.approx((apart - math.sqrt(2), apart + math.sqrt(2)))
    assert found["psnr"].exceeds_chance is exceeds
    assert found["active_units"].interval is None and found["active_units"].exceeds_chance is None
    table = difference_table(*groups, "ema")
    assert "| active_units | 2 | 2 | 0 | not known |" in table
    assert "wgan_gp (1 seed) minus vae (1 seed), ema weights" in table
    assert "| figure | vae | wgan_gp | difference |" in table


def test_single_seed_against_several_takes_the_interval_that_each_has(tmp_path):
    groups = read_groups(
        of_seeds(tmp_path, "vae,tiny", [10.0, 12.0]) + of_seeds(tmp_path, "sintrovae,tiny", [30.0]), "ema"
    )
    found = next(d for d in differences(*groups, "ema") if d.figure == "psnr")
    half = math.hypot(stats.t.ppf(0.975, 1) * math.sqrt(2) / math.sqrt(2), 1)
    assert found.interval == pytest.approx((19 - half, 19 + half))


@pytest.mark.parametrize(("first", "second"), [(16.0, 16.0), (16.0, 10.0)])
def test_figures_that_no_seed_moves_have_a_verdict_or_none(first, second, tmp_path):
    # Every unit of a code in use, whatever the seed: a common case.
    folders = [
        *written(tmp_path, *(evaluation("vae,tiny", seed, {"active_units": first}) for seed in range(3))),
        *written(tmp_path, *(evaluation("sintrovae,tiny", seed, {"active_units": second}) for seed in range(3))),
    ]
    groups = read_groups(folders, "ema")
    [found] = differences(*groups, "ema")
    assert found.exceeds_chance in ((False, None) if first == second else (True, None))
    assert "nan" not in difference_table(*groups, "ema")


def test_weights_choose_the_figures(tmp_path):
    groups = read_groups(of_seeds(tmp_path, "vae,tiny", [10.0]) + of_seeds(tmp_path, "sintrovae,tiny", [11.0]), "raw")
    found = next(d for d in differences(*groups, "raw") if d.figure == "psnr")
    assert (found.first, found.second) == (100, 110) and "raw weights" in difference_table(*groups, "raw")


def test_method_without_an_encoder_has_dashes(tmp_path):
    folders = written(
        tmp_path,
        evaluation("wgan_gp,tiny", 0, CRITIC_FIGURES),
        evaluation("vae,tiny", 0, {"psnr": 12.0, **CRITIC_FIGURES}),
    )
    groups = read_groups(folders, "ema")
    lines = summary(groups, "ema").splitlines()
    assert lines[2] == "| run | seeds | psnr | fid_digits_n100 |"
    assert lines[4] == "| wgan_gp | 1 | - | 3 [2, 4] |"
    assert lines[5] == "| vae | 1 | 12 [11, 13] | 3 [2, 4] |"
    assert [d.figure for d in differences(*groups, "ema")] == ["fid_digits_n100"]
    assert [d.figure for d in differences(*groups[::-1], "ema")] == ["fid_digits_n100"]


def test_critics_protocol_without_features_is_no_other_protocol(tmp_path):
    one, other = evaluation("vae,tiny", 0, {"psnr": 12.0}), evaluation("wgan_gp,tiny", 0, CRITIC_FIGURES)
    del one["protocol"]["generation"]
    assert len(read_groups(written(tmp_path, one, other), "ema")) == 2


def test_summary_has_means_and_intervals_over_seeds(tmp_path):
    text = summary(read_groups(of_seeds(tmp_path, "vae,tiny", [10.0, 12.0]), "ema"), "ema")
    half = stats.t.ppf(0.975, 1)
    assert text.splitlines()[4].startswith(f"| vae | 2 | 11 [{11 - half:.4g}, {11 + half:.4g}] | 2.5 [")


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


def test_figures_that_only_some_runs_have_are_shown(tmp_path):
    folders = written(
        tmp_path,
        evaluation("vae,tiny", 0, {"psnr": 1.0, "ssim": 0.5}),
        evaluation("sintrovae,tiny", 0, {"fid_digits_n100": 7.0}),
    )
    groups = read_groups(folders, "ema")
    lines = summary(groups, "ema").splitlines()
    assert lines[2] == "| run | seeds | psnr | ssim | fid_digits_n100 |"
    assert lines[5] == "| sintrovae | 1 | - | - | 7 [6, 8] |"
    with pytest.raises(DataError, match="vae and sintrovae have no figure in common"):
        difference_table(*groups, "ema")


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


@pytest.mark.parametrize("content", [None, "", "{", "[]", "7", "null", '{"ema": {}}', '{"raw": {}, "intervals": {}}'])
def test_file_that_is_no_evaluation_is_refused_by_name(content, tmp_path):
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(DataError, match=r"evaluation\.json") as error:
        read_groups([tmp_path], "ema")
    assert "python -m asvae_jax evaluate" in str(error.value)


def test_command_prints_markdown_and_writes_it(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    folders = of_seeds(tmp_path / "runs", "vae,tiny", [10.0, 11.0]) + of_seeds(
        tmp_path / "runs", "sintrovae,tiny", [20.0, 21.0]
    )
    out = tmp_path / "table.md"
    said = command(capsys, "compare", *folders, "--out", out)
    assert out.read_text() == summary(read_groups(folders, "ema"), "ema")
    assert said == out.read_text() + f"wrote {out}\n"

    said = command(capsys, "compare", *folders[2:], "--against", *folders[:2], "--out", out)
    assert said.startswith("sintrovae (2 seeds) minus vae (2 seeds), ema weights\n") and out.read_text() in said
    row = next(line for line in said.splitlines() if line.startswith("| psnr"))
    assert row.startswith("| psnr | 10.5 | 20.5 | 10 [") and row.endswith("| yes |")
    raw = command(capsys, "compare", *folders, "--weights", "raw")
    assert "| vae | 2 | 105 [" in raw


def test_command_writes_every_seeds_figures_as_json(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    folders = of_seeds(tmp_path / "runs", "vae,tiny", [10.0, 11.0])
    command(capsys, "compare", *folders, "--out", tmp_path / "all.json")
    kept = json.loads((tmp_path / "all.json").read_text())
    assert kept["weights"] == "ema" and kept["protocol"] == PROTOCOL
    assert kept["runs"] == {"vae": {"seeds": [0, 1], "psnr": [10.0, 11.0], "active_units": [2.0, 3.0]}}


def test_command_reads_another_file_of_each_run(tmp_path, capsys):
    [folder] = of_seeds(tmp_path, "vae,tiny", [10.0])
    (folder / "evaluation.json").rename(folder / "evaluation-best.json")
    assert "| vae | 1 | 10 [9, 11] |" in command(capsys, "compare", folder, "--file", "evaluation-best.json")
    assert "evaluation.json" in refusal(capsys, "compare", folder)


def test_command_compares_two_kinds_of_runs_and_no_more(tmp_path, capsys):
    folders = [*of_seeds(tmp_path, "vae,tiny", [1.0]), *of_seeds(tmp_path, "sintrovae,tiny", [2.0])]
    folders += of_seeds(tmp_path, "introvae,tiny", [3.0])
    said = refusal(capsys, "compare", *folders[1:], "--against", folders[0])
    assert "Each side is to be runs of one kind; one has sintrovae; introvae." in said
    # The two are not sorted anew: a run of the other kind on a side is a mistake.
    (tmp_path / "more").mkdir()
    vae, sintrovae = (of_seeds(tmp_path / "more", f"{name},tiny", [1.0, 2.0]) for name in ("vae", "sintrovae"))
    assert "Each side" in refusal(capsys, "compare", sintrovae[0], vae[1], "--against", vae[0], sintrovae[1])
    assert "Each side" in refusal(capsys, "compare", sintrovae[0], "--against", vae[0], sintrovae[1])
    assert "Both sides are runs of vae" in refusal(capsys, "compare", vae[0], "--against", vae[1])
    assert ".md" in refusal(capsys, "compare", *folders, "--out", tmp_path / "table.txt")


@pytest.mark.parametrize("side", [0, 1])
def test_a_figure_that_a_seed_of_one_side_lacks_has_no_verdict(side, tmp_path):
    figures = [[{"psnr": 1.0, "fid_digits_n100": 7.0} for _ in range(2)] for _ in range(2)]
    del figures[side][1]["fid_digits_n100"]
    groups = [
        Group(name, [evaluation(f"{name},tiny", seed, of_run) for seed, of_run in enumerate(of_side)])
        for name, of_side in zip(("vae", "sintrovae"), figures, strict=True)
    ]
    assert [difference.figure for difference in differences(*groups, "ema")] == ["psnr"]


def test_interval_of_a_group_of_one_is_that_of_its_evaluation():
    group = Group("vae", [evaluation("vae,tiny", 0, {"psnr": 5.0, "active_units": 1.0})])
    assert group.interval("psnr", "ema") == (4.0, 6.0) and group.interval("active_units", "ema") is None
