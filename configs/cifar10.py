"""CIFAR-10, 32x32 in colour: tables 2 and 3 of arXiv 2206.13903.

  python -m asvae_jax prepare cifar10
  python -m asvae_jax.main --config=configs/cifar10.py --workdir=runs/cifar10

Words: a method, paper | released | recommended, tiny. For comparison, the paper prints FID 271.69, PSNR 19.445 dB,
SSIM 0.620 and MSE 0.019 for asintrovae.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="cifar10",
        channels=(64, 128, 256),
        latent_dim=128,
        batch_size=64,
        steps=150 * (50_000 // 64),
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=10.0),
    )
