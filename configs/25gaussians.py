"""25 Gaussians; no paper of this family gives settings, so it has those of the 8 Gaussians.

  python -m asvae_jax.main --config=configs/25gaussians.py --workdir=runs/25gaussians

30,000 steps take about 10 minutes on two CPU cores, those of `recommended` 75 to 100. Words: a method,
paper | released | recommended, c1 | c2 | c3 (Table 1's betas), tiny.
"""

from asvae_jax.presets.toy import toy_config


def get_config(variant: str = ""):
    return toy_config(variant, name="25gaussians")
