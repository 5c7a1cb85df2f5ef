"""A run -> numbers: 2-D measures for toys, reconstruction measures on the test split for images, for raw and for
averaged weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics
from flax import struct
from jax.experimental import multihost_utils

from asvae_jax.config import TOY_LIMITS, Config, ImageData, ToyEvaluation, WganGp
from asvae_jax.data import toys
from asvae_jax.data.images import padded_batches
from asvae_jax.distributed import is_main_process
from asvae_jax.figures import image_sheet, points_sheet, sheet_columns
from asvae_jax.gaussians import kl_to_standard_normal
from asvae_jax.losses import reconstruction_error
from asvae_jax.metrics import density2d, reconstruction
from asvae_jax.run import WEIGHTS, Run, Weights, decode, encode, on_this_process, reconstruct, sample_images

# Fixed, so that a run is judged, and its pictures drawn, from the same latents and the same real points each time.
_SAMPLE_SEED, _REAL_SEED = 1, 2
_GN_ELBO_POINTS, _GN_ELBO_GRID = 12_800, 1024

EVALUATION_FILE = "evaluation.json"


def evaluate(run: Run) -> dict[str, Any]:
    """Measures for both sets of weights.

    Returns:
      {"step", "protocol", "raw": {measure: value}, "ema": {...}}; see `docs/methods.md` for the measures. A WGAN-GP
      run on images has none yet, since it cannot reconstruct.
    """
    measure = _measure_toy if run.config.is_toy else _measure_reconstruction
    return {"step": run.step, "protocol": _protocol(run), **{weights: measure(run, weights) for weights in WEIGHTS}}


def write_evaluation(run: Run) -> tuple[Path, dict[str, Any]]:
    """`evaluate`, kept as JSON in the run's folder."""
    result = evaluate(run)
    path = run.folder / EVALUATION_FILE
    if is_main_process():
        path.write_text(json.dumps(result, indent=2) + "\n")
    return path, result


def table(result: dict[str, Any]) -> str:
    """The measures as lines of text, one column for each set of weights."""
    lines = [f"step {result['step']:<14} {'raw':>10} {'ema':>10}"]
    lines += [f"{name:<19} {value:>10.4g} {result['ema'][name]:>10.4g}" for name, value in result["raw"].items()]
    return "\n".join(lines)


def sheet(run: Run, weights: Weights, real: np.ndarray):
    """The picture of a run: real, reconstructed and sampled images, or clouds of points; `real` are
    `preview_examples`."""
    title = f"{run.config.data.name}, {run.config.method.name}, step {run.step:,}, {weights} weights"
    rows = {"real": real}
    if not isinstance(run.config.method, WganGp):
        rows["reconstruction"] = reconstruct(run, real, weights=weights)
    rows["sample"] = sample_images(run, jax.random.key(_SAMPLE_SEED), len(real), weights=weights)
    if run.config.is_toy:
        return points_sheet(rows, TOY_LIMITS[run.config.data.name], title)
    return image_sheet(rows, title)


def preview_examples(config: Config) -> np.ndarray:
    """What a run's pictures show: toy points, or a row of images spread over the test split."""
    examples = Examples(config)
    count = len(examples) if config.is_toy else min(len(examples), sheet_columns(config.example_shape))
    return examples.rows(np.linspace(0, len(examples) - 1, count).astype(int))


class Examples:
    """Real examples by index: images in [0, 1] of a split, read when asked for, or toy points."""

    def __init__(self, config: Config, split: str = "test"):
        if isinstance(config.data, ImageData):
            # TFDS takes a second to import, and a toy needs none of it.
            from asvae_jax.data.records import Split

            self._images = Split(config.data, split)
            self._count = len(self._images)
        else:
            self._count = config.chunk_size
            self._points = np.asarray(toys.draw(config.data.name, jax.random.key(_REAL_SEED), self._count))
        self._is_toy = config.is_toy

    def __len__(self) -> int:
        return self._count

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """float32 [n, H, W, C] or [n, 2]."""
        return self._points[indices] if self._is_toy else self._images.rows(indices).astype(np.float32) / 255


def _protocol(run: Run) -> dict[str, Any]:
    protocol = {"data": dataclasses.asdict(run.config.data), "sample_seed": _SAMPLE_SEED}
    if isinstance(run.config.evaluation, ToyEvaluation):
        return {
            **protocol,
            "samples": run.config.evaluation.samples,
            "bins": 100,
            "limit": TOY_LIMITS[run.config.data.name],
        }
    return {
        **protocol,
        "split": "test",
        "code": "mean",
        "calibration_batches": run.config.evaluation.calibration_batches,
    }


def _measure_toy(run: Run, weights: Weights) -> dict[str, float]:
    name = run.config.data.name
    real = preview_examples(run.config)
    generated = sample_images(run, jax.random.key(_SAMPLE_SEED), len(real), weights=weights)
    measures = density2d.evaluate(real, generated, limit=TOY_LIMITS[name], modes=toys.mode_centres(name))
    if not isinstance(run.config.method, WganGp):
        measures["gn_elbo"] = _gn_elbo(run, weights)
    return measures


def _gn_elbo(run: Run, weights: Weights) -> float:
    """How much better the ELBO is on data than on a grid over the evaluation square."""
    name = run.config.data.name
    axis = np.linspace(-TOY_LIMITS[name], TOY_LIMITS[name], _GN_ELBO_GRID, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    data = np.asarray(toys.draw(name, jax.random.key(_REAL_SEED), _GN_ELBO_POINTS))

    def scores(points: np.ndarray) -> np.ndarray:
        codes = encode(run, points, weights=weights)
        decoded = decode(run, codes.mean, weights=weights, posterior=True)
        return np.asarray(
            kl_to_standard_normal(codes) + reconstruction_error(jnp.asarray(points), jnp.asarray(decoded))
        )

    return density2d.gn_elbo(scores(data), scores(grid))


@struct.dataclass
class _ReconstructionMetrics(clu_metrics.Collection):
    psnr: clu_metrics.Average.from_output("psnr")  # type: ignore[valid-type]
    ssim: clu_metrics.Average.from_output("ssim")  # type: ignore[valid-type]
    mse: clu_metrics.Average.from_output("mse")  # type: ignore[valid-type]


def _measure_reconstruction(run: Run, weights: Weights) -> dict[str, float]:
    if isinstance(run.config.method, WganGp):
        return {}
    examples = Examples(run.config)
    # Each process measures its own share, on a device of its own.
    run = on_this_process(run)

    @jax.jit
    def measure(real: jax.Array, decoded: jax.Array, mask: jax.Array) -> _ReconstructionMetrics:
        return _ReconstructionMetrics.single_from_model_output(
            psnr=reconstruction.psnr(real, decoded),
            ssim=reconstruction.ssim(real, decoded),
            mse=reconstruction.mse(real, decoded),
            mask=mask,
        )

    total = _ReconstructionMetrics.empty()
    batches = padded_batches(len(examples), run.config.chunk_size, jax.process_index(), jax.process_count())
    for indices, mask in batches:
        real = examples.rows(indices)
        total = total.merge(measure(real, reconstruct(run, real, weights=weights), jnp.asarray(mask)))
    # Sums and counts, never averages of averages.
    whole = jax.tree.map(lambda parts: parts.sum(axis=0), multihost_utils.process_allgather(total, tiled=False))
    return {name: float(value) for name, value in whole.compute().items()}
