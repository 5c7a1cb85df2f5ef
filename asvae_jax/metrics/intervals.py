"""How far a figure can be trusted: 95 % intervals for figures of one run, and over seeds."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# Not scipy.stats, whose import takes as long as that of jax.
from scipy import special

_RESAMPLES, _SEED = 2_000, 0
# Numbers of resamples drawn in one call: of a few hundred values a resample takes less time than a call.
_DRAWN_AT_ONCE = 2**16
_NORMAL = float(special.ndtri(0.975))


class Interval(NamedTuple):
    """95 % of such intervals hold the expected figure: that of a run over draws of so many images, or over seeds."""

    low: float
    high: float


def with_interval(value: float, interval: Sequence[float] | None) -> str:
    """A figure in words, "0.9421 [0.9399, 0.9444]", or alone."""
    return f"{value:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def bootstrap_mean(values: np.ndarray) -> Interval:
    """Of a mean of independent values [N]: percentiles of the means of 2,000 resamples."""
    values = np.asarray(values, np.float64)
    random = np.random.default_rng(_SEED)
    rows = max(1, _DRAWN_AT_ONCE // len(values))
    means = [
        values[random.integers(len(values), size=(min(rows, _RESAMPLES - done), len(values)))].mean(axis=1)
        for done in range(0, _RESAMPLES, rows)
    ]
    return Interval(*(float(q) for q in np.quantile(np.concatenate(means), [0.025, 0.975])))


def bootstrap(statistic: Callable[..., float], *samples: np.ndarray, resamples: int = 500) -> Interval:
    """Of a statistic of several independent samples, each of which is resampled: percentiles."""
    random = np.random.default_rng(_SEED)
    drawn = [
        statistic(*(sample[random.integers(len(sample), size=len(sample))] for sample in samples))
        for _ in range(resamples)
    ]
    return Interval(*(float(q) for q in np.quantile(drawn, [0.025, 0.975])))


def jackknife(value: float, without_block: Sequence[float]) -> Interval:
    """Of a smooth statistic: `value` of all the data and, for each of K equal blocks, of the data `without_block`.

    For figures like FID that grow as samples become fewer. There a bootstrap, whose resamples repeat samples, would be
    off to one side; leaving out blocks changes the number of samples by little.
    """
    left_out = np.asarray(without_block, np.float64)
    blocks = len(left_out)
    error = math.sqrt((blocks - 1) / blocks * np.sum(np.square(left_out - left_out.mean())))
    return Interval(value - _NORMAL * error, value + _NORMAL * error)


def subsampling(value: float, of_subsets: Sequence[float], subset: int, count: int) -> Interval:
    """Of a figure that is the mean over random subsets of `subset` out of `count` samples: the spread of the subsets,
    scaled to the size of the whole (Politis and Romano 1994, for figures whose error falls as one over the root)."""
    share = subset / count
    error = float(np.std(of_subsets, ddof=1)) * math.sqrt(share / (1 - share))
    return Interval(value - _NORMAL * error, value + _NORMAL * error)


def over_seeds(values: Sequence[float]) -> Interval:
    """Of the mean over independent runs: Student's interval; without bounds for one run alone."""
    if len(values) < 2:
        return Interval(-math.inf, math.inf)
    return _student(float(np.mean(values)), _squared_error(values), len(values) - 1)


def of_difference(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Of mean(b) - mean(a) of two groups of independent runs: Welch's interval; needs two runs in each. Without width
    where no run of either group differs from its others."""
    if np.ptp(a) == np.ptp(b) == 0:
        return Interval(float(b[0] - a[0]), float(b[0] - a[0]))
    errors = [_squared_error(values) for values in (a, b)]
    # Of Welch and Satterthwaite.
    freedom = sum(errors) ** 2 / sum(e**2 / (len(values) - 1) for e, values in zip(errors, (a, b), strict=True))
    return _student(float(np.mean(b) - np.mean(a)), sum(errors), freedom)


def _squared_error(values: Sequence[float]) -> float:
    """The square of a mean's standard error."""
    return float(np.var(values, ddof=1)) / len(values)


def _student(value: float, squared_error: float, freedom: float) -> Interval:
    half = float(special.stdtrit(freedom, 0.975)) * math.sqrt(squared_error)
    return Interval(value - half, value + half)
