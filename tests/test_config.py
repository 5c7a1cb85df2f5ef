"""Configs: what is accepted, the presets and their words, and settings of older versions."""

import dataclasses
import json

import pytest
from config_values import digits, raw
from training_runs import ROOT

from asvae_jax.config import load_file, of_this_version, resolve
from asvae_jax.errors import ConfigError
from asvae_jax.presets.toy import toy_config
from asvae_jax.settings import METHOD_SETTINGS, TOY_LIMITS, ImageData, ToyData

WORDS = ["", "vae", "introvae", "sintrovae", "asintrovae", "asintrovae,released", "asintrovae,paper", "wgan_gp"]


@pytest.mark.parametrize("size", ["", ",tiny"])
@pytest.mark.parametrize("name", TOY_LIMITS)
def test_every_method_resolves_on_every_toy(name, size):
    for word in WORDS:
        config = resolve(toy_config(word + size, name=name))
        assert config.method.name == (word.partition(",")[0] or "asintrovae")
        assert isinstance(config.method, METHOD_SETTINGS[config.method.name])
        assert isinstance(config.data, ToyData) and config.is_toy and config.example_shape == (2,)


@pytest.mark.parametrize("size", ["", ",tiny"])
def test_every_method_resolves_on_images(size):
    for word in WORDS:
        config = resolve(digits(word + size))
        assert isinstance(config.data, ImageData) and not config.is_toy and config.example_shape == (8, 8, 1)
        if hasattr(config.method, "scale"):
            assert config.method.scale == 1 / 64


@pytest.mark.parametrize(("word", "betas"), [("c1", (0.3, 0.1, 0.9)), ("c2", (0.5, 0.1, 0.9)), ("c3", (0.7, 0.2, 0.9))])
def test_columns_of_table_1(word, betas):
    method = resolve(raw(f"asintrovae,{word}")).method
    assert (method.b_kl, method.b_rec, method.b_neg) == betas


def test_toys_have_the_papers_settings():
    config = resolve(raw())
    assert (config.model.widths, config.model.latent_dim) == ((256,) * 4, 2)
    assert (config.data.batch_size, config.training.steps, config.training.warmup_steps) == (512, 30_000, 2_000)
    assert (config.optimizer.learning_rate, config.optimizer.b1, config.optimizer.b2) == (2e-4, 0.9, 0.999)
    assert (config.optimizer.milestone_steps, config.optimizer.milestone_factor) == ((10_000, 15_000), 0.1)
    assert (config.method.scale, config.method.alpha, config.method.gamma_r) == (0.5, 2.0, 1e-8)


