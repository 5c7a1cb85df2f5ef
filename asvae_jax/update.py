"""One training step: encoder phase, decoder phase, moving average; nothing is mutated and all randomness comes from
`StepNoise`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from asvae_jax.config import resolve
from asvae_jax.data import toys
from asvae_jax.data.augment import training_images
from asvae_jax.methods import make_method
from asvae_jax.models import make_networks
from asvae_jax.settings import Config, ImageData
from asvae_jax.streams import DecoderLoss, EncoderPhase, Method, Metrics, StepNoise, risen

__all__ = [
    "StepNoise",
    "TrainState",
    "Update",
    "draw_noise",
    "init_state",
    "make_steps",
    "make_toy_steps",
    "make_update",
]


class TrainState(NamedTuple):
    """All that changes in training.

    Fields:
      step: steps done, int32 scalar.
      params: {"encoder", "decoder"}.
      opt_state: {"encoder", "decoder"}.
      ema: the moving average of `params`, its own pytree of the same structure.
      key: the run's typed PRNG key; it never changes, each step folds its number in.
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: dict[str, Any]
    ema: dict[str, Any]
    key: jax.Array


# (state, images [B, ...], noise) -> (state, metrics)
Update = Callable[[TrainState, jax.Array, StepNoise], tuple[TrainState, Metrics]]


def draw_noise(key: jax.Array, step: jax.typing.ArrayLike, batch_size: int, latent_dim: int) -> StepNoise:
    """The noise of a step, a pure function of the run's key and the step: the same on any number of devices and after
    a resume."""
    *normal_keys, mix_key = jax.random.split(jax.random.fold_in(key, step), 7)
    normals = (jax.random.normal(normal_key, (batch_size, latent_dim)) for normal_key in normal_keys)
    mix = jax.random.uniform(mix_key, (batch_size,))
    return StepNoise(**dict(zip(StepNoise._fields, (*normals, mix), strict=True)))


def init_state(config: Config | ConfigDict, key: jax.Array) -> TrainState:
    """Fresh networks and optimisers; the average starts at the initial parameters."""
    config = resolve(config)
    init_key, run_key = jax.random.split(key)
    params = make_networks(config).init(init_key)
    optimizer = _make_optimizer(config)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={name: optimizer.init(params[name]) for name in params},
        ema=jax.tree.map(jnp.copy, params),
        key=run_key,
    )


def make_update(config: Config | ConfigDict, method: Method | None = None) -> Update:
    """One step of `method`, by default of `config.method` (the warm-up's steps are those of
    `make_update(config.warmup())`).

    The step is refused as a whole, on the device, if any of its metrics is not finite, losses and gradient norms among
    them: parameters, optimisers and average stay as they were, the step still counts, and `skipped` is 1 in the
    metrics.

    Returns:
      update(state, images, noise) -> (state, metrics): images [B, ...] float32; metrics are float32 scalars,
      NaN for the figures of a WGAN-GP generator at the steps at which it rests.
    """
    config = resolve(config)
    method = method or make_method(config)

    def both_networks(state: TrainState, images: jax.Array, noise: StepNoise):
        def loss(params):
            phase = method.encoder_loss(params["encoder"], params["decoder"], images, noise, state.step)
            return phase.loss, phase

        gradients, phase = jax.grad(loss, has_aux=True)(state.params)
        moved = {name: _move(config, gradients[name], state, name) for name in state.params}
        return moved, gradients, {"encoder/loss": phase.loss, **phase.metrics}

    def in_turns(decoder_objective: DecoderLoss, state: TrainState, images: jax.Array, noise: StepNoise):
        encoder, decoder = state.params["encoder"], state.params["decoder"]

        def encoder_loss(encoder) -> tuple[jax.Array, EncoderPhase]:
            phase = method.encoder_loss(encoder, decoder, images, noise, state.step)
            return phase.loss, phase

        encoder_gradient, phase = jax.grad(encoder_loss, has_aux=True)(encoder)
        moved = {"encoder": _move(config, encoder_gradient, state, "encoder")}

        # From here on the encoder is the updated one.
        def decoder_gradient_and_loss():
            def decoder_loss(decoder):
                return decoder_objective(moved["encoder"][0], decoder, images, phase.z, noise, state.step)

            (loss, terms), gradient = jax.value_and_grad(decoder_loss, has_aux=True)(decoder)
            return gradient, {"decoder/loss": loss, **{f"decoder/{name}": term for name, term in terms.items()}}

        if method.decoder_every == 1:
            decoder_gradient, terms = decoder_gradient_and_loss()
            moved["decoder"] = _move(config, decoder_gradient, state, "decoder")
        else:
            its_turn = (state.step + 1) % method.decoder_every == 0
            nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(decoder_gradient_and_loss))
            decoder_gradient, terms = jax.lax.cond(its_turn, decoder_gradient_and_loss, lambda: nothing)
            stayed = (decoder, state.opt_state["decoder"])
            moved["decoder"] = _where(its_turn, _move(config, decoder_gradient, state, "decoder"), stayed)
        gradients = {"encoder": encoder_gradient, "decoder": decoder_gradient}
        return moved, gradients, {"encoder/loss": phase.loss, **terms, **phase.metrics}

    step = both_networks if method.decoder_loss is None else partial(in_turns, method.decoder_loss)

    def update(state: TrainState, images: jax.Array, noise: StepNoise) -> tuple[TrainState, Metrics]:
        chex.assert_equal_shape_prefix([images, noise.prior], 1)
        moved, gradients, metrics = step(state, images, noise)
        metrics |= {f"{name}/gradient_norm": optax.tree.norm(gradients[name]) for name in gradients}
        finite = jnp.all(jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))))
        metrics |= {"skipped": 1.0 - finite, **_silent_while_resting(method, state.step, finite, metrics)}
        params = {name: moved[name][0] for name in state.params}
        new = TrainState(
            step=state.step,
            params=params,
            opt_state={name: moved[name][1] for name in state.params},
            ema=_averaged(config, state, params, images.shape[0]),
            key=state.key,
        )
        return _where(finite, new, state)._replace(step=state.step + 1), metrics

    return update


