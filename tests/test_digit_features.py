"""The digits' own feature network: the weights that are shipped, and how they are made."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import command, refusal, terminal  # noqa: F401
from training_runs import DATA_DIR

from asvae_jax.config import resolve_data
from asvae_jax.data.records import Split
from asvae_jax.errors import DataError
from asvae_jax.features import digits, train_digits, weights
from asvae_jax.features.networks import open_network
from asvae_jax.presets.image import image_data


@pytest.fixture(scope="module", autouse=True)
def _sets_are_those_of_the_tests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", DATA_DIR)
        yield


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    """(file, accuracies) of a short training."""
    path = tmp_path_factory.mktemp("digits") / "short.safetensors"
    return path, train_digits.train_digits(path, steps=30)


def split(name: str, which: str) -> Split:
    return Split(resolve_data(image_data(name, batch_size=1)), which)


def images(name: str, which: str) -> np.ndarray:
    found = split(name, which)
    return found.rows(np.arange(len(found)))


def test_shipped_weights_are_what_they_say():
    variables, facts = digits.read()
    assert facts["network"] == "digits-28" and facts["steps"] == str(train_digits.STEPS)
    shapes = jax.tree.map(lambda leaf: leaf.shape, digits.template())
    assert jax.tree.map(lambda leaf: leaf.shape, variables) == shapes
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    network = open_network("digits")
    assert network.sha256 == facts["digest"] and len(network.sha256) == 64
    assert (network.name, network.suffix, network.dim, network.by_batch) == ("digits", "_digits", 64, False)


@pytest.mark.parametrize("name", train_digits.SETS)
def test_shipped_weights_recognise_as_many_held_out_digits_as_they_say(name):
    variables, facts = digits.read()
    held_out = split(name, "test")
    inputs = digits.to_input(jnp.asarray(images(name, "test")) / 255.0)
    share = train_digits.accuracy(variables, inputs, jnp.asarray(held_out.labels()))
    assert share == pytest.approx(float(facts[f"accuracy_{name}"]), abs=1e-3)
    assert share > 0.98


def test_features_have_unit_variance_over_the_training_digits():
    network = open_network("digits")
    apply = jax.jit(network.apply)
    features = np.concatenate(
        [np.asarray(apply(network.variables, images(name, "train"))) for name in train_digits.SETS]
    )
    assert features.shape == (4_000 + 1_438, 64) and features.dtype == np.float32
    np.testing.assert_allclose(features.std(axis=0), 1, rtol=1e-2)


def test_features_do_not_depend_on_the_batch():
    network, some = open_network("digits"), images("digits", "test")[:50]
    apply = jax.jit(network.apply)
    whole = np.asarray(apply(network.variables, some))
    for part in (slice(0, 1), slice(10, 17)):
        np.testing.assert_allclose(np.asarray(apply(network.variables, some[part])), whole[part], rtol=1e-4, atol=1e-5)


def test_colour_is_seen_as_grey():
    network, some = open_network("digits"), images("mnist5k", "test")[:5]
    grey, colour = (np.asarray(network.apply(network.variables, i)) for i in (some, np.repeat(some, 3, axis=-1)))
    np.testing.assert_allclose(colour, grey, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (56, 28, 1)])
def test_input_of_any_size_becomes_28_by_28(shape):
    flat = digits.to_input(jnp.full((2, *shape), 0.3))
    assert flat.shape == (2, 28, 28, 1)
    np.testing.assert_allclose(np.asarray(flat), 0.3, rtol=1e-5)


def test_short_training_writes_what_can_be_read_and_beats_chance(small_file):
    path, accuracies = small_file
    variables, facts = digits.read(path)
    assert set(accuracies) == {"mnist5k", "digits"} and min(accuracies.values()) > 0.3
    assert facts["steps"] == "30" and facts["network"] == "digits-28"
    for name, share in accuracies.items():
        assert float(facts[f"accuracy_{name}"]) == pytest.approx(share, abs=1e-4)
    network = open_network("digits", str(path))
    assert network.sha256 == facts["digest"] != open_network("digits").sha256
    held_out = digits.to_input(jnp.asarray(images("digits", "test")) / 255.0)
    labels = jnp.asarray(split("digits", "test").labels())
    assert train_digits.accuracy(variables, held_out, labels) == pytest.approx(accuracies["digits"], abs=1e-6)


def test_unit_variance_leaves_the_classifier_as_it_was(small_file):
    variables, _ = digits.read(small_file[0])
    inputs = digits.to_input(jnp.asarray(images("digits", "train")[:300]) / 255.0)
    layers = variables["params"]
    # Features of another size, by a factor for each.
    factors = jnp.linspace(0.2, 5, 64)
    dense = layers["features"]
    stretched = {"kernel": dense["kernel"] * factors[None, :], "bias": dense["bias"] * factors}
    before = {"params": {**layers, "features": stretched}}
    after = train_digits._of_unit_variance(before, inputs)
    features, logits = digits.DigitNetwork().apply(after, inputs)
    np.testing.assert_allclose(np.asarray(features).std(axis=0), 1, rtol=1e-3)
    _, expected = digits.DigitNetwork().apply(before, inputs)
    np.testing.assert_allclose(np.asarray(logits), np.asarray(expected), rtol=1e-3, atol=1e-3)


def test_training_images_are_moved_by_two_pixels_and_scaled_by_a_seventh_at_most():
    dot = np.zeros((28, 28, 1), np.float32)
    dot[13:15, 13:15] = 1
    moved = np.asarray(
        jax.vmap(train_digits._moved, (0, None))(jax.random.split(jax.random.key(0), 200), jnp.asarray(dot))
    )
    rows = (moved * np.arange(28)[:, None, None]).sum(axis=(1, 2, 3)) / moved.sum(axis=(1, 2, 3))
    assert np.abs(rows - 13.5).max() < 2.1 and np.abs(rows - 13.5).max() > 1.5
    assert abs(np.mean(rows - 13.5)) < 0.3
    ring = np.zeros((28, 28, 1), np.float32)
    ring[4, :], ring[-5, :] = 1, 1
    tall = np.asarray(
        jax.vmap(train_digits._moved, (0, None))(jax.random.split(jax.random.key(0), 200), jnp.asarray(ring))
    )
    heights = [np.ptp(np.flatnonzero(image[:, 14, 0] > 0.3)) for image in tall]
    assert 19 * 0.85 - 1 <= min(heights) < 19 < max(heights) <= 19 * 1.15 + 2


def test_command_writes_where_it_is_told_and_says_how_good_it_is(tmp_path, capsys, monkeypatch):
    written = []
    monkeypatch.setattr(train_digits, "train_digits", lambda out: written.append(out) or {"digits": 0.994})
    said = command(capsys, "train-digit-features", "--out", tmp_path / "new.safetensors")
    assert written == [tmp_path / "new.safetensors"]
    assert "digits: 99.4% of the held-out digits recognised" in said and said.endswith(f"{written[0]}\n")
    assert ".safetensors" in refusal(capsys, "train-digit-features", "--out", tmp_path / "new.npz")


def test_weights_of_another_network_are_refused(tmp_path):
    variables, _ = digits.read()
    weights.write(tmp_path / "other.safetensors", "digits-32", variables, {})
    with pytest.raises(DataError, match="holds the weights of digits-32, not of digits-28"):
        open_network("digits", str(tmp_path / "other.safetensors"))


def test_damaged_weights_are_refused(tmp_path):
    content = bytearray(digits.SHIPPED_WEIGHTS.read_bytes())
    content[-1_000] ^= 0x40
    (tmp_path / "damaged.safetensors").write_bytes(content)
    (tmp_path / "cut.safetensors").write_bytes(content[:-1_000])
    with pytest.raises(DataError, match="is damaged"):
        digits.read(tmp_path / "damaged.safetensors")
    for name in ("cut", "absent"):
        with pytest.raises(DataError, match="can be read"):
            digits.read(tmp_path / f"{name}.safetensors")


def test_set_without_labels_teaches_nothing():
    faces = dataclasses.replace(resolve_data(image_data("faces25", batch_size=1)))
    with pytest.raises(DataError, match="no labels"):
        Split(faces, "test").labels()
