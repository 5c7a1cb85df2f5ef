"""Any folder of images, in colour, 128x128 unless told otherwise.

  python -m asvae_jax prepare image_folder --manual-dir=PICTURES
  python -m asvae_jax.main --config=configs/image_folder.py --workdir=runs/pictures

Words: a method, paper | released | recommended, tiny, a size (32, 64, 128, 256; prepare with --shape=64x64x3).
Several folders are told apart by a label: prepare with --label=flowers, train with --config.data.label=flowers.
Weights are those of Oxford Buildings in arXiv 2206.13903, the length is a guess.
"""

from asvae_jax.presets.image import image_config
from asvae_jax.presets.variants import Betas, IntroVaeBetas

CHANNELS = {
    "32": (64, 128, 256),
    "64": (64, 128, 256, 512),
    "128": (64, 128, 256, 512, 512),
    "256": (64, 128, 256, 512, 512, 512),
}


def get_config(variant: str = ""):
    words = [word.strip() for word in variant.split(",")]
    size = next((word for word in words if word in CHANNELS), "128")
    return image_config(
        ",".join(word for word in words if word != size),
        name="image_folder",
        shape=(int(size), int(size), 3),
        channels=CHANNELS[size],
        latent_dim=128,
        batch_size=32,
        steps=20_000,
        betas=Betas(b_kl=1.0, b_rec=1.0, b_neg=256.0),
        introvae=IntroVaeBetas(b_kl=1.0, b_rec=0.05, b_neg=0.5, margin=100.0),
    )
