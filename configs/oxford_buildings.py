"""Oxford Buildings at 128x128 in colour: table 3 of arXiv 2206.13903.

  python -m asvae_jax prepare oxford_buildings --manual-dir=FOLDER   # with oxbuild_images.tgz in it
  python -m asvae_jax.main --config=configs/oxford_buildings.py --workdir=runs/oxford_buildings

Words: a method, paper | released | recommended, tiny. For comparison, the paper prints PSNR 20.168 dB, SSIM 0.604 and
MSE 0.013 for asintrovae, on images that are no longer published (docs/data.md).
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="oxford_buildings",
        channels=(64, 128, 256, 512, 512),
        latent_dim=128,
        batch_size=32,
        steps=150 * (4_556 // 32),
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=100.0),
    )
