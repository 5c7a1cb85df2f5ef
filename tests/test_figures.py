"""Pictures."""

import numpy as np

from asvae_jax.figures import image_sheet


def test_a_title_wider_than_the_images_is_drawn_whole():
    def title_band(title):
        return np.asarray(image_sheet({"real": np.zeros((1, 8, 8, 1))}, title))[:30]

    short, long = title_band("x"), title_band("x" * 100)
    assert long.shape[1] > short.shape[1]
    inked = np.flatnonzero((long < 255).any(axis=(0, 2)))
    assert inked.max() < long.shape[1] - 4
    # The last letters are there: the ink reaches as far as a hundred of them need.
    of_one = np.ptp(np.flatnonzero((short < 255).any(axis=(0, 2)))) + 1
    assert np.ptp(inked) > 80 * of_one
