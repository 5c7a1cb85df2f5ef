"""The picture of a run."""

from typing import Any

import jax
import numpy as np

from asvae_jax.figures import image_sheet, points_sheet
from asvae_jax.run import SAMPLE_SEED, Run, Weights, reconstruct, sample_images
from asvae_jax.settings import TOY_LIMITS, WganGp


def sheet(run: Run, weights: Weights, real: np.ndarray) -> Any:
    """Real, reconstructed and sampled images, or clouds of points; `real` are `examples.preview_examples`."""
    title = f"{run.config.data.name}, {run.config.method.name}, step {run.step:,}, {weights} weights"
    rows = {"real": real}
    if not isinstance(run.config.method, WganGp):
        rows["reconstruction"] = reconstruct(run, real, weights=weights)
    rows["sample"] = sample_images(run, jax.random.key(SAMPLE_SEED), len(real), weights=weights)
    if run.config.is_toy:
        return points_sheet(rows, TOY_LIMITS[run.config.data.name], title)
    return image_sheet(rows, title)
