"""Pieces of 32x32 pixels of scikit-image's colour photographs: colour at this size without any download.

  python -m asvae_jax.main --config=configs/photos32.py --workdir=runs/photos32

Words: a method, paper | released | recommended, tiny. No paper uses them; weights are those of Oxford Buildings,
IntroVAE's margin a tenth of theirs.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="photos32",
        channels=(32, 64, 128),
        latent_dim=64,
        batch_size=32,
        steps=5_000,
        short=True,
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=10.0),
    )
