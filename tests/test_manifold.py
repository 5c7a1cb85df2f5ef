"""Precision, recall, density, coverage and AUROC against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from asvae_jax.metrics.manifold import neighbourhoods
from asvae_jax.metrics.ranking import auroc


def by_scikit_learn(real: np.ndarray, generated: np.ndarray) -> dict[str, np.ndarray]:
    """The definitions, with distances and neighbours from elsewhere."""

    def reach(points: np.ndarray, k: int) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, k]

    between = np.linalg.norm(generated[:, None] - real[None], axis=-1)
    return {
        "precision": (between <= reach(real, 3)).any(axis=1),
        "recall": (reach(generated, 3) >= between.T).any(axis=1),
        "density": (between <= reach(real, 5)).sum(axis=1) / 5,
        "coverage": (between <= reach(real, 5)).any(axis=0),
    }


# The last crosses the borders of the tiles that distances are computed in.
@pytest.mark.parametrize(("real", "generated", "dim"), [(60, 50, 2), (200, 300, 8), (1_050, 1_100, 3)])
def test_neighbourhoods_are_those_of_scikit_learn(real, generated, dim):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(real, dim)), 0.8 * random.normal(size=(generated, dim)) + 0.5
    found, expected = neighbourhoods(x, y), by_scikit_learn(x, y)
    assert list(found) == list(expected)
    for name in expected:
        assert 0.05 < expected[name].mean() < 1.5
        np.testing.assert_array_equal(found[name], expected[name])


def test_equal_sets_are_perfect_and_distant_ones_share_nothing():
    x = np.random.default_rng(1).normal(size=(100, 4))
    same, apart = neighbourhoods(x, x), neighbourhoods(x, x + 100)
    assert [same[name].mean() for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert [values.mean() for values in apart.values()] == [0, 0, 0, 0]


@pytest.mark.parametrize(("real", "generated"), [(5, 50), (50, 3)])
def test_too_few_images_have_no_neighbourhoods(real, generated):
    with pytest.raises(ValueError, match=f"Too few images for their neighbours: {real} real and {generated} gen"):
        neighbourhoods(np.zeros((real, 2)), np.zeros((generated, 2)))


def test_one_neighbour_more_than_asked_for_is_enough():
    random = np.random.default_rng(3)
    x, y = random.normal(size=(6, 2)), random.normal(size=(4, 2))
    found, expected = neighbourhoods(x, y), by_scikit_learn(x, y)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_auroc_is_that_of_scikit_learn_with_ties():
    random = np.random.default_rng(2)
    inside, outside = random.integers(10, size=70).astype(float), random.integers(3, 13, size=40).astype(float)
    expected = roc_auc_score([0] * 70 + [1] * 40, np.concatenate([inside, outside]))
    assert auroc(inside, outside) == pytest.approx(expected, rel=1e-12)
    assert auroc(outside, inside) == pytest.approx(1 - expected, rel=1e-12)


def test_auroc_of_perfect_reversed_and_equal_scores():
    low, high = np.arange(5.0), np.arange(10.0, 14)
    assert [auroc(low, high), auroc(high, low), auroc(low, low)] == [1, 0, 0.5]
