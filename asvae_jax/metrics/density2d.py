"""How well generated 2-D points follow real ones: histogram divergences, proper and as published, and modes hit."""

import numpy as np

# Added to densities under a logarithm in the published measures.
_PAPER_EPSILON = 1e-14
# A sample belongs to a mode within this distance; a mode is hit by this share of the samples.
MODE_RADIUS = 0.1
MODE_SHARE = 0.01


def evaluate(
    real: np.ndarray, generated: np.ndarray, *, limit: float, bins: int = 100, modes: np.ndarray | None = None
) -> dict[str, float]:
    """Compares two sets of points over the square [-limit, limit]^2.

    Args:
      real: [N, 2].
      generated: [M, 2].
      limit: half the side of the square.
      bins: histogram bins along each axis.
      modes: centres [K, 2] of a Gaussian mixture, to count the modes hit.

    Returns:
      Finite floats, whatever the points:
      - `kl`, `jsd`: KL(real || generated) and the Jensen-Shannon divergence, in nats, on probability mass over the
        bins and one more bin for all that lies outside; one pseudo-sample spread evenly over the bins keeps `kl`
        finite; `jsd` is at most ln 2;
      - `kl_paper`, `jsd_paper`: the units of arXiv 2206.13903, Table 1: on densities within the square, the sum
        divided by `bins`, and the arguments of the Jensen-Shannon divergence reversed, so that neither is bounded by
        what its name says;
      - `out_of_range`: share of generated points outside the square (a point that is not finite counts as outside);
      - with `modes`: `modes_hit`, a mode counting if at least 1 % of the generated points lie within 0.1 of it, and
        `strays`, the share of generated points within 0.1 of no mode.

    Raises:
      ValueError: if either set is empty or not [N, 2].
    """
    for name, points in (("real", real), ("generated", generated)):
        if np.ndim(points) != 2 or np.shape(points)[1] != 2 or len(points) == 0:
            raise ValueError(f"{name} must be points [N, 2] with N >= 1, got shape {np.shape(points)}.")
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    counts_real, counts_generated = (_histogram(points, limit, bins) for points in (real, generated))
    result = {
        **_proper(counts_real, len(real), counts_generated, len(generated)),
        **_as_published(counts_real, counts_generated, limit, bins),
        "out_of_range": 1 - counts_generated.sum() / len(generated),
    }
    if modes is not None:
        result |= _modes(generated, np.asarray(modes))
    return {name: float(value) for name, value in result.items()}


def _histogram(points: np.ndarray, limit: float, bins: int) -> np.ndarray:
    finite = points[np.isfinite(points).all(axis=1)]
    return np.histogram2d(finite[:, 0], finite[:, 1], bins=bins, range=[[-limit, limit]] * 2)[0]


def _proper(counts_p: np.ndarray, n_p: int, counts_q: np.ndarray, n_q: int) -> dict[str, float]:
    def mass(counts: np.ndarray, n: int) -> np.ndarray:
        with_outside = np.append(counts.ravel(), n - counts.sum())
        return (with_outside + 1 / with_outside.size) / (n + 1)

    p, q = mass(counts_p, n_p), mass(counts_q, n_q)
    middle = (p + q) / 2
    jsd = 0.5 * np.sum(p * np.log(p / middle)) + 0.5 * np.sum(q * np.log(q / middle))
    return {"kl": np.sum(p * np.log(p / q)), "jsd": jsd}


def _as_published(counts_p: np.ndarray, counts_q: np.ndarray, limit: float, bins: int) -> dict[str, float]:
    def density(counts: np.ndarray) -> np.ndarray:
        return counts / max(counts.sum(), 1) / (2 * limit / bins) ** 2

    def divergence(weights: np.ndarray, other: np.ndarray) -> float:
        seen = weights > 0
        return np.sum(weights[seen] * (np.log(weights[seen]) - np.log(other[seen] + _PAPER_EPSILON))) / bins

    p, q = density(counts_p), density(counts_q)
    middle = (p + q) / 2
    return {"kl_paper": divergence(p, q), "jsd_paper": 0.5 * (divergence(middle, p) + divergence(middle, q))}


def _modes(points: np.ndarray, centres: np.ndarray) -> dict[str, float]:
    distances = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    near = distances < MODE_RADIUS
    return {"modes_hit": np.sum(near.mean(axis=0) >= MODE_SHARE), "strays": 1 - near.any(axis=1).mean()}


def gn_elbo(data_scores: np.ndarray, grid_scores: np.ndarray) -> float:
    """The grid-normalised ELBO of arXiv 2012.13253, appendix: low if the model gives data a better ELBO than the
    plane around them.

    Args:
      data_scores: KL + squared error at z = mu of each data point [N].
      grid_scores: the same for the nodes of a grid over the evaluation square [G].

    Returns:
      mean(data_scores) / (sum(grid_scores) + sum(data_scores)).
    """
    data_scores, grid_scores = np.asarray(data_scores, np.float64), np.asarray(grid_scores, np.float64)
    return float(data_scores.mean() / (grid_scores.sum() + data_scores.sum()))
