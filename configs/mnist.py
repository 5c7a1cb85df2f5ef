"""MNIST, 28x28: tables 2 and 3 of arXiv 2206.13903.

  python -m asvae_jax prepare mnist
  python -m asvae_jax.main --config=configs/mnist.py --workdir=runs/mnist

Words: a method, paper | released | recommended, tiny. For comparison, the paper prints FID 96.16, PSNR 21.014 dB,
SSIM 0.898 and MSE 0.009 for asintrovae. S-IntroVAE's authors advise method.b_neg=128 where the KL of real images
exceeds that of fakes.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="mnist",
        channels=(64, 128),
        latent_dim=32,
        batch_size=128,
        steps=100 * (60_000 // 128),
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=10.0),
    )
