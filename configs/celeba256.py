"""CelebA at 256x256 in colour: tables 2 and 3 of arXiv 2206.13903.

  python -m asvae_jax prepare celeba256 --manual-dir=FOLDER   # with img_align_celeba.zip and list_eval_partition.txt
  python -m asvae_jax.main --config=configs/celeba256.py --workdir=runs/celeba256

Words: a method, paper | released | recommended, tiny, full_frame (every file, the whole frame squeezed into a square:
what the paper seems to have done; prepare with --crop=none --partition=all). The files have 178x218 pixels: all that
is finer is the filter's. For comparison, the paper prints FID 129.61, PSNR 23.156 dB, SSIM 0.758 and MSE 0.006 for
asintrovae.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="celeba256",
        channels=(64, 128, 256, 512, 512, 512),
        latent_dim=256,
        batch_size=32,
        steps=150 * ((202_599 if "full_frame" in variant else 162_770) // 32),
        betas=Betas(b_kl=0.5, b_rec=1.0, b_neg=1024.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=120.0),
    )
