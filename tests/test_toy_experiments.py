"""The tables of toys, and their samples drawn: what is trained and what is read, and what they say."""

import csv
import json

import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401
from PIL import Image
from toy_cells import BUDGET, draw, stops_after, tiny, width_of  # noqa: F401
from training_runs import ended, started, wait_until

from asvae_jax import sweep
from asvae_jax.data.toys import MIXTURES
from asvae_jax.errors import EXIT_PREEMPTED, EXIT_STORAGE
from asvae_jax.examples import preview_examples
from asvae_jax.experiments import ablations, table1, toy_drawings
from asvae_jax.experiments.toy_cells import OWN_BETAS, Budget, Cell
from asvae_jax.figures import Panel, points_grid

SMALL = ("--betas", "c1", "--toys", "rings", "--variants", "vae", "asintrovae,released")


def test_a_table_trains_what_is_missing_and_nothing_else(table, trained, tmp_path):
    first = table(*SMALL, "--seeds", 0)
    assert trained == [[0]] * 4
    page = (tmp_path / "table1.md").read_text()
    assert first.endswith(page.removeprefix("<!-- table 1 -->\n").removesuffix("<!-- end of table 1 -->\n") + "\n")
    table(*SMALL, "--seeds", 0)
    assert (tmp_path / "table1.md").read_text() == page and len(trained) == 4
    table(*SMALL, "--seeds", 0, 1)
    assert trained[4:] == [[1]] * 4
    assert len((tmp_path / "toys.jsonl").read_text().splitlines()) == 8


def test_of_stored_runs_alone_a_table_trains_nothing(table, trained, tmp_path):
    table(*SMALL, "--seeds", 0)
    again = table(*SMALL, "--seeds", 0, 1, "--stored")
    assert len(trained) == 4
    assert "Partial: 4 of 8 runs are done; without `--stored` it trains the others." in again
    assert again.strip() in (tmp_path / "table1.md").read_text()


@pytest.mark.parametrize("name", ["table 1", "table ablations", "figure 3"])
def test_of_no_stored_run_nothing_is_made(name, capsys, tmp_path):
    said = refusal(capsys, *name.split(), "--betas", "c1", "--toys", "--stored", "--out", tmp_path)
    assert "toys.jsonl has none of these runs; leave out --stored" in said
    assert not list(tmp_path.iterdir())


def test_what_is_named_twice_is_one_cell(table, trained, tmp_path):
    options = ("--betas", "c1", "c1", "--toys", "--variants", "vae", "vae", "--seeds", 4, 4)
    table(*options)
    assert trained == [[4]]
    [row] = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert row["seeds"] == [4] and row["missing_seeds"] == 0


def test_seeds_and_betas_share_programs(table, trained):
    table("--betas", "c1", "c3", "--toys", "--variants", "vae", "--seeds", 3, 4)
    assert trained == [[3, 4, 3, 4]]
    table("--betas", "c1", "c3", "--toys", "--variants", "vae", "--seeds", 5, 6, "--together", 3)
    assert trained[1:] == [[5, 6, 5], [6]]


@pytest.mark.parametrize(("options", "mixed"), [((), False), (("--together", 8), True)])
def test_kernels_share_a_program_on_a_cpu_only_where_they_are_told_to(options, mixed, table, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, "grouped", lambda configs, *, at_most, mixed: asked.append(mixed) or [])
    table("--betas", "c1", "--toys", "--variants", "asintrovae,paper", "--seeds", 3, *options, name="ablations")
    assert asked == [mixed]


@pytest.mark.parametrize("variant", ["asintrovae,released", "asintrovae,recommended"])
def test_combinations_of_weights_fit_into_one_program(variant):
    cells = table1.table_cells(("c1", "c2", "c3"), (), [variant], range(20))
    assert len(sweep.grouped([cell.config(Budget(30_000, 512)) for cell in cells], at_most=60)) == 1


@pytest.mark.parametrize("name", ["1", "ablations"])
def test_folder_that_cannot_be_written_is_told_of_before_anything_is_trained(name, trained, tmp_path, capsys):
    (tmp_path / "file").touch()
    options = ("--betas", "c1", "--toys", "--variants", "asintrovae,paper")
    said = command(capsys, "table", name, *options, "--out", tmp_path / "file", code=EXIT_STORAGE)
    assert "cannot be written" in said and not trained
    (tmp_path / "samples").touch()
    said = command(capsys, "table", name, *options, "--out", tmp_path, code=EXIT_STORAGE)
    assert "samples cannot be written" in said and not trained


