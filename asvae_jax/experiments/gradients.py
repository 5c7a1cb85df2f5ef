"""Theorem 1 of arXiv 2206.13903, measured: what gradient the decoder gets through KL and through the AS-Distance, while
the two clouds of codes part and early in training."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asvae_jax import sweep
from asvae_jax.config import of_this_version
from asvae_jax.data import toys
from asvae_jax.distance import as_distance
from asvae_jax.errors import ConfigError
from asvae_jax.experiments.report import write_json, write_picture
from asvae_jax.experiments.toy_cells import Budget, Cell, identity
from asvae_jax.experiments.toy_training import origin
from asvae_jax.figures import Course, courses_sheet
from asvae_jax.files import reading
from asvae_jax.gaussians import Gaussian, kl_to_standard_normal, sample, squash
from asvae_jax.models import make_networks
from asvae_jax.settings import Config
from asvae_jax.streams import decoder_streams
from asvae_jax.update import draw_noise

_log = logging.getLogger(__name__)

VARIANTS = ("sintrovae", "asintrovae,released", "asintrovae,recommended")

Divergence = Callable[[Gaussian, Gaussian], jax.Array]

DIVERGENCES: dict[str, Divergence] = {
    "KL of fake": lambda other, fake: jnp.mean(kl_to_standard_normal(fake)),
    "KL of fake, squashed": lambda other, fake: jnp.mean(kl_to_standard_normal(squash(fake))),
    "D per_dim, squashed": lambda other, fake: as_distance(other, fake, over_dims="sum", squash=True),
    "D per_dim": lambda other, fake: as_distance(other, fake, over_dims="sum", method="pairwise"),
    "D product": lambda other, fake: as_distance(other, fake, kernel="product"),
    "D product, bandwidth 1": lambda other, fake: as_distance(other, fake, kernel="product", bandwidth=1.0),
    "D prior": lambda other, fake: as_distance(other, fake, kernel="prior"),
    "D means, bandwidth 0.1": lambda other, fake: as_distance(other, fake, kernel="means", bandwidth=0.1),
}
"""What the decoder lowers, of the codes of one stream and of the fake one, each [B, Z]: S-IntroVAE's the first, that of
the released arithmetic the second and half of the third (a mean over two dimensions, here a sum), both of rec and fake;
that of `recommended` the first and the roots of the sixth and of two of the last, of real and fake."""

PAIRS = ("rec and fake", "real and fake")
"""The streams whose codes are compared along a training."""

# Codes of the clouds: as many as a small batch, their means spread by this much about the middle.
_CODES, _SPREAD, _FARTHEST = 64, 0.1, 6.0
_VARIANCES = (0.05, 1.0)
_POINTS = 40
# Drawn instead of what is smaller: a gradient of no consequence.
_FLOOR = 1e-9


def draw(betas: str, seeds: Sequence[int], budget: Budget, *, until: int, command: str, out: Path) -> list[Path]:
    """Draws figure-gradients.png of what figure-gradients.json in `out` holds of the variants under the weights
    `betas`, then trains what is missing, each run up to the step `until` of its budget, and, after each variant, writes
    both anew.

    Returns:
      The files.

    Raises:
      ConfigError: if `until` is beyond the budget or no multiple of the steps between two looks.
      DataError: if the values of an earlier call cannot be read.
    """
    picture, file = out / "figure-gradients.png", out / "figure-gradients.json"
    runs = _finished(file, until)
    between = {f"two clouds, variance {variance:g}": clouds(variance) for variance in _VARIANCES}
    wanted = {
        variant: [_watched(Cell("8gaussians", betas, variant, (), seed).config(budget)) for seed in seeds]
        for variant in VARIANTS
    }
    for configs in wanted.values():
        _check_until(until, configs[0])

    def write() -> None:
        done = {
            variant: [runs[known] for known in map(_known_by, configs) if known in runs]
            for variant, configs in wanted.items()
        }
        courses = {
            f"{variant}, {betas.upper()}: {pair}": _courses(of_variant, pair)
            for variant, of_variant in done.items()
            if of_variant
            for pair in PAIRS
        }
        panels = {**between, **courses}
        number, all_of_them = sum(map(len, done.values())), len(VARIANTS) * len(seeds)
        partial = "" if number == all_of_them else f" (partial: {number} of {all_of_them} runs)"
        labels = ["distance of the clouds"] * len(between) + ["step"] * (len(panels) - len(between))
        title = (
            "slope by the distance of two clouds of codes (first row),\n"
            f"norm of the gradient by the decoder's parameters in training{partial}\n"
            f"(what is below {_FLOOR:g} is drawn there)"
        )
        write_picture(picture, courses_sheet(_floored(panels), labels, title, columns=len(PAIRS)))
        values = {name: _values(courses) for name, courses in between.items()}
        write_json(file, {"command": command, "clouds": values, "runs": list(runs.values())})

    write()
    for variant, configs in wanted.items():
        missing = [config for config in configs if _known_by(config) not in runs]
        if missing:
            _log.info("%s under %s: training %d of %d runs", variant, betas.upper(), len(missing), len(configs))
            runs |= {
                _known_by(config): run for config, run in zip(missing, early_training(missing, until), strict=True)
            }
            write()
    return [picture, file]


def _check_until(until: int, config: Config) -> None:
    training = config.training
    if until > training.steps or until % training.steps_per_dispatch:
        raise ConfigError(
            f"--until {until} must be a multiple of {training.steps_per_dispatch}, after which the gradients are "
            f"looked at, and at most the --steps of a training, {training.steps}."
        )


def _known_by(config: Config) -> str:
    return identity(config.to_dict())


def _finished(file: Path, until: int) -> dict[str, dict[str, Any]]:
    """The runs of an earlier call by their settings; those that ended elsewhere or lack a divergence of today are left
    out."""
    if not file.exists():
        return {}
    with reading(file, "remove it, and its runs are trained anew"):
        runs = json.loads(file.read_text())["runs"]
        return {
            identity(of_this_version(run["settings"])): run
            for run in runs
            if _is_of_today(run["norms"]) and run["steps"][-1] == until
        }


def _is_of_today(norms: Mapping[str, Any]) -> bool:
    return norms.keys() == set(PAIRS) and all(of_pair.keys() == DIVERGENCES.keys() for of_pair in norms.values())


def _courses(runs: Sequence[Mapping[str, Any]], pair: str) -> dict[str, Course]:
    """The norms of some runs along their steps."""
    steps = np.array(runs[0]["steps"])
    return {name: Course(steps, np.array([run["norms"][pair][name] for run in runs])) for name in DIVERGENCES}


def _values(courses: Mapping[str, Course]) -> dict[str, Any]:
    return {name: {"x": course.x.tolist(), "values": course.values[0].tolist()} for name, course in courses.items()}


def _floored(panels: Mapping[str, Mapping[str, Course]]) -> dict[str, dict[str, Course]]:
    return {
        panel: {name: course._replace(values=np.maximum(course.values, _FLOOR)) for name, course in courses.items()}
        for panel, courses in panels.items()
    }


def clouds(variance: float) -> dict[str, Course]:
    """For each divergence the slope along the line between two clouds of codes, by their distance: one about the
    origin, as the prior is, the fake one at the distance."""
    means = _SPREAD * np.random.default_rng(0).standard_normal((2, _CODES, 2))
    logvar = np.full((_CODES, 2), np.log(variance))
    distances = np.linspace(0, _FARTHEST, _POINTS)

    def slopes(divergence: Divergence) -> np.ndarray:
        def at(distance: jax.Array) -> jax.Array:
            other, fake = jnp.asarray(means[0]), means[1] + distance * jnp.array([[1.0, 0.0]])
            return divergence(Gaussian(other, jnp.asarray(logvar)), Gaussian(fake, jnp.asarray(logvar)))

        # In float32 the smallest slopes would be rounding.
        with jax.enable_x64(True):
            return np.abs(np.asarray(jax.jit(jax.vmap(jax.grad(at)))(jnp.asarray(distances))))

    return {name: Course(distances, slopes(divergence)[None]) for name, divergence in DIVERGENCES.items()}


def early_training(configs: Sequence[Config], until: int) -> list[dict[str, Any]]:
    """Trains runs of one variant up to the step `until`, and records for each divergence of each of `PAIRS` the norm of
    its gradient by the decoder's parameters at each of some steps: "steps" and, by pair and divergence, "norms"."""
    measure, steps, norms = _gradient_norms(configs[0]), [], []

    def watch(step: int, weights: dict[str, Any]) -> None:
        steps.append(step)
        norms.append(jax.tree.map(np.asarray, measure(weights["raw"], step)))

    began = time.perf_counter()
    sweep.train_together(configs, until=until, watch_every=configs[0].training.steps_per_dispatch, watch=watch)
    seconds = time.perf_counter() - began
    return [
        {
            "steps": steps,
            "norms": {
                pair: {name: [float(of_step[pair][name][member]) for of_step in norms] for name in DIVERGENCES}
                for pair in PAIRS
            },
            **origin(config, seconds, together=len(configs)),
        }
        for member, config in enumerate(configs)
    ]


