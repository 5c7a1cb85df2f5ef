"""The three ways to compute the AS-Distance: they agree, and each does for large batches what it is for."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from codes import KERNELS, float32_rounding, forms, random_codes
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from asvae_jax import distance
from asvae_jax.distance import as_distance, pairwise_kernel
from asvae_jax.gaussians import Gaussian


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("kernel", "form", "squash"),
    [
        ("per_dim", "tiled", False),
        ("per_dim", "grid", False),
        ("per_dim", "grid", True),
        ("product", "tiled", True),
        ("prior", "tiled", False),
    ],
)
def test_forms_agree_with_plain_pairs_in_value_and_gradient(kernel, form, squash, monkeypatch):
    # Tiles of two codes and two nodes at a time: rows, columns and nodes all have a remainder.
    monkeypatch.setattr(distance, "_TILE_ELEMENTS", {"cpu": 4 * 3})
    monkeypatch.setattr(distance, "_CHUNK_ELEMENTS", 2 * 7 * 3)
    p, q = random_codes(6, 7, dtype=np.float64), random_codes(7, 5, dtype=np.float64)

    def value_and_gradient(method):
        settings = dict(kernel=kernel, squash=squash, statistic="U", method=method)
        return jax.jit(jax.value_and_grad(partial(as_distance, **settings), argnums=(0, 1)))(p, q)

    # 68 nodes are exact to 1.5e-14; the 1024 of unsquashed codes reach to 6.5 standard deviations.
    agree = partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10)
    jax.tree.map(agree, value_and_gradient(form), value_and_gradient("pairwise"))


@pytest.mark.parametrize(
    ("kernel", "squash", "n", "form"),
    [
        ("per_dim", True, 2, "grid"),
        ("per_dim", True, 4096, "grid"),
        ("per_dim", False, 64, "pairwise"),
        ("per_dim", False, 4096, "tiled"),
        ("product", True, 64, "pairwise"),
        ("prior", True, 4096, "tiled"),
    ],
)
def test_auto_takes_the_form_that_fits(kernel, squash, n, form):
    field = jax.ShapeDtypeStruct((n, 8), jnp.float32)
    settings = dict(kernel=kernel, squash=squash)
    auto, chosen = (
        str(
            jax.make_jaxpr(partial(as_distance, **settings, method=method))(
                Gaussian(field, field), Gaussian(field, field)
            )
        )
        for method in ("auto", form)
    )
    assert auto == chosen


def test_few_elements_do_make_tiles(monkeypatch):
    monkeypatch.setattr(distance, "_TILE_ELEMENTS", {"cpu": 4 * 3})
    codes = random_codes(0, 7)
    program = str(jax.make_jaxpr(partial(as_distance, kernel="product", method="tiled"))(codes, codes))
    # Seven codes in tiles of two.
    assert "length=4" in program and "[3,2,2]" in program and "[3,7,7]" not in program


@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (5, 3)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_forms_agree_for_any_two_batch_sizes(kernel, sizes):
    p, q = random_codes(8, sizes[0]), random_codes(9, sizes[1])
    k = jax.jit(partial(pairwise_kernel, kernel=kernel))
    expected = float(np.mean(k(p, p)) + np.mean(k(q, q)) - 2 * np.mean(k(p, q)))
    rounding = 2 * float32_rounding(p, q, kernel)
    values = jax.jit(lambda p, q: {form: as_distance(p, q, kernel=kernel, method=form) for form in forms(kernel)})(p, q)
    assert values == pytest.approx(dict.fromkeys(values, expected), abs=rounding)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", ["product", "means"])
@pytest.mark.parametrize("form", ["pairwise", "tiled"])
def test_forms_agree_with_a_bandwidth(form, kernel):
    p, q = random_codes(10, 6, dtype=np.float64), random_codes(11, 4, dtype=np.float64)
    k = partial(pairwise_kernel, kernel=kernel, bandwidth=1.5)
    expected = jnp.mean(k(p, p)) + jnp.mean(k(q, q)) - 2 * jnp.mean(k(p, q))
    value = as_distance(p, q, kernel=kernel, bandwidth=1.5, method=form)
    assert value == pytest.approx(float(expected), rel=1e-12)
    assert value != pytest.approx(float(as_distance(p, q, kernel=kernel, bandwidth=15.0, method=form)), rel=0.1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["pairwise", "tiled"])
def test_several_bandwidths_are_the_sum_of_the_distances_of_each(form):
    p, q = random_codes(16, 6, dtype=np.float64), random_codes(17, 4, dtype=np.float64)
    distance = partial(as_distance, p, q, kernel="means", method=form)
    assert distance(bandwidth=(1.5, 0.1)) == pytest.approx(float(distance(bandwidth=1.5) + distance(bandwidth=0.1)))


@pytest.mark.usefixtures("x64")
def test_grid_holds_for_the_narrowest_code_it_promises():
    # Standard deviations of 1/500 of the span.
    span = 10.0
    p = Gaussian(jnp.array([[0.0], [0.003]]), jnp.full((2, 1), 2 * math.log(span / 500)))
    q = Gaussian(jnp.array([[span - 13 * span / 500]]), jnp.full((1, 1), 2 * math.log(span / 500)))
    assert as_distance(p, q, method="grid") == pytest.approx(float(as_distance(p, q, method="pairwise")), rel=1e-9)


@pytest.mark.parametrize("settings", [dict(method="auto"), dict(method="tiled", kernel="product")])
def test_gradient_of_a_large_batch_fits_in_two_gib(settings):
    field = jax.ShapeDtypeStruct((16384, 256), jnp.float32)
    codes = Gaussian(field, field)
    gradient = jax.value_and_grad(partial(as_distance, squash=True, **settings), argnums=(0, 1))
    memory = jax.jit(gradient).lower(codes, codes).compile().memory_analysis()
    assert memory.output_size_in_bytes > 4 * 16384 * 256 * 4
    # One [B, B, Z] array would be 256 GiB.
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < 2 * 2**30


@pytest.mark.parametrize("form", ["auto", "pairwise", "tiled", "grid"])
def test_batch_over_four_devices_equals_one_device(form):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    p, q = random_codes(20, 16), random_codes(21, 16)
    spread = jax.device_put((p, q), NamedSharding(mesh, PartitionSpec("data")))
    assert len(spread[0].mean.sharding.device_set) == 4
    compiled = jax.jit(jax.value_and_grad(partial(as_distance, squash=True, method=form), argnums=(0, 1)))
    expected, got = compiled(p, q), compiled(*spread)
    rounding = float32_rounding(p, q, "per_dim", squash=True)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=rounding), got, expected)
