"""Pictures: arrays in, PIL images out."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER, _GAP = (40, 40, 40), (255, 255, 255), 3
_SHEET_WIDTH = 3072
# So few points are drawn larger, as they would be too pale.
_FEW_POINTS = 2_000


def png_bytes(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] (clipped) to uint8, rounded to nearest."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)


def image_grid(images: np.ndarray, columns: int, cell: int = 64) -> Image.Image:
    """Images [N, H, W, C] in [0, 1], row by row; small ones are enlarged by whole factors to about `cell` pixels."""
    images = to_uint8(images)
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    factor = max(1, round(cell / images.shape[1]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = images.shape[1:3]
    rows = math.ceil(len(images) / columns)
    size = (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP)
    picture = Image.new("RGB", size, _PAPER)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        picture.paste(Image.fromarray(image), (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    return picture


def sheet_columns(shape: tuple[int, ...]) -> int:
    """How many images [H, W, C] stand side by side on a sheet that a screen can show."""
    return max(3, min(12, _SHEET_WIDTH // shape[1]))


def image_sheet(rows: Mapping[str, np.ndarray], title: str) -> Image.Image:
    """Labelled images [N, H, W, C] in [0, 1], `sheet_columns` of them in a row, as wide as they and the title need."""
    strips = {
        name: image_grid(images, columns=min(len(images), sheet_columns(images.shape[1:])))
        for name, images in rows.items()
    }
    font = ImageFont.load_default(size=16)
    margin = 16 + max(round(font.getlength(name)) for name in strips)
    width = margin + max(*(strip.width for strip in strips.values()), _GAP + math.ceil(font.getlength(title)) + 8)
    height = 32 + sum(strip.height for strip in strips.values())
    picture = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((margin + _GAP, 6), title, fill=_INK, font=font)
    top = 32
    for name, strip in strips.items():
        picture.paste(strip, (margin, top))
        pen.text((margin - 8, top + strip.height // 2), name, fill=_INK, font=font, anchor="rm")
        top += strip.height
    return picture


def points_sheet(panels: Mapping[str, np.ndarray], limit: float, title: str) -> Image.Image:
    """Scatter plots of 2-D points side by side, over the square [-limit, limit]^2."""
    return points_grid({"": {name: Panel(points) for name, points in panels.items()}}, {"": limit}, title)


class Panel(NamedTuple):
    """2-D points [N, 2], or None if they are not there, and what is said below them."""

    points: np.ndarray | None
    note: str = ""


def points_grid(rows: Mapping[str, Mapping[str, Panel]], limits: Mapping[str, float], title: str) -> Image.Image:
    """Scatter plots of 2-D points: a row for each of `rows`, over its own square [-limit, limit]^2, and a column for
    each name within them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = list(next(iter(rows.values())))
    # Not pyplot: it keeps every figure alive and asks for a display.
    figure = Figure(figsize=(2.9 * len(columns) + 0.4, 2.9 * len(rows) + 0.7), layout="constrained", dpi=120)
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    every = figure.subplots(len(rows), len(columns), squeeze=False)
    for (row, panels), row_axes in zip(rows.items(), every, strict=True):
        limit = limits[row]
        for axes, name in zip(row_axes, columns, strict=True):
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
            axes.tick_params(labelsize=7)
            if axes.get_subplotspec().is_first_row():
                axes.set_title(name, fontsize=10)
            panel = panels.get(name, Panel(None))
            points = panel.points
            if points is None:
                axes.text(0, 0, "no points", ha="center", va="center", fontsize=9, color="#888888")
                continue
            size = 1.5 if len(points) > _FEW_POINTS else 4.0
            axes.scatter(points[:, 0], points[:, 1], s=size, alpha=0.35, linewidths=0, color="#1f4e79", rasterized=True)
            outside = np.mean(np.any(np.abs(points) > limit, axis=1))
            notes = [panel.note] if panel.note else []
            if outside >= 0.0005:
                notes.append(f"{outside:.1%} outside")
            axes.set_xlabel(", ".join(notes), fontsize=8)
        row_axes[0].set_ylabel(row, fontsize=11)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


class Course(NamedTuple):
    """A figure over training: `values` of several runs [N, T] at the places `x` [T]."""

    x: np.ndarray
    values: np.ndarray


def courses_sheet(
    panels: Mapping[str, Mapping[str, Course]], x_label: str | Sequence[str], title: str, *, columns: int = 3
) -> Image.Image:
    """Panels, up to `columns` side by side (`x_label` for all of them, or one for each), in each a line for the
    median of every course and a band from the lowest to the highest of its runs; what spans more than a power of
    ten is drawn on a logarithmic scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    columns = 2 if len(panels) == 4 else min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows + 0.9), layout="constrained", dpi=150)
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13)
    names = list(dict.fromkeys(name for courses in panels.values() for name in courses))
    colours = {name: _COURSE_COLOURS[i % len(_COURSE_COLOURS)] for i, name in enumerate(names)}
    every = list(figure.subplots(rows, columns, squeeze=False).flat)
    lines = {}
    x_labels = [x_label] * len(panels) if isinstance(x_label, str) else x_label
    for axes, (label, courses), below in zip(every, panels.items(), x_labels, strict=False):
        for name, (x, values) in courses.items():
            axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colours[name], alpha=0.2, linewidth=0)
            [lines[name]] = axes.plot(x, np.median(values, axis=0), color=colours[name], linewidth=1.6)
        finite = np.concatenate([values[np.isfinite(values)] for _, values in courses.values()])
        if finite.min() > 0 and finite.max() > 10 * finite.min():
            axes.set_yscale("log")
            if finite.max() < 1_000 * finite.min():
                axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_title(label, fontsize=11)
        axes.set_xlabel(below, fontsize=10)
        # Whole numbers, as the format below needs.
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.25)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    in_a_row = min(len(lines), 2 * columns)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=in_a_row, frameon=False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


# Told apart by those who see colours otherwise, too (Okabe and Ito's, and grey).
_COURSE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
