"""Each warning of `health` by hand, and the figure that is named when training is not finite."""

import math

import pytest

from asvae_jax.health import not_finite, warnings

HEALTHY = {
    "skipped": 0.0,
    "kl_real": 20.0,
    "kl_fake": 25.0,
    "kl_fake_minus_real": 5.0,
    "saturated": 0.1,
    "active_units": 3.0,
    "clamped_logvars": 0.0,
}

# (figures that differ from the healthy ones, the warning, what its text must name)
TROUBLES = [
    ({"skipped": 0.25}, "skipped", ["25.0%", "optimizer.learning_rate", "optimizer.clip_norm"]),
    (
        {"kl_fake": 15.0, "kl_fake_minus_real": -5.0},
        "kl_fake_minus_real",
        ["15 nats", "(20)", "Lower method.b_neg or method.b_kl"],
    ),
    ({"saturated": 0.75}, "saturated", ["75%", "method.b_neg"]),
    ({"active_units": 0.0}, "active_units", ["collapsed", "method.b_kl", "method.b_rec"]),
    ({"clamped_logvars": 0.02}, "clamped_logvars", ["2.0%", "model.logvar_range", "optimizer.learning_rate"]),
]


def test_healthy_figures_give_no_warning():
    assert warnings(HEALTHY, "sintrovae") == {}


def test_a_method_without_a_figure_is_not_warned_of_it():
    # WGAN-GP and the warm-up have none of the introspective figures.
    assert warnings({"encoder/loss": -3.0, "skipped": 0.0}, "wgan_gp") == {}


@pytest.mark.parametrize(("figures", "name", "said"), TROUBLES, ids=[name for _, name, _ in TROUBLES])
def test_each_trouble_gives_its_warning_and_no_other(figures, name, said):
    found = warnings(HEALTHY | figures, "sintrovae")
    assert list(found) == [name]
    for text in said:
        assert text in found[name]


def test_a_hinge_is_to_weigh_more_where_an_exponential_is_to_weigh_less():
    found = warnings(HEALTHY | {"kl_fake": 15.0, "kl_fake_minus_real": -5.0}, "introvae")
    assert "Raise method.b_neg or method.margin" in found["kl_fake_minus_real"]


def test_thresholds_themselves_are_healthy():
    assert warnings(HEALTHY | {"saturated": 0.5, "clamped_logvars": 0.01, "kl_fake_minus_real": 0.0}, "sintrovae") == {}


def test_several_troubles_are_all_named():
    found = warnings(HEALTHY | {"skipped": 1.0, "saturated": 1.0, "active_units": 0.0}, "sintrovae")
    assert set(found) == {"skipped", "saturated", "active_units"}


def test_figures_that_are_not_finite_are_named():
    assert not_finite({"a": 1.0, "b": math.nan, "c": math.inf, "d": -math.inf}) == ["b", "c", "d"]
    assert not_finite({"a": 1.0, "b": 0.0}) == []
