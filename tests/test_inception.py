"""The FID Inception in Flax against `pytorch-fid`'s own network, on random weights."""

import copy
import hashlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from command_line import refusal, terminal  # noqa: F401
from PIL import Image
from torch_inception import published_features, random_network, state_of

from asvae_jax.errors import ConfigError, DataError
from asvae_jax.features import digits, weights
from asvae_jax.features.inception import Inception, resize
from asvae_jax.features.networks import figure_name, is_figure, open_network


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The random weights as the published ones come: a .pth file, and its sha256."""
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    torch.save(random_network().state_dict(), path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def converted(source):
    path, sha256 = source
    out = path.with_suffix(".safetensors")
    weights.convert_inception(path, out, sha256=sha256)
    return out


def pictures(count: int, size: int, channels: int = 3) -> np.ndarray:
    """uint8 images with structure at several scales."""
    random = np.random.default_rng(0)
    coarse = random.integers(256, size=(count, 4, 4, channels)).astype(np.float32)
    images = np.asarray(jax.image.resize(coarse, (count, size, size, channels), "linear"))
    return np.clip(images + random.normal(0, 20, images.shape), 0, 255).astype(np.uint8)


def torch_input(images: np.ndarray) -> torch.Tensor:
    """What `pytorch-fid` makes of uint8 images."""
    colour = np.broadcast_to(images, (*images.shape[:-1], 3)).transpose(0, 3, 1, 2) / np.float32(255)
    scaled = torch.nn.functional.interpolate(
        torch.tensor(colour), size=(299, 299), mode="bilinear", align_corners=False
    )
    return 2 * scaled - 1


def torch_layers(network: torch.nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    """What every convolution puts out after its rectifier, [B, h, w, C], and the pooled features as "features"."""
    found = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out.numpy()))
        for name, module in network.named_modules()
        if type(module).__name__ == "BasicConv2d" or name == "avgpool"
    ]
    with torch.no_grad():
        network(torch_input(images).to(next(network.parameters()).dtype))
    for hook in hooks:
        hook.remove()
    found = {name: out.transpose(0, 2, 3, 1) for name, out in found.items()}
    return {"features": found.pop("avgpool")[:, 0, 0], **found}


def assert_near(got, expected, tolerance: float) -> None:
    """To `tolerance` of the largest number."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_every_layer_equals_that_of_pytorch_fid(converted):
    images = pictures(2, 64)
    theirs = torch_layers(random_network(), images)
    assert len(theirs) == 95
    variables, _ = weights.read_inception(converted)
    inputs = torch_input(images).numpy().transpose(0, 2, 3, 1)
    features, noted = jax.jit(lambda v, x: Inception().apply(v, x, mutable=["intermediates"]))(variables, inputs)
    for name, expected in theirs.items():
        if name == "features":
            assert_near(features, expected, 1e-4)
            continue
        ours = noted["intermediates"]
        for part in name.split("."):
            ours = ours[part]
        assert_near(ours["out"][0], expected, 1e-4)


@pytest.fixture(scope="module")
def network(converted):
    """Inception by its name, with a compiled call for each shape of images."""
    opened = open_network("inception", str(converted))
    compiled = jax.jit(opened.apply)
    return lambda images: np.asarray(compiled(opened.variables, images))


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (299, 3), (320, 3), (28, 1)])
def test_features_of_uint8_images_equal_those_of_pytorch_fid(size, channels, network):
    images = pictures(2, size, channels)
    assert_near(network(images), published_features(np.repeat(images, 3 // channels, axis=-1)), 1e-5)


def test_features_do_not_depend_on_the_batch(network):
    images = pictures(4, 32)
    alone, beside = network(images[:2]), network(images)
    np.testing.assert_allclose(alone, beside[:2], rtol=0, atol=1e-5 * np.abs(beside).max())


def test_legacy_features_are_those_of_a_network_in_training_mode(converted):
    images = pictures(4, 32)
    # In float64: every layer divides by the spread of a few images, which magnifies the rounding of the one before.
    training = copy.deepcopy(random_network()).double().train()
    # Dropout lies behind the features; without it here the hooks see the same in both modes.
    training.dropout.p = 0.0
    legacy = open_network("inception_batchstat", str(converted))
    compiled = jax.jit(legacy.apply)
    whole = compiled(legacy.variables, images)
    assert legacy.by_batch
    assert_near(whole, torch_layers(training, images)["features"], 1e-4)
    other = compiled(legacy.variables, np.concatenate([images[:2], 255 - images[2:]]))
    assert np.abs(whole[:2] - other[:2]).max() > 0.01 * np.abs(whole).max()


@pytest.mark.parametrize("shape", [(8, 8), (32, 48), (299, 299), (320, 512)])
def test_half_pixel_resize_is_that_of_pytorch(shape):
    images = np.random.default_rng(1).random((2, *shape, 3), np.float32)
    # In float64, since PyTorch rounds positions to the type of the images.
    wide = torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float64)
    theirs = torch.nn.functional.interpolate(wide, size=(299, 299), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resize(jnp.asarray(images), "half_pixel"), theirs.permute(0, 2, 3, 1), atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (32, 48), (400, 320)])
def test_corner_resize_is_that_of_tensorflow_1(shape):
    images = np.random.default_rng(1).random((1, *shape, 3), np.float32)
    by_hand = images.astype(np.float64)
    for axis, size in ((1, shape[0]), (2, shape[1])):
        at = np.arange(299) * (size / 299)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, size - 1)
        part = (at - below).reshape([-1 if i == axis else 1 for i in range(4)])
        by_hand = (1 - part) * by_hand.take(below, axis) + part * by_hand.take(above, axis)
    np.testing.assert_allclose(resize(jnp.asarray(images), "corner"), by_hand, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 32), (512, 512), (40, 350)])