def test_fewer_steps_than_the_warm_up_are_refused_in_words(tmp_path, capsys):
    options = ("--betas", "c1", "--toys", "--variants", "vae", "sintrovae", "--steps", 5, "--stored")
    said = refusal(capsys, "table", "1", *options, "--out", tmp_path)
    assert "--steps 5 ends within the warm-up of sintrovae, 10 steps" in said


def test_ablations_leave_out_a_warm_up_that_does_not_fit(table, monkeypatch, tmp_path):
    changes = {"as it is": {}, "warm-up": {"training.warmup_steps": 20}, "less": {"training.warmup_steps": 15}}
    monkeypatch.setattr(ablations, "ABLATIONS", dict.fromkeys(ablations.BASES, changes))
    monkeypatch.setattr(sweep, "train_together", stops_after(0))
    options = ("--betas", "c1", "--toys", "--variants", "asintrovae,recommended")
    table(*options, name="ablations", code=EXIT_PREEMPTED)
    assert "Partial: 0 of 2 runs" in (tmp_path / "ablations.md").read_text()


def test_a_table_shows_spread_published_figures_and_what_is_missing(table, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "train_together", stops_after(1))
    options = ("--betas", "c1", "--toys", "25gaussians", "--variants", "vae", "introvae", "--seeds", 0, 1)
    assert "Interrupted; run the same command again." in table(*options, code=EXIT_PREEMPTED)
    page = (tmp_path / "table1.md").read_text()
    assert "Partial: 2 of 8 runs are done" in page
    assert "| C1 | introvae | 0 of 2 | - | - | - | - (192.4) | - (56.0) |" in page
    assert "the last quarter at a tenth of the learning rate;" in page and "the paper's own in brackets." in page
    monkeypatch.undo()
    lines = list(csv.DictReader((tmp_path / "table1.csv").read_text().splitlines()))
    [line] = [line for line in lines if (line["weights"], line["figure"]) == ("ema", "jsd_paper")]
    assert (line["variant"], line["seeds"], line["published"]) == ("vae", "2", "110.1")
    [row, *others] = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert row["seeds"] == [0, 1] and all(other["seeds"] == [] for other in others)
    assert float(line["median"]) == np.median(row["ema"]["jsd_paper"])
    assert float(line["low"]) < float(line["mean"]) < float(line["high"])


def test_a_table_shows_each_run_of_8_gaussians(table, tmp_path):
    options = ("--betas", "c1", "c2", "--toys", "--variants", "vae", "--seeds")
    table(*options, 1)
    table(*options, 0, "--betas", "c2")
    file = tmp_path / "toys.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record, modes, found_at in zip(records, (8, 8, 7), (18, 20, 3), strict=True):
        record["ema"].update(modes_hit=modes, kl_paper=1.254, jsd_paper=2.0, strays=0.0123)
        record["raw"].update(kl_paper=0.1, jsd_paper=30.0)
        record["curve"] = {"modes_hit": [8 if point < found_at else 7 for point in range(20)]}
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    table(*options, 1, 0, "--stored")
    _, runs = (tmp_path / "table1.md").read_text().split("| method | seed | C1 | C2 |\n| --- | --- | --- | --- |\n")
    figures = "; 1.25 / 2 (0.1 / 30); 1.2 %"
    assert runs.splitlines()[:2] == [
        f"| vae | 0 | - | 7{figures} |",
        f"| vae | 1 | 8 (18 of 20){figures} | 8{figures} |",
    ]


def test_spread_is_median_smallest_and_largest():
    assert table1.spread([3.0, 1.0, 10.0]) == "3 [1, 10]"
    assert table1.spread([2.0, 2.0], 3.4) == "2 (3.4)"
    assert table1.spread([], 3.4) == "- (3.4)"


def test_all_modes_are_those_of_the_toy():
    def row(toy_name, *modes):
        cell = Cell(toy_name, OWN_BETAS, "vae", (), 0)
        return table1.Row((cell,) * 3, tuple({"ema": {"modes_hit": hit}} for hit in modes))

    assert table1.all_modes(row("8gaussians", 8.0, 7.0, 8.0), "ema") == "2 of 3"
    assert table1.all_modes(row("25gaussians", 8.0, 25.0), "ema") == "1 of 2"
    assert table1.all_modes(row("8gaussians"), "ema") == "-"


