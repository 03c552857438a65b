"""The roles of trainers, and the configuration of each."""

from typing import TYPE_CHECKING, Literal

from r1ray.config import AuxiliaryTrainerConfig, Config, TrainerConfig

if TYPE_CHECKING:
    from r1ray.config.view import StageView

TrainerRole = Literal["policy", "critic", "prm"]
"""policy; critic: values; prm: process rewards."""
AUXILIARY_TRAINERS: tuple[TrainerRole, ...] = ("critic", "prm")
TRAINERS: tuple[TrainerRole, ...] = ("policy", *AUXILIARY_TRAINERS)


def section_of(role: str) -> str:
    """The section of the configuration with a role's num_workers and resources. The policy's is `trainer`, whose values are the
    defaults of the other trainers; every other role has a section of its own name."""
    return "trainer" if role == "policy" else role


def trainer_config(cfg: "Config | StageView", role: TrainerRole) -> TrainerConfig:
    """The configuration of a trainer: the policy's keys, overridden by those of the critic or the process reward model.

    Example: with `critic.lr=5e-6` and `critic.overrides={zero_stage: 3}`, `trainer_config(cfg, "critic")` has both.
    """
    if role == "policy":
        return cfg.trainer
    other = cfg.critic if role == "critic" else cfg.prm
    own = {
        name: getattr(other, name) for name in AuxiliaryTrainerConfig.model_fields.keys() & TrainerConfig.model_fields
    }
    return TrainerConfig.model_validate({**cfg.trainer.model_dump(), **own, **other.overrides})
