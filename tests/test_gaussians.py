"""Diagonal Gaussians against hand values, quadrature and draws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asvae_jax.gaussians import Gaussian, in_full_precision, kl_to_standard_normal, log_density, sample, squash

Q = Gaussian(jnp.array([[1.0, -2.0], [0.0, 0.5]]), jnp.array([[0.0, math.log(2)], [-1.0, 0.25]]))


def test_kl_hand_value():
    # Per dimension (mean^2 + v - 1 - log v) / 2: (1 + 0) / 2 and (4 + 1 - ln 2) / 2.
    assert kl_to_standard_normal(Q)[0] == pytest.approx(3 - 0.5 * math.log(2), rel=1e-6)


def test_kl_of_the_standard_normal_is_exactly_zero():
    assert kl_to_standard_normal(Gaussian(jnp.zeros((3, 5)), jnp.zeros((3, 5)))).tolist() == [0, 0, 0]


def test_kl_keeps_its_digits_near_zero():
    # Series: (v - 1 - log v) / 2 = l^2 / 4 + l^3 / 12 + l^4 / 48 for l = log v. exp(l) - 1 - l would be off by 1e-3.
    logvar = 1e-2
    expected = logvar**2 / 4 + logvar**3 / 12 + logvar**4 / 48
    assert kl_to_standard_normal(Gaussian(jnp.zeros(1), jnp.full(1, logvar))) == pytest.approx(
        float(expected), rel=5e-5
    )


def test_kl_of_bfloat16_codes_is_float32_arithmetic():
    narrow = Gaussian(jnp.full(8, 0.01, jnp.bfloat16), jnp.full(8, 0.01, jnp.bfloat16))
    wide = Gaussian(narrow.mean.astype(jnp.float32), narrow.logvar.astype(jnp.float32))
    assert kl_to_standard_normal(narrow).dtype == jnp.float32
    assert kl_to_standard_normal(narrow) == kl_to_standard_normal(wide)
    assert kl_to_standard_normal(narrow) > 5e-4


def test_kl_sums_the_last_axis_only():
    q = Gaussian(jnp.ones((2, 3, 4)), jnp.zeros((2, 3, 4)))
    np.testing.assert_array_equal(kl_to_standard_normal(q), np.full((2, 3), 2.0))


def test_kl_gradient_is_the_mean_and_half_the_excess_variance():
    gradient = jax.grad(lambda q: jnp.sum(kl_to_standard_normal(q)))(Q)
    np.testing.assert_allclose(gradient.mean, Q.mean, rtol=1e-6)
    np.testing.assert_allclose(gradient.logvar, 0.5 * (np.exp(Q.logvar) - 1), rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_kl_is_the_integral_of_q_times_the_log_ratio():
    q = Gaussian(jnp.array([[0.7]]), jnp.array([[-0.9]]))
    z = jnp.linspace(-12, 12, 2401)[:, None]
    log_q, log_prior = log_density(q, z), log_density(Gaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1))), z)
    integral = jnp.sum(jnp.exp(log_q) * (log_q - log_prior)) * 0.01
    assert kl_to_standard_normal(q)[0] == pytest.approx(float(integral), rel=1e-12)


def test_log_density_is_that_of_independent_normals():
    z = jnp.array([[0.3, -1.1], [2.0, 0.0]])
    expected = jax.scipy.stats.norm.logpdf(z, Q.mean, jnp.exp(0.5 * Q.logvar)).sum(axis=1)
    np.testing.assert_allclose(log_density(Q, z), expected, rtol=1e-6)


def test_sample_hand_value():
    q = Gaussian(jnp.array([1.0, -1.0]), jnp.array([math.log(4), 0.0]))
    np.testing.assert_allclose(sample(q, jnp.array([0.5, -3.0])), [2.0, -4.0], rtol=1e-6)


def test_sample_gradient_reaches_both_fields():
    eps = jnp.array([0.5, -3.0])
    gradient = jax.grad(lambda q: jnp.sum(sample(q, eps)))(Gaussian(Q.mean[0], Q.logvar[0]))
    np.testing.assert_allclose(gradient.mean, [1, 1])
    np.testing.assert_allclose(gradient.logvar, 0.5 * np.sqrt([1, 2]) * eps, rtol=1e-6)


def test_samples_have_the_mean_and_variance_asked_for():
    n = 40_000
    q = Gaussian(jnp.array([2.0, -1.0]), jnp.array([math.log(0.25), math.log(9.0)]))
    draws = np.asarray(sample(Gaussian(q.mean[None], q.logvar[None]), jax.random.normal(jax.random.key(0), (n, 2))))
    sd = np.array([0.5, 3.0])
    # Five standard errors of a mean and of a variance.
    assert np.all(np.abs(draws.mean(axis=0) - q.mean) < 5 * sd / math.sqrt(n))
    assert np.all(np.abs(draws.var(axis=0) - sd**2) < 5 * sd**2 * math.sqrt(2 / n))


def test_squash_is_tanh_of_both_fields():
    squashed = squash(Gaussian(jnp.array([0.0, 0.5, 100.0]), jnp.array([-100.0, 0.0, 1.0])))
    np.testing.assert_allclose(squashed.mean, np.tanh([0.0, 0.5, 100.0]), rtol=1e-6)
    np.testing.assert_allclose(squashed.logvar, np.tanh([-100.0, 0.0, 1.0]), rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("mean", "logvar", "expected"),
    [
        ("bfloat16", "bfloat16", "float32"),
        ("float16", "float32", "float32"),
        ("bfloat16", "float64", "float64"),
        ("float64", "float64", "float64"),
    ],
)
def test_full_precision_is_float32_at_least_and_keeps_float64(mean, logvar, expected):
    q = in_full_precision(Gaussian(jnp.zeros(2, mean), jnp.zeros(2, logvar)))
    assert (q.mean.dtype, q.logvar.dtype) == (expected, expected)
