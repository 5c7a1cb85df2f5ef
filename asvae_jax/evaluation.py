"""A run -> numbers, each with its interval and the protocol that it was measured under: 2-D measures for toys; for
images reconstruction, codes and what features say of generated images."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asvae_jax.calibrate import has_statistics
from asvae_jax.data import toys
from asvae_jax.distributed import is_main_process, local_mesh
from asvae_jax.examples import REAL_SEED, Examples, preview_examples
from asvae_jax.features.networks import FeatureNetwork, open_network
from asvae_jax.files import write_whole
from asvae_jax.gaussians import kl_to_standard_normal
from asvae_jax.generation import (
    Poll,
    Reference,
    about_split,
    check_enough,
    check_reference,
    compare,
    measure_generated,
    measure_split,
    read_reference,
)
from asvae_jax.losses import reconstruction_error
from asvae_jax.metrics import density2d, intervals
from asvae_jax.metrics.intervals import Interval
from asvae_jax.provenance import commit, device_name, versions
from asvae_jax.run import (
    SAMPLE_SEED,
    WEIGHTS,
    Run,
    Weights,
    decode,
    encode,
    make_generate,
    on_this_process,
    sample_images,
)
from asvae_jax.scores import DRAWS, score
from asvae_jax.settings import (
    BY_FEATURES,
    IMAGE_MEASURES,
    TOY_BLOCKS,
    TOY_LIMITS,
    Config,
    ImageData,
    ImageEvaluation,
    ToyEvaluation,
    WganGp,
)

_GN_ELBO_POINTS, _GN_ELBO_GRID = 12_800, 1024
_BINS = 100

EVALUATION_FILE = "evaluation.json"

Figures = dict[str, float]


def evaluate(
    run: Run, settings: ImageEvaluation | None = None, *, weights: Sequence[Weights] = WEIGHTS
) -> dict[str, Any]:
    """The figures that `settings` (as a rule the run's own) ask for; all processes of a job call it, and get the same.

    Returns:
      {"step", "config", "measures", "protocol", "raw": {figure: value}, "ema": {...}, "intervals": {"raw": {figure:
      [low, high]}, ...}}; see `docs/evaluation.md` for the figures and their intervals. Those that need an encoder are
      left out for WGAN-GP.

    Raises:
      DataError: if images, the feature network's weights or a reference are absent or not what they should be.
    """
    return Evaluator(run.config, settings).evaluate(run, weights=weights)


def write_evaluation(
    run: Run,
    settings: ImageEvaluation | None = None,
    *,
    weights: Sequence[Weights] = WEIGHTS,
    path: Path | None = None,
    poll: Poll = lambda: None,
    is_best: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """`evaluate`, kept as JSON at `path` or, as a rule, in the run's folder. `poll` is called between batches, and
    raises to stop. Of a run's best checkpoint the file says by what ("best_by")."""
    result = Evaluator(run.config, settings).evaluate(run, weights=weights, poll=poll)
    if is_best:
        result["best_by"] = run.config.evaluation.best
    path = path or run.folder / EVALUATION_FILE
    if is_main_process():
        # Tables take a run that has this file for finished.
        write_whole(path, json.dumps(result, indent=2) + "\n")
    return path, result


def table(result: dict[str, Any]) -> str:
    """The figures as lines of text, with the 95 % interval of each, a column for each set of weights."""
    columns = [weights for weights in WEIGHTS[::-1] if weights in result]
    rows = [[f"step {result['step']}", *columns]]
    for name in result[columns[0]]:
        rows.append(
            [name, *(intervals.with_interval(result[w][name], result["intervals"][w].get(name)) for w in columns)]
        )
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


class Evaluator:
    """What evaluating any run of a config needs, opened and checked once: weights of a feature network, a reference.

    Raises:
      DataError: as `evaluate` does, before anything is measured.
    """

    def __init__(self, config: Config, settings: ImageEvaluation | None = None):
        self._config, self._settings = config, settings or config.evaluation
        self._measures: tuple[str, ...] = ()
        self._network: FeatureNetwork | None = None
        self._reference: Reference | None = None
        self._generated = 0
        if isinstance(config.data, ImageData) and isinstance(self._settings, ImageEvaluation):
            self._measures, self._batch_size = self._settings.measures, self._settings.batch_size
            if set(self._measures) & set(BY_FEATURES):
                self._network = open_network(self._settings.features, self._settings.features_file)
                enough = partial(check_enough, network=self._network, batch_size=self._batch_size)
                enough(self._settings.samples, "generated images")
                if self._settings.reference_file:
                    self._reference = _read_checked(self._settings, config.data, self._network)
                else:
                    enough(_training_images(config.data), f"train images of {config.data.name}")

    def evaluate(self, run: Run, *, weights: Sequence[Weights], poll: Poll = lambda: None) -> dict[str, Any]:
        """See `evaluation.evaluate`; `poll` is called between batches, and raises to stop."""
        measured = {which: self._measure(run, which, poll) for which in weights}
        result: dict[str, Any] = {
            "step": run.step,
            "config": run.config.to_dict(),
            "measures": self._measures,
            "protocol": self._protocol(),
            **{which: figures for which, (figures, _) in measured.items()},
            "intervals": {which: spread for which, (_, spread) in measured.items()},
        }
        # In JSON's own types, so that what is returned is what is read back.
        return json.loads(json.dumps(result))

    def _measure(self, run: Run, weights: Weights, poll: Poll) -> tuple[Figures, dict[str, Interval]]:
        if self._config.is_toy:
            return _measure_toy(run, weights)
        # Each process measures its own share, on devices of its own.
        run = on_this_process(run)
        figures, spread = self._measure_scores(run, weights, poll)
        if self._network:
            by_features = self._measure_generated(run, weights, self._network, poll)
            figures, spread = figures | by_features[0], spread | by_features[1]
        return figures, spread

    def _measure_scores(self, run: Run, weights: Weights, poll: Poll) -> tuple[Figures, dict[str, Interval]]:
        asked = [measure for measure in ("reconstruction", "codes") if measure in self._measures]
        if not asked or isinstance(self._config.method, WganGp):
            return {}, {}
        examples = Examples(self._config)
        scores = score(run, weights, examples.rows, len(examples), batch_size=self._batch_size, poll=poll)
        names = [name for measure in asked for name in IMAGE_MEASURES[measure] if name in scores.per_image]
        figures = {name: float(np.mean(scores.per_image[name], dtype=np.float64)) for name in names}
        spread = {name: intervals.bootstrap_mean(scores.per_image[name]) for name in names}
        if "codes" in self._measures:
            figures["active_units"] = float(scores.active_units)
        return figures, spread

    def _measure_generated(
        self, run: Run, weights: Weights, network: FeatureNetwork, poll: Poll
    ) -> tuple[Figures, dict[str, Interval]]:
        if self._reference is None:
            assert isinstance(self._config.data, ImageData)
            self._reference = _training_reference(self._config.data, network, self._batch_size, poll)
        generate = make_generate(run, jax.random.key(SAMPLE_SEED), weights)
        generated = measure_generated(network, generate, self._settings.samples, self._batch_size, poll)
        self._generated = generated.number
        return compare(self._measures, self._reference, generated, network, poll)

    def _protocol(self) -> dict[str, Any]:
        """All that a figure depends on beside the weights."""
        config = self._config
        protocol: dict[str, Any] = {
            "sample_seed": SAMPLE_SEED,
            "versions": versions(),
            "commit": commit(),
            "device": device_name(),
        }
        if isinstance(config.evaluation, ToyEvaluation):
            toy = {"real_seed": REAL_SEED, "bins": _BINS, "limit": TOY_LIMITS[config.data.name]}
            return {**protocol, "samples": self._settings.samples, **toy}
        protocol |= {
            "split": "test",
            "code": "mean",
            "elbo_draws": DRAWS,
            "calibration": f"{config.evaluation.calibration_batches} batches of {config.chunk_size} training images"
            if has_statistics(config)
            else "none",
        }
        if self._network and self._reference:
            protocol["generation"] = {
                **self._network.protocol(),
                "reference": self._reference.about,
                "n_reference": self._reference.number,
                "n_generated": self._generated,
                "pixels": "uint8, rounded to nearest",
            }
        return protocol


def _training_images(data: ImageData) -> int:
    # TFDS takes a second to import, and a toy needs none of it.
    from asvae_jax.data.prepare import open_prepared

    return open_prepared(data).sizes["train"]


# The last reference measured, by what it is of: the runs of a table, one after another, are held against one split.
_measured: dict[str, Reference] = {}


def _training_reference(data: ImageData, network: FeatureNetwork, batch_size: int, poll: Poll) -> Reference:
    # How sums are rounded depends on batch and devices, and a folder may hold other images than before.
    computed = [batch_size, local_mesh(batch_size).size]
    of = [data.data_dir, _training_images(data), about_split(data, "train", network, batch_size)]
    about = json.dumps([computed, of])
    if about not in _measured:
        reference = measure_split(data, "train", network, batch_size, poll)
        _measured.clear()
        _measured[about] = reference
    return _measured[about]


def _read_checked(settings: ImageEvaluation, data: ImageData, network: FeatureNetwork) -> Reference:
    path = Path(settings.reference_file).expanduser()
    reference = read_reference(path, about_split(data, "train", network, settings.batch_size))
    needs_features = bool({"kid", "precision_recall"} & set(settings.measures))
    check_reference(path, reference, network, needs_features)
    return reference


def toy_points(run: Run, weights: Weights) -> np.ndarray:
    """The generated points [N, 2] that a toy is judged by."""
    return sample_images(run, jax.random.key(SAMPLE_SEED), run.config.chunk_size, weights=weights)


def toy_figures(config: Config, points: np.ndarray) -> Figures:
    """The 2-D measures of generated points, without `gn_elbo`, which is the model's and not theirs."""
    name = config.data.name
    real = preview_examples(config)
    modes = toys.MIXTURES[name].centres if name in toys.MIXTURES else None
    return density2d.evaluate(real, points, limit=TOY_LIMITS[name], bins=_BINS, modes=modes)


def _measure_toy(run: Run, weights: Weights) -> tuple[Figures, dict[str, Interval]]:
    generated = toy_points(run, weights)
    figures = toy_figures(run.config, generated)
    blocks = np.arange(len(generated)) * TOY_BLOCKS // len(generated)
    left_out = [toy_figures(run.config, generated[blocks != block]) for block in range(TOY_BLOCKS)]
    # How many modes are hit is no smooth function of the samples.
    smooth = [figure for figure in figures if figure != "modes_hit"]
    spread = {figure: intervals.jackknife(figures[figure], [part[figure] for part in left_out]) for figure in smooth}
    if not isinstance(run.config.method, WganGp):
        figures["gn_elbo"], spread["gn_elbo"] = _gn_elbo(run, weights)
    return figures, spread


def _gn_elbo(run: Run, weights: Weights) -> tuple[float, Interval]:
    """How much better the ELBO is on data than on a grid over the evaluation square, and its interval over the data."""
    name = run.config.data.name
    axis = np.linspace(-TOY_LIMITS[name], TOY_LIMITS[name], _GN_ELBO_GRID, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    data = np.asarray(toys.draw(name, jax.random.key(REAL_SEED), _GN_ELBO_POINTS))

    def scores(points: np.ndarray) -> np.ndarray:
        codes = encode(run, points, weights=weights)
        decoded = decode(run, codes.mean, weights=weights, posterior=True)
        return np.asarray(
            kl_to_standard_normal(codes) + reconstruction_error(jnp.asarray(points), jnp.asarray(decoded))
        )

    # Only the sum over the grid is asked for, and often.
    of_data, of_grid = scores(data), scores(grid).sum(dtype=np.float64, keepdims=True)
    interval = intervals.bootstrap(lambda resampled: density2d.gn_elbo(resampled, of_grid), of_data)
    return density2d.gn_elbo(of_data, of_grid), interval
