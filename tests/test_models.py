"""The networks: sizes, shapes, normalisation, precision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from asvae_jax.models import (
    ConvDecoder,
    Critic,
    Encoder,
    MlpDecoder,
    Networks,
    Norm,
    _double,
    _halve,
    measure_statistics,
)
from asvae_jax.settings import ConvModel, MlpModel


def conv_networks(shape, channels=(4, 6), latent_dim=5, critic=False, **changes):
    settings = dict(norm="batch", compute_dtype="float32", logvar_range=(-30.0, 20.0)) | changes
    model = ConvModel(kind="conv", channels=channels, latent_dim=latent_dim, **settings)
    return Networks((Critic if critic else Encoder)(model), ConvDecoder(model, shape), shape, latent_dim)


def init(networks, seed=0):
    return jax.jit(networks.init)(jax.random.key(seed))


def images_of(networks, n=6, seed=1):
    return jax.random.uniform(jax.random.key(seed), (n, *networks.example_shape))


@pytest.mark.parametrize(
    ("shape", "channels", "latent_dim", "encoder", "decoder"),
    [
        # Millions of parameters in the networks of both papers.
        ((28, 28, 1), (64, 128), 32, 0.93, 0.70),
        ((32, 32, 3), (64, 128, 256), 128, 3.38, 2.38),
        ((128, 128, 3), (64, 128, 256, 512, 512), 256, 18.46, 14.12),
        ((256, 256, 3), (64, 128, 256, 512, 512, 512), 256, 23.18, 18.84),
    ],
)
def test_parameter_counts_of_the_papers(shape, channels, latent_dim, encoder, decoder):
    networks = conv_networks(shape, channels, latent_dim)
    params = jax.eval_shape(networks.init, jax.random.key(0))
    millions = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params[name])) / 1e6 for name in params}
    assert (round(millions["encoder"], 2), round(millions["decoder"], 2)) == (encoder, decoder)


def test_only_heads_output_and_norms_have_biases():
    params = jax.eval_shape(conv_networks((8, 8, 1)).init, jax.random.key(0))
    biased = {path[:-1] for path in flatten_dict(params) if path[-1] == "bias"}
    assert {path for path in biased if "norm" not in "".join(path)} - {
        path for path in biased if any("Norm" in part for part in path)
    } == {("encoder", "head"), ("decoder", "head"), ("decoder", "output")}


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((28, 28, 1), (4, 6)), ((25, 25, 1), (4, 6, 6)), ((8, 8, 1), (4, 4)), ((12, 20, 3), (4, 4, 4))],
)
def test_images_come_out_as_large_as_they_went_in(shape, channels):
    networks = conv_networks(shape, channels)
    params = jax.eval_shape(networks.init, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    codes = jax.eval_shape(networks.encode, params["encoder"], batch)
    assert codes.mean.shape == codes.logvar.shape == (3, 5)
    assert jax.eval_shape(networks.decode, params["decoder"], codes.mean).shape == (3, *shape)


def test_halving_averages_an_odd_edge_with_nothing():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    # [[0 1 2] [3 4 5] [6 7 8]]: mean of 0 1 3 4, of 2 5, of 6 7, and 8 alone.
    np.testing.assert_array_equal(_halve(x)[0, :, :, 0], [[2, 3.5], [6.5, 8]])


def test_doubling_repeats_and_cuts():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(_double(x, 4, 3)[0, :, :, 0], [[1, 1, 2], [1, 1, 2], [3, 3, 4], [3, 3, 4]])


def test_initial_weights_are_uniform_within_the_inverse_root_of_the_fan_in():
    params = init(conv_networks((8, 8, 3), (16, 16), latent_dim=16))
    fan_ins = {
        ("encoder", "trunk", "stem", "kernel"): 25 * 3,
        ("encoder", "trunk", "last_block", "conv1", "kernel"): 9 * 16,
        ("encoder", "head", "kernel"): 4 * 16,
        ("decoder", "head", "kernel"): 16,
        ("decoder", "head", "bias"): 16,
        ("decoder", "output", "kernel"): 25 * 16,
        ("decoder", "output", "bias"): 25 * 16,
    }
    weights = flatten_dict(params)
    for path, fan_in in fan_ins.items():
        bound = 1 / math.sqrt(fan_in)
        largest = float(jnp.max(jnp.abs(weights[path])))
        assert largest <= bound, path
        # n uniform draws leave a gap of about 1/n to the bound.
        assert largest > bound * (1 - 10 / weights[path].size) or weights[path].size < 10, path
    kernel = weights["encoder", "trunk", "last_block", "conv1", "kernel"]
    assert float(jnp.std(kernel)) == pytest.approx(1 / 12 / math.sqrt(3), rel=0.05)


# Normalisation


def test_batch_norm_uses_and_notes_the_statistics_of_the_very_batch():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (4, 5, 5, 3))
    norm = Norm("batch", jnp.float32)
    params = norm.init(jax.random.key(1), x, False)["params"]
    y, variables = norm.apply({"params": params}, x, False, mutable=["batch_stats"])
    x = np.asarray(x)
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), rtol=0, atol=1e-5)
    (noted,) = variables["batch_stats"].values()
    np.testing.assert_allclose(noted["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(noted["var"], variance, rtol=1e-5)


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_statistics_of_a_batch_give_its_own_outputs_and_other_outputs_to_others(network):
    networks = conv_networks((8, 8, 1))
    params = init(networks)[network]
    first, second = (
        (images_of(networks, seed=1), images_of(networks, seed=2) ** 3)
        if network == "encoder"
        else 1 + jax.random.normal(jax.random.key(3), (2, 6, 5)) * jnp.array([1.0, 0.2]).reshape(2, 1, 1)
    )
    module, apply = (networks.encoder, networks.encode) if network == "encoder" else (networks.decoder, networks.decode)
    apply = jax.jit(apply)
    outputs, statistics = jax.jit(lambda params, inputs: measure_statistics(module, params, inputs))(params, first)
    assert statistics
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), apply(params, first, statistics), outputs
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), apply(params, first), outputs)
    own, foreign = jax.tree.leaves(apply(params, second))[0], jax.tree.leaves(apply(params, second, statistics))[0]
    assert float(jnp.max(jnp.abs(own - foreign))) > 1e-2
    # With given statistics no example looks at its neighbours.
    alone = jax.tree.leaves(apply(params, second[:1], statistics))[0]
    np.testing.assert_allclose(foreign[:1], alone, rtol=0, atol=1e-5)


def influence_of_others(function, images):
    """How strongly the first example's output depends on the other examples."""
    gradient = jax.jit(jax.grad(lambda images: jnp.sum(jax.tree.leaves(function(images))[0][0])))(images)
    assert float(jnp.max(jnp.abs(gradient[0]))) > 0
    return float(jnp.max(jnp.abs(gradient[1:])))


