"""The quantities that papers give numbers for, and how each follows from the configuration.

r1ray counts steps of the loop (`*_steps`) and optimizer updates (`*_updates`); papers count rollouts or mini-batches, and some call
an update a step. Example: R1-Zero's 8,192 outputs per rollout in 16 mini-batches are 512 prompts per step x 16 completions.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from r1ray.algo import policy_steps, roles_of
from r1ray.check import CheckedRun
from r1ray.config import Config
from r1ray.config.tree import value_of
from r1ray.mistakes import did_you_mean
from r1ray.recipes.paper import EVERY_STAGE, Number, Value
from r1ray.stage_kinds import kind_of

Quantity = str | Callable[[Config], Any]
"""A key of the configuration, or a function of it."""


def _completions(cfg: Config) -> int:
    return cfg.algo.prompts_per_step * cfg.algo.group_size


def _final_lr(cfg: Config) -> float:
    return cfg.trainer.lr * (1 if cfg.trainer.lr_schedule == "constant" else cfg.trainer.lr_min_ratio)


def _reference_updates(cfg: Config) -> int | None:
    """None without a KL to the reference."""
    return cfg.algo.reference_refresh_updates if cfg.algo.kl_coef else None


def _reference_steps(cfg: Config) -> float | None:
    return cfg.algo.reference_refresh_updates / cfg.algo.num_minibatches if cfg.algo.kl_coef else None


QUANTITIES: Mapping[str, Quantity] = {
    "prompts per step": "algo.prompts_per_step",
    "completions per prompt": "algo.group_size",
    "completions per step": _completions,
    "updates per step": "algo.num_minibatches",
    "completions per update": lambda cfg: _completions(cfg) / cfg.algo.num_minibatches,
    "prompts per update": lambda cfg: cfg.algo.prompts_per_step / cfg.algo.num_minibatches,
    "critic updates per step": "algo.args.critic_updates",
    "steps": "steps",
    "updates": lambda cfg: policy_steps(cfg.algo, cfg.steps) * cfg.algo.num_minibatches,
    "learning rate": "trainer.lr",
    "final learning rate": _final_lr,
    "critic learning rate": lambda cfg: cfg.critic.lr if "critic" in roles_of(cfg.algo) else None,
    "PRM learning rate": lambda cfg: cfg.prm.lr if "prm" in roles_of(cfg.algo) else None,
    "warm-up updates": "trainer.warmup_updates",
    "warm-up steps": lambda cfg: cfg.trainer.warmup_updates / cfg.algo.num_minibatches,
    "weight decay": "trainer.weight_decay",
    "betas": "trainer.betas",
    "gradient clip": "trainer.grad_clip",
    "KL coefficient": "algo.kl_coef",
    "clip low": "algo.clip_low",
    "clip high": "algo.clip_high",
    "dual clip": "algo.dual_clip",
    "temperature": "rollout.temperature",
    "top-p": "rollout.top_p",
    "prompt tokens": "data.max_prompt_length",
    "response tokens": "rollout.max_response_length",
    "total tokens": lambda cfg: cfg.data.max_prompt_length + cfg.rollout.max_response_length,
    "reference refresh updates": _reference_updates,
    "reference refresh steps": _reference_steps,
    "entropy coefficient": "algo.entropy_coef",
    "entropy target": "algo.entropy_target",
    "gamma": "algo.args.gamma",
    "lambda": "algo.args.lam",
    "critic lambda": "algo.args.lam_critic",
    "imitation coefficient": "algo.args.imitation_coef",
    "value pretraining steps": "algo.args.policy_frozen_steps",
    "process reward coefficient": "algo.args.process_coef",
    "PRM beta": "algo.args.beta",
    "overlong cache": "reward.components.overlong.args.cache",
    "solve rate above": "algo.filter.min_solve_rate",
    "solve rate below": "algo.filter.max_solve_rate",
    "min share of kept groups": "algo.filter.min_share",
    "easy pool probability": "data.curriculum.args.probability",
    "evaluation samples": "eval.num_samples",
    "evaluation temperature": "eval.temperature",
    "evaluation top-p": "eval.top_p",
}
"""{name of a quantity: its value in one stage's configuration}. Groups strictly between the two solve rates are kept."""
SUMS = ("steps", "updates")
"""Quantities that are summed over the stages of a run."""


def values_of(run: CheckedRun, name: str, stage: str = EVERY_STAGE) -> dict[str, Value]:
    """{stage: the value of quantity `name`} for one stage or for all; {EVERY_STAGE: the total} for a quantity in SUMS.

    Only stages that train by reinforcement learning count. Raises ValueError for an unknown name or stage.
    """
    if name not in QUANTITIES:
        raise ValueError(f"{name!r} is not a quantity; {did_you_mean(name, QUANTITIES)}")
    stages = {checked.name: checked.config for checked in run.stages if kind_of(checked.stage.kind).reinforcement}
    if stage not in (EVERY_STAGE, *stages):
        listed = ", ".join(stages) or "none"
        raise ValueError(f"{name} of stage {stage}: the stages with reinforcement learning are {listed}")
    values = {key: _value(cfg, QUANTITIES[name]) for key, cfg in stages.items() if stage in (EVERY_STAGE, key)}
    return {EVERY_STAGE: sum(values.values())} if name in SUMS and stage == EVERY_STAGE else values


def _value(cfg: Config, quantity: Quantity) -> Any:
    return value_of(cfg.model_dump(), quantity) if isinstance(quantity, str) else quantity(cfg)


def matches_run(run: CheckedRun, number: Number) -> bool:
    """Whether the run has this number of the paper."""
    wanted = np.array(number.value, dtype=float)  # nan for null
    done = [np.array(value, dtype=float) for value in values_of(run, number.name, number.stage).values()]
    return all(
        value.shape == wanted.shape and np.allclose(value, wanted, rtol=1e-9, atol=0, equal_nan=True) for value in done
    )
