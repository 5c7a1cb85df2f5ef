"""Image files of any mode and size -> uint8 arrays of one shape, by Pillow."""

import io

import numpy as np
from PIL import ExifTags, Image

_FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# What turns an image upright, by what EXIF says of the camera.
_TURNS: dict[int | None, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImageError(ValueError):
    """A file that cannot be made into an image of the shape wanted."""


def image_from_bytes(encoded: bytes, shape: tuple[int, ...], *, crop: str, resize: str) -> np.ndarray:
    """Decodes, turns upright, crops and resizes an image.

    Args:
      encoded: the bytes of an image file; of several frames the first is taken.
      shape: [H, W, C]; one channel means luminance, three sRGB. What is transparent becomes white.
      crop: "none", "square" (the largest in the centre) or "centre148" (148 x 148 pixels in the centre).
      resize: a filter; all of Pillow's average over what they shrink (antialiasing).

    Returns:
      uint8 [H, W, C].

    Raises:
      UnreadableImageError: for bytes that are no whole image, or an image smaller than its crop.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            image = _with_channels(_upright(opened), shape[2])
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's formats has its own
        # Pillow's own message shows the address of a buffer.
        reason = "no image that Pillow knows" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise UnreadableImageError(reason) from error
    box = _crop_box(image.size, crop)
    height, width = shape[:2]
    if box != (0, 0, width, height) or image.size != (width, height):
        # Not resize(box=box), whose filters see what lies outside the box.
        image = image.crop(box).resize((width, height), _FILTERS[resize])
    return np.asarray(image).reshape(shape)


def _upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose does, which also writes EXIF anew and fails where a camera wrote nonsense."""
    image.load()  # Pillow turns TIFF while it reads it, and then forgets the orientation
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if turn is None else image.transpose(turn)


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    # Pillow holds a PGM of more than 8 bits as 32, of which 16 are in use.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        # Pillow clips the upper 8 bits away where it should shift them down.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise UnreadableImageError("numbers of 32 bits, of which nothing says what is white")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _crop_box(size: tuple[int, int], crop: str) -> tuple[int, int, int, int]:
    """(left, upper, right, lower)."""
    width, height = size
    if crop == "none":
        return 0, 0, width, height
    side = min(size) if crop == "square" else 148
    if min(size) < side:
        raise UnreadableImageError(f"{width}x{height} pixels are fewer than the crop's {side}x{side}")
    left, upper = (width - side) // 2, (height - side) // 2
    return left, upper, left + side, upper + side
