"""1,797 real digits of 8x8 pixels, embedded in scikit-learn: the smallest image set.

  python -m asvae_jax.main --config=configs/digits.py --workdir=runs/digits

Words: a method, paper | released, tiny. Weights are MNIST's of arXiv 2206.13903, widths and length are
chosen for two CPU cores.
"""

from asvae_jax.presets import Betas, IntroVaeBetas, images


def get_config(variant: str = ""):
    return images(
        variant,
        name="digits",
        shape=(8, 8, 1),
        channels=(32, 64),
        latent_dim=16,
        batch_size=64,
        steps=2_000,
        learning_rate=1e-3,
        milestone_steps=(1_500,),
        ema=dict(half_life_images=8_000.0, ramp_up=0.05),
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=10.0),
    )