def test_ablations_change_what_they_say_and_share_cells_with_the_table(table, trained, monkeypatch, tmp_path):
    monkeypatch.setattr(
        ablations,
        "ABLATIONS",
        {
            base: {
                "as it is": {},
                "kernel prior": {"method.kernel": "prior"},
                "weight of KL": {"method.w_enc": lambda betas: betas.b_kl},
                "weight 0.3": {"method.w_enc": 0.3},
            }
            for base in ablations.BASES
        },
    )
    chosen = ("--betas", "c1", "--toys", "rings", "--variants", "asintrovae,released", "--seeds", 0)
    table(*chosen)
    text = table(*chosen, name="ablations")
    # Under C1 two of the changes are one.
    assert sum(map(len, trained)) == 3 + 4
    gaussians, rings = (text.partition("released, other toys, ema")[index] for index in (0, 2))
    for name in ("as it is", "kernel prior", "weight of KL", "weight 0.3"):
        assert gaussians.count(f"| {name} | 0 of 1; ") == 2
        assert rings.count(f"| {name} | ") == 2
    assert "the last quarter at a tenth of the learning rate;" in text and "in brackets" not in text
    settings = [json.loads(line)["settings"] for line in (tmp_path / "toys.jsonl").read_text().splitlines()]
    changed = [(run["data"]["name"], run["method"]["kernel"], run["method"]["w_enc"]) for run in settings]
    assert sorted(changed) == [
        ("8gaussians", "per_dim", 0.3), ("8gaussians", "per_dim", 1.0), ("8gaussians", "prior", 1.0),
        ("rings", "per_dim", 0.2), ("rings", "per_dim", 0.3), ("rings", "per_dim", 1.0), ("rings", "prior", 1.0),
    ]  # fmt: skip


def test_a_change_that_is_none_on_a_toy_says_so(table, monkeypatch):
    changes = {"as it is": {}, "weight 0.3": {"method.b_kl": 0.3}, "weight 0.2": {"method.b_kl": 0.2}}
    monkeypatch.setattr(ablations, "ABLATIONS", dict.fromkeys(ablations.BASES, changes))
    text = table("--betas", "c1", "--toys", "rings", "--variants", "asintrovae,paper", "--seeds", 0, name="ablations")
    gaussians, rings = (text.partition("paper, other toys, ema")[index] for index in (0, 2))
    assert "weight 0.3" not in gaussians and gaussians.count("| weight 0.2 | 0 of 1; ") == 2
    assert "weight 0.2" not in rings and rings.count("| weight 0.3 | ") == 2


def test_preempted_table_keeps_what_is_done_and_ends_with_75(tmp_path):
    words = ["--betas", "c1", "--toys", "--variants", "vae", "--seeds", *map(str, range(50)), "--together", "1"]
    lengths = ["--steps", "1000", "--batch-size", "4", "--out", str(tmp_path)]
    done = tmp_path / "toys.jsonl"
    with started(["-m", "asvae_jax", "table", "1", *words, *lengths], devices=1) as process:
        # The file is there a moment before its first line, and what is on its way when the signal comes is lost.
        wait_until(lambda: done.exists() and done.read_text().endswith("\n"), process)
        process.terminate()
        finished = ended(process)
    assert finished.returncode == EXIT_PREEMPTED and "Interrupted; run the same command again." in finished.stderr
    assert 1 <= len(done.read_text().splitlines()) < 50


def test_an_interrupted_ablation_shows_what_is_done(table, monkeypatch, tmp_path):
    changes = {"as it is": {}, "kernel prior": {"method.kernel": "prior"}}
    monkeypatch.setattr(ablations, "ABLATIONS", dict.fromkeys(ablations.BASES, changes))
    monkeypatch.setattr(sweep, "train_together", stops_after(1))
    options = ("--betas", "c1", "--toys", "--variants", "asintrovae,released", "--seeds", 0)
    table(*options, name="ablations", code=EXIT_PREEMPTED)
    page = (tmp_path / "ablations.md").read_text()
    assert "Partial: 1 of 2 runs are done" in page and "as it is" in page and "kernel prior" not in page


@pytest.mark.parametrize(
    ("base", "name", "changes"),
    [(base, name, changes) for base, by_name in ablations.ABLATIONS.items() for name, changes in by_name.items()],
)
def test_every_ablation_is_a_possible_config_of_its_own(base, name, changes):
    places = table1.places(("c1", "c2", "c3"), ("2spirals", "checkerboard"))
    cells = [ablations.changed(Cell(toy, word, base, (), 0), changes, BUDGET) for toy, word in places]
    if "training.warmup_steps" in changes:
        # More than all the steps of a tiny run.
        assert cells[0].config(Budget(5_000, 32)).training.warmup_steps == changes["training.warmup_steps"]
        return
    # A change may be what is so anyhow on one toy or under one combination.
    same = [cell.config(BUDGET) == cell._replace(changes=()).config(BUDGET) for cell in cells]
    assert all(same) == (not changes)


