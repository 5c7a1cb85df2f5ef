"""Evaluated runs side by side: figures, intervals, verdicts and the command, on evaluations that are made up."""

import json
import math

import pytest
from command_line import command, refusal, terminal  # noqa: F401
from made_up_evaluations import CRITIC_FIGURES, PROTOCOL, evaluation, of_seeds, written
from scipy import stats

from asvae_jax.comparison import Group, difference_table, differences, read_groups, summary
from asvae_jax.errors import DataError


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


def test_summary_has_means_and_intervals_over_seeds(tmp_path):
    text = summary(read_groups(of_seeds(tmp_path, "vae,tiny", [10.0, 12.0]), "ema"), "ema")
    half = stats.t.ppf(0.975, 1)
    assert text.splitlines()[4].startswith(f"| vae | 2 | 11 [{11 - half:.4g}, {11 + half:.4g}] | 2.5 [")


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
