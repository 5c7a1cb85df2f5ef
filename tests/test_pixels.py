"""Image files of any mode and size as arrays: which pixels come out, and which files are refused."""

import re

import numpy as np
import pytest
import stand_ins
from PIL import Image, features
from stand_ins import encoded, photograph

from asvae_jax.data.pixels import UnreadableImageError, image_from_bytes

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MODES = stand_ins.image_modes()

# What turns pixels as a camera stores them upright, for each of EXIF's orientations.
UPRIGHT = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}


def decoded(content: bytes, *shape: int, crop: str = "none", resize: str = "bilinear") -> np.ndarray:
    """An image of a shape; it is checked to have that."""
    image = image_from_bytes(content, shape, crop=crop, resize=resize)
    assert image.shape == shape and image.dtype == np.uint8
    return image


def refused(content: bytes, crop: str = "none") -> str:
    """What is said of a file that cannot be read: one line that a log can hold."""
    with pytest.raises(UnreadableImageError) as error:
        image_from_bytes(content, (8, 8, 3), crop=crop, resize="bilinear")
    message = str(error.value)
    assert message and "\n" not in message and not re.search(r"\b0x", message)
    return message


def png(width: int, height: int) -> tuple[bytes, np.ndarray]:
    """A photograph as a file and as pixels."""
    image = photograph(0, width, height)
    return encoded(image, "png"), np.asarray(image)


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_the_colours_that_it_shows(name):
    content, pixels = MODES[name]
    np.testing.assert_array_equal(decoded(content, *pixels.shape), pixels)


def test_one_channel_is_luminance():
    content, pixels = png(40, 40)
    luminance = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decoded(content, 40, 40, 1)[..., 0] - luminance).max() < 1


@pytest.mark.parametrize("name", ["grey.png", "grey-alpha.png", "black-white.png", "deep.png"])
def test_grey_stays_what_it_is_in_one_channel(name):
    content, pixels = MODES[name]
    np.testing.assert_array_equal(decoded(content, *pixels.shape[:2], 1), pixels[..., :1])


def test_grey_maps_of_16_bits_lose_the_lower_8():
    deep = np.random.default_rng(0).integers(0, 65_536, (8, 8), np.uint16)
    content = b"P5 8 8 65535\n" + deep.astype(">u2").tobytes()
    np.testing.assert_array_equal(decoded(content, 8, 8, 1)[..., 0], deep >> 8)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_whose_white_is_not_known_are_refused(kind):
    content = encoded(Image.fromarray(np.linspace(0, 1000, 64).astype(kind).reshape(8, 8)), "tiff")
    assert "numbers of 32 bits" in refused(content)


def test_what_is_half_transparent_lies_on_white():
    image = Image.new("RGBA", (4, 4), (0, 100, 200, 51))
    np.testing.assert_array_equal(decoded(encoded(image, "png"), 4, 4, 3)[0, 0], [204, 224, 244])


def test_of_several_frames_the_first_is_taken():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decoded(content, 4, 4, 3)[0, 0], [255, 0, 0])


