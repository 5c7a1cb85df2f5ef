"""Many toys in one program are the toys one by one."""

import dataclasses

import jax
import numpy as np
import pytest
from toy_runs import assert_close
from training_runs import digits, toy

from asvae_jax import sweep
from asvae_jax.errors import ConfigError
from asvae_jax.run import sample_images
from asvae_jax.settings import METHOD_SETTINGS
from asvae_jax.train import train

# After twenty steps; float32 adds up in another order in a batched product.
ROUNDING = 2e-4


def members(words: str, *changes: dict) -> list:
    return [toy(words, **change) for change in changes]


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("asintrovae,released,tiny", [{}, dict(method__b_kl=0.7, method__w_enc=0.1, method__kl_rate=2.0)]),
        (
            "asintrovae,paper,tiny",
            [
                {},
                dict(method__kernel="prior", method__kl_schedule="tanh"),
                dict(method__kernel="product", method__bandwidth=0.3, method__kl_schedule="none", method__kl_rate=0.0),
                dict(method__kernel="constant", method__kl_schedule="constant", method__kl_rate=0.3),
            ],
        ),
        (
            "asintrovae,recommended,tiny",
            [
                {},
                dict(method__b_kl=0.7, method__slope_weight=0.01, method__w_latent=0.5, method__bandwidth=0.3),
                dict(method__kernel="prior", method__bandwidth=0.0, method__kl_schedule="linear", method__kl_rate=5.0),
            ],
        ),
        ("introvae,tiny", [{}, dict(method__margin=1.0)]),
        ("wgan_gp,tiny", [{}, {}]),
    ],
)
def test_each_member_is_the_run_of_its_config_alone(words, changes, tmp_path):
    configs = [dataclasses.replace(config, seed=seed) for seed, config in enumerate(members(words, *changes))]
    together = sweep.train_together(configs)
    assert [(member.run.config, member.refused) for member in together] == [(config, 0) for config in configs]
    for number, ((run, _), config) in enumerate(zip(together, configs, strict=True)):
        alone = train(config, tmp_path / str(number))
        assert_close(run.params, jax.tree.map(np.asarray, alone.params), rtol=ROUNDING)
        assert_close(run.ema, jax.tree.map(np.asarray, alone.ema), rtol=ROUNDING)
        assert run.step == alone.step
        assert sample_images(run, jax.random.key(0), 5).shape == (5, 2)
    # Which the comparison could not tell if all members were alike.
    with pytest.raises(AssertionError):
        assert_close(together[0].run.params, together[1].run.params, rtol=10 * ROUNDING)


def test_steps_that_are_refused_are_counted_for_each_member():
    exploding = dict(optimizer__milestone_steps=(10,), optimizer__milestone_factor=1e34)
    for member in sweep.train_together(members("vae,tiny", exploding, {**exploding, "method__b_kl": 0.9})):
        # The step that blows the weights up is the last that is taken.
        assert 0 < member.refused <= member.run.step - 10
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(member.run.params))


@pytest.mark.parametrize(("count", "devices"), [(1, 1), (3, 3), (4, 4), (6, 3), (8, 4)])
def test_members_are_shared_out_evenly_over_as_many_devices_as_they_fit(count, devices):
    assert sweep.over_members(count).mesh.size == devices


def test_watch_sees_all_members_as_they_go():
    configs = members("vae,tiny", dict(), dict(method__b_kl=0.9))
    seen = []
    together = sweep.train_together(
        configs, watch_every=10, watch=lambda step, weights: seen.append((step, jax.tree.map(np.asarray, weights)))
    )
    assert [step for step, _ in seen] == [10, 20]
    for i, (run, _) in enumerate(together):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], seen[-1][1]["ema"]), run.ema, rtol=1e-7)


def test_configs_are_grouped_by_all_that_is_no_number_kernel_or_annealing_of_the_method():
    a, b, kernel, annealing = members(
        "released,tiny",
        dict(), dict(method__b_kl=0.9), dict(method__kernel="prior"), dict(method__kl_schedule="linear"),
    )  # fmt: skip
    other_seed = dataclasses.replace(a, seed=5)
    [word] = members("released,tiny", dict(method__statistic="U"))
    [width] = members("released,tiny", dict(model__widths=(8,)))
    without, narrow, wide = members(
        "released,tiny", *(dict(method__kernel="product", method__bandwidth=h2) for h2 in (0.0, 0.1, 1.0))
    )
    [means] = members("released,tiny", dict(method__kernel="means", method__bandwidth=1.0))
    assert sweep.grouped([without, narrow, means, wide, a], at_most=9) == [[without], [narrow, wide, a], [means]]
    together = [a, kernel, b, annealing, other_seed]
    assert sweep.grouped([a, kernel, word, b, annealing, width, other_seed], at_most=9) == [together, [word], [width]]
    assert sweep.grouped([a, kernel, b, annealing], at_most=9, mixed=False) == [[a, b], [kernel], [annealing]]
    assert sweep.grouped([a, b, other_seed], at_most=2) == [[a, b], [other_seed]]


def test_every_swept_number_is_one_of_a_method():
    fields = {field.name: field.type for setting in METHOD_SETTINGS.values() for field in dataclasses.fields(setting)}
    assert {name: fields[name] for name in sweep.SWEPT} == dict.fromkeys(sweep.SWEPT, float)


def test_what_does_not_fit_together_is_refused():
    message = "Only toys whose configs differ in seed and in numbers, kernel and annealing"
    with pytest.raises(ConfigError, match=message):
        sweep.train_together(members("released,tiny", dict(), dict(method__statistic="U")))
    with pytest.raises(ConfigError, match=message):
        sweep.train_together([digits()])
