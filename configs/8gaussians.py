"""8 Gaussians (arXiv 2206.13903, Table 1 and Figure 3; arXiv 2012.13253, Table 1).

  python -m asvae_jax.main --config=configs/8gaussians.py --workdir=runs/8gaussians

30,000 steps take about 10 minutes on two CPU cores, those of `recommended` 75 to 100. Words: a method,
paper | released | recommended, c1 | c2 | c3 (Table 1's betas), tiny.
"""

from asvae_jax.presets.toy import toy_config


def get_config(variant: str = ""):
    return toy_config(variant, name="8gaussians")
