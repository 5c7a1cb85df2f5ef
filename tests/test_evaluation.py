"""Evaluating a run: figures against direct computations, their intervals and protocol."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401

from asvae_jax import generation
from asvae_jax.data.records import Split
from asvae_jax.distributed import local_mesh
from asvae_jax.errors import Preempted
from asvae_jax.evaluation import evaluate, table, write_evaluation
from asvae_jax.examples import Examples
from asvae_jax.features.networks import open_network
from asvae_jax.generation import feature_statistics, measure_split
from asvae_jax.metrics import reconstruction
from asvae_jax.metrics.frechet import frechet_distance
from asvae_jax.run import SAMPLE_SEED, Run, decode, encode, make_autoencode, make_generate, reconstruct
from asvae_jax.scores import DRAWS, score

TRAIN, TEST = 1_438, 359
OF_IMAGES = ["psnr", "ssim", "mse"]
OF_CODES = ["elbo", "kl_real", "active_units"]
OF_FEATURES = [
    "fid_digits_n100",
    *(f"{figure}_digits" for figure in ("kid", "precision", "recall", "density", "coverage")),
]


@pytest.fixture(scope="module")
def result(digits_run) -> dict:
    return evaluate(digits_run)


def with_evaluation(run: Run, **changes) -> Run:
    config = run.config
    return run._replace(
        config=dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **changes))
    )


def features_of(images: np.ndarray) -> np.ndarray:
    """All at once, on one device."""
    network = open_network("digits")
    return np.asarray(jax.jit(network.apply)(network.variables, images))


def test_figures_and_their_names(result):
    for weights in ("raw", "ema"):
        assert list(result[weights]) == OF_IMAGES + OF_CODES + OF_FEATURES
        assert all(np.isfinite(list(result[weights].values())))
    assert result["raw"] != result["ema"]


def test_every_figure_lies_in_its_interval_and_active_units_has_none(result):
    for weights in ("raw", "ema"):
        figures, intervals = result[weights], result["intervals"][weights]
        assert set(intervals) == set(figures) - {"active_units"}
        for name, (low, high) in intervals.items():
            assert low <= figures[name] <= high, name
        assert all(intervals[name][0] < intervals[name][1] for name in (*OF_IMAGES, "elbo", *OF_FEATURES[:2]))


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_reconstruction_is_the_mean_over_every_image_of_the_test_split(weights, digits_run, result):
    # 359 images are 6 batches of 52 and one of 47.
    images = Examples(digits_run.config).rows(np.arange(TEST))
    decoded = reconstruct(digits_run, images, weights=weights)
    for name in OF_IMAGES:
        per_image = np.asarray(getattr(reconstruction, name)(jnp.asarray(images), jnp.asarray(decoded)), np.float64)
        assert per_image.shape == (TEST,)
        assert result[weights][name] == pytest.approx(per_image.mean(), rel=1e-5)


def test_codes_against_a_direct_computation(digits_run, result, monkeypatch):
    images = Examples(digits_run.config).rows(np.arange(TEST))
    codes = encode(digits_run, images)
    mean, logvar = np.asarray(codes.mean, np.float64), np.asarray(codes.logvar, np.float64)
    kl = 0.5 * np.sum(np.exp(logvar) + mean**2 - 1 - logvar, axis=1)
    assert result["ema"]["kl_real"] == pytest.approx(kl.mean(), rel=1e-5)

    scores = score(digits_run, "ema", Examples(digits_run.config).rows, TEST)
    np.testing.assert_allclose(scores.code_variance, mean.var(axis=0), rtol=1e-4)
    assert result["ema"]["active_units"] == np.sum(mean.var(axis=0) > 0.01)
    # That all or none are in use would hide a wrong comparison; between two variances rounding decides nothing.
    monkeypatch.setattr("asvae_jax.scores.ACTIVE_VARIANCE", np.sort(mean.var(axis=0))[1:3].mean())
    assert scores.active_units == digits_run.config.model.latent_dim - 2


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_elbo_against_a_direct_computation(value_range, digits_run):
    # As in training, errors are those of what the networks see.
    data = dataclasses.replace(digits_run.config.data, value_range=value_range)
    run = digits_run._replace(config=dataclasses.replace(digits_run.config, data=data))
    images = Examples(run.config).rows(np.arange(TEST))
    codes = encode(run, images)
    mean, std = np.asarray(codes.mean), np.exp(np.asarray(codes.logvar) / 2)
    kl = 0.5 * np.sum(std**2 + mean**2 - 1 - 2 * np.log(std), axis=1)
    keys = [jax.random.fold_in(jax.random.key(3), index) for index in range(TEST)]
    eps = np.stack([jax.random.normal(key, (DRAWS, mean.shape[1])) for key in keys])
    _, decode_codes = make_autoencode(run.config)
    low, high = value_range
    errors = []
    for draw in range(DRAWS):
        decoded = decode_codes(run.weights("ema"), jnp.asarray(mean + std * eps[:, draw]))
        errors.append(np.square((high - low) * (images - np.asarray(decoded))).sum(axis=(1, 2, 3)))
    elbo = -(run.config.method.b_rec / run.config.method.b_kl) * np.mean(errors, axis=0) - kl
    scored = score(run, "ema", Examples(run.config).rows, TEST).per_image["elbo"]
    np.testing.assert_allclose(scored, elbo, rtol=1e-4)
    assert scored.mean() == pytest.approx(elbo.mean(), rel=1e-5)


def test_elbo_of_a_run_is_the_mean_over_its_test_split(digits_run, result):
    scored = score(digits_run, "ema", Examples(digits_run.config).rows, TEST).per_image["elbo"]
    assert result["ema"]["elbo"] == pytest.approx(scored.mean(), rel=1e-5)


def test_run_without_a_kl_in_its_loss_has_no_elbo(digits_run):
    method = dataclasses.replace(digits_run.config.method, b_kl=0.0)
    run = digits_run._replace(config=dataclasses.replace(digits_run.config, method=method))
    figures = evaluate(with_evaluation(run, measures=("reconstruction",)), weights=["ema"])["ema"]
    assert list(figures) == OF_IMAGES
    assert "elbo" not in score(run, "ema", Examples(run.config).rows, TEST).per_image


def test_evaluation_that_is_stopped_leaves_no_file(digits_run, tmp_path):
    def stop():
        raise Preempted("stopped")

    with pytest.raises(Preempted):
        write_evaluation(digits_run._replace(folder=tmp_path), poll=stop)
    assert list(tmp_path.iterdir()) == []


def test_squared_error_is_that_of_the_decoded_mean_code(digits_run):
    images = Examples(digits_run.config).rows(np.arange(60))
    scores = score(digits_run, "raw", Examples(digits_run.config).rows, 60)
    errors = np.square(images - reconstruct(digits_run, images, weights="raw")).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(scores.per_image["err"], errors, rtol=1e-4)
    np.testing.assert_allclose(scores.per_image["err"], 64 * scores.per_image["mse"], rtol=1e-5)


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_fid_is_that_of_all_features_at_once(weights, digits_run, result):
    real = features_of(Split(digits_run.config.data, "train").rows(np.arange(TRAIN))).astype(np.float64)
    made = make_generate(digits_run, jax.random.key(SAMPLE_SEED), weights)(np.arange(100))
    generated = features_of(np.asarray(made)).astype(np.float64)
    gaussians = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in (real, generated)]
    expected = frechet_distance(*gaussians[0], *gaussians[1])
    assert result[weights]["fid_digits_n100"] == pytest.approx(expected, rel=1e-6)


def test_features_kept_are_the_first_in_the_order_of_the_split(digits_run, monkeypatch):
    monkeypatch.setattr(generation, "KEPT", 70)  # a whole batch and a part of the next
    reference = measure_split(digits_run.config.data, "train", open_network("digits"), 52)
    order = np.random.RandomState(0).permutation(TRAIN)
    expected = features_of(Split(digits_run.config.data, "train").rows(order[:70]))
    assert reference.number == TRAIN and reference.kept.shape == (70, 64)
    np.testing.assert_allclose(reference.kept, expected, rtol=1e-5, atol=1e-5)


def test_blocks_share_out_all_images(digits_run):
    network = open_network("digits")
    images = Split(digits_run.config.data, "test").rows(np.arange(101))
    found = feature_statistics(network, lambda indices: images[indices], 101, 20, blocks=10)
    assert sorted({block.number for block in found.blocks}) == [10, 11] and found.number == 101
    features = features_of(images).astype(np.float64)
    mean, covariance = found.whole().mean_and_covariance()
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.kept, features, rtol=1e-5, atol=1e-5)


def assert_same_figures(got: dict, expected: dict, rel: float) -> None:
    for weights in set(got) & {"raw", "ema"}:
        assert got[weights] == pytest.approx(expected[weights], rel=rel)
        for name, interval in got["intervals"][weights].items():
            # As exact as the figures: an interval's own size is no measure of it.
            size = abs(expected[weights][name])
            assert interval == pytest.approx(expected["intervals"][weights][name], abs=rel * size), name


def test_figures_do_not_depend_on_the_batch(digits_run, result):
    assert_same_figures(evaluate(with_evaluation(digits_run, batch_size=20), weights=("ema",)), result, rel=1e-5)


def test_figures_do_not_depend_on_the_devices(digits_run, result, monkeypatch):
    one = jax.local_devices()[:1]
    assert local_mesh(52).size == 4 and local_mesh(51).size == 3 and local_mesh(53).size == 1
    monkeypatch.setattr(jax, "local_devices", lambda: one)
    assert local_mesh(52).size == 1
    assert_same_figures(evaluate(digits_run, weights=("ema",)), result, rel=1e-5)


def test_figures_of_a_run_are_the_same_twice(digits_run, result):
    again = evaluate(digits_run, weights=("ema",))
    assert again["ema"] == result["ema"] and again["intervals"]["ema"] == result["intervals"]["ema"]
    assert again["protocol"] == result["protocol"]


def test_json_holds_figures_protocol_and_settings(digits_run, tmp_path):
    path, returned = write_evaluation(digits_run, weights=("ema",), path=tmp_path / "figures.json")
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert path == tmp_path / "figures.json" and kept == returned
    assert kept["config"] == json.loads(json.dumps(digits_run.config.to_dict())) and kept["config"]["seed"] == 0
    assert kept["step"] == 60 and "raw" not in kept
    protocol = kept["protocol"]
    assert protocol["split"] == "test" and protocol["sample_seed"] == 1 and protocol["generation"]["n_generated"] == 100
    assert protocol["code"] == "mean" and protocol["elbo_draws"] == 5
    assert protocol["calibration"] == "2 batches of 52 training images"
    assert protocol["versions"]["jax"] == jax.__version__ and protocol["device"].startswith("cpu (")
    assert len(protocol["commit"].removesuffix("+changes")) == 40 or protocol["commit"] == "unknown"
    made = protocol["generation"]
    assert made["features"] == "digits" and made["network_sha256"] == open_network("digits").sha256
    assert made["resize"].startswith("28x28") and made["batch_statistics"] is False
    assert made["n_reference"] == TRAIN and made["n_generated"] == 100 and "uint8" in made["pixels"]
    assert made["reference"]["data"] == "digits" and made["reference"]["split"] == "train"


def test_table_has_a_column_for_each_set_of_weights(result):
    lines = table(result).splitlines()
    assert lines[0].split() == ["step", "60", "raw", "ema"]
    assert [line.split()[0] for line in lines[1:]] == list(result["ema"])
    units = next(line for line in lines if line.startswith("active_units"))
    assert "[" not in units and sum("[" in line for line in lines) == len(lines) - 2


def test_batch_of_calibration_is_that_of_training_whatever_evaluation_uses(digits_run, tmp_path, capsys):
    # The statistics are the checkpoint's; another batch size in evaluation does not calibrate anew.
    out = tmp_path / "evaluation.json"
    command(capsys, "evaluate", digits_run.folder, "--batch-size", 20, "--metrics", "reconstruction", "--out", out)
    protocol = json.loads(out.read_text())["protocol"]
    assert protocol["calibration"] == "2 batches of 52 training images"


def test_wgan_gp_has_figures_of_generated_images_alone(critic_run):
    result = evaluate(critic_run)
    assert list(result["ema"]) == OF_FEATURES
    assert set(result["intervals"]["raw"]) == set(OF_FEATURES)


def test_wgan_gp_without_features_has_no_figures(critic_run):
    result = evaluate(with_evaluation(critic_run, measures=("reconstruction", "codes")))
    assert result["ema"] == {} and result["raw"] == {}


def test_generated_image_depends_on_key_and_index_alone(digits_run):
    generate = make_generate(digits_run, jax.random.key(5), "ema")
    whole = np.asarray(generate(np.arange(20)))
    assert whole.shape == (20, 8, 8, 1) and whole.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(generate(np.array([19, 3, 3, 0])))[[0, 1, 3]], whole[[19, 3, 0]])
    np.testing.assert_array_equal(np.asarray(generate(np.array([7])))[0], whole[7])
    assert not np.array_equal(whole[0], whole[1])
    other_key, other_weights = (
        make_generate(digits_run, jax.random.key(6), "ema"),
        make_generate(digits_run, jax.random.key(5), "raw"),
    )
    assert not np.array_equal(other_key(np.arange(20)), whole)
    assert not np.array_equal(other_weights(np.arange(20)), whole)


def test_generated_images_are_decodings_rounded_to_the_nearest_level(digits_run):
    keys = [jax.random.fold_in(jax.random.key(5), index) for index in range(6)]
    z = np.stack([jax.random.normal(key, (digits_run.config.model.latent_dim,)) for key in keys])
    levels = 255 * np.asarray(decode(digits_run, z), np.float64)
    made = np.asarray(make_generate(digits_run, jax.random.key(5), "ema")(np.arange(6)))
    assert np.abs(made - levels).max() <= 0.5 + 1e-3
    # Neither cut off nor rounded up: as often above as below.
    assert (made > levels).mean() == pytest.approx(0.5, abs=0.15)