def test_antialiased_filter_is_that_of_pillow(shape):
    images = np.random.default_rng(3).uniform(0, 255, (2, *shape, 3)).astype(np.float32)
    theirs = [
        [Image.fromarray(image[..., channel]).resize((299, 299), Image.Resampling.BICUBIC) for channel in range(3)]
        for image in images
    ]
    expected = np.stack([np.stack([np.asarray(plane) for plane in planes], axis=-1) for planes in theirs])
    np.testing.assert_allclose(resize(jnp.asarray(images), "antialiased"), expected, rtol=0, atol=2e-3)


def test_clean_features_are_those_of_antialiased_images(converted):
    images = np.random.default_rng(4).integers(0, 2, (2, 400, 400, 3)).astype(np.uint8) * 255
    clean = open_network("inception_clean", str(converted))
    by_hand = np.clip(np.asarray(resize(jnp.asarray(images, jnp.float32), "antialiased")), 0, 255)
    variables, _ = weights.read_inception(converted)
    expected, _ = jax.jit(lambda v, x: Inception().apply(v, x, mutable=["intermediates"]))(variables, by_hand / 128 - 1)
    assert_near(jax.jit(clean.apply)(clean.variables, images), expected, 1e-5)


def test_pixel_centres_make_another_feature(converted, network):
    images = pictures(2, 32)
    tensorflow = open_network("inception_tf", str(converted))
    features = jax.jit(tensorflow.apply)(tensorflow.variables, images)
    assert np.abs(features - network(images)).max() > 1e-3 * np.abs(features).max()


@pytest.mark.parametrize("zipped", [True, False])
def test_conversion_keeps_every_number(zipped, tmp_path):
    # The published file is older than the zipped format.
    path, out = tmp_path / "old.pth", tmp_path / "new.safetensors"
    torch.save(random_network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    weights.convert_inception(path, out, sha256=sha256)
    variables, facts = weights.read_inception(out)
    assert facts["source_sha256"] == sha256
    state = state_of(random_network())
    kernel = variables["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, state["Mixed_6b.branch7x7_2.conv.weight"].transpose(2, 3, 1, 0))
    variance = variables["batch_stats"]["Mixed_7c"]["branch_pool"]["bn"]["var"]
    np.testing.assert_array_equal(variance, state["Mixed_7c.branch_pool.bn.running_var"])


def test_another_file_than_the_published_one_is_refused(source, tmp_path, capsys):
    path, sha256 = source
    said = refusal(capsys, "convert-inception", path, "--out", tmp_path / "new.safetensors")
    assert sha256 in said and weights.PUBLISHED_SHA256 in said
    assert not (tmp_path / "new.safetensors").exists()


def test_absent_source_is_named(tmp_path, capsys):
    said = refusal(capsys, "convert-inception", tmp_path / "no.pth", "--out", tmp_path / "new.safetensors")
    assert "There is no file" in said and "pt_inception-2015-12-05-6726825d.pth" in said


def test_weights_of_another_network_are_refused():
    state = state_of(random_network())
    with pytest.raises(DataError, match=r"lack Mixed_5b\.branch1x1\."):
        weights.inception_variables({k: v for k, v in state.items() if not k.startswith("Mixed_5b.branch1x1")})
    name = "Conv2d_1a_3x3.conv.weight"
    with pytest.raises(DataError, match=rf"{name} has shape \(3, 3, 1, 32\)"):
        weights.inception_variables({**state, name: state[name][:, :1]})


def damaged(path, tmp_path, damage):
    copied = tmp_path / "damaged.safetensors"
    shutil.copy(path, copied)
    content = bytearray(copied.read_bytes())
    copied.write_bytes(damage(content))
    return copied


def flipped(content: bytearray) -> bytearray:
    content[-1000] ^= 1
    return content


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flipped, "damaged"),
        (lambda content: content[: len(content) // 2], "no weights that can be read"),
        (lambda content: b"", "no weights that can be read"),
    ],
)
def test_damaged_weights_are_refused(damage, said, converted, tmp_path):
    with pytest.raises(DataError, match=said):
        open_network("inception", str(damaged(converted, tmp_path, damage)))


def test_weights_that_are_not_inceptions_are_refused():
    with pytest.raises(DataError, match=r"holds the weights of digits-28, not of inception-2015-12-05"):
        open_network("inception", str(digits.SHIPPED_WEIGHTS))


@pytest.mark.parametrize("file", ["", "nowhere.safetensors"])
def test_absent_weights_say_how_to_get_them(file):
    with pytest.raises(DataError, match="convert-inception"):
        open_network("inception", file)


def test_unknown_features_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'inception'"):
        open_network("inceptoin")


def test_names_say_features_and_small_numbers(converted):
    suffixes = {
        "inception": "",
        "inception_tf": "_tf",
        "inception_clean": "_clean",
        "inception_batchstat": "_batchstat_legacy",
    }
    networks = {name: open_network(name, str(converted)) for name in suffixes}
    for name, suffix in suffixes.items():
        assert figure_name("fid", networks[name], 10_000) == f"fid{suffix}"
        assert figure_name("fid", networks[name], 9_999) == f"fid{suffix}_n9999"
        assert figure_name("kid", networks[name], 9_999) == f"kid{suffix}"
    assert figure_name("fid", open_network("digits"), 5_000) == "fid_digits_n5000"
    shown = ["fid", "fid_tf", "fid_digits_n5000", "kid_digits", "fid_batchstat_legacy_n64"]
    found = [[is_figure(name, figure) for name in shown] for figure in ("fid", "kid")]
    assert found == [[True, True, True, False, True], [False, False, False, True, False]]
    assert len({network.resize for network in networks.values()}) == 3
