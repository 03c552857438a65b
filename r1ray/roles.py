"""Which trainers there may be, and what the ranks of each go by."""

from typing import Literal

from r1ray.config import AuxiliaryTrainerConfig, Config, TrainerConfig
from r1ray.config.view import StageView

TrainerRole = Literal["policy", "critic", "prm"]
"""The policy's, the one of values, the one of process rewards."""
OTHERS: tuple[TrainerRole, ...] = ("critic", "prm")
TRAINERS: tuple[TrainerRole, ...] = ("policy", *OTHERS)


def section_of(role: str) -> str:
    """The section of the configuration that holds a role's num_workers and the like: the policy's is `trainer`, which the other
    trainers take as their defaults; every other role has a section of its own name."""
    return "trainer" if role == "policy" else role


def trainer_config(cfg: Config | StageView, role: TrainerRole) -> TrainerConfig:
    """What a trainer's ranks go by: the policy's own keys, with those of the critic or the process reward model laid over them.

    Example: with `critic.lr=5e-6` and `critic.overrides={zero_stage: 3}`, `trainer_config(cfg, "critic")` has both.
    """
    if role == "policy":
        return cfg.trainer
    other = cfg.critic if role == "critic" else cfg.prm
    own = {
        name: getattr(other, name) for name in AuxiliaryTrainerConfig.model_fields.keys() & TrainerConfig.model_fields
    }
    return TrainerConfig.model_validate({**cfg.trainer.model_dump(), **own, **other.overrides})
