"""Pieces of 128x128 pixels of scikit-image's colour photographs: colour at this size without any download.

  python -m asvae_jax.main --config=configs/photos128.py --workdir=runs/photos128

Words: a method, paper | released | recommended, tiny. No paper uses them; weights are those of Oxford Buildings.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="photos128",
        channels=(32, 64, 128, 128, 128),
        latent_dim=128,
        batch_size=16,
        steps=5_000,
        short=True,
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=100.0),
    )
