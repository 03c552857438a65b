"""The papers' units: what a number in a recipe's header means in the keys of the configuration.

r1ray counts passes of the loop (`*_steps`) and optimiser updates (`*_updates`); papers count outputs a rollout, minibatches of
outputs, steps that are updates. Example: R1-Zero's 8,192 outputs a rollout in 16 minibatches are 512 problems a pass x 16
completions.
"""

from collections.abc import Callable, Mapping
from typing import Any

from r1ray.algo import policy_steps, roles_of
from r1ray.check import CheckedRun
from r1ray.config import Config
from r1ray.mistakes import did_you_mean
from r1ray.recipes.header import Number, Value

Unit = Callable[[Config], Any]
WEIGHT = "weight of "
"""With the name of a part of the reward: "weight of format"."""


def _completions(cfg: Config) -> int:
    return cfg.algo.prompts_per_step * cfg.algo.group_size


def _argument(name: str, *, of: str | None = None) -> Unit:
    """Of `algo.args`; of one algorithm alone, where another means something else by that name."""
    return lambda cfg: cfg.algo.args.get(name) if of in (None, cfg.algo.name) else None


def _reference_every(cfg: Config) -> int | None:
    """None where nothing is held to a reference."""
    return cfg.algo.reference_refresh_updates if cfg.algo.kl_coef else None


def _of(role: str, unit: Unit) -> Unit:
    """None where the algorithm trains no such model."""
    return lambda cfg: unit(cfg) if role in roles_of(cfg.algo) else None


def _overlong_cache(cfg: Config) -> Any:
    parts = [part for name, part in cfg.reward.components.items() if (part.name or name) == "overlong"]
    return parts[0].args.get("cache") if parts else None


UNITS: Mapping[str, Unit] = {
    "problems a pass": lambda cfg: cfg.algo.prompts_per_step,
    "completions a problem": lambda cfg: cfg.algo.group_size,
    "completions a pass": _completions,
    "updates a pass": lambda cfg: cfg.algo.num_minibatches,
    "completions an update": lambda cfg: _completions(cfg) / cfg.algo.num_minibatches,
    "problems an update": lambda cfg: cfg.algo.prompts_per_step / cfg.algo.num_minibatches,
    "critic updates a pass": _argument("critic_updates"),
    "passes": lambda cfg: cfg.steps,
    "updates": lambda cfg: policy_steps(cfg.algo, cfg.steps) * cfg.algo.num_minibatches,
    "learning rate": lambda cfg: cfg.trainer.lr,
    "last learning rate": lambda cfg: (
        cfg.trainer.lr * (1 if cfg.trainer.lr_schedule == "constant" else cfg.trainer.lr_min_ratio)
    ),
    "critic learning rate": _of("critic", lambda cfg: cfg.critic.lr),
    "process learning rate": _of("prm", lambda cfg: cfg.prm.lr),
    "warm-up updates": lambda cfg: cfg.trainer.warmup_updates,
    "warm-up passes": lambda cfg: cfg.trainer.warmup_updates / cfg.algo.num_minibatches,
    "critic warm-up updates": _of("critic", lambda cfg: cfg.critic.warmup_updates),
    "weight decay": lambda cfg: cfg.trainer.weight_decay,
    "betas": lambda cfg: cfg.trainer.betas,
    "gradient clip": lambda cfg: cfg.trainer.grad_clip,
    "KL coefficient": lambda cfg: cfg.algo.kl_coef,
    "clip low": lambda cfg: cfg.algo.clip_low,
    "clip high": lambda cfg: cfg.algo.clip_high,
    "dual clip": lambda cfg: cfg.algo.dual_clip,
    "value clip": _argument("value_clip"),
    "temperature": lambda cfg: cfg.rollout.temperature,
    "top-p": lambda cfg: cfg.rollout.top_p,
    "prompt tokens": lambda cfg: cfg.data.max_prompt_length,
    "response tokens": lambda cfg: cfg.rollout.max_response_length,
    "tokens": lambda cfg: cfg.data.max_prompt_length + cfg.rollout.max_response_length,
    "reference every": _reference_every,
    "reference every passes": lambda cfg: (
        cfg.algo.reference_refresh_updates / cfg.algo.num_minibatches if cfg.algo.kl_coef else None
    ),
    "entropy coefficient": lambda cfg: cfg.algo.entropy_coef,
    "entropy target": lambda cfg: cfg.algo.entropy_target,
    "entropy step": lambda cfg: cfg.algo.entropy_step,
    "entropy most": lambda cfg: cfg.algo.entropy_max,
    "gamma": _argument("gamma"),
    "lambda": _argument("lam"),
    "critic lambda": _argument("lam_critic"),
    "length-adaptive alpha": _argument("alpha", of="vapo"),
    "imitation coefficient": _argument("imitation_coef"),
    "frozen passes": _argument("policy_frozen_steps"),
    "process coefficient": _argument("process_coef"),
    "beta": _argument("beta"),
    "overlong cache": _overlong_cache,
    "kept above": lambda cfg: cfg.algo.filter.min_solve_rate,
    "kept below": lambda cfg: cfg.algo.filter.max_solve_rate,
    "share of kept groups": lambda cfg: cfg.algo.filter.min_share,
    "refills": lambda cfg: cfg.algo.filter.max_refills,
    "easy pool": lambda cfg: cfg.data.curriculum.args.get("probability"),
    "evaluation samples": lambda cfg: cfg.eval.num_samples,
    "evaluation temperature": lambda cfg: cfg.eval.temperature,
    "evaluation top-p": lambda cfg: cfg.eval.top_p,
}
"""{name in a header: its value in one stage's configuration}."""
SUMS = ("passes", "updates")
"""Of these a run has as many as its stages have together."""


class DiffersByStage(ValueError):
    """There is no one value: a stage has to be named."""


def known(name: str) -> bool:
    return name in UNITS or name.startswith(WEIGHT)


def value_of(run: CheckedRun, name: str, stage: str | None = None) -> Value:
    """What the run does, in the unit `name`, in one rl stage or in all of them.

    Raises ValueError for an unknown name or stage, and DiffersByStage where stages differ and none is named.
    """
    stages = {checked.name: checked.config for checked in run.stages if checked.stage.kind == "rl"}
    if not known(name):
        raise ValueError(f"{name!r} is none of the units; {did_you_mean(name, [*UNITS, f'{WEIGHT}PART'])}")
    if stage is not None and stage not in stages:
        raise ValueError(f"{name} @{stage}: the rl stages are {', '.join(stages) or 'none'}")
    values = [_in_stage(cfg, name) for key, cfg in stages.items() if stage in (None, key)]
    if name in SUMS:
        return sum(values)
    if any(value != values[0] for value in values):
        raise DiffersByStage(
            f"{name} differs by stage ({dict(zip(stages, values, strict=True))}): say of which, {name} @STAGE"
        )
    return values[0] if values else None


def is_so(run: CheckedRun, number: Number) -> bool:
    """Whether the run does what the header says."""
    told, done = number.value, value_of(run, number.name, number.stage)
    if told is None or done is None:
        return told is done
    told, done = (value if isinstance(value, tuple) else (value,) for value in (told, done))
    same = (abs(a - b) <= 1e-9 * max(abs(a), abs(b)) for a, b in zip(told, done, strict=False))
    return len(told) == len(done) and all(same)


def _in_stage(cfg: Config, name: str) -> Any:
    if name.startswith(WEIGHT):
        part = cfg.reward.components.get(name.removeprefix(WEIGHT))
        return part.weight if part else None
    return UNITS[name](cfg)
