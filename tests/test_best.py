"""Evaluation in the course of training, and the best checkpoint: what is kept, remembered and refused."""

import json
import math
import re
import shutil
import signal
from pathlib import Path

import pytest
from command_line import command, terminal  # noqa: F401
from training_runs import arguments, assert_bit_equal, assert_close, digits, ended, records, started, toy
from training_runs import wait_until as wait

from asvae_jax.best import BestCheckpoint
from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.config import resolve
from asvae_jax.data.toys import MIXTURES
from asvae_jax.distributed import make_mesh
from asvae_jax.dry_run import dry_run
from asvae_jax.errors import CheckpointError, ConfigError, NotFiniteError
from asvae_jax.evaluation import evaluate
from asvae_jax.presets.toy import toy_config
from asvae_jax.run import BEST, CHECKPOINTS, Run, load_run
from asvae_jax.settings import TOY_LIMITS, Config
from asvae_jax.start import fresh_state
from asvae_jax.terminal import exit_code_of
from asvae_jax.train import train

# Six steps, judged at each second one; images of few figures, since they are not what is tested.
JUDGED = {
    "training__steps": 6,
    "evaluation__every_steps": 2,
    "evaluation__best": "mse",
    "evaluation__measures": ("reconstruction",),
}


def judged(**changes) -> Config:
    return digits("vae,tiny", **{**JUDGED, **changes})


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Run:
    """All steps in one go."""
    return train(judged(), tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def toy_state():
    """(config of a toy, a state of it), small enough to be saved often."""
    config = toy("vae,tiny", evaluation__every_steps=10, evaluation__best="kl")
    return config, fresh_state(config, make_mesh(config))


def judging(best: str) -> Config:
    return digits(
        "vae,tiny", evaluation__every_steps=2, evaluation__best=best,
        evaluation__measures=("reconstruction", "codes", "fid", "kid", "precision_recall"),
    )  # fmt: skip


def steps_kept(folder: Path) -> list[int]:
    with CheckpointStore(folder) as store:
        return store.steps()


def offered(folder: Path, config: Config, state, figures: list[dict[str, float]], first_step: int = 0) -> list[bool]:
    """Which of several steps' figures were found better than all before."""
    with BestCheckpoint(folder, config) as best:
        return [
            best.offer(state._replace(step=state.step + first_step + 1 + step), {}, values)
            for step, values in enumerate(figures)
        ]


@pytest.mark.parametrize(
    ("best", "values", "better"),
    [
        ("fid", [5.0, 7.0, 3.0, 3.0, 2.9], [True, False, True, False, True]),
        ("kid", [0.2, -0.1, 0.0], [True, True, False]),
        ("mse", [math.nan, 0.3, math.nan, 0.1], [False, True, False, True]),
        ("psnr", [5.0, 7.0, 3.0, 7.0, 7.1], [True, True, False, False, True]),
        ("ssim", [-0.1, -0.2, 0.4], [True, False, True]),
        ("elbo", [-90.0, -80.0, -85.0], [True, True, False]),
        ("precision", [0.0, 0.0, 0.1], [True, False, True]),
        ("recall", [math.nan, 0.5, 0.4], [False, True, False]),
        ("density", [1.5, 1.2], [True, False]),
        ("coverage", [1.0, 0.5, 1.0], [True, False, False]),
    ],
)
def test_better_is_higher_or_lower_as_the_figure_has_it(best, values, better, toy_state, tmp_path):
    _, state = toy_state
    # Beside it another figure of a similar name that moves the other way.
    assert offered(tmp_path, judging(best), state, [{f"{best}_other": -v, best: v} for v in values]) == better
    assert steps_kept(tmp_path) == [max(step for step, kept in enumerate(better, 1) if kept)]


@pytest.mark.parametrize(("best", "better"), [("kl", True), ("jsd_paper", True), ("modes_hit", False)])
def test_toys_figures_likewise(best, better, toy_state, tmp_path):
    _, state = toy_state
    config = toy("vae,tiny", evaluation__every_steps=10, evaluation__best=best)
    others = {"kl": 0.0, "kl_paper": 0.0, "jsd": 0.0, "jsd_paper": 0.0, "modes_hit": 0.0}
    assert offered(tmp_path, config, state, [{**others, best: 2.0}, {**others, best: 1.0}]) == [True, better]


@pytest.mark.parametrize("name", ["fid", "fid_n100", "fid_digits", "fid_digits_n100", "fid_tf_n500"])
def test_figures_are_found_by_their_names_endings_too(name, toy_state, tmp_path):
    _, state = toy_state
    assert offered(tmp_path, judging("fid"), state, [{name: 2.0, "kid": 0.0}, {name: 3.0}, {name: 1.0}]) == [
        True, False, True
    ]  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_best(value, toy_state, tmp_path):
    _, state = toy_state
    for best in ("fid", "psnr"):
        assert offered(tmp_path / best, judging(best), state, [{best: value}, {}]) == [False, False]
        assert steps_kept(tmp_path / best) == []


def test_best_of_before_is_remembered(toy_state, tmp_path):
    config, state = toy_state
    assert offered(tmp_path, config, state, [{"kl": 3.0}, {"kl": 2.0}]) == [True, True]
    assert offered(tmp_path, config, state, [{"kl": 2.5}, {"kl": 2.0}], first_step=2) == [False, False]
    assert steps_kept(tmp_path) == [2]
    assert offered(tmp_path, config, state, [{"kl": 1.0}], first_step=4) == [True]
    assert steps_kept(tmp_path) == [5]


def test_best_later_than_where_a_run_goes_on_is_kept_until_a_better_one(toy_state, tmp_path):
    config, state = toy_state
    assert offered(tmp_path, config, state, [{"kl": 3.0}, {"kl": 9.0}, {"kl": 2.0}]) == [True, False, True]
    assert offered(tmp_path, config, state, [{"kl": 9.0}, {"kl": 2.0}], first_step=1) == [False, False]
    assert steps_kept(tmp_path) == [3]
    assert offered(tmp_path, config, state, [{"kl": 1.0}], first_step=1) == [True]
    assert steps_kept(tmp_path) == [2]
    assert (tmp_path / "set-aside-3").is_dir()


def test_an_error_on_the_way_is_not_hidden_by_one_of_closing(toy_state, tmp_path, monkeypatch):
    config, _ = toy_state

    def full(*_):
        raise OSError("No space left on device")

    with pytest.raises(NotFiniteError), BestCheckpoint(tmp_path, config) as best:
        monkeypatch.setattr(best._store._manager, "close", full)
        raise NotFiniteError("of training")


def test_another_question_judges_the_kept_one_by_its_own_figure(toy_state, tmp_path):
    config, state = toy_state
    offered(tmp_path, config, state, [{"kl": 3.0, "jsd": 0.2}])
    other = toy("vae,tiny", evaluation__every_steps=10, evaluation__best="jsd")
    assert offered(tmp_path, other, state, [{"kl": 1.0, "jsd": 0.3}, {"jsd": 0.1}], first_step=1) == [False, True]


def test_figures_by_other_features_are_not_compared(toy_state, tmp_path):
    config, (_, state) = judging("fid"), toy_state
    assert offered(tmp_path, config, state, [{"fid_digits_n100": 3.0}]) == [True]
    offers = [{"fid_n100": 60.0}, {"fid_n100": 70.0}, {"fid": 65.0}]
    assert offered(tmp_path, config, state, offers, first_step=1) == [True, False, True]


def test_whatever_comes_is_better_than_a_damaged_best(toy_state, tmp_path):
    config, state = toy_state
    offered(tmp_path, config, state, [{"kl": 1.0}])
    shutil.rmtree(tmp_path / "1" / "meta")
    assert offered(tmp_path, config, state, [{"kl": 9.0}], first_step=1) == [True]


def figures_of(folder: Path, name: str) -> dict[int, float]:
    return {r["step"]: r[f"evaluation/{name}"] for r in records(folder) if f"evaluation/{name}" in r}


def test_figures_of_evaluations_are_logged_with_the_others(straight):
    seen = figures_of(straight.folder, "mse")
    assert list(seen) == [2, 4, 6]
    assert all(list(figures_of(straight.folder, name)) == [2, 4, 6] for name in ("psnr", "ssim"))
    # Those of the averaged weights, as `evaluate` gives them of the checkpoints.
    for step in (4, 6):
        expected = evaluate(load_run(straight.folder, step), weights=("ema",))["ema"]["mse"]
        assert seen[step] == pytest.approx(expected, rel=1e-5)


def test_best_checkpoint_is_loaded_by_name(straight):
    seen = figures_of(straight.folder, "mse")
    best = load_run(straight.folder, "best")
    assert best.step == min(seen, key=seen.get) and best.config == straight.config
    same = load_run(straight.folder, best.step)
    assert_bit_equal((best.params, best.ema, best.statistics), (same.params, same.ema, same.statistics))
    with CheckpointStore(straight.folder / BEST) as store:
        assert store.steps() == [best.step]
        assert store.read_meta(best.step)["figures"]["mse"] == pytest.approx(seen[best.step], rel=1e-6)


def test_best_of_the_first_leg_outlives_a_resume_and_the_newest_checkpoints(tmp_path, monkeypatch):
    made_up = {2: 1.0, 4: 2.0, 6: 1.5}
    monkeypatch.setattr(
        "asvae_jax.evaluation.Evaluator.evaluate",
        lambda self, run, **_: {"step": run.step, "ema": {"mse": made_up[run.step]}},
    )
    train(judged(training__steps=4, checkpoint__keep_last=1), tmp_path)
    assert load_run(tmp_path, "best").step == 2
    train(judged(checkpoint__keep_last=1), tmp_path)
    assert load_run(tmp_path, "best").step == 2
    assert steps_kept(tmp_path / CHECKPOINTS) == [6] and steps_kept(tmp_path / BEST) == [2]
    assert figures_of(tmp_path, "mse") == made_up


def test_killed_run_sets_aside_a_best_that_it_has_not_reached_again(straight, tmp_path):
    # A kill took all but the checkpoint of step 2; the best one is of a later step.
    folder = tmp_path / "run"
    shutil.copytree(straight.folder, folder)
    assert load_run(folder, "best").step > 2
    for step in (4, 6):
        shutil.rmtree(folder / CHECKPOINTS / str(step))
    again = train(judged(), folder)
    assert list(figures_of(folder, "mse")) == [2, 4, 6]
    assert load_run(folder, "best").step == load_run(straight.folder, "best").step
    assert_close(again.ema, straight.ema, rtol=1e-6)


def test_best_checkpoint_is_evaluated_into_a_file_of_its_own(straight, capsys):
    command(capsys, "evaluate", straight.folder, "--step", "best", "--weights", "ema")
    kept = json.loads((straight.folder / "evaluation-best.json").read_text())
    seen = figures_of(straight.folder, "mse")
    assert kept["step"] == min(seen, key=seen.get) and kept["best_by"] == "mse"
    # The same weights and statistics as were judged in training.
    assert kept["ema"]["mse"] == pytest.approx(seen[kept["step"]], rel=1e-6)


def test_folder_of_a_step_leaves_no_step_to_choose(straight):
    with pytest.raises(CheckpointError, match=r"is step 4 already"):
        load_run(straight.folder / CHECKPOINTS / "4", "best")
    assert load_run(straight.folder / CHECKPOINTS / "4").step == 4


def test_best_by_fid_of_the_digits_features(tmp_path):
    config = judged(training__steps=4, evaluation__best="fid", evaluation__measures=("fid",), evaluation__samples=60)
    trained = train(config, tmp_path)
    seen = figures_of(tmp_path, "fid_digits_n60")
    assert list(seen) == [2, 4] and load_run(tmp_path, "best").step == min(seen, key=seen.get)
    # The reference is measured once and serves the second evaluation as it did the first.
    measured = evaluate(trained, weights=("ema",))["ema"]["fid_digits_n60"]
    assert seen[4] == pytest.approx(measured, rel=1e-6)


def test_best_of_a_toy(tmp_path):
    train(toy("vae,tiny", evaluation__every_steps=10, evaluation__best="jsd"), tmp_path)
    seen = figures_of(tmp_path, "jsd")
    assert list(seen) == [10, 20] and load_run(tmp_path, "best").step == min(seen, key=seen.get)


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        ("vae,tiny", {"evaluation__best": "mse"}, r"evaluation\.best='mse' is judged every evaluation\.every_steps"),
        ("vae,tiny", {"evaluation__every_steps": 3}, r"evaluation\.every_steps=3"),
        ("vae,tiny", {"evaluation__every_steps": 1}, r"evaluation\.every_steps=1"),
        ("vae,tiny", {"evaluation__every_steps": -2}, r"evaluation\.every_steps"),
        (
            "vae,tiny",
            {"evaluation__every_steps": 2, "evaluation__best": "fid", "evaluation__measures": ("kid",)},
            r"evaluation\.best='fid' is measured by none of evaluation\.measures=\('kid',\)",
        ),
        ("wgan_gp,tiny", {"evaluation__every_steps": 2, "evaluation__best": "psnr"}, "needs an encoder"),
        ("vae,tiny", {"evaluation__every_steps": 2, "evaluation__best": "fidd"}, "Did you mean 'fid'"),
        ("vae,tiny", {"evaluation__every_steps": 2, "evaluation__best": "active_units"}, "is not known"),
    ],
)
def test_settings_that_make_no_sense_are_refused(words, changes, said):
    with pytest.raises(ConfigError, match=said):
        digits(words, **changes)


