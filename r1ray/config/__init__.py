"""The schema of everything in conf/. Defaults live in the YAML only; a test compares the two key sets.

Hydra composes, Pydantic validates: every model here is frozen and rejects unknown keys. Rules that look at more than one key live
in `r1ray.check`, which reports every mistake at once. This package imports neither ray nor torch.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from r1ray.config.algo import AlgoConfig
from r1ray.config.base import NotEmpty, PositiveInt, Seed, StrictModel
from r1ray.config.data import CurriculumConfig, DataConfig, SourceConfig
from r1ray.config.engine import JudgeConfig, RolloutConfig, SyncConfig
from r1ray.config.model import LoraConfig, ModelConfig, ModelProperties
from r1ray.config.reward import RewardComponentConfig, RewardConfig, SandboxConfig
from r1ray.config.run import CheckpointConfig, ClusterConfig, EvalConfig, LogConfig, StageConfig
from r1ray.config.trainer import AuxiliaryTrainerConfig, CriticConfig, ReferenceConfig, SftConfig, TrainerConfig

__all__ = [
    "AlgoConfig",
    "AuxiliaryTrainerConfig",
    "CheckpointConfig",
    "ClusterConfig",
    "Config",
    "CriticConfig",
    "CurriculumConfig",
    "DataConfig",
    "EvalConfig",
    "JudgeConfig",
    "LogConfig",
    "LoraConfig",
    "ModelConfig",
    "ModelProperties",
    "ReferenceConfig",
    "RewardComponentConfig",
    "RewardConfig",
    "RolloutConfig",
    "SandboxConfig",
    "SftConfig",
    "SourceConfig",
    "StageConfig",
    "StrictModel",
    "SyncConfig",
    "TrainerConfig",
]


class Config(StrictModel):
    name: NotEmpty
    run_dir: NotEmpty
    seed: Seed
    steps: PositiveInt
    """Steps of an rl stage; each generates, scores and trains."""
    check: bool
    """Only check the configuration; needs no network, Ray or GPU."""
    resume: Literal["auto", "never"]
    deterministic: bool
    """Runs on the same machines are bitwise reproducible, also across a kill and a resume. Slower: engines wait for each other."""
    fault: Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    """Faults to inject, to see the run recover: `rollout-1:kill@3` or a list of such (`r1ray.run.fault`)."""
    device: Literal["cpu", "cuda"]
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
    stages: dict[str, StageConfig]