@pytest.mark.parametrize("value", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_photographs_are_turned_upright(kind, value):
    content = encoded(photograph(0, 24, 16), kind, exif=stand_ins.orientation(value))
    upright = UPRIGHT[value](np.asarray(photograph(0, 24, 16)))
    np.testing.assert_array_equal(decoded(content, *upright.shape), upright)


def test_a_photograph_whose_camera_wrote_nonsense_is_still_read():
    exif = stand_ins.orientation(6)
    exif[0x0100] = 24
    # The width is announced as a fraction, which it is not: Pillow reads it and cannot write it again.
    nonsense = exif.tobytes().replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x05")
    assert nonsense != exif.tobytes()
    image = photograph(0, 24, 16)
    upright = np.rot90(np.asarray(image), -1)
    np.testing.assert_array_equal(decoded(encoded(image, "png", exif=nonsense), *upright.shape), upright)


@pytest.mark.parametrize(("width", "height"), [(178, 218), (218, 178), (149, 151)])
def test_centre148_cuts_148_pixels_from_the_centre(width, height):
    content, pixels = png(width, height)
    left, top = (width - 148) // 2, (height - 148) // 2
    expected = pixels[top : top + 148, left : left + 148]
    np.testing.assert_array_equal(decoded(content, 148, 148, 3, crop="centre148"), expected)


@pytest.mark.parametrize(("width", "height"), [(60, 40), (40, 61), (50, 50)])
def test_square_cuts_the_largest_square_from_the_centre(width, height):
    content, pixels = png(width, height)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    expected = pixels[top : top + side, left : left + side]
    np.testing.assert_array_equal(decoded(content, side, side, 3, crop="square"), expected)


@pytest.mark.parametrize("resize", FILTERS)
def test_none_squeezes_the_whole_frame(resize):
    content, pixels = png(60, 40)
    expected = Image.fromarray(pixels).resize((16, 24), FILTERS[resize])
    np.testing.assert_array_equal(decoded(content, 24, 16, 3, resize=resize), np.asarray(expected))


def test_filters_differ():
    content, _ = png(64, 64)
    assert len({decoded(content, 20, 20, 3, resize=resize).tobytes() for resize in FILTERS}) == len(FILTERS)


def test_box_is_the_mean_of_what_it_covers():
    content, pixels = png(32, 32)
    means = pixels.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    # Pillow rounds twice, after the columns and after the rows.
    assert np.abs(decoded(content, 8, 8, 3, resize="box") - means).max() <= 1


@pytest.mark.parametrize("resize", FILTERS)
def test_shrinking_averages_what_it_leaves_out(resize):
    # Pixels picked from a chessboard would be black and white.
    board = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    centre = decoded(encoded(board, "png"), 8, 8, 1, resize=resize)[2:-2, 2:-2]
    assert np.abs(centre.astype(int) - 128).max() <= 4


@pytest.mark.parametrize("resize", FILTERS)
def test_nothing_outside_the_crop_shines_in(resize):
    pixels = np.full((300, 200), 255, np.uint8)
    pixels[50:250] = 0
    content = encoded(Image.fromarray(pixels), "png")
    assert not decoded(content, 16, 16, 1, crop="square", resize=resize).any()


def test_an_image_smaller_than_its_crop_is_refused():
    content, _ = png(160, 147)
    message = refused(content, crop="centre148")
    assert "160x147" in message and "148x148" in message


def test_small_images_are_enlarged():
    content, pixels = png(8, 8)
    enlarged = decoded(content, 16, 16, 3, crop="square", resize="box")
    np.testing.assert_array_equal(enlarged, pixels.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff", b"GIF89a", b"<svg/>"])
def test_what_is_no_image_is_refused(content):
    refused(content)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("part", [0.1, 0.6, 0.9])
@pytest.mark.filterwarnings("ignore")  # Pillow's, of tags
def test_an_image_cut_short_is_refused(kind, part):
    content = encoded(photograph(0, 64, 64), kind)
    refused(content[: int(part * len(content))])


def test_a_size_that_would_fill_the_memory_is_refused():
    content = encoded(Image.new("L", (1, 1)), "bmp")
    huge = content.replace((1).to_bytes(4, "little") * 2, (60_000).to_bytes(4, "little") * 2, 1)
    assert "60000" in refused(huge) or "3600000000" in refused(huge)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_is_refused():
    content = encoded(photograph(0, 64, 64), "avif")
    # Its index of items: the file's head is whole, what it points to is not.
    refused(re.sub(rb"iloc", b"nope", content))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff", "bmp", "ppm", "tga", "jpeg2000", "dds"])
@pytest.mark.filterwarnings("ignore")
def test_damage_never_raises_anything_else(kind):
    # One bad file among a million must not end the preparation of the others.
    content = encoded(photograph(0, 24, 24), kind)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        for at in random.integers(0, min(len(damaged), int(random.choice([40, 400, 10**6]))), 4):
            damaged[at] = random.integers(256)
        try:
            assert image_from_bytes(bytes(damaged), (8, 8, 3), crop="square", resize="box").shape == (8, 8, 3)
        except UnreadableImageError as error:
            assert "\n" not in str(error)
