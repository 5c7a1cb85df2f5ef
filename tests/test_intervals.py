"""Intervals: known formulas, and how often they hold the truth."""

import math

import numpy as np
import pytest

from asvae_jax.metrics import intervals

REPETITIONS = 300


def share_that_holds(truth: float, interval_of) -> float:
    """Of intervals from independent data."""
    drawn = [interval_of(np.random.default_rng(seed)) for seed in range(REPETITIONS)]
    return float(np.mean([low <= truth <= high for low, high in drawn]))


def without_blocks(values: np.ndarray, blocks: int, statistic) -> list[float]:
    parts = np.split(values, blocks)
    return [statistic(np.concatenate([part for part in parts if part is not left_out])) for left_out in parts]


def test_jackknife_of_a_mean_is_the_standard_error_of_its_blocks():
    values = np.random.default_rng(0).normal(size=200)
    block_means = values.reshape(10, 20).mean(axis=1)
    error = block_means.std(ddof=1) / math.sqrt(10)
    low, high = intervals.jackknife(values.mean(), without_blocks(values, 10, np.mean))
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.959963985 * error, rel=1e-9)


def test_bootstrap_of_a_mean_holds_the_truth():
    share = share_that_holds(1.0, lambda random: intervals.bootstrap_mean(random.exponential(size=200)))
    assert 0.90 <= share <= 0.98


def test_bootstrap_of_two_samples_holds_the_truth():
    def interval_of(random):
        samples = random.normal(1, 1, size=100), random.normal(0, 2, size=150)
        return intervals.bootstrap(lambda a, b: a.mean() - b.mean(), *samples, resamples=200)

    assert 0.90 <= share_that_holds(1.0, interval_of) <= 0.98


def test_jackknife_of_a_variance_holds_the_truth():
    def interval_of(random):
        values = random.normal(size=400)
        return intervals.jackknife(values.var(), without_blocks(values, 20, np.var))

    assert 0.89 <= share_that_holds(1.0, interval_of) <= 0.98


def test_subsampling_of_half_the_samples_by_hand():
    # Two halves of one whole differ as the whole differs from another whole: (1/2) / (1 - 1/2) = 1.
    low, high = intervals.subsampling(5.0, [4.0, 5.0, 6.0], 50, 100)
    assert (low, high) == pytest.approx((5 - 1.959963985, 5 + 1.959963985))
    # Of 10 in 100 it is 1/9, a third of the spread.
    low, high = intervals.subsampling(5.0, [4.0, 5.0, 6.0], 10, 100)
    assert (low, high) == pytest.approx((5 - 1.959963985 / 3, 5 + 1.959963985 / 3))


def test_subsampling_holds_the_truth():
    def interval_of(random):
        values = random.exponential(size=400)
        subsets = [random.choice(values, 100, replace=False).mean() for _ in range(100)]
        return intervals.subsampling(values.mean(), subsets, 100, 400)

    assert 0.90 <= share_that_holds(1.0, interval_of) <= 0.98


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_interval_over_seeds_holds_the_truth(seeds):
    share = share_that_holds(5.0, lambda random: intervals.over_seeds(list(random.normal(5, 2, size=seeds))))
    assert 0.91 <= share <= 0.98


def test_one_seed_says_nothing_of_others():
    assert intervals.over_seeds([3.0]) == (-math.inf, math.inf)


def test_interval_of_a_difference_holds_the_truth():
    def interval_of(random):
        return intervals.of_difference(list(random.normal(0, 1, size=4)), list(random.normal(2, 3, size=6)))

    assert 0.91 <= share_that_holds(2.0, interval_of) <= 0.985


def test_interval_of_a_difference_by_hand():
    # Variance 4 over 4 runs and 2 over 2: either mean has error 1, and there are (1 + 1)^2 / (1/3 + 1/1) = 3 degrees of
    # freedom, Student's 3.182. One variance for both groups would make it 4 degrees and another error.
    low, high = intervals.of_difference([0.0, 0.0, 0.0, 4.0], [10.0, 12.0])
    assert (low, high) == pytest.approx((10 - 3.182446 * math.sqrt(2), 10 + 3.182446 * math.sqrt(2)), rel=1e-6)


def test_intervals_are_the_same_each_time():
    values = np.random.default_rng(1).normal(size=50)
    assert intervals.bootstrap_mean(values) == intervals.bootstrap_mean(values)
    first, second = (intervals.bootstrap(lambda a, b: a.mean() - b.std(), values, values + 1) for _ in range(2))
    assert first == second and first.low < first.high
