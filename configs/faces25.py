"""80 grey faces of 25x25 pixels (20 held out) that scikit-image carries: faces without any download.

  python -m asvae_jax.main --config=configs/faces25.py --workdir=runs/faces25

Words: a method, paper | released | recommended, tiny. Too few for more than a trial; weights are MNIST's of arXiv
2206.13903.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="faces25",
        channels=(32, 64),
        latent_dim=32,
        batch_size=16,
        steps=2_000,
        short=True,
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=10.0),
    )
