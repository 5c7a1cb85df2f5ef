"""Many toy runs in one program: training is `vmap`ped over seeds, over the numbers of a method and over its kernel and
annealing."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from asvae_jax import update
from asvae_jax.choice import Choice
from asvae_jax.distributed import local_mesh, over_batch
from asvae_jax.errors import ConfigError
from asvae_jax.run import Run
from asvae_jax.settings import AsIntroVae, Config

SWEPT = (
    "b_rec", "b_kl", "b_neg", "margin", "kl_rate", "w_enc", "w_dec", "alpha", "late_alpha_factor",
    "late_w_enc_factor", "w_exp", "slope_weight", "w_latent",
)  # fmt: skip
"""Numbers of a method that may differ within one program, beside the bandwidth. Of its words the kernel and the
annealing may; other words, shapes and all other sections may not."""

# All members are at one step: a branch that depends on it alone is taken or left, not computed and thrown away.
_AXES = update.TrainState(step=None, params=0, opt_state=0, ema=0, key=0)  # type: ignore[arg-type]


class Member(NamedTuple):
    """One run of a sweep.

    Fields:
      run: finished, and without a folder.
      refused: how many of its steps were refused, since losses or gradients were not finite; `train` gives such a run
        up after `training.max_skipped_steps` in a row.
    """

    run: Run
    refused: int


# (step, {"raw": params, "ema": params}), each leaf [members, ...]
Watch = Callable[[int, dict[str, Any]], None]


def grouped(configs: Iterable[Config], *, at_most: int, mixed: bool = True) -> list[list[Config]]:
    """Configs that fit into one program together, alike in all but `seed` and what may differ of a method; `at_most` of
    them in a group, in the order given. Not `mixed`, kernel and annealing are alike, too: a member of a program has
    every kernel of it computed."""
    alike: dict[str, list[Config]] = {}
    for config in configs:
        settings, swept = config.to_dict(), [*_swept_numbers(config), *(_swept_words(config) if mixed else [])]
        method = {name: None if name in swept else value for name, value in settings["method"].items()}
        alike.setdefault(json.dumps({**settings, "seed": 0, "method": method}, sort_keys=True), []).append(config)
    return [group[i : i + at_most] for group in alike.values() for i in range(0, len(group), at_most)]


def train_together(
    configs: Sequence[Config], *, until: int | None = None, watch_every: int = 0, watch: Watch | None = None
) -> list[Member]:
    """Trains toys at once, the members spread over all devices of this process.

    Each run is the one that `train` makes of its config, but for the rounding of float32. Nothing is saved and no
    step is logged; a member whose losses are no longer finite stays where it was.

    Args:
      configs: one group of `grouped`.
      until: the last step to be made, a multiple of `training.steps_per_dispatch`; None for all.
      watch_every: steps between two calls of `watch`, a multiple of `training.steps_per_dispatch`; 0 for none.
      watch: is shown the weights of all members.

    Returns:
      The members in the order of `configs`.

    Raises:
      ConfigError: for images, or for configs that do not fit together.
    """
    first = configs[0]
    if not first.is_toy or len(grouped(configs, at_most=len(configs))) > 1:
        raise ConfigError(
            "Only toys whose configs differ in seed and in numbers, kernel and annealing of the method can be trained "
            "together."
        )
    training = first.training
    members = over_members(len(configs))
    words = _words(configs)
    values = jax.device_put(_values(configs, words), members)
    keys = jnp.stack([jax.random.key(config.seed) for config in configs])
    initial = jax.vmap(lambda key: update.init_state(first, key), out_axes=_AXES)
    state = jax.jit(initial, out_shardings=_shardings(members))(keys)
    run_method = _compiled_steps(first, words, members)
    run_warmup = _compiled_steps(first, words, members, warmup=True) if training.warmup_steps else run_method
    steps = training.steps if until is None else until
    for step in range(0, steps, training.steps_per_dispatch):
        state = (run_warmup if step < training.warmup_steps else run_method)(state, values)
        done = step + training.steps_per_dispatch
        if watch is not None and watch_every and done % watch_every == 0:
            watch(done, {"raw": state.params, "ema": state.ema})
    params, ema = jax.tree.map(np.asarray, (state.params, state.ema))
    # Adam counts the steps that were taken.
    taken = np.asarray(optax.tree.get(state.opt_state["encoder"], "count"))
    return [
        Member(
            Run(Path(), config, steps, _member(params, i), _member(ema, i), {"raw": {}, "ema": {}}),
            refused=steps - int(taken[i]),
        )
        for i, config in enumerate(configs)
    ]


def over_members(count: int) -> NamedSharding:
    """The first axis spread over this process's devices, or over as many of them as share it out evenly."""
    return over_batch(local_mesh(count))


