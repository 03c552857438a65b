"""Adaptive coefficients. Pure: from a coefficient and a measurement to the coefficient of the next step."""

MAX_KL_ERROR = 0.2


def adapted_kl_coef(coef: float, *, kl: float, target: float, num_samples: int, horizon: int) -> float:
    """beta (1 + clip(kl / target - 1, -0.2, 0.2) n / horizon) (Ziegler et al., arXiv 1909.08593, 2.2; verl's adaptive controller).

    Args:
        kl: measured in this step, in nats per token (as in verl; Ziegler's target of 6 is per completion).
        num_samples: n, completions of this step.
        horizon: completions in which the coefficient can change by a fifth of itself.

    Example: coefficient 0.2, KL 9 at target 6, 256 of 10,000 samples: `0.2 * (1 + 0.2 * 0.0256)`.
    """
    error = min(max(kl / target - 1, -MAX_KL_ERROR), MAX_KL_ERROR)
    return coef * (1 + error * num_samples / horizon)


def adapted_entropy_coef(coef: float, *, entropy: float, target: float, step: float, largest: float) -> float:
    """Up by `step` while the entropy is below its target, down otherwise, within [0, largest] (Skywork-OR1, arXiv 2505.22312).

    The bonus itself is on only where the entropy is below the target (`entropy_bonus`).
    """
    return min(max(coef + (step if entropy < target else -step), 0.0), largest)


def entropy_bonus(coef: float, *, entropy: float, target: float) -> float:
    """Weight of the entropy term: the coefficient, or 0 while the entropy is at or above its target."""
    return coef if entropy < target else 0.0
