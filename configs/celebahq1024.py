"""CelebA-HQ at 1024x1024 in colour, which arXiv 2206.13903 leaves to future work; it names no length.

  python -m asvae_jax prepare celebahq1024 --manual-dir=FOLDER   # with CelebAMask-HQ.zip or data1024x1024.tar
  python -m asvae_jax.main --config=configs/celebahq1024.py --workdir=runs/celebahq1024

Words: a method, paper | released | recommended, tiny. On GPUs add --config.model.compute_dtype=bfloat16.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="celebahq1024",
        channels=(16, 32, 64, 128, 256, 512, 512, 512),
        latent_dim=512,
        batch_size=12,
        steps=150 * (27_000 // 12),
        betas=Betas(b_kl=0.5, b_rec=1.0, b_neg=1024.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.01, b_neg=1.0, margin=500.0),
    )
