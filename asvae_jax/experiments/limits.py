"""How near to 8 Gaussians the networks of a toy get without a game, with the optimiser, the average and the budget of
`recommended`: what is left to a method beside what its networks and their training allow."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from asvae_jax.config import of_this_version
from asvae_jax.data import toys
from asvae_jax.distance import as_distance, root
from asvae_jax.evaluation import toy_figures, toy_points
from asvae_jax.experiments.report import markdown, write_csv, write_json, write_section
from asvae_jax.experiments.table1 import spread
from asvae_jax.experiments.toy_cells import Budget, Cell, identity
from asvae_jax.experiments.toy_training import origin, rounded
from asvae_jax.files import reading
from asvae_jax.gaussians import Gaussian
from asvae_jax.models import Networks, Params, make_networks
from asvae_jax.run import WEIGHTS, Run
from asvae_jax.settings import Config
from asvae_jax.streams import EncoderPhase, Method
from asvae_jax.update import init_state, make_toy_steps

_log = logging.getLogger(__name__)

_TOY = "8gaussians"
_FIGURES = ("kl_paper", "jsd_paper", "strays")
# Draws of as many real points as a method generates, to see what a perfect sampler scores.
_DRAWS = 20

# From the distance between neighbouring modes down to the width of one.
_WIDTHS = (1.0, 0.3, 0.1, 0.03, 0.015)

# What the error of recognised latents weighs beside the kernel distances.
_RECOGNITION_WEIGHT = 0.5

# (networks, encoder and decoder parameters, points [B, 2], latents [B, 2]) -> a scalar to be lowered
Objective = Callable[[Networks, Params, Params, jax.Array, jax.Array], jax.Array]


def told(networks: Networks, encoder: Params, decoder: Params, points: jax.Array, latents: jax.Array) -> jax.Array:
    """The mean distance along both axes of each decoding from where `transported` says that its latent belongs."""
    return jnp.mean(jnp.abs(networks.decode(decoder, latents) - transported(latents)))


def between_points(
    networks: Networks, encoder: Params, decoder: Params, points: jax.Array, latents: jax.Array
) -> jax.Array:
    """The sum over Gaussian kernels of five widths of the root of the kernel distance between real and generated
    points: D without an encoder."""
    real, fake = (Gaussian(x, jnp.zeros_like(x)) for x in (points, networks.decode(decoder, latents)))
    roots = (root(as_distance(real, fake, kernel="means", bandwidth=width**2)) for width in _WIDTHS)
    return sum(roots, start=jnp.zeros(()))


def unfolded(networks: Networks, encoder: Params, decoder: Params, points: jax.Array, latents: jax.Array) -> jax.Array:
    """The same, and the squared error of latents that the means of codes are to tell from their decodings, which both
    networks lower (as the reconstructor of arXiv 1705.07761 does): a decoder that lays two latents on one point pays
    for it."""
    recognised = networks.encode(encoder, networks.decode(decoder, latents)).mean
    error = jnp.mean(jnp.square(recognised - latents))
    return between_points(networks, encoder, decoder, points, latents) + _RECOGNITION_WEIGHT * error


OBJECTIVES: dict[str, Objective] = {
    "told where each latent belongs": told,
    "a kernel distance between points": between_points,
    "the same, latents recognised": unfolded,
}


def transported(latents: jax.Array) -> jax.Array:
    """A map of the standard normal onto 8 Gaussians, as continuous as one may be.

    Each eighth of the plane becomes a mode: the angle within it its tangential coordinate, the radius its radial one,
    so that the tails of a mode lie where its eighth ends.

    Args:
      latents: [N, 2].

    Returns:
      [N, 2].
    """
    centres, width = toys.MIXTURES[_TOY]
    eighths = jnp.arctan2(latents[:, 1], latents[:, 0]) / (2 * math.pi) * len(centres) + 0.5
    mode = jnp.floor(eighths)
    radius_squared = jnp.sum(jnp.square(latents), axis=-1)
    # Both are uniform; within float32's reach of 0 and 1 their quantiles are finite.
    shares = jnp.clip(jnp.stack([1 - jnp.exp(-0.5 * radius_squared), eighths - mode]), 1e-6, 1 - 1e-6)
    outward, sideways = width * ndtri(shares)
    angle = mode * (2 * math.pi / len(centres))
    along = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    across = jnp.stack([-jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return (np.linalg.norm(centres[0]) + outward[:, None]) * along + sideways[:, None] * across


def make(seeds: Sequence[int], budget: Budget, *, command: str, out: Path) -> str:
    """Trains the runs that limits.json in `out` lacks and writes it anew after each, with limits.csv and a table within
    limits.md.

    Returns:
      The table.

    Raises:
      DataError: if the runs of an earlier call cannot be read.
      StorageError: if a file cannot be written.
    """
    configs = [Cell(_TOY, "c1", "asintrovae,recommended", (), seed).config(budget) for seed in seeds]
    wanted = {_known_by(name, config.to_dict()): (name, config) for name in OBJECTIVES for config in configs}
    file = out / "limits.json"
    runs, perfect = _stored(file)
    perfect = perfect or _perfect(configs[0])

    def write() -> str:
        done = [runs[known_by] for known_by in wanted if known_by in runs]
        partial = "" if len(done) == len(wanted) else f"Partial: {len(done)} of {len(wanted)} runs are done.\n\n"
        text = (
            f"`{command}`\n\n{partial}8 Gaussians, {budget.steps:,} steps of {budget.batch_size} points; averaged "
            f"weights unless a column says raw; median [smallest, largest].\n\n{_table(done, perfect)}"
        )
        write_json(file, {"command": command, "perfect": perfect, "runs": list(runs.values())})
        write_csv(out / "limits.csv", _lines(runs.values()))
        write_section(out / "limits.md", "limits", text)
        return text

    text = write()
    for known_by, (name, config) in wanted.items():
        if known_by not in runs:
            _log.info("%s, seed %d", name, config.seed)
            runs[known_by] = {"objective": name, **train(config, OBJECTIVES[name])}
            text = write()
    return text


def train(config: Config, objective: Objective) -> dict[str, Any]:
    """A run without a game: "raw" and "ema" figures, and where it comes from."""
    networks, per_dispatch = make_networks(config), config.training.steps_per_dispatch

    def loss(encoder, decoder, points, noise, step) -> EncoderPhase:
        # Where nothing asks the encoder, it stays as it is.
        return EncoderPhase(objective(networks, encoder, decoder, points, noise.prior), {}, noise.prior)

    began = time.perf_counter()
    steps = jax.jit(make_toy_steps(config, method=Method(loss, None)), static_argnums=1, donate_argnums=0)
    state = init_state(config, jax.random.key(config.seed))
    for _ in range(0, config.training.steps, per_dispatch):
        state, _ = steps(state, per_dispatch)
    run = Run(Path(), config, config.training.steps, state.params, state.ema, {"raw": {}, "ema": {}})
    figures: dict[str, Any] = {which: rounded(toy_figures(config, toy_points(run, which))) for which in WEIGHTS}
    return {**figures, **origin(config, time.perf_counter() - began, together=1)}


def _perfect(config: Config) -> dict[str, list[float]]:
    """The figures of fresh real points."""
    key = jax.random.key(config.seed)
    draws = [
        rounded(toy_figures(config, np.asarray(toys.draw(_TOY, jax.random.fold_in(key, n), config.chunk_size))))
        for n in range(_DRAWS)
    ]
    return {name: [figures[name] for figures in draws] for name in _FIGURES}


def _known_by(objective: str, settings: dict[str, Any]) -> tuple[str, str]:
    """What a run is known by: the weights of a game take no part in it."""
    return objective, identity({**settings, "method": None})


def _stored(file: Path) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, list[float]]]:
    """The runs of an earlier call by objective and settings, and what real points scored in it."""
    if not file.exists():
        return {}, {}
    with reading(file, "remove it, and its runs are trained anew"):
        values = json.loads(file.read_text())
        runs = {_known_by(run["objective"], of_this_version(run["settings"])): run for run in values["runs"]}
        return runs, values["perfect"]


def _table(runs: Sequence[Mapping[str, Any]], perfect: Mapping[str, Sequence[float]]) -> str:
    rows = [["real points", f"{_DRAWS} draws", *(spread(perfect[name]) for name in _FIGURES), *["-"] * len(_FIGURES)]]
    for objective in OBJECTIVES:
        of_it = [run for run in runs if run["objective"] == objective]
        figures = [spread([run[which][name] for run in of_it]) for which in ("ema", "raw") for name in _FIGURES]
        rows.append([objective, str(len(of_it)), *figures])
    return markdown(["without a game", "seeds", *_FIGURES, *(f"raw {name}" for name in _FIGURES)], rows)


def _lines(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each run and set of weights."""
    return [
        {
            "objective": run["objective"],
            "seed": run["settings"]["seed"],
            "steps": run["settings"]["training"]["steps"],
            "batch_size": run["settings"]["data"]["batch_size"],
            "weights": which,
            **run[which],
        }
        for run in runs
        for which in WEIGHTS
    ]
