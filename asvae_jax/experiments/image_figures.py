"""Figures 4 to 7 of arXiv 2206.13903: what methods generate and reconstruct, the way between two codes, and the course
of training."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from asvae_jax.errors import DataError
from asvae_jax.examples import preview_examples
from asvae_jax.experiments.image_requests import METHODS, SEEDS, SETS, Request, has_encoder, title
from asvae_jax.experiments.image_runs import SHOWN_WEIGHTS, ImageRuns, read_records
from asvae_jax.experiments.report import write_picture
from asvae_jax.features.networks import is_figure
from asvae_jax.figures import Course, courses_sheet, image_sheet
from asvae_jax.files import make_writable
from asvae_jax.run import SAMPLE_SEED, Run, decode, encode, load_run, reconstruct, sample_images

_WAY = 10
_COURSES = {
    "err_real": "squared error of a training image",
    "kl_real": "KL of real images, nats",
    "kl_fake": "KL of generated images, nats",
    "evaluation/psnr": "PSNR of test images, dB",
    "evaluation/fid": "{name} of generated images",
}
"""What figure 7 has a panel for, where runs have logged it. What is measured by features has their name in its own,
"evaluation/fid_digits_n1438": by digits' features it is no FID."""

Runs = dict[str, list[Path]]
"""The folders of finished runs by method, in the order of the seeds."""


def draw_samples(data: str, folders: Runs) -> Image.Image:
    """Figure 4: a row for each method, all from the same latents, below real images."""
    runs = _first_runs(folders)
    real = _test_images(runs)
    key = jax.random.key(SAMPLE_SEED)
    rows = {name: sample_images(run, key, len(real), weights=SHOWN_WEIGHTS) for name, run in runs.items()}
    return image_sheet({"real": real, **rows}, _caption(data, "generated images", runs))


def draw_reconstructions(data: str, folders: Runs) -> Image.Image:
    """Figure 5: test images, and below what each method makes of them."""
    runs = _first_runs(folders)
    real = _test_images(runs)
    rows = {name: reconstruct(run, real, weights=SHOWN_WEIGHTS) for name, run in runs.items()}
    return image_sheet({"test image": real, **rows}, _caption(data, "reconstructed images", runs))


def draw_interpolations(data: str, folders: Runs) -> Image.Image:
    """Figure 6: a row for each method, from one test image to another by way of its codes; the images themselves stand
    at both ends."""
    runs = _first_runs(folders)
    first, *others = _test_images(runs)
    if not others:
        raise DataError(f"{data} has one test image, and a way needs two; leave it out of --sets.")
    # Two that are alike have nothing between them to be seen.
    last = max(others, key=lambda other: float(np.square(other - first).sum()))
    rows = {}
    for name, run in runs.items():
        rows[name] = np.concatenate([first[None], interpolate(run, first, last), last[None]])
    return image_sheet(rows, _caption(data, "between two test images, which stand at the ends", runs))


def draw_courses(data: str, folders: Runs) -> Image.Image | None:
    """Figure 7: what runs logged in training, all seeds of a method as a line and a band; None if they logged nothing
    of what it shows."""
    panels = course_panels(folders)
    if not panels:
        return None
    seeds = max(len(of_method) for of_method in folders.values())
    band = f"line: median of {seeds} seeds, band: lowest to highest" if seeds > 1 else "one seed"
    return courses_sheet(panels, x_label="images seen", title=f"{data}: the course of training ({band})")


def course_panels(folders: Runs) -> dict[str, dict[str, Course]]:
    """The panels of figure 7 with the courses of the methods that have logged what they show."""
    logs = {title(method): [read_records(folder) for folder in of_method] for method, of_method in folders.items()}
    known = {name for of_method in logs.values() for records in of_method for record in records for name in record}
    panels = {}
    for figure, label in _COURSES.items():
        name = next((name for name in sorted(known) if is_figure(name, figure)), figure)
        courses = {method: course for method, of_method in logs.items() if (course := course_of(of_method, name))}
        if courses:
            panels[label.format(name=name.removeprefix("evaluation/"))] = courses
    return panels


def interpolate(run: Run, first: np.ndarray, last: np.ndarray, steps: int = _WAY) -> np.ndarray:
    """Decodings [steps, H, W, C] of the straight way between the mean codes of two images [H, W, C]."""
    start, end = encode(run, np.stack([first, last]), weights=SHOWN_WEIGHTS).mean
    way = np.linspace(0, 1, steps)[:, None]
    return decode(run, (1 - way) * start + way * end, weights=SHOWN_WEIGHTS, posterior=True)


def course_of(logs: list[list[dict]], name: str) -> Course | None:
    """A figure over the images seen, of runs [N] at the steps that all of them logged; None where one has not."""
    courses = [{record["step"]: record[name] for record in records if name in record} for records in logs]
    steps = sorted(set.intersection(*(set(course) for course in courses)))
    if not steps:
        return None
    images_per_step = next(record["config"]["data"]["batch_size"] for record in logs[0] if "config" in record)
    return Course(np.array(steps) * images_per_step, np.array([[course[step] for step in steps] for course in courses]))


class Figure(NamedTuple):
    """How a figure is drawn, what it is drawn of unless told otherwise, and whether by way of codes."""

    draw: Callable[[str, Runs], Image.Image | None]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    sets: tuple[str, ...] = SETS
    needs_encoder: bool = False


_WITH_ENCODER = tuple(filter(has_encoder, METHODS))
_INTROSPECTIVE = tuple(method for method in _WITH_ENCODER if method != "vae")
FIGURES = {
    4: Figure(draw_samples, METHODS, seeds=(0,)),
    5: Figure(draw_reconstructions, _WITH_ENCODER, seeds=(0,), needs_encoder=True),
    6: Figure(draw_interpolations, _WITH_ENCODER, seeds=(0,), needs_encoder=True),
    7: Figure(draw_courses, _INTROSPECTIVE, seeds=SEEDS),
}


def make(number: int, request: Request, out: Path) -> list[Path]:
    """Trains what is missing and writes figureNUMBER-SET.png to `out` for each set that has finished runs.

    Raises:
      DataError, ConfigError, Preempted: see `ImageRuns.complete`.
      StorageError: if `out` cannot be written to, before anything is trained.
    """
    make_writable(out)
    runs, paths = ImageRuns(request), []
    for _ in runs.complete():
        pass
    for data in request.sets:
        folders = {method: found for method in request.methods if (found := runs.finished(data, method))}
        picture = FIGURES[number].draw(data, folders) if folders else None
        if picture:
            paths.append(out / f"figure{number}-{data}.png")
            write_picture(paths[-1], picture)
        elif folders:
            runs.missing[data] = "these methods log nothing that this figure shows"
    for what, why in runs.missing.items():
        print(f"missing: {what}: {why}")
    return paths


def _first_runs(folders: Runs) -> dict[str, Run]:
    return {title(method): load_run(of_method[0]) for method, of_method in folders.items()}


def _test_images(runs: dict[str, Run]) -> np.ndarray:
    return preview_examples(next(iter(runs.values())).config)


def _caption(data: str, what: str, runs: dict[str, Run]) -> str:
    seeds = sorted({run.config.seed for run in runs.values()})
    steps = sorted({run.step for run in runs.values()})
    return (
        f"{data}: {what} (averaged weights, seed {', '.join(map(str, seeds))}, "
        f"{', '.join(f'{step:,}' for step in steps)} steps)"
    )
