"""Measures of 2-D samples, and the toys that they are taken on."""

import math

import jax
import numpy as np
import pytest

from asvae_jax.data import toys
from asvae_jax.metrics import density2d
from asvae_jax.settings import TOY_LIMITS

N = 5_000
RING = toys.MIXTURES["8gaussians"].centres


def points_of(name, seed, n=N):
    return np.asarray(toys.draw(name, jax.random.key(seed), n))


def modes_only(k, seed):
    """A perfect sampler of the first `k` of the 8 modes."""
    rng = np.random.default_rng(seed)
    return RING[rng.integers(0, k, N)] + 0.02 / 1.414 * rng.normal(size=(N, 2))


def evaluate(generated, real=None, limit=2.0, **settings):
    real = points_of("8gaussians", 100) if real is None else real
    return density2d.evaluate(real, generated, limit=limit, **settings)


# Paper's units: floors and ceilings of 5,000 points against 5,000


def mean_floor(name, pairs):
    """Mean `kl_paper` and `jsd_paper` of pairs of perfect samples; one pair of 8 Gaussians is off by 0.15 and 0.05."""
    seeds = range(2 * pairs)
    results = [
        evaluate(points_of(name, a), points_of(name, b), TOY_LIMITS[name])
        for a, b in zip(seeds[::2], seeds[1::2], strict=True)
    ]
    return [np.mean([result[key] for result in results]) for key in ("kl_paper", "jsd_paper")]


def test_floor_of_a_perfect_sampler_of_8_gaussians():
    kl, jsd = mean_floor("8gaussians", 40)
    assert kl == pytest.approx(0.66, abs=0.15)
    assert jsd == pytest.approx(0.33, abs=0.05)
    result = evaluate(points_of("8gaussians", 0), modes=RING)
    assert (result["modes_hit"], result["strays"], result["out_of_range"]) == (8, 0, 0)
    assert result["jsd"] < 0.02


@pytest.mark.parametrize(
    ("name", "kl", "jsd"),
    [("2spirals", 6.8, 3.1), ("checkerboard", 17.2, 8.1), ("rings", 7.8, 3.6), ("25gaussians", 0.02, 0.008)],
)
def test_floors_of_the_other_toys(name, kl, jsd):
    assert mean_floor(name, 4) == pytest.approx([kl, jsd], rel=0.1, abs=0.004)


def test_ceiling_with_nothing_in_the_modes():
    # A collapsed model: one blob, as round as a mode, in the middle of the ring.
    result = evaluate(0.02 / 1.414 * np.random.default_rng(0).normal(size=(N, 2)), modes=RING)
    assert result["kl_paper"] == pytest.approx(220.2, abs=0.3)
    assert result["jsd_paper"] == pytest.approx(110, abs=2)
    assert (result["modes_hit"], result["strays"]) == (0, 1)


@pytest.mark.parametrize(
    ("k", "kl", "jsd"), [(1, 191, 48), (2, 164, 41), (4, 108, 27), (6, 54.7, 13.5), (7, 27.6, 6.8)]
)
def test_perfect_samplers_of_some_modes(k, kl, jsd):
    result = evaluate(modes_only(k, seed=k), modes=RING)
    # The 5,000 real points share themselves out over the modes with 1 % of all to spare.
    assert result["kl_paper"] == pytest.approx(kl, abs=2.5)
    assert result["jsd_paper"] == pytest.approx(jsd, abs=0.7)
    assert result["modes_hit"] == k


# Proper measures


def test_equal_sets_have_no_divergence():
    points = points_of("rings", 0)
    result = evaluate(points, real=points, limit=4.0)
    assert (result["kl"], result["jsd"]) == (0, 0)
    assert result["kl_paper"] == pytest.approx(0, abs=1e-10)
    assert result["jsd_paper"] == pytest.approx(0, abs=1e-10)


def test_disjoint_sets_reach_ln_2_but_for_the_smoothing():
    left, right = np.full((N, 2), -1.0), np.full((N, 2), 1.0)
    result = evaluate(right, real=left)
    # All mass in one bin of each: KL is the log of 5,000 samples against the bin's share of one pseudo-sample.
    assert result["kl"] == pytest.approx(math.log(N * 10_001), rel=1e-3)
    assert 0.99 * math.log(2) < result["jsd"] <= math.log(2)


