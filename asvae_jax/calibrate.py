"""Batch-norm statistics for given weights.

Training normalises every pass by its own batch. Real, rec and fake images are different distributions, and an average
over training would be wrong for each of them. So the statistics are measured afterwards, for the very weights in use:
the encoder's on real images, the decoder's on prior samples and, for reconstruction, on posterior samples.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from asvae_jax.distributed import over_batch, replicated
from asvae_jax.errors import NotFiniteError
from asvae_jax.gaussians import sample
from asvae_jax.models import make_networks, measure_statistics
from asvae_jax.settings import Config, WganGp
from asvae_jax.update import draw_noise

# Statistics = {"encoder": ..., "decoder_prior": ..., "decoder_posterior": ...}; {} for networks without batch norm.
Statistics = dict[str, Any]

# Keeps the noise of calibration apart from that of training.
_CALIBRATION_SEED = 0xCA11


def statistics_shape(config: Config) -> Statistics:
    """Shapes and types of the statistics, {} for networks without batch norm."""
    if not has_statistics(config):
        return {}
    params = jax.eval_shape(make_networks(config).init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *config.example_shape), jnp.float32)
    return jax.eval_shape(lambda p, x: statistics_of_batch(config, p, x, 0), params, images)


def has_statistics(config: Config) -> bool:
    """Whether the networks of this config need calibration at all."""
    return getattr(config.model, "norm", "none") == "batch"


def make_calibrate(config: Config, mesh: Mesh) -> Callable[[dict[str, Any], Iterable[jax.Array]], Statistics]:
    """calibrate(params, batches of real images [B, ...] as networks see them) -> statistics, averaged over the batches.

    Raises (when called):
      NotFiniteError: if a statistic is not finite.
    """
    measure = jax.jit(
        lambda params, images, index: _moments(statistics_of_batch(config, params, images, index)),
        in_shardings=(replicated(mesh), over_batch(mesh), None),
        out_shardings=replicated(mesh),
    )

    def calibrate(params: dict[str, Any], batches: Iterable[jax.Array]) -> Statistics:
        if not has_statistics(config):
            return {}
        total, count = None, 0
        for count, images in enumerate(batches, start=1):
            moments = measure(params, images, count)
            total = moments if total is None else jax.tree.map(jnp.add, total, moments)
        statistics = _from_moments(jax.tree.map(lambda x: x / count, total))
        if not all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(statistics)):
            raise NotFiniteError(
                "Batch-norm statistics of these weights are not finite; resume from an earlier checkpoint."
            )
        return statistics

    return calibrate


def statistics_of_batch(
    config: Config, params: dict[str, Any], images: jax.Array, index: jax.typing.ArrayLike
) -> Statistics:
    """Statistics of one batch of each stream; `index` numbers the batch, and with it the noise."""
    networks = make_networks(config)
    noise = draw_noise(jax.random.key(_CALIBRATION_SEED), index, images.shape[0], networks.latent_dim)
    _, prior = measure_statistics(networks.decoder, params["decoder"], noise.prior)
    if isinstance(config.method, WganGp):
        return {"decoder_prior": prior}
    codes, encoder = measure_statistics(networks.encoder, params["encoder"], images)
    _, posterior = measure_statistics(networks.decoder, params["decoder"], sample(codes, noise.eps_real))
    return {"encoder": encoder, "decoder_prior": prior, "decoder_posterior": posterior}


def _is_norm(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == {"mean", "var"}


def _moments(statistics: Statistics) -> Statistics:
    """(mean, variance) to (mean, mean square), which may be averaged over batches."""
    return jax.tree.map(
        lambda n: {"mean": n["mean"], "var": n["var"] + jnp.square(n["mean"])}, statistics, is_leaf=_is_norm
    )


def _from_moments(moments: Statistics) -> Statistics:
    return jax.tree.map(
        lambda n: {"mean": n["mean"], "var": jnp.maximum(n["var"] - jnp.square(n["mean"]), 0.0)},
        moments,
        is_leaf=_is_norm,
    )
