"""Every config file: its words, and one step of what it builds."""

import itertools
import json

import jax
import jax.numpy as jnp
import pytest
from training_runs import ROOT

from asvae_jax.config import load_file, resolve
from asvae_jax.settings import IMAGE_SETS, TOY_LIMITS
from asvae_jax.update import init_state, make_steps, make_toy_steps

FILES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
METHODS = ("vae", "introvae", "sintrovae", "asintrovae,paper", "asintrovae,released", "wgan_gp")


@pytest.mark.parametrize("file", FILES)
def test_every_config_file_builds_with_every_word(file):
    own = {"image_folder": ["32", "64", "256"], "celeba128": ["full_frame"], "celeba256": ["full_frame"]}
    for method, *others in itertools.product(["", *METHODS], ["", "tiny"], ["", *own.get(file, [])]):
        config = resolve(load_file(f"{ROOT}/configs/{file}.py:{','.join(filter(None, [method, *others]))}"))
        assert config.data.name == file and config.method.name == (method.partition(",")[0] or "asintrovae")
        assert resolve(json.loads(json.dumps(config.to_dict()))) == config


# Every method where networks are small; where they are large, their shapes are what matters, and one method shows them.
TRACED = [(file, method) for file in FILES for method in METHODS if method == "vae" or file in {*TOY_LIMITS, "digits"}]


@pytest.mark.parametrize(("file", "method"), TRACED)
def test_a_step_of_a_config_gives_back_what_it_takes(file, method):
    config = resolve(load_file(f"{ROOT}/configs/{file}.py:{method}"))
    state = jax.eval_shape(lambda: init_state(config, jax.random.key(0)))
    if config.is_toy:
        after, metrics = jax.eval_shape(lambda state: make_toy_steps(config)(state, 2), state)
    else:
        pixels = jax.ShapeDtypeStruct((2, config.data.batch_size, *config.example_shape), jnp.uint8)
        after, metrics = jax.eval_shape(make_steps(config), state, pixels)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    # And a figure for each step.
    assert all((metric.shape, metric.dtype) == ((2,), jnp.float32) for metric in metrics.values())


def test_config_files_are_those_of_all_data_sets():
    assert set(FILES) == {*TOY_LIMITS, *IMAGE_SETS}
