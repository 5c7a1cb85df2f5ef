"""The AS-Distance: golden values, and the properties that its users rely on."""

import math
from functools import partial

import hypothesis
import hypothesis.extra.numpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codes import FORMS, KERNELS, float32_rounding, forms, random_codes

from asvae_jax.distance import as_distance, pairwise_kernel
from asvae_jax.gaussians import Gaussian

# Golden values: computed once in float64 by an independent implementation of the kernels' formulas.
GOLDEN = [
    # kernel, V, U
    ("per_dim", 0.104249294937, -0.037542594118),
    ("product", 0.030698280191, -0.004509180385),
    ("prior", 0.001897050921, -0.000457203092),
]
GOLDEN_SQUASHED = 0.067753284012
GOLDEN_SQUASHED_MEAN_GRADIENT = [
    (0.0142182194, -0.0413110038),
    (0.0116757819, -0.0205003221),
    (0.0828403523, -0.0104950966),
]
GOLDEN_SQUASHED_LOGVAR_GRADIENT = [
    (-0.0314113308, 0.0018805275),
    (-0.0189642489, -0.0063062553),
    (-0.0099416805, -0.0153767167),
]


def golden_batches(dtype=jnp.float64):
    i, j = np.arange(3.0)[:, None], np.arange(2.0)[None, :]
    a = (np.sin(1 + i + 2 * j), 0.5 * np.cos(2 * i + j) - 0.5)
    b = (np.cos(1 + 2 * i + j), 0.5 * np.sin(i - j) - 0.3)
    return [Gaussian(*(jnp.asarray(field, dtype) for field in fields)) for fields in (a, b)]


# Golden values


