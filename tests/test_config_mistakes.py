"""Configs: every mistake is found at the boundary and named with its remedy."""

import math

import pytest
from config_values import data_section, digits, raw
from training_runs import ROOT

from asvae_jax.config import load_file, resolve, resolve_data
from asvae_jax.errors import ConfigError
from asvae_jax.presets.toy import toy_config
from asvae_jax.settings import IMAGE_SETS


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        # Unknown keys
        (
            "asintrovae",
            dict(method__gama_r=1.0),
            r"method\.gama_r is no setting of method 'asintrovae'\. Did you mean 'gamma_r'\?",
        ),
        ("asintrovae", dict(training__step=5), r"training\.step is no setting\. Did you mean 'steps'\?"),
        ("asintrovae", dict(optimiser=dict()), r"optimiser is no setting\. Did you mean 'optimizer'\?"),
        (
            "vae",
            dict(method__b_neg=1.0),
            r"method\.b_neg is no setting of method 'vae'.*Choose from: b_kl, b_rec, name, scale",
        ),
        ("sintrovae", dict(method__w_enc=1.0), r"method\.w_enc is no setting of method 'sintrovae'"),
        ("introvae", dict(method__scale=1.0), r"method\.scale is no setting of method 'introvae'"),
        # Wrong types
        ("vae", dict(training__steps=1e4), r"training\.steps must be a whole number, got 10000\.0"),
        ("vae", dict(training__steps="many"), r"training\.steps must be a whole number, got 'many'"),
        ("vae", dict(training__steps=True), r"training\.steps must be a whole number, got True"),
        ("vae", dict(method__b_rec="1"), r"method\.b_rec must be a number, got '1'"),
        ("vae", dict(method__b_rec=True), r"method\.b_rec must be a number, got True"),
        ("vae", dict(method__b_rec=math.nan), r"method\.b_rec must be finite, got nan"),
        ("vae", dict(method__b_rec=math.inf), r"method\.b_rec must be finite, got inf"),
        ("asintrovae", dict(method__squash_distance=1), r"method\.squash_distance must be True or False, got 1"),
        ("vae", dict(model__widths=256), r"model\.widths must be a tuple, got 256"),
        ("vae", dict(model__widths=(256, 2.5)), r"model\.widths\[1\] must be a whole number, got 2\.5"),
        ("vae", dict(ema=0.999), r"ema must be a section with keys, got 0\.999"),
        ("vae", dict(seed=2**32), r"seed must be below 2\*\*32"),
        ("vae", dict(evaluation__samples=19), r"evaluation\.samples=19 gives no interval; draw at least 20"),
        # Unknown words
        (
            "vae",
            dict(method__name="ass"),
            r"method\.name='ass' is not known.*Choose from: asintrovae, introvae, sintrovae, vae, wgan_gp",
        ),
        (
            "vae",
            dict(method__name="sintro_vae"),
            r"method\.name='sintro_vae' is not known\. Did you mean 'sintrovae'\?",
        ),
        ("vae", dict(data__name="8gausians"), r"data\.name='8gausians' is not known\. Did you mean '8gaussians'\?"),
        (
            "asintrovae",
            dict(method__kernel="perdim"),
            r"method\.kernel='perdim' is not known\. Did you mean 'per_dim'\?",
        ),
        (
            "asintrovae",
            dict(method__kl_schedule="cosine"),
            r"method\.kl_schedule='cosine' is not known.*constant, linear, none, tanh",
        ),
        (
            "vae",
            dict(model__compute_dtype="float16"),
            r"model\.compute_dtype='float16' is not known\. Did you mean 'bfloat16'\?",
        ),
        ("vae", dict(model__kind="conv"), r"model\.kind='conv' is not known.*Choose from: mlp"),
        # Ranges
        ("vae", dict(data__batch_size=0), r"data\.batch_size must be positive, got 0"),
        ("vae", dict(optimizer__learning_rate=0.0), r"optimizer\.learning_rate must be positive"),
        ("vae", dict(optimizer__encoder_factor=0.0), r"optimizer\.encoder_factor must be positive, got 0\.0"),
        ("vae", dict(optimizer__encoder_rise=1.5), r"optimizer\.encoder_rise must lie in \[0, 1\], got 1\.5"),
        ("vae", dict(optimizer__final_factor=1.5), r"optimizer\.final_factor must lie in \[0, 1\], got 1\.5"),
        ("vae", dict(optimizer__fall_power=0.0), r"optimizer\.fall_power must be positive, got 0\.0"),
        ("vae", dict(evaluation__samples=-5), r"evaluation\.samples must be positive, got -5"),
        ("sintrovae", dict(method__scale=0.0), r"method\.scale must be positive, got 0\.0"),
        ("vae", dict(method__b_kl=-1.0), r"method\.b_kl must not be negative, got -1\.0"),
        ("vae", dict(seed=-1), r"seed must not be negative"),
        ("vae", dict(model__widths=()), r"model needs at least one layer of positive width"),
        ("vae", dict(model__widths=(8, 0)), r"model needs at least one layer of positive width"),
        ("vae", dict(model__initial_gain=-1.0), r"model\.initial_gain must not be negative, got -1"),
        ("vae", dict(model__logvar_range=(2.0, 1.0)), r"model\.logvar_range must be \(low, high\)"),
        ("vae", dict(model__logvar_range=(1.0,)), r"model\.logvar_range must be \(low, high\)"),
        ("sintrovae", dict(method__alpha=0.0), r"method\.alpha must be positive"),
        ("asintrovae", dict(method__w_exp=0.0), r"method\.w_exp=0\.0 weighs the exponential.*must be positive"),
        ("wgan_gp", dict(method__critic_steps=0), r"method\.critic_steps must be positive"),
        # Impossible combinations
        (
            "asintrovae",
            dict(training__warmup_steps=30_000),
            r"training\.warmup_steps=30000 leaves nothing of training\.steps=30000",
        ),
        ("vae", dict(training__max_negative_intervals=5), r"vae measures no KL of fake images: set training\.max_neg"),
        ("wgan_gp", dict(training__warmup_steps=500), r"wgan_gp has no VAE warm-up: set training\.warmup_steps=0"),
        (
            "vae",
            dict(optimizer__milestone_steps=(40_000,)),
            r"milestone_steps has 40000, which never acts in training\.steps=30000",
        ),
        (
            "vae",
            dict(optimizer__milestone_steps=(10_000, 10_000)),
            r"milestone_steps=\(10000, 10000\) names a step twice",
        ),
        (
            "vae",
            dict(evaluation__best="jsd", evaluation__every_steps=60_000),
            r"judged every evaluation\.every_steps=60000, which is at no time in training\.steps=30000",
        ),
        (
            "vae",
            dict(training__log_every_steps=750),
            r"training\.log_every_steps=750 must be a multiple of training\.steps_per_dispatch=500",
        ),
        (
            "vae",
            dict(checkpoint__keep_every_steps=7_500),
            r"keep_every_steps=7500 must be a multiple of checkpoint.every_steps=5000",
        ),
        (
            "asintrovae",
            dict(method__bandwidth=1.0),
            r"method\.bandwidth=1\.0 belongs to kernel='product' or 'means'; set it to 0 for 'per_dim'",
        ),
        ("asintrovae", dict(method__kernel="means"), r"method\.kernel='means' needs a positive method\.bandwidth"),
        (
            "asintrovae",
            dict(method__means_bandwidths=(0.1,), method__kernel="constant"),
            r"method\.means_bandwidths=\(0\.1,\) stand beside a D that measures; set them to \(\) for",
        ),
        (
            "asintrovae",
            dict(method__means_bandwidths=(0.1, 0.0)),
            r"method\.means_bandwidths=\(0\.1, 0\.0\) must be positive",
        ),
        (
            "asintrovae",
            dict(method__late_from=0.6, method__means_bandwidths=(0.1,)),
            r"method\.late_from=0\.6 is the share .* must lie in \[0, 0\.5\]",
        ),
        ("asintrovae", dict(method__late_from=0.25), r"late_from=0\.25 begins a late game in which nothing changes"),
        ("asintrovae", dict(method__late_alpha_factor=0.5), r"late_alpha_factor=0\.5 belongs to a late game"),
        (
            "asintrovae",
            dict(method__late_alpha_factor=0.0, method__late_from=0.25),
            r"late_alpha_factor=0\.0 multiplies method\.alpha; must be positive",
        ),
        ("asintrovae", dict(method__late_w_enc_factor=0.5), r"late_w_enc_factor=0\.5 belongs to a late game"),
        (
            "asintrovae",
            dict(method__late_w_enc_factor=-0.5, method__late_from=0.25),
            r"late_w_enc_factor must not be negative, got -0\.5",
        ),
        (
            "asintrovae",
            dict(method__late_w_enc_factor=0.5, method__late_from=0.25, method__w_enc=0.0),
            r"late_w_enc_factor=0\.5 has nothing to multiply if w_enc=0; set it to 1",
        ),
        (
            "asintrovae",
            dict(method__kl_schedule="constant"),
            r"method\.kl_rate=5\.0 is the KL weight itself .* must lie in \[0, 1\]",
        ),
        ("vae", dict(optimizer__encoder_rise=0.5), r"optimizer\.encoder_rise=0\.5 has nothing to rise to"),
        ("vae", dict(optimizer__fall_power=2.0), r"optimizer\.fall_power=2\.0 shapes no fall if final_factor=1"),
        (
            "asintrovae",
            dict(method__balance_pulls=True, method__kernel="constant"),
            r"method\.balance_pulls weighs D by its pull, and kernel='constant' has none; set it to False",
        ),
        (
            "recommended",
            dict(method__over_pairs_decoder="sum"),
            r"method\.balance_pulls weighs D by its pull, whatever its size; over_pairs_decoder='sum' would change",
        ),
        (
            "asintrovae",
            dict(method__slope_weight=0.1),
            r"method\.slope_until=0\.0 is the share of training\.steps over which method\.slope_weight=0\.1 falls",
        ),
        (
            "asintrovae",
            dict(method__latent_rise=0.5),
            r"method\.latent_rise=0\.5 is the share .* method\.w_latent=0\.0 .* be 0 for a weight of 0",
        ),
        ("asintrovae", dict(method__w_latent=0.4, method__latent_rise=1.5), r"method\.latent_rise=1\.5 .* in \[0, 1\]"),
        (
            "asintrovae,recommended",
            dict(method__slope_weight=0.0),
            r"method\.slope_until=0\.5 is the share .* be 0 for a weight of 0",
        ),
        (
            "asintrovae",
            dict(method__statistic="U", data__batch_size=1),
            r"method\.statistic='U' needs a batch of at least two",
        ),
    ],
)
def test_mistakes_are_named_with_their_remedy(variant, changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(raw(variant, **changes))


@pytest.mark.parametrize(
    "path", ["seed", "ema", "method.b_rec", "method.w_enc", "training.max_skipped_steps", "model.logvar_range"]
)
def test_there_are_no_second_defaults(path):
    values = raw()
    section, _, key = path.rpartition(".")
    del (values[section] if section else values)[key]
    with pytest.raises(ConfigError, match=rf"{path} is missing; give it a value"):
        resolve(values)


@pytest.mark.parametrize("section", ["method", "data"])
def test_a_missing_method_or_data_set_is_a_config_error(section):
    values = raw()
    del values[section]
    with pytest.raises(ConfigError, match=section):
        resolve(values)


@pytest.mark.parametrize("section", ["method", "data", "model"])
def test_a_section_that_is_a_word_is_a_config_error(section):
    values = raw()
    values[section] = "vae"
    with pytest.raises(ConfigError, match=section):
        resolve(values)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("digits", dict(shape=(28, 28, 1)), r"data\.shape of digits is \(8, 8, 1\), got \(28, 28, 1\)"),
        ("celeba128", dict(shape=(64, 64, 3)), r"data\.shape of celeba128 is \(128, 128, 3\), got \(64, 64, 3\)"),
        (
            "image_folder",
            dict(shape=(64, 64)),
            r"data\.shape must be \(height, width, 1 or 3 channels\), got \(64, 64\)",
        ),
        ("image_folder", dict(shape=(64, 64, 4)), r"data\.shape must be \(height, width, 1 or 3 channels\)"),
        ("image_folder", dict(shape=(0, 64, 3)), r"data\.shape must be \(height, width, 1 or 3 channels\)"),
        ("image_folder", dict(shape=(64.0, 64, 3)), r"data\.shape\[0\] must be a whole number, got 64\.0"),
        ("image_folder", dict(shape=64), r"data\.shape must be a tuple, got 64"),
        ("image_folder", dict(crop="centre"), r"data\.crop='centre' is not known\. Did you mean 'centre148'\?"),
        ("image_folder", dict(resize="linear"), r"data\.resize='linear' is not known\. Did you mean 'bilinear'\?"),
        ("celeba128", dict(partition="al"), r"data\.partition='al' is not known\. Did you mean 'all'\?"),
        ("image_folder", dict(label="my pictures"), r"data\.label names a folder; use letters, .* not 'my pictures'"),
        ("image_folder", dict(label=""), r"data\.label names a folder"),
        ("digits", dict(value_range=(1.0, 0.0)), r"data\.value_range must be \(low, high\), got \(1\.0, 0\.0\)"),
        ("digits", dict(value_range=(0.5, 0.5)), r"data\.value_range must be \(low, high\)"),
        ("digits", dict(value_range=(1.0,)), r"data\.value_range must be \(low, high\), got \(1\.0,\)"),
        ("digits", dict(value_range=(0.0, math.inf)), r"data\.value_range\[1\] must be finite"),
        ("digits", dict(read_threads=0), r"data\.read_threads must be positive, got 0"),
        ("digits", dict(read_threads=1.5), r"data\.read_threads must be a whole number, got 1\.5"),
        ("digits", dict(flip=1), r"data\.flip must be True or False, got 1"),
        # Settings of other sets
        ("digits", dict(crop="none"), r"data\.crop is no setting"),
        ("celebahq1024", dict(partition="all"), r"data\.partition is no setting"),
        ("celeba128", dict(label="faces"), r"data\.label is no setting"),
        # Sets
        ("digits", dict(name="celeba"), r"data\.name='celeba' is not known\. Did you mean 'celeba256'\?"),
    ],
)
def test_mistakes_in_the_data_section_are_named_with_their_remedy(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve_data(data_section(name) | changes)
    # And within a whole config.
    config = digits()
    config.data = data_section(name) | changes
    with pytest.raises(ConfigError, match=message):
        resolve(config)


def test_scale_of_an_image_folder_is_the_size_of_its_pixels():
    config = load_file(f"{ROOT}/configs/image_folder.py:sintrovae,tiny")
    config.data.shape = (16, 16, 3)
    with pytest.raises(ConfigError, match=r"method\.scale=2.03.* of data\.shape=\(16, 16, 3\); set it to 0\.00130208"):
        resolve(config)
    config.method.scale = 0.00130208
    assert resolve(config).method.scale == pytest.approx(1 / 768, rel=1e-5)
    # It has no such setting.
    critic = load_file(f"{ROOT}/configs/image_folder.py:wgan_gp,tiny")
    critic.data.shape = (16, 16, 3)
    resolve(critic)


@pytest.mark.parametrize("key", ["flip", "value_range", "read_threads", "crop", "label"])
def test_data_section_has_no_second_defaults(key):
    values = data_section("image_folder")
    del values[key]
    with pytest.raises(ConfigError, match=rf"data\.{key} is missing; give it a value"):
        resolve_data(values)


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_usual_data_section_of_every_image_set_is_whole(name):
    data = resolve_data(data_section(name))
    assert type(data) is IMAGE_SETS[name].settings
    assert (data.name, data.batch_size, data.data_dir, data.value_range) == (name, 32, "data", (0, 1))


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("sintrovea", r"variant='sintrovea' is not known\. Did you mean 'sintrovae'\?"),
        ("vae,wgan_gp", r"variant words vae and wgan_gp exclude each other"),
        ("paper,released", r"variant words paper and released exclude each other"),
        ("c1,c2", r"variant words c1 and c2 exclude each other"),
        ("vae,released", r"variant word 'released' is a reading of asintrovae; vae has one reading only"),
    ],
)
def test_mistakes_in_variants_are_named(variant, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(variant, name="8gaussians")


def test_images_know_no_columns_of_table_1():
    with pytest.raises(ConfigError, match=r"variant='c1' is not known"):
        digits("c1")


@pytest.mark.parametrize(
    ("content", "variant", "message"),
    [
        ("import absent_package", "", "fails in line 1 with ModuleNotFoundError: No module named 'absent_package'"),
        ("def get_config(variant):\n    return 1 / 0", "", "fails in line 2 with ZeroDivisionError"),
        ("def get_config(:", "", "fails with SyntaxError"),
        ("x = 1", "", r"defines no get_config\(variant\)"),
        ("def get_config():\n    return 1", "vae", r"get_config\(\) of .* knows no variant such as 'vae'"),
    ],
    ids=["import", "zero", "syntax", "nothing", "variant"],
)
def test_a_config_file_that_fails_is_named_with_its_line(content, variant, message, tmp_path):
    (tmp_path / "own.py").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_file(f"{tmp_path}/own.py:{variant}")


def test_a_config_file_need_not_know_variants(tmp_path):
    (tmp_path / "own.py").write_text(
        "from asvae_jax.presets.toy import toy_config\n"
        "def get_config():\n    return toy_config('vae,tiny', name='8gaussians')"
    )
    assert resolve(load_file(f"{tmp_path}/own.py")) == resolve(toy_config("vae,tiny", name="8gaussians"))
