"""Weights from the PyTorch networks of the papers' authors, held against a forward pass of those in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional
from training_runs import ROOT, toy

from asvae_jax.config import load_file, resolve
from asvae_jax.errors import ConfigError
from asvae_jax.interop import from_torch_state_dict
from asvae_jax.models import make_networks
from asvae_jax.settings import Config

CHANNELS, LATENT, BATCH = (4, 6, 6), 5, 7
State = dict[str, torch.Tensor]


def images(words: str = "sintrovae", **model) -> Config:
    """Of 32 x 32 x 3 pixels, with three channels."""
    config = load_file(f"{ROOT}/configs/cifar10.py:{words}")
    config.model.update({"channels": CHANNELS, "latent_dim": LATENT, **model})
    return resolve(config)


def random_state(shapes: dict[str, tuple[int, ...]]) -> State:
    random = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=random) for name, shape in shapes.items()}


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (width,) for kind in kinds} | {f"{name}.num_batches_tracked": ()}


def block_shapes(name: str, inner: int, outer: int) -> dict[str, tuple[int, ...]]:
    shapes = {f"{name}.conv1.weight": (outer, inner, 3, 3), f"{name}.conv2.weight": (outer, outer, 3, 3)}
    if inner != outer:
        shapes[f"{name}.conv_expand.weight"] = (outer, inner, 1, 1)
    return shapes | norm_shapes(f"{name}.bn1", outer) | norm_shapes(f"{name}.bn2", outer)


def image_state() -> State:
    first, second, third = CHANNELS
    return random_state(
        {"encoder.main.0.weight": (first, 3, 5, 5)}
        | norm_shapes("encoder.main.1", first)
        | block_shapes("encoder.main.res_in_16", first, second)
        | block_shapes("encoder.main.res_in_8", second, third)
        | block_shapes("encoder.main.res_in_4", third, third)
        | {"encoder.fc.weight": (2 * LATENT, third * 4 * 4), "encoder.fc.bias": (2 * LATENT,)}
        | {"decoder.fc.0.weight": (third * 4 * 4, LATENT), "decoder.fc.0.bias": (third * 4 * 4,)}
        | block_shapes("decoder.main.res_in_4", third, third)
        | block_shapes("decoder.main.res_in_8", third, second)
        | block_shapes("decoder.main.res_in_16", second, first)
        | block_shapes("decoder.main.res_in_32", first, first)
        | {"decoder.main.predict.weight": (3, first, 5, 5), "decoder.main.predict.bias": (3,)}
    )


def point_state() -> State:
    """Two networks of three hidden layers of 8."""
    shapes = {}
    for network, inner, outer in (("encoder", 2, 4), ("decoder", 2, 2)):
        for layer, shape in {"input": (8, inner), "hidden_1": (8, 8), "hidden_2": (8, 8), "output": (outer, 8)}.items():
            shapes |= {f"{network}.main.{layer}.weight": shape, f"{network}.main.{layer}.bias": shape[:1]}
    return random_state(shapes | {"decoder.loggamma": ()})


# What the authors' networks compute in training mode.


def norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.batch_norm(x, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)


def block(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    y = functional.conv2d(x, state[f"{name}.conv1.weight"], padding=1)
    y = functional.leaky_relu(norm(state, f"{name}.bn1", y), 0.2)
    y = norm(state, f"{name}.bn2", functional.conv2d(y, state[f"{name}.conv2.weight"], padding=1))
    expand = state.get(f"{name}.conv_expand.weight")
    return functional.leaky_relu(y + (x if expand is None else functional.conv2d(x, expand)), 0.2)


def encoded(state: State, x: torch.Tensor) -> torch.Tensor:
    x = norm(state, "encoder.main.1", functional.conv2d(x, state["encoder.main.0.weight"], padding=2))
    x = functional.avg_pool2d(functional.leaky_relu(x, 0.2), 2)
    for size in (16, 8):
        x = functional.avg_pool2d(block(state, f"encoder.main.res_in_{size}", x), 2)
    x = block(state, "encoder.main.res_in_4", x).flatten(1)
    return functional.linear(x, state["encoder.fc.weight"], state["encoder.fc.bias"])


def decoded(state: State, z: torch.Tensor) -> torch.Tensor:
    x = functional.relu(functional.linear(z, state["decoder.fc.0.weight"], state["decoder.fc.0.bias"]))
    x = x.reshape(len(z), CHANNELS[-1], 4, 4)
    for size in (4, 8, 16):
        x = functional.interpolate(block(state, f"decoder.main.res_in_{size}", x), scale_factor=2)
    x = block(state, "decoder.main.res_in_32", x)
    return functional.conv2d(x, state["decoder.main.predict.weight"], state["decoder.main.predict.bias"], padding=2)


def perceptron(state: State, network: str, x: torch.Tensor) -> torch.Tensor:
    for layer in ("input", "hidden_1", "hidden_2"):
        name = f"{network}.main.{layer}"
        x = functional.relu(functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]))
    return functional.linear(x, state[f"{network}.main.output.weight"], state[f"{network}.main.output.bias"])


def random_batch(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(BATCH, *shape)).astype(np.float32)


def assert_near(ours: jax.Array, theirs: torch.Tensor) -> None:
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_image_networks_compute_what_the_authors_do():
    config, state = images(), image_state()
    params, networks = from_torch_state_dict(state, config), make_networks(config)
    pixels, z = random_batch(32, 32, 3), random_batch(LATENT)
    codes = networks.encode(params["encoder"], pixels)
    assert_near(jnp.concatenate(codes, axis=-1), encoded(state, torch.tensor(pixels).permute(0, 3, 1, 2)))
    assert_near(networks.decode(params["decoder"], z), decoded(state, torch.tensor(z)).permute(0, 2, 3, 1))


def test_networks_of_points_compute_what_the_authors_do():
    config, state = toy("sintrovae,tiny", model__widths=(8, 8, 8)), point_state()
    params, networks = from_torch_state_dict(state, config), make_networks(config)
    points, z = random_batch(2), random_batch(2)
    codes = networks.encode(params["encoder"], points)
    assert_near(jnp.concatenate(codes, axis=-1), perceptron(state, "encoder", torch.tensor(points)))
    assert_near(networks.decode(params["decoder"], z), perceptron(state, "decoder", torch.tensor(z)))


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        (images("wgan_gp"), {}, "wgan_gp has a critic"),
        (images(), {"encoder.fc.bias": None}, r"has no encoder\.fc\.bias"),
        (images(norm="group"), {}, r"for batch norm, not for model\.norm='group'"),
        (images(), {"encoder.extra.weight": torch.zeros(1)}, r"have no place for encoder\.extra\.weight"),
        (images(channels=(4, 6, 8)), {}, r"has no \w+\.main\.res_in_8\.conv_expand\.weight"),
        (images(latent_dim=6), {}, r"decoder\.fc\.0\.weight has the shape \(96, 5\), these networks have \(96, 6\)"),
        (images(), {"encoder.fc.weight": torch.zeros(960)}, r"encoder\.fc\.weight has the shape \(960,\)"),
        # Weights of a network that is told what it is to draw.
        (
            images(),
            {"decoder.fc.0.weight": torch.zeros(96, LATENT + 10)},
            r"decoder\.fc\.0\.weight has the shape \(96, 15\), these networks have \(96, 5\)",
        ),
    ],
)
def test_weights_of_other_networks_are_refused(config, changes, said):
    state = {name: value for name, value in {**image_state(), **changes}.items() if value is not None}
    with pytest.raises(ConfigError, match=said):
        from_torch_state_dict(state, config)
