"""FID and KID against SciPy, scikit-learn and `pytorch-fid`, in full rank and below, and their files."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.metrics.pairwise import polynomial_kernel
from torch_inception import fid_score

from asvae_jax.errors import DataError
from asvae_jax.features.networks import open_network
from asvae_jax.generation import Reference, check_reference, read_reference, write_reference
from asvae_jax.metrics.frechet import (
    Moments,
    frechet_distance,
    frechet_distances,
    kernel_distance,
    unbiased_mmd,
)


def features(count: int, dim: int, seed: int, rank: int | None = None) -> np.ndarray:
    """Correlated features of unequal spread, as those of networks are; of lower rank if asked."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(rank or dim, dim)) * np.logspace(0, -3, rank or dim)[:, None]
    return random.normal(size=(count, rank or dim)) @ mixing + random.normal(size=dim)


def gaussian(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(axis=0), np.cov(x, rowvar=False)


def from_the_data(x: np.ndarray, y: np.ndarray) -> float:
    """The distance from the features themselves: the trace of the root is the sum of the singular values of X Y', with
    no covariance between."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = (x - mean_x) / np.sqrt(len(x) - 1), (y - mean_y) / np.sqrt(len(y) - 1)
    overlap = linalg.svdvals(x @ y.T).sum()
    return np.sum((mean_x - mean_y) ** 2) + np.sum(x**2) + np.sum(y**2) - 2 * overlap


@pytest.mark.parametrize("sizes", [[50], [20, 30], [1, 49], [7] * 7 + [1]])
def test_moments_of_parts_are_those_of_the_whole(sizes):
    x = features(50, 6, seed=0)
    parts = np.split(x, np.cumsum(sizes)[:-1])
    within = Moments.empty(6)
    for part in parts:
        within = within.add(part)
    across = sum((Moments.empty(6).add(part) for part in parts[1:]), Moments.empty(6).add(parts[0]))
    for moments in (within, across):
        mean, covariance = moments.mean_and_covariance()
        np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-12)


def test_moments_without_a_part_are_those_of_the_rest():
    x = features(50, 6, seed=0)
    rest = Moments.empty(6).add(x) - Moments.empty(6).add(x[:10])
    mean, covariance = rest.mean_and_covariance()
    assert rest.number == 40
    np.testing.assert_allclose(mean, x[10:].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(x[10:], rowvar=False), rtol=1e-9, atol=1e-12)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="two features at least, got 1"):
        Moments.empty(3).add(np.ones((1, 3))).mean_and_covariance()


def test_distance_of_independent_gaussians_by_hand():
    # Standard deviations 2, 3 against 5, 1: (2-5)^2 + (3-1)^2, and the means are (3, 4) apart.
    by_hand = 9 + 4 + 25
    found = frechet_distance(np.zeros(2), np.diag([4.0, 9.0]), np.array([3.0, 4.0]), np.diag([25.0, 1.0]))
    assert found == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("dim", [2, 32, 128])
def test_distance_equals_scipy_and_pytorch_fid(dim):
    first, second = gaussian(features(400, dim, seed=1)), gaussian(1.1 * features(500, dim, seed=2))
    found = frechet_distance(*first, *second)
    root = linalg.sqrtm(first[1] @ second[1]).real
    by_scipy = np.sum((first[0] - second[0]) ** 2) + np.trace(first[1] + second[1] - 2 * root)
    assert found == pytest.approx(by_scipy, rel=1e-6)
    # Its own call of SciPy has an argument that SciPy is giving up.
    with pytest.warns(DeprecationWarning):
        assert found == pytest.approx(fid_score.calculate_frechet_distance(*first, *second), rel=1e-6)
    assert frechet_distance(*second, *first) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (dict(count=20, dim=64), dict(count=500, dim=64)),
        (dict(count=500, dim=64), dict(count=20, dim=64)),
        (dict(count=20, dim=64), dict(count=30, dim=64)),
        (dict(count=2, dim=64), dict(count=2, dim=64)),
        (dict(count=400, dim=64, rank=5), dict(count=400, dim=64, rank=9)),
        (dict(count=100, dim=512), dict(count=150, dim=512)),
    ],
)
def test_distance_below_full_rank_equals_that_of_the_data(first, second):
    x, y = features(**first, seed=3), features(**second, seed=4)
    assert frechet_distance(*gaussian(x), *gaussian(y)) == pytest.approx(from_the_data(x, y), rel=1e-6)


def test_distance_from_itself_is_zero_below_full_rank():
    own = gaussian(features(20, 64, seed=5))
    assert abs(frechet_distance(*own, *own)) < 1e-12 * np.trace(own[1])


def test_distance_of_orthogonal_and_of_empty_spreads():
    apart = np.diag([4.0, 0.0]), np.diag([0.0, 9.0])
    assert frechet_distance(np.zeros(2), apart[0], np.zeros(2), apart[1]) == pytest.approx(13)
    assert frechet_distance(np.zeros(2), np.zeros((2, 2)), np.ones(2), apart[1]) == pytest.approx(2 + 9)
    assert frechet_distance(np.zeros(2), np.zeros((2, 2)), np.ones(2), np.zeros((2, 2))) == 2


@pytest.mark.parametrize("where", range(4))
def test_distance_refuses_what_is_not_finite(where):
    numbers = [np.zeros(2), np.eye(2), np.zeros(2), np.eye(2)]
    numbers[where] = np.full_like(numbers[where], np.nan)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(*numbers)


def test_distance_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="Shapes differ"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))


@pytest.mark.parametrize("count", [20, 400])
def test_fast_distances_are_near_the_exact_ones(count):
    first, others = gaussian(features(count, 64, seed=6)), [gaussian(features(400, 64, seed=s)) for s in (7, 8)]
    exact = [frechet_distance(*first, *other) for other in others]
    np.testing.assert_allclose(list(frechet_distances(*first, iter(others))), exact, rtol=1e-5)


def test_squared_mmd_is_the_formula():
    x, y = features(30, 8, seed=9), features(40, 8, seed=10)
    kernel = dict(degree=3, gamma=1 / 8, coef0=1)
    among_x, among_y = polynomial_kernel(x, **kernel), polynomial_kernel(y, **kernel)
    for k in (among_x, among_y):
        np.fill_diagonal(k, 0)
    by_hand = among_x.sum() / (30 * 29) + among_y.sum() / (40 * 39) - 2 * polynomial_kernel(x, y, **kernel).mean()
    assert unbiased_mmd(x, y) == pytest.approx(by_hand, rel=1e-10)


def test_kernel_distance_is_the_mean_over_its_subsets():
    x, y = features(300, 8, seed=11), features(200, 8, seed=12)
    found = kernel_distance(x, y)
    assert found.subset_size == 100 and len(found.of_subsets) == 100
    assert found.value == pytest.approx(np.mean(found.of_subsets)) and found.value > 0
    assert found.value == pytest.approx(unbiased_mmd(x, y), rel=0.1)


def test_kernel_distance_of_one_distribution_is_about_zero():
    values = [kernel_distance(*np.random.default_rng(seed).normal(size=(2, 300, 8))).value for seed in range(20)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(20)
    # The biased estimate would be well above: 2 / 150 of a kernel whose diagonal is about 2^3.
    assert abs(np.mean(values)) < 0.02 < 2 / 150 * 8


@pytest.mark.parametrize(("real", "generated"), [(3, 100), (100, 3)])
def test_kernel_distance_needs_a_few_images(real, generated):
    with pytest.raises(ValueError, match=f"at least 4 images on either side, got {real} and {generated}"):
        kernel_distance(np.zeros((real, 2)), np.zeros((generated, 2)))


ABOUT = {"data": "digits", "split": "train", "shape": [8, 8, 1], "features": "digits", "network_sha256": "0"}


def reference(seed: int, dim: int = 16) -> Reference:
    x = features(100, dim, seed)
    return Reference(*gaussian(x), 100, x.astype(np.float32), ABOUT)


def test_pytorch_fid_reads_our_files(tmp_path):
    ours = [reference(seed) for seed in (13, 14)]
    for path, one in zip("ab", ours, strict=True):
        write_reference(tmp_path / f"{path}.npz", one)
    read = [fid_score.compute_statistics_of_path(str(tmp_path / f"{path}.npz"), None, 50, 16, "cpu") for path in "ab"]
    with pytest.warns(DeprecationWarning):
        theirs = fid_score.calculate_frechet_distance(*read[0], *read[1])
    a, b = ours
    assert frechet_distance(a.mean, a.covariance, b.mean, b.covariance) == pytest.approx(theirs, rel=1e-6)


def test_files_are_read_back(tmp_path):
    one = reference(15)
    write_reference(tmp_path / "a.npz", one)
    back = read_reference(tmp_path / "a.npz", ABOUT)
    for got, expected in zip(back, one, strict=True):
        np.testing.assert_equal(got, expected)


def test_files_of_pytorch_fid_serve_fid_alone(tmp_path):
    one, path = reference(16, dim=64), tmp_path / "theirs.npz"
    np.savez(path, mu=one.mean, sigma=one.covariance)
    back = read_reference(path, ABOUT)
    np.testing.assert_array_equal(back.covariance, one.covariance)
    assert back.about == {"unchecked_file": "theirs.npz"}
    check_reference(path, back, open_network("digits"), needs_features=False)
    with pytest.raises(DataError, match="serve FID"):
        check_reference(path, back, open_network("digits"), needs_features=True)


def test_files_of_another_network_are_refused(tmp_path):
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(16), sigma=np.eye(16))
    with pytest.raises(DataError, match="has 16 features, digits has 64"):
        check_reference(
            tmp_path / "theirs.npz", read_reference(tmp_path / "theirs.npz", ABOUT), open_network("digits"), False
        )


@pytest.mark.parametrize(
    ("what", "value", "said"),
    [
        ("split", "test", "split 'train', not 'test'"),
        ("shape", [16, 16, 1], r"shape \[8, 8, 1\], not \[16, 16, 1\]"),
        ("network_sha256", "1", "network_sha256 '0', not '1'"),
        ("crop", "square", "crop None, not 'square'"),
    ],
)
def test_files_of_other_images_are_refused(what, value, said, tmp_path):
    write_reference(tmp_path / "a.npz", reference(17))
    with pytest.raises(DataError, match=said):
        read_reference(tmp_path / "a.npz", {**ABOUT, what: value})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"hello"])
def test_damaged_files_are_refused(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="no statistics that can be read"):
        read_reference(tmp_path / "a.npz", ABOUT)
    with pytest.raises(DataError, match="no statistics that can be read"):
        read_reference(tmp_path / "absent.npz", ABOUT)


@pytest.mark.parametrize("mean", [np.float64(0), np.zeros((2, 1)), np.zeros(0)])
def test_means_that_are_no_vector_are_refused(mean, tmp_path):
    np.savez(tmp_path / "a.npz", mu=mean, sigma=np.eye(2))
    with pytest.raises(DataError, match=r"a\.npz"):
        read_reference(tmp_path / "a.npz", ABOUT)


def test_damaged_compressed_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, mu=np.zeros(64), sigma=np.cov(features(100, 64, seed=18), rowvar=False))
    content = bytearray(path.read_bytes())
    # In the midst of the larger array, where the decompressor itself stumbles.
    middle = len(content) // 2
    content[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz"):
        read_reference(path, ABOUT)


def test_files_with_numbers_that_are_not_finite_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.full((2, 2), np.inf))
    with pytest.raises(DataError, match="damaged"):
        read_reference(tmp_path / "a.npz", ABOUT)
