"""Options of the algorithm."""

from typing import Annotated, Any, Literal

from pydantic import Field

from r1ray.config.base import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, StrictModel


class FilterConfig(StrictModel):
    """Dynamic sampling (DAPO, arXiv 2503.14476, 3.2): which groups are trained on, and how many more are generated to replace
    rejected ones.
    """

    min_solve_rate: Fraction | None
    max_solve_rate: Fraction | None
    """A group is kept when min_solve_rate < share of correct completions < max_solve_rate (DAPO: 0 and 1); null: no bound on that
    side. A group whose correctness is unknown is kept."""
    drop_equal: bool
    """Drop groups whose rewards are all equal (GPG)."""
    min_share: Fraction
    """Share of the step's groups that must pass the filter. When that many have passed, the earliest rejected groups fill the
    rest of the step (DAPO 1.0, GPG 0.6)."""
    max_refills: PositiveInt
    """Groups generated for a step are at most this many times prompts_per_step (DAPO: 10)."""

    @property
    def used(self) -> list[str]:
        """The options that drop groups."""
        bounds = [name for name in ("min_solve_rate", "max_solve_rate") if getattr(self, name) is not None]
        return [*bounds, *(["drop_equal"] if self.drop_equal else [])]


class RejectionConfig(StrictModel):
    """Which sequences are left out of the policy term because engine and trainer disagree on them too much
    (`r1ray.algo.mismatch`).
    """

    by: Literal["none", "mean_k1", "mean_k2", "mean_k3", "sum_k1", "sum_k2", "sum_k3"]
    """Estimate of KL(engine || trainer) from the tokens of the sequence: their mean or sum, in nats (`r1ray.algo.ops.kl`)."""
    low: float | None
    high: float | None
    """A sequence is kept when low <= estimate <= high; null: no bound on that side. k1 can be negative."""
    veto: Annotated[float, Field(gt=0, lt=1)] | None
    """A sequence is rejected when one of its tokens has pi_trainer / pi_engine below this (verl: 1e-4); null: off."""

    @property
    def used(self) -> bool:
        return self.by != "none" or self.veto is not None


class AlgoConfig(StrictModel):
    """Options that algorithms share. Where papers disagree there is an option, so recipes differ and code does not."""

    name: str
    """A name in r1ray.algo.ALGORITHMS or `package.module:attribute`."""
    args: dict[str, Any]
    """Arguments of this algorithm alone (its `Args`)."""
    group_size: PositiveInt
    """G, completions per prompt."""
    prompts_per_step: PositiveInt
    """P, prompts per step: P * G samples."""
    num_minibatches: PositiveInt
    """Optimizer updates per step (R1: 16)."""
    filter: FilterConfig
    std_ddof: Literal[0, 1]
    """verl, TRL: 1 (sample deviation); numpy default: 0."""
    adv_eps: NonNegativeFloat
    """Added to the deviation: verl 1e-6, TRL 1e-4, OpenRLHF 1e-9."""
    scale_by_std: bool
    """False: advantages are reward - mean (Dr. GRPO)."""
    std_over: Literal["group", "batch"]
    """The deviation is that of the group's rewards, or of all rewards of the step (Lite PPO; TRL: scale_rewards="batch"). Read by
    the algorithms whose advantage is GRPO's."""
    clip_low: NonNegativeFloat
    clip_high: NonNegativeFloat
    """The ratio is clipped to [1 - clip_low, 1 + clip_high]; any values: R1 10, DAPO 0.2 and 0.28."""
    dual_clip: Annotated[float, Field(gt=1)] | None
    """c > 1: lower bound c * A for A < 0; null: off."""
    aggregation: Literal["seq_mean_token_mean", "token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"]
    kl_coef: NonNegativeFloat
    """beta; 0 creates no reference group."""
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_in: Literal["loss", "reward"]
    """A term of the loss (GRPO), or subtracted from every token's reward (PPO, REINFORCE++)."""
    kl_target: PositiveFloat | None
    """Target KL, nats per token: kl_coef is adapted to reach it (`r1ray.algo.controllers`); null: kl_coef is constant."""
    kl_horizon: PositiveInt
    """Number of samples over which kl_coef changes by at most 20 %."""
    reference_refresh_updates: NonNegativeInt
    """Replace the reference by the policy every N optimizer updates (R1: 400); 0: never."""
    entropy_coef: NonNegativeFloat
    """Coefficient of the entropy bonus; its initial value if entropy_target is set."""
    entropy_target: PositiveFloat | None
    """Nats per token: while the entropy is lower, the bonus is on and its coefficient grows (`r1ray.algo.controllers`); null:
    entropy_coef is constant."""
    entropy_coef_step: NonNegativeFloat
    entropy_coef_max: NonNegativeFloat
    """How much the coefficient changes per step, and its maximum."""
    importance_sampling: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
    """Correction of the engine-trainer mismatch: the policy term is weighted by pi_trainer / pi_engine of the token or of
    the whole sequence, limited to [is_floor, is_cap] (truncate) or 0 outside (mask)."""
    is_cap: Annotated[float, Field(ge=1)]
    is_floor: Fraction
    """0: no lower bound. IcePop: token_mask with is_floor=0.5 and is_cap=5."""
    rejection: RejectionConfig
