"""Batch-norm statistics are those of the data, of the very weights in use, and make every example independent of its
neighbours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import assert_bit_equal, assert_close, digits, toy

from asvae_jax.calibrate import has_statistics, make_calibrate, statistics_of_batch, statistics_shape
from asvae_jax.distributed import make_mesh
from asvae_jax.errors import NotFiniteError
from asvae_jax.evaluation import Examples
from asvae_jax.gaussians import sample
from asvae_jax.models import make_networks
from asvae_jax.run import Run, decode, encode, load_run, reconstruct, sample_images
from asvae_jax.train import train
from asvae_jax.update import draw_noise

CONFIG = digits()
# Long enough for the average to lag well behind the weights.
STEPS = 80


def all_images(split: str) -> np.ndarray:
    examples = Examples(CONFIG, split)
    return examples.rows(np.arange(len(examples)))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Training images in [0, 1]."""
    return all_images("train")


@pytest.fixture(scope="module")
def batches(images) -> list[np.ndarray]:
    """Three batches of different contents."""
    return list(images[:156].reshape(3, 52, 8, 8, 1))


@pytest.fixture(scope="module")
def params():
    return make_networks(CONFIG).init(jax.random.key(0))


@pytest.fixture(scope="module")
def calibrate():
    return make_calibrate(CONFIG, make_mesh(CONFIG))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """A short plain VAE of width 8, whose averaged weights are not its raw ones."""
    config = digits(
        "vae,tiny",
        model__channels=(8, 8),
        training__steps=STEPS,
        training__log_every_steps=20,
        checkpoint__every_steps=STEPS,
        evaluation__batch_size=100,
        evaluation__calibration_batches=8,
        ema__half_life_images=16.0 * 40,
        optimizer__learning_rate=5e-3,
    )
    return train(config, tmp_path_factory.mktemp("trained"))


def test_first_norms_statistics_are_those_of_all_batches_together(calibrate, params, batches):
    statistics = calibrate(params, batches)["encoder"]["trunk"]["stem_norm"]["BatchNorm_0"]
    kernel = np.asarray(params["encoder"]["trunk"]["stem"]["kernel"], np.float64)
    # The stem by hand: a 5x5 convolution without bias over images padded with two zeros.
    padded = np.pad(np.concatenate(batches).astype(np.float64), ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    convolved = np.einsum("nhwcij,ijcf->nhwf", windows, kernel)
    np.testing.assert_allclose(statistics["mean"], convolved.mean(axis=(0, 1, 2)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], convolved.var(axis=(0, 1, 2)), rtol=1e-4)
    # One batch alone has other ones, so that the test could tell.
    alone = calibrate(params, batches[:1])["encoder"]["trunk"]["stem_norm"]["BatchNorm_0"]
    assert np.max(np.abs(alone["mean"] - statistics["mean"])) > 1e-4


def test_decoder_has_statistics_of_its_own_for_prior_and_for_posterior_codes(calibrate, params, batches):
    statistics = calibrate(params, batches[:1])
    networks = make_networks(CONFIG)
    noise = draw_noise(jax.random.key(0xCA11), 1, 52, CONFIG.model.latent_dim)
    codes = sample(networks.encode(params["encoder"], jnp.asarray(batches[0])), noise.eps_real)
    for name, z in (("decoder_prior", noise.prior), ("decoder_posterior", codes)):
        _, variables = networks.decoder.apply({"params": params["decoder"]}, z, mutable=["batch_stats"])
        assert_close(statistics[name], variables["batch_stats"], rtol=1e-4)
    prior, posterior = (jax.tree.leaves(statistics[name])[0] for name in ("decoder_prior", "decoder_posterior"))
    assert np.max(np.abs(prior - posterior)) > 1e-2


def test_every_batch_has_noise_of_its_own(params, batches):
    first, second = (
        jax.jit(functools.partial(statistics_of_batch, CONFIG))(params, batches[0], index) for index in (1, 2)
    )
    assert_bit_equal(first["encoder"], second["encoder"])
    assert not np.array_equal(jax.tree.leaves(first["decoder_prior"])[0], jax.tree.leaves(second["decoder_prior"])[0])


def test_shapes_are_known_without_measuring(calibrate, params, batches):
    shapes = statistics_shape(CONFIG)
    measured = calibrate(params, batches[:1])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), measured) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)


@pytest.mark.parametrize(
    "config", [digits(model__norm="group"), digits(model__norm="none"), toy()], ids=["group", "none", "toy"]
)
def test_networks_without_batch_norm_need_no_statistics(config):
    assert not has_statistics(config)
    assert statistics_shape(config) == {}
    # The batches are not even looked at.
    assert make_calibrate(config, make_mesh(config))({}, iter([])) == {}


def test_critic_has_no_statistics_and_the_generator_those_of_the_prior():
    assert set(statistics_shape(digits("wgan_gp,tiny"))) == {"decoder_prior"}


def test_statistics_that_are_not_finite_are_an_error(calibrate, params, batches):
    broken = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(jnp.nan), params)
    with pytest.raises(NotFiniteError, match="statistics of these weights are not finite"):
        calibrate(broken, batches)


def test_loaded_run_samples_what_the_trained_one_did(trained):
    loaded = load_run(trained.folder)
    assert loaded.step == STEPS
    for weights in ("raw", "ema"):
        before = sample_images(trained, jax.random.key(5), 10, weights=weights)
        after = sample_images(loaded, jax.random.key(5), 10, weights=weights)
        assert before.shape == (10, 8, 8, 1) and before.std() > 0.01
        # The trained run's weights lie on four devices, the loaded one's on one.
        np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


def test_calibrated_average_reconstructs_better_than_with_the_raw_weights_statistics(trained):
    real = all_images("test")

    def error(run: Run) -> float:
        return float(np.mean(np.square(reconstruct(run, real, weights="ema") - real)))

    swapped = trained._replace(statistics={**trained.statistics, "ema": trained.statistics["raw"]})
    assert error(trained) < 0.9 * error(swapped)
    # And the weights have learnt something worth averaging: the mean image is no better.
    raw = np.mean(np.square(reconstruct(trained, real, weights="raw") - real))
    assert raw < np.mean(np.square(real - real.mean(axis=0)))


def test_an_example_does_not_depend_on_its_batch(trained):
    real = all_images("test")
    z = np.asarray(jax.random.normal(jax.random.key(0), (40, trained.config.model.latent_dim)))
    for decoded, alone in (
        (decode(trained, z), decode(trained, z[:1])),
        (decode(trained, z, posterior=True), decode(trained, z[:1], posterior=True)),
        (encode(trained, real).mean, encode(trained, real[:1]).mean),
        (reconstruct(trained, real), reconstruct(trained, real[:1])),
    ):
        np.testing.assert_allclose(decoded[:1], alone, rtol=0, atol=1e-6)
    # Without calibration it does.
    networks = make_networks(trained.config)
    together = networks.decode(trained.ema["decoder"], jnp.asarray(z))
    fewer = networks.decode(trained.ema["decoder"], jnp.asarray(z[:2]))
    assert np.max(np.abs(together[:2] - fewer)) > 1e-2