# Of arXiv 2206.13903 but for CelebA-HQ, which it leaves to future work; weights as (b_kl, b_rec, b_neg, margin).
SETTINGS = {
    "mnist": dict(
        shape=(28, 28, 1), channels=(64, 128), latent_dim=32, batch_size=128, epochs=100, images=60_000,
        betas=(1, 1, 256), introvae=(1, 0.05, 0.5, 10),
    ),
    "cifar10": dict(
        shape=(32, 32, 3), channels=(64, 128, 256), latent_dim=128, batch_size=64, epochs=150, images=50_000,
        betas=(1, 1, 256), introvae=(1, 0.05, 0.5, 10),
    ),
    "oxford_buildings": dict(
        shape=(128, 128, 3), channels=(64, 128, 256, 512, 512), latent_dim=128, batch_size=32, epochs=150,
        images=4_556, betas=(1, 1, 256), introvae=(1, 0.05, 0.5, 100),
    ),
    "celeba128": dict(
        shape=(128, 128, 3), channels=(64, 128, 256, 512, 512), latent_dim=256, batch_size=32, epochs=150,
        images=162_770, betas=(0.5, 1, 256), introvae=(1, 0.05, 0.5, 100),
    ),
    "celeba256": dict(
        shape=(256, 256, 3), channels=(64, 128, 256, 512, 512, 512), latent_dim=256, batch_size=32, epochs=150,
        images=162_770, betas=(0.5, 1, 1024), introvae=(1, 0.05, 0.5, 120),
    ),
    "celebahq1024": dict(
        shape=(1024, 1024, 3), channels=(16, 32, 64, 128, 256, 512, 512, 512), latent_dim=512, batch_size=12,
        epochs=150, images=27_000, betas=(0.5, 1, 1024), introvae=(1, 0.01, 1, 500),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_published_image_sets_have_the_papers_settings(name):
    expected = SETTINGS[name]
    for method in ("asintrovae", "sintrovae", "introvae", "vae"):
        config = resolve(load_file(f"{ROOT}/configs/{name}.py:{method}"))
        assert config.example_shape == config.data.shape == expected["shape"]
        assert (config.model.channels, config.model.latent_dim) == (expected["channels"], expected["latent_dim"])
        assert config.data.batch_size == expected["batch_size"]
        assert config.training.steps == expected["epochs"] * (expected["images"] // expected["batch_size"])
        b_kl, b_rec, b_neg, margin = expected["introvae"] if method == "introvae" else (*expected["betas"], None)
        assert (config.method.b_kl, config.method.b_rec) == (b_kl, b_rec)
        assert getattr(config.method, "b_neg", b_neg) == b_neg and getattr(config.method, "margin", margin) == margin
        assert config.data.value_range == (0, 1) and config.data.flip is (name not in ("mnist", "cifar10"))


@pytest.mark.parametrize("name", ["celeba128", "celeba256"])
def test_celeba_is_cropped_and_split_officially_unless_the_full_frame_is_asked_for(name):
    usual, full = (resolve(load_file(f"{ROOT}/configs/{name}.py:{word}")) for word in ("", "full_frame"))
    assert (usual.data.crop, usual.data.partition) == ("centre148", "official")
    assert (full.data.crop, full.data.partition) == ("none", "all")
    # An epoch of every file is longer.
    assert full.training.steps == 150 * (202_599 // 32)
    assert dataclasses.replace(full, data=usual.data, training=usual.training) == usual


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_networks_of_an_image_folder_are_as_deep_as_its_images_are_large(size):
    config = resolve(load_file(f"{ROOT}/configs/image_folder.py:{size}"))
    assert config.data.shape == (size, size, 3)
    assert size // 2 ** len(config.model.channels) == 4


def test_readings_differ_where_the_paper_and_its_code_do():
    paper, released = (dataclasses.asdict(resolve(raw(f"asintrovae,{word}")).method) for word in ("paper", "released"))
    assert {key: (paper[key], released[key]) for key in paper if paper[key] != released[key]} == {
        "kl_schedule": ("linear", "tanh"),
        "over_pairs_encoder": ("mean", "sum"),
        "over_dims_decoder": ("sum", "mean"),
        "squash_decoder_kl": (False, True),
    }


def test_recommended_reading_is_of_any_batch_size_and_needs_no_warm_up():
    config = resolve(raw("asintrovae,recommended"))
    method, optimizer = config.method, config.optimizer
    assert (method.distance_in, method.distance_pairs, method.root_distance) == ("loss", "real_fake", True)
    assert {method.over_pairs_encoder, method.over_pairs_decoder} == {"mean"}
    assert (method.kernel, method.bandwidth, method.squash_distance) == ("product", config.model.latent_dim / 2, False)
    assert method.w_enc < method.w_dec
    # The other readings are the paper's and its code's; on images what makes the toys' game last is untried.
    for other in (resolve(raw("asintrovae,released")).method, resolve(digits("asintrovae,recommended")).method):
        assert method.slope_weight > 0 == other.slope_weight
        assert method.means_bandwidths and not other.means_bandwidths
        assert method.alpha == other.alpha and method.late_alpha_factor < 1 == other.late_alpha_factor
    # Where modes lie apart the encoder plays the game of C1 whatever the weight of KL.
    light, heavy = (resolve(raw(f"asintrovae,recommended,{word}")).method for word in ("c1", "c3"))
    rings = resolve(toy_config("asintrovae,recommended", name="rings")).method
    for weight in ("w_enc", "w_exp", "slope_weight"):
        assert getattr(heavy, weight) / heavy.b_kl == pytest.approx(getattr(light, weight) / light.b_kl)
    assert rings.b_kl < light.b_kl and rings.w_exp == light.w_exp == 1
    # Many modes are found late, and an encoder that is too fast by then leaves some unfound.
    many = resolve(toy_config("asintrovae,recommended", name="25gaussians")).optimizer
    assert (optimizer.encoder_factor, optimizer.encoder_rise) == (9.0, 1.0) > (many.encoder_factor, many.encoder_rise)
    assert config.training.warmup_steps == 0 < resolve(raw("asintrovae")).training.warmup_steps
    assert (optimizer.b1, optimizer.b2) == (0.0, 0.99)
    assert (
        optimizer.milestone_steps == ()
        and optimizer.final_factor < 1 == resolve(raw("asintrovae")).optimizer.final_factor
    )


def test_wgan_gp_has_its_own_adam():
    config = resolve(raw("wgan_gp"))
    assert (config.optimizer.learning_rate, config.optimizer.b1, config.optimizer.b2) == (1e-4, 0.0, 0.9)
    assert (config.method.gp_weight, config.method.critic_steps) == (10.0, 5)


@pytest.mark.parametrize("word", WORDS)
def test_round_trip_through_json(word):
    for config in (resolve(raw(word)), resolve(digits(word))):
        assert resolve(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_of_an_older_version_are_read_as_what_they_meant():
    config = resolve(raw("asintrovae,released"))
    stored = json.loads(json.dumps(config.to_dict()))
    for section, key in [
        ("method", "distance_in"),
        ("method", "distance_pairs"),
        ("method", "root_distance"),
        ("method", "slope_weight"),
        ("method", "slope_until"),
        ("method", "balance_pulls"),
        ("method", "means_bandwidths"),
        ("method", "late_from"),
        ("method", "late_alpha_factor"),
        ("method", "late_w_enc_factor"),
        ("method", "w_exp"),
        ("method", "w_latent"),
        ("method", "latent_rise"),
        ("model", "initial_gain"),
        ("optimizer", "final_factor"),
        ("optimizer", "fall_power"),
        ("optimizer", "encoder_factor"),
        ("optimizer", "encoder_rise"),
        ("training", "max_negative_intervals"),
    ]:
        del stored[section][key]
    assert of_this_version(stored) == config.to_dict()
    assert resolve(of_this_version(stored)) == config


@pytest.mark.parametrize(("name", "without", "value"), [("narrow_bandwidths", [], [0.1]), ("w_dec_growth", 1.0, 2.5)])
def test_a_setting_that_is_gone_was_none_at_one_value_alone(name, without, value):
    config = resolve(raw("asintrovae,recommended"))
    stored = json.loads(json.dumps(config.to_dict()))
    stored["method"][name] = without
    assert resolve(of_this_version(stored)) == config
    stored["method"][name] = value
    with pytest.raises(ConfigError, match=rf"method\.{name}"):
        resolve(of_this_version(stored))


def test_what_came_late_was_once_the_distance_of_the_means_alone():
    config = resolve(raw("asintrovae,recommended"))
    stored = json.loads(json.dumps(config.to_dict()))
    del stored["method"]["late_alpha_factor"]
    stored["method"]["means_from"] = stored["method"].pop("late_from")
    method = resolve(of_this_version(stored)).method
    assert method == dataclasses.replace(config.method, late_alpha_factor=1.0)
    assert method.late_from == config.method.late_from > 0


def test_bound_of_an_older_version_lasted_to_the_end():
    config = resolve(raw("asintrovae,recommended"))
    stored = json.loads(json.dumps(config.to_dict()))
    del stored["method"]["slope_until"]
    method = resolve(of_this_version(stored)).method
    assert method == dataclasses.replace(config.method, slope_until=1.0)


def test_a_resolved_config_is_left_alone():
    config = resolve(raw())
    assert resolve(config) is config


def test_whole_numbers_are_taken_for_numbers():
    rate = resolve(raw(method__alpha=3)).method.alpha
    assert rate == 3.0 and isinstance(rate, float)
