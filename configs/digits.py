"""1,797 real digits of 8x8 pixels, embedded in scikit-learn: the smallest image set.

  python -m asvae_jax.main --config=configs/digits.py --workdir=runs/digits

Words: a method, paper | released | recommended, tiny. The weights are MNIST's of arXiv 2206.13903 carried over to an
image with a twelfth of the pixels and of the variance: KL weighs a tenth beside the error, and b_neg keeps the
exponent's size.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas


def get_config(variant: str = ""):
    return image_config(
        variant,
        name="digits",
        channels=(32, 64),
        latent_dim=16,
        batch_size=64,
        steps=2_000,
        learning_rate=1e-3,
        milestone_steps=(1_500,),
        short=True,
        betas=Betas(b_kl=0.1, b_rec=1.0, b_neg=20.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=5.0, b_neg=0.5, margin=10.0),
    )
