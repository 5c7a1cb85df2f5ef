"""Distances between two sets of images by their features: Frechet (FID) and kernel (KID), in float64."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import linalg

_KERNEL_SUBSETS, _KERNEL_SUBSET_SIZE, _SEED = 100, 1_000, 0


class Moments(NamedTuple):
    """Sums over features [N, D]: how many, their sum [D] and the sum of their outer products [D, D], float64.

    Sums add up over batches, devices and processes, and averages of averages do not.
    """

    number: int
    total: np.ndarray
    outer: np.ndarray

    @classmethod
    def empty(cls, dim: int) -> "Moments":
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    def add(self, features: np.ndarray) -> "Moments":
        """With some features [n, D] more; the arrays are changed in place."""
        wide = np.asarray(features, np.float64)
        self.total[:] += wide.sum(axis=0)
        self.outer[:] += wide.T @ wide
        return self._replace(number=self.number + len(wide))

    def __add__(self, other: "Moments") -> "Moments":  # type: ignore[override]
        return Moments(self.number + other.number, self.total + other.total, self.outer + other.outer)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.number - other.number, self.total - other.total, self.outer - other.outer)

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean [D], covariance [D, D] with N - 1), as `numpy.cov` gives them."""
        if self.number < 2:
            raise ValueError(f"A covariance needs two features at least, got {self.number}.")
        mean = self.total / self.number
        covariance = (self.outer - self.number * np.outer(mean, mean)) / (self.number - 1)
        return mean, (covariance + covariance.T) / 2


def frechet_distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray) -> float:
    """|mu1 - mu2|^2 + Tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)), the squared 2-Wasserstein distance of two
    Gaussians (Heusel et al. 2017, arXiv 1706.08500).

    The last trace is the sum of the singular values of F1 F2', where sigma = F' F: no matrix square root, which fails
    for the singular covariances of fewer images than features.

    Args:
      mu1, mu2: [D].
      sigma1, sigma2: covariances [D, D], symmetric and positive semi-definite, of any rank.

    Returns:
      At least 0 but for rounding; 0 for equal Gaussians.

    Raises:
      ValueError: if the shapes do not fit or a number is not finite.
    """
    mu1, sigma1, mu2, sigma2 = (np.asarray(x, np.float64) for x in (mu1, sigma1, mu2, sigma2))
    if not mu1.shape == mu2.shape == sigma1.shape[:1] == sigma2.shape[:1] or sigma1.shape != sigma2.shape:
        raise ValueError(f"Shapes differ: {mu1.shape}, {sigma1.shape} against {mu2.shape}, {sigma2.shape}.")
    if not all(np.isfinite(x).all() for x in (mu1, sigma1, mu2, sigma2)):
        raise ValueError("A mean or covariance is not finite.")
    overlap = linalg.svdvals(_factor(sigma1) @ _factor(sigma2).T).sum()
    return _distance(mu1, sigma1, mu2, sigma2, overlap)


def frechet_distances(
    mu1: np.ndarray, sigma1: np.ndarray, others: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Iterator[float]:
    """`frechet_distance` of one Gaussian from each of several (mean, covariance), an order of magnitude faster and
    good to about 1e-8 of the traces for each direction: for the spread among the others."""
    factor = _factor(sigma1)
    for mu2, sigma2 in others:
        squares = linalg.eigvalsh(factor @ sigma2 @ factor.T)
        yield _distance(mu1, sigma1, mu2, sigma2, np.sqrt(np.maximum(squares, 0)).sum())


def _distance(mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray, overlap: float) -> float:
    return float(np.sum(np.square(mu1 - mu2)) + np.trace(sigma1) + np.trace(sigma2) - 2 * overlap)


def _factor(sigma: np.ndarray) -> np.ndarray:
    """F [rank, D] with F' F = sigma. Directions without variance but for rounding are left out: they add nothing, and
    few images have many."""
    values, vectors = linalg.eigh(sigma)
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0)
    if not kept.any():
        return np.zeros((1, len(values)))
    return np.sqrt(values[kept])[:, None] * vectors[:, kept].T


class KernelDistance(NamedTuple):
    """KID and, for its interval, what each subset gave."""

    value: float
    of_subsets: np.ndarray
    subset_size: int


def kernel_distance(real: np.ndarray, generated: np.ndarray) -> KernelDistance:
    """KID (Binkowski et al. 2018, arXiv 1801.01401): the unbiased squared MMD under (x.y / D + 1)^3, averaged over 100
    random subsets of 1,000 features (or of half of what there is, if that is less).

    Args:
      real: [N, D], N at least 4.
      generated: [M, D], likewise.

    Returns:
      A value about 0 for equal distributions, which can be negative.
    """
    size = min(_KERNEL_SUBSET_SIZE, len(real) // 2, len(generated) // 2)
    if size < 2:
        raise ValueError(f"KID needs at least 4 images on either side, got {len(real)} and {len(generated)}.")
    random = np.random.default_rng(_SEED)
    values = np.asarray(
        [
            unbiased_mmd(*(x[random.choice(len(x), size, replace=False)] for x in (real, generated)))
            for _ in range(_KERNEL_SUBSETS)
        ]
    )
    return KernelDistance(float(values.mean()), values, size)


def unbiased_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The U-statistic of the squared maximum mean discrepancy under (x.y / D + 1)^3: [N, D], [M, D] to a number."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def among(a: np.ndarray) -> float:
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return float(among(x) + among(y) - 2 * kernel(x, y).mean())
