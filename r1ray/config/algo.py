"""Options of the algorithm."""

from typing import Annotated, Any, Literal

from pydantic import Field

from r1ray.config.base import AbovePositive, Count, Fraction, NotNegative, Positive, Strict


class FilterConfig(Strict):
    """Dynamic sampling (DAPO, arXiv 2503.14476, 3.2): which groups are trained on, and how many are generated in place of
    others.
    """

    min_solve_rate: Fraction | None
    max_solve_rate: Fraction | None
    """A group is kept when min_solve_rate < share of correct completions < max_solve_rate (DAPO: 0 and 1); null: no bound on that
    side. A group whose correctness is unknown is kept."""
    drop_equal: bool
    """Drop groups whose rewards are all equal (GPG)."""
    min_share: Fraction
    """Share of the step's groups that must pass; once so many have, the earliest others fill the step (DAPO 1.0, GPG 0.6)."""
    max_refills: Positive
    """Groups generated for a step are at most this many times prompts_per_step (DAPO: 10)."""

    @property
    def used(self) -> list[str]:
        """The options that drop groups."""
        bounds = [name for name in ("min_solve_rate", "max_solve_rate") if getattr(self, name) is not None]
        return [*bounds, *(["drop_equal"] if self.drop_equal else [])]


class AlgoConfig(Strict):
    """Options that algorithms share. Where papers disagree there is an option, so recipes differ and code does not."""

    name: str
    """A name in r1ray.algo.ALGORITHMS or `package.module:attribute`."""
    args: dict[str, Any]
    """Arguments of this algorithm alone (its `Args`)."""
    group_size: Positive
    """G, completions per prompt."""
    prompts_per_step: Positive
    """P, prompts per step: P * G samples."""
    num_minibatches: Positive
    """Optimizer updates per step (R1: 16)."""
    filter: FilterConfig
    std_ddof: Literal[0, 1]
    """verl, TRL: 1 (sample deviation); numpy default: 0."""
    adv_eps: NotNegative
    """Added to the deviation: verl 1e-6, TRL 1e-4, OpenRLHF 1e-9."""
    scale_by_std: bool
    """False: advantages are reward - mean (Dr. GRPO)."""
    clip_low: NotNegative
    clip_high: NotNegative
    """Free floats: R1 clips at 10, DAPO at 0.2 / 0.28."""
    dual_clip: Annotated[float, Field(gt=1)] | None
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
    """Replace the reference by the policy every N optimizer updates (R1: 400); 0: never."""
    entropy_coef: NotNegative
    """Of the entropy bonus; with entropy_target its initial value."""
    entropy_target: AbovePositive | None
    """Nats a token: below it the bonus is on and grows (`r1ray.algo.controllers`); null: entropy_coef stays."""
    entropy_step: NotNegative
    entropy_max: NotNegative
    """How much the coefficient changes per step, and its maximum."""
    importance_sampling: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
    """What becomes of the gap between engine and trainer: the policy term is weighted by pi_trainer / pi_engine of the token or of
    the whole sequence, at most is_cap (truncate) or 0 above it (mask)."""
    is_cap: Annotated[float, Field(ge=1)]
