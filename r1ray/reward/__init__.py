"""Rewards by name. To add one, write it in a file of its own (`r1ray.reward.base` says how) and add it to REWARDS; or leave it in
your own package and use `package.module:function` as its name."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError

from r1ray.config import RewardConfig
from r1ray.plugin import Args, args_of, resolve
from r1ray.reward import base
from r1ray.reward.accuracy import accuracy
from r1ray.reward.answered import answered
from r1ray.reward.code.codeforces import codeforces
from r1ray.reward.code.difficulty import by_difficulty
from r1ray.reward.code.fraction import code_fraction
from r1ray.reward.code.ioi import ioi
from r1ray.reward.compose import Component, Scorer
from r1ray.reward.cosine import cosine
from r1ray.reward.format import code_format, format_reward, format_soft, tag_count, think_format
from r1ray.reward.forms import ACCEPTED, as_reward
from r1ray.reward.judge import judge
from r1ray.reward.language import language
from r1ray.reward.length import length
from r1ray.reward.logic import logic_rl
from r1ray.reward.mixed import mixed
from r1ray.reward.overlong import overlong
from r1ray.reward.repetition import repetition
from r1ray.reward.steps import reasoning_steps
from r1ray.reward.swe import patch_similarity
from r1ray.reward.text_f1 import text_f1

REWARDS: Mapping[str, Callable[..., Any]] = {
    "accuracy": accuracy,
    "answered": answered,
    "code_format": code_format,
    "code_fraction": code_fraction,
    "codeforces": codeforces,
    "cosine": cosine,
    "format": format_reward,
    "format_soft": format_soft,
    "ioi": ioi,
    "judge": judge,
    "language": language,
    "length": length,
    "logic_rl": logic_rl,
    "mixed": mixed,
    "overlong": overlong,
    "patch_similarity": patch_similarity,
    "reasoning_steps": reasoning_steps,
    "repetition": repetition,
    "tag_count": tag_count,
    "test_difficulty": by_difficulty,
    "text_f1": text_f1,
    "think_format": think_format,
}


def reads_tokens(cfg: RewardConfig) -> bool:
    """Whether a component may look at the tokens of a completion."""
    names = (component.name or name for name, component in cfg.components.items())
    return any(base.reads_tokens(as_reward(resolve(name, REWARDS, what="reward"))) for name in names)


def make(cfg: RewardConfig) -> Scorer:
    """The scorer that the configuration describes.

    Raises:
        ValueError: there is no such reward, it has none of the accepted forms, or its arguments do not fit what it declares.
    """
    components: list[Component] = []
    for name, component in cfg.components.items():
        reward = resolve(component.name or name, REWARDS, what="reward")
        try:
            reward = as_reward(reward)
        except ValueError as error:
            raise ValueError(f"reward.components.{name}: {component.name or name} {error}; {ACCEPTED}") from error
        try:
            args = args_of(reward).model_validate(component.args)
        except ValidationError as error:
            raise ValueError(f"reward.components.{name}.args: {error}") from error
        components.append(
            Component(
                name=name,
                weight=component.weight,
                schedule=component.schedule,
                sources=None if component.sources is None else frozenset(component.sources),
                reward=reward if type(args) is Args else partial(reward, args=args),
            )
        )
    return Scorer(components, truncated=cfg.truncated)