@pytest.mark.parametrize("name", TOY_LIMITS)
def test_toys_without_modes_have_no_best_by_modes(name):
    config = toy_config("vae,tiny", name=name)
    config.evaluation.update(best="modes_hit", every_steps=10)
    if name not in MIXTURES:
        with pytest.raises(ConfigError, match=f"{name} has no modes"):
            resolve(config)
    else:
        resolve(config)


def test_plan_of_evaluation_is_told_by_the_dry_run(tmp_path):
    assert "reconstruction, every 2 steps and at the end; the best by mse is kept" in dry_run(judged(), tmp_path)
    assert "2-D measures, at the end" in dry_run(toy("vae,tiny"), tmp_path)


def test_signal_during_an_evaluation_exits_with_75_and_the_state_is_saved(tmp_path):
    # Long enough an evaluation that it is never over before the signal.
    config = judged(
        evaluation__samples=2_000_000, evaluation__best="fid", evaluation__measures=("fid",), training__steps=4
    )
    with started(arguments(config, "vae,tiny", tmp_path)) as process:
        # Sheets are drawn, and figures of step 2 written, before that step's evaluation.
        wait(lambda: (tmp_path / "sheets" / "raw-0000002.png").exists(), process)
        process.send_signal(signal.SIGTERM)
        finished = ended(process)
    assert finished.returncode == 75, finished.stderr
    assert re.search(r"error: Stopped at step 2 as asked; the state is saved\.", finished.stderr)
    assert steps_kept(tmp_path / CHECKPOINTS) == [2] and records(tmp_path)[-1]["step"] == 2
    assert figures_of(tmp_path, "fid_digits") == {}

    # Evaluation may be made cheaper when the run goes on.
    train(judged(training__steps=4), tmp_path)
    assert list(figures_of(tmp_path, "mse")) == [4] and load_run(tmp_path, "best").step == 4


def test_refused_reference_ends_training_before_it_starts_with_2(tmp_path, capsys):
    config = digits("vae,tiny", evaluation__reference_file=str(tmp_path / "absent.npz"))
    assert exit_code_of(lambda: train(config, tmp_path / "run")) == 2
    assert "absent.npz" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_settings_of_evaluation_lie_beside_the_run(straight):
    kept = json.loads((straight.folder / "config.json").read_text())["evaluation"]
    assert kept["every_steps"] == 2 and kept["best"] == "mse" and kept["measures"] == ["reconstruction"]
