"""Trainers and the reference."""

from typing import Annotated, Any, Literal

from pydantic import Field

from r1ray.config.base import (
    Fraction,
    Gpus,
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StrictModel,
)


class TrainerConfig(StrictModel):
    num_workers: PositiveInt
    cpus_per_worker: NonNegativeFloat
    gpus_per_worker: Gpus
    zero_stage: Literal[0, 1, 2, 3]
    precision: Literal["fp32", "bf16_autocast", "bf16"]
    max_tokens_per_micro_batch: PositiveInt
    """Maximum tokens of a packed row; a longer sequence is packed into a row of its own."""
    sequence_parallel: PositiveInt
    """Ranks that share each row, each with a slice of its tokens (DeepSpeed-Ulysses); must divide num_workers."""
    lr: NonNegativeFloat
    lr_schedule: Literal["constant", "linear", "cosine"]
    lr_min_ratio: Fraction
    """The schedule ends at lr * lr_min_ratio."""
    warmup_updates: NonNegativeInt
    betas: tuple[Momentum, Momentum]
    adam_eps: PositiveFloat
    weight_decay: NonNegativeFloat
    grad_clip: NonNegativeFloat
    """Global norm; 0: off."""
    activation_checkpointing: bool
    cpu_offload: bool
    max_skipped_updates: PositiveInt
    """The run stops when this many consecutive updates were skipped because their loss or gradient was not finite."""
    logprob_gap_limit: Annotated[float, Field(gt=0, allow_inf_nan=True)] | None
    """A step whose rollout and trainer log-probs differ by more is not trained on. With precision fp32 the largest
    difference of a token is compared, otherwise the mean. null: 1e-3 with fp32, 0.1 otherwise; inf: every step is trained on."""
    profile_updates: list[PositiveInt]
    """Updates that every rank profiles with torch's profiler; the traces are in the run's logs folder."""
    timeout_s: PositiveFloat
    start_timeout_s: PositiveFloat
    deepspeed: dict[str, Any]
    """Merged into the DeepSpeed config; keys that collide with ours are refused."""

    @property
    def data_parallel(self) -> int:
        """Data-parallel size: ranks that share rows count once."""
        return self.num_workers // self.sequence_parallel


class AuxiliaryTrainerConfig(StrictModel):
    """A trainer of a model other than the policy. Keys of `trainer` that are missing here have the policy's values."""

    path: str | None
    """The model it starts from, as model.path; null: the one that the policy starts from."""
    num_workers: PositiveInt
    cpus_per_worker: NonNegativeFloat
    gpus_per_worker: Gpus
    lr: NonNegativeFloat
    warmup_updates: NonNegativeInt
    overrides: dict[str, Any]
    """Other keys of `trainer`, where they differ from the policy's: {zero_stage: 3, betas: [0.9, 0.95]}."""


class CriticConfig(AuxiliaryTrainerConfig):
    """The critic, for algorithms that need values (PPO and its variants).

    If `path` is a reward model (sequence classification), its head is used too. If `path` is null and the earlier stage trained a
    critic, this stage starts from that critic.
    """

    head_init: Literal["zero", "normal", "uniform"]
    """Initial weights of a value head that is not in the model folder: 0; normal with deviation 1/sqrt(width + 1); or
    Open-Reasoner-Zero's uniform between -sqrt(5) and sqrt(5)."""


class ReferenceConfig(StrictModel):
    num_workers: PositiveInt
    cpus_per_worker: NonNegativeFloat
    gpus_per_worker: Gpus
    zero_stage: Literal[0, 3]
    """3 when the model does not fit one device."""


class SftConfig(StrictModel):
    """Read by stages of kind `sft` only."""

    batch_size: PositiveInt
    """Sequences per optimiser update."""
    epochs: PositiveFloat
    max_length: PositiveInt
    init: Literal["pretrained", "random"]
    """random: weights initialised from the model's config and the seed (how the built-in base model is made)."""
