"""What an algorithm goes by."""

from typing import Any, Literal

from r1ray.config.base import AbovePositive, Count, Fraction, NotNegative, Positive, Strict


class AlgoConfig(Strict):
    """What one pass does with its groups. Options on which the literature disagrees are free (recipes differ, not code)."""

    name: str
    """A name in r1ray.algo.ALGORITHMS or `package.module:attribute`."""
    args: dict[str, Any]
    """What only this algorithm has; passed to it."""
    group_size: Positive
    """G, replies per problem."""
    problems_per_step: Positive
    """P, problems per loop pass: P * G samples."""
    minibatches: Positive
    """Optimiser updates per loop pass (R1: 16)."""
    keep_low: Fraction | None
    keep_high: Fraction | None
    """Dynamic sampling: a group is trained on when low < share of correct replies < high (DAPO: 0 and 1); null: open on that side.
    A group of which nothing says right or wrong is kept."""
    keep_unequal: bool
    """And only when its rewards differ (GPG)."""
    min_kept: Fraction
    """Share of the step's groups that must pass; once so many have, the earliest others fill the step (DAPO 1.0, GPG 0.6)."""
    max_refills: Positive
    """Groups generated for a step are at most this many times problems_per_step (DAPO: 10)."""
    std_ddof: Literal[0, 1]
    """verl, TRL: 1 (sample deviation); numpy default: 0."""
    adv_eps: NotNegative
    """Added to the deviation: verl 1e-6, TRL 1e-4, OpenRLHF 1e-9."""
    scale_by_std: bool
    """False: advantages are reward - mean (Dr. GRPO)."""
    clip_low: NotNegative
    clip_high: NotNegative
    """Free floats: R1 clips at 10, DAPO at 0.2 / 0.28."""
    dual_clip: float | None
    """c > 1: lower bound c * A for A < 0; null: off."""
    aggregation: Literal["seq_mean_token_mean", "token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"]
    kl_coef: NotNegative
    """beta; 0 creates no reference group."""
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_in: Literal["loss", "reward"]
    """A term of the loss (GRPO), or subtracted from every token's reward (PPO, REINFORCE++)."""
    kl_target: AbovePositive | None
    """Nats a token: kl_coef follows it (`r1ray.algo.controllers`); null: kl_coef stays."""
    kl_horizon: Positive
    """Samples in which the coefficient can change by a fifth of itself."""
    reference_refresh_updates: Count
    """Replace the reference by the policy every N optimiser updates (R1: 400 steps of 16... ); 0: never."""
    entropy_coef: NotNegative
    """Of the entropy bonus; with entropy_target only where it starts."""
    entropy_target: AbovePositive | None
    """Nats a token: below it the bonus is on and grows (`r1ray.algo.controllers`); null: entropy_coef stays."""
    entropy_step: NotNegative
    entropy_max: NotNegative
    """By how much the coefficient moves a step, and how far."""
    rollout_correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
    """What becomes of the gap between engine and trainer: the policy term is weighted by pi_trainer / pi_engine of the token or of
    the whole sequence, at most correction_cap (truncate) or 0 above it (mask)."""
    correction_cap: AbovePositive
