"""The 2-D toys' configs: the weights of arXiv 2012.13253 and of Table 1 of arXiv 2206.13903, and what `recommended` is
on a toy (docs/results/recommended.md says why)."""

from ml_collections import ConfigDict

from asvae_jax.presets.variants import Betas, IntroVaeBetas, Recommended, Words
from asvae_jax.settings import TOYS_WITH_MODES

TABLE1_BETAS = {"c1": (0.3, 0.1, 0.9), "c2": (0.5, 0.1, 0.9), "c3": (0.7, 0.2, 0.9)}
"""The hyper-parameter combinations of Table 1 of arXiv 2206.13903 as (b_kl, b_rec, b_neg)."""

TOY_BETAS = {
    "8gaussians": (0.3, 0.2, 0.9), "2spirals": (0.5, 0.2, 1.0), "checkerboard": (0.1, 0.2, 0.2),
    "rings": (0.2, 0.2, 1.0), "25gaussians": (0.3, 0.2, 0.9),
}  # fmt: skip
"""The same of each toy in arXiv 2012.13253; its authors do not have 25 Gaussians, which take those of 8."""

TOY_MILESTONES = (10_000, 15_000)
"""Steps, of 30,000, at which the rate of the toys' Adam falls to a tenth, in the code of arXiv 2012.13253."""


def toy_config(variant: str, *, name: str) -> ConfigDict:
    """A 2-D toy: the settings of arXiv 2012.13253, appendix, and the warm-up of the released AS-IntroVAE code.

    Words: a method (default asintrovae), `paper`, `released` or `recommended` (default paper), `c1`, `c2`, `c3` for
      Table 1's betas, `tiny`.
    """
    words = Words(variant, extra=tuple(TABLE1_BETAS))
    betas = Betas(*(TABLE1_BETAS[words.extra] if words.extra else TOY_BETAS[name]))
    batch_size = 512
    # Where modes lie apart the game is that of C1 whatever b_kl: the encoder's weight of D, its exponential and the
    # bound on the slope go with KL's. Beside a light KL a greater weight of D leaves strays, beside a heavy one the
    # game may break down with a smaller; and with an exponential of weight 1 the encoder is then content with next to
    # no KL where samples are too many.
    apart = name in TOYS_WITH_MODES
    stake = betas.b_kl / Betas(*TABLE1_BETAS["c1"]).b_kl if apart else 1.0
    # On 8 Gaussians the encoder gets ever faster, since the decoder may outrun it near the end. On 25, some of which
    # are found late, it leaves a few unfound then; it does harm on the checkerboard, and changes little elsewhere.
    encoder_factor, encoder_rise = (9.0, 1.0) if name == "8gaussians" else (3.0, 0.5)
    recommended = Recommended(
        method=dict(
            w_enc=stake if apart else 2.5,
            # How hard KL pulls differs between toys and falls in training; a D of fixed weight drowns it where it is
            # weak. Where no mode is in danger a D that pulls harder than KL blurs, unless KL has next to nothing to
            # tell: the encoder learns to tell fake points apart by b_neg.
            w_dec=3.0 if apart else 1 / betas.b_neg, balance_pulls=True,
            # D parts the modes; the distance of the means, which sees their shape, comes when they are parted. It pulls
            # at the encoder as hard as ever, so the exponential must last from then on: only by the KL of its code does
            # the encoder tell a sample between modes from a real point. One that lasts from the start loses modes.
            means_bandwidths=(0.1, 0.0125), late_from=0.25, late_alpha_factor=0.25,
            w_exp=stake, slope_weight=1e-3 * stake, slope_until=0.5, w_latent=0.0, latent_rise=0.0,
        ),
        optimizer=dict(
            learning_rate=9e-4, fall_power=2.0, final_factor=0.01,
            encoder_factor=encoder_factor, encoder_rise=encoder_rise,
        ),
    )  # fmt: skip
    # The papers give no margin for the toys; real codes end up between 2 and 5 nats.
    introvae = IntroVaeBetas(*betas, margin=5.0)
    method = words.method_section(betas, introvae, recommended, scale=0.5, latent_dim=2)
    config = ConfigDict(
        dict(
            seed=0,
            method=method,
            model=dict(
                kind="mlp", widths=(256,) * 4, latent_dim=2, compute_dtype="float32", logvar_range=(-30.0, 20.0),
                initial_gain=0.0,
            ),
            data=dict(name=name, batch_size=batch_size),
            optimizer=words.optimizer_section(recommended, TOY_MILESTONES),
            ema=words.ema_section(batch_size),
            training=dict(
                steps=30_000, warmup_steps=2_000 if words.warms_up else 0,
                steps_per_dispatch=500, log_every_steps=1_000, max_skipped_steps=20, max_negative_intervals=0,
            ),
            checkpoint=dict(every_steps=5_000, keep_last=2, keep_every_steps=0),
            evaluation=dict(samples=5_000, every_steps=0, best="none"),
        )
    )  # fmt: skip
    if words.tiny:
        config.model.widths = (16, 16)
        config.data.batch_size = 32
        config.ema.update(words.ema_section(32))
        config.evaluation.samples = 500
        config.optimizer.milestone_steps = ()
        config.training.update(
            steps=20, warmup_steps=min(config.training.warmup_steps, 10), steps_per_dispatch=5, log_every_steps=10
        )
        config.checkpoint.every_steps = 10
    return config