def test_kl_and_jsd_by_hand_in_four_bins():
    # Four bins and the outside: (3, 1, 0, 0 | 0) real and (1, 1, 0, 0 | 2) generated, each plus a fifth of a sample.
    real = np.array([[-0.5, -0.5]] * 3 + [[-0.5, 0.5]])
    generated = np.array([[-0.5, -0.5], [-0.5, 0.5], [7.0, 7.0], [0.0, 7.0]])
    p, q = (np.array([3, 1, 0, 0, 0]) + 0.2) / 5, (np.array([1, 1, 0, 0, 2]) + 0.2) / 5
    middle = (p + q) / 2
    result = evaluate(generated, real=real, limit=1.0, bins=2)
    assert result["kl"] == pytest.approx(np.sum(p * np.log(p / q)), rel=1e-12)
    expected = 0.5 * np.sum(p * np.log(p / middle)) + 0.5 * np.sum(q * np.log(q / middle))
    assert result["jsd"] == pytest.approx(expected, rel=1e-12)
    assert result["out_of_range"] == 0.5


def test_paper_units_by_hand_in_four_bins():
    # Bins of area 1: P = (3/4, 1/4, 0, 0), Q = (1/2, 0, 1/2, 0). Sums are divided by 2, the bins along an axis.
    real = np.array([[-0.5, -0.5]] * 3 + [[-0.5, 0.5]])
    generated = np.array([[-0.5, -0.5], [0.5, -0.5]])
    result = evaluate(generated, real=real, limit=1.0, bins=2)
    tiny = math.log(1e-14)
    kl = 0.75 * math.log(1.5) + 0.25 * (math.log(0.25) - tiny)
    assert result["kl_paper"] == pytest.approx(kl / 2, rel=1e-9)
    m_to_p = 0.625 * math.log(0.625 / 0.75) + 0.125 * math.log(0.5) + 0.25 * (math.log(0.25) - tiny)
    m_to_q = 0.625 * math.log(0.625 / 0.5) + 0.125 * (math.log(0.125) - tiny) + 0.25 * math.log(0.5)
    assert result["jsd_paper"] == pytest.approx(0.5 * (m_to_p + m_to_q) / 2, rel=1e-9)


@pytest.mark.parametrize(
    "generated",
    [
        np.full((10, 2), np.nan),
        np.full((10, 2), np.inf),
        np.full((10, 2), 1e30),
        np.array([[0.0, np.nan], [-np.inf, 0.0], [0.1, 0.1], [99.0, 0.0]]),
    ],
)
def test_hopeless_points_never_give_nan(generated):
    result = evaluate(generated, modes=RING)
    assert all(math.isfinite(value) for value in result.values())
    inside = np.sum(np.abs(np.nan_to_num(generated, nan=99.0)).max(axis=1) <= 2)
    assert result["out_of_range"] == pytest.approx(1 - inside / len(generated), rel=1e-12)
    assert result["jsd"] <= math.log(2)
    assert result["strays"] == 1


def test_real_points_out_of_range_never_give_nan():
    result = evaluate(points_of("8gaussians", 0), real=np.full((10, 2), np.nan))
    assert all(math.isfinite(value) for value in result.values())


def test_result_is_plain_floats():
    assert {type(value) for value in evaluate(points_of("8gaussians", 0), modes=RING).values()} == {float}


def test_without_modes_none_are_counted():
    assert not {"modes_hit", "strays"} & evaluate(points_of("rings", 0), limit=4.0).keys()


@pytest.mark.parametrize("shape", [(0, 2), (5, 3), (5,)])
def test_what_are_no_points_is_refused(shape):
    with pytest.raises(ValueError, match=r"generated must be points \[N, 2\]"):
        evaluate(np.zeros(shape))
    with pytest.raises(ValueError, match=r"real must be points \[N, 2\]"):
        evaluate(np.zeros((5, 2)), real=np.zeros(shape))


def test_modes_and_strays_by_hand():
    centres = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    generated = np.full((200, 2), 0.5)
    # 100 points at the first mode, two (1 %) just within 0.1 of the second, one (0.5 %) at the third, the rest nowhere.
    generated[:100] = 0
    generated[100:102] = [1.099, 0.0]
    generated[102] = [-1.0, 0.0]
    generated[103] = [1.101, 0.0]
    result = evaluate(generated, modes=centres)
    assert result["modes_hit"] == 2
    assert result["strays"] == pytest.approx(97 / 200, rel=1e-12)


