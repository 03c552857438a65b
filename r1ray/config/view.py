"""One stage as the rules of the check see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1ray.config import (
    AlgoConfig,
    AuxiliaryTrainerConfig,
    CheckpointConfig,
    ClusterConfig,
    CriticConfig,
    DataConfig,
    EvalConfig,
    JudgeConfig,
    LogConfig,
    ModelConfig,
    ModelProperties,
    ReferenceConfig,
    RewardConfig,
    RolloutConfig,
    SandboxConfig,
    SftConfig,
    StageConfig,
    SyncConfig,
    TrainerConfig,
)
from r1ray.config.tree import value_of
from r1ray.mistakes import Mistake

if TYPE_CHECKING:
    from r1ray.algo.base import Algorithm
    from r1ray.stage_kinds import StageKind


class InvalidSection(Exception):
    """A rule read a section of the configuration that is invalid; its mistakes are reported separately."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllStages:
    """All stages of the run, for rules that compare stages."""

    stages: Mapping[str, StageConfig]
    trees: Mapping[str, Mapping[str, Any]]
    """{stage: its whole configuration as plain values}, in the order in which they run."""
    kinds: Mapping[str, "StageKind"]
    """Of the stages whose kind is known."""


class StageView:
    """The valid sections of one stage's configuration, and what is known of its model and algorithm.

    Reading a section that is invalid raises InvalidSection, which ends the rule that reads it: one mistake never causes a second
    message.
    """

    name: str
    raw: Mapping[str, Any]
    """The stage's whole configuration as plain values."""
    kind: "StageKind"
    run: AllStages
    properties: ModelProperties
    """Of the policy's model."""
    template_text: str
    """Text that every prompt of the model contains; reading it raises InvalidSection where it is unknown."""
    algorithm: "Algorithm"
    algorithm_error: Exception
    """Why there is no `algorithm`."""
    roles: list[str]
    """Trainers and reference that the stage starts: `["policy", "critic", "reference"]`."""
    run_dir: str
    resume: str
    seed: int
    steps: int
    deterministic: bool
    fault: list[str]
    device: str
    algo: AlgoConfig
    model: ModelConfig
    data: DataConfig
    reward: RewardConfig
    sandbox: SandboxConfig
    rollout: RolloutConfig
    trainer: TrainerConfig
    critic: CriticConfig
    prm: AuxiliaryTrainerConfig
    reference: ReferenceConfig
    judge: JudgeConfig
    sync: SyncConfig
    eval: EvalConfig
    sft: SftConfig
    checkpoint: CheckpointConfig
    cluster: ClusterConfig
    log: LogConfig

    def __init__(self, **known: Any) -> None:
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        raise InvalidSection(name)

    def mistake(self, key: str, rule: str, remedy: str, **shown: Any) -> Mistake:
        """A mistake in the value of `key`; `value=` replaces it in the message."""
        return Mistake(key=key, value=shown.get("value", value_of(self.raw, key)), rule=rule, remedy=remedy)