def _compiled_steps(
    config: Config, words: Mapping[str, tuple[str, ...]], members: NamedSharding, *, warmup: bool = False
) -> Callable:
    """(states, values) -> states after one dispatch."""

    def one(state: update.TrainState, values: Mapping[str, jax.Array]) -> update.TrainState:
        chosen = {name: Choice(words[name], value) if name in words else value for name, value in values.items()}
        method = dataclasses.replace(config.method, **chosen)  # type: ignore[arg-type]
        own = dataclasses.replace(config, method=method)
        steps = update.make_toy_steps(own.warmup() if warmup else own)
        return steps(state, config.training.steps_per_dispatch)[0]

    states = _shardings(members)
    return jax.jit(
        jax.vmap(one, in_axes=(_AXES, 0), out_axes=_AXES),
        donate_argnums=0, in_shardings=(states, members), out_shardings=states,
    )  # fmt: skip


def _shardings(members: NamedSharding) -> update.TrainState:
    everywhere = NamedSharding(members.mesh, PartitionSpec())
    return update.TrainState._make(everywhere if axis is None else members for axis in _AXES)


def _values(configs: Sequence[Config], words: Mapping[str, tuple[str, ...]]) -> dict[str, jax.Array]:
    """What may differ, [members]: each number, and for each of the `words` that do differ its place among them."""
    methods = [config.method for config in configs]
    numbers = {
        name: jnp.asarray([getattr(method, name) for method in methods], jnp.float32)
        for name in _swept_numbers(configs[0])
    }
    if "bandwidth" in numbers:
        # Where a kernel has none, it is computed for the others' sake and must stay finite.
        numbers["bandwidth"] = jnp.where(numbers["bandwidth"] > 0, numbers["bandwidth"], 1.0)
    places = {
        name: jnp.asarray([among.index(getattr(method, name)) for method in methods]) for name, among in words.items()
    }
    return numbers | places


def _words(configs: Sequence[Config]) -> dict[str, tuple[str, ...]]:
    """The words that differ, and what they are among these configs."""
    found = {
        name: tuple(dict.fromkeys(getattr(config.method, name) for config in configs))
        for name in _swept_words(configs[0])
    }
    return {name: words for name, words in found.items() if len(words) > 1}


def _swept_numbers(config: Config) -> list[str]:
    """The numbers of its method that may differ."""
    return [name for name in SWEPT if hasattr(config.method, name)] + ["bandwidth"] * _kernel_may_differ(config)


def _swept_words(config: Config) -> list[str]:
    """The words of its method that may differ."""
    annealed = isinstance(config.method, AsIntroVae)
    return ["kl_schedule"] * annealed + ["kernel"] * _kernel_may_differ(config)


def _kernel_may_differ(config: Config) -> bool:
    """Without a bandwidth `product` is another kernel, and `means` may have several."""
    method = config.method
    if not isinstance(method, AsIntroVae) or method.kernel == "means":
        return False
    return method.kernel != "product" or method.bandwidth > 0


def _member(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), tree)