def test_gn_elbo_by_hand():
    # mean(1, 3) / (4 + 6 + 1 + 3)
    assert density2d.gn_elbo(np.array([1.0, 3.0]), np.array([4.0, 6.0])) == pytest.approx(2 / 14, rel=1e-12)


# Toys


@pytest.mark.parametrize(
    ("name", "modes", "spread", "radius"),
    [("8gaussians", 8, 0.02 / 1.414, 2 / 1.414), ("25gaussians", 25, 0.1 / 2.828, None)],
)
def test_mixtures_have_equal_round_modes(name, modes, spread, radius):
    n = 20_000
    centres, points = toys.MIXTURES[name].centres, points_of(name, 0, n)
    assert centres.shape == (modes, 2)
    distances = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    nearest = distances.argmin(axis=1)
    counts = np.bincount(nearest, minlength=modes)
    # Five standard deviations of a count, and of a standard deviation.
    assert np.all(np.abs(counts - n / modes) < 5 * math.sqrt(n / modes))
    offsets = points - centres[nearest]
    assert np.abs(offsets.std(axis=0) / spread - 1).max() < 5 / math.sqrt(2 * n)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 5 / math.sqrt(n)
    if radius:
        np.testing.assert_allclose(np.linalg.norm(centres, axis=1), radius, rtol=1e-12)


def test_25_gaussians_stand_on_a_grid():
    centres = toys.MIXTURES["25gaussians"].centres
    for axis in (0, 1):
        np.testing.assert_allclose(
            np.unique(centres[:, axis].round(9)), np.array([-4, -2, 0, 2, 4]) / 2.828 * 2, rtol=1e-8
        )
    assert len(np.unique(centres.round(9), axis=0)) == 25


def test_checkerboard_fills_the_even_fields():
    points = points_of("checkerboard", 0, 20_000)
    assert np.abs(points).max() <= 4 and np.abs(points).max() > 3.99
    fields = np.floor(points / 2)
    assert np.all(fields.sum(axis=1) % 2 == 0)
    _, counts = np.unique(fields, axis=0, return_counts=True)
    assert len(counts) == 8
    assert np.all(np.abs(counts - 2_500) < 5 * 50)


def test_rings_have_four_radii():
    n = 20_000
    points = points_of("rings", 0, n)
    radii = np.linalg.norm(points, axis=1)
    which = np.clip(np.round(radii / 0.75), 1, 4)
    _, counts = np.unique(which, return_counts=True)
    assert np.all(np.abs(counts - n / 4) < 5 * math.sqrt(n / 4))
    # Round noise of 0.08 lengthens a radius r by 0.08^2 / (2 r) on average.
    for ring in (1, 2, 3, 4):
        expected = 0.75 * ring + 0.08**2 / (1.5 * ring)
        assert radii[which == ring].mean() == pytest.approx(expected, abs=5 * 0.08 / math.sqrt(n / 4))
        assert radii[which == ring].std() == pytest.approx(0.08, rel=0.06)
    assert np.abs(points.mean(axis=0)).max() < 5 * 2 / math.sqrt(n)


def test_spirals_are_two_mirrored_arms():
    n = 4_000
    points = points_of("2spirals", 0, n)
    angle = np.linspace(0, 3 * np.pi, 400)
    # The middle of the jitter, which is uniform over a square of side 1/6.
    arm = (np.stack([-np.cos(angle) * angle, np.sin(angle) * angle], axis=1) + 0.25) / 3
    to_arms = np.stack(
        [np.linalg.norm(points[:, None] - side[None], axis=-1).min(axis=1) for side in (arm, -arm)], axis=1
    )
    assert to_arms.min(axis=1).max() < 1 / 12 * math.sqrt(2) + 5 * 0.1
    assert to_arms.min(axis=1).mean() < 0.1
    assert abs((to_arms[:, 0] < to_arms[:, 1]).mean() - 0.5) < 5 * 0.5 / math.sqrt(n)
    # The square root spreads the points evenly along the arms: E[n^2] = (3 pi)^2 / 2.
    assert (points**2).sum(axis=1).mean() == pytest.approx((3 * np.pi) ** 2 / 2 / 9, rel=0.05)


@pytest.mark.parametrize("name", TOY_LIMITS)
def test_toys_lie_within_their_evaluation_range(name):
    points = points_of(name, 0)
    assert points.shape == (N, 2) and points.dtype == np.float32
    assert np.mean(np.abs(points).max(axis=1) > TOY_LIMITS[name]) < 1e-3
    assert TOY_LIMITS.keys() == toys.TOYS.keys()