@pytest.mark.usefixtures("x64")
def test_kernel_golden_values():
    p = Gaussian(jnp.array([[0.3, -0.7]]), jnp.array([[-0.5, 0.2]]))
    q = Gaussian(jnp.array([[1.1, 0.4]]), jnp.array([[0.1, -1.0]]))
    product = pairwise_kernel(p, q, kernel="product")[0, 0]
    assert product == pytest.approx(0.054700318343, abs=1e-12)
    assert jnp.log(product) == pytest.approx(-2.905885749767, abs=1e-12)
    assert pairwise_kernel(p, q, kernel="prior")[0, 0] == pytest.approx(0.005718522989, abs=1e-12)
    np.testing.assert_allclose(pairwise_kernel(p, q)[0, 0], [0.634008796229, 0.542093798315], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kernel", "v", "u"), GOLDEN)
def test_golden_distances_in_float64(kernel, v, u):
    a, b = golden_batches()
    for form in forms(kernel):
        assert as_distance(a, b, kernel=kernel, method=form) == pytest.approx(v, abs=1e-9), form
        assert as_distance(a, b, kernel=kernel, statistic="U", method=form) == pytest.approx(u, abs=1e-9), form


@pytest.mark.parametrize(("kernel", "v", "u"), GOLDEN)
def test_golden_distances_in_float32(kernel, v, u):
    a, b = golden_batches(jnp.float32)
    for form in forms(kernel):
        v32 = as_distance(a, b, kernel=kernel, method=form)
        assert v32.dtype == jnp.float32
        assert v32 == pytest.approx(v, abs=float32_rounding(a, b, kernel)), form
        u32 = as_distance(a, b, kernel=kernel, statistic="U", method=form)
        assert u32 == pytest.approx(u, abs=2 * float32_rounding(a, b, kernel)), form


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", forms("per_dim"))
def test_golden_squashed_distance_and_its_gradient_in_float64(form):
    a, b = golden_batches()
    value, gradient = jax.value_and_grad(partial(as_distance, squash=True, method=form))(a, b)
    assert value == pytest.approx(GOLDEN_SQUASHED, abs=1e-9)
    # Printed to ten decimals.
    np.testing.assert_allclose(gradient.mean, GOLDEN_SQUASHED_MEAN_GRADIENT, rtol=0, atol=1e-10)
    np.testing.assert_allclose(gradient.logvar, GOLDEN_SQUASHED_LOGVAR_GRADIENT, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", forms("per_dim"))
def test_golden_squashed_distance_and_its_gradient_in_float32(form):
    a, b = golden_batches(jnp.float32)
    value, gradient = jax.value_and_grad(partial(as_distance, squash=True, method=form))(a, b)
    rounding = float32_rounding(a, b, "per_dim", squash=True)
    assert value == pytest.approx(GOLDEN_SQUASHED, abs=rounding)
    np.testing.assert_allclose(gradient.mean, GOLDEN_SQUASHED_MEAN_GRADIENT, rtol=0, atol=rounding)
    np.testing.assert_allclose(gradient.logvar, GOLDEN_SQUASHED_LOGVAR_GRADIENT, rtol=0, atol=rounding)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "kernel",
    [
        *(dict(kernel=name) for name in KERNELS),
        dict(kernel="product", bandwidth=1.5),
        dict(kernel="means", bandwidth=0.4),
        dict(kernel="means", bandwidth=(0.4, 0.05)),
    ],
)
def test_u_statistic_is_the_mean_over_different_codes(kernel):
    p, q = random_codes(12, 5, dtype=np.float64), random_codes(13, 3, dtype=np.float64)

    def mean_of_different(codes):
        k = np.asarray(pairwise_kernel(codes, codes, **kernel))
        return np.mean(k[~np.eye(len(k), dtype=bool)])

    expected = mean_of_different(p) + mean_of_different(q) - 2 * jnp.mean(pairwise_kernel(p, q, **kernel))
    assert as_distance(p, q, **kernel, statistic="U") == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kernel", "form"), FORMS)
def test_sum_over_dims_is_z_times_the_mean_for_per_dim_alone(kernel, form):
    p, q = random_codes(14, 4, dtype=np.float64), random_codes(15, 4, dtype=np.float64)
    ratio = as_distance(p, q, kernel=kernel, method=form, over_dims="sum") / as_distance(
        p, q, kernel=kernel, method=form
    )
    assert ratio == pytest.approx(3 if kernel == "per_dim" else 1, rel=1e-12)


@pytest.mark.parametrize(("kernel", "form"), FORMS)
def test_squash_is_tanh_before_the_distance(kernel, form):
    p, q = random_codes(16, 4), random_codes(17, 4)
    by_hand = as_distance(Gaussian(*map(jnp.tanh, p)), Gaussian(*map(jnp.tanh, q)), kernel=kernel, method="pairwise")
    value = as_distance(p, q, kernel=kernel, method=form, squash=True)
    assert value == pytest.approx(float(by_hand), abs=float32_rounding(p, q, kernel, squash=True))


# Properties

_numbers = hypothesis.strategies.floats(-30, 30, width=32)
_codes = hypothesis.extra.numpy.arrays(np.float32, (4, 4, 2), elements=_numbers)
_few = hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
_squashed_forms = jax.jit(
    lambda p, q: {form: as_distance(p, q, squash=True, method=form) for form in ("pairwise", "tiled", "grid")}
)
_product_forms = jax.jit(
    lambda p, q: {form: as_distance(p, q, squash=True, kernel="product", method=form) for form in ("pairwise", "tiled")}
)


@_few
@hypothesis.given(_codes)
def test_squashed_distance_is_bounded_symmetric_and_blind_to_order(fields):
    p, q = Gaussian(fields[0], fields[1]), Gaussian(fields[2], fields[3])
    there, back = _squashed_forms(p, q), _squashed_forms(q, p)
    shuffled = _squashed_forms(p, Gaussian(p.mean[::-1], p.logvar[::-1]))
    # The largest kernel is sqrt(e / 2) = 1.17.
    rounding = 4 * 1.2 * float(np.finfo(np.float32).eps)
    for form in there:
        assert -rounding <= there[form] <= 2.178, form
        assert there[form] == pytest.approx(float(back[form]), abs=rounding), form
        assert shuffled[form] == pytest.approx(0, abs=rounding), form
    # Non-negative by construction.
    assert there["grid"] >= 0


@_few
@hypothesis.given(_codes)
def test_product_distance_is_non_negative_symmetric_and_blind_to_order(fields):
    p, q = Gaussian(fields[0], fields[1]), Gaussian(fields[2], fields[3])
    there, back = _product_forms(p, q), _product_forms(q, p)
    shuffled = _product_forms(p, Gaussian(p.mean[::-1], p.logvar[::-1]))
    # The largest kernel is e / (4 pi) = 0.22.
    rounding = 4 * 0.25 * float(np.finfo(np.float32).eps)
    for form in there:
        assert there[form] >= -rounding, form
        assert there[form] == pytest.approx(float(back[form]), abs=rounding), form
        assert shuffled[form] == pytest.approx(0, abs=rounding), form


@pytest.mark.parametrize("form", forms("per_dim"))
def test_the_bound_under_squash_is_reached_by_narrow_codes_far_apart(form):
    # tanh takes means to +-1 and variances to 1/e: two kernels sqrt(e / 2) less twice sqrt(e / 2) exp(-e).
    p = Gaussian(jnp.full((2, 3), 100.0), jnp.full((2, 3), -100.0))
    q = Gaussian(-p.mean, p.logvar)
    value = as_distance(p, q, squash=True, method=form)
    assert value == pytest.approx(2 * math.sqrt(math.e / 2) * (1 - math.exp(-math.e)), rel=1e-6)
    assert 2.177 < value <= 2.178


def test_without_squash_the_distance_has_no_bound():
    p = Gaussian(jnp.zeros((2, 3)), jnp.full((2, 3), -20.0))
    q = Gaussian(jnp.ones((2, 3)), jnp.full((2, 3), -20.0))
    # Each of the two within-batch kernels is (2 exp(-20))^(-1/2), and the batches do not overlap.
    assert as_distance(p, q) == pytest.approx(math.sqrt(2) * math.exp(10), rel=1e-5)


def test_per_dim_sees_marginals_only():
    # The same two marginals, joined the other way round.
    p = Gaussian(jnp.array([[1.0, 1.0], [-1.0, -1.0]]), jnp.zeros((2, 2)))
    q = Gaussian(jnp.array([[1.0, -1.0], [-1.0, 1.0]]), jnp.zeros((2, 2)))
    for form in forms("per_dim"):
        assert as_distance(p, q, method=form) == pytest.approx(0, abs=float32_rounding(p, q, "per_dim")), form
    # k(x, x) = 1 / (4 pi), k across one axis that times 1/e, across both times 1/e^2: D = (1 - 1/e)^2 / (4 pi).
    for form in forms("product"):
        expected = (1 - math.exp(-1)) ** 2 / (4 * math.pi)
        assert as_distance(p, q, kernel="product", method=form) == pytest.approx(float(expected), rel=1e-5), form


# Types


@pytest.mark.parametrize(("kernel", "form"), FORMS)
def test_bfloat16_codes_are_compared_in_float32(kernel, form):
    p, q = (Gaussian(*(field.astype(jnp.bfloat16) for field in random_codes(seed, 6))) for seed in (18, 19))
    wide = [Gaussian(*(field.astype(jnp.float32) for field in codes)) for codes in (p, q)]
    value = as_distance(p, q, kernel=kernel, method=form, squash=True)
    assert value.dtype == jnp.float32
    assert value == as_distance(*wide, kernel=kernel, method=form, squash=True)


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kernel="rbf"), "kernel must be one of per_dim, product, prior, means; got 'rbf'"),
        (dict(statistic="W"), "statistic must be one of V, U; got 'W'"),
        (dict(over_dims="max"), "over_dims must be one of mean, sum; got 'max'"),
        (dict(method="fast"), "method must be one of auto, pairwise, tiled, grid; got 'fast'"),
        (dict(bandwidth=0.5), "bandwidth=0.5 belongs to kernel='product' or 'means'; kernel='per_dim' has none"),
        (dict(bandwidth=0.5, kernel="prior"), "belongs to kernel='product' or 'means'; kernel='prior' has none"),
        (dict(kernel="product", bandwidth=-1.0), "bandwidth=-1.0 is added to variances and must not be negative"),
        (dict(kernel="means", bandwidth=(0.1, -0.1)), r"bandwidth=\(0\.1, -0\.1\) .* must not be negative"),
        (dict(kernel="means"), "kernel='means' needs a positive bandwidth, got 0.0"),
        (dict(kernel="means", bandwidth=(0.1, 0.0)), r"kernel='means' needs a positive bandwidth, got \(0\.1, 0\.0\)"),
        (dict(kernel="means", bandwidth=()), r"kernel='means' needs a positive bandwidth, got \(\)"),
        (dict(kernel="product", bandwidth=(0.1, 0.2)), r"kernel='product' has one bandwidth, got \(0\.1, 0\.2\)"),
        (dict(method="grid", kernel="product"), "method='grid' needs kernel='per_dim', got 'product'"),
        (dict(method="grid", kernel="prior"), "method='grid' needs kernel='per_dim', got 'prior'"),
    ],
)
def test_wrong_words_and_combinations_are_named(settings, message):
    codes = random_codes(0, 3)
    with pytest.raises(ValueError, match=message):
        as_distance(codes, codes, **settings)


@pytest.mark.parametrize("sizes", [(1, 3), (3, 1)])
def test_u_statistic_refuses_a_single_code(sizes):
    with pytest.raises(ValueError, match="at least two codes in each batch"):
        as_distance(random_codes(0, sizes[0]), random_codes(1, sizes[1]), statistic="U")


def test_different_latent_dimensions_are_refused():
    with pytest.raises(AssertionError):
        as_distance(random_codes(0, 3, z=2), random_codes(1, 3, z=3))