def test_unknown_variants_and_no_toy_at_all_are_refused(capsys):
    assert "Did you mean 'asintrovae,released'?" in refusal(
        capsys, "table", "1", "--variants", "asintrovae,release", "--seeds", 0
    )
    for name in (("table", "1"), ("table", "ablations"), ("figure", "3")):
        assert "Neither --betas nor --toys" in refusal(capsys, *name, "--betas", "--toys")


def test_samples_are_drawn_again_where_their_points_are_gone(capsys, tmp_path, trained):
    options = ("--betas", "c1", "c2", "--toys", "25gaussians", "--variants", "vae", "wgan_gp", "--seeds", 0, 1)
    names = ["figure3.png", "figure3-25gaussians.png", "figure3-curves.png"]
    assert draw(capsys, tmp_path, "3", *options) == [str(tmp_path / name) for name in names]
    programs = len(trained)
    before = (tmp_path / "figure3-25gaussians.png").read_bytes()
    records = (tmp_path / "toys.jsonl").read_bytes()
    [points] = (tmp_path / "samples").glob("25gaussians-vae-s0-*.npy")
    points.unlink()
    draw(capsys, tmp_path, "3", *options, "--stored")
    assert len(trained) == programs and (tmp_path / "figure3-25gaussians.png").read_bytes() != before
    # A combination without any run has no curve, and a picture without samples is not drawn.
    for file in (tmp_path / "samples").glob("25gaussians-*"):
        file.rename(tmp_path / file.name)
    stored = ("--betas", "c1", "c2", "c3", "--stored")
    assert draw(capsys, tmp_path, "3", *options, *stored) == [str(tmp_path / name) for name in (names[0], names[2])]
    for file in tmp_path.glob("25gaussians-*"):
        file.rename(tmp_path / "samples" / file.name)
    draw(capsys, tmp_path, "3", *options)
    assert trained[programs:] == [[0]]
    assert (tmp_path / "figure3-25gaussians.png").read_bytes() == before
    # A picture changes no figure of a table.
    assert (tmp_path / "toys.jsonl").read_bytes() == records
    assert all(width_of(tmp_path / name) > 500 for name in names)


def test_modes_are_drawn_from_near_of_methods_that_have_them_all(capsys, tmp_path):
    options = ("--betas", "c1", "c2", "--toys", "--variants", "vae", "wgan_gp", "--seeds", 0)
    names = [str(tmp_path / name) for name in ("figure3.png", "figure3-modes.png", "figure3-curves.png")]
    assert draw(capsys, tmp_path, "3", *options) == [names[0], names[2]]
    # One run, whatever the betas: it is drawn once.
    [points] = (tmp_path / "samples").glob("8gaussians-wgan_gp-s0-*.npy")
    real = preview_examples(Cell("8gaussians", "c1", "wgan_gp", (), 0).config(BUDGET))
    np.save(points, real.astype(np.float16))
    assert draw(capsys, tmp_path, "3", *options, "--stored") == names
    with Image.open(names[1]) as opened:
        columns, rows = opened.width // 340, opened.height // 340
    assert (columns, rows) == (8, 2)


def test_a_panel_holds_one_mode_in_its_widths():
    centre, width = MIXTURES["8gaussians"].centres[3], MIXTURES["8gaussians"].width
    others = np.delete(MIXTURES["8gaussians"].centres, 3, axis=0)
    points = np.concatenate([centre + width * np.array([[1.0, -2.0], [0.0, 4.9], [5.1, 0.0]]), others])
    panel = toy_drawings._from_near(points, centre, width)
    np.testing.assert_allclose(panel.points, [[1.0, -2.0], [0.0, 4.9]], atol=1e-9)
    assert panel.note == "20.0%"


def test_points_stand_below_the_names_of_their_columns():
    points = np.zeros((1, 2))

    def top_rows(names):
        rows = {betas: dict.fromkeys(names, Panel(points)) for betas in ("C1", "C2")}
        grid = points_grid(rows, {"C1": 1, "C2": 1}, title="")
        pixels = np.asarray(grid.convert("L"))
        return pixels[: pixels.shape[0] // 2]

    # The panels are the same: only the names can tell the two apart.
    assert not np.array_equal(top_rows(["real", "vae"]), top_rows(["real", "wgan_gp"]))