def _watched(config: Config) -> Config:
    """The same run in shorter dispatches, so that it can be looked at more often."""
    per_dispatch = config.training.steps_per_dispatch // 5
    return dataclasses.replace(config, training=dataclasses.replace(config.training, steps_per_dispatch=per_dispatch))


def _gradient_norms(config: Config) -> Callable[[Mapping[str, Any], int], dict[str, dict[str, jax.Array]]]:
    """(weights of all members, step) -> by pair and divergence the norm of the gradient, [members], on one batch."""
    networks, key = make_networks(config), jax.random.key(0)

    def of_member(params: Mapping[str, Any], step: jax.Array) -> dict[str, dict[str, jax.Array]]:
        points = toys.training_batch(config.data.name, key, step, config.data.batch_size)
        noise = draw_noise(key, step, config.data.batch_size, config.model.latent_dim)
        codes = networks.encode(params["encoder"], points)
        z = sample(codes, noise.eps_real)

        def norm(pair: str, divergence: Divergence) -> jax.Array:
            def lowered(decoder: Any) -> jax.Array:
                streams = decoder_streams(networks, params["encoder"], decoder, points, z, noise)
                return divergence(streams.q_rec if pair == "rec and fake" else streams.q_real, streams.q_fake)

            return optax.tree.norm(jax.grad(lowered)(params["decoder"]))

        return {pair: {name: norm(pair, divergence) for name, divergence in DIVERGENCES.items()} for pair in PAIRS}

    return jax.jit(jax.vmap(of_member, in_axes=(0, None)))
