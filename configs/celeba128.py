"""CelebA at 128x128 in colour: tables 2 and 3 of arXiv 2206.13903.

  python -m asvae_jax prepare celeba128 --manual-dir=FOLDER   # with img_align_celeba.zip and list_eval_partition.txt
  python -m asvae_jax.main --config=configs/celeba128.py --workdir=runs/celeba128

Words: a method, paper | released | recommended, tiny, full_frame (every file, the whole frame squeezed into a square:
what the paper seems to have done; prepare with --crop=none --partition=all). For comparison, the paper prints FID
130.74, PSNR 22.924 dB, SSIM 0.801 and MSE 0.006 for asintrovae.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="celeba128",
        channels=(64, 128, 256, 512, 512),
        latent_dim=256,
        batch_size=32,
        steps=150 * ((202_599 if "full_frame" in variant else 162_770) // 32),
        betas=Betas(b_kl=0.5, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=100.0),
    )