@pytest.mark.parametrize(("norm", "independent"), [("batch", False), ("group", True), ("none", True)])
def test_only_batch_norm_makes_an_example_depend_on_its_batch(norm, independent):
    networks = conv_networks((8, 8, 1), norm=norm)
    params = init(networks)
    images = images_of(networks)
    assert (influence_of_others(lambda x: networks.encode(params["encoder"], x), images) == 0) is independent
    z = jax.random.normal(jax.random.key(2), (6, 5))
    assert (influence_of_others(lambda z: networks.decode(params["decoder"], z), z) == 0) is independent
    statistics = jax.eval_shape(lambda: measure_statistics(networks.encoder, params["encoder"], images)[1])
    assert bool(statistics) is not independent


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_critic_is_independent_of_its_batch(norm):
    networks = conv_networks((8, 8, 1), critic=True, norm=norm)
    params = init(networks)["encoder"]
    images = images_of(networks)
    assert networks.critic(params, images).shape == (6,)
    assert influence_of_others(lambda x: networks.critic(params, x), images) == 0


# Outputs


def test_log_variances_are_clamped():
    low_high = (-0.01, 0.02)
    networks, clamped = conv_networks((8, 8, 1)), conv_networks((8, 8, 1), logvar_range=low_high)
    params = init(networks)["encoder"]
    q, narrow = (jax.jit(n.encode)(params, images_of(n)) for n in (networks, clamped))
    assert float(q.logvar.min()) < -0.01 and float(q.logvar.max()) > 0.02
    np.testing.assert_array_equal(narrow.logvar, jnp.clip(q.logvar, *low_high))
    np.testing.assert_array_equal(narrow.mean, q.mean)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_bfloat16_networks_return_float32_near_the_float32_ones(norm):
    wide, narrow = (conv_networks((8, 8, 1), norm=norm, compute_dtype=dtype) for dtype in ("float32", "bfloat16"))
    params = init(wide)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(jax.eval_shape(narrow.init, jax.random.key(0)))} == {"float32"}
    images, z = images_of(wide), jax.random.normal(jax.random.key(2), (6, 5))
    for expected, got in (
        [jax.jit(networks.encode)(params["encoder"], images) for networks in (wide, narrow)],
        [jax.jit(networks.decode)(params["decoder"], z) for networks in (wide, narrow)],
    ):
        for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
            assert b.dtype == jnp.float32
            # bfloat16 keeps 8 bits; half a dozen layers add up their roundings.
            assert 0 < float(jnp.max(jnp.abs(a - b))) < 0.05 * float(jnp.max(jnp.abs(a)))


