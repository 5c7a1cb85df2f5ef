"""Whether generated images look like real ones, and real ones like generated ones: neighbours among their features."""

from collections.abc import Iterator

import numpy as np

PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5
_TILE = 1_000


def neighbourhoods(real: np.ndarray, generated: np.ndarray) -> dict[str, np.ndarray]:
    """One number for each image, whose means are the measures.

    - `precision` [M]: whether a generated image lies within reach of a real one, that is no farther than the real
      one's 3rd nearest real neighbour (Kynkaanniemi et al. 2019, arXiv 1904.06991);
    - `recall` [N]: the same with the sides exchanged;
    - `density` [M]: within reach of how many real images it lies, divided by 5, reach being to the 5th neighbour;
      may exceed 1 (Naeem et al. 2020, arXiv 2002.09797);
    - `coverage` [N]: whether a real image has a generated one within that reach.

    Args:
      real: features [N, D], N > 5.
      generated: features [M, D], M > 3.
    """
    if len(real) <= DENSITY_NEIGHBOURS or len(generated) <= PRECISION_NEIGHBOURS:
        raise ValueError(f"Too few images for their neighbours: {len(real)} real and {len(generated)} generated.")
    near_real, reach_real = _reach(real, PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS)
    (near_generated,) = _reach(generated, PRECISION_NEIGHBOURS)
    precision, density, recall, covered = [], [], [], np.zeros(len(real), bool)
    for distances in _tiles(generated, real):
        precision.append((distances <= near_real).any(axis=1))
        density.append((distances <= reach_real).sum(axis=1) / DENSITY_NEIGHBOURS)
        covered |= (distances <= reach_real).any(axis=0)
    for distances in _tiles(real, generated):
        recall.append((distances <= near_generated).any(axis=1))
    return {
        "precision": np.concatenate(precision).astype(np.float64),
        "recall": np.concatenate(recall).astype(np.float64),
        "density": np.concatenate(density),
        "coverage": covered.astype(np.float64),
    }


def _reach(features: np.ndarray, *neighbours: int) -> list[np.ndarray]:
    """Squared distances [N] to the k-th nearest other, for each k."""
    found = [
        np.partition(distances, neighbours, axis=1)[:, list(neighbours)] for distances in _tiles(features, features)
    ]
    # The nearest of all is the image itself, number 0.
    return list(np.concatenate(found).T)


def _tiles(rows: np.ndarray, columns: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances of 1,000 rows at a time from all columns, float64 [n, M]."""
    columns = np.asarray(columns, np.float64)
    squares = np.sum(np.square(columns), axis=1)
    for start in range(0, len(rows), _TILE):
        tile = np.asarray(rows[start : start + _TILE], np.float64)
        yield np.sum(np.square(tile), axis=1, keepdims=True) + squares - 2 * tile @ columns.T
