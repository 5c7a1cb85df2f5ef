"""A small network that tells handwritten digits apart: the features behind `fid_digits`, where Inception's weights are
absent or its photographs' features beside the point.

It comes with the package, trained by `python -m asvae_jax train-digit-features` on the training splits of `mnist5k` and
`digits`. Its figures compare with each other and with no published FID.
"""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from asvae_jax.features import weights

NETWORK = "digits-28"
SIDE, FEATURES, CLASSES = 28, 64, 10

SHIPPED_WEIGHTS = Path(__file__).with_name("digits.safetensors")


class DigitNetwork(nn.Module):
    """Grey images [B, 28, 28, 1] in [0, 1] to (features [B, 64], logits [B, 10])."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        for i, (width, stride) in enumerate([(16, 1), (32, 2), (32, 1), (64, 2)]):
            conv = nn.Conv(width, (3, 3), stride, precision=jax.lax.Precision.HIGHEST, name=f"conv{i}")
            x = nn.relu(conv(x))
        x = nn.max_pool(x, (2, 2), (2, 2), padding="SAME").reshape(x.shape[0], -1)
        features = nn.Dense(FEATURES, precision=jax.lax.Precision.HIGHEST, name="features")(x)
        logits = nn.Dense(CLASSES, precision=jax.lax.Precision.HIGHEST, name="classes")(nn.relu(features))
        return features, logits


def to_input(images: jax.Array) -> jax.Array:
    """Images [B, H, W, 1 or 3] in [0, 1] as the network wants them: grey, 28 x 28 by linear interpolation
    (antialiased where it shrinks them)."""
    grey = jnp.mean(images, axis=-1, keepdims=True)
    return jax.image.resize(grey, (len(images), SIDE, SIDE, 1), "linear", precision=jax.lax.Precision.HIGHEST)


def read(path: Path = SHIPPED_WEIGHTS) -> tuple[dict[str, Any], dict[str, str]]:
    """(variables, facts) of the weights that the package ships; raises as `weights.read` does."""
    return weights.read(path, NETWORK, template())


def template() -> dict[str, Any]:
    """The shapes of the variables."""
    return jax.eval_shape(DigitNetwork().init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.float32))
