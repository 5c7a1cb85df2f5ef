"""Pictures: arrays in, PIL images out."""

import io
import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _PAPER, _GAP = (40, 40, 40), (255, 255, 255), 3
_SHEET_WIDTH = 3072


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
    """Labelled images [N, H, W, C] in [0, 1], `sheet_columns` of them in a row."""
    strips = {
        name: image_grid(images, columns=min(len(images), sheet_columns(images.shape[1:])))
        for name, images in rows.items()
    }
    font = ImageFont.load_default(size=16)
    margin = 16 + max(round(font.getlength(name)) for name in strips)
    width = margin + max(strip.width for strip in strips.values())
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot: it keeps every figure alive and asks for a display.
    figure = Figure(figsize=(3.2 * len(panels), 3.6), layout="constrained", dpi=120)
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    for axes, (name, points) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        axes.scatter(points[:, 0], points[:, 1], s=1.5, alpha=0.35, linewidths=0, color="#1f4e79", rasterized=True)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=name)
        axes.tick_params(labelsize=7)
        outside = np.mean(np.any(np.abs(points) > limit, axis=1))
        if outside > 0:
            axes.set_xlabel(f"{outside:.1%} outside", fontsize=8)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
