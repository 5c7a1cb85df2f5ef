"""What a run says of each image: reconstruction measures, and proxies of its likelihood."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from asvae_jax.data.images import ahead, padded_batches
from asvae_jax.distributed import rows_of_all_processes, sum_over_processes
from asvae_jax.gaussians import kl_to_standard_normal, sample
from asvae_jax.losses import reconstruction_error
from asvae_jax.metrics import reconstruction
from asvae_jax.run import Run, Weights, for_all_seeds, make_autoencode, spread_like
from asvae_jax.settings import Config
from asvae_jax.streams import ACTIVE_VARIANCE

DRAWS = 5
_DRAW_SEED = 3


class Scores(NamedTuple):
    """Of N images: a score [N] for each name, and the variance [Z] of their mean codes.

    - `psnr` in dB, `ssim`, `mse` per pixel: of the decoding of the mean code, see `metrics.reconstruction`;
    - `err`: squared error of the same decoding, summed over pixels and channels;
    - `kl_real`: KL(q(z|x) || N(0, I)) in nats;
    - `elbo`: -(b_rec / b_kl) E_q |x - decode(z)|^2 - KL in nats, the expectation over 5 draws of z, images in the range
      that the networks see, as in training: the evidence lower bound, but for a constant, of the Gaussian noise that
      the weights b_rec and b_kl stand for. Without a KL in the loss (b_kl 0) there is none.
    """

    per_image: dict[str, np.ndarray]
    code_variance: np.ndarray

    @property
    def active_units(self) -> int:
        """Dimensions of the code in use (Burda et al. 2016, arXiv 1509.00519)."""
        return int(np.sum(self.code_variance > ACTIVE_VARIANCE))


def score(
    run: Run,
    weights: Weights,
    images: Callable[[np.ndarray], np.ndarray],
    count: int,
    *,
    batch_size: int | None = None,
    poll: Callable[[], None] = lambda: None,
) -> Scores:
    """Scores images, each process its share of them; the same result in all.

    Args:
      run: any but WGAN-GP; its weights on this process's own devices, see `run.on_this_process`.
      weights: averaged or raw.
      images: float32 [B, H, W, C] in [0, 1] of indices [B] below `count`.
      count: how many images.
      batch_size: images at a time; as a rule as many as in the run's own evaluations.
      poll: called between batches.

    Returns:
      Scores that do not depend on the batch, the devices or the processes but for rounding.
    """
    variables = run.weights(weights)
    batch_scores = _batch_scores(run.config)

    def computed():
        process, processes = jax.process_index(), jax.process_count()
        together = batch_size or run.config.chunk_size
        for indices, mask in padded_batches(count, together, process, processes):
            placed = (spread_like(variables, part) for part in (images(indices), indices))
            yield indices, mask, batch_scores(variables, *placed)

    rows, parts = [], []
    moments = np.zeros((2, run.config.model.latent_dim))
    for indices, mask, (scores, means) in ahead(computed()):
        poll()
        codes = np.asarray(means, np.float64)[mask]
        moments += [codes.sum(axis=0), np.square(codes).sum(axis=0)]
        rows.append(indices.astype(np.int32))
        parts.append(np.stack([np.asarray(values) for values in scores.values()], axis=1))
    whole = rows_of_all_processes(np.concatenate(rows), np.concatenate(parts), count)
    first, second = sum_over_processes(moments) / count
    return Scores(dict(zip(scores, whole.T, strict=True)), second - np.square(first))


@for_all_seeds
def _batch_scores(config: Config) -> Callable:
    return jax.jit(functools.partial(_of_batch, config))


def _of_batch(
    config: Config, variables: Any, images: jax.Array, indices: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """(scores [B] by name, mean codes [B, Z])."""
    encode, decode = make_autoencode(config)
    codes = encode(variables, images)
    decoded = jnp.clip(decode(variables, codes.mean), 0, 1)
    keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.key(_DRAW_SEED), index))(indices)
    eps = jax.vmap(lambda key: jax.random.normal(key, (DRAWS, codes.mean.shape[-1])))(keys)
    # One pass for all draws: XLA's convolutions are slow inside a loop on a CPU.
    z, target = sample(_each(DRAWS, codes), eps.reshape(-1, eps.shape[-1])), _each(DRAWS, images)
    errors = reconstruction_error(target, decode(variables, z)).reshape(-1, DRAWS)
    kl = kl_to_standard_normal(codes)
    scores = {
        "psnr": reconstruction.psnr(images, decoded),
        "ssim": reconstruction.ssim(images, decoded),
        "mse": reconstruction.mse(images, decoded),
        "err": reconstruction_error(images, decoded),
        "kl_real": kl,
    }
    b_rec, b_kl = config.method.b_rec, config.method.b_kl  # type: ignore[union-attr]
    if b_kl:
        low, high = config.data.value_range  # type: ignore[union-attr]
        scores["elbo"] = -(b_rec / b_kl) * (high - low) ** 2 * errors.mean(axis=1) - kl
    return scores, codes.mean


def _each(times: int, tree: Any) -> Any:
    """Every row `times` times, one after the other."""
    return jax.tree.map(lambda rows: jnp.repeat(rows, times, axis=0), tree)