def make_steps(config: Config | ConfigDict, batch_sharding: jax.sharding.Sharding | None = None):
    """Several steps in one program: (state, uint8 pixels [n, B, H, W, C]) -> (state, metrics, each [n]).

    `batch_sharding` spreads what is drawn for a batch over devices.
    """
    config = resolve(config)
    update = make_update(config)
    data = config.data
    assert isinstance(data, ImageData)

    def one(state: TrainState, pixels: jax.Array):
        images = training_images(data, pixels, state.key, state.step)
        noise = draw_noise(state.key, state.step, images.shape[0], config.model.latent_dim)
        return update(state, images, _spread(noise, batch_sharding))

    def steps(state: TrainState, pixels: jax.Array):
        if pixels.shape[0] > 1:
            return jax.lax.scan(one, state, pixels)
        # XLA is several times slower at convolutions within a loop on a CPU, even in a loop of a single turn.
        state, metrics = one(state, pixels[0])
        return state, jax.tree.map(lambda value: value[None], metrics)

    return steps


def make_toy_steps(
    config: Config | ConfigDict, batch_sharding: jax.sharding.Sharding | None = None, method: Method | None = None
):
    """`make_steps` for a toy, whose points are drawn within the step: (state, n) -> (state, metrics, each [n]); n is
    static, and `method` as in `make_update`."""
    config = resolve(config)
    update = make_update(config, method)
    batch_size = config.data.batch_size

    def one(state: TrainState, _):
        points = toys.training_batch(config.data.name, state.key, state.step, batch_size)
        noise = draw_noise(state.key, state.step, batch_size, config.model.latent_dim)
        return update(state, _spread(points, batch_sharding), _spread(noise, batch_sharding))

    return lambda state, n: jax.lax.scan(one, state, length=n)


def _spread(drawn: Any, batch_sharding: jax.sharding.Sharding | None) -> Any:
    return drawn if batch_sharding is None else jax.lax.with_sharding_constraint(drawn, batch_sharding)


def _silent_while_resting(method: Method, step: jax.Array, finite: jax.Array, metrics: Metrics) -> Metrics:
    """The decoder's figures, NaN at the (good) steps at which it does not move: there its zeros are no measurement."""
    if method.decoder_every == 1:
        return {}
    resting = finite & ((step + 1) % method.decoder_every != 0)
    return {name: jnp.where(resting, jnp.nan, value) for name, value in metrics.items() if name.startswith("decoder/")}


def _make_optimizer(config: Config) -> optax.GradientTransformation:
    """Adam's direction; `_move` takes the learning rate from the run's own count of steps."""
    setting = config.optimizer
    clip = [optax.clip_by_global_norm(setting.clip_norm)] if setting.clip_norm else []
    return optax.chain(*clip, optax.scale_by_adam(b1=setting.b1, b2=setting.b2))


def _learning_rate(config: Config, step: jax.Array) -> jax.Array:
    setting = config.optimizer
    milestones = dict.fromkeys(setting.milestone_steps, setting.milestone_factor)
    fall = optax.polynomial_schedule(1.0, setting.final_factor, setting.fall_power, config.training.steps)
    return fall(step) * optax.piecewise_constant_schedule(setting.learning_rate, milestones)(step)


def _encoder_factor(config: Config, step: jax.Array) -> jax.typing.ArrayLike:
    setting = config.optimizer
    return 1 + (setting.encoder_factor - 1) * risen(step, setting.encoder_rise, config.training.steps)


def _move(config: Config, gradient: Any, state: TrainState, name: str) -> tuple[Any, Any]:
    """(parameters, optimiser state) of one network after its update.

    The rate follows `state.step`, not the network's own updates, of which a WGAN-GP generator has fewer.
    """
    direction, opt_state = _make_optimizer(config).update(gradient, state.opt_state[name], state.params[name])
    rate = _learning_rate(config, state.step) * (_encoder_factor(config, state.step) if name == "encoder" else 1.0)
    return optax.apply_updates(state.params[name], jax.tree.map(lambda d: -rate * d, direction)), opt_state


def _averaged(config: Config, state: TrainState, params: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """The moving average after this step; its half-life is short at first, so that it forgets the initial weights."""
    half_life = jnp.asarray(config.ema.half_life_images, jnp.float32)
    if config.ema.ramp_up:
        images_seen = (state.step + 1.0) * batch_size
        half_life = jnp.minimum(half_life, config.ema.ramp_up * images_seen)
    decay = jnp.exp(math.log(0.5) * batch_size / half_life)
    return jax.tree.map(lambda average, new: decay * average + (1 - decay) * new, state.ema, params)


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(
        lambda a, b: a if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key) else jnp.where(condition, a, b), new, old
    )
