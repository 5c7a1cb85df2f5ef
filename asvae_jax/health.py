"""What the figures of a run warn of, and the setting that mends it."""

import math
from collections.abc import Mapping

# Shares above which a warning is due, of fake images and of log-variances; of refused steps any is too many.
_MOST = 0.5
_SOME_CLAMPED = 0.01


def warnings(metrics: Mapping[str, float], method: str) -> dict[str, str]:
    """Warnings by name for metrics averaged over a logging interval; {} for a healthy run.

    Args:
      metrics: by name.
      method: `method.name` of the run: what a weight does is not the same in all.
    """
    found = {}
    if metrics.get("skipped", 0) > 0:
        found["skipped"] = (
            f"{metrics['skipped']:.1%} of the steps were refused, being not finite. "
            "Lower optimizer.learning_rate or set optimizer.clip_norm."
        )
    if metrics.get("kl_fake_minus_real", 0) < 0:
        # A hinge up to a margin pulls the harder the more it weighs; an exponential runs dry instead.
        remedy = "Raise method.b_neg or method.margin" if method == "introvae" else "Lower method.b_neg or method.b_kl"
        found["kl_fake_minus_real"] = (
            f"KL of fake images ({metrics['kl_fake']:.3g} nats) is below that of real ones ({metrics['kl_real']:.3g}): "
            f"the encoder does not tell them apart. {remedy}."
        )
    if metrics.get("saturated", 0) > _MOST:
        found["saturated"] = (
            f"The soft exponential is below 1e-6 for {metrics['saturated']:.0%} of the fake images, "
            "which leaves the encoder no gradient through it. Lower method.b_neg."
        )
    if metrics.get("active_units", 1) == 0:
        found["active_units"] = (
            "No code dimension varies with the image: the posterior has collapsed. "
            "Lower method.b_kl or raise method.b_rec."
        )
    if metrics.get("clamped_logvars", 0) > _SOME_CLAMPED:
        found["clamped_logvars"] = (
            f"{metrics['clamped_logvars']:.1%} of the log-variances are at the clamp. "
            "Widen model.logvar_range or lower optimizer.learning_rate."
        )
    return found


def not_finite(metrics: Mapping[str, float]) -> list[str]:
    """Names of the metrics that are not finite."""
    return [name for name, value in metrics.items() if not math.isfinite(value)]