def test_batch_statistics_of_bfloat16_networks_are_float32():
    networks = conv_networks((8, 8, 1), compute_dtype="bfloat16")
    params = jax.eval_shape(networks.init, jax.random.key(0))["encoder"]
    statistics = jax.eval_shape(
        lambda params: measure_statistics(networks.encoder, params, images_of(networks))[1], params
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(statistics)} == {"float32"}


def mlp_networks(widths: tuple[int, ...], latent_dim: int = 3, initial_gain: float = 0.0) -> Networks:
    model = MlpModel(
        kind="mlp", widths=widths, latent_dim=latent_dim, compute_dtype="float32", logvar_range=(-30.0, 20.0),
        initial_gain=initial_gain,
    )  # fmt: skip
    return Networks(Encoder(model), MlpDecoder(model, (2,)), (2,), latent_dim)


def test_mlp_networks_map_points_to_codes_and_back():
    networks = mlp_networks((8, 6))
    params = init(networks)
    # 2 -> 8 -> 6 -> 2 * 3, and 3 -> 8 -> 6 -> 2, biases included.
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(params[name])) for name in params}
    assert counts == {"encoder": 24 + 54 + 42, "decoder": 32 + 54 + 14}
    codes = networks.encode(params["encoder"], jnp.ones((4, 2)))
    assert codes.mean.shape == (4, 3)
    assert networks.decode(params["decoder"], codes.mean).shape == (4, 2)


def test_mlp_is_dense_relu_layers():
    networks = mlp_networks((8,))
    params = init(networks)["encoder"]
    points = jax.random.normal(jax.random.key(1), (4, 2))
    layer, head = params["trunk"]["layer0"], params["head"]
    hidden = np.maximum(points @ layer["kernel"] + layer["bias"][None], 0)
    expected = hidden @ head["kernel"] + head["bias"][None]
    codes = networks.encode(params, points)
    np.testing.assert_allclose(jnp.concatenate(codes, axis=1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("latent_dim", [2, 3])
@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_initial_gain_makes_the_linear_part_of_a_new_decoder_a_multiple_of_the_identity(latent_dim, gain):
    networks = mlp_networks((64, 64), latent_dim, initial_gain=gain)
    z = jax.random.normal(jax.random.key(7), (20_000, latent_dim))
    for seed in range(3):
        points = np.asarray(networks.decode(init(networks, seed)["decoder"], z))
        slope = np.linalg.lstsq(z, points - points.mean(axis=0), rcond=None)[0]
        # What is left is chance: two draws of latents, and the bends of ReLU layers.
        np.testing.assert_allclose(slope, gain * np.eye(latent_dim, 2), atol=0.1 * gain)
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.1 * gain)


def test_initial_gain_changes_the_output_layer_of_the_decoder_alone():
    usual, near = (flatten_dict(init(mlp_networks((8, 6), initial_gain=gain))) for gain in (0.0, 1.0))
    changed = {path for path in usual if not np.array_equal(usual[path], near[path])}
    assert changed == {("decoder", "head", "kernel"), ("decoder", "head", "bias")}
