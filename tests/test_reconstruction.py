"""PSNR, SSIM and MSE against scikit-image, on the photographs that it carries."""

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from skimage.util import random_noise

from asvae_jax.metrics.reconstruction import mse, psnr, ssim

# Photographs within the package itself, whole or cut to a size that is quick to filter; and how each is spoilt.
PHOTOGRAPHS = ("astronaut", "camera", "coffee", "chelsea")
SPOILT = ("noise", "blur", "darker")


def photograph(name: str, size: int = 128) -> np.ndarray:
    """The middle of a photograph, [size, size, C] in [0, 1]."""
    image = getattr(skimage.data, name)()
    image = image[..., None] if image.ndim == 2 else image
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size] / 255


def spoil(image: np.ndarray, how: str) -> np.ndarray:
    if how == "noise":
        return random_noise(image, var=0.01, rng=0)
    if how == "blur":
        return gaussian_filter(image, sigma=(1.5, 1.5, 0))
    return 0.7 * image


def ssim_by_hand(image: np.ndarray, other: np.ndarray, window: int) -> float:
    """Equations 13 to 16 of Wang et al. (2004), one window after the other."""
    offsets = np.arange(window) - (window - 1) / 2
    weights = np.exp(-0.5 * (offsets / 1.5) ** 2)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    found = []
    for top, left, channel in np.ndindex(image.shape[0] - window + 1, image.shape[1] - window + 1, image.shape[2]):
        x = image[top : top + window, left : left + window, channel]
        y = other[top : top + window, left : left + window, channel]
        mean_x, mean_y = np.sum(weights * x), np.sum(weights * y)
        var_x, var_y = np.sum(weights * (x - mean_x) ** 2), np.sum(weights * (y - mean_y) ** 2)
        covariance = np.sum(weights * (x - mean_x) * (y - mean_y))
        luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        found.append(luminance * (2 * covariance + 0.03**2) / (var_x + var_y + 0.03**2))
    return float(np.mean(found))


def exact_measures(image: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """(MSE, PSNR, SSIM) of two float64 images by scikit-image."""
    similarity = structural_similarity(
        image,
        other,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
    )
    return mean_squared_error(image, other), peak_signal_noise_ratio(image, other, data_range=1.0), similarity


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_measures_equal_those_of_scikit_image(name, how, x64):
    image = photograph(name)
    other = spoil(image, how)
    theirs = exact_measures(image, other)
    assert theirs[0] > 1e-4
    for measure, exact in zip((mse, psnr, ssim), theirs, strict=True):
        np.testing.assert_allclose(measure(image[None], other[None]), [exact], rtol=1e-9)


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_float32_is_enough(name, how):
    image = photograph(name, 256).astype(np.float32)
    other = np.clip(spoil(image, how), 0, 1).astype(np.float32)
    theirs = exact_measures(image.astype(np.float64), other.astype(np.float64))
    for measure, exact in zip((mse, psnr, ssim), theirs, strict=True):
        rounded = measure(image[None], other[None])
        assert rounded.dtype == np.float32
        np.testing.assert_allclose(rounded, [exact], rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "window"), [(8, 8, 7), (9, 9, 9), (10, 16, 9), (11, 11, 11)])
def test_images_smaller_than_the_window_take_the_largest_odd_one_that_fits(height, width, window, x64):
    image = photograph("coffee")[:height, :width]
    other = spoil(image, "noise")
    np.testing.assert_allclose(ssim(image[None], other[None]), [ssim_by_hand(image, other, window)], rtol=1e-9)


def test_equal_images_are_perfect():
    images = np.stack([photograph("astronaut"), photograph("coffee")]).astype(np.float32)
    assert np.all(np.asarray(mse(images, images)) == 0)
    assert np.all(np.asarray(psnr(images, images)) == np.inf)
    np.testing.assert_allclose(ssim(images, images), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("measure", [mse, psnr, ssim])
def test_an_images_measure_does_not_depend_on_its_neighbours(measure):
    images = np.stack([photograph(name, 64) for name in ("astronaut", "coffee", "chelsea")]).astype(np.float32)
    others = np.stack([spoil(image, how) for image, how in zip(images, SPOILT, strict=True)]).astype(np.float32)
    alone = [float(measure(images[i : i + 1], others[i : i + 1])[0]) for i in range(3)]
    together = measure(images, others)
    assert together.shape == (3,)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    # The three differ, so that a mean over the batch would be noticed.
    assert len({round(value, 3) for value in alone}) == 3


def test_worse_images_measure_worse():
    image = photograph("camera").astype(np.float32)[None]
    blurred = [gaussian_filter(image[0], sigma=(sigma, sigma, 0))[None] for sigma in (0.5, 1.0, 2.0)]
    for measure, worse in ((mse, 1), (psnr, -1), (ssim, -1)):
        assert np.all(worse * np.diff([float(measure(image, other)[0]) for other in blurred]) > 0)
