"""The kernels of the AS-Distance by their meaning: integrals, expectations and what they tell apart."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codes import random_codes

from asvae_jax.distance import as_distance, pairwise_kernel
from asvae_jax.gaussians import Gaussian


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", ["per_dim", "product"])
def test_kernel_gradients_have_their_closed_form(kernel):
    p, q = random_codes(0, 4, dtype=np.float64), random_codes(1, 5, dtype=np.float64)

    def summed(p_mean, p_logvar):
        return jnp.sum(pairwise_kernel(Gaussian(p_mean, p_logvar), q, kernel=kernel))

    by_mean, by_logvar = jax.grad(summed, argnums=(0, 1))(*p)
    k = pairwise_kernel(p, q, kernel=kernel)
    k = k if kernel == "per_dim" else k[..., None]
    difference = p.mean[:, None] - q.mean[None]
    variance = jnp.exp(p.logvar)[:, None]
    total = variance + jnp.exp(q.logvar)[None]
    np.testing.assert_allclose(by_mean, jnp.sum(-k * difference / total, axis=1), rtol=1e-12, atol=1e-15)
    expected = jnp.sum(0.5 * k * variance / total * (difference**2 / total - 1), axis=1)
    np.testing.assert_allclose(by_logvar, expected, rtol=1e-12, atol=1e-15)


def density(x, mean, variance):
    return jnp.exp(-0.5 * (x - mean) ** 2 / variance) / jnp.sqrt(2 * jnp.pi * variance)


LINE = np.linspace(-15, 15, 3001)
P1, Q1 = (0.4, 0.6), (-0.9, 1.7)  # (mean, variance) in one dimension


def one_code(mean, variance):
    return Gaussian(jnp.array([[mean]]), jnp.log(jnp.array([[variance]])))


@pytest.mark.usefixtures("x64")
def test_product_kernel_is_the_integral_of_both_densities():
    integral = jnp.sum(density(LINE, *P1) * density(LINE, *Q1)) * 0.01
    assert pairwise_kernel(one_code(*P1), one_code(*Q1), kernel="product")[0, 0] == pytest.approx(
        float(integral), rel=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_prior_kernel_is_the_expectation_under_the_prior():
    integral = jnp.sum(density(LINE, 0.0, 1.0) * density(LINE, *P1) * density(LINE, *Q1)) * 0.01
    assert pairwise_kernel(one_code(*P1), one_code(*Q1), kernel="prior")[0, 0] == pytest.approx(
        float(integral), rel=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_bandwidth_makes_the_product_kernel_an_expected_rbf_kernel():
    x = np.linspace(-10, 10, 401)
    h2 = 0.8
    rbf = jnp.exp(-0.5 * (x[:, None] - x[None, :]) ** 2 / h2)
    integral = jnp.sum(density(x, *P1)[:, None] * rbf * density(x, *Q1)[None, :]) * 0.05**2
    value = pairwise_kernel(one_code(*P1), one_code(*Q1), kernel="product", bandwidth=h2)[0, 0]
    assert value == pytest.approx(float(integral), rel=1e-10)


@pytest.mark.usefixtures("x64")
def test_kernel_of_the_means_is_the_product_kernel_of_codes_without_variance():
    p, q = random_codes(14, 4, dtype=np.float64), random_codes(15, 3, dtype=np.float64)
    values = pairwise_kernel(p, q, kernel="means", bandwidth=0.4)
    squared = np.sum(np.square(np.asarray(p.mean)[:, None] - np.asarray(q.mean)[None]), axis=-1)
    np.testing.assert_allclose(values, np.exp(-squared / 0.8), rtol=1e-12)
    points = [Gaussian(codes.mean, jnp.full_like(codes.mean, -60.0)) for codes in (p, q)]
    np.testing.assert_allclose(values, pairwise_kernel(*points, kernel="product", bandwidth=0.4), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_kernel_of_the_means_sees_the_width_of_a_cluster_that_broad_codes_hide():
    rng = np.random.default_rng(0)

    def cluster(width):
        return Gaussian(jnp.asarray(width * rng.standard_normal((400, 2))), jnp.zeros((400, 2)))

    def contrast(**kernel):
        """D between a width and a half of it, in units of D between two draws of one."""
        distance_to = partial(as_distance, cluster(0.1), **kernel)
        return distance_to(cluster(0.05)) / distance_to(cluster(0.1))

    assert contrast(kernel="product", bandwidth=1.0) < 3
    assert contrast(kernel="means", bandwidth=0.0125) > 10


@pytest.mark.usefixtures("x64")
def test_per_dim_kernel_is_the_one_dimensional_integral_without_its_constant():
    integral = jnp.sum(density(LINE, *P1) * density(LINE, *Q1)) * 0.01
    value = pairwise_kernel(one_code(*P1), one_code(*Q1))[0, 0, 0]
    assert value == pytest.approx(math.sqrt(2 * math.pi) * float(integral), rel=1e-12)


@pytest.mark.usefixtures("x64")
def test_product_distance_is_the_squared_l2_distance_of_the_mixtures():
    p, q = random_codes(2, 4, z=1, dtype=np.float64), random_codes(3, 3, z=1, dtype=np.float64)
    mixtures = [jnp.mean(density(LINE[None], codes.mean, jnp.exp(codes.logvar)), axis=0) for codes in (p, q)]
    integral = jnp.sum((mixtures[0] - mixtures[1]) ** 2) * 0.01
    assert as_distance(p, q, kernel="product") == pytest.approx(float(integral), rel=1e-10)


def test_a_bandwidth_of_half_the_dimensions_keeps_the_product_kernel_informative_at_256():
    p, q = random_codes(4, 4, z=256), random_codes(5, 4, z=256)
    distance_and_gradient = jax.value_and_grad(partial(as_distance, kernel="product", bandwidth=128.0))
    value, gradient = distance_and_gradient(p, Gaussian(q.mean + 1, q.logvar))
    assert value > 0
    assert jnp.all(jnp.any(gradient.mean != 0, axis=1))


def test_kernel_refuses_wrong_words_too():
    codes = random_codes(0, 3)
    with pytest.raises(ValueError, match="kernel must be one of"):
        pairwise_kernel(codes, codes, kernel="rbf")
    with pytest.raises(ValueError, match="belongs to kernel='product'"):
        pairwise_kernel(codes, codes, bandwidth=1.0)
