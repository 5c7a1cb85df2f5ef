"""Whether a run tells images of its own set from those of another: scores of each image, and the area under the ROC
curve."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asvae_jax.config import check_word, resolve_data
from asvae_jax.data.records import Split
from asvae_jax.errors import ConfigError, RunError
from asvae_jax.metrics.intervals import bootstrap
from asvae_jax.metrics.ranking import auroc
from asvae_jax.presets.image import image_data
from asvae_jax.run import Run, Weights, on_this_process
from asvae_jax.scores import score
from asvae_jax.settings import IMAGE_SETS, Config, ImageData, WganGp

_LUMINANCE = (0.299, 0.587, 0.114)

# Scores, and the sign that makes more of it more foreign.
FOREIGNNESS = {"elbo": -1.0, "kl_real": 1.0, "err": 1.0}


def score_sets(
    run: Run, names: Sequence[str], *, split: str = "test", weights: Weights = "ema", data_dir: str | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Scores of every image of a split: of the run's own set, and of each set in `names`, turned into images of the
    run's shape (antialiased linear interpolation; grey is the luminance of colour, and colour repeats grey).

    Returns:
      {set: {score: [N]}}, the run's own first; see `scores.Scores` for the scores.

    Raises:
      ConfigError: for an unknown set, or the run's own.
      RunError: for a toy or a WGAN-GP run, which have no scores of images.
      DataError: if a set is not prepared.
    """
    own = run.config.data
    if not isinstance(own, ImageData) or isinstance(run.config.method, WganGp):
        raise RunError("Images are scored by an encoder and a decoder: take an image run of another method.")
    if own.name in names:
        raise ConfigError(f"{own.name} is the run's own set; compare it with others.")
    where = data_dir or own.data_dir
    sets = {own.name: own, **{name: _other(name, run.config, where) for name in names}}
    local = on_this_process(run)

    def scores(data: ImageData) -> dict[str, np.ndarray]:
        images = Split(data, split)

        def rows(indices: np.ndarray) -> np.ndarray:
            return fit(images.rows(indices).astype(np.float32) / 255, own.shape)

        return score(local, weights, rows, len(images)).per_image

    return {name: scores(data) for name, data in sets.items()}


def fit(images: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Images [B, h, w, c] in [0, 1] as images [B, H, W, C] of another shape."""
    height, width, channels = shape
    if images.shape[-1] > channels:
        images = images @ np.asarray(_LUMINANCE, np.float32)[:, None]
    if images.shape[1:3] != (height, width):
        images = np.asarray(
            jax.image.resize(jnp.asarray(images), (len(images), height, width, images.shape[-1]), "linear")
        )
    return np.broadcast_to(images, (len(images), height, width, channels))


def separation(scores: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """{foreign set: {score: {"auroc", "low", "high"}}}: how often an image of that set scores more foreign than one of
    the first, with a bootstrap interval over the images of both."""
    own, *others = scores
    result: dict[str, dict[str, Any]] = {}
    for other in others:
        result[other] = {}
        for name in _scored(scores[own]):
            sign = FOREIGNNESS[name]
            inside, outside = (sign * scores[which][name] for which in (own, other))
            low, high = bootstrap(auroc, inside, outside)
            result[other][name] = {"auroc": auroc(inside, outside), "low": low, "high": high}
    return result


def table(scores: Mapping[str, Mapping[str, np.ndarray]], found: Mapping[str, Mapping[str, Any]]) -> str:
    """Mean scores of each set and what tells it from the first, as lines of text."""
    figures = _scored(next(iter(scores.values())))
    lines = [f"{'set':<18}{'images':>8}" + "".join(f"{'mean ' + name:>14}" for name in figures)]
    for name, values in scores.items():
        count = len(values["err"])
        lines.append(f"{name:<18}{count:>8}" + "".join(f"{values[figure].mean():>14.4g}" for figure in figures))
    for other, by_score in found.items():
        cells = "  ".join(f"{name} {v['auroc']:.4f} [{v['low']:.4f}, {v['high']:.4f}]" for name, v in by_score.items())
        lines.append(f"AUROC of {other}: {cells}")
    return "\n".join(lines)


def _scored(values: Mapping[str, np.ndarray]) -> list[str]:
    """A run without a KL in its loss has no elbo."""
    return [name for name in FOREIGNNESS if name in values]


def write_scores(path: Path, scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """All scores as npz, one array for each set and score: `digits/elbo`."""
    with path.open("wb") as file:
        arrays = {f"{name}/{figure}": v for name, values in scores.items() for figure, v in values.items()}
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _other(name: str, config: Config, data_dir: str) -> ImageData:
    check_word("--against", name, IMAGE_SETS)
    shape = {"shape": config.example_shape} if name == "image_folder" else {}
    return resolve_data(image_data(name, batch_size=1, data_dir=data_dir, **shape))
