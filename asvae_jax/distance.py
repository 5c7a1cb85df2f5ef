"""The Adversarial Similarity Distance of AS-IntroVAE (arXiv 2206.13903, Eqs. 5-8): how far two batches of codes lie
apart.

`D = mean k(p, p) + mean k(q, q) - 2 mean k(p, q)` over all pairs is for `product` the squared L2 distance between the
two batch mixtures, for `per_dim` that between their marginals, times sqrt(2 pi). Three ways to compute it, one value:

- `pairwise`: the definition, O(N * M * Z) memory; the yardstick of the tests and the choice for small batches;
- `tiled`: the same pairs in tiles that the backward pass computes again, O(tile^2 * Z + (N + M) * Z) memory;
- `grid`: for the per-dimension kernel the difference of the marginals' densities is squared and summed on a uniform
  grid, O((N + M) * Z) memory and no pairs at all: non-negative by construction.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp

from asvae_jax.gaussians import Gaussian, in_full_precision
from asvae_jax.gaussians import squash as squash_codes

Kernel = Literal["per_dim", "product", "prior", "means"]
Statistic = Literal["V", "U"]
OverDims = Literal["mean", "sum"]
Method = Literal["auto", "pairwise", "tiled", "grid"]

KERNELS, STATISTICS, OVER_DIMS, METHODS = map(get_args, (Kernel, Statistic, OverDims, Method))

WITH_BANDWIDTH = ("product", "means")
"""The kernels that take one."""

# (p [N, Z], q [M, Z]) -> [N, M] or [N, M, Z]
_PairKernel = Callable[[Gaussian, Gaussian], jax.Array]

# Elements of the largest temporary that the grid makes: 64 MiB of float32.
_CHUNK_ELEMENTS = 2**24
# Elements of a tile, of which a handful of temporaries are made. A CPU's stay in its cache: 2 ms instead of 12 for D's
# gradient of 512 codes of 2 dimensions.
_TILE_ELEMENTS = {"cpu": 2**15}
_TILE_ELEMENTS_OF_ACCELERATORS = 2**22


def pairwise_kernel(
    p: Gaussian, q: Gaussian, *, kernel: Kernel = "per_dim", bandwidth: float | tuple[float, ...] = 0.0
) -> jax.Array:
    """The kernel of every pair of codes. With S = v_i + v_j and d = mu_i - mu_j, per dimension:

    - `per_dim`: S^(-1/2) exp(-d^2 / (2 S)), kept apart for each dimension;
    - `product`: the integral of p_i q_j (Eq. 8 in Z dimensions): the product of (2 pi S)^(-1/2) exp(-d^2 / (2 S)). With
      a `bandwidth` h^2 it is the expectation of exp(-|x - y|^2 / (2 h^2)) over x ~ p_i and y ~ q_j, which makes D the
      MMD of an RBF kernel: the product of (1 + S / h^2)^(-1/2) exp(-d^2 / (2 (S + h^2))). That is the integral with
      S + h^2 in place of S, times (2 pi h^2)^(Z/2), without which it would leave float32 by Z = 64; h^2 = Z / 2 still
      tells codes apart at Z = 256;
    - `prior`: E over z ~ N(0, I) of p_i(z) q_j(z) (the text of Eq. 7): the product kernel times
      N(m; 0, 1 + v_i v_j / S), m = (mu_i v_j + mu_j v_i) / S;
    - `means`: exp(-|mu_i - mu_j|^2 / (2 h^2)), with a `bandwidth` h^2: what `product` with it is for codes without any
      variance. The others are at least as wide as the codes are; this sees what is finer than that. With several h^2
      it is the sum over them.

    Args:
      p: fields [N, Z].
      q: fields [M, Z].
      kernel: one of the above.
      bandwidth: h^2, for `product`, where 0 is none, and for `means`, which needs one and may have several.

    Returns:
      [N, M, Z] for `per_dim`, else [N, M]; positive.

    Raises:
      ValueError: for an unknown kernel, bandwidths that it does not have, or none with `means`.
    """
    bandwidths = _checked_bandwidths(kernel, bandwidth)
    p, q = in_full_precision(p), in_full_precision(q)
    chex.assert_rank([p.mean, p.logvar, q.mean, q.logvar], 2)
    # Dimensions first, [Z, N, M]: a CPU's vectors run along the last axis, and Z may be 2.
    mean_p, mean_q = p.mean.T[:, :, None], q.mean.T[:, None, :]
    squared = jnp.square(mean_p - mean_q)
    if kernel == "means":
        squared = jnp.sum(squared, axis=0)
        return sum((jnp.exp(-0.5 * squared / h2) for h2 in bandwidths), start=jnp.zeros_like(squared))
    (h2,) = bandwidths
    variance_p, variance_q = jnp.exp(p.logvar).T[:, :, None], jnp.exp(q.logvar).T[:, None, :]
    total = variance_p + variance_q + h2
    exponent = -0.5 * squared / total
    if kernel == "per_dim":
        return jnp.moveaxis(jnp.exp(exponent) / jnp.sqrt(total), 0, -1)
    # One that differs between the members of a sweep is an array, and positive.
    unit = h2 if isinstance(h2, jax.Array) or h2 else 1 / (2 * math.pi)
    log_kernel = exponent - 0.5 * jnp.log(total / unit)
    if kernel == "prior":
        middle = (mean_p * variance_q + mean_q * variance_p) / total
        spread = 1 + variance_p * variance_q / total
        log_kernel += -0.5 * jnp.log(2 * jnp.pi * spread) - 0.5 * jnp.square(middle) / spread
    return jnp.exp(jnp.sum(log_kernel, axis=0))


def as_distance(
    p: Gaussian,
    q: Gaussian,
    *,
    kernel: Kernel = "per_dim",
    statistic: Statistic = "V",
    over_dims: OverDims = "mean",
    bandwidth: float | tuple[float, ...] = 0.0,
    squash: bool = False,
    method: Method = "auto",
) -> jax.Array:
    """The AS-Distance between two batches of codes, averaged over pairs (arXiv 2206.13903, Eq. 5).

    Args:
      p: fields [N, Z].
      q: fields [M, Z]; N and M may differ.
      kernel: see `pairwise_kernel`.
      statistic: `V` averages over all pairs: non-negative, and 0 for a permuted copy. `U` leaves out i = j: unbiased,
        may be negative.
      over_dims: how `per_dim` joins the dimensions; the other kernels have joined them already.
      bandwidth: h^2 of the kernels `product` and `means`, of which the latter may have several; see `pairwise_kernel`.
      squash: tanh of means and log-variances first. Without it an encoder can make D grow without limit by shrinking
        its variances. Under it D(per_dim, mean) lies in [0, 2.178].
      method: `auto` takes the grid for squashed per_dim codes, else pairs, in tiles once they are many. `grid`
        without squash spans its nodes over the codes; it holds while the smallest standard deviation is at least
        1/500 of that span.

    Returns:
      A scalar, float32 (float64 for float64 codes), whatever the devices that the batch is spread over.

    Raises:
      ValueError: for an unknown word, bandwidths or a grid that the kernel does not have, `means` without a bandwidth,
        or the U statistic of fewer than two codes.
    """
    _checked_bandwidths(kernel, bandwidth)
    _check_word("statistic", statistic, STATISTICS)
    _check_word("over_dims", over_dims, OVER_DIMS)
    _check_word("method", method, METHODS)
    if method == "grid" and kernel != "per_dim":
        raise ValueError(f"method='grid' needs kernel='per_dim', got {kernel!r}; use method='tiled'.")
    if statistic == "U" and min(p.mean.shape[0], q.mean.shape[0]) < 2:
        raise ValueError(
            "The U statistic leaves out i = j and needs at least two codes in each batch; use statistic='V'."
        )
    p, q = in_full_precision(p), in_full_precision(q)
    chex.assert_rank([p.mean, p.logvar, q.mean, q.logvar], 2)
    chex.assert_equal_shape_suffix([p.mean, p.logvar, q.mean, q.logvar], 1)
    if squash:
        p, q = squash_codes(p), squash_codes(q)
    if method == "auto":
        method = _pick_method(p, q, kernel, squash)

    pair_kernel = partial(pairwise_kernel, kernel=kernel, bandwidth=bandwidth)
    if method == "grid":
        distance, within_p, within_q = _grid_terms(p, q, _nodes(p, q, squash))
    else:
        mean_kernel = _tiled_mean if method == "tiled" else _pairwise_mean
        within_p, within_q = mean_kernel(p, p, pair_kernel), mean_kernel(q, q, pair_kernel)
        distance = within_p + within_q - 2 * mean_kernel(p, q, pair_kernel)
    if statistic == "U":
        distance += _diagonal_correction(p, within_p, pair_kernel) + _diagonal_correction(q, within_q, pair_kernel)
    if kernel == "per_dim" and over_dims == "sum":
        distance *= p.mean.shape[-1]
    return distance


def root(squared: jax.Array) -> jax.Array:
    """The root of an AS-Distance, which is a squared distance (of `U` 0 where it is negative); its slope stays finite
    where the two batches are alike, as 1e-6 is added to the square."""
    return jnp.sqrt(jnp.maximum(squared, 0) + 1e-6)


def _pick_method(p: Gaussian, q: Gaussian, kernel: Kernel, squash: bool) -> Method:
    if kernel == "per_dim" and squash:
        return "grid"
    pairs = max(p.mean.shape[0], q.mean.shape[0]) ** 2
    return "pairwise" if pairs * p.mean.shape[1] <= _tile_elements() else "tiled"


def _tile_elements() -> int:
    return _TILE_ELEMENTS.get(jax.default_backend(), _TILE_ELEMENTS_OF_ACCELERATORS)


def _pairwise_mean(p: Gaussian, q: Gaussian, pair_kernel: _PairKernel) -> jax.Array:
    return jnp.mean(pair_kernel(p, q))


def _tiled_mean(p: Gaussian, q: Gaussian, pair_kernel: _PairKernel) -> jax.Array:
    """`_pairwise_mean` in square tiles; a tile is computed again in the backward pass instead of being kept."""
    tile = max(1, math.isqrt(_tile_elements() // p.mean.shape[1]))
    rows, columns = _in_tiles(p, tile), _in_tiles(q, tile)

    @jax.checkpoint
    def tile_sum(row, column):
        (row_codes, row_weights), (column_codes, column_weights) = row, column
        values = pair_kernel(row_codes, column_codes)
        values = values if values.ndim == 2 else jnp.mean(values, axis=-1)
        # Not a matrix product: accelerators round its operands to fewer bits.
        return jnp.sum(values * row_weights[:, None] * column_weights[None, :])

    def row_sum(row):
        return jnp.sum(jax.lax.map(lambda column: tile_sum(row, column), columns))

    return jnp.sum(jax.lax.map(row_sum, rows)) / (p.mean.shape[0] * q.mean.shape[0])


def _in_tiles(p: Gaussian, tile: int) -> tuple[Gaussian, jax.Array]:
    """Codes as [tiles, tile, Z], in tiles of `tile` codes at most, and the weights [tiles, tile] that leave the padding
    out."""
    count = p.mean.shape[0]
    tiles = math.ceil(count / tile)
    tile = math.ceil(count / tiles)
    padding = tiles * tile - count
    fields = [jnp.pad(field, ((0, padding), (0, 0))).reshape(tiles, tile, -1) for field in p]
    weights = jnp.pad(jnp.ones(count, p.mean.dtype), (0, padding)).reshape(tiles, tile)
    return Gaussian(*fields), weights


def _nodes(p: Gaussian, q: Gaussian, squash: bool) -> tuple[jax.Array, jax.Array]:
    """Nodes [G] of the uniform grid and their step.

    Squashed codes have standard deviations in [0.61, 1.65] and means within +-1: +-10 holds all their mass, and the
    sum over the nodes is exact to 3e-8 with 41 nodes and to 1.5e-14 with 68.
    """
    dtype = p.mean.dtype
    if squash:
        low, high = jnp.asarray(-10.0, dtype), jnp.asarray(10.0, dtype)
        count = 68 if dtype == jnp.float64 else 41
    else:
        reach = [6.5 * jnp.exp(0.5 * codes.logvar) for codes in (p, q)]
        low = jnp.minimum(jnp.min(p.mean - reach[0]), jnp.min(q.mean - reach[1]))
        high = jnp.maximum(jnp.max(p.mean + reach[0]), jnp.max(q.mean + reach[1]))
        count = 1024
    # Where the nodes lie is no part of the distance.
    low, high = jax.lax.stop_gradient(low), jax.lax.stop_gradient(high)
    step = (high - low) / (count - 1)
    return low + step * jnp.arange(count, dtype=dtype), step


def _grid_terms(p: Gaussian, q: Gaussian, grid: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(V distance, mean k(p, p), mean k(q, q)) of the per-dimension kernel, averaged over Z: sqrt(2 pi) times
    integrals of densities."""
    nodes, step = grid
    density_p, density_q = _mixture_density(p, nodes), _mixture_density(q, nodes)

    def integral(squared):
        return math.sqrt(2 * math.pi) * step * jnp.mean(jnp.sum(squared, axis=0))

    return integral(jnp.square(density_p - density_q)), integral(jnp.square(density_p)), integral(jnp.square(density_q))


