"""Checkerboard (arXiv 2012.13253, Table 1).

  python -m asvae_jax.main --config=configs/checkerboard.py --workdir=runs/checkerboard

30,000 steps take about 10 minutes on two CPU cores, those of `recommended` 75 to 100. Words: a method,
paper | released | recommended, c1 | c2 | c3 (Table 1's betas), tiny.
"""

from asvae_jax.presets.toy import toy_config


def get_config(variant: str = ""):
    return toy_config(variant, name="checkerboard")