def _mixture_density(p: Gaussian, nodes: jax.Array) -> jax.Array:
    """The batch mean of the marginal densities at each node, [G, Z]; one all-reduce of this array is all that a
    sharded batch needs."""
    # Dimensions first, as in `pairwise_kernel`.
    mean, logvar = p.mean.T, p.logvar.T

    @jax.checkpoint
    def at_node(node):
        density = jnp.exp(-0.5 * jnp.square(node - mean) * jnp.exp(-logvar) - 0.5 * logvar)
        return jnp.mean(density, axis=-1) / math.sqrt(2 * math.pi)

    at_once = min(nodes.size, max(1, _CHUNK_ELEMENTS // p.mean.size))
    return jax.lax.map(at_node, nodes, batch_size=at_once)


def _diagonal_correction(p: Gaussian, within: jax.Array, pair_kernel: _PairKernel) -> jax.Array:
    """What turns the mean over all pairs of one batch into the mean over i != j."""
    itself: Callable[[Gaussian], jax.Array] = jax.vmap(
        lambda code: jnp.mean(pair_kernel(_one_row(code), _one_row(code)))
    )
    return (within - jnp.mean(itself(p))) / (p.mean.shape[0] - 1)


def _one_row(code: Gaussian) -> Gaussian:
    return Gaussian(code.mean[None], code.logvar[None])


def _checked_bandwidths(kernel: str, bandwidth: float | tuple[float, ...]) -> tuple[float, ...]:
    _check_word("kernel", kernel, KERNELS)
    bandwidths = bandwidth if isinstance(bandwidth, tuple) else (bandwidth,)
    if kernel not in WITH_BANDWIDTH and any(bandwidths):
        raise ValueError(f"bandwidth={bandwidth} belongs to kernel='product' or 'means'; kernel={kernel!r} has none.")
    # A traced one, of a sweep, has no value yet.
    if any(isinstance(h2, int | float) and h2 < 0 for h2 in bandwidths):
        raise ValueError(f"bandwidth={bandwidth} is added to variances and must not be negative.")
    if kernel == "means" and not (bandwidths and min(bandwidths) > 0):
        raise ValueError(f"kernel='means' needs a positive bandwidth, got {bandwidth}.")
    if kernel != "means" and len(bandwidths) != 1:
        raise ValueError(f"kernel={kernel!r} has one bandwidth, got {bandwidth}; kernel='means' may have several.")
    return bandwidths


def _check_word(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")
